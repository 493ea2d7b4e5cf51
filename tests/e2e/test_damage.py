# SPDX-License-Identifier: Apache-2.0
"""A receive log that is not what was written: never guessed around."""

import pytest
from labs import wait_until
from verdicts import demand_nothing_lost

# Prints FILE OFFSET of the middle of the newest segment's used part; argument: the folder with segments.
MIDDLE = r"""
import os, sys
found = [os.path.join(d, f) for d, _, files in os.walk(sys.argv[1]) for f in files if "index" not in d]
found = [f for f in found if os.path.getsize(f) > 8192]
newest = max(found, key=os.path.getmtime)
data = open(newest, "rb").read().rstrip(b"\0")
assert len(data) > 4096 + 1024, (newest, len(data))
print(newest, 4096 + (len(data) - 4096) // 2)
"""
DAMAGE = {
    "flipped": """import sys; f = open(sys.argv[1], "r+b"); f.seek(int(sys.argv[2])); b = f.read(64)
f.seek(int(sys.argv[2])); f.write(bytes(x ^ 0xff for x in b))""",
    "truncated": "import os, sys; os.truncate(sys.argv[1], int(sys.argv[2]))",
}


@pytest.mark.fault("corrupt-receive")
@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_segment_is_refused(cluster, lab, clients, how):
    """A receive segment of the passive is damaged while it is down: it is named and refused, never guessed around."""
    active, passive = cluster.wait_automatic_failover()
    clients.wait_commits(500)
    lab.exec(passive, "systemctl", "mask", "--runtime", "--quiet", "holdfastd", "holdfast-mirror")
    lab.exec(passive, "systemctl", "kill", "--signal=KILL", "holdfastd", "holdfast-mirror")
    wait_until(lambda: not lab.exec(passive, "pgrep", "-x", "holdfast-mirror", check=False).stdout,
               "the passive's mirror is dead", 10)
    file, offset = lab.exec(passive, "python3", "-c", MIDDLE, "/var/lib/holdfast/mirror").stdout.split()
    lab.exec(passive, "cp", "--sparse=always", file, "/var/tmp/segment")
    lab.exec(passive, "python3", "-c", DAMAGE[how], file, offset)
    since = lab.sh(passive, "date +@%s.%N").strip()
    lab.sh(passive, "systemctl unmask --runtime --quiet holdfastd holdfast-mirror;"
                    "systemctl start holdfast-mirror holdfastd")
    name = file.rsplit("/", 1)[1]
    wait_until(lambda: name in lab.exec(passive, "journalctl", "--no-pager", "-u", "holdfast-mirror", "--since", since,
                                        check=False).stdout,
               f"the mirror names the damaged segment {name}", 20,
               lambda: lab.sh(passive, "journalctl --no-pager -n 30 -u holdfast-mirror") + cluster.evidence())
    how_it_ended = lab.sh(passive, "systemctl show -p Result --value holdfast-mirror").strip()
    assert how_it_ended not in ("core-dump", "signal"), f"the mirror crashed: {how_it_ended}"
    clients.wait_commits(200)
    assert cluster.active() == active
    # What was damaged is put back, as from a repaired disk; a node that has resynchronized meanwhile is well already.
    if cluster.node_in(cluster.status_of(active), passive)["synchronized"] is not True:
        lab.sh(passive, 'systemctl stop holdfastd holdfast-mirror; cp --sparse=always /var/tmp/segment "$1";'
                        "systemctl start holdfast-mirror holdfastd", file)
    cluster.wait_automatic_failover(120)
    clients.stop()
    demand_nothing_lost(cluster, clients)
