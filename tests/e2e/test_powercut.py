# SPDX-License-Identifier: Apache-2.0
"""The active loses its power under load; what it had not synchronized to its disk is really gone."""

import threading
import time

import ledger
import postgres
import pytest
import trees
from labs import LabFailure
from verdicts import POWER_CUT_LIMIT_S, demand_consistent, demand_nothing_lost


@pytest.mark.fault("powercut-active-fsync")
@pytest.mark.ci
def test_powercut_fsync(cluster, lab, clients, cut_number):
    """Each cut hits the node that the last one promoted. Nothing acknowledged is lost, and the outage is short."""
    victim, survivor = cluster.wait_automatic_failover()
    clients.wait_seconds(2 + 0.37 * (cut_number % 5))      # not always at the same point of a checkpoint
    cut_s = lab.power_cut(victim)
    clients.wait_served_by(survivor)
    clients.wait_seconds(2)
    clients.stop()
    outage_s = ledger.outage_after_s(clients.entries(), cut_s)
    print(f"cut {cut_number} of {victim}: outage {outage_s:.2f} s")
    demand_nothing_lost(cluster, clients)
    assert outage_s <= POWER_CUT_LIMIT_S, f"{outage_s:.2f} s from the cut to the first commit"
    lab.boot(victim)
    active, _ = cluster.wait_synchronized(120)
    assert active == survivor, "the returning node took the role back"
    postgres.checkpoint(lab, active)
    trees.wait_equal(cluster, postgres.DATA)


class RecoveryPointWatch:
    """Asks the active again and again what its status shows, and remembers when it asked."""

    def __init__(self, cluster, active, passive):
        self.samples, self._end = [], threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(cluster, active, passive), daemon=True)
        self._thread.start()

    def _watch(self, cluster, active, passive):
        while not self._end.is_set():
            asked_s = time.monotonic()
            try:
                point = cluster.node_in(cluster.status_of(active, 5), passive)["recovery_point_s"]
            except (LabFailure, OSError, ValueError, TimeoutError):
                return
            if point is not None:
                self.samples.append((asked_s, point))

    def stop(self):
        self._end.set()
        self._thread.join(15)


@pytest.mark.fault("powercut-active-async")
@pytest.mark.ci
def test_powercut_async(cluster, lab, clients):
    """What is lost is no older than the recovery point shown last plus the age of that sample."""
    cluster.set_mode("async")
    victim, survivor = cluster.wait_automatic_failover()
    watch = RecoveryPointWatch(cluster, victim, survivor)
    clients.wait_seconds(4)
    cut_s = lab.power_cut(victim)
    watch.stop()
    clients.wait_served_by(survivor)
    clients.wait_seconds(2)
    clients.stop()
    shown = [(asked, point) for asked, point in watch.samples if asked < cut_s]
    assert shown, "the active showed no recovery point before the cut"
    asked_s, point_s = shown[-1]
    verdict = clients.verdict()
    lost = {tuple(key) for key in verdict["lost_keys"]}
    oldest_s = min((entry.end_ns / 1e9 for entry in clients.entries()
                    if entry.outcome == "ok" and (entry.client, entry.n) in lost), default=cut_s)
    print(f"lost {verdict['lost']} of {verdict['acknowledged']}, the oldest {cut_s - oldest_s:.3f} s before the cut; "
          f"shown last {point_s} s, {cut_s - asked_s:.3f} s before the cut")
    assert oldest_s >= asked_s - point_s, "a lost commit is older than the recovery point admitted"
    demand_consistent(cluster, verdict)
    lab.boot(victim)
    active, _ = cluster.wait_synchronized(120)
    postgres.checkpoint(lab, active)
    trees.wait_equal(cluster, postgres.DATA)


@pytest.mark.fault("powercut-passive")
def test_powercut_of_the_passive_is_not_noticed_for_long(cluster, lab, clients):
    """The passive loses its power, and is synchronized again when it returns."""
    active, passive = cluster.wait_automatic_failover()
    lab.power_cut(passive)
    clients.wait_commits(500)
    clients.wait_seconds(3)
    assert cluster.active() == active
    node = cluster.node_in(cluster.status_of(active), passive)
    assert node["synchronized"] is False, "a dead passive is shown as synchronized"
    assert cluster.status_of(active)["automatic_failover"]["available"] is False
    lab.boot(passive)
    cluster.wait_automatic_failover(120)
    clients.stop()
    assert ledger.longest_gap_s(clients.entries()) <= POWER_CUT_LIMIT_S
    demand_nothing_lost(cluster, clients)
    postgres.checkpoint(lab, active)
    trees.wait_equal(cluster, postgres.DATA)


@pytest.mark.long
@pytest.mark.parametrize("mode", [pytest.param("fsync", marks=pytest.mark.fault("powercut-all-fsync")),
                                  pytest.param("async", marks=pytest.mark.fault("powercut-all-async"))])
@pytest.mark.parametrize("back_first", ("active", "passive"))
def test_powercut_of_all_machines(cluster, lab, clients, mode, back_first):
    """Everything goes dark. The last active's own disk is complete, in either mode; whoever boots first waits for it."""
    cluster.set_mode(mode)
    active, passive = cluster.wait_automatic_failover()
    clients.wait_seconds(2)
    for machine in (active, passive, "w1"):
        lab.power_cut(machine)
    clients.stop()
    for machine in ("w1", *((active, passive) if back_first == "active" else (passive, active))):
        lab.boot(machine)
    cluster.wait_synchronized(180)
    demand_nothing_lost(cluster, clients)
    postgres.checkpoint(lab, cluster.active())
    trees.wait_equal(cluster, postgres.DATA)
