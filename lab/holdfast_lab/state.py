# SPDX-License-Identifier: Apache-2.0
"""What `up` decided, kept for the later commands; and the locks between commands that run at once."""

import contextlib
import fcntl
import json
import os

from .errors import LabError
from .settings import RUN


def save(places, state):
    scratch = places.state_file.with_suffix(".new")
    scratch.write_text(json.dumps(state, indent=1))
    scratch.rename(places.state_file)


def load(places):
    try:
        return json.loads(places.state_file.read_text())
    except FileNotFoundError:
        raise LabError(f"lab '{places.lab}' is not up: start it with 'lab/lab up'") from None


def layers_in_use():
    """The image layers under any running lab: pruning the cache must not pull them away."""
    used = set()
    for file in RUN.glob("*/state.json"):
        with contextlib.suppress(FileNotFoundError, ValueError):
            for chain in json.loads(file.read_text())["layers"].values():
                used.update(chain)
    return used


@contextlib.contextmanager
def lock(path, *, shared=False):
    """Holds a lock file. The file may be unlinked by its holder, so make sure that what we locked is what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(fd).st_ino:
                break
        os.close(fd)
    try:
        yield
    finally:
        os.close(fd)


def lab_lock_file(places):
    return RUN / f".{places.lab}.lock"
