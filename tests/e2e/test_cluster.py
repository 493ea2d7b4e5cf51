# SPDX-License-Identifier: Apache-2.0
"""What stands after the few commands of the five-minute set-up."""

import postgres
import pytest
import trees
from labs import PUBLIC_ADDRESS

pytestmark = pytest.mark.ci

NODE_FIELDS = {"name": str, "node_id": str, "identity": str, "role": str, "site": str, "synchronized": bool,
               "recovery_point_s": (int, float), "state": str, "channel": list, "queues": dict}


def test_status_shows_everything(cluster):
    status = cluster.status()
    assert status["cluster"]["mode"] == "fsync"
    assert [node["name"] for node in status["nodes"]] == ["n1", "n2"]
    assert sorted(node["identity"] for node in status["nodes"]) == ["primary", "secondary"]
    assert sorted(node["role"] for node in status["nodes"]) == ["active", "passive"]
    for node in status["nodes"]:
        for field, kind in NODE_FIELDS.items():
            assert isinstance(node[field], kind), f"{node['name']}.{field} is {node[field]!r}"
    active = cluster.active_in(status)
    assert status["lease"]["holder"] == active and 0 < status["lease"]["remaining_ms"] <= 2000
    assert len(status["votes"]) == 3 and all(vote["reachable"] for vote in status["votes"]), status["votes"]
    assert status["witness"]["name"] == "w1"
    assert [(each["address"], each["on"]) for each in status["public_addresses"]] == [(f"{PUBLIC_ADDRESS}/24", active)]
    application, = status["applications"]
    assert (application["plugin"], application["state"], application["health"]) == ("postgresql", "running", "healthy")
    assert status["protected"][0]["path"] == postgres.DATA or postgres.DATA.startswith(status["protected"][0]["path"])
    assert status["automatic_failover"]["available"] is True
    for option in status["options"]:    # each says how to change it, or that nobody can
        assert option["change_with"].startswith("holdfast ") != option["state"].startswith("always "), option


def test_status_is_one_screen_on_both_nodes(cluster):
    for node in cluster.nodes:
        lines = cluster.cli(node, "status").stdout.splitlines()
        assert 10 <= len(lines) <= 50, "\n".join(lines)
        text = "\n".join(lines).lower()
        for word in ("n1", "n2", "w1", PUBLIC_ADDRESS, "postgresql", "synchronized", "active", "passive"):
            assert word in text, f"{node}: '{word}' is not in the status:\n{text}"


def test_public_address_is_on_the_active_only(cluster, lab):
    active, passive = cluster.wait_synchronized()
    assert f" {PUBLIC_ADDRESS}/" in lab.sh(active, "ip -4 -o address")
    assert f" {PUBLIC_ADDRESS}/" not in lab.sh(passive, "ip -4 -o address")


def test_passive_is_read_only_for_root(cluster, lab):
    _, passive = cluster.wait_synchronized()
    for script in ("touch {0}/intruder", "rm -f {0}/PG_VERSION", "echo x >> {0}/PG_VERSION", "mkdir {0}/d",
                   "chmod 777 {0}/PG_VERSION", "mv {0}/PG_VERSION {0}/x"):
        done = lab.exec(passive, "sh", "-c", script.format(postgres.DATA), check=False)
        assert done.returncode != 0 and "Read-only file system" in done.stderr, f"{script}: {done}"
    assert lab.sh(passive, f"cat {postgres.DATA}/PG_VERSION").strip() == "15"


def test_protected_units_do_not_start_on_the_passive(cluster, lab):
    _, passive = cluster.wait_synchronized()
    lab.exec(passive, "systemctl", "start", "postgresql@15-main", check=False)
    assert lab.exec(passive, "pgrep", "-x", "postgres", check=False).stdout == "", "PostgreSQL runs on the passive"


def test_both_trees_are_equal(cluster, lab, clients):
    clients.wait_commits(1000)
    clients.stop()
    active, passive = cluster.wait_synchronized()
    postgres.checkpoint(lab, active)
    trees.wait_equal(cluster, postgres.DATA)


def test_hidden_folder_is_hidden_on_the_active(cluster, lab):
    active, _ = cluster.wait_synchronized()
    assert ".holdfast" not in lab.sh(active, f"ls -a {postgres.DATA}").split()
    assert lab.exec(active, "stat", f"{postgres.DATA}/.holdfast", check=False).returncode != 0


def test_events_name_their_actor(cluster):
    events = cluster.events_of("n1")
    assert any("protect" in event["code"] + event["text"] and event["actor"] for event in events), events[:20]


def test_secrets_are_private(cluster, lab):
    for node in cluster.nodes:
        open_files = lab.sh(node, "find /var/lib/holdfast ! -type l -perm /077 -printf '%m %p\\n'")
        assert open_files == "", f"{node}: readable by others:\n{open_files}"
