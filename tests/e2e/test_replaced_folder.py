# SPDX-License-Identifier: Apache-2.0
"""The disk below a protected folder was replaced: the node knows that what stands there is no copy."""

import folders
import pytest
import trees

FOLDER = "/srv/on-a-disk"
MAKE = 'for n in $(seq 300); do echo "file $n" > "$1/$n"; done'
# As after a boot with another disk: nothing is mounted, and an older state of the data is there.
REPLACE = 'umount "$1"; mv "$1" "$1.before"; mkdir "$1"; cp -a "$1.before/." "$1/"; rm -rf "$1/.holdfast" "$1/7"; echo old > "$1/8"'


@pytest.fixture
def folder(cluster):
    with folders.protected(cluster, FOLDER, MAKE) as nodes:
        yield nodes
    for node in nodes:
        cluster.lab.sh(node, f"rm -rf {FOLDER}.before")


@pytest.mark.ci
@pytest.mark.fault("replaced-folder")
def test_passive_with_another_folder_is_copied_anew(cluster, lab, folder):
    active, passive = folder
    with folders.mirror_stopped(cluster, passive):
        lab.sh(passive, REPLACE, FOLDER)
        lab.sh(active, f"echo new > {FOLDER}/9")
    cluster.wait_automatic_failover(120)
    assert any(event["code"] == "folder_doubted" for event in cluster.events_of(passive)), "nobody is told"
    assert cluster.node_in(cluster.status_of(active), passive)["last_sync"]["kind"] == "full"
    trees.wait_equal(cluster, FOLDER)
