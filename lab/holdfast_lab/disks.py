# SPDX-License-Identifier: Apache-2.0
"""Data disks: file systems in sparse files, and the power cut of a file system."""

import fcntl
import os
import re
import struct
import time

from .errors import LabError, run

# _IOR('X', 125, __u32): both ext4 and xfs know it. 2: not even the journal is flushed, so the file system ends with
# what happens to have reached the disk, as after a power cut.
SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2


def size_in_bytes(text):
    match = re.fullmatch(r"(\d+)([MG])", text)
    if not match:
        raise LabError(f"--disk {text}: write a size such as 4G or 800M")
    return int(match[1]) << (20 if match[2] == "M" else 30)


def create(file, kind, size):
    """A new, empty disk. The file is sparse: it takes up only what is written to it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "xb") as disk:
        disk.truncate(size)
    if kind == "ext4":
        run(["mkfs.ext4", "-q", "-F", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", "-m", "0", str(file)])
    else:
        run(["mkfs.xfs", "-q", "-f", "-K", str(file)])


def attach_and_mount(file, where):
    """Mounts a disk in the calling process's mount namespace; the loop device goes away with the last mount."""
    # Direct: the host's page cache must not hold everything twice.
    direct = run(["losetup", "--find", "--show", "--direct-io=on", str(file)], check=False)
    device = (direct.stdout or run(["losetup", "--find", "--show", str(file)]).stdout).strip()
    try:
        run(["mount", device, str(where)])
    finally:
        run(["losetup", "--detach", device], check=False)


def cut_power(mount_point):
    """The file system stops here and now: what is not on the disk yet never will be."""
    fd = os.open(mount_point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
    finally:
        os.close(fd)


def loops(file):
    return [line.split(":")[0] for line in run(["losetup", "-j", str(file)]).stdout.splitlines()]


def wait_detached(file, timeout_s=20):
    """Waits until the kernel has let go of the disk, a moment after the last process that saw it has died."""
    deadline = time.monotonic() + timeout_s
    while devices := loops(file):
        for device in devices:      # one that was never mounted does not go away by itself
            run(["losetup", "--detach", device], check=False)
        if time.monotonic() > deadline:
            raise LabError(f"{devices[0]} still holds {file}: find its user with 'grep {devices[0]} /proc/*/mountinfo'")
        time.sleep(0.01)
