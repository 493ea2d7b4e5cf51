# SPDX-License-Identifier: Apache-2.0
"""Runs on a lab machine inside a folder: one of everything that a file system can be asked for, each in a folder of its own.

    semantics_operations.py FOLDER [common]     prints {operation: "done" or the name of the error that refused it} as JSON

common: nothing that ext4 or xfs can hold but not both.
What must be refused is said by the test, not here. Every operation checks here that what it did looks right on this node.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import mmap
import os
import socket
import struct
import subprocess
import sys
import threading

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40
KEEP, PUNCH, COLLAPSE, ZERO, INSERT, UNSHARE = 1, 2, 8, 16, 32, 64
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
GETFLAGS, SETFLAGS, FSGETXATTR, FSSETXATTR, FICLONE = 0x80086601, 0x40086602, 0x801C581F, 0x401C5820, 0x40049409
IMMUTABLE, APPEND, NODUMP = 0x10, 0x20, 0x40

COMMON = "common" in sys.argv[2:]
libc = ctypes.CDLL(None, use_errno=True)
OPERATIONS = {}


def operation(function):
    OPERATIONS[function.__name__] = function
    return function


def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


@contextlib.contextmanager
def opened(name, flags=os.O_RDWR | os.O_CREAT, mode=0o644, **options):
    fd = os.open(name, flags, mode, **options)
    try:
        yield fd
    finally:
        os.close(fd)


def put(name, data=b"x", mode=0o644):
    with opened(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode) as fd:
        os.write(fd, data)


def read(name):
    with open(name, "rb") as file:
        return file.read()


def fallocate(fd, mode, offset, length):
    checked(libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)))


def renameat2(old, new, flags):
    checked(libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags))


def pattern(blocks):
    return b"".join(bytes([65 + n % 26]) * 4096 for n in range(blocks))


# --- contents

@operation
def sparse_file_of_a_tebibyte():
    with opened("sparse") as fd:
        os.ftruncate(fd, TIB)
        for at in (0, 5 * GIB + 123, 700 * GIB, TIB - 4096):
            os.pwrite(fd, b"here" * 100, at)
    with opened("grown") as fd:
        os.pwrite(fd, b"end", GIB)
        os.ftruncate(fd, 2 * GIB)
    assert os.stat("sparse").st_blocks * 512 < MIB


@operation
def holes_and_data_alternate():
    with opened("holes") as fd:
        for n in range(64):
            os.pwrite(fd, b"data" * 1024, n * 131072)


@operation
def allocated():
    with opened("plain") as fd:
        fallocate(fd, 0, 0, 3 * MIB)
    with opened("kept-size") as fd:
        os.write(fd, b"tail")
        fallocate(fd, KEEP, 0, 2 * MIB)
    assert os.stat("kept-size").st_size == 4


@operation
def punched():
    with opened("punched") as fd:
        os.write(fd, pattern(512))
        os.fsync(fd)
        fallocate(fd, PUNCH | KEEP, 65536, 1 * MIB)
        fallocate(fd, PUNCH | KEEP, 1500001, 3333)


@operation
def zeroed():
    with opened("zeroed") as fd:
        os.write(fd, pattern(64))
        fallocate(fd, ZERO, 5000, 70000)
        fallocate(fd, ZERO | KEEP, 250000, 100000)
        fallocate(fd, ZERO, 400000, 5000)


def _shifting(mode):
    with opened("shifted") as fd:
        os.write(fd, pattern(64))
        os.fsync(fd)
        fallocate(fd, mode, 65536, 65536)


@operation
def collapsed():
    _shifting(COLLAPSE)


@operation
def inserted():
    _shifting(INSERT)


@operation
def unshared():
    _shifting(UNSHARE)


@operation
def copied_by_the_kernel():
    put("from", pattern(100))
    with opened("from") as one, opened("to") as other:
        assert os.copy_file_range(one, other, 300000, 1000, 77) > 0
        os.copy_file_range(one, one, 8192, 0, 200000)
    with open("from", "rb") as one, open("sent", "wb") as other:
        os.sendfile(other.fileno(), one.fileno(), 0, 400000)


@operation
def cloned():
    put("from", pattern(4))
    with opened("from") as one, opened("clone") as other:
        fcntl.ioctl(other, FICLONE, one)


@operation
def shortened_and_grown():
    with opened("file") as fd:
        os.write(fd, b"a" * 100000)
        for size in (777, 5000, 4097, 1 << 22, 4099):
            os.ftruncate(fd, size)
    put("reopened", b"b" * 9000)
    put("reopened", b"short")


@operation
def mapped():
    with opened("mapped") as fd:
        os.ftruncate(fd, 1 << 20)
        memory = mmap.mmap(fd, 1 << 20)
        memory[4000:4005] = b"store"
        memory[900000:900003] = b"far"
        memory.flush()
        memory.close()


@operation
def appended_by_many():
    def run(letter):
        with opened("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND) as fd:
            for _ in range(200):
                os.write(fd, letter * 50 + b"\n")
    threads = [threading.Thread(target=run, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = read("log").split()
    assert len(lines) == 800 and all(len(set(line)) == 1 for line in lines)


@operation
def written_past_the_cache():
    with opened("direct", os.O_RDWR | os.O_CREAT | os.O_DIRECT) as fd:
        buffer = mmap.mmap(-1, 65536)
        buffer.write(b"direct" * 10000)
        os.pwritev(fd, [buffer], 4096)
    with opened("synced", os.O_RDWR | os.O_CREAT | os.O_SYNC) as fd:
        os.write(fd, b"synced" * 3000)


# --- names

@operation
def names_of_any_bytes():
    for byte in range(1, 256):
        if byte not in b"/.":
            put(b"n" + bytes([byte]))
            put(bytes([byte]))
    put("n" * 255)
    put(b"\xff" * 255)
    put("ä" * 127)
    os.symlink(b"\xff\n", b"link\t\\x")
    os.mkdir("  ")
    put("  / trailing .")
    try:
        put("n" * 256)
        raise AssertionError("a name of 256 bytes")
    except OSError as error:
        assert error.errno == errno.ENAMETOOLONG


@operation
def paths_longer_than_the_kernel_takes():
    with contextlib.ExitStack() as stack:
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, fd)
        for depth in range(30):
            name = chr(97 + depth % 26) * 200
            os.mkdir(name, dir_fd=fd)
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
            stack.callback(os.close, fd)
        with opened("at-the-bottom", dir_fd=fd) as file:
            os.write(file, b"6000 bytes down")
        os.link("at-the-bottom", "linked", src_dir_fd=fd, dst_dir_fd=fd)
        os.mkdir("gone", dir_fd=fd)
        os.rmdir("gone", dir_fd=fd)
        os.rename("linked", "renamed", src_dir_fd=fd, dst_dir_fd=fd)


@operation
def many_names_of_one_file():
    put("one", b"shared")
    os.makedirs("d/e")
    for n in range(1000):
        os.link("one", f"d/{n}")
    for n in range(0, 1000, 3):
        os.unlink(f"d/{n}")
    os.rename("d/1", "d/e/moved")
    os.unlink("one")
    os.symlink("target", "symlink")
    os.link("symlink", "d/same-symlink", follow_symlinks=False)
    os.mkfifo("fifo")
    os.link("fifo", "d/same-fifo")
    with opened("d/2", os.O_WRONLY | os.O_APPEND) as fd:
        os.write(fd, b" by all")
    assert read("d/e/moved") == b"shared by all"


@operation
def renamed():
    os.makedirs("tree/a/b")
    for n in range(50):
        put(f"tree/a/b/{n}", bytes([n]) * n)
    os.rename("tree/a", "moved")
    os.rename("moved/b/1", "moved/b/2")
    os.makedirs("over/empty")
    os.rename("moved", "over/empty")
    os.rename("tree", "tree2")
    put("same")
    os.link("same", "same2")
    os.rename("same", "same2")                   # two names of one file: nothing happens
    assert os.path.exists("same")
    try:
        renameat2("same", "tree2", NOREPLACE)
        raise AssertionError("a name was replaced")
    except OSError as error:
        assert error.errno == errno.EEXIST
    renameat2("same", "fresh", NOREPLACE)


@operation
def renamed_over_an_open_file():
    put("victim", b"old")
    with opened("victim") as fd:
        put("winner", b"new")
        os.rename("winner", "victim")
        os.pwrite(fd, b"OLD AND NAMELESS", 0)
        assert os.pread(fd, 100, 0) == b"OLD AND NAMELESS" and read("victim") == b"new"


@operation
def exchanged():
    put("one", b"1")
    put("two", b"22")
    renameat2("one", "two", EXCHANGE)
    assert read("one") == b"22"
    os.makedirs("folder/below")
    put("folder/below/file")
    renameat2("folder", "one", EXCHANGE)
    assert os.path.isdir("one") and read("folder") == b"22"
    os.makedirs("d1/x")
    os.makedirs("d2/y")
    if not COMMON:                              # on xfs it changes a modification time, which no record tells yet
        renameat2("d1/x", "d2/y", EXCHANGE)
    os.symlink("nowhere", "link")
    renameat2("link", "d1", EXCHANGE)


@operation
def white_out_by_mknod():
    os.mknod("whiteout", 0o600 | 0o020000, os.makedev(0, 0))


@operation
def white_out_by_rename():
    put("lower")
    renameat2("lower", "upper", WHITEOUT)


# --- objects without a name

@operation
def deleted_while_open():
    with opened("gone") as fd:
        os.write(fd, b"written with a name")
        os.unlink("gone")
        os.write(fd, b" and without")
        os.ftruncate(fd, 1 << 20)
        fallocate(fd, 0, 1 << 20, 1 << 20)
        os.setxattr(fd, "user.late", b"1")
        os.fchmod(fd, 0o600)
        assert os.pread(fd, 100, 0).startswith(b"written with a name and without") and os.fstat(fd).st_nlink == 0
    os.mkdir("folder")
    with opened("folder", os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.rmdir("folder")
        assert os.listdir(fd) == []


@operation
def born_nameless():
    with opened(".", os.O_TMPFILE | os.O_RDWR, 0o640) as fd:
        os.write(fd, b"born nameless")
        os.setxattr(fd, "user.kept", b"yes")
        os.link(f"/proc/self/fd/{fd}", "named", src_dir_fd=fd)
        os.write(fd, b", named later")
    with opened(".", os.O_TMPFILE | os.O_RDWR) as fd:
        os.write(fd, b"never named")


# --- attributes

@operation
def special_files():
    os.mkfifo("fifo", 0o600)
    os.mknod("null", 0o666 | 0o020000, os.makedev(1, 3))
    os.mknod("loop", 0o600 | 0o060000, os.makedev(7, 200))
    os.mknod("big", 0o600 | 0o020000, os.makedev(511, 262143) if COMMON else os.makedev(4095, 1048575))
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
    os.symlink("x" * (1023 if COMMON else 4000), "long-link")
    os.symlink("loop/of/itself", "loop-link")


@operation
def modes_and_owners():
    for mode in (0o0, 0o7777, 0o4755, 0o2755, 0o1777, 0o6711):
        put(f"m{mode:o}")
        os.chmod(f"m{mode:o}", mode)
    put("chowned")
    os.chmod("chowned", 0o6755)
    os.chown("chowned", 1234, 5678)
    assert os.stat("chowned").st_mode & 0o7777 == 0o755, "a change of the owner clears setuid"
    put("high")
    os.chown("high", 4294967294, 3000000000)
    os.mkdir("setgid")
    os.chown("setgid", 7, 4242)
    os.chmod("setgid", 0o2775)
    os.makedirs("setgid/inherits")
    put("setgid/file")
    assert os.stat("setgid/file").st_gid == 4242
    os.symlink("x", "link")
    os.chown("link", 7, 8, follow_symlinks=False)


@operation
def times():
    for name, mtime in {"old": -1_000_000_000_123_456_789, "epoch": 0, "ns": 1_600_000_000_123_456_789,
                        "late": 4_000_000_000_999_999_999}.items():
        put(name)
        os.utime(name, ns=(1, mtime))
        assert os.stat(name).st_mtime_ns == mtime, name
    os.symlink("x", "link")
    os.utime("link", ns=(5, 6), follow_symlinks=False)
    os.mkdir("folder")
    os.utime("folder", ns=(7, 8_000_000_009))


@operation
def attributes():
    put("file")
    for n in range(20):
        os.setxattr("file", f"user.{'a' * n}{n}", bytes([n]) * n)
    os.setxattr("file", "user.gone", b"1")
    os.removexattr("file", "user.gone")
    os.setxattr("file", "user.changed", b"1" * 100)
    os.setxattr("file", "user.changed", b"2", os.XATTR_REPLACE)
    os.setxattr("file", "user." + "n" * 250, b"\0\1\xff")
    os.setxattr("file", "security.test", b"s")
    os.mkdir("folder")
    os.setxattr("folder", "trusted.note", b"\0")
    os.symlink("x", "link")
    os.setxattr("link", "trusted.note", b"of a link", follow_symlinks=False)
    os.setxattr("file", "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0))


@operation
def attributes_up_to_the_limit():
    """The biggest one that the file system takes, found by halving, and as many middle ones as it takes."""
    put("big")
    low, high = 1, 3800 if COMMON else 65537
    while high - low > 1:
        middle = (low + high) // 2
        try:
            os.setxattr("big", "user.big", b"b" * middle)
            low = middle
        except OSError as error:
            assert error.errno in (errno.ENOSPC, errno.E2BIG, errno.ERANGE), error
            high = middle
    os.setxattr("big", "user.big", b"B" * low)
    assert low > 3000, low
    put("many")
    for n in range(10 if COMMON else 200):
        try:
            os.setxattr("many", f"user.{n}", b"v" * 200)
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
            break


def _acl(*entries):
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@operation
def access_lists():
    nobody = 0xffffffff
    acl = _acl((1, 6, nobody), (2, 4, 1234), (2, 7, 4321), (4, 4, nobody), (8, 5, 77), (16, 7, nobody), (32, 0, nobody))
    put("file")
    os.setxattr("file", "system.posix_acl_access", acl)
    os.chmod("file", 0o640)                      # changes the mask
    os.mkdir("folder")
    os.setxattr("folder", "system.posix_acl_default", acl)
    os.setxattr("folder", "system.posix_acl_access", acl)
    put("folder/inherits", mode=0o666)
    os.mkdir("folder/inherits-too")
    put("folder/inherits-too/deep", mode=0o600)
    assert "system.posix_acl_access" in os.listxattr("folder/inherits")
    put("plain-again")
    os.setxattr("plain-again", "system.posix_acl_access", acl)
    os.removexattr("plain-again", "system.posix_acl_access")
    os.mkdir("no-default-again")
    os.setxattr("no-default-again", "system.posix_acl_default", acl)
    os.removexattr("no-default-again", "system.posix_acl_default")


def _flag(value):
    put("flagged")
    with opened("flagged", os.O_RDONLY) as fd:
        now = struct.unpack("i", fcntl.ioctl(fd, GETFLAGS, bytes(4)))[0]
        fcntl.ioctl(fd, SETFLAGS, struct.pack("i", now | value))


@operation
def made_immutable():
    _flag(IMMUTABLE)


@operation
def made_append_only():
    _flag(APPEND)


@operation
def made_not_to_be_dumped():
    _flag(NODUMP)


@operation
def given_to_a_project():
    put("file")
    with opened("file", os.O_RDONLY) as fd:
        now = bytearray(28)
        fcntl.ioctl(fd, FSGETXATTR, now)
        struct.pack_into("I", now, 12, 42)
        fcntl.ioctl(fd, FSSETXATTR, bytes(now))


# --- folders

@operation
def folders_come_and_go():
    for n in range(300):
        os.makedirs(f"d/{n % 7}/{n}")
    for n in range(0, 300, 2):
        os.rmdir(f"d/{n % 7}/{n}")
    os.rename("d/3", "three")
    os.makedirs("deep/" + "/".join("d" for _ in range(100)))


def main():
    os.chdir(sys.argv[1])
    os.umask(0)
    top, told = os.getcwd(), {}
    for name, function in OPERATIONS.items():
        os.mkdir(name)
        os.chdir(name)
        try:
            function()
            told[name] = "done"
        except OSError as error:
            told[name] = errno.errorcode[error.errno]
        os.chdir(top)
    subprocess.run(["sync", "-f", "."], check=True)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
