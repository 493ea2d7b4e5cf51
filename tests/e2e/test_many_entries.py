# SPDX-License-Identifier: Apache-2.0
"""Folders of very many entries: made, listed, changed and deleted live; copied; compared."""

import os

import folders
import pytest
import trees
from cluster import Cluster
from labs import Lab

FOLDER = "/srv/many"

# Makes entries in one folder, reads the folder while it changes it, and leaves about two thirds of them.
PROGRAM = r"""
import os, subprocess, sys, time
began = time.monotonic()
def told(what):
    print(f"{what}: {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
os.chdir(sys.argv[1])
os.mkdir("wide")
os.chdir("wide")
many = int(sys.argv[2])
for n in range(many):
    os.close(os.open(f"entry-{n:07}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
told("made")
assert len(os.listdir(".")) == many
told("listed")
seen = 0
with os.scandir(".") as entries:
    for entry in entries:
        n = int(entry.name[-7:])
        seen += 1
        if n % 3 == 0:
            os.unlink(entry.name)
        elif n % 1000 == 1:
            os.rename(entry.name, f"renamed-{n:07}")
assert seen >= many, seen
told("changed")
subprocess.run(["sync", "-f", "."], check=True)
told("synced")
print(len(os.listdir(".")))
"""


def fill(cluster, many, timeout_s):
    with folders.protected(cluster, FOLDER, patience_s=timeout_s) as (active, passive):
        done = cluster.lab.exec(active, "python3", "-c", PROGRAM, FOLDER, str(many), timeout_s=timeout_s)
        print(done.stderr)
        left = done.stdout
        assert int(left) == many - (many + 2) // 3
        cluster.wait(lambda: cluster.recovery_point_s(passive) < 2, f"{passive} has received it", timeout_s)
        trees.wait_equal(cluster, FOLDER, timeout_s)


def test_a_folder_of_100000_entries(cluster):
    fill(cluster, 100_000, 300)


@pytest.fixture
def roomy():
    """A pair of its own: the disks of the others have not so many inodes."""
    with Lab(f"wide-{os.getpid()}") as lab:
        lab.up("--witness", "--disk", "32G")
        lab.run_shown("cluster", "--mode", "fsync", "--plugin", "postgresql", timeout_s=400)
        yield Cluster(lab)


@pytest.mark.long
def test_a_folder_of_1000000_entries(roomy):
    fill(roomy, 1_000_000, 2400)


@pytest.mark.long
def test_a_first_copy_of_a_folder_of_1000000_entries(roomy):
    make = 'mkdir "$1/wide"; cd "$1/wide"; seq -f "entry-%07.0f" 1000000 | xargs touch; sync -f .'
    with folders.protected(roomy, FOLDER, make, patience_s=1200):
        trees.wait_equal(roomy, FOLDER, 1200)
