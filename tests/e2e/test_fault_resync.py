# SPDX-License-Identifier: Apache-2.0
"""Misfortunes of a resynchronization, and of an ex-active with changes that nobody was sent."""

import json

import ledger
import postgres
import pytest
import trees
from labs import wait_until
from verdicts import demand_consistent, demand_nothing_lost

FOLDER = "/srv/bulk"
BULK_MB = 300
SLOW = "60mbit"             # so that BULK_MB takes long enough to be interrupted


@pytest.fixture
def history(cluster, lab):
    """Undo history on both nodes, which begins with a restart of the mirror; the passive's first."""
    active, passive = cluster.wait_automatic_failover()
    cluster.cli(active, "config", "set", "undo_mib", "1024")
    version = cluster.config_version(active)
    cluster.wait(lambda: cluster.config_version(passive) >= version, f"{passive} has heard of the setting", 10)
    for node in (passive, active):
        lab.sh(node, "systemctl restart holdfast-mirror")
        cluster.wait_automatic_failover(120)
    yield cluster.wait_automatic_failover()


@pytest.fixture
def bulk(cluster, lab, history):
    active, _ = history
    lab.sh(active, f"mkdir -p {FOLDER}")
    cluster.cli(active, "protect", FOLDER, timeout_s=120)
    yield cluster.wait_automatic_failover()
    for node in cluster.nodes:
        lab.sh(node, "tc qdisc del dev chan0 root 2>/dev/null || true")
    cluster.wait_synchronized(180)
    cluster.cli(cluster.active(), "unprotect", FOLDER, "--yes", timeout_s=120)
    for node in cluster.nodes:
        lab.sh(node, f"rm -rf {FOLDER}")


def is_resynchronized_by(cluster, active, node):
    told = cluster.node_in(cluster.status_of(active), node)
    return told["synchronized"] is False and (told.get("sync_progress") or {}).get("done_objects", 0) > 0


@pytest.mark.long
@pytest.mark.fault("powercut-in-resync")
def test_powercut_of_the_passive_in_resync_then_of_the_active(cluster, lab, clients, bulk):
    """The passive dies in mid-resync, then the active: the passive serves as of its last consistent point, and says how old."""
    first, second = bulk
    clients.wait_commits(300)
    lab.power_cut(first)                                    # unclean: it will be compared with its successor
    clients.wait_served_by(second)
    clients.wait_commits(300)
    lab.sh(second, f"head -c {BULK_MB}M /dev/urandom > {FOLDER}/bulk; sync; "
                   f"tc qdisc replace dev chan0 root tbf rate {SLOW} burst 64kb latency 100ms", timeout_s=120)
    lab.boot(first)
    cluster.wait(lambda: is_resynchronized_by(cluster, second, first), f"{first} is being resynchronized", 60)
    lab.power_cut(first)
    lab.boot(first)
    cluster.wait(lambda: is_resynchronized_by(cluster, second, first), "the resynchronization goes on", 60)
    clients.stop()
    lab.power_cut(second)
    refused = cluster.cli(first, "failover", check=False)
    assert refused.returncode != 0, "an incomplete node became the active without being forced"
    shown = json.loads(cluster.cli(first, "status", "--json").stdout)
    point = cluster.node_in(shown, first)["consistent_point"]
    assert point and point["age_s"] > 0, f"the status does not say how old the node's last consistent point is: {shown}"
    cluster.cli(first, "failover", "--force", "--yes", timeout_s=120)
    cluster.wait_active(first, 60)
    wait_until(lambda: postgres.psql(lab, first, "SELECT 1") == "1", "PostgreSQL answers", 60, cluster.evidence)
    postgres.check(lab, first)
    lab.boot(second)
    cluster.wait_automatic_failover(180)
    postgres.checkpoint(lab, first)
    trees.wait_equal(cluster, postgres.DATA)
    trees.wait_equal(cluster, FOLDER)


@pytest.mark.long
@pytest.mark.fault("divergent-ex-active")
def test_ex_active_with_unsent_writes_returns(cluster, lab, clients, history):
    """An ex-active returns with ten seconds of writes that nobody was sent: kept to look at, and the cluster converges."""
    cluster.set_mode("async")
    old, new = cluster.wait_automatic_failover()
    epoch = cluster.status()["lease"]["epoch"]
    lab.cut(old, new)
    clients.wait_seconds(10)
    unsent = int(postgres.psql(lab, old, "SELECT count(*) FROM entries", "ledger"))
    lab.power_cut(old)
    clients.stop()
    lab.heal_all()
    cluster.cli(new, "failover", "--force", "--yes", timeout_s=120)
    cluster.wait_active(new, 60)
    wait_until(lambda: postgres.psql(lab, new, "SELECT 1") == "1", "PostgreSQL answers", 60, cluster.evidence)
    kept = int(postgres.psql(lab, new, "SELECT count(*) FROM entries", "ledger"))
    assert kept < unsent, "nothing was unsent: the test shows nothing"
    lab.boot(old)
    cluster.wait_automatic_failover(180)
    shadows = json.loads(cluster.cli(new, "shadow", "list", "--node", old, "--json").stdout)["shadows"]
    divergent = [shadow["name"] for shadow in shadows if shadow["name"] == f"{old}-epoch-{epoch}-divergent"]
    assert divergent, f"{old} kept no shadow of what nobody else had: {shadows}"
    view = "/run/divergent"
    cluster.cli(old, "look", "--at", divergent[0], "--node", old, view)
    try:
        lab.sh(old, f"test -s {view}/PG_VERSION || test -s {view}{postgres.DATA}/PG_VERSION")
    finally:
        cluster.cli(old, "look", "--end", view)
    demand_consistent(cluster, clients.verdict())
    postgres.checkpoint(lab, new)
    trees.wait_equal(cluster, postgres.DATA)
