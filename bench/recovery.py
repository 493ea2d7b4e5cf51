#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What keeping history costs, and how fast it is gone back: pgbench with undo history and without, a minute taken back, a node full of redo.

    bench/recovery.py [--pairs N] [--seconds S] [--rows REGEX] [--redo MIB]
"""

import argparse
import json
import re
import sys
import threading
import time
from pathlib import Path
from statistics import median

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests/lib")]

import history  # noqa: E402
import lab_bench  # noqa: E402
import postgres  # noqa: E402
from cluster import Cluster  # noqa: E402

CLIENTS, SCALE = 8, 20
MAKE_TREE = r"""
import os, random, sys
root, chance = sys.argv[1], random.Random(1)
for n in range(10_000):
    folder = f"{root}/{n // 50:03}"
    if n % 50 == 0:
        os.mkdir(folder)
    with open(f"{folder}/{n:05}.c", "wb") as file:
        file.write(chance.randbytes(chance.randrange(512, 16384)))
"""

# Every other page, in no order: each becomes a record of its own.
SCATTER = r"""
import os, random, sys
path, pages = sys.argv[1], int(sys.argv[2]) << 7
order = list(range(0, pages, 2))
random.Random(1).shuffle(order)
fd = os.open(path, os.O_RDWR)
for n in order:
    os.pwrite(fd, os.urandom(8192), n << 13)
os.fdatasync(fd)
"""
LEAST_REDO = 0.9        # of what was asked for, or the row claims nothing


def say(text):
    print(f"recovery: {text}", file=sys.stderr, flush=True)


def queues_of(ground, active, passive):
    return ground.cluster.node_in(ground.cluster.status_of(active), passive)["queues"]


class RecoveryPoints(threading.Thread):
    """The passive's recovery point, a few times a second, until stop()."""

    def __init__(self, cluster, passive):
        super().__init__(daemon=True)
        self.cluster, self.passive, self.seen, self.done = cluster, passive, [], threading.Event()
        self.start()

    def run(self):
        while not self.done.wait(0.3):
            self.seen.append(self.cluster.recovery_point_s(self.passive))

    def stop(self):
        self.done.set()
        self.join()
        return self.seen


class Ground:
    def __init__(self, lab, options):
        self.lab, self.options, self.cluster = lab, options, Cluster(lab)

    def set_up(self):
        self.lab.up("--witness", "--disk", "20G")
        self.lab.run_shown("cluster", "--mode", "async", "--plugin", "postgresql", timeout_s=400)
        active = self.cluster.active()
        self.as_postgres(active, f"createdb bench; pgbench -q -i -s {SCALE} bench")

    def as_postgres(self, node, script, timeout_s=300):
        return self.lab.exec(node, "runuser", "-u", "postgres", "--", "sh", "-ec", script, timeout_s=timeout_s)

    def settle(self, node):
        postgres.checkpoint(self.lab, node)
        passive = self.cluster.other(node)

        def quiet():
            there = self.cluster.node_in(self.cluster.status_of(node), passive)
            return there["synchronized"] and not there["queues"]["send_bytes"] and not there["queues"]["receive_bytes"]
        self.cluster.wait(quiet, "the passive has applied everything", 120)

    def pgbench(self, node, seconds):
        text = self.as_postgres(node, f"pgbench -n -c {CLIENTS} -j 2 -T {seconds} bench", seconds + 120).stdout
        line, = (line for line in text.splitlines() if line.startswith("tps = "))
        return float(line.split()[2])

    def unpack(self, node):
        """Seconds of an archive of 10,000 small files, unpacked into the protected folder and synced."""
        self.lab.exec(node, "sh", "-ec", 'test -e /root/tree.tar || { mkdir /root/tree; python3 -c "$1" /root/tree; '
                      'tar -cf /root/tree.tar -C /root tree; rm -r /root/tree; }', "sh", MAKE_TREE, timeout_s=300)
        script = f"cd {postgres.DATA}; rm -rf tree; sync -f .; t=$(date +%s%N); tar -xf /root/tree.tar; sync -f .; " \
                 "echo $(($(date +%s%N) - t)); rm -rf tree"
        return int(self.lab.sh(node, script, timeout_s=300).strip()) / 1e9

    def keep_history(self, on):
        self.cluster.cli(self.cluster.active(), "config", "set", "undo_mib", "auto" if on else "0")
        passive = self.cluster.passive()
        self.cluster.wait(lambda: (history.of(self.cluster, passive)["state"] == "on") == on, f"history {on}", 60)


