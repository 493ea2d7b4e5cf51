#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Random faults on real machines, by seed, while clients work; then everything they saw is judged.

    sudo ./dev chaos --seed N --minutes M [--runs K] [--nodes 2|3] [--lab NAME] [--keep]

Nodes n1 n2 with the witness w1, or n1 n2 n3 without one (unless --nodes says which, every third seed has three). The schedule
depends on the seed alone and is printed as it goes. With --runs the seeds N, N+1, ... follow each other in one lab. The last line says what was checked
and found; exit status: 0 all right, 1 something is wrong (evidence under build/chaos), 3 the lab itself failed.
"""

import argparse
import collections
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

import consistency  # noqa: E402
import ledger  # noqa: E402
import postgres  # noqa: E402
import schedule  # noqa: E402
import trees  # noqa: E402
from cluster import Cluster  # noqa: E402
from faults import PLACE, Faults, bend_clocks, build_clock, demand_bent_clocks  # noqa: E402
from labs import CHECKOUT, PUBLIC_ADDRESS, Lab, LabFailure  # noqa: E402

EVIDENCE = CHECKOUT / "build/chaos"
FOLDER = "/srv/chaos"
LINES = f"{FOLDER}/lines"
CLIENT = f"{PLACE}/chaos_client.py"
HERE = Path(__file__).resolve().parent
CONVERGE_S = 150
WATCHED_S = 20          # the last packets from the public address are no older, when the clients have just stopped
LONG_S = 25             # an outage that is worth a look, though nothing is wrong
LEDGER_CLIENTS = 2
CLIENTS = 8             # as chaos_client.py has


class Found(Exception):
    """What is wrong, one line each."""


def say(text):
    print(f"{time.monotonic() - STARTED_S:7.1f} s  {text}", flush=True)


STARTED_S = time.monotonic()


class Scribes:
    """A scribe on every node; each comes back with its machine."""

    def __init__(self, lab, nodes):
        self.lab, self.lines, self.odd, self.stopping = lab, [], [], threading.Event()
        for node in nodes:
            lab.put(node, f"{PLACE}/scribe.py", (HERE / "scribe.py").read_text())
            lab.sh(node, "sync -f /opt")
        self.threads = [threading.Thread(target=self._follow, args=(node,)) for node in nodes]
        for thread in self.threads:
            thread.start()

    def _follow(self, node):
        while not self.stopping.is_set():
            # As whatever starts at boot must be: after the mirror, whose covers stand from then on.
            process = self.lab.popen(node, "sh", "-c", "until systemctl -q is-active holdfast-mirror; do sleep 0.05; done;"
                                     ' exec python3 "$@"', "sh", f"{PLACE}/scribe.py", LINES, node, stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            ender = threading.Thread(target=lambda p=process: (self.stopping.wait(), p.stdin.close()), daemon=True)
            ender.start()
            for line in process.stdout:
                words = line.split()
                if len(words) == 3 and line.endswith("\n") and words[0].isdigit():
                    self.lines.append(consistency.Line(int(words[0]), node, int(words[1]), int(words[2])))
                elif words:
                    self.odd.append(f"{node}: {line.strip()}")
            process.wait()
            self.stopping.wait(0.3)         # the machine is off

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(30)


class BankClients:
    """chaos_client.py at work on c1."""

    def __init__(self, lab, run):
        self.lab, self.run, self.file, self.latest = lab, run, f"{ledger.LEDGERS}/{run}.history", {}
        self.process = lab.popen("c1", "python3", CLIENT, "run", "--host", PUBLIC_ADDRESS, "--run", run, "--history", self.file,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.latest = json.loads(line)

    def serving(self):
        return self.latest.get("server", "-").split("@")[0]

    def stop(self):
        self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise LabFailure(f"the clients do not end; they last said {self.latest}") from None
        if self.process.returncode != 0:
            raise LabFailure(f"the clients failed: {self.process.stderr.read()[-2000:]}")

    def history(self):
        text = self.lab.exec("c1", "cat", self.file, timeout_s=120).stdout
        return [consistency.Transaction(*json.loads(line)) for line in text.splitlines()]

    def final(self):
        found = json.loads(self.lab.exec("c1", "python3", CLIENT, "final", "--host", PUBLIC_ADDRESS, "--run", self.run,
                                         timeout_s=120).stdout)
        return {"initial": {int(key): value for key, value in found["initial"].items()}, "balances": dict(found["balances"]),
                "transfers": {(client, n): (source, target, amount) for client, n, source, target, amount in found["transfers"]},
                "lists": dict(found["lists"])}


class Packets:
    """Which machine sends from the public address, as c1 sees it."""

    FILE = "/var/tmp/chaos.pcap"

    def __init__(self, lab):
        self.lab = lab
        self.process = lab.popen("c1", "tcpdump", "-Z", "root", "-i", "pub0", "-s", "64", "-w", self.FILE,
                                 f"src host {PUBLIC_ADDRESS} or (arp and arp src host {PUBLIC_ADDRESS})", stderr=subprocess.PIPE)
        if "listening" not in (heard := self.process.stderr.readline()):
            raise LabFailure(f"tcpdump: {heard}")

    def changes(self, machines):
        """[(seconds, machine)]. machines: by hardware address."""
        if self.process.poll() is not None:
            raise LabFailure(f"tcpdump ended by itself: {self.process.stderr.read()[-500:]}")
        self.process.terminate()
        self.process.communicate(timeout=30)
        lines = self.lab.sh("c1", "tcpdump -r \"$1\" -n -e -tt 2>/dev/null | awk '$2 != last { print $1, $2; last = $2 }"
                            " { now = $1 } END { if (NR) print now, \"end\" }'; rm \"$1\"", self.FILE, timeout_s=120).splitlines()
        seen = [(float(seconds), machines.get(address, address)) for seconds, address in map(str.split, lines)]
        if not seen or time.time() - seen[-1][0] > WATCHED_S:
            raise LabFailure(f"the last packet from the public address that was seen: {seen[-1:]}; the clients were served until now")
        return seen[:-1]


class Run:
    """One seed."""

    def __init__(self, lab, nodes, witness, seed, minutes):
        self.lab, self.nodes, self.witness, self.seed, self.minutes = lab, nodes, witness, seed, minutes
        self.cluster = Cluster(lab, nodes)
        self.name = f"seed-{seed}"
        self.rounds = 0

    def is_whole(self):
        answers = [self.cluster.status_of(node) for node in self.nodes]
        actives = {self.cluster.active_in(status) for status in answers}
        return len(actives) == 1 and None not in actives and all(
            not status["plan"] and status["automatic_failover"]["available"] and
            all(vote["reachable"] for vote in status["votes"]) and all(node["synchronized"] for node in status["nodes"]) and
            all((app["state"], app["health"]) == ("running", "healthy") for app in status["applications"]
                if app["plugin"] != "files")
            for status in answers)

    def wait_whole(self):
        began_s = time.monotonic()
        try:
            self.cluster.wait(self.is_whole, "all nodes agree, are synchronized and could fail over", CONVERGE_S)
        except LabFailure as failure:
            raise Found(f"the cluster is not whole {CONVERGE_S} s after everything was healed: {failure}") from None
        return time.monotonic() - began_s

    def play(self):
        self.wait_whole()
        self.lab.exec("c1", "python3", CLIENT, "setup", "--host", PUBLIC_ADDRESS, timeout_s=60)
        self.lab.sh(self.cluster.active(), f"rm -f {LINES}; sync {FOLDER}")
        epoch = self.cluster.status()["lease"]["epoch"]
        machines = {re.search(r"link/ether (\S+)", self.lab.sh(node, "ip -o link show pub0"))[1]: node for node in self.nodes}
        end_s = time.monotonic() + 60 * self.minutes
        packets, scribes = Packets(self.lab), Scribes(self.lab, self.nodes)
        run = f"{self.name}-{os.getpid()}"
        bank = BankClients(self.lab, run)
        self.faults = Faults(self.lab, self.nodes, self.witness, bank.serving, say)
        try:
            with ledger.Clients(self.lab, run, LEDGER_CLIENTS) as clients:
                clients.wait_commits(20)
                for each in schedule.rounds(self.seed, len(self.nodes), self.witness):
                    if time.monotonic() >= end_s:
                        break
                    self.round(each)
                say("healed; waits until all is whole")
                self.faults.heal()
                took_s = self.wait_whole()
                done, lines = bank.latest.get("commits", 0), len(scribes.lines)
                clients.wait_commits(20)
                self.cluster.wait(lambda: bank.latest.get("commits", 0) > done + 20 and len(scribes.lines) > lines + 20,
                                  "bank, lists and scribes go on after everything was healed", 30)
                say(f"whole after {took_s:.1f} s")
            changes = packets.changes(machines)
        finally:
            scribes.stop()
        bank.stop()
        if self.faults.broken:
            raise LabFailure(f"a fault ended with an error of its own: {self.faults.broken[0]}")
        return self.judge(bank, clients, scribes, changes, self.owners(epoch))

    def owners(self, since):
        """Who was the active, by epoch, from the one at the beginning to that of now. None where no event says."""
        told = {}
        for node in self.nodes:
            page = json.loads(self.cluster.cli(node, "events", "--last", "20000", "--json").stdout)
            for event in page["events"] if isinstance(page, dict) else page:
                if found := re.match(r"(\S+) becomes the active of epoch (\d+)", event["text"]):
                    told[int(found[2])] = found[1]
        return [told.get(epoch) for epoch in range(since, self.cluster.status()["lease"]["epoch"] + 1)]

    def round(self, each):
        say(f"round {each.number}")
        self.rounds += 1
        self.faults.play(each.faults)
        if each.settles:
            self.faults.heal()
            say(f"  whole after {self.wait_whole():.1f} s")

    def judge(self, bank, clients, scribes, changes, owners):
        history, final = bank.history(), bank.final()
        if any(len(t) != len(consistency.Transaction._fields) for t in history):
            raise Found("a line of the clients' history is none")
        directory = EVIDENCE / self.name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "history.jsonl").write_text("\n".join(json.dumps(t) for t in history))
        (directory / "final.json").write_text(json.dumps({**final, "transfers": sorted(final["transfers"].items())}))
        active = self.cluster.active()
        lines, found = consistency.read_lines(self.lab.sh(active, 'cat "$1"', LINES))
        (directory / "lines").write_text("\n".join(map(str, sorted(scribes.lines))))
        found += consistency.liveness(history, scribes.lines, self.faults.done, self.rounds, CLIENTS)
        found += consistency.bank(history, final["initial"], final["balances"], final["transfers"])
        found += consistency.appends(history, final["lists"])
        found += consistency.answers(history)
        found += consistency.lines(scribes.lines, lines)
        found += consistency.senders(changes, owners)
        found += consistency.shown("a scribe was told", scribes.odd)
        found += self.ledger(clients)
        postgres.check(self.lab, active)
        postgres.checkpoint(self.lab, active)
        for passive in self.nodes:
            if passive != active:
                for folder in (postgres.DATA, FOLDER):
                    found += self.differences(active, passive, folder)
        if found:
            raise Found("\n".join(found))
        outcomes = collections.Counter(t.outcome for t in history)
        longest_s = ledger.longest_gap_s(clients.entries())
        if longest_s > LONG_S:
            say(f"nobody was served for {longest_s:.1f} s: the journals are kept in {directory}")
            self.keep_evidence()
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.done.items()))
        return (f"{self.rounds} rounds ({faults}), {len(owners) - 1} epochs ended, longest outage {longest_s:.1f} s; "
                f"{outcomes['ok']} transactions of bank and lists acknowledged ({outcomes['unknown']} unknown) and all there, in an "
                f"order that explains every read, the bank's total constant; {len(clients.entries())} entries of the ledger and "
                f"{len(scribes.lines)} acknowledged lines there; {len(changes)} times another machine answered, never two at once; "
                f"trees equal")

    def ledger(self, clients):
        verdict = clients.verdict()
        wrong = {key: verdict[key] for key in ("lost", "ghosts", "torn_accounts") if verdict[key]}
        return [f"the ledger and the database disagree: {wrong} {verdict['lost_keys'][:5]}"] if wrong else []

    def differences(self, active, passive, folder):
        try:
            trees.wait_equal(Cluster(self.lab, (active, passive)), folder)
            return []
        except LabFailure as failure:
            return [f"{folder} differs between {active} and {passive}: {failure}"]

    def keep_evidence(self):
        try:
            self.cluster.collect_journals(EVIDENCE / self.name)
            if self.witness and self.lab.is_on("w1"):
                said = self.lab.exec("w1", "journalctl", "-o", "short-precise", "--no-pager", "-u", "holdfast-witness").stdout
                (EVIDENCE / self.name / "w1.journal").write_text(said)
        except (LabFailure, OSError, subprocess.TimeoutExpired) as trouble:
            say(f"evidence: {trouble}")


def form(lab, nodes, witness):
    lab.up("--nodes", str(len(nodes)), *(["--witness"] if witness else []))
    with tempfile.TemporaryDirectory() as directory:
        library = build_clock(Path(directory))
    for machine in (*nodes, *(["w1"] if witness else [])):
        bend_clocks(lab, machine, library)
    lab.run_shown("cluster", "--mode", "fsync", "--protect", FOLDER, "--plugin", "postgresql", timeout_s=400)
    for machine in (*nodes, *(["w1"] if witness else [])):
        demand_bent_clocks(lab, machine)
    lab.exec(nodes[0], "holdfast", "config", "set", "failures_limit", "0")     # nodes fail all the time
    postgres.create_ledger_database(lab, nodes[0])
    ledger.deploy(lab)
    ledger.set_up_tables(lab)
    lab.put("c1", CLIENT, (HERE / "chaos_client.py").read_text())
    postgres.checkpoint(lab, nodes[0])


def play(options, nodes, witness, seeds):
    """The last line."""
    what = f"{len(nodes)} nodes{' and a witness' if witness else ''}"
    lab = Lab(options.lab or f"chaos-{os.getpid()}")
    told = []
    try:
        if options.lab is None or not options.formed:
            form(lab, nodes, witness)
        for seed in seeds:
            say(f"seed {seed}, {options.minutes:g} min, {what}")
            run = Run(lab, nodes, witness, seed, options.minutes)
            try:
                told.append(f"seed {seed}, {what}: {run.play()}")
                say(told[-1])
            except Exception as found:      # whatever it is: what is looked for may well be what the judge stumbles over
                if not isinstance(found, (Found, LabFailure, AssertionError)):
                    traceback.print_exc()
                run.keep_evidence()
                lines = str(found).splitlines() or [repr(found)]
                print("\n".join(lines[:60]), flush=True)
                return 1, f"chaos: FAILED with seed {seed}, {what}: {lines[0][:300]} (evidence: {EVIDENCE / run.name})"
    finally:
        if not options.keep:
            lab.down()
    return 0, f"chaos: nothing wrong. {told[-1]}" if len(told) == 1 else f"chaos: nothing wrong in {len(told)} seeds. The last: {told[-1]}"


def main():
    parser = argparse.ArgumentParser(prog="./dev chaos", description="Random faults by seed in the lab, while clients work; then all is judged.")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--runs", type=int, default=1, help="so many seeds, one after the other, in one lab")
    parser.add_argument("--nodes", type=int, choices=(2, 3), help="2: with a witness; default: three for every third seed")
    parser.add_argument("--lab", help="the lab's name")
    parser.add_argument("--formed", action="store_true", help="the lab is up and formed by an earlier run with --keep")
    parser.add_argument("--keep", action="store_true", help="leave the lab up at the end")
    parser.add_argument("--show", action="store_true", help="only print the first ten rounds")
    options = parser.parse_args()
    count = options.nodes or (3 if options.seed % 3 == 0 else 2)
    nodes, witness = tuple(f"n{i + 1}" for i in range(count)), count == 2
    if options.show:
        for each, _ in zip(schedule.rounds(options.seed, count, witness), range(10)):
            print(f"round {each.number}" + ("" if each.settles else ", and the next one at once"))
            print("\n".join(f"  {fault}" for fault in each.faults))
        return 0
    if os.geteuid() != 0:
        parser.error("the lab boots machines and needs root: sudo ./dev chaos")
    for seed in range(options.seed, options.seed + options.runs):
        shutil.rmtree(EVIDENCE / f"seed-{seed}", ignore_errors=True)
    try:
        status, last = play(options, nodes, witness, range(options.seed, options.seed + options.runs))
    except (LabFailure, subprocess.TimeoutExpired, OSError) as failure:
        status, last = 3, f"chaos: the lab failed: {failure}"
    print(re.sub(r"\s+", " ", last), flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
