#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Appends to a chain of numbered lines in a protected folder, on whichever node it can: runs on every node at once.

    scribe.py FILE NODE         a line that fsync has confirmed is printed: NUMBER BEGIN_NS END_NS

Nothing but the product keeps two of them from writing at the same time. Ends with its standard input.
"""

import errno
import os
import sys
import threading
import time

PAUSE_S = 0.02
NOT_HERE = (errno.EROFS, errno.ENOENT, errno.EIO, errno.ENOTCONN, errno.ENODEV, errno.ECONNABORTED, errno.ESTALE, errno.EACCES,
            errno.ENOSPC, errno.ECANCELED)


def last_number(fd):
    """Of the last whole line. What a writer left behind without its end is overwritten with the line that it lacks."""
    size = os.fstat(fd).st_size
    tail = os.pread(fd, 256, max(0, size - 256))
    whole = tail[:tail.rfind(b"\n") + 1]
    return (int(whole[:-1].rsplit(b"\n", 1)[-1].split()[0]) if whole else 0), size - len(tail) + len(whole)


def append(path, node):
    begin_ns = time.monotonic_ns()
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        number, at = last_number(fd)
        os.pwrite(fd, b"%d %s %d\n" % (number + 1, node.encode(), begin_ns), at)
        os.fsync(fd)
    finally:
        os.close(fd)
    return number + 1, begin_ns


def main():
    path, node = sys.argv[1:]
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    while True:
        try:
            number, begin_ns = append(path, node)
            print(number, begin_ns, time.monotonic_ns(), flush=True)
        except OSError as error:
            if error.errno not in NOT_HERE:
                print("error", error, flush=True)
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
