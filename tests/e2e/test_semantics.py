# SPDX-License-Identifier: Apache-2.0
"""Everything that a file system can hold, and every way to change it, reaches the passive as it is; or is refused, never ignored."""

import json

import folders
import pytest
import small_disk
import trees
from labs import CHECKOUT

FOLDER = "/srv/zoo"
ROOM = "/srv/other-kind"
PROGRAM = "/opt/holdfast-tests/semantics_operations.py"
SOURCE = CHECKOUT / "tests/e2e/semantics_operations.py"

# What a protected folder refuses, with what it says: each is in docs/GUARANTEES.md.
REFUSED = {
    "collapsed": "ENOTSUP", "inserted": "ENOTSUP", "unshared": "ENOTSUP", "cloned": "ENOTSUP",
    "made_immutable": "ENOTSUP", "made_append_only": "ENOTSUP", "made_not_to_be_dumped": "ENOTSUP",
    "given_to_a_project": "ENOTSUP",
}
# Allocated where it was, within what file systems round up to.
SPARSE = {"sparse_file_of_a_tebibyte/sparse": 1 << 20, "sparse_file_of_a_tebibyte/grown": 1 << 20,
          "holes_and_data_alternate/holes": 1 << 20, "allocated/plain": 1 << 20, "allocated/kept-size": 1 << 20,
          "punched/punched": 1 << 20}


def operate(lab, node, folder=FOLDER, *options):
    lab.put(node, PROGRAM, SOURCE.read_text())
    return json.loads(lab.exec(node, "python3", PROGRAM, folder, *options, timeout_s=120).stdout)


def demand_told(told, refused):
    wrong = {name: answer for name, answer in told.items() if answer != refused.get(name, "done")}
    assert not wrong, f"answers other than expected: {wrong}"


def demand_equal(cluster, active, preallocated=True):
    """preallocated: also what was set aside and never written. A first copy makes holes of that, but never data of holes."""
    trees.wait_equal(cluster, FOLDER, 120)
    for name, tolerance in SPARSE.items():
        used = {node: int(cluster.lab.exec(node, "stat", "-c", "%b", f"{FOLDER}/{name}").stdout) * 512 for node in cluster.nodes}
        more = used[cluster.other(active)] - used[active]
        assert (-tolerance if preallocated else -used[active]) <= more <= tolerance, f"{name} takes {used} bytes"


@pytest.mark.ci
def test_every_operation_reaches_the_passive(cluster, lab):
    with folders.protected(cluster, FOLDER, 'echo before > "$1/before"') as (active, passive):
        demand_told(operate(lab, active), REFUSED)
        demand_equal(cluster, active)
        assert lab.exec(passive, "cat", f"{FOLDER}/before").stdout == "before\n"


def test_every_operation_reaches_a_passive_that_was_away(cluster, lab):
    """What was put aside for it is applied in one piece, and a part of it twice: it loses its power meanwhile."""
    with folders.protected(cluster, FOLDER) as (active, passive):
        lab.cut(active, passive)
        demand_told(operate(lab, active), REFUSED)
        lab.heal_all()
        cluster.wait(lambda: cluster.node_in(cluster.status_of(active), passive)["channel"][0]["state"] == "up",
                     "the channel is up", 30)
        lab.power_cut(passive)
        lab.boot(passive)
        cluster.wait_automatic_failover(120)
        demand_equal(cluster, active)


@pytest.mark.ci
def test_every_operation_survives_a_first_copy_and_a_switchover(cluster, lab):
    """The same, but there before the folder is protected; a flag that can't be replicated is refused then."""
    active, passive = cluster.wait_automatic_failover()
    lab.sh(active, 'mkdir "$1"', FOLDER)
    told = operate(lab, active)
    flagged = [name for name in ("made_immutable", "made_append_only") if told[name] == "done"]
    assert flagged, told
    for name in flagged:
        refused = cluster.cli(active, "protect", FOLDER, check=False, timeout_s=120)
        assert refused.returncode != 0 and "chattr" in refused.stderr, refused
        lab.exec(active, "chattr", "-i", "-a", f"{FOLDER}/{name}/flagged")
    before = trees.digest(lab, active, FOLDER)
    with folders.protected(cluster, FOLDER):
        demand_equal(cluster, active, preallocated=False)
        cluster.make_active(passive)
        cluster.wait_synchronized()
        assert trees.digest(lab, passive, FOLDER) == before


def test_every_operation_between_two_kinds_of_file_systems(cluster, lab):
    """ext4 on the active, xfs on the passive: a first copy, live changes, and back after a switchover."""
    active, passive = cluster.wait_automatic_failover()
    folder = f"{ROOM}/zoo"
    with small_disk.under(lab, passive, ROOM, "600M", kind="xfs"):
        lab.sh(active, 'mkdir -p "$1/first"', folder)
        operate(lab, active, f"{folder}/first", "common")
        lab.sh(active, 'chattr -i -a "$1"/*/flagged', f"{folder}/first")
        with folders.protected(cluster, folder, 'mkdir "$1/second" "$1/third"'):
            assert lab.exec(passive, "stat", "-f", "-c", "%T", folder).stdout.strip() == "xfs"
            demand_told(operate(lab, active, f"{folder}/second", "common"), REFUSED)
            trees.wait_equal(cluster, folder, 120)
            cluster.make_active(passive)
            cluster.wait_automatic_failover()
            demand_told(operate(lab, passive, f"{folder}/third", "common"), REFUSED)
            trees.wait_equal(cluster, folder, 120)
