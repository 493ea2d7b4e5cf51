# SPDX-License-Identifier: Apache-2.0
"""Runs inside a lab machine: does everything once that the product needs of the kernel and the data disk."""

import ctypes
import os
import subprocess

AT_FDCWD = -100
OPEN_TREE, OPEN_TREE_CLONE = 428, 1
MNT_DETACH = 2
libc = ctypes.CDLL(None, use_errno=True)


class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("handle", ctypes.c_char * 128)]


def do(what, result):
    if result < 0:
        raise SystemExit(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


folder = b"/var/lib/probe"
file = folder + b"/file"
os.makedirs(folder, exist_ok=True)
with open(file, "w", encoding="ascii") as out:
    out.write("hello")
os.setxattr(file, "trusted.holdfast.id", b"0123456789abcdef")

# A file is reached by its handle through a detached copy of the mount, out of sight of everyone else.
handle, mount_id = Handle(bytes=128), ctypes.c_int()
do("name_to_handle_at", libc.name_to_handle_at(AT_FDCWD, file, ctypes.byref(handle), ctypes.byref(mount_id), 0))
tree = do("open_tree", libc.syscall(OPEN_TREE, AT_FDCWD, folder, OPEN_TREE_CLONE | os.O_CLOEXEC))
root = os.open(".", os.O_RDONLY, dir_fd=tree)   # open_by_handle_at wants a real descriptor, open_tree's is O_PATH
assert os.read(do("open_by_handle_at", libc.open_by_handle_at(root, ctypes.byref(handle), os.O_RDONLY)), 9) == b"hello"

# FUSE: mount, the write-back limits of its backing device, abort, unmount.
fuse = os.open("/dev/fuse", os.O_RDWR)
os.makedirs("/srv/probe", exist_ok=True)
options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions".encode()
do("mount fuse", libc.mount(b"probe", b"/srv/probe", b"fuse.probe", 0, options))
device = subprocess.check_output(["findmnt", "-no", "MAJ:MIN", "/srv/probe"], text=True).strip()
for limit, value in (("strict_limit", "0"), ("max_ratio", "100")):
    with open(f"/sys/class/bdi/{device}/{limit}", "w", encoding="ascii") as out:
        out.write(value)
with open(f"/sys/fs/fuse/connections/{device.split(':')[1]}/abort", "w", encoding="ascii") as out:
    out.write("1")
do("umount fuse", libc.umount2(b"/srv/probe", MNT_DETACH))

# Packet filter: elements with a timeout, and rules with a deadline.
rules = """add table inet probe
add set inet probe lease { type ipv4_addr; flags timeout; }
add element inet probe lease { 192.0.2.10 timeout 2s }
add chain inet probe in { type filter hook input priority 0; }
add rule inet probe in meta time < 1893456000 accept
delete table inet probe
"""
subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
