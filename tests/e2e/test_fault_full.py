# SPDX-License-Identifier: Apache-2.0
"""A full disk in each place where the product writes: a named state, no loss, and it goes on by itself."""

import contextlib

import ledger
import postgres
import pytest
import small_disk
import trees
from verdicts import demand_nothing_lost

MIRROR = "/var/lib/holdfast/mirror"
ROOM = "/srv/room"                  # a small disk of its own on the passive; what is protected lies below it
FOLDER = f"{ROOM}/protected"
BURST_MB = 700                      # more than the ring and what is kept prepared in segments
ASYNC_GAP_S, FSYNC_GAP_S = 1.0, 3.0


@contextlib.contextmanager
def protected(cluster, lab):
    active, _ = cluster.wait_synchronized()
    for node in cluster.nodes:
        lab.sh(node, f"mkdir -p {FOLDER}")
    cluster.cli(active, "protect", FOLDER, timeout_s=120)
    try:
        yield cluster.wait_automatic_failover()
    finally:
        cluster.wait_synchronized(180)
        cluster.cli(cluster.active(), "unprotect", FOLDER, "--yes", timeout_s=120)
        for node in cluster.nodes:
            cluster.wait(lambda n=node: lab.sh(n, f"grep -c ' {FOLDER} ' /proc/self/mounts || true").strip() == "0",
                         f"{node} covers {FOLDER} no more", 60)
            lab.sh(node, f"rm -rf {ROOM}/*")


@pytest.fixture
def folder(cluster, lab):
    with protected(cluster, lab) as nodes:
        yield nodes


@contextlib.contextmanager
def mirror_stopped(cluster, lab, node):
    """The node's part of the data plane is down; it is synchronized again when the block has ended."""
    lab.sh(node, "systemctl stop holdfastd holdfast-mirror")
    try:
        yield
    finally:
        lab.sh(node, "systemctl start holdfast-mirror holdfastd")
        cluster.wait_automatic_failover(120)


def burst(lab, node, name, megabytes=BURST_MB):
    lab.sh(node, f"head -c {megabytes}M /dev/urandom > {FOLDER}/{name}; sync -f {FOLDER}", timeout_s=180)


def wait_told(cluster, node, cursor, words):
    cluster.wait(lambda: cluster.told_since(node, "holdfastd", cursor, words), f"{node} says: {words}", 60)


def demand_all_there(cluster, lab, clients, limit_s):
    cluster.wait_automatic_failover(180)
    clients.wait_commits(100)
    clients.stop()
    gap_s = ledger.longest_gap_s(clients.entries())
    print(f"longest time without a commit {gap_s:.2f} s")
    assert gap_s <= limit_s, f"the application waited {gap_s:.2f} s"
    demand_nothing_lost(cluster, clients)
    postgres.checkpoint(lab, cluster.active())
    for path in (postgres.DATA, FOLDER):
        trees.wait_equal(cluster, path, 120)


@pytest.mark.long
@pytest.mark.fault("full-receive")
@pytest.mark.parametrize("mode", ("async", "fsync"))
def test_full_receive_queue(cluster, lab, folder, clients, mode):
    """The disk of a passive's receive queue is full: it waits and says so, and goes on when there is room."""
    cluster.set_mode(mode)
    active, passive = cluster.wait_automatic_failover()
    with small_disk.under(lab, passive, f"{MIRROR}/receive", "400M", lambda: mirror_stopped(cluster, lab, passive)):
        since = cluster.journal_cursor(passive)
        small_disk.fill(lab, passive, f"{MIRROR}/receive")
        burst(lab, active, "burst")
        wait_told(cluster, passive, since, "is full under the receive queue")
        clients.wait_commits(300)
        small_disk.free(lab, passive, f"{MIRROR}/receive")
        wait_told(cluster, passive, since, "there is space again under the receive queue")
        demand_all_there(cluster, lab, clients, ASYNC_GAP_S if mode == "async" else FSYNC_GAP_S)


@pytest.mark.long
@pytest.mark.fault("full-folder")
@pytest.mark.parametrize("mode", ("async", "fsync"))
def test_full_protected_folder_of_the_passive(cluster, lab, clients, mode):
    """The disk under a passive's protected folder is full: apply waits and says so, and goes on when there is room."""
    cluster.set_mode(mode)
    active, passive = cluster.wait_automatic_failover()
    with small_disk.under(lab, passive, ROOM, "1G"), protected(cluster, lab):
        since = cluster.journal_cursor(passive)
        small_disk.fill(lab, passive, ROOM, 50 << 20)
        burst(lab, active, "burst", 200)
        wait_told(cluster, passive, since, "is full under the protected folder")
        clients.wait_commits(300)
        small_disk.free(lab, passive, ROOM)
        wait_told(cluster, passive, since, "there is space again under the protected folder")
        demand_all_there(cluster, lab, clients, ASYNC_GAP_S if mode == "async" else FSYNC_GAP_S)


@pytest.mark.long
@pytest.mark.fault("full-send")
def test_full_send_queue(cluster, lab, folder, clients):
    """The disk of the active's send queue is full while a passive is away: the application goes on, the passive is made equal."""
    cluster.set_mode("async")
    active, passive = cluster.wait_automatic_failover()
    with small_disk.under(lab, active, f"{MIRROR}/send", "200M"):     # empty, and not open: nothing was put aside yet
        since = cluster.journal_cursor(active)
        small_disk.fill(lab, active, f"{MIRROR}/send", 32 << 20)
        lab.cut(active, passive)
        burst(lab, active, "burst")
        wait_told(cluster, active, since, "is full under the send queue")
        clients.wait_commits(300)
        lab.heal_all()
        demand_all_there(cluster, lab, clients, ASYNC_GAP_S)
        cluster.wait(lambda: not lab.sh(active, f"find {MIRROR}/send -name 'seg-*'"), "what was put aside is given up", 30)


@pytest.mark.long
@pytest.mark.fault("full-undo")
def test_full_undo_history(cluster, lab, folder, clients):
    """The disk of a passive's undo history is full: the oldest history goes, nothing waits, nothing is lost."""
    active, passive = folder
    cluster.cli(active, "config", "set", "undo_mib", "1024")
    with small_disk.under(lab, passive, f"{MIRROR}/undo", "300M", lambda: mirror_stopped(cluster, lab, passive)):
        burst(lab, active, "burst")
        small_disk.fill(lab, passive, f"{MIRROR}/undo", 20 << 20)
        burst(lab, active, "burst")                     # over what is there: its old bytes want to be kept
        clients.wait_commits(300)
        demand_all_there(cluster, lab, clients, FSYNC_GAP_S)
        small_disk.free(lab, passive, f"{MIRROR}/undo")
