#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What protection costs, side by side: native, protected, a do-nothing mount, PostgreSQL's own replication."""

import argparse
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections import namedtuple
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests/lib")]

import report  # noqa: E402
import workloads  # noqa: E402
from labs import Lab, LabFailure  # noqa: E402
from variants import METADATA_FILES, Machines, drop_caches  # noqa: E402

RESULTS = HERE / "results.json"
DOCUMENT = HERE.parent / "docs/BENCHMARKS.md"

FILES = ("native", "async", "fsync", "floor")
WITH_ALONE = FILES + ("alone",)  # where the peer's share of the common CPUs and disk is worth telling
DATABASES = WITH_ALONE + ("pg-streaming-async", "pg-streaming-sync")
# Longer than the kernel's 30 s would be better still: what a short run leaves in the page cache, native never has to write within it.
PGBENCH_S, FIO_S = 15, 5

Row = namedtuple("Row", "name unit variants measure packages", defaults=[""])


def database_row(clients):
    return Row(f"pgbench TPC-B, {clients} client{'s' if clients > 1 else ''}", "tps", DATABASES,
               lambda machines, variant: machines.pgbench(variant, clients, PGBENCH_S))


def file_row(name, unit, *options):
    field = "bw_bytes" if unit == "MB/s" else "iops"
    return Row(name, unit, WITH_ALONE if "--fdatasync=1" in options else FILES, lambda machines, variant: machines.fio(variant, options, field, FIO_S))


def read_row(name, seconds, *options):
    """seconds: None: each byte once, from no cache."""
    return Row(name, "MB/s", FILES,
               lambda machines, variant: machines.fio_read(variant, options, "bw_bytes", seconds))


def tree_row(name, what, cold=False):
    return Row(name, "files/s", FILES if cold else WITH_ALONE,
               lambda machines, variant: machines.work.tree(variant, what, drop_caches if cold else None),
               workloads.PACKAGES["tree"])


ROWS = (
    database_row(1),
    database_row(8),
    file_row("4 KiB sequential writes", "MB/s", "--rw=write", "--bs=4k", "--size=512m"),
    file_row("8 KiB random writes", "MB/s", "--rw=randwrite", "--bs=8k", "--size=512m"),
    file_row("8 KiB random writes, 4 jobs", "MB/s", "--rw=randwrite", "--bs=8k", "--size=128m", "--numjobs=4"),
    # Over what is there already, as databases do with their logs: a growing file costs a journal commit more, and whoever is slow grows
    # for the whole run.
    file_row("8 KiB random write + fdatasync, 1 job", "IOPS", "--rw=randwrite", "--overwrite=1", "--bs=8k", "--size=64m",
             "--fdatasync=1"),
    file_row("8 KiB random write + fdatasync, 8 jobs", "IOPS", "--rw=randwrite", "--overwrite=1", "--bs=8k", "--size=16m",
             "--fdatasync=1", "--numjobs=8"),
    file_row("1 MiB sequential writes", "MB/s", "--rw=write", "--bs=1m", "--size=512m"),
    file_row("4 KiB sequential writes, 4 jobs", "MB/s", "--rw=write", "--bs=4k", "--size=128m", "--numjobs=4"),
    file_row("1 MiB sequential writes, 4 jobs", "MB/s", "--rw=write", "--bs=1m", "--size=128m", "--numjobs=4"),
    read_row("1 MiB sequential reads, cold", None, "--rw=read", "--bs=1m", "--size=1g"),
    read_row("1 MiB sequential reads, warm", FIO_S, "--rw=read", "--bs=1m", "--size=512m"),
    read_row("8 KiB random reads, cold", None, "--rw=randread", "--bs=8k", "--size=128m"),
    read_row("8 KiB random reads, warm", FIO_S, "--rw=randread", "--bs=8k", "--size=512m"),
    tree_row("unpack a tree of 10,000 files", "unpack"),
    tree_row("find, warm", "find"),
    tree_row("find, cold", "find", cold=True),
    tree_row("grep -r, warm", "grep"),
    tree_row("grep -r, cold", "grep", cold=True),
    tree_row("git clone", "clone"),
    tree_row("git status", "status"),
    tree_row("rm -rf", "rm"),
    Row("MariaDB, sysbench oltp_read_write, 8 threads", "tps", FILES,
        lambda machines, variant: machines.work.mariadb(variant, PGBENCH_S), workloads.PACKAGES["mariadb"]),
    Row("Redis, SET of 512 bytes, AOF each second", "1/s", FILES,
        lambda machines, variant: machines.work.redis(variant, 200_000), workloads.PACKAGES["redis"]),
    Row("SQLite, WAL, inserts each of its own", "1/s", FILES,
        lambda machines, variant: machines.work.sqlite(variant, FIO_S)),
)

