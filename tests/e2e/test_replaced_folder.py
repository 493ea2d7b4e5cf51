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


@pytest.mark.fault("replaced-folder-of-the-last")
def test_last_node_with_another_folder_leads_only_by_force(cluster, lab, folder):
    """The passive is gone and the active's disk was replaced by a backup: nobody leads, until somebody takes the folder as it stands."""
    active, passive = folder
    lab.power_cut(passive)
    cluster.wait(lambda: cluster.node_in(cluster.status_of(active), passive)["synchronized"] is False,
                 f"{active} goes on alone", 30)
    lab.sh(active, "systemctl stop holdfastd holdfast-mirror")
    lab.sh(active, REPLACE, FOLDER)
    lab.sh(active, "systemctl start holdfast-mirror holdfastd")
    cluster.wait(lambda: any(event["code"] == "folder_doubted" for event in cluster.events_of(active)), "it is told", 30)
    refused = cluster.cli(active, "failover", check=False)
    assert refused.returncode != 0, refused
    print(refused.stderr)
    assert cluster.active_in(cluster.status_of(active)) is None, "it leads with a folder that it does not know"
    cluster.cli(active, "failover", "--force", "--yes", timeout_s=120)
    cluster.wait_active(active, 60)
    assert lab.sh(active, f"cat {FOLDER}/8") == "old\n"
    lab.boot(passive)
    assert cluster.wait_automatic_failover(180) == (active, passive)
    trees.wait_equal(cluster, FOLDER)
