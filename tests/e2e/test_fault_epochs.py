# SPDX-License-Identifier: Apache-2.0
"""What an old epoch leaves behind: dirty pages in a kernel, writes that nobody was sent."""

import pytest
import trees

FOLDER = "/srv/old-epoch"

# Dirties pages of the protected folder and holds them; told so by a line on stdin, it stores and writes again through
# the descriptors of the old epoch. Each may fail, none may hang or reach the folder below.
HOLDER = r"""
import mmap, os, sys
fd = os.open("held", os.O_RDWR | os.O_CREAT, 0o644)
os.ftruncate(fd, 1 << 20)
memory = mmap.mmap(fd, 1 << 20)
memory[0:8] = b"in time."
os.fsync(fd)
print("ready", flush=True)
for line in sys.stdin:
    for what in ("store", "write", "sync"):
        try:
            if what == "store": memory[4096:4096 + 9] = b"TOO LATE."
            elif what == "write": os.pwrite(fd, b"TOO LATE.", 8192)
            else: os.fsync(fd)
            print(what, "ok", flush=True)
        except OSError as error:
            print(what, error.errno, flush=True)
    print("done", flush=True)
"""


@pytest.fixture
def folder(cluster, lab):
    active, passive = cluster.wait_synchronized()
    lab.sh(active, f"mkdir -p {FOLDER}; head -c 3000000 /dev/urandom > {FOLDER}/other")
    cluster.cli(active, "protect", FOLDER, timeout_s=120)
    yield cluster.wait_automatic_failover(60)
    lab.heal_all()
    cluster.wait_synchronized(120)
    cluster.cli(cluster.active(), "unprotect", FOLDER, "--yes", timeout_s=120)
    for node in cluster.nodes:
        lab.sh(node, f"rm -rf {FOLDER}")


@pytest.mark.fault("old-epoch-dirty")
def test_dirty_page_of_an_old_epoch_reaches_nothing(cluster, lab, folder):
    """An application of the old active still has dirty pages and an open file when the role has moved."""
    old, new = folder
    with lab.popen(old, "env", "-C", FOLDER, "python3", "-c", HOLDER, stdin=-1, stdout=-1) as holder:
        try:
            assert holder.stdout.readline() == "ready\n"
            trees.wait_equal(cluster, FOLDER)
            for other in (new, "w1"):
                lab.cut(old, other)
            holder.stdin.write("go\n")              # dirty when the lease ends, or refused: both are right
            holder.stdin.flush()
            cluster.wait_active(new, 20)
            lab.sh(new, f"echo new > {FOLDER}/written-by-the-next-epoch; sync {FOLDER}/written-by-the-next-epoch")
            lab.heal_all()
            cluster.wait(lambda: cluster.node_in(cluster.status_of(new), old)["synchronized"],
                         f"{old} follows {new} and is synchronized", 120)
            holder.stdin.write("again\n")           # now its tree belongs to the new epoch
            holder.stdin.flush()
            answers = []
            while answers.count("done\n") < 2:
                answers.append(holder.stdout.readline())
                assert answers[-1], f"the holder ended: {answers}"
        finally:
            holder.kill()
    print("the old epoch's application was told:", " ".join(line.strip() for line in answers))
    lab.sh(old, "sync -f /var/lib /srv")
    trees.wait_equal(cluster, FOLDER)
    for node in cluster.nodes:
        assert "TOO LATE" not in lab.sh(node, f"tr -d '\\0' < {FOLDER}/held"), f"{node} has what the old epoch wrote"