def history_cost(ground):
    """pgbench in turns with history and without; and the passive's recovery point with it."""
    ratios, points, tps = [], [], []
    active, passive = ground.cluster.wait_automatic_failover()
    for _ in range(ground.options.pairs):
        ground.keep_history(False)
        ground.settle(active)
        without = ground.pgbench(active, ground.options.seconds)
        ground.keep_history(True)
        ground.settle(active)
        watch = RecoveryPoints(ground.cluster, passive)
        tps.append(ground.pgbench(active, ground.options.seconds))
        points += watch.stop()
        ratios.append(tps[-1] / without)
        say(f"pgbench: {without:.0f} tps without history, {tps[-1]:.0f} with it; recovery point at most "
            f"{max(p if p is not None else float('inf') for p in points):.1f} s")
    known = [p for p in points if p is not None]
    return {"name": f"pgbench, {CLIENTS} clients, with history / without", "value": f"{median(ratios):.2f}",
            "limit": "the passive keeps up", "note": f"recovery point: median {median(known):.2f} s, most {max(known):.2f} s, "
            f"unknown {len(points) - len(known)} of {len(points)} times; {median(tps):.0f} tps"}


def keep_hot_set(ground, node, on):
    """The node leads, with or without the upkeep: its mirror knows when it starts, so the role goes away and comes back."""
    def lead(who):
        ground.cluster.wait_automatic_failover(120)
        if ground.cluster.active() != who:
            ground.cluster.make_active(who)
            ground.cluster.wait_automatic_failover(120)
    lead(ground.cluster.other(node))
    folder = "/etc/systemd/system/holdfast-mirror.service.d"
    ground.lab.sh(node, f"mkdir -p {folder}; rm -f {folder}/bench.conf; " + (
        "" if on else f"printf '[Service]\nEnvironment=HOLDFAST_HOT_SET=off\n' > {folder}/bench.conf; ") +
        "systemctl daemon-reload; systemctl restart holdfast-mirror")
    lead(node)


def hot_set_cost(ground):
    """pgbench and unpacking, in turns with the hot set's upkeep and without, on the same machine and disk; which comes first changes."""
    node, _ = ground.cluster.wait_automatic_failover()
    ratios, unpacked = [], []
    for pair in range(ground.options.pairs):
        tps, took = {}, {}
        for on in ((True, False), (False, True))[pair % 2]:
            keep_hot_set(ground, node, on)
            ground.settle(node)
            tps[on] = ground.pgbench(node, ground.options.seconds)
            took[on] = median(ground.unpack(node) for _ in range(3))
        ratios.append(tps[True] / tps[False])
        unpacked.append(took[False] / took[True])
        say(f"pgbench: {tps[True]:.0f} tps with hot set, {tps[False]:.0f} without; "
            f"unpacking: {took[True]:.2f} s with, {took[False]:.2f} s without")
    return {"name": f"pgbench, {CLIENTS} clients, with hot set / without", "value": f"{median(ratios):.2f}",
            "limit": "at least 0.98", "note": f"rounds {', '.join(f'{r:.2f}' for r in ratios)}; unpacking 10,000 files {median(unpacked):.2f} "
            f"(limit 0.90; {', '.join(f'{r:.2f}' for r in unpacked)})"}


def rewind(ground):
    """A minute of pgbench taken back: seconds of the step that rewinds, and from the command to the application's answer."""
    active, passive = history.need(ground.cluster)
    ground.settle(active)
    begin_s = history.clock_s(ground.lab, active)
    history.wait_past(ground.cluster, active, begin_s)
    tps = ground.pgbench(active, 60)
    history.wait_past(ground.cluster, active, history.clock_s(ground.lab, active))
    started = time.monotonic()
    ground.cluster.cli(active, "rollback", "--to", history.iso(begin_s), "--yes", timeout_s=300)
    whole = time.monotonic() - started
    ground.cluster.wait_active(passive)
    plan = json.loads(ground.cluster.cli(passive, "plan", "--json").stdout)
    steps = {step["name"]: step["seconds"] for step in plan["steps"]}
    step, seconds = max(steps.items(), key=lambda each: each[1])
    say(f"rollback of {60 * tps:.0f} transactions: {whole:.1f} s in all; {steps}")
    ground.cluster.wait_automatic_failover(300)
    return {"name": "60 s of pgbench taken back", "value": f"{seconds:.1f} s", "limit": "at most 10 s",
            "note": f"longest step, \"{step}\"; {whole:.1f} s with stop, probe and start; {60 * tps:.0f} transactions"}


