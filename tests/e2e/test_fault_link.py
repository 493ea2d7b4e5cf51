# SPDX-License-Identifier: Apache-2.0
"""Links that do not just break."""

import ledger
import postgres
import pytest
import trees
from verdicts import demand_nothing_lost


@pytest.mark.long
@pytest.mark.fault("link-flapping")
@pytest.mark.parametrize("mode", ("async", "fsync"))
def test_link_that_flaps_every_second(request, cluster, lab, clients, mode):
    """The channel is cut and healed every second for five minutes under load; the role stays, the trees are equal."""
    cluster.set_mode(mode)
    active, passive = cluster.wait_automatic_failover()
    epoch = cluster.status()["lease"]["epoch"]
    for _ in range(request.config.getoption("--flaps")):
        lab.cut("n1", "n2")
        clients.wait_seconds(1)
        lab.heal("n1", "n2")
        clients.wait_seconds(1)
    clients.wait_commits(100)
    assert cluster.wait_automatic_failover(90) == (active, passive)
    clients.stop()
    assert cluster.status()["lease"]["epoch"] == epoch, "the role moved"
    gap_s = ledger.longest_gap_s(clients.entries())
    print(f"{mode}: longest time without a commit {gap_s:.2f} s")
    assert gap_s <= (1.0 if mode == "async" else 3.0), f"{gap_s:.2f} s without a commit"
    demand_nothing_lost(cluster, clients)
    postgres.checkpoint(lab, active)
    trees.wait_equal(cluster, postgres.DATA)
