# SPDX-License-Identifier: Apache-2.0
"""The undo history as an administrator sees it: on or not, its points, the clock they are told by."""

import datetime
import json


def told(cluster, node, *argv, **options):
    return json.loads(cluster.cli(node, *argv, "--json", **options).stdout)


def of(cluster, node):
    return told(cluster, cluster.active(), "timeline", "--node", node, "--points", "5")["nodes"][0]


def need(cluster):
    """Every passive can go back, and so can the active once it has been one. Returns (active, passive)."""
    active, passive = cluster.wait_automatic_failover()
    cluster.wait(lambda: of(cluster, passive)["state"] == "on", f"{passive} keeps an undo history", 30)
    return active, passive


def clock_s(lab, node):
    """Of the node, in seconds since 1970."""
    return float(lab.exec(node, "date", "+%s.%N").stdout)


def iso(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def wait_past(cluster, node, moment_s):
    """Whole seconds are points: what is done next lies in a later one, and the passive has applied the earlier one."""
    passive = cluster.other(node)
    cluster.wait(lambda: clock_s(cluster.lab, node) > moment_s + 2, "two seconds have passed", 10)

    def has_come():
        newest = [span["to"] for span in of(cluster, passive)["spans"]]
        return newest and newest[0] >= iso(moment_s)[:23]
    cluster.wait(has_come, f"{passive} has a point after {iso(moment_s)}", 20)
