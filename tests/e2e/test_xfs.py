# SPDX-License-Identifier: Apache-2.0
"""The other file system: file handles, attributes and free space are the lower file system's own."""

import os

import ledger
import postgres
import pytest
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
