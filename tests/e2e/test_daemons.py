# SPDX-License-Identifier: Apache-2.0
"""Holdfast's own processes die or hang."""

import json
import re
import subprocess
import time

import ledger
import postgres
import pytest
import trees
from labs import PUBLIC_ADDRESS, LabFailure, wait_until
from verdicts import LEASE_S, POWER_CUT_LIMIT_S, demand_nothing_lost

WATCHDOG_GRACE_S = 0.7
SLACK_S = 0.1       # reading of clocks in different processes


def main_pid(lab, node, unit):
    return lab.sh(node, 'systemctl show --property=MainPID --value "$1"', unit).strip()


@pytest.mark.ci
def test_holdfastd_restarted_within_the_lease_is_not_noticed(cluster, lab, clients):
    active, _ = cluster.wait_automatic_failover()
    epoch = cluster.status()["lease"]["epoch"]
    before = main_pid(lab, active, "holdfastd")
    since_s = time.monotonic()
    lab.exec(active, "systemctl", "kill", "--signal=KILL", "holdfastd")
    wait_until(lambda: main_pid(lab, active, "holdfastd") not in ("0", before), "systemd restarts holdfastd", 10)
    clients.wait_seconds(3)
    clients.stop()
    cluster.wait_automatic_failover()
    status = cluster.status()
    assert (cluster.active_in(status), status["lease"]["epoch"]) == (active, epoch), "the role changed"
    gap_s = ledger.longest_gap_s(clients.entries(), since_s - 0.5)
    assert gap_s < 1.0, f"the clients noticed: {gap_s:.2f} s without a commit"
    demand_nothing_lost(cluster, clients)


@pytest.mark.ci
def test_mirror_death_resigns_at_once(cluster, lab, clients):
    victim, survivor = cluster.wait_automatic_failover()
    killed_s = time.monotonic()
    killed_wall_ms = time.time() * 1000
    lab.exec(victim, "systemctl", "kill", "--kill-whom=main", "--signal=KILL", "holdfast-mirror")
    after_kill_ms = time.time() * 1000
    clients.wait_served_by(survivor)
    clients.wait_seconds(1)
    clients.stop()
    outage_s = ledger.outage_after_s(clients.entries(), killed_s)
    cluster.wait_automatic_failover(120)
    demand_nothing_lost(cluster, clients)
    resigned = [event for event in cluster.events_of(victim)
                if "resign" in event["code"] + event["text"] and event_ms(event) >= killed_wall_ms]
    assert resigned, f"no event says that {victim} resigned: {cluster.events_of(victim)[-15:]}"
    took_ms = event_ms(resigned[0]) - after_kill_ms
    print(f"resigned {took_ms:.0f} ms after the kill, outage {outage_s:.2f} s")
    assert took_ms <= 200, f"resigned only {took_ms:.0f} ms after the mirror's death"
    assert outage_s <= POWER_CUT_LIMIT_S


def event_ms(event):
    """The API gives ISO time or milliseconds."""
    found = event.get("time_ms", event.get("time"))
    if isinstance(found, (int, float)):
        return found
    whole, fraction = re.fullmatch(r"(.*?)\.?(\d*)Z", found).groups()
    seconds = time.mktime(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) - time.timezone
    return seconds * 1000 + int((fraction or "0")[:3].ljust(3, "0"))


@pytest.mark.ci
def test_holdfastd_dead_is_taken_over_by_the_lease(cluster, lab, clients):
    victim, survivor = cluster.wait_automatic_failover()
    lab.exec(victim, "systemctl", "mask", "--runtime", "--quiet", "holdfastd")
    killed_s = time.monotonic()
    lab.exec(victim, "systemctl", "kill", "--signal=KILL", "holdfastd")
    clients.wait_served_by(survivor)
    clients.wait_seconds(1)
    clients.stop()
    outage_s = ledger.outage_after_s(clients.entries(), killed_s + LEASE_S)
    print(f"outage {outage_s:.2f} s after the lease")
    demand_nothing_lost(cluster, clients)
    assert outage_s <= POWER_CUT_LIMIT_S
    address = lab.exec(victim, "nft", "list", "ruleset").stdout
    assert PUBLIC_ADDRESS in address or f" {PUBLIC_ADDRESS}/" not in lab.sh(victim, "ip -4 -o address"), \
        "the public address is still there and no packet filter hides it"


