# SPDX-License-Identifier: Apache-2.0
"""Members come, go, and get other names and addresses while an application writes: a pair becomes a trio and a trio a pair."""

import subprocess

import trees
from cluster import Cluster
from labs import CHANNEL

FOLDER = "/srv/three"
OTHER_ADDRESS = "10.0.0.102"

# Writes durably again and again, and says so; an error ends it.
WRITER = """
import os, sys
n = 0
while True:
    n += 1
    fd = os.open(sys.argv[1] + "/counter", os.O_WRONLY | os.O_CREAT, 0o644)
    os.pwrite(fd, b"%020d" % n, 0)
    os.fsync(fd)
    os.close(fd)
    print(n, flush=True)
"""


class Writer:
    def __init__(self, lab, node):
        self.process = lab.popen(node, "python3", "-c", WRITER, FOLDER, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout.readline()

    def stop(self):
        """The last number. It must have been at work until now."""
        assert self.process.poll() is None, f"the application was disturbed: {self.process.stderr.read()}"
        self.process.kill()
        return int(self.process.communicate()[0].split()[-1])


def names(cluster, node="n1"):
    return [each["name"] for each in cluster.status_of(node)["nodes"]]


def test_members_change_while_an_application_writes(trio):
    lab = trio.lab
    writer = Writer(lab, "n1")
    trio.cli("n1", "member", "rename", "n2", "db2")
    trio.wait(lambda: names(trio, "n2") == names(trio, "n3") == ["n1", "db2", "n3"], "all know the new name", 20)
    trio.cli("n3", "member", "rename", "db2", "n2")
    refused = trio.cli("n1", "member", "rename", "n2", "n3", check=False)
    assert refused.returncode != 0 and "named n3 already" in refused.stderr, refused.stderr

    refused = trio.cli("n1", "member", "address", "n2", "--channel", OTHER_ADDRESS, check=False)
    assert refused.returncode != 0 and "is not one of this node's" in refused.stderr, refused.stderr
    lab.exec("n2", "ip", "address", "add", f"{OTHER_ADDRESS}/24", "dev", "chan0")
    trio.cli("n1", "member", "address", "n2", "--channel", CHANNEL["n2"], "--channel", OTHER_ADDRESS)
    trio.wait(lambda: [path["state"] for path in Cluster.node_in(trio.status_of("n1"), "n2")["channel"]] == ["up", "up"],
              "both paths are up", 30)
    trio.cli("n1", "member", "address", "n2", "--channel", OTHER_ADDRESS)
    lab.exec("n2", "ip", "address", "del", f"{CHANNEL['n2']}/24", "dev", "chan0")
    lab.exec("n2", "ip", "address", "replace", f"{OTHER_ADDRESS}/24", "dev", "chan0")
    trio.wait_synchronized()

    # Trio -> pair -> trio: n3 dies for good, and a new machine takes its place.
    lab.sh("n3", "systemctl stop holdfastd holdfast-mirror")
    trio.cli("n1", "member", "remove", "n3", "--yes")
    pair = Cluster(lab, ("n1", "n2"))
    pair.wait_synchronized()
    lab.sh("n3", f"while umount {FOLDER} 2>/dev/null; do :; done; rm -rf /var/lib/holdfast/* {FOLDER};"
                 "systemctl start holdfast-mirror holdfastd")
    token = trio.cli("n1", "token").stdout
    trio.wait(lambda: lab.exec("n3", "holdfast", "join", CHANNEL["n1"], "--token", "-", "--node", "n3", "--channel",
                               CHANNEL["n3"], data=token), "n3 joins", 30)
    trio.wait_synchronized(120)
    assert Cluster.node_in(trio.status_of("n1"), "n3")["identity"] == "tertiary"
    last = writer.stop()

    # The third node goes on with the new active and is not copied again.
    trio.make_active("n2")
    trio.wait_synchronized()
    third = Cluster.node_in(trio.status_of("n2"), "n3")
    assert third["last_sync"] is None, f"a role change cost the third node a copy: {third['last_sync']}"
    assert int(lab.sh("n2", 'cat "$1/counter"', FOLDER)) >= last
    for other in ("n1", "n3"):
        trees.wait_equal(Cluster(lab, ("n2", other)), FOLDER)
    history = trio.cli("n3", "plan", "--history").stdout
    assert "switchover" in history and "n1 -> n2" in history, history
