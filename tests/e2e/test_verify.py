# SPDX-License-Identifier: Apache-2.0
"""A passive's folder is changed below its mirror, under load: the comparison finds it, says it, and repairs what it may."""

import below
import history
import postgres
import pytest
import trees
from verdicts import demand_nothing_lost

VICTIM = "nobody-writes-it"


def victim(lab, node):
    return lab.exec(node, "cat", f"{postgres.DATA}/{VICTIM}").stdout


@pytest.fixture
def good(cluster, lab):
    """What the victim holds, on both nodes."""
    active, passive = cluster.wait_automatic_failover()
    lab.sh(active, 'head -c 100000 /dev/zero | tr "\\0" x > "$1"; sync "$1"', f"{postgres.DATA}/{VICTIM}")
    text = victim(lab, active)
    cluster.wait(lambda: victim(lab, passive) == text, f"{passive} has the victim", 20)
    yield text
    lab.exec(cluster.active(), "rm", "-f", f"{postgres.DATA}/{VICTIM}")


def damage(lab, node, how):
    below.change(lab, node, postgres.DATA, VICTIM, how)
    assert victim(lab, "n1") != victim(lab, "n2"), "the test damaged nothing"


def compared(cluster, active):
    return history.told(cluster, active, "verify", "--status")["peers"][0]


@pytest.mark.ci
def test_scrub_repairs_what_somebody_changed(cluster, lab, clients, good):
    active, passive = cluster.wait_automatic_failover()
    before = cluster.cli(active, "config", "get", "scrub_mib_s").stdout.strip()
    damage(lab, passive, "write")
    cluster.cli(active, "config", "set", "scrub_mib_s", "200")
    try:
        cluster.wait(lambda: victim(lab, passive) == good, "the scrub repairs it", 120)
        assert cluster.node_in(cluster.status_of(active), passive)["synchronized"] is True
    finally:
        cluster.cli(active, "config", "set", "scrub_mib_s", before)
    clients.wait_commits(100)
    clients.stop()
    demand_nothing_lost(cluster, clients)
    postgres.checkpoint(lab, active)
    trees.wait_equal(cluster, postgres.DATA)


@pytest.mark.fault("corrupt-tree")
def test_verify_asks_who_is_right(cluster, lab, clients, good):
    """A byte of a passive's folder rots: verify names the file and asks; with the administrator's word it is repaired."""
    active, passive = cluster.wait_automatic_failover()
    damage(lab, passive, "rot")
    done = cluster.cli(active, "verify", "--full", "--wait", check=False, timeout_s=180)
    assert done.returncode != 0, done.stdout
    assert victim(lab, passive) != good, "nobody knows which copy is right"
    found = compared(cluster, active)
    assert found["open"] == 1, found
    assert any(VICTIM in example and "undecided" in example for example in found["examples"]), found
    cluster.wait(lambda: any(a["code"] == "differs" for a in cluster.status_of(active)["alerts"]), "an alert says so", 20)
    assert cluster.node_in(cluster.status_of(active), passive)["synchronized"] is False, "a copy known to differ is called equal"
    cluster.cli(active, "verify", "--full", "--wait", "--trust-active", timeout_s=180)
    assert victim(lab, passive) == good
    cluster.cli(active, "verify", "--full", "--wait", timeout_s=180)
    assert compared(cluster, active)["open"] == 0
    clients.wait_commits(100)
    clients.stop()
    demand_nothing_lost(cluster, clients)
    postgres.checkpoint(lab, active)
    trees.wait_equal(cluster, postgres.DATA)


@pytest.mark.fault("powercut-in-verify")
@pytest.mark.parametrize("whose", ("active", "passive"))
def test_powercut_in_the_middle_of_a_comparison(cluster, lab, clients, good, whose):
    """A node loses its power while the folders are compared: no difference is made or invented, and the next run repairs."""
    active, passive = cluster.wait_automatic_failover()
    damage(lab, passive, "write")
    cluster.cli(active, "verify", "--full", "--rate", "5")
    cluster.wait(lambda: compared(cluster, active)["objects"] > 0, "the comparison is under way", 30)
    hit = active if whose == "active" else passive
    lab.power_cut(hit)
    if whose == "active":
        clients.wait_served_by(passive)
    lab.boot(hit)
    active, passive = cluster.wait_automatic_failover(180)
    clients.wait_commits(100)
    if whose == "passive":
        cluster.wait(lambda: compared(cluster, active)["state"] == "idle", "what was begun comes to its end", 120)
        assert victim(lab, passive) == good
    else:                           # what was the damaged copy is the truth now, and what was compared is forgotten
        cluster.cli(active, "verify", "--full", "--wait", timeout_s=180)
        assert victim(lab, passive) == victim(lab, active)
    assert compared(cluster, active)["open"] == 0
    clients.stop()
    demand_nothing_lost(cluster, clients)
    postgres.checkpoint(lab, active)
    trees.wait_equal(cluster, postgres.DATA)
