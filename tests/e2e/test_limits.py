# SPDX-License-Identifier: Apache-2.0
"""Folders at the edge of what can be protected, which are right; those that are refused stand in test_bad_input.py."""

import pytest
import trees

STRICT = "/srv/strict"
NAMES = {
    "space": "/srv/with a space",
    "long": "/srv/" + "l" * 255,
    "signs": "/srv/\u00e4'\"$#%:;\\x",
}


@pytest.mark.ci
def test_odd_names_of_folders_are_right(cluster, lab):
    active, _ = cluster.wait_synchronized()
    for path in NAMES.values():
        lab.sh(active, 'mkdir "$1"; echo text > "$1/file"', path)
        cluster.cli(active, "protect", path)
        cluster.wait_synchronized()
        lab.sh(active, 'echo more >> "$1/file"; mkdir "$1/sub"', path)
        trees.wait_equal(cluster, path)
        cluster.cli(active, "unprotect", path, "--yes")
        cluster.wait_synchronized()
        for node in cluster.nodes:
            cluster.wait(lambda at=node, of=path: lab.sh(at, 'findmnt "$1" || true', of).strip() == "",
                         f"{node} has nothing over {path}", 20)
            lab.sh(node, 'rm -r "$1"', path)


@pytest.mark.ci
def test_mount_options_hold_in_a_protected_folder(cluster, lab):
    active, _ = cluster.wait_synchronized()
    lab.sh(active, """mkdir "$1"; mount --bind "$1" "$1"; mount -o remount,bind,nosuid,nodev,noexec "$1"
                      mkdir "$1/data"; cp /bin/true "$1/data/"; mknod -m 666 "$1/data/null" c 1 3""", STRICT)
    folder = STRICT + "/data"
    forbidden = 'if "$1/true" || echo x > "$1/null"; then echo allowed; else echo forbidden; fi 2>/dev/null'
    assert lab.sh(active, forbidden, folder).strip() == "forbidden", "the bare folder forbids it"
    cluster.cli(active, "protect", folder, "--name", "strict")
    cluster.wait_synchronized()
    options = lab.sh(active, 'findmnt -no FSTYPE,OPTIONS "$1" | tail -n 1', folder)
    assert "fuse.holdfast" in options and all(each in options for each in ("nosuid", "nodev", "noexec")), options
    assert lab.sh(active, forbidden, folder).strip() == "forbidden"
    trees.wait_equal(cluster, folder)
    cluster.cli(active, "unprotect", folder, "--yes")
    cluster.wait_synchronized()
    for node in cluster.nodes:
        cluster.wait(lambda at=node: lab.sh(at, 'findmnt "$1" || true', folder).strip() == "",
                     f"{node} has nothing over {folder}", 20)
    lab.sh(active, 'umount "$1"', STRICT)
    for node in cluster.nodes:
        lab.sh(node, 'rm -r "$1"', STRICT)
