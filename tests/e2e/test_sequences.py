# SPDX-License-Identifier: Apache-2.0
"""Two misfortunes in a row, each of which is survived alone: where a copy that looks complete may not be."""

import ledger
import postgres
import pytest
import trees
from labs import wait_until
from verdicts import POWER_CUT_LIMIT_S, demand_nothing_lost


def demand_equal_trees(cluster):
    active, _ = cluster.wait_synchronized(120)
    postgres.checkpoint(cluster.lab, active)
    trees.wait_equal(cluster, postgres.DATA)


@pytest.mark.ci
def test_promoted_node_loses_power_at_its_first_commit(cluster, lab, clients):
    """What it held only in memory before its promotion was acknowledged too."""
    first, second = cluster.wait_automatic_failover()
    clients.wait_seconds(2)
    lab.power_cut(first)
    clients.wait_for(lambda me: any(move["server"].startswith(second) for move in me.moves),
                     f"a commit on {second}", 30)
    lab.power_cut(second)
    lab.boot(second)
    lab.boot(first)
    cluster.wait_automatic_failover(120)
    clients.wait_commits(100, 60)
    clients.stop()
    demand_nothing_lost(cluster, clients)
    demand_equal_trees(cluster)


@pytest.mark.ci
def test_active_alone_restarts_and_its_peer_gets_all_it_missed(cluster, lab, clients):
    """The peer's last position was right before it left; what the active did alone since must reach it."""
    active, passive = cluster.wait_automatic_failover()
    lab.power_cut(passive)
    clients.wait_commits(300)
    clients.wait_seconds(3)
    lab.power_cut(active)
    lab.boot(active)
    cluster.wait_active(active, 60)
    clients.wait_served_by(active, 60)
    lab.boot(passive)
    cluster.wait_automatic_failover(120)
    clients.stop()
    demand_nothing_lost(cluster, clients)
    demand_equal_trees(cluster)
    cluster.make_active(passive)
    cluster.wait_synchronized()
    demand_nothing_lost(cluster, clients)


@pytest.mark.ci
def test_old_active_loses_power_right_after_a_switchover(cluster, lab, clients):
    """Its tree as it stood at the hand-over must be on its disk before it counts as a complete copy."""
    old, new = cluster.wait_automatic_failover()
    cluster.make_active(new)
    cluster.wait(lambda: cluster.node_in(cluster.status_of(new), old)["synchronized"], f"{old} is synchronized", 60)
    lab.power_cut(old)
    clients.wait_seconds(2)
    lab.boot(old)
    cluster.wait_automatic_failover(120)
    clients.stop()
    demand_nothing_lost(cluster, clients)
    demand_equal_trees(cluster)


def test_mirror_of_a_lone_active_dies(cluster, lab, clients):
    """Nobody can take over: the same node serves again, on a base that the absent peer can't mistake for its own."""
    active, passive = cluster.wait_automatic_failover()
    lab.power_cut(passive)
    clients.wait_commits(300)
    lab.exec(active, "systemctl", "kill", "--signal=KILL", "holdfast-mirror")
    cluster.wait_active(active, 60)
    clients.wait_commits(300, 60)
    lab.boot(passive)
    cluster.wait_automatic_failover(120)
    clients.stop()
    demand_nothing_lost(cluster, clients)
    demand_equal_trees(cluster)


@pytest.mark.ci
@pytest.mark.parametrize("how", ("machine", "mirror"))
def test_frozen_passive_does_not_hang_the_application(cluster, lab, clients, how):
    active, passive = cluster.wait_automatic_failover()
    if how == "machine":
        lab.freeze(passive)
    else:
        lab.exec(passive, "systemctl", "kill", "--signal=STOP", "holdfast-mirror")
    clients.wait_seconds(POWER_CUT_LIMIT_S)
    for _ in range(3):                  # and it stays so: nobody takes the dead one back among those waited for
        clients.wait_commits(100, 10)
        clients.wait_seconds(3)
    assert cluster.node_in(cluster.status_of(active), passive)["synchronized"] is False
    if how == "machine":
        lab.thaw(passive)
    else:
        lab.exec(passive, "systemctl", "kill", "--signal=CONT", "holdfast-mirror")
    assert cluster.wait_automatic_failover(120) == (active, passive)
    clients.stop()
    assert ledger.longest_gap_s(clients.entries()) <= POWER_CUT_LIMIT_S
    demand_nothing_lost(cluster, clients)


@pytest.mark.long
@pytest.mark.parametrize("turn", range(5))
def test_powercut_at_the_moment_the_peer_is_back(cluster, lab, clients, turn):
    """'Synchronized' and 'automatic failover available' must be true from the first moment they are shown."""
    active, passive = cluster.wait_automatic_failover()
    lab.cut("n1", "n2")
    clients.wait_seconds(3)
    lab.heal("n1", "n2")
    wait_until(lambda: cluster.status_of(active)["automatic_failover"]["available"], "failover is available again", 90,
               cluster.evidence, pause_s=0)
    lab.power_cut(active)
    clients.wait_served_by(passive)
    clients.wait_seconds(1)
    clients.stop()
    demand_nothing_lost(cluster, clients)


@pytest.mark.long
def test_fence_and_win_again(cluster, lab, clients):
    """The active loses its majority for a moment and gets it back: nothing that stragglers did may be missing later."""
    active, passive = cluster.wait_automatic_failover()
    for other in (passive, "w1"):
        lab.cut(active, other)
    lab.cut(passive, "w1")
    clients.wait_for(lambda me: me.latest["quiet_s"] > 3, "the clients are without a server", 20)
    lab.heal_all()
    cluster.wait_automatic_failover(120)
    clients.wait_commits(100, 60)
    clients.stop()
    demand_nothing_lost(cluster, clients)
    demand_equal_trees(cluster)


@pytest.mark.long
@pytest.mark.parametrize("delay_ms", (0, 100, 300, 600, 1000, 1500, 2500))
def test_holdfastd_dies_during_a_switchover(cluster, lab, clients, delay_ms):
    """At any step: within a short time one node serves, and the trees are equal."""
    active, passive = cluster.wait_automatic_failover()
    lab.exec(active, "systemd-run", "--quiet", f"--on-active={delay_ms}ms", "--timer-property=AccuracySec=1ms",
             "systemctl", "kill", "--signal=KILL", "holdfastd")
    cluster.cli(active, "make-active", passive, check=False, timeout_s=120)
    cluster.wait_automatic_failover(90)
    clients.wait_commits(100, 30)
    clients.stop()
    demand_nothing_lost(cluster, clients)
    demand_equal_trees(cluster)


@pytest.mark.long
def test_promotion_that_cannot_capture_goes_back(cluster, lab, clients):
    """The successor can't mount: the old active serves again, without a human."""
    active, passive = cluster.wait_automatic_failover()
    lab.sh(passive, "mount --bind /dev/null /dev/fuse")
    try:
        done = cluster.cli(active, "make-active", passive, check=False, timeout_s=120)
        assert done.returncode != 0, done.stdout
        clients.wait_served_by(active, 15)
    finally:
        lab.sh(passive, "umount /dev/fuse")
    cluster.wait_automatic_failover(120)
    clients.wait_commits(100)
    clients.stop()
    demand_nothing_lost(cluster, clients)
    demand_equal_trees(cluster)
