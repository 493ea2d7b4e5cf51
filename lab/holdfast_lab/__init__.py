# SPDX-License-Identifier: Apache-2.0
"""The lab: real Debian machines on one host, for Holdfast's tests and demonstrations."""
