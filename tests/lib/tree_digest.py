#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints one line for each object under a folder, sorted: what must be equal on both nodes.

    tree_digest.py FOLDER [NAME...]         NAME: only these, relative to FOLDER; one that is not there gives no line

Left out, because each node has its own: inode numbers, ctime, atime, sizes and link counts of folders. Left out,
because it is Holdfast's: the hidden folder .holdfast in the root, and attributes trusted.holdfast.*.
"""

import contextlib
import hashlib
import os
import stat
import sys


def attributes(path):
    found = []
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        if not name.startswith("trusted.holdfast."):
            found.append(f"{name}={os.getxattr(path, name, follow_symlinks=False).hex()}")
    return ",".join(found)


def content(path, mode):
    if stat.S_ISLNK(mode):
        return os.readlink(path).hex()
    if not stat.S_ISREG(mode):
        return "-"
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def describe(root, name):
    path = os.path.join(root, name) if name != b"." else root
    info = os.lstat(path)
    counts = "-" if stat.S_ISDIR(info.st_mode) else f"{info.st_size} {info.st_nlink}"
    return (f"{name!r} {info.st_mode:o} {info.st_uid} {info.st_gid} {counts} {info.st_mtime_ns} {info.st_rdev:x} "
            f"{attributes(path)} {content(path, info.st_mode)}")


def names(root):
    yield b"."
    for folder, folders, files in os.walk(root):
        here = os.path.relpath(folder, root)
        if here == b"." and b".holdfast" in folders:
            folders.remove(b".holdfast")
        for name in folders + files:
            yield name if here == b"." else os.path.join(here, name)


def main():
    root = os.fsencode(sys.argv[1])
    wanted = [os.fsencode(name) for name in sys.argv[2:]]
    for name in sorted(wanted or names(root)):
        with contextlib.suppress(FileNotFoundError):        # it went away since it was listed
            print(describe(root, name))


if __name__ == "__main__":
    main()
