# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share that measure one thing after the other in a lab of their own (copies.py, recovery.py)."""

import json
import os
import sys

from labs import Lab, LabFailure


def add_options(parser):
    parser.add_argument("--rows", default="", metavar="REGEX", help="only rows that match")
    parser.add_argument("--lab", help="a lab left by an earlier --keep")
    parser.add_argument("--keep", action="store_true", help="leave the lab up at the end")


class Record:
    """Rows by name: as JSON beside the benchmarks, and as a table between two marks of a document."""

    def __init__(self, what, results, document, table):
        self.results, self.document, self.table = results, document, table
        self.begin, self.end = f"<!-- {what}: written by ./dev bench {what} -->", f"<!-- end of {what} -->"
        self.rows = {row["name"]: row for row in json.loads(results.read_text())} if results.exists() else {}

    def add(self, row):
        self.rows[row["name"]] = row
        rows = list(self.rows.values())
        self.results.write_text(json.dumps(rows, indent=1) + "\n")
        before, rest = self.document.read_text().split(self.begin, 1)
        after = rest.split(self.end, 1)[1]
        self.document.write_text(f"{before}{self.begin}\n{self.table(rows)}\n{self.end}{after}")


def run(what, options, set_up, measure):
    """`set_up(lab)` in a fresh lab, then `measure(lab)`; the lab is gone afterwards unless it shall stay. The exit status."""
    if os.geteuid() != 0:
        sys.exit(f"{what}: the lab boots machines and needs root: sudo ./dev bench {what}")
    lab = Lab(options.lab or f"{what}-{os.getpid()}")
    try:
        if not options.lab:
            set_up(lab)
        measure(lab)
    except LabFailure as failure:
        print(f"{what}: FAILED: {failure}", file=sys.stderr, flush=True)
        return 1
    finally:
        if not options.lab and not options.keep:
            lab.down()
    return 0
