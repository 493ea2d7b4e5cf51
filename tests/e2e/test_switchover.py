# SPDX-License-Identifier: Apache-2.0
"""Managed switchovers, under load and when something stands in the way."""

import subprocess

import ledger
import postgres
import pytest
import trees
from verdicts import SWITCHOVER_LIMIT_S, demand_nothing_lost


@pytest.mark.ci
def test_switchover_there_and_back(cluster, clients):
    old, new = cluster.wait_automatic_failover()
    gaps = []
    for source, target in ((old, new), (new, old)):
        cluster.make_active(target)
        clients.wait_served_by(target)
        clients.wait_seconds(2)
        gaps.append(ledger.switchover_gap_s(clients.entries(), source, target))
        cluster.wait_automatic_failover()
    clients.stop()
    demand_nothing_lost(cluster, clients)
    assert max(gaps) <= SWITCHOVER_LIMIT_S, f"without a commit for {gaps} s"
    postgres.checkpoint(cluster.lab, cluster.active())
    trees.wait_equal(cluster, postgres.DATA)


@pytest.mark.ci
def test_switchover_plan_shows_steps(cluster):
    _, passive = cluster.wait_automatic_failover()
    cluster.make_active(passive)
    text = cluster.cli(passive, "events").stdout
    assert "switchover" in text, text
    cluster.wait_synchronized()


def test_switchover_async_loses_nothing(cluster, clients):
    cluster.set_mode("async")
    old, new = cluster.wait_automatic_failover()
    cluster.make_active(new)
    clients.wait_served_by(new)
    clients.wait_seconds(2)
    clients.stop()
    demand_nothing_lost(cluster, clients)


def test_switchover_is_reverted_while_someone_holds_the_folder(cluster, lab, clients):
    """A process of nobody's application with an open file: the plan names it, and the old active goes on."""
    active, passive = cluster.wait_automatic_failover()
    with lab.popen(active, "tail", "-f", f"{postgres.DATA}/PG_VERSION", stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout.readline().strip() == "15"
            done = cluster.cli(active, "make-active", passive, check=False, timeout_s=120)
        finally:
            holder.kill()
    assert done.returncode != 0, f"the switchover went through under an open file: {done.stdout}"
    assert "tail" in done.stdout + done.stderr, f"the holder is not named: {done.stdout}{done.stderr}"
    cluster.wait_active(active)
    clients.wait_served_by(active)
    clients.wait_commits(100)
    clients.stop()
    demand_nothing_lost(cluster, clients)