def redo(ground):
    """A passive that loses its power with much received and not applied, and the active gone: seconds from its start to its service."""
    active, passive = ground.cluster.wait_automatic_failover()
    mib, filler = ground.options.redo, f"{postgres.DATA}/filler"
    ground.lab.sh(active, f"head -c {4 * mib}M /dev/urandom > {filler}; sync -f {filler}", timeout_s=600)
    ground.settle(active)
    ground.lab.sh(passive, "sync; echo 3 > /proc/sys/vm/drop_caches", timeout_s=300)

    # Pages here and there cost the passive an old value each, from the disk: it receives them faster than it can apply them.
    writer = ground.lab.popen(active, "python3", "-c", SCATTER, filler, str(4 * mib))
    try:
        ground.cluster.wait(lambda: queues_of(ground, active, passive)["receive_bytes"] >= mib << 20 or writer.poll() is not None,
                            "much is received and not applied", 300)
    finally:
        writer.kill()
        writer.wait(20)
    ground.cluster.wait(lambda: not queues_of(ground, active, passive)["send_bytes"], "everything is received", 120)
    ground.lab.power_cut(passive)
    ground.lab.power_cut(active)
    started = time.monotonic()
    ground.lab.boot(passive)
    booted = time.monotonic() - started

    def promoted():
        return ground.cluster.active_in(ground.cluster.status_of(passive)) == passive
    ground.cluster.wait(promoted, "the passive took over", 120)
    took = time.monotonic() - started
    again = re.findall(r"(\d+) MiB of the receive log are applied again",
                       ground.lab.sh(passive, "journalctl -b -o cat -u holdfast-mirror"))
    done_again = int(again[-1]) if again else 0
    ground.lab.boot(active)
    ground.cluster.wait_automatic_failover(600)
    ground.lab.sh(ground.cluster.active(), f"rm {filler}")
    limit = "at most 15 s" if done_again >= LEAST_REDO * mib else f"none: less than {LEAST_REDO * mib:.0f} MiB had to be applied again"
    return {"name": f"power cut of a passive that has {mib} MiB to apply, active gone: until it has taken over", "value": f"{took:.1f} s",
            "limit": limit, "note": f"of it {booted:.1f} s boot; up to {done_again} MiB were applied again"}


ROWS = (("history", history_cost), ("rewind", rewind), ("redo", redo), ("hot set", hot_set_cost))


def table(done):
    lines = ["| | measured | limit | |", "|---|---|---|---|"]
    lines += [f"| {row['name']} | {row['value']} | {row['limit']} | {row['note']} |" for row in done]
    return "\n".join(lines)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3, metavar="N", help="rounds of the rows that compare (default 3)")
    parser.add_argument("--seconds", type=int, default=30, metavar="S", help="of each pgbench (default 30)")
    parser.add_argument("--redo", type=int, default=1024, metavar="MIB", help="received and not applied at the power cut (default 1024)")
    lab_bench.add_options(parser)
    parser.epilog = "rows: " + ", ".join(key for key, _ in ROWS)
    return parser.parse_args()


def main():
    options = parse()
    record = lab_bench.Record("recovery", HERE / "recovery.json", HERE.parent / "docs/BENCHMARKS.md", table)

    def measure(lab):
        ground = Ground(lab, options)
        for key, measure_row in ROWS:
            if re.search(options.rows, key):
                row = measure_row(ground)
                say(f"{row['name']}: {row['value']} ({row['note']})")
                record.add(row)
        print(table(list(record.rows.values())))
    return lab_bench.run("recovery", options, lambda lab: Ground(lab, options).set_up(), measure)


if __name__ == "__main__":
    sys.exit(main())
