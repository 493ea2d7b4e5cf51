# SPDX-License-Identifier: Apache-2.0
"""Three nodes, in a lab of their own: the history of the one that takes no part in a role change goes on across it."""

import trees
from cluster import Cluster
from conftest import TRIO
from history import clock_s, iso, told

FOLDER = "/srv/three"


def write(cluster, text):
    """Returns the second at whose end it was there, when every passive can go back to that."""
    lab, active = cluster.lab, cluster.active()
    lab.sh(active, 'echo "$2" > "$1/file"; sync "$1/file"', FOLDER, text)
    moment_s = clock_s(lab, active)
    cluster.wait(lambda: clock_s(lab, active) > moment_s + 2, "two seconds have passed", 10)
    lab.sh(active, 'touch "$1/clock"; sync "$1/clock"', FOLDER)

    def has_come():
        nodes = told(cluster, active, "timeline")["nodes"]
        passive = [node for node in nodes if node["node"] != active]
        return all(node["spans"] and node["spans"][0]["to"] >= iso(moment_s)[:23] for node in passive)
    cluster.wait(has_come, f"every passive has a point after {iso(moment_s)}", 20)
    return moment_s


def content(cluster):
    return cluster.lab.sh(cluster.active(), 'cat "$1/file"', FOLDER).strip()


def test_the_third_node_goes_back_across_a_role_change(trio):
    lab = trio.lab
    first, second, third = TRIO
    good_s = write(trio, "good")
    write(trio, "bad")
    trio.make_active(second)
    trio.wait_synchronized()
    write(trio, "worse")

    timeline = told(trio, second, "timeline")
    reach = timeline["reach"]
    assert reach[-1]["nodes"] == [third], reach
    assert reach[-1]["from"] <= iso(good_s) <= reach[-1]["to"], reach
    assert set(reach[0]["nodes"]) == {first, third}, reach
    shown = trio.cli(second, "timeline").stdout
    assert "cluster" in shown and f"on {first}, {third}" in shown, shown

    trio.cli(second, "rollback", "--to", iso(good_s), "--yes", timeout_s=180)
    trio.wait_active(third)
    assert content(trio) == "good"
    trio.wait_synchronized(180)
    for other in (first, second):
        trees.wait_equal(Cluster(lab, (third, other)), FOLDER)
    write(trio, "better")

    # And back: what was taken back has a name on who led and follows now.
    names = {s["name"]: s["nodes"] for s in told(trio, third, "shadow", "list")["shadows"]}
    assert any(name.startswith("before-rollback-") and {first, second} & set(nodes) for name, nodes in names.items()), names
    trio.cli(third, "rollback", "--to", "before-rollback", "--yes", timeout_s=180)
    assert trio.active() != third
    assert content(trio) == "worse"
    trio.wait_synchronized(180)
