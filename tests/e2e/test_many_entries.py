# SPDX-License-Identifier: Apache-2.0
"""Folders of very many entries: made, listed, changed and deleted live; copied; compared."""

import folders
import pytest
import trees

FOLDER = "/srv/many"

# Makes entries in one folder, reads the folder while it changes it, and leaves about two thirds of them.
PROGRAM = r"""
import os, sys, time
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
os.sync()
told("synced")
print(len(os.listdir(".")))
"""


def fill(cluster, many, timeout_s):
    with folders.protected(cluster, FOLDER) as (active, passive):
        done = cluster.lab.exec(active, "python3", "-c", PROGRAM, FOLDER, str(many), timeout_s=timeout_s)
        print(done.stderr)
        left = done.stdout
        assert int(left) == many - (many + 2) // 3
        cluster.wait(lambda: cluster.recovery_point_s(passive) < 2, f"{passive} has received it", timeout_s)
        trees.wait_equal(cluster, FOLDER, timeout_s)


def test_a_folder_of_100000_entries(cluster):
    fill(cluster, 100_000, 300)


@pytest.mark.long
def test_a_folder_of_1000000_entries(cluster, lab):
    """And a first copy of what is left of it."""
    fill(cluster, 1_000_000, 2400)
    active, _ = cluster.wait_automatic_failover()
    lab.exec(active, "sh", "-euc", 'mkdir "$1" "$1/wide"; cd "$1/wide"; seq -f "entry-%07.0f" 1000000 | xargs touch', "sh", FOLDER,
             timeout_s=300)
    with folders.protected(cluster, FOLDER):
        trees.wait_equal(cluster, FOLDER, 900)
