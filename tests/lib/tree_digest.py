#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints one line for each object under a folder, sorted: what must be equal on both nodes.

    tree_digest.py FOLDER [NAME...]         NAME: only these, relative to FOLDER; one that is not there gives no line
    tree_digest.py --summary FOLDER         one hash for about a thousand lines
    tree_digest.py --except HASHES FOLDER   the lines of those thousands whose hash is not in the file HASHES

Where a thousand ends is said by the names alone: one object more or less changes the hash of its own thousand only.

A line: name, mode, owner, group, size and link count, modification time, device, extended attributes, content, and for
an object of several names which of those listed is the first. A hole equals zeros, so a sparse file of a TiB is quick.
Paths may be longer than the kernel takes: every step is taken from the folder before it.

Left out, because each node has its own: inode numbers, ctime, atime, sizes and link counts of folders, how a file is
allocated. Left out, because it is Holdfast's: the hidden folder .holdfast in the root, and attributes trusted.holdfast.*. Left out, because only xfs shows them: its access
lists under other names.
"""

import contextlib
import errno
import hashlib
import os
import stat
import sys
import zlib

BLOCK = 1 << 12
LINES_A_HASH = 1000


def attributes(path):
    found = []
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        if not name.startswith(("trusted.holdfast.", "trusted.SGI_ACL_")):
            found.append(f"{name}={os.getxattr(path, name, follow_symlinks=False).hex()}")
    return ",".join(found)


def data_of(fd):
    """(offset, bytes) of what is not a hole, in blocks that begin at multiples of 1 MiB."""
    at = 0
    while True:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
            end = os.lseek(fd, at, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        at -= at % BLOCK
        while at < end:
            block = os.pread(fd, (1 << 20) - at % (1 << 20), at)
            if not block:
                return
            yield at, block
            at += len(block)


def content(path, mode):
    if stat.S_ISLNK(mode):
        return os.readlink(path).hex()
    if not stat.S_ISREG(mode):
        return "-"
    digest = hashlib.sha256()
    fd = os.open(path, os.O_RDONLY)
    try:
        for at, block in data_of(fd):
            if block.count(0) == len(block):
                continue
            for step in range(0, len(block), BLOCK):
                part = block[step:step + BLOCK].rstrip(b"\0")
                if part:
                    digest.update(b"%d %d " % (at + step, len(part)) + part)
    finally:
        os.close(fd)
    return digest.hexdigest()


class Thousands:
    """Takes lines, and gives each thousand of them to `done` with its hash."""

    def __init__(self, done):
        self.done, self.lines = done, []

    def take(self, name, line):
        self.lines.append(line)
        if zlib.crc32(name) % LINES_A_HASH == 0:
            self.end()

    def end(self):
        if self.lines:
            self.done(hashlib.sha256("\n".join(self.lines).encode()).hexdigest(), self.lines)
        self.lines = []


class Tree:
    def __init__(self, root, take=lambda name, line: print(line)):
        self.root, self.first_of, self.take = root, {}, take

    def describe(self, folder_fd, name, shown):
        path = b"/proc/self/fd/%d/%s" % (folder_fd, name)
        info = os.lstat(path)
        is_folder = stat.S_ISDIR(info.st_mode)
        counts = "-" if is_folder else f"{info.st_size} {info.st_nlink}"
        first = shown
        if not is_folder and info.st_nlink > 1:
            first = self.first_of.setdefault((info.st_dev, info.st_ino), shown)
        text = (f"{shown!r} {info.st_mode:o} {info.st_uid} {info.st_gid} {counts} {info.st_mtime_ns} {info.st_rdev:x} "
                f"{attributes(path)} {content(path, info.st_mode)}" + (f" = {first!r}" if first != shown else ""))
        return text, is_folder

    def walk(self, fd, shown):
        for name in sorted(os.fsencode(each) for each in os.listdir(fd)):
            if shown == b"" and name == b".holdfast":
                continue
            path = name if shown == b"" else shown + b"/" + name
            with contextlib.suppress(FileNotFoundError):        # it went away since it was listed
                text, is_folder = self.describe(fd, name, path)
                self.take(path, text)
                if is_folder:
                    below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                    try:
                        self.walk(below, path)
                    finally:
                        os.close(below)

    def named(self, names):
        for name in sorted(names):
            *folders, last = name.split(b"/")
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), contextlib.ExitStack() as opened:
                fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
                opened.callback(os.close, fd)
                for folder in folders:
                    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                    opened.callback(os.close, fd)
                self.take(name, self.describe(fd, last, name)[0])

    def whole(self):
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        self.take(b".", self.describe(fd, b".", b".")[0])
        self.walk(fd, b"")


def in_thousands(root, done):
    thousands = Thousands(done)
    Tree(root, thousands.take).whole()
    thousands.end()


def main():
    option, *rest = sys.argv[1:]
    if option == "--summary":
        return in_thousands(os.fsencode(rest[0]), lambda digest, lines: print(digest))
    if option == "--except":
        with open(rest[0]) as known:
            hashes = set(known.read().split())
        return in_thousands(os.fsencode(rest[1]),
                            lambda digest, lines: digest in hashes or print("\n".join(lines)))
    tree = Tree(os.fsencode(option))
    return tree.named([os.fsencode(name) for name in rest]) if rest else tree.whole()


if __name__ == "__main__":
    main()
