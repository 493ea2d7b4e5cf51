# SPDX-License-Identifier: Apache-2.0
"""The other file system: file handles, attributes and free space are the lower file system's own."""

import json
import os

import folders
import ledger
import postgres
import pytest
import small_disk
import trees
from cluster import Cluster
from labs import Lab
from verdicts import SWITCHOVER_LIMIT_S, demand_nothing_lost

FOLDER = "/srv/shared"
# All kinds of objects, with what xfs keeps elsewhere than ext4: sparse and preallocated extents, large attributes, unwritten tails.
OBJECTS = """
mkdir -p $1/deep/er; cd $1
truncate -s 300M sparse; dd if=/dev/urandom of=sparse bs=64k count=2 seek=4000 conv=notrunc status=none
fallocate -l 20M ahead; fallocate --punch-hole --offset 4M --length 8M ahead
echo x > tail; fallocate --keep-size -l 8M tail
ln deep/er/../../tail deep/hard; ln -s sparse deep/soft; mkfifo deep/er/pipe
setfattr -n user.large -v "$(head -c 3000 /dev/zero | tr '\\0' a)" tail
setfacl -m u:postgres:rwx deep
for n in $(seq 200); do echo $n > deep/er/$n; done; rm deep/er/1?; mv deep/er/2 deep/er/two
"""

ROOM = "/srv/other-kind"
# What only one of ext4 and xfs can hold; FOLDER NAME: what each call is answered.
CALLS = """
import errno, json, os, sys
folder, name = sys.argv[1:]
def answer(call, *arguments):
    try:
        call(*arguments)
    except OSError as failed:
        return errno.errorcode[failed.errno]
    return "done"
at = os.path.join(folder, name)
os.mkdir(at)
open(at + "/file", "w").close()
print(json.dumps({
    "short_link": answer(os.symlink, "x" * 1023, at + "/short"),
    "long_link": answer(os.symlink, "x" * 2000, at + "/long"),
    "small_attribute": answer(os.setxattr, at + "/file", "user.small", b"x" * 1000),
    "big_attribute": answer(os.setxattr, at + "/file", "user.big", b"x" * 8000),
    "sparse": answer(os.truncate, at + "/file", 15 << 40),
    "too_sparse": answer(os.truncate, at + "/file", 17 << 40),
    "known_device": answer(os.mknod, at + "/known", 0o020600, os.makedev(511, 1)),
    "far_device": answer(os.mknod, at + "/far", 0o020600, os.makedev(512, 1)),
}))
os.truncate(at + "/file", 1 << 20)
"""
MIXED = {"short_link": "done", "long_link": "ENAMETOOLONG", "small_attribute": "done", "big_attribute": "ENOSPC", "sparse": "done",
         "too_sparse": "EFBIG", "known_device": "done", "far_device": "EINVAL"}


@pytest.fixture
def pair():
    with Lab(f"xfs-{os.getpid()}") as lab:
        lab.up("--witness", "--fs", "xfs")
        lab.run_shown("cluster", "--mode", "fsync", "--protect", FOLDER, "--plugin", "postgresql", timeout_s=400)
        yield Cluster(lab)


def test_xfs_protect_write_and_switch_over(pair):
    lab = pair.lab
    old, new = pair.wait_automatic_failover()
    kind = lab.sh(old, "stat -f -c %T /srv /var/lib/postgresql/.").split()
    assert "xfs" in kind, f"the lab's disk is {kind}"
    lab.sh(old, OBJECTS, FOLDER)
    postgres.create_ledger_database(lab, old)
    ledger.deploy(lab)
    ledger.set_up_tables(lab)
    with ledger.Clients(lab, "xfs") as clients:
        clients.wait_commits(300)
        pair.make_active(new)
        clients.wait_served_by(new)
        clients.wait_commits(300)
        clients.stop()
        gap_s = ledger.switchover_gap_s(clients.entries(), old, new)
        demand_nothing_lost(pair, clients)
    assert gap_s <= SWITCHOVER_LIMIT_S, f"without a commit for {gap_s:.2f} s"
    pair.wait_synchronized()
    postgres.checkpoint(lab, new)
    for folder in (FOLDER, postgres.DATA):
        trees.wait_equal(pair, folder)
    blocks = {node: int(lab.sh(node, "stat -c %b $1/sparse", FOLDER)) for node in pair.nodes}
    assert max(blocks.values()) * 512 < 64 << 20, f"the sparse file is no longer sparse: {blocks}"


def test_mixed_kinds_refuse_what_either_can_not_hold(cluster, lab):
    """ext4 on one node, xfs on the other: whoever is active, and whether the other is there or not. What is there before is named."""
    ext4, xfs = cluster.wait_automatic_failover()
    folder = f"{ROOM}/data"

    def answers(node, name):
        return json.loads(lab.exec(node, "python3", "-c", CALLS, folder, name).stdout)

    with small_disk.under(lab, xfs, ROOM, "600M", kind="xfs"):
        lab.sh(ext4, 'mkdir -p "$1"; ln -s "$(head -c 2000 /dev/zero | tr "\\0" x)" "$1/long"', folder)
        refused = cluster.cli(ext4, "protect", folder, check=False, timeout_s=120)
        assert refused.returncode != 0 and f"{folder}/long" in refused.stderr and xfs in refused.stderr, refused
        lab.sh(ext4, 'rm "$1/long"', folder)
        with folders.protected(cluster, folder):
            assert lab.exec(xfs, "stat", "-f", "-c", "%T", folder).stdout.strip() == "xfs"
            assert answers(ext4, "on-ext4") == MIXED
            trees.wait_equal(cluster, folder, 120)
            cluster.make_active(xfs)
            cluster.wait_automatic_failover()
            assert answers(xfs, "on-xfs") == MIXED
            trees.wait_equal(cluster, folder, 120)
            lab.power_cut(ext4)
            assert answers(xfs, "alone") == MIXED, "of a node that is away"
            lab.boot(ext4)
            cluster.wait_automatic_failover(120)
            trees.wait_equal(cluster, folder, 120)
