# SPDX-License-Identifier: Apache-2.0
"""A byte of the undo history rots on the passive: found, named, not gone back over; replication goes on. (Others: test_damage, test_verify.)"""

import folders
import history
import postgres
import pytest
import trees
from verdicts import demand_nothing_lost

UNDO = "/var/lib/holdfast/mirror/undo"
FOLDER = "/srv/rot"
SEGMENT_MB = 20             # of changes between two points; what is flipped lies in the middle of them

# SEGMENT OFFSET of the end of what is written.
END = r"""
import os, sys
folder = sys.argv[1]
name = max(each for each in os.listdir(folder) if each.startswith("seg-"))
with open(os.path.join(folder, name), "rb") as file:
    print(name, len(file.read().rstrip(b"\0")))
"""
# Flips a bit that was written after that end, by so many bytes; in the next segment, where that one ends before. Prints which segment.
FLIP = r"""
import os, sys
folder, name, at, after = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
later = sorted(each for each in os.listdir(folder) if each.startswith("seg-") and each >= name)
for each in later:
    with open(os.path.join(folder, each), "r+b") as file:
        used = len(file.read().rstrip(b"\0"))
        if at + after >= used:
            at = 4096
            continue
        file.seek(at + after)
        byte = file.read(1)
        file.seek(at + after)
        file.write(bytes([byte[0] ^ 0x10]))
        file.flush()
        os.fsync(file.fileno())
        print(each)
        sys.exit(0)
sys.exit("nothing was written that far")
"""


def overwrite(lab, node, megabytes=SEGMENT_MB):
    lab.sh(node, 'for n in 1 2; do head -c "$1M" /dev/urandom | dd of="$2" conv=notrunc,fsync bs=1M status=none; done',
           str(megabytes), f"{FOLDER}/file", timeout_s=60)


@pytest.mark.fault("corrupt-undo")
def test_damaged_undo_history(cluster, lab, clients):
    """A byte rots in the passive's undo history: it is found and named, nothing goes back over it, replication goes on."""
    history.need(cluster)
    with folders.protected(cluster, FOLDER) as (active, passive):
        overwrite(lab, active)
        before_s = history.clock_s(lab, active)
        history.wait_past(cluster, active, before_s)
        end = lab.exec(passive, "python3", "-c", END, UNDO).stdout.split()
        overwrite(lab, active)
        after_s = history.clock_s(lab, active)
        history.wait_past(cluster, active, after_s)
        clients.wait_commits(200)
        segment = lab.exec(passive, "python3", "-c", FLIP, UNDO, *end, str(SEGMENT_MB << 19)).stdout.strip()

        # Whoever wants to go back over it is told, before anything is stopped.
        epoch = cluster.status()["lease"]["epoch"]
        refused = cluster.cli(active, "rollback", "--to", history.iso(before_s), "--yes", check=False, timeout_s=120)
        assert refused.returncode != 0, "the tree went back over damage"
        assert "undo" in refused.stderr and "damage" in refused.stderr, refused.stderr
        assert cluster.status()["lease"]["epoch"] == epoch, "the role moved"
        assert cluster.wait_automatic_failover() == (active, passive)
        clients.wait_commits(100)

        # The next start names the segment or goes on with what can be read; either way apply goes on and a history begins.
        lab.exec(passive, "systemctl", "restart", "holdfast-mirror")
        assert cluster.wait_automatic_failover(120) == (active, passive)
        refused = cluster.cli(active, "rollback", "--to", history.iso(before_s), "--yes", check=False, timeout_s=120)
        assert refused.returncode != 0, "the tree went back over damage"
        later_s = history.clock_s(lab, active)
        history.wait_past(cluster, active, later_s)
        shown = cluster.cli(active, "rollback", "--to", history.iso(later_s), "--dry-run")
        assert passive in shown.stdout, shown
        clients.wait_commits(100)
        clients.stop()
        demand_nothing_lost(cluster, clients)
        postgres.checkpoint(lab, active)
        for path in (postgres.DATA, FOLDER):
            trees.wait_equal(cluster, path)
        print(f"damaged: {segment}; told: {refused.stderr.strip()}")
