# SPDX-License-Identifier: Apache-2.0
"""The one exception that the lab shows to its user, and the runner of outside commands."""

import subprocess


class LabError(Exception):
    """What went wrong and what to do next, in one line."""


def run(argv, *, stdin=None, check=True, **options):
    """Runs a command and returns its result; a failure becomes a LabError with the command's last words."""
    try:
        done = subprocess.run(argv, input=stdin, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              stdin=subprocess.DEVNULL if stdin is None else None, **options)
    except FileNotFoundError:
        raise LabError(f"'{argv[0]}' is not installed: install the packages of tools/packages.lab-host") from None
    if check and done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise LabError(f"'{' '.join(argv[:6])}' failed with {done.returncode}: {words[-1] if words else 'no message'}")
    return done
