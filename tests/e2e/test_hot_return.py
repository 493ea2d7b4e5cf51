# SPDX-License-Identifier: Apache-2.0
"""A node that was active and did not hand over is compared with its successor only where it was changing something."""

import folders
import ledger
import postgres
import pytest
import trees
from verdicts import demand_nothing_lost

FOLDER = "/srv/mostly-idle"
IDLE_FILES = 4000
MAKE = f"""python3 -c '
import os, sys
for n in range({IDLE_FILES}):
    folder = f"{{sys.argv[1]}}/{{n // 200:02}}"
    if n % 200 == 0: os.makedirs(folder)
    open(f"{{folder}}/{{n:04}}", "w").write("idle " * 100 + str(n))
' "$1" """
# In three of the folders, whose names are all looked at then, and in one of its own: files are changed, made, moved and deleted, many a second,
# a part of it never synchronized to the disk, until it is killed.
BUSY = r"""
import os, random, sys, time
BUSY_FOLDERS = 3
root, chance = sys.argv[1], random.Random(7)
os.makedirs(f"{root}/busy", exist_ok=True)
for n in range(10 ** 9):
    with open(f"{root}/busy/{n}", "wb") as file:
        file.write(chance.randbytes(20000))
        if n % 5 == 0:
            file.flush()
            os.fsync(file.fileno())
    if n % 7 == 0 and n: os.unlink(f"{root}/busy/{n - 7}")
    if n > 20 and n % 7 != 6: os.rename(f"{root}/busy/{n - 20}", f"{root}/{n % BUSY_FOLDERS:02}/moved")
    with open(f"{root}/{chance.randrange(BUSY_FOLDERS):02}/grows", "ab") as file: file.write(b"x" * 3000)
    time.sleep(0.02)
"""


@pytest.fixture
def folder(cluster):
    with folders.protected(cluster, FOLDER, MAKE) as nodes:
        active, _ = nodes
        # Giving ids to all files of a first copy counts as a change of all of it.
        cluster.wait(lambda: cluster.node_in(cluster.status_of(active), active)["hot"]["whole_sets"] == [],
                     f"{active} notes single files", 90)
        yield nodes


def told_of_returns(cluster, node):
    return [event["text"] for event in cluster.events_of(node) if event["code"] == "returned"]


@pytest.mark.ci
@pytest.mark.fault("powercut-returns")
def test_active_that_lost_its_power_is_reconciled_where_it_was_hot(cluster, lab, clients, folder):
    victim, survivor = folder
    with lab.popen(victim, "python3", "-c", BUSY, FOLDER):
        clients.wait_seconds(5)
        lab.power_cut(victim)
    clients.wait_served_by(survivor)
    lab.sh(survivor, f"echo since > {FOLDER}/03/0601; rm {FOLDER}/04/0801; mv {FOLDER}/05 {FOLDER}/five")
    clients.wait_seconds(2)
    clients.stop()
    lab.boot(victim)
    cluster.wait_automatic_failover(120)
    told = cluster.node_in(cluster.status_of(survivor), victim)["last_sync"]
    returns = told_of_returns(cluster, survivor)
    print(f"{returns[-1]}; {told}")
    assert "reconciles" in returns[-1]
    assert told["kind"] == "partial" and told["opened"] < IDLE_FILES / 2
    demand_nothing_lost(cluster, clients)
    trees.wait_equal(cluster, FOLDER)
    postgres.checkpoint(lab, survivor)
    trees.wait_equal(cluster, postgres.DATA)


@pytest.mark.fault("powercut-leads-again")
def test_active_that_leads_again_reconciles_its_passive_where_it_was_hot(cluster, lab, clients, folder):
    """The passive loses its power first, the active later: it leads again, and what it lost of its page cache the passive has perhaps."""
    active, passive = folder
    with lab.popen(active, "python3", "-c", BUSY, FOLDER):
        clients.wait_seconds(3)
        lab.power_cut(passive)
        clients.wait_seconds(4)
        lab.power_cut(active)
    lab.boot(active)
    cluster.wait_active(active, 60)
    clients.wait_served_by(active)
    clients.wait_seconds(2)
    clients.stop()
    lab.boot(passive)
    cluster.wait_automatic_failover(120)
    told = cluster.node_in(cluster.status_of(active), passive)["last_sync"]
    print(told)
    assert told["kind"] == "partial" and told["opened"] < IDLE_FILES / 2
    demand_nothing_lost(cluster, clients)
    trees.wait_equal(cluster, FOLDER)
    postgres.checkpoint(lab, active)
    trees.wait_equal(cluster, postgres.DATA)
