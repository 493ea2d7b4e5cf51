# SPDX-License-Identifier: Apache-2.0
"""A full disk in each place where the product writes: a named state, no loss, and it goes on by itself."""

import folders
import history
import ledger
import postgres
import pytest
import small_disk
import trees
from verdicts import demand_nothing_lost

MIRROR = "/var/lib/holdfast/mirror"
ROOM = "/srv/room"                  # a small disk of its own on the passive; what is protected lies below it
FOLDER = f"{ROOM}/protected"
BURST_MB = 500                      # more than the ring and what is kept prepared in segments
MORE_THAN_THE_RING_MB = 300
ASYNC_GAP_S, FSYNC_GAP_S = 1.0, 3.0


@pytest.fixture
def folder(cluster):
    with folders.protected(cluster, FOLDER) as nodes:
        yield nodes


def burst(lab, node, name, megabytes=BURST_MB):
    """In pieces, each synced: an fsync of the application waits for what was written before it, which is not what is tested."""
    lab.sh(node, 'exec > "$2"; for piece in $(seq "$1"); do head -c 10M /dev/urandom; sync "$2"; done',
           str(megabytes // 10), f"{FOLDER}/{name}", timeout_s=180)


def alerts(cluster, node, code):
    return [f"{a['text']}: {a['hint']}" for a in cluster.status_of(node)["alerts"] if a["code"] == code]


def wait_alert(cluster, node, code, *words):
    def named():
        return any(all(word in text for word in words) for text in alerts(cluster, node, code))
    cluster.wait(named, f"{node} says {code}: {', '.join(words)}", 60)


def wait_no_alert(cluster, node, code):
    cluster.wait(lambda: not alerts(cluster, node, code), f"{node} says {code} no longer", 60)


def events(cluster, node, word):
    return [line for line in cluster.cli(node, "events").stdout.splitlines() if word in line]


def demand_all_there(cluster, clients, limit_s):
    lab = cluster.lab
    active, _ = cluster.wait_automatic_failover(180)
    clients.wait_commits(100)
    clients.stop()
    gap_s = ledger.longest_gap_s(clients.entries())
    print(f"longest time without a commit {gap_s:.2f} s")
    assert gap_s <= limit_s, f"the application waited {gap_s:.2f} s"
    demand_nothing_lost(cluster, clients)
    postgres.checkpoint(lab, active)
    for path in (postgres.DATA, FOLDER):
        trees.wait_equal(cluster, path, 120)


@pytest.mark.long
@pytest.mark.fault("full-receive")
@pytest.mark.parametrize("mode", ("async", "fsync"))
def test_full_receive_queue(cluster, lab, folder, clients, mode):
    """The disk of a passive's receive queue is full: it waits and says so, and goes on when there is room."""
    cluster.set_mode(mode)
    active, passive = cluster.wait_automatic_failover()
    place = f"{MIRROR}/receive"
    with small_disk.under(lab, passive, place, "400M", lambda: folders.mirror_stopped(cluster, passive)):
        small_disk.fill(lab, passive, place)
        burst(lab, active, "burst")
        wait_alert(cluster, active, "full_receive", place, passive, "free space there")
        clients.wait_commits(300)
        small_disk.free(lab, passive, place)
        wait_no_alert(cluster, active, "full_receive")
        assert len(events(cluster, passive, place)) >= 2, "a beginning and an end"
        demand_all_there(cluster, clients, ASYNC_GAP_S if mode == "async" else FSYNC_GAP_S)


@pytest.mark.long
@pytest.mark.fault("full-folder")
@pytest.mark.parametrize("mode", ("async", "fsync"))
def test_full_protected_folder_of_the_passive(cluster, lab, clients, mode):
    """The disk under a passive's protected folder is full: apply waits and says so, and goes on when there is room."""
    cluster.set_mode(mode)
    active, passive = cluster.wait_automatic_failover()
    with small_disk.under(lab, passive, ROOM, "1G"), folders.protected(cluster, FOLDER):
        small_disk.fill(lab, passive, ROOM, 50 << 20)
        burst(lab, active, "burst", 200)
        wait_alert(cluster, active, "full_folder", FOLDER, passive, "free space there")
        clients.wait_commits(300)
        small_disk.free(lab, passive, ROOM)
        wait_no_alert(cluster, active, "full_folder")
        demand_all_there(cluster, clients, ASYNC_GAP_S if mode == "async" else FSYNC_GAP_S)


@pytest.mark.long
@pytest.mark.fault("full-send")
@pytest.mark.parametrize("how", ("full", "below what is kept free"))
def test_full_send_queue(cluster, lab, folder, clients, how):
    """The disk of the active's send queue is full while a passive is away: the application goes on, the passive is made equal."""
    cluster.set_mode("async")
    active, passive = cluster.wait_automatic_failover()
    place = f"{MIRROR}/send"
    kept_mib = cluster.cli(active, "config", "get", "send_keep_free_mib").stdout.strip()
    if how == "full":
        cluster.cli(active, "config", "set", "send_keep_free_mib", "0")
    try:
        with small_disk.under(lab, active, place, "200M"):      # empty, and not open: nothing was put aside yet
            if how == "full":
                small_disk.fill(lab, active, place, 32 << 20)
            lab.cut(active, passive)
            burst(lab, active, "burst", MORE_THAN_THE_RING_MB)
            wait_alert(cluster, active, "queue_given_up", passive, place, f"of which {0 if how == 'full' else kept_mib} are kept")
            assert events(cluster, active, "keeps no longer"), "no event says so"
            clients.wait_commits(300)
            lab.heal_all()
            demand_all_there(cluster, clients, ASYNC_GAP_S)
            wait_no_alert(cluster, active, "queue_given_up")
            assert events(cluster, active, "keeps again"), "no event says that it is over"
            cluster.wait(lambda: not lab.sh(active, f"find {place} -name 'seg-*'"), "what was put aside is given up", 30)
    finally:
        lab.heal_all()
        cluster.cli(active, "config", "set", "send_keep_free_mib", kept_mib)


@pytest.mark.long
@pytest.mark.fault("full-undo")
def test_full_undo_history(cluster, lab, clients):
    """The disk of a passive's undo history is full: the oldest history goes, nothing waits, nothing is lost."""
    history.need(cluster)
    place = f"{MIRROR}/undo"
    with folders.protected(cluster, FOLDER) as (active, passive):
        with small_disk.under(lab, passive, place, "300M", lambda: folders.mirror_stopped(cluster, passive)):
            burst(lab, active, "burst", 200)
            small_disk.fill(lab, passive, place, 20 << 20)
            burst(lab, active, "burst", 200)                # over what is there: its old bytes want to be kept
            clients.wait_commits(300)
            demand_all_there(cluster, clients, FSYNC_GAP_S)
            small_disk.free(lab, passive, place)
            cluster.wait(lambda: history.of(cluster, passive)["state"] == "on", "it has a history again", 60)
