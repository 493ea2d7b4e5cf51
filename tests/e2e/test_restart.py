# SPDX-License-Identifier: Apache-2.0
"""A planned restart of the mirror: the application runs on, in the same epoch. Whatever is no planned restart ends as ever."""

import time

import ledger
import pytest
from labs import wait_until
from verdicts import demand_nothing_lost

WAITS_AT_MOST_S = 5.0       # the lease holds on, the application waits; measured 0.3 to 1 s


def restarted(cluster, node):
    return [event for event in cluster.events_of(node) if event["code"] == "mirror_restarted"]


def started_s(lab, node, unit):
    return lab.sh(node, 'systemctl show --property=ActiveEnterTimestampMonotonic --value "$1"', unit).strip()


@pytest.mark.skip(reason="switched off as delivered (docs/ARCHITECTURE.md); units of applications still require the mirror")
def test_restarted_mirror_keeps_the_application(cluster, lab, clients):
    active, passive = cluster.wait_automatic_failover()
    epoch = cluster.status()["lease"]["epoch"]
    unit = "postgresql@15-main"
    before, told = started_s(lab, active, unit), len(restarted(cluster, active))
    since_s, cursor = time.monotonic(), cluster.journal_cursor(active)
    for times in (1, 2):
        lab.exec(active, "systemctl", "restart", "holdfast-mirror")
        wait_until(lambda n=times: len(restarted(cluster, active)) == told + n, "the restart is told", 20, cluster.evidence)
        clients.wait_seconds(1)
        assert cluster.wait_automatic_failover() == (active, passive)
    clients.stop()
    gap_s = ledger.longest_gap_s(clients.entries(), since_s - 0.5)
    print(f"{gap_s:.2f} s without a commit; {restarted(cluster, active)[-1]['text']}")
    assert cluster.status()["lease"]["epoch"] == epoch, "the role moved"
    assert started_s(lab, active, unit) == before, "the application was started anew"
    assert gap_s < WAITS_AT_MOST_S
    assert not cluster.told_since(active, "holdfast-mirror", cursor, "it is resynchronized"), "something was copied again"
    demand_nothing_lost(cluster, clients)


@pytest.mark.ci
def test_stopped_mirror_gives_the_office_back_at_once(cluster, lab, clients):
    active, passive = cluster.wait_automatic_failover()
    lab.exec(active, "systemctl", "stop", "holdfast-mirror")
    try:
        clients.wait_served_by(passive)
    finally:
        lab.sh(active, "systemctl start holdfast-mirror holdfastd")
    clients.stop()
    cluster.wait_automatic_failover(120)
    demand_nothing_lost(cluster, clients)
