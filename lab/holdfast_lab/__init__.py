"""The lab: real Debian machines on one host, for Holdfast's tests and demonstrations."""
