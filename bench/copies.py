#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What copying costs: first copies beside rsync's, a pre-seeded copy, a minute without the link. Less is better.

    bench/copies.py [--files N] [--big GIB] [--pairs N] [--rows REGEX]
"""

import argparse
import contextlib
import json
import re
import sys
import time
from pathlib import Path
from statistics import median

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests/lib")]

import folders  # noqa: E402
import lab_bench  # noqa: E402
import trees  # noqa: E402
from cluster import Cluster  # noqa: E402
from labs import CHANNEL, LabFailure  # noqa: E402

TREE, BIG, COPY = "/srv/tree", "/srv/big", "/srv/copy"
SOURCE, TARGET = "n1", "n2"
FILES_A_FOLDER = 100
CHANGED = 100
CUT_S = 60

# Small files of 1 to 8 KiB that no two are alike; arguments: folder, number.
MAKE_TREE = r"""
import os, random, subprocess, sys
root, count = sys.argv[1], int(sys.argv[2])
chance = random.Random(1)
pool = chance.randbytes(1 << 20)
for n in range(count):
    folder = f"{root}/{n // 100:05}"
    if n % 100 == 0:
        os.makedirs(folder)
    with open(f"{folder}/{n:07}", "wb", buffering=0) as file:
        at = chance.randrange(len(pool) - 8192)
        file.write(n.to_bytes(8, "little") + pool[at:at + chance.randrange(1024, 8192)])
subprocess.run(["sync", "-f", root], check=True)
"""
MAKE_BIG = 'mkdir -p "$1"; head -c "$2" /dev/urandom > "$1/big"; sync -f "$1"'
# The application that goes on: overwrites and syncs, some hundred times a second, until it is killed.
WRITER = r"""
import os, random, sys, time
root = sys.argv[1]
os.makedirs(f"{root}/application", exist_ok=True)
while True:
    fd = os.open(f"{root}/application/{random.randrange(50)}", os.O_RDWR | os.O_CREAT, 0o644)
    os.pwrite(fd, os.urandom(8192), 8192 * random.randrange(64))
    os.fdatasync(fd)
    os.close(fd)
    time.sleep(0.005)