# CPU time of the mirrors themselves, here and on the peer; less is better.
COSTS = (
    ("CPU seconds for each GiB written", lambda machines, variant: machines.cost(variant, machines.write_gib, 1)),
    ("CPU seconds for a million operations on names and attributes",
     lambda machines, variant: machines.cost(variant, machines.metadata, 4 * METADATA_FILES / 1e6)),
)


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def measure(machines, row, pairs):
    """{variant: [value of each round]}. Each round starts with another variant, so that none is always the first."""
    variants = [variant for variant in row.variants if variant in machines.variants]
    measured = {variant: [] for variant in variants}
    for turn in range(pairs):
        for index in range(len(variants)):
            variant = variants[(index + turn) % len(variants)]
            machines.select(variant)
            value = row.measure(machines, variant)
            measured[variant].append(value)
            say(f"{row.name}, round {turn + 1} of {pairs}: {variant} {value:.1f} {row.unit}")
    return measured


def run(options, machines):
    rows = [row for row in ROWS if re.search(options.rows, row.name)]
    done = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    for row in rows:
        done = report.merge(done, [report.result(row.name, row.unit, measure(machines, row, options.pairs))])
        report.write(done, RESULTS, DOCUMENT)
    for name, measure_cost in [cost for cost in COSTS if re.search(options.rows, cost[0])]:
        measured = {variant: [] for variant in FILES[1:] if variant in machines.variants}
        for _ in range(options.pairs):
            for variant, values in measured.items():
                machines.select(variant)
                values.append(measure_cost(machines, variant))
                say(f"{name}: {variant} {values[-1][0]:.1f}, on the peer {values[-1][1]:.1f}")
        done = report.merge(done, [report.cost(name, measured)])
        report.write(done, RESULTS, DOCUMENT)
    names = {row.name for row in rows} | {name for name, _ in COSTS if re.search(options.rows, name)}
    return [row for row in done if row["name"] in names]


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="", metavar="REGEX", help="only rows whose name matches")
    parser.add_argument("--pairs", type=int, default=5, metavar="N", help="rounds of each row (default 5)")
    parser.add_argument("--variants", default=",".join(DATABASES), help="comma-separated; native is always measured")
    parser.add_argument("--lab", help="a lab left by an earlier --keep")
    parser.add_argument("--keep", action="store_true", help="leave the lab up at the end")
    parser.add_argument("--list", action="store_true", help="list the rows")
    options = parser.parse_args()
    options.variants = ["native"] + [name for name in options.variants.split(",") if name not in ("", "native")]
    if unknown := set(options.variants) - set(DATABASES):
        parser.error(f"unknown variants: {', '.join(sorted(unknown))}")
    if options.pairs < 1 or not any(re.search(options.rows, name) for name in [row.name for row in ROWS] + [name for name, _ in COSTS]):
        parser.error("nothing to measure: see --list")
    return options


def interrupt(*_):
    raise KeyboardInterrupt


def main():
    options = parse()
    if options.list:
        print("\n".join([row.name for row in ROWS] + [name for name, _ in COSTS]))
        return 0
    if os.geteuid() != 0:
        sys.exit("bench: the lab boots machines and needs root: sudo ./dev bench")
    signal.signal(signal.SIGTERM, interrupt)
    started = time.monotonic()
    lab = Lab(options.lab or f"bench-{os.getpid()}")
    machines = Machines(lab, options.variants, {package for row in ROWS if re.search(options.rows, row.name)
                                                for package in row.packages.split()})
    try:
        if not options.lab:
            machines.set_up(say)
        print(report.table(run(options, machines)))
    except LabFailure as failure:
        say(f"FAILED: {failure}")
        directory = tempfile.mkdtemp(prefix="holdfast-bench-")
        machines.cluster.collect_journals(directory)
        say(f"journals and status of each machine are in {directory}")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if not options.lab and not options.keep:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            lab.down()
        else:
            machines.thaw_peer()
    say(f"done in {(time.monotonic() - started) / 60:.0f} minutes; {RESULTS.relative_to(HERE.parent)} and "
        f"{DOCUMENT.relative_to(HERE.parent)} are written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