class LocalWriter:
    """Commits on the node itself, through the local socket: nothing about the network can stop it."""

    SCRIPT = """
import os, psycopg2, sys, threading, time
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
connection = psycopg2.connect(dbname="ledger", user="postgres")
cursor = connection.cursor()
cursor.execute("CREATE TABLE IF NOT EXISTS local_writes (at float8)")
connection.commit()
while True:
    cursor.execute("INSERT INTO local_writes VALUES (%s)", (time.monotonic(),))
    connection.commit()
    print(time.monotonic(), flush=True)
"""

    def __init__(self, lab, node):
        self.process = lab.popen(node, "runuser", "-u", "postgres", "--", "python3", "-c", self.SCRIPT,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.first = self.process.stdout.readline()
        assert self.first, "the local writer could not commit at all"

    def last_commit_s(self):
        """Ends it. A writer that is stuck in the fenced folder has said all it will, and dies with the node's mount."""
        self.process.stdin.close()
        self.process.stdin = None
        said = self.process.communicate(timeout=30)[0].split()
        return float(([self.first] + said)[-1])


class PacketWatch:
    """Who sends from the public address, as seen by the client machine: {MAC: (first, last)} in monotonic time."""

    FILE = "/var/tmp/public-address.pcap"

    def __init__(self, lab):
        self.lab = lab
        self.process = lab.popen("c1", "tcpdump", "-Z", "root", "-i", "pub0", "-s", "64", "-U", "-w", self.FILE,
                                 f"src host {PUBLIC_ADDRESS} or (arp and arp src host {PUBLIC_ADDRESS})",
                                 stderr=subprocess.PIPE)
        said = self.process.stderr.readline()
        assert "listening" in said, said

    def senders(self):
        offset_s = time.time() - time.monotonic()
        self.process.terminate()
        self.process.communicate(timeout=30)
        lines = self.lab.sh("c1", """tcpdump -r "$1" -n -e -tt 2>/dev/null | awk '
            !($2 in first) { first[$2] = $1 }
            { last[$2] = $1 }
            END { for (mac in first) print mac, first[mac], last[mac] }'; rm "$1" """, self.FILE).splitlines()
        return {mac: (float(first) - offset_s, float(last) - offset_s) for mac, first, last in map(str.split, lines)}


def tree_below(lab, node, folder):
    """A digest of the real tree under whatever is mounted over it: a bind mount shows the file system alone."""
    trees.digest(lab, node, "/opt/holdfast-tests")            # puts the program there
    script = """exec unshare --mount sh -euc 'mount --bind /var/lib /mnt; exec python3 "$1" "/mnt/${2#/var/lib/}"' \
        sh "$1" "$2" """
    return lab.sh(node, script, trees.PROGRAM, folder, timeout_s=120)


@pytest.mark.ci
def test_holdfastd_hung_is_fenced_and_taken_over(cluster, lab, clients):
    """SIGSTOP: nobody on that node can act any more, so the kernel and the mirror must."""
    victim, survivor = cluster.wait_automatic_failover()
    mac = re.search(r"link/ether (\S+)", lab.sh(victim, "ip -o link show pub0"))[1]
    packets, writer = PacketWatch(lab), LocalWriter(lab, victim)
    cursors = {node: cluster.journal_cursor(node) for node in cluster.nodes}
    lab.exec(victim, "systemctl", "kill", "--signal=STOP", "holdfastd")
    stopped_s = time.monotonic()
    clients.wait_served_by(survivor)
    clients.wait_seconds(1)
    before = tree_below(lab, victim, postgres.DATA)
    clients.wait_seconds(2)
    assert tree_below(lab, victim, postgres.DATA) == before, "the fenced node's tree still changes"
    for node, cursor in cursors.items():        # each refuses the other, again and again while the daemon hangs
        refused = cluster.told_since(node, "holdfast-mirror", cursor, "follows nobody")
        assert len(refused) == len(set(refused)) >= 1, f"{node} repeats itself, or says nothing:\n" + "\n".join(refused)
    last_write_s = writer.last_commit_s()
    clients.stop()
    senders = packets.senders()
    deadline_s = stopped_s + LEASE_S + SLACK_S
    assert last_write_s <= deadline_s, f"a write {last_write_s - stopped_s:.2f} s after the hang was acknowledged"
    assert mac in senders and len(senders) == 2, f"{mac} before and another after were expected: {senders}"
    last_s = senders.pop(mac)[1]
    assert last_s <= deadline_s, f"a packet from the old active {last_s - stopped_s:.2f} s after the hang"
    new_first_s = min(first for first, _ in senders.values())
    assert last_s < new_first_s, "both nodes answered from the public address at the same time"
    outage_s = ledger.outage_after_s(clients.entries(), deadline_s)
    print(f"last write {last_write_s - stopped_s:.2f} s, last packet {last_s - stopped_s:.2f} s after the hang; "
          f"first commit on the other {outage_s + LEASE_S:.2f} s after it")
    demand_nothing_lost(cluster, clients)
    lab.exec(victim, "systemctl", "kill", "--signal=CONT", "holdfastd")
    active, _ = cluster.wait_synchronized(120)
    assert active == survivor, "the node that hung took the role back"


# An application of its own on the active: writes durably until it gets an error, then says how long that call took.
BLOCKED_WRITER = """
import os, sys, time
path = sys.argv[1] + "/blocked-writer"
print("ready", flush=True)
while True:
    began = time.monotonic()
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(fd, b"x"), os.fsync(fd), os.close(fd)
    except OSError as error:
        sys.exit(print(time.monotonic() - began, error))
    time.sleep(0.02)
"""
HANG_S = 3.0        # a mirror that says nothing for so long counts as hung
SLOW_S = 1.5        # how often it is asked, the watchdog's patience, a busy machine


@pytest.mark.ci
def test_mirror_hung_is_taken_over_and_its_callers_are_freed(cluster, lab, clients):
    """SIGSTOP of the mirror alone: who writes is blocked in the kernel, and can be freed by nobody but us."""
    blocked_s, outage_s = hang(cluster, lab, clients, "holdfast-mirror")
    assert blocked_s <= HANG_S + SLOW_S
    assert outage_s <= HANG_S + SLOW_S + POWER_CUT_LIMIT_S


def test_both_daemons_hung_are_taken_over_and_their_callers_are_freed(cluster, lab, clients):
    """Only the watchdog is left: at the lease's end it aborts the capture, and kills the mirror that does not let go."""
    blocked_s, outage_s = hang(cluster, lab, clients, "holdfastd", "holdfast-mirror")
    assert blocked_s <= LEASE_S + WATCHDOG_GRACE_S + SLOW_S
    assert outage_s <= LEASE_S + POWER_CUT_LIMIT_S


def hang(cluster, lab, clients, *units):
    """How long a writer on the active was blocked, and how long the clients had no commit, after the units were stopped."""
    victim, survivor = cluster.wait_automatic_failover()
    writer = lab.popen(victim, "python3", "-c", BLOCKED_WRITER, "/var/lib/postgresql", stdout=subprocess.PIPE)
    try:
        assert writer.stdout.readline() == "ready\n"
        before = main_pid(lab, victim, "holdfast-mirror")
        lab.exec(victim, "systemctl", "kill", "--signal=STOP", "--kill-whom=main", *units)
        stopped_s = time.monotonic()
        clients.wait_served_by(survivor)
        said = writer.communicate(timeout=20)[0]
        clients.wait_seconds(1)
    finally:
        writer.kill()
        lab.exec(victim, "systemctl", "kill", "--signal=CONT", "--kill-whom=main", "holdfastd")
    clients.stop()
    outage_s = ledger.outage_after_s(clients.entries(), stopped_s)
    print(f"first commit on the other {outage_s:.2f} s after the hang, a writer was blocked for {said.strip()}")
    demand_nothing_lost(cluster, clients)
    active, _ = cluster.wait_automatic_failover(120)
    assert active == survivor, "the node that hung took the role back"
    assert main_pid(lab, victim, "holdfast-mirror") not in ("0", before), "the mirror that hung is still there"
    postgres.checkpoint(lab, active)
    trees.wait_equal(cluster, "/var/lib/postgresql")
    return float(said.split()[0]), outage_s


@pytest.mark.long
def test_frozen_machine_is_taken_over_and_returns_as_passive(cluster, lab, clients):
    victim, survivor = cluster.wait_automatic_failover()
    lab.freeze(victim)
    clients.wait_served_by(survivor)
    clients.wait_seconds(2)
    lab.thaw(victim)
    active, _ = cluster.wait_synchronized(120)
    clients.stop()
    assert active == survivor
    demand_nothing_lost(cluster, clients)


def test_both_daemons_dead_on_the_passive_do_not_stop_the_active(cluster, lab, clients):
    active, passive = cluster.wait_automatic_failover()
    lab.exec(passive, "systemctl", "mask", "--runtime", "--quiet", "holdfastd", "holdfast-mirror")
    lab.exec(passive, "systemctl", "kill", "--signal=KILL", "holdfastd", "holdfast-mirror")
    clients.wait_seconds(4)
    clients.wait_commits(200)
    assert cluster.status_of(active)["automatic_failover"]["available"] is False
    clients.stop()
    assert ledger.longest_gap_s(clients.entries()) <= POWER_CUT_LIMIT_S
    assert cluster.active() == active


@pytest.mark.ci
def test_mirror_at_rest_is_small(cluster, lab):
    """Resident memory beside the ring: under 64 MiB."""
    for node in cluster.nodes:
        pid = main_pid(lab, node, "holdfast-mirror")
        fields = dict(line.split(":", 1) for line in lab.sh(node, f"cat /proc/{pid}/smaps_rollup").splitlines()[1:])
        private_kib = sum(int(fields[key].split()[0]) for key in ("Private_Clean", "Private_Dirty"))
        ring_mib = ring_size_mib(cluster, node)
        assert private_kib / 1024 - ring_mib < 64, f"{node}: {private_kib / 1024:.0f} MiB with a ring of {ring_mib} MiB"


def ring_size_mib(cluster, node):
    items = json.loads(cluster.cli(node, "config", "show", "--json").stdout)["items"]
    sizes = [int(re.match(r"\d+", item["value"]).group()) for item in items if item["key"].startswith("ring")]
    if not sizes:
        raise LabFailure(f"the configuration has no ring size: {[item['key'] for item in items]}")
    return sizes[0]
