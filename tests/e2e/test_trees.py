# SPDX-License-Identifier: Apache-2.0
"""Everything that a file system can hold reaches the passive as it is."""

import pytest
import trees

FOLDER = "/srv/zoo"

# Runs on the active inside the protected folder: one of each, and changes of each.
ZOO = r"""
import os, socket, struct
os.umask(0)
def put(name, data=b"x", mode=0o644):
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)
    os.write(fd, data)
    return fd
os.close(put("plain", b"hello"))
os.close(put(b"name \xff\xfe with\nbytes", b"raw"))
os.close(put("n" * 255, b"long"))
os.close(put("setuid", mode=0o4755)); os.chmod("setuid", 0o6755)
fd = put("sparse"); os.pwrite(fd, b"end", 1 << 30); os.close(fd)
fd = put("shrunk", b"a" * 100000); os.ftruncate(fd, 777); os.ftruncate(fd, 5000); os.close(fd)
fd = put("allocated"); os.posix_fallocate(fd, 0, 1 << 20); os.close(fd)
os.close(put("one")); os.link("one", "two"); os.makedirs("d/e/f"); os.link("one", "d/three"); os.unlink("two")
os.symlink("plain", "link"); os.symlink("x" * 4000, "long-link"); os.symlink(b"\xff", "d/dangling")
os.mkfifo("fifo", 0o600)
os.mknod("null", 0o666 | 0o020000, os.makedev(1, 3)); os.mknod("loop", 0o600 | 0o060000, os.makedev(7, 200))
s = socket.socket(socket.AF_UNIX); s.bind("socket")
os.setxattr("plain", "user.colour", b"blue")
os.setxattr("plain", "user.gone", b"1"); os.removexattr("plain", "user.gone")
os.setxattr("d", "trusted.note", b"\0\1"); os.setxattr("plain", "security.test", b"s")
acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in
    ((1, 6, 0xffffffff), (2, 4, 1234), (4, 4, 0xffffffff), (16, 4, 0xffffffff), (32, 0, 0xffffffff)))
os.setxattr("plain", "system.posix_acl_access", acl); os.setxattr("d", "system.posix_acl_default", acl)
os.close(put("d/inherits"))
os.chown("plain", 1234, 5678); os.chown("link", 7, 8, follow_symlinks=False)
os.utime("plain", ns=(1, 1_600_000_000_123_456_789)); os.utime("d/dangling", ns=(5, 6), follow_symlinks=False)
os.makedirs("tree/a/b"); [os.close(put(f"tree/a/b/{i}", bytes([i]) * i)) for i in range(200)]
os.rename("tree/a", "moved"); os.rename("moved/b/1", "moved/b/2")
os.close(put("victim", b"old")); os.close(put("winner", b"new")); os.rename("winner", "victim")
fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640); os.write(fd, b"born nameless")
os.link(f"/proc/self/fd/{fd}", "named", src_dir_fd=fd); os.close(fd)
fd = put("deleted-open"); os.unlink("deleted-open"); os.write(fd, b"never seen"); os.close(fd)
import mmap
fd = put("mapped", b"\0" * 8192); m = mmap.mmap(fd, 8192); m[4000:4005] = b"store"; m.flush(); m.close(); os.close(fd)
os.rmdir("tree")
os.sync()
print(len(os.listdir(".")))
"""


@pytest.fixture
def zoo(cluster, lab):
    active, passive = cluster.wait_synchronized()
    lab.sh(active, f"mkdir -p {FOLDER}; echo before > {FOLDER}/before")
    cluster.cli(active, "protect", FOLDER, timeout_s=120)
    cluster.wait_synchronized()
    yield active, passive
    cluster.wait_synchronized(120)
    cluster.cli(cluster.active(), "unprotect", FOLDER, "--yes", timeout_s=120)
    for node in cluster.nodes:
        lab.sh(node, f"rm -rf {FOLDER}")


@pytest.mark.ci
def test_one_of_each_reaches_the_passive(cluster, lab, zoo):
    active, _ = zoo
    count = lab.exec(active, "env", "-C", FOLDER, "python3", "-", data=ZOO).stdout
    assert int(count) >= 19
    trees.wait_equal(cluster, FOLDER)
    lines = trees.digest(lab, zoo[1], FOLDER)
    assert any("'before'" in line for line in lines), "what was there before is not on the passive"
    assert any(line.startswith("b'sparse'") and f" {(1 << 30) + 3} " in line for line in lines)


@pytest.mark.ci
def test_one_of_each_survives_a_first_copy_and_a_switchover(cluster, lab):
    """The same animals, but there before the folder is protected."""
    active, passive = cluster.wait_synchronized()
    lab.sh(active, f"mkdir -p {FOLDER}")
    lab.exec(active, "env", "-C", FOLDER, "python3", "-", data=ZOO)
    before = trees.digest(lab, active, FOLDER)
    cluster.cli(active, "protect", FOLDER, timeout_s=120)
    try:
        cluster.wait_synchronized()
        trees.wait_equal(cluster, FOLDER)
        cluster.make_active(passive)
        cluster.wait_synchronized()
        assert trees.digest(lab, passive, FOLDER) == before
    finally:
        cluster.cli(cluster.active(), "unprotect", FOLDER, "--yes", timeout_s=120, check=False)
        for node in cluster.nodes:
            lab.sh(node, f"rm -rf {FOLDER}")
