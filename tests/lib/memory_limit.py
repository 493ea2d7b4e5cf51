# SPDX-License-Identifier: Apache-2.0
"""A bound on the memory of some processes of a lab machine, page cache included. It is the host's: machines own no memory controller."""

import contextlib
import os
from pathlib import Path

V1, V2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


def _controller():
    """(parent folder, name of the limit), or None where this host bounds nothing."""
    if (V1 / "memory.limit_in_bytes").exists():
        return V1, "memory.limit_in_bytes"
    if (V2 / "cgroup.subtree_control").exists() and "memory" in (V2 / "cgroup.subtree_control").read_text().split():
        return V2, "memory.max"
    return None


def is_possible():
    return _controller() is not None


@contextlib.contextmanager
def limited(name, limit_bytes):
    """Yields take(mark): processes whose environment holds that text come under the limit, what they start too."""
    parent, file = _controller()
    group = parent / name
    group.mkdir()
    (group / file).write_text(str(limit_bytes))

    def take(mark):
        taken = [pid for pid in _processes_with(mark.encode()) if _move(pid, group)]
        if not taken:
            raise AssertionError(f"no process is marked {mark}")
        return taken
    try:
        yield take
    finally:
        for pid in (group / "cgroup.procs").read_text().split():     # whoever is left goes back
            _move(int(pid), parent)
        group.rmdir()


def _processes_with(mark):
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes():
                yield int(entry.name)


def _move(pid, group):
    with contextlib.suppress(ProcessLookupError):
        (group / "cgroup.procs").write_text(str(pid))
        return True
    return False