"""
# One byte of every tenth folder's first file and so on: CHANGED files, one page each.
CHANGE = r"""
import os, subprocess, sys
root, count, changed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for k in range(changed):
    n = k * (count // changed)
    fd = os.open(f"{root}/{n // 100:05}/{n:07}", os.O_RDWR)
    os.pwrite(fd, os.urandom(1024), 0)
    os.close(fd)
subprocess.run(["sync", "-f", root], check=True)
"""


def say(text):
    print(f"copies: {text}", file=sys.stderr, flush=True)


class Ground:
    def __init__(self, lab, options):
        self.lab, self.options, self.cluster = lab, options, Cluster(lab)

    def set_up(self):
        self.lab.up("--witness", "--disk", "40G", "--packages", "rsync openssh-server openssh-client")
        self.lab.run_shown("cluster", "--mode", "async", timeout_s=200)
        # rsync's way to another machine is ssh: what leaves the machine is encrypted, as ours is.
        key = self.lab.sh(SOURCE, "ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519; cat /root/.ssh/*.pub")
        self.lab.put(TARGET, "/root/.ssh/authorized_keys", key)
        self.lab.sh(TARGET, "chmod 700 /root/.ssh; systemctl start ssh")
        self.lab.sh(SOURCE, 'ssh-keyscan -H "$1" > /root/.ssh/known_hosts 2>/dev/null', CHANNEL[TARGET])

    def settle(self):
        """Caches empty, disks quiet: every copy starts from the disk. Only the two machines' own caches, where they can be told."""
        for node in (SOURCE, TARGET):
            self.lab.sh(node, "sync -f /srv; sync -f /var/lib", timeout_s=300)
        groups = [Path("/sys/fs/cgroup/memory/holdfast-lab") / self.lab.name / node for node in (SOURCE, TARGET)]
        if all((group / "memory.force_empty").exists() for group in groups):
            for group in groups:
                (group / "memory.force_empty").write_text("0")
        else:
            Path("/proc/sys/vm/drop_caches").write_text("3")

    @contextlib.contextmanager
    def application(self, root):
        writer = self.lab.popen(SOURCE, "python3", "-c", WRITER, root)
        try:
            yield
        finally:
            writer.kill()           # it goes with the command that started it
            writer.wait(20)

    def rsync(self, root, checksum=False):
        """Seconds of a copy to the target with everything on its disk."""
        self.settle()
        started = time.monotonic()
        done = self.lab.exec(SOURCE, "rsync", "-ac" if checksum else "-a", f"{root}/",
                             f"{CHANNEL[TARGET]}:{COPY}/", timeout_s=7200, check=False)
        if done.returncode not in (0, 24):          # 24: files vanished under it, as they do here
            raise LabFailure(f"rsync failed with {done.returncode}: {done.stderr[-500:]}")
        self.lab.sh(TARGET, "sync -f /srv", timeout_s=600)
        return time.monotonic() - started

    def protect(self, root):
        """Seconds from the command to synchronized."""
        self.settle()
        started = time.monotonic()
        self.cluster.cli(SOURCE, "protect", root, timeout_s=300)
        self.wait_complete(7200)
        return time.monotonic() - started

    def wait_complete(self, timeout_s):
        def complete():
            status = self.cluster.status_of(SOURCE)
            return not status["plan"] and self.cluster.node_in(status, TARGET)["synchronized"] is True
        self.cluster.wait(complete, "the target is synchronized", timeout_s)

    def unprotect(self, root):
        self.cluster.cli(SOURCE, "unprotect", root, "--yes", timeout_s=120)
        for node in (SOURCE, TARGET):
            self.cluster.wait(lambda n=node: folders.is_bare(self.lab, n, root), f"{node} covers {root} no more", 60)

    def clear_target(self, *folders):
        self.lab.sh(TARGET, 'rm -rf -- "$@"', *folders, timeout_s=1800)

    def sent_bytes(self):
        """What left the source over the channel so far."""
        link, = json.loads(self.lab.sh(SOURCE, "ip -j -s link show chan0"))
        return link["stats64"]["tx"]["bytes"]

    def opened(self):
        """Objects that the source opened for the target's last resynchronization."""
        return self.cluster.node_in(self.cluster.status_of(SOURCE), TARGET)["last_sync"]["opened"]


def first_copy(ground, root, pairs):
    ours, theirs = [], []
    for _ in range(pairs):
        ground.clear_target(COPY, root)
        with ground.application(root):
            theirs.append(ground.rsync(root))
        say(f"{root}: rsync {theirs[-1]:.1f} s")
        ground.clear_target(COPY)
        ground.settle()
        started = time.monotonic()
        ground.cluster.cli(SOURCE, "protect", root, timeout_s=300)
        with ground.application(root):
            ground.wait_complete(7200)
            ours.append(time.monotonic() - started)
        say(f"{root}: holdfast {ours[-1]:.1f} s")
        trees.wait_equal(ground.cluster, root)
        ground.unprotect(root)
    return {"ours": ours, "peer": theirs, "target": 1.0}


def seeded_copy(ground, root, pairs):
    """The target holds an identical tree, as from a backup."""
    ours, theirs = [], []
    for _ in range(pairs):
        ground.clear_target(COPY, root)
        ground.rsync(root)
        theirs.append(ground.rsync(root, checksum=True))
        say(f"{root}, seeded: rsync {theirs[-1]:.1f} s")
        ground.lab.sh(TARGET, 'mv "$1" "$2"', COPY, root)
        ours.append(ground.protect(root))
        say(f"{root}, seeded: holdfast {ours[-1]:.1f} s")
        ground.unprotect(root)
    return {"ours": ours, "peer": theirs, "target": 0.5}


def link_cut(ground, root, _):
    """CHANGED files change while the link is cut for a minute; seconds from the heal to synchronized."""
    ground.clear_target(root)
    ground.protect(root)
    ground.lab.cut(SOURCE, TARGET)
    ground.lab.exec(SOURCE, "python3", "-c", CHANGE, root, str(ground.options.files), str(CHANGED), timeout_s=120)
    time.sleep(CUT_S)
    sent, started = ground.sent_bytes(), time.monotonic()
    ground.lab.heal(SOURCE, TARGET)
    ground.wait_complete(600)
    took = time.monotonic() - started
    sent = ground.sent_bytes() - sent
    say(f"after {CUT_S} s without the link and {CHANGED} changed files: {took:.1f} s, {sent} bytes sent, "
        f"{ground.opened()} objects opened")
    trees.wait_equal(ground.cluster, root, 600)
    ground.unprotect(root)
    return {"ours": [took], "note": f"limit 5 s; {sent / 1e3:.0f} kB sent for {CHANGED} pages"}


def rows(options):
    small, big = f"{options.files:,} files of 1 to 8 KiB", f"one file of {options.big} GiB"
    return (("tree", f"first copy of {small}, application writing; rsync -a", lambda g, p: first_copy(g, TREE, p)),
            ("tree", f"copy onto an identical tree of {small}; rsync -ac", lambda g, p: seeded_copy(g, TREE, p)),
            ("tree", f"link cut for {CUT_S} s, {CHANGED} of {options.files:,} files changed: until synchronized",
             lambda g, p: link_cut(g, TREE, p)),
            ("big", f"first copy of {big}, application writing; rsync -a", lambda g, p: first_copy(g, BIG, p)),
            ("big", f"copy onto an identical file: {big}; rsync -ac", lambda g, p: seeded_copy(g, BIG, p)))


def furnish(ground, what):
    if what == "tree":
        say(f"making {ground.options.files} files")
        ground.lab.exec(SOURCE, "python3", "-c", MAKE_TREE, TREE, str(ground.options.files), timeout_s=3600)
    else:
        ground.lab.sh(SOURCE, MAKE_BIG, BIG, str(ground.options.big << 30), timeout_s=3600)


def result(name, measured):
    ours, peer = median(measured["ours"]), median(measured["peer"]) if measured.get("peer") else None
    ratio = median(a / b for a, b in zip(measured["ours"], measured["peer"])) if peer else None
    limit = f"at most {measured['target']:.2f}" if peer else measured.get("note", "")
    return {"name": name, "ours_s": round(ours, 1), "rsync_s": peer and round(peer, 1),
            "ratio": ratio and round(ratio, 2), "limit": limit, "pairs": len(measured["ours"])}


def table(done):
    lines = ["| | Holdfast, s | rsync, s | ratio | limit | pairs |", "|---|---|---|---|---|---|"]
    lines += [f"| {row['name']} | {row['ours_s']} | {row['rsync_s'] or '-'} | {row['ratio'] or '-'} | {row['limit']} | "
              f"{row['pairs']} |" for row in done]
    return "\n".join(lines)


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1_000_000, metavar="N", help="small files (default 1,000,000)")
    parser.add_argument("--big", type=int, default=10, metavar="GIB", help="size of the big file (default 10)")
    parser.add_argument("--pairs", type=int, default=1, metavar="N", help="rounds of each row (default 1)")
    lab_bench.add_options(parser)
    return parser.parse_args()


def main():
    options = parse()
    record = lab_bench.Record("copies", HERE / "copies.json", HERE.parent / "docs/BENCHMARKS.md", table)

    def measure(lab):
        ground, furnished, done = Ground(lab, options), set(), []
        for what, name, measure_row in rows(options):
            if not re.search(options.rows, name):
                continue
            if what not in furnished:
                furnish(ground, what)
                furnished.add(what)
            done.append(result(name, measure_row(ground, options.pairs)))
            record.add(done[-1])
        print(table(done))
    return lab_bench.run("copies", options, lambda lab: Ground(lab, options).set_up(), measure)


if __name__ == "__main__":
    sys.exit(main())
