# SPDX-License-Identifier: Apache-2.0
"""A passive that was away for longer than its queue reaches gets what changed, and nothing else is looked at."""

import subprocess
import time

import postgres
import pytest
import trees

FOLDER = "/srv/partial"
COLD_FILES = 3000
CHANGED_FILES = 60
MORE_THAN_THE_RING_MB = 200
DEFAULT_QUEUE_MIB = "4096"
MOST_OPENED = 1200          # by the active, for both folders; postgres changes some hundred files by itself

MAKE = f"""
import os
os.umask(0)
for i in range({COLD_FILES}):
    if i % 500 == 0: os.makedirs(f"cold/{{i // 500}}")
    with open(f"cold/{{i // 500}}/{{i}}", "wb") as f: f.write(b"c" * 300)
for folder in ("hot", "moves/deep/er", "dies"): os.makedirs(folder)
for i in range({CHANGED_FILES}):
    with open(f"hot/{{i}}", "wb") as f: f.write(b"h" * 30000)
for i in range(20):
    with open(f"dies/{{i}}", "wb") as f: f.write(b"d" * 100)
open("shrinks", "wb").write(b"s" * 100000); open("moves/deep/er/file", "wb").write(b"m"); open("replaced", "wb").write(b"r")
"""

# While the passive is away: more than the queue holds, and one of each change.
CHANGE = f"""
import os, shutil, subprocess
os.umask(0)
for i in range({CHANGED_FILES}):
    with open(f"hot/{{i}}", "r+b") as f: f.seek(i * 100); f.write(b"H" * 4096)
with open("bulk", "wb") as f:
    for i in range({MORE_THAN_THE_RING_MB}): f.write(bytes([i]) * (1 << 20))
    os.fsync(f.fileno())
    f.truncate(0)
os.rename("moves/deep", "deep"); os.rename("moves", "deep/er/moves")
os.link("hot/1", "linked"); os.unlink("hot/2"); shutil.rmtree("dies"); os.mkdir("dies"); open("dies/new", "wb").write(b"n")
os.truncate("shrinks", 10); os.truncate("shrinks", 50000)
open("new", "wb").write(b"new"); os.rename("new", "replaced"); os.symlink("replaced", "symlink"); os.mkfifo("pipe")
os.chmod("hot/3", 0o4711); os.chown("hot/4", 1234, 5678); os.setxattr("hot/5", "user.colour", b"blue")
fd = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640); os.write(fd, b"nameless")
os.link(f"/proc/self/fd/{{fd}}", "named", src_dir_fd=fd); os.close(fd)
subprocess.run(["sync", "-f", "."], check=True)
"""

# Opens two files without a name; each gets one, and more contents, when its turn comes.
NAMELESS = """
import os, sys
fds = [os.open(".", os.O_TMPFILE | os.O_RDWR, 0o640) for _ in range(2)]
for fd in fds: os.write(fd, b"before" * 1000)
print("open", flush=True)
for fd, line in zip(fds, sys.stdin):
    os.write(fd, b"later" * 500); os.link(f"/proc/self/fd/{fd}", line.strip(), src_dir_fd=fd); os.fsync(fd)
    print("linked", flush=True)
"""


