# SPDX-License-Identifier: Apache-2.0
"""The first program of a machine: makes its root and disk ready in a mount namespace of its own, then becomes nspawn.

All mounts of a machine are in that namespace only. They cannot be pinned by other programs of the host, and the kernel
takes them down when the machine's last process dies, however that comes about.
"""

import os
import shutil
import sys
from pathlib import Path

from . import customize, disks, image, state
from .errors import LabError, run
from .settings import HOSTS, Places

OWN_TREES = ("var/lib", "srv")      # real directories of the data disk, not overlay: they are what gets protected


def main():
    lab, name = sys.argv[1:3]
    places = Places(lab)
    try:
        config = state.load(places)
        os.execvpe("systemd-nspawn", _nspawn(places, name, _mount(places, name, config)), _environment(places, name))
    except (LabError, OSError) as error:
        sys.exit(f"{name}: {error}")


def _mount(places, name, config):
    """Mounts all that the machine consists of; fills its disk when it is new. Returns the options that bind it."""
    disk, root = places.machine(name) / "disk", places.machine(name) / "root"
    disk.mkdir(parents=True, exist_ok=True)
    root.mkdir(exist_ok=True)
    fresh = not places.disk(name).exists()
    if fresh:
        disks.create(places.disk(name), config["machines"][name]["fs"], config["machines"][name]["disk"])
    disks.attach_and_mount(places.disk(name), disk)
    for directory in ("upper", "work"):
        (disk / directory).mkdir(exist_ok=True)
    lower = image.lower_directories(config["layers"][name])
    run(["mount", "-t", "overlay", "overlay", "-o",
         f"lowerdir={lower},upperdir={disk}/upper,workdir={disk}/work", str(root)])
    if fresh:
        _fill(places, name, config, disk, root)
    Path("/run/systemd").mkdir(exist_ok=True)
    run(["mount", "-t", "tmpfs", "tmpfs", "/run/systemd"])      # nspawn's locks and sockets: not on the host
    return [f"--bind={disk / tree.replace('/', '-')}:/{tree}" for tree in OWN_TREES]


def _fill(places, name, config, disk, root):
    customize.machine(root, places.lab, HOSTS[name], list(config["machines"]))
    for tree in OWN_TREES:
        own = disk / tree.replace("/", "-")
        run(["cp", "-a", str(root / tree), str(own)])
    shutil.rmtree(disk / "lost+found", ignore_errors=True)
    run(["sync", "--file-system", str(disk)])       # an installed system survives a power cut


def _nspawn(places, name, binds):
    return ["systemd-nspawn", f"--directory={places.machine(name) / 'root'}", "--boot", f"--machine={name}",
            "--register=no", "--keep-unit", f"--network-namespace-path=/run/netns/{places.machine_netns(name)}",
            "--capability=all", "--bind=/dev/fuse", *binds, "--resolv-conf=off", "--timezone=off", "--link-journal=no",
            "--console=pipe", "--notify-ready=yes"]


def _environment(places, name):
    # No system call filter and a writable /sys, as on a real server; a whitelist, so that nothing of ours leaks in.
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8",
            "SYSTEMD_SECCOMP": "0", "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1",
            "NOTIFY_SOCKET": str(places.machine(name) / "notify")}


if __name__ == "__main__":
    main()
