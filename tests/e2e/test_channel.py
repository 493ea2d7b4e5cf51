# SPDX-License-Identifier: Apache-2.0
"""The link between the nodes breaks and heals."""

import ledger
import postgres
import pytest
import trees
from verdicts import POWER_CUT_LIMIT_S, demand_nothing_lost


@pytest.mark.ci
def test_channel_cut_async_is_not_noticed_and_continues(cluster, lab, clients):
    cluster.set_mode("async")
    active, passive = cluster.wait_automatic_failover()
    epoch = cluster.status()["lease"]["epoch"]
    lab.cut("n1", "n2")
    cluster.wait(lambda: cluster.node_in(cluster.status_of(active), passive)["synchronized"] is False,
                 f"{active} says that {passive} is not synchronized", 20)
    clients.wait_seconds(4)
    clients.wait_commits(200)
    lab.heal("n1", "n2")
    assert cluster.wait_automatic_failover(90) == (active, passive)
    clients.wait_seconds(1)
    clients.stop()
    assert cluster.status()["lease"]["epoch"] == epoch, "the role moved"
    gap_s = ledger.longest_gap_s(clients.entries())
    assert gap_s < 1.0, f"the application noticed: {gap_s:.2f} s without a commit"
    demand_nothing_lost(cluster, clients)
    postgres.checkpoint(lab, active)
    trees.wait_equal(cluster, postgres.DATA)


@pytest.mark.ci
def test_channel_cut_fsync_waits_for_the_record_only(cluster, lab, clients):
    active, passive = cluster.wait_automatic_failover()
    lab.cut("n1", "n2")
    clients.wait_seconds(4)
    clients.wait_commits(200)
    assert cluster.status_of(active)["automatic_failover"]["available"] is False
    lab.heal("n1", "n2")
    assert cluster.wait_automatic_failover(90) == (active, passive)
    clients.stop()
    gap_s = ledger.longest_gap_s(clients.entries())
    assert gap_s <= POWER_CUT_LIMIT_S, f"{gap_s:.2f} s without a commit"
    demand_nothing_lost(cluster, clients)
    trees.wait_equal(cluster, postgres.DATA)


def test_active_cut_from_everyone_is_fenced_and_replaced(cluster, lab, clients):
    victim, survivor = cluster.wait_automatic_failover()
    for other in (survivor, "w1"):
        lab.cut(victim, other)
    clients.wait_served_by(survivor)
    clients.wait_seconds(2)
    lab.heal_all()
    active, _ = cluster.wait_synchronized(120)
    clients.stop()
    assert active == survivor
    demand_nothing_lost(cluster, clients)


def test_witness_lost_changes_nothing(cluster, lab, clients):
    active, _ = cluster.wait_automatic_failover()
    lab.cut("w1", "n1")
    lab.cut("w1", "n2")
    clients.wait_seconds(5)
    clients.stop()
    assert cluster.active() == active
    assert ledger.longest_gap_s(clients.entries()) < 1.0
    assert any(not vote["reachable"] for vote in cluster.status()["votes"]), cluster.status()["votes"]
