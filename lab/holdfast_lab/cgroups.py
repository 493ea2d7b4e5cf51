# SPDX-License-Identifier: Apache-2.0
"""Control groups: how the lab finds, freezes and kills every process of a machine, whatever became of its parents.

A machine has a group of its own in each hierarchy (version 1, 2 or both), because its systemd takes the group that it
starts in for the root of everything. The group's path carries the lab's name and is the only record of the processes:
it is joined before a machine's first program starts, so that a killed `lab` command leaves no process behind unfound.
"""

import contextlib
import functools
import os
import signal
import time
from pathlib import Path

from .errors import LabError


@functools.cache
def _hierarchies():
    """Mount points of all hierarchies, with the controllers of version 1 (None: version 2)."""
    found = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, flags = line.split()[:4]
        if kind == "cgroup":
            found[Path(where)] = set(flags.split(","))
        elif kind == "cgroup2":
            found[Path(where)] = None
    if not found:
        raise LabError("no control groups are mounted under /sys/fs/cgroup: mount cgroup2 there")
    return found


@functools.cache
def _freezer():
    """The hierarchy that freezes, and whether it is of version 1."""
    for root, controllers in _hierarchies().items():
        if controllers and "freezer" in controllers:
            return root, True
    for root, controllers in _hierarchies().items():
        if controllers is None:
            return root, False
    raise LabError("no freezer control group is mounted: mount cgroup2 on /sys/fs/cgroup")


def create(path):
    for root, controllers in _hierarchies().items():
        (root / path).mkdir(parents=True, exist_ok=True)
        if controllers and "cpuset" in controllers:
            _fill_cpuset(root, path)


def _fill_cpuset(root, path):
    """A new cpuset of version 1 has no CPU and takes no process until it is given some."""
    group = root
    for part in Path(path).parts:
        group = group / part
        for file in ("cpuset.cpus", "cpuset.mems"):
            (group / file).write_text((root / file).read_text())


def join(path):
    """Moves the calling process there; safe between fork and exec."""
    for root in _hierarchies():
        (root / path / "cgroup.procs").write_text(str(os.getpid()))


def join_like(pid):
    """Moves the calling process to where that one is."""
    where = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        where[frozenset(controllers.split(",")) if controllers else None] = path.lstrip("/")
    for root, flags in _hierarchies().items():
        for controllers, path in where.items():
            if (flags is None and controllers is None) or (flags and controllers and controllers <= flags):
                (root / path / "cgroup.procs").write_text(str(os.getpid()))


def processes(path):
    """All processes in the group and below it, in every hierarchy."""
    pids = set()
    for root in _hierarchies():
        for directory, _, _ in os.walk(root / path):
            try:
                pids.update(int(pid) for pid in (Path(directory) / "cgroup.procs").read_text().split())
            except (FileNotFoundError, OSError):
                continue        # a group that vanished under us has no processes
    return pids


FREEZE_S = 2      # a process in a machine that waits in the kernel for another frozen one never reports that it is frozen


def freeze(path, frozen):
    """Stops or continues every process. One that waits in the kernel for a request to FUSE can't say that it stands
    still, as who should answer does so already: after FREEZE_S nothing in the machine runs user code in either case."""
    _freezer_file(path).write_text(_freezer_words()[frozen])
    deadline = time.monotonic() + FREEZE_S
    while _has_settled(path) != frozen:
        if time.monotonic() > deadline:
            if frozen:
                return
            raise LabError("the machine does not thaw: use 'lab/lab powercut'")
        time.sleep(0.002)


def is_frozen(path):
    """What was asked for, not what every process has reached."""
    try:
        return _freezer_file(path).read_text().strip() in (_freezer_words()[1], "FREEZING")
    except FileNotFoundError:
        return False


def _freezer_file(path):
    root, version_1 = _freezer()
    return root / path / ("freezer.state" if version_1 else "cgroup.freeze")


def _freezer_words():
    return ("THAWED", "FROZEN") if _freezer()[1] else ("0", "1")


def _has_settled(path):
    root, version_1 = _freezer()
    try:
        if version_1:
            return (root / path / "freezer.state").read_text().strip() == "FROZEN"
        return "frozen 1" in (root / path / "cgroup.events").read_text()
    except FileNotFoundError:
        return False


def kill(path):
    """Sends SIGKILL to all; frozen processes get it too, and die of it because they are thawed after it."""
    pids = processes(path)
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    root, version_1 = _freezer()
    file, word = ("freezer.state", "THAWED") if version_1 else ("cgroup.freeze", "0")
    for directory, _, _ in os.walk(root / path):    # each for itself: a group of version 1 does not thaw its children
        try:
            (Path(directory) / file).write_text(word)
        except FileNotFoundError:
            continue
    return bool(pids)


def kill_and_wait(path, timeout_s=20):
    """The machine's mounts outlive its processes by our descriptors. Otherwise the last one to die takes them down, and if
    that is who served a FUSE mount over io_uring, it waits for ever for a request that only its own thread could end."""
    deadline = time.monotonic() + timeout_s
    with contextlib.ExitStack() as mounts:
        seen = set()
        for pid in processes(path):
            try:
                fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
            except (FileNotFoundError, ProcessLookupError):
                continue
            if os.fstat(fd).st_ino in seen:
                os.close(fd)
                continue
            seen.add(os.fstat(fd).st_ino)
            mounts.callback(os.close, fd)
        while kill(path):
            if time.monotonic() > deadline:
                raise LabError(f"processes {sorted(processes(path))} do not die: see /proc/PID/stack for what they wait for")
            time.sleep(0.005)


def remove(path):
    """Removes the group and all below. Dead processes leave their groups a moment later than they die: retry."""
    deadline = time.monotonic() + 5
    for root in _hierarchies():
        while (root / path).exists():
            for directory, _, _ in os.walk(root / path, topdown=False):
                try:
                    os.rmdir(directory)
                except FileNotFoundError:
                    continue
                except OSError:
                    if time.monotonic() > deadline:
                        raise LabError(f"control group {directory} is still in use: run 'lab/lab down' again") from None
                    time.sleep(0.005)


def remove_if_empty(path):
    for root in _hierarchies():
        try:
            (root / path).rmdir()
        except OSError:
            continue            # other labs are in it, or it never was
