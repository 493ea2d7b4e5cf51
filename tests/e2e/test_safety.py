# SPDX-License-Identifier: Apache-2.0
"""Safety options: who takes over by itself, who asks, and who is not let."""

import pytest
from cluster import Cluster
from labs import PUBLIC_ADDRESS


@pytest.fixture
def settings(cluster):
    """Sets settings of the cluster, and puts them back."""
    before = {}

    def change(key, value):
        node = cluster.active()
        before.setdefault(key, cluster.cli(node, "config", "get", key).stdout.strip())
        cluster.cli(node, "config", "set", key, str(value))
    yield change
    cluster.lab.heal_all()
    for node in cluster.nodes:
        if cluster.lab.machines()[node]["power"] == "frozen":
            cluster.lab.thaw(node)
    cluster.wait_synchronized(120)
    for node in [node["name"] for node in cluster.status()["nodes"] if node["held"]]:
        cluster.cli(cluster.active(), "release", node)
    for key, value in before.items():
        cluster.cli(cluster.active(), "config", "set", key, value)


def alert(cluster, node, code):
    return next((each["text"] for each in cluster.status_of(node)["alerts"] if each["code"] == code), "")


def test_a_node_that_fails_too_often_is_held_until_it_is_released(cluster, lab, settings):
    settings("failures_limit", 1)
    first, second = cluster.wait_automatic_failover()
    lab.exec(first, "systemctl", "kill", "--kill-whom=main", "--signal=KILL", "holdfast-mirror")
    cluster.wait_active(second)
    cluster.wait(lambda: cluster.node_in(cluster.status_of(second), first)["held"], f"{first} is held", 20)
    cluster.wait_synchronized(120)
    cluster.wait(lambda: "is held" in cluster.status_of(second)["automatic_failover"]["reason"],
                 "the status says that nobody takes over by itself, and why", 20)
    assert cluster.status_of(second)["automatic_failover"]["change_with"] == f"holdfast release {first}"
    refused = cluster.cli(second, "make-active", first, check=False)
    assert refused.returncode == 3 and f"holdfast release {first}" in refused.stderr, refused.stderr

    lab.freeze(second)
    cluster.wait(lambda: alert(cluster, first, "failover_waits"), f"{first} says that it waits for a word", 20)
    status = cluster.status_of(first)
    assert cluster.active_in(status) != first, "a held node took over by itself"
    cluster.cli(first, "failover", timeout_s=60)
    cluster.wait_active(first)
    lab.thaw(second)
    cluster.wait_synchronized(120)
    cluster.cli(first, "release", first)
    assert not cluster.node_in(cluster.status_of(first), first)["held"]


def test_managed_failover_waits_for_a_word(cluster, lab, settings):
    settings("automatic_failover", "off")
    active, passive = cluster.wait_synchronized()
    lab.freeze(active)
    cluster.wait(lambda: alert(cluster, passive, "failover_waits"), f"{passive} says that it waits for a word", 20)
    assert cluster.active_in(cluster.status_of(passive)) != passive
    cluster.cli(passive, "failover", timeout_s=60)
    cluster.wait_active(passive)
    lab.thaw(active)
    assert cluster.wait_synchronized(120)[0] == passive


@pytest.mark.ci
def test_force_is_refused_while_the_active_answers_its_clients(cluster, lab, settings):
    """The passive hears of nobody; the active and the witness are well. Two would serve if the administrator were wrong."""
    active, passive = cluster.wait_automatic_failover()
    for other in (active, "w1"):
        lab.cut(passive, other, "channel")
    # Its last word is too old to be believed: only that it answers its clients keeps the passive back from here on.
    cluster.wait(lambda: alert(cluster, passive, "active_answers") and
                 Cluster.node_in(cluster.status_of(passive), active)["role"] == "unknown",
                 f"{passive} hears nothing of {active} and says that it answers its clients", 20)
    forced = cluster.cli(passive, "failover", "--force", "--yes", check=False, timeout_s=60)
    assert forced.returncode == 3, forced.stdout + forced.stderr
    assert f"{active} is alive: it answers its clients at {PUBLIC_ADDRESS}" in forced.stderr, forced.stderr
    lab.heal_all()
    cluster.wait(lambda: not alert(cluster, passive, "active_answers"), "it is heard again", 20)
    assert cluster.wait_automatic_failover()[0] == active