class Nameless:
    def __init__(self, lab, machine):
        lab.put(machine, "/opt/holdfast-tests/nameless.py", NAMELESS)
        self.program = lab.popen(machine, "env", "-C", FOLDER, "python3", "/opt/holdfast-tests/nameless.py",
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.program.stdout.readline() == "open\n"

    def link(self, name):
        self.program.stdin.write(name + "\n")
        self.program.stdin.flush()
        assert self.program.stdout.readline() == "linked\n"

    def close(self):
        self.program.stdin.close()
        assert self.program.wait(20) == 0


@pytest.fixture
def folder(cluster, lab):
    active, passive = cluster.wait_synchronized()
    lab.sh(active, f"mkdir -p {FOLDER}")
    lab.exec(active, "env", "-C", FOLDER, "python3", "-", data=MAKE)
    cluster.cli(active, "protect", FOLDER, timeout_s=120)
    cluster.cli(active, "config", "set", "send_queue_mib", "0")
    cluster.wait_automatic_failover(120)
    yield active, passive
    cluster.cli(cluster.active(), "config", "set", "send_queue_mib", DEFAULT_QUEUE_MIB)
    cluster.wait_synchronized(120)
    cluster.cli(cluster.active(), "unprotect", FOLDER, "--yes", timeout_s=120)
    for node in cluster.nodes:
        lab.sh(node, f"rm -rf {FOLDER}")


@pytest.mark.ci
@pytest.mark.fault("behind-the-queue")
def test_passive_that_fell_behind_its_queue_gets_what_changed(cluster, lab, folder):
    """A passive is away for longer than its queue reaches, while some of many files change: only those are looked at."""
    active, passive = folder
    nameless = Nameless(lab, active)
    lab.sh(passive, "systemctl stop holdfast-mirror")
    cluster.wait(lambda: cluster.node_in(cluster.status_of(active), passive)["synchronized"] is False,
                 f"{active} says that {passive} is not synchronized", 20)
    lab.exec(active, "env", "-C", FOLDER, "python3", "-", data=CHANGE, timeout_s=120)
    nameless.link("linked-while-away")
    cluster.wait(lambda: cluster.node_in(cluster.status_of(active), passive)["queues"]["send_mode"] == "map",
                 f"{active} only notes what changes", 20)
    lab.sh(passive, "systemctl start holdfast-mirror")
    nameless.link("linked-on-return")
    nameless.close()
    assert cluster.wait_automatic_failover(120) == (active, passive)
    told = cluster.node_in(cluster.status_of(active), passive)["last_sync"]
    print(f"last_sync: {told}")
    assert told["kind"] == "partial"
    assert told["opened"] < MOST_OPENED < COLD_FILES
    assert told["sent_bytes"] < MORE_THAN_THE_RING_MB << 19
    trees.wait_equal(cluster, FOLDER)
    postgres.checkpoint(lab, active)
    trees.wait_equal(cluster, postgres.DATA)


SLOW = "40mbit"
ON_ITS_WAY_MB = 60          # so that what changed takes long enough to be interrupted


def mirror_killed(lab, _active, passive):
    lab.sh(passive, "systemctl kill -s KILL holdfast-mirror")


def power_cut(lab, _active, passive):
    lab.power_cut(passive)
    lab.boot(passive)


def power_cut_of_the_active(lab, active, _passive):
    lab.power_cut(active)
    lab.boot(active)


def link_flaps(lab, _active, _passive):
    for _ in range(4):
        lab.cut("n1", "n2")
        time.sleep(1)
        lab.heal("n1", "n2")
        time.sleep(1)


@pytest.mark.long
@pytest.mark.fault("broken-partial-resync")
@pytest.mark.parametrize("misfortune", (mirror_killed, power_cut, power_cut_of_the_active, link_flaps))
def test_what_changed_is_brought_over_in_spite_of(cluster, lab, folder, misfortune):
    """While a passive gets what changed its mirror is killed, its or the active's power is cut, or its link flaps: it becomes whole."""
    active, passive = folder
    lab.sh(passive, "systemctl stop holdfast-mirror")
    cluster.wait(lambda: cluster.node_in(cluster.status_of(active), passive)["synchronized"] is False,
                 f"{active} says that {passive} is not synchronized", 20)
    lab.exec(active, "env", "-C", FOLDER, "python3", "-", data=CHANGE, timeout_s=120)
    lab.sh(active, 'for i in $(seq "$1"); do head -c 1M /dev/urandom > "$2/new-$i"; done; sync "$2"/new-*; '
           f'tc qdisc replace dev chan0 root tbf rate {SLOW} burst 64kb latency 100ms',
           str(ON_ITS_WAY_MB), FOLDER, timeout_s=120)
    try:
        lab.sh(passive, "systemctl start holdfast-mirror")

        def under_way():
            told = cluster.node_in(cluster.status_of(active), passive)
            return told["synchronized"] is False and (told.get("sync_progress") or {}).get("done_objects", 0) > 10
        cluster.wait(under_way, f"{passive} is being brought up to date", 60)
        misfortune(lab, active, passive)
        cluster.wait_active(active, 60)
        lab.sh(active, f"echo late > {FOLDER}/late; mv {FOLDER}/new-1 {FOLDER}/hot/moved")
    finally:
        lab.sh(active, "tc qdisc del dev chan0 root 2>/dev/null || true")     # it went with the power
    assert cluster.wait_automatic_failover(180) == (active, passive)
    told = cluster.node_in(cluster.status_of(active), passive)["last_sync"]
    print(f"last_sync: {told}")
    assert told["kind"] == ("full" if misfortune is power_cut_of_the_active else "partial")    # what changed goes with its epoch
    trees.wait_equal(cluster, FOLDER)
    postgres.checkpoint(lab, active)
    trees.wait_equal(cluster, postgres.DATA)
