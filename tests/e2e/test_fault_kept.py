# SPDX-License-Identifier: Apache-2.0
"""What must outlive a crash, and what must not be taken for more than it is after one: shadows' names, the send queue on disk."""

import threading

import history
import ledger
import postgres
import pytest
import trees
from labs import LabFailure
from verdicts import demand_nothing_lost

SEND = "/var/lib/holdfast/mirror/send"
MORE_THAN_THE_RING_MB = 200


def shadows_on(cluster, node):
    return {s["name"] for s in history.told(cluster, cluster.active(), "shadow", "list")["shadows"] if node in s["nodes"]}


@pytest.mark.fault("powercut-shadows")
def test_shadows_that_were_confirmed_outlive_a_power_cut(cluster, lab):
    """The passive loses its power while shadows are made one after the other: every confirmed one is there again."""
    active, passive = history.need(cluster)
    confirmed, end = [], threading.Event()

    def make():
        number = 0
        while not end.is_set():
            name = f"cut-{number}"
            number += 1
            try:
                made = history.told(cluster, active, "shadow", "create", name, "--keep")
            except (LabFailure, ValueError):
                return
            if passive in made["shadow"]["nodes"]:
                confirmed.append(name)
    maker = threading.Thread(target=make, daemon=True)
    maker.start()
    try:
        cluster.wait(lambda: len(confirmed) >= 5, "five shadows are confirmed", 60)
        lab.power_cut(passive)
    finally:
        end.set()
        maker.join(60)
    known = list(confirmed)
    lab.boot(passive)
    assert cluster.wait_automatic_failover(120) == (active, passive)
    there = shadows_on(cluster, passive)
    assert set(known) <= there, f"confirmed, and gone: {sorted(set(known) - there)}"
    # They are places that can be gone to, not only names.
    shown = cluster.cli(active, "rollback", "--to", known[-1], "--dry-run")
    assert passive in shown.stdout, shown
    for name in sorted(name for name in there if name.startswith("cut-")):
        cluster.cli(active, "shadow", "delete", name, "--yes")
    assert not [name for name in shadows_on(cluster, passive) if name.startswith("cut-")]
    lab.power_cut(passive)
    lab.boot(passive)
    cluster.wait_automatic_failover(120)
    assert not [name for name in shadows_on(cluster, passive) if name.startswith("cut-")], "deleted ones came back"


@pytest.mark.fault("kill-mirror-in-spill")
@pytest.mark.parametrize("how", ("kill -9 of the mirror", "power cut"))
def test_active_that_dies_while_its_send_queue_is_on_disk(cluster, lab, clients, how):
    """The active dies while much of what its passive lacks lies in its send queue: nothing of its disk is lost, the passive is made equal."""
    cluster.set_mode("async")
    active, passive = cluster.wait_automatic_failover()
    lab.cut(active, passive)
    lab.sh(active, f"head -c {MORE_THAN_THE_RING_MB}M /dev/urandom > {postgres.DATA}/bulk; sync {postgres.DATA}/bulk", timeout_s=120)
    cluster.wait(lambda: int(lab.sh(active, f"du -sm {SEND} | cut -f1")) > MORE_THAN_THE_RING_MB // 2, "it is put aside", 30)
    clients.wait_commits(200)
    if how == "power cut":
        clients.stop()              # or more is acknowledged than is on a disk: its WAL is synced with each commit, the passive's not
        lab.power_cut(active)
        lab.boot(active)
    else:
        lab.exec(active, "pkill", "-KILL", "-x", "holdfast-mirror")
    cluster.wait(lambda: cluster.active() == active, f"{active} is the active again: nobody else has everything", 60)
    lab.heal_all()
    assert cluster.wait_automatic_failover(180) == (active, passive)
    assert not lab.sh(active, f"find {SEND} -name 'seg-*'"), "what an earlier life put aside is still there"
    if how != "power cut":
        clients.wait_commits(100)
        clients.stop()
        print(f"longest time without a commit {ledger.longest_gap_s(clients.entries()):.2f} s")
    demand_nothing_lost(cluster, clients)
    lab.sh(active, f"rm {postgres.DATA}/bulk")
    postgres.checkpoint(lab, active)
    trees.wait_equal(cluster, postgres.DATA)
