# SPDX-License-Identifier: Apache-2.0
"""From measurements to results.json and the table of docs/BENCHMARKS.md."""

import json
from statistics import median

BEGIN, END = "<!-- results: written by ./dev bench -->", "<!-- end of results -->"
OURS = ("async", "fsync", "alone", "floor")


def result(name, unit, measured):
    """measured: {variant: [value of each round]}; more is better in every row. A ratio is the median of rounds' own."""
    native = measured.get("native", [])

    def ratio(variant):
        values = measured.get(variant)
        return round(median(ours / base for ours, base in zip(values, native)), 3) if values and native else None

    def middle(variant):
        return round(median(measured[variant]), 1) if measured.get(variant) else None
    peers = {variant: middle(variant) for variant in measured if variant not in ("native", *OURS)}
    return {"name": name, "unit": unit, "native": middle("native"), **{variant: middle(variant) for variant in OURS},
            "peers": peers, **{f"ratio_{variant}": ratio(variant) for variant in OURS},
            "pairs": max((len(values) for values in measured.values()), default=0)}


def cost(name, measured):
    """measured: {variant: [[on the node, on its peer] of each round]}; less is better."""
    middle = {variant: [round(median(side), 2) for side in zip(*values)] for variant, values in measured.items()}
    return {"name": name, "cost": middle, "pairs": max((len(values) for values in measured.values()), default=0)}


def merge(old, new):
    """Rows that were not measured this time stay."""
    fresh = {row["name"]: row for row in new}
    kept = [fresh.pop(row["name"], row) for row in old]
    return kept + list(fresh.values())


def number(value):
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def cell(row, variant):
    ratio = row.get(f"ratio_{variant}")
    if row.get(variant) is None:
        return ""
    return number(row[variant]) + (f" ({ratio:.2f})" if ratio is not None else "")


def table(rows):
    lines = ["| | unit | native | async (ratio) | fsync (ratio) | async, peer stopped (ratio) | floor (ratio) | "
             "PostgreSQL's own: async / sync | pairs |", "|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        if "cost" in row:
            continue
        peers = row["peers"]
        own = " / ".join(number(peers.get(f"pg-streaming-{kind}")) for kind in ("async", "sync")) if peers else ""
        lines.append(f"| {row['name']} | {row['unit']} | {number(row['native'])} | {cell(row, 'async')} | "
                     f"{cell(row, 'fsync')} | {cell(row, 'alone')} | {cell(row, 'floor')} | {own} | {row['pairs']} |")
    return "\n".join(lines + costs(rows))


def costs(rows):
    lines = ["", "| less is better | async: active + passive | fsync | floor | rounds |", "|---|---|---|---|---|"]
    for row in rows:
        if "cost" in row:
            both = [" + ".join(number(side) for side in row["cost"].get(variant, [])) for variant in ("async", "fsync")]
            floor = number(row["cost"]["floor"][0]) if "floor" in row["cost"] else ""
            lines.append(f"| {row['name']} | {both[0]} | {both[1]} | {floor} | {row['pairs']} |")
    return lines if len(lines) > 3 else []


def hops(rows):
    """What one write and its fdatasync cost on their way, from the row with one job."""
    row = next((row for row in rows if row["name"] == "8 KiB random write + fdatasync, 1 job"), None)
    if row is None or not all(row[variant] for variant in ("native", "floor", "async", "fsync")):
        return ""
    native, floor, local, remote = (1e6 / row[variant] for variant in ("native", "floor", "async", "fsync"))
    return (f"\nThe fsync path, from the row of one job: a write and its fdatasync take {native:.0f} us natively. The "
            f"three round trips through the kernel's FUSE queue add {floor - native:+.0f} us (floor), capture and log "
            f"{local - floor:+.0f} us (async), and the wait for the passive's disk beside our own "
            f"{remote - local:+.0f} us (fsync).\n")


def write(rows, results, document):
    results.write_text(json.dumps(rows, indent=1) + "\n")
    text = document.read_text() if document.exists() else f"# Benchmarks\n\n{BEGIN}\n{END}\n"
    if BEGIN not in text:
        text += f"\n{BEGIN}\n{END}\n"
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1] if END in rest else "\n"
    document.write_text(f"{before}{BEGIN}\n{table(rows)}\n{hops(rows)}{END}{after}")
