# SPDX-License-Identifier: Apache-2.0
"""A passive that stands still, or was away for more than memory holds: the application does not wait, and there is no resynchronization."""

import ledger
import postgres
import pytest
import trees
from verdicts import demand_nothing_lost

STALL_S = 8                 # well below what a daemon takes for a mirror that hangs
MORE_THAN_THE_RING_MB = 200
RESYNCHRONIZED = "set 1 is being copied"


class Stalled:
    """The mirror of a machine stands still."""

    def __init__(self, lab, machine):
        self.lab, self.machine = lab, machine

    def __enter__(self):
        self.lab.sh(self.machine, "systemctl kill -s STOP holdfast-mirror")

    def __exit__(self, *_):
        self.lab.sh(self.machine, "systemctl kill -s CONT holdfast-mirror")


def stall(cluster, lab, clients, mode):
    cluster.set_mode(mode)
    active, passive = cluster.wait_automatic_failover()
    cursor = cluster.journal_cursor(active)
    clients.wait_seconds(2)
    with Stalled(lab, passive):
        clients.wait_seconds(STALL_S)
    assert cluster.wait_automatic_failover(90) == (active, passive)
    clients.wait_commits(100)
    clients.stop()
    gap_s = ledger.longest_gap_s(clients.entries())
    print(f"{mode}: longest time without a commit {gap_s:.2f} s")
    assert not cluster.told_since(active, "holdfast-mirror", cursor, RESYNCHRONIZED)
    demand_nothing_lost(cluster, clients)
    postgres.checkpoint(lab, active)
    trees.wait_equal(cluster, postgres.DATA)
    return gap_s


def test_stalled_passive_async_is_not_noticed(cluster, lab, clients):
    assert stall(cluster, lab, clients, "async") < 1.0


def test_stalled_passive_fsync_waits_for_the_record_only(cluster, lab, clients):
    assert stall(cluster, lab, clients, "fsync") <= 2.0


@pytest.mark.long
def test_passive_that_was_away_for_more_than_the_ring_is_not_copied_anew(cluster, lab, clients):
    cluster.set_mode("async")
    active, passive = cluster.wait_automatic_failover()
    cursor = cluster.journal_cursor(active)
    lab.sh(passive, "systemctl stop holdfast-mirror")
    cluster.wait(lambda: cluster.node_in(cluster.status_of(active), passive)["synchronized"] is False,
                 f"{active} says that {passive} is not synchronized", 20)
    lab.sh(active, f"for i in 1 2 3 4; do head -c {MORE_THAN_THE_RING_MB // 4}M /dev/urandom > {postgres.DATA}/bulk-$i; "
                   f"sync {postgres.DATA}/bulk-$i; done; rm {postgres.DATA}/bulk-*", timeout_s=120)
    assert int(lab.sh(active, "du -sm /var/lib/holdfast/mirror/send | cut -f1")) > MORE_THAN_THE_RING_MB // 2
    lab.sh(passive, "systemctl start holdfast-mirror")
    assert cluster.wait_automatic_failover(120) == (active, passive)
    clients.wait_commits(100)
    clients.stop()
    assert not cluster.told_since(active, "holdfast-mirror", cursor, RESYNCHRONIZED)
    assert ledger.longest_gap_s(clients.entries()) < 2.0
    demand_nothing_lost(cluster, clients)
    postgres.checkpoint(lab, active)
    trees.wait_equal(cluster, postgres.DATA)
