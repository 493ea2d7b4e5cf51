# SPDX-License-Identifier: Apache-2.0
"""What several tests demand after a role change."""

import postgres

POWER_CUT_LIMIT_S = 5.0
SWITCHOVER_LIMIT_S = 3.0
LEASE_S = 2.0


def demand_nothing_lost(cluster, clients):
    """Every acknowledged commit is there, none that was not made, no half of one, and PostgreSQL's own checks pass."""
    verdict = clients.verdict()
    assert verdict["acknowledged"] > 100, f"too few commits to judge by: {verdict}"
    assert verdict["lost"] == 0, f"lost {verdict['lost']} acknowledged commits, e.g. {verdict['lost_keys'][:20]}"
    demand_consistent(cluster, verdict)


def demand_consistent(cluster, verdict):
    assert verdict["ghosts"] == 0, f"rows that no client committed: {verdict['ghost_keys']}"
    assert verdict["torn_accounts"] == 0, f"halves of transactions: {verdict['torn']}"
    postgres.check(cluster.lab, cluster.active())
