# SPDX-License-Identifier: Apache-2.0
"""The product as an administrator sees it: commands, status, waits that fail with evidence, journals."""

import json
import re
import subprocess
from pathlib import Path

from labs import LabFailure, wait_until

UNITS = ("holdfastd.service", "holdfast-mirror.service", "holdfast-witness.service", "postgresql@15-main.service")


class Cluster:
    """A pair in a lab. Nothing is remembered between calls: a node may have died since."""

    def __init__(self, lab, nodes=("n1", "n2")):
        self.lab, self.nodes = lab, nodes

    def cli(self, node, *argv, timeout_s=60, check=True, data=None):
        return self.lab.exec(node, "holdfast", *argv, timeout_s=timeout_s, check=check, data=data)

    def status_of(self, node, timeout_s=10):
        """What this node says, or LabFailure."""
        text = self.cli(node, "status", "--json", timeout_s=timeout_s).stdout
        try:
            return json.loads(text)
        except ValueError:
            raise LabFailure(f"{node}: 'holdfast status --json' is no JSON: {text[:500]!r}") from None

    def status(self):
        """The status as the first node says that answers, nodes that know of an active first."""
        answer, trouble = None, []
        for node in self.nodes:
            try:
                found = self.status_of(node)
                if self.active_in(found):
                    return found
                answer = answer or found
            except (LabFailure, subprocess.TimeoutExpired) as failure:
                trouble.append(str(failure))
        if answer is None:
            raise LabFailure("no node answers 'holdfast status': " + "; ".join(trouble))
        return answer

    def evidence(self):
        """What to show when a wait fails."""
        lines = []
        for node in self.nodes:
            try:
                done = self.cli(node, "status", timeout_s=10, check=False)
                lines.append(f"--- {node}# holdfast status\n{done.stdout}{done.stderr}".rstrip())
            except (LabFailure, subprocess.TimeoutExpired) as failure:
                lines.append(f"--- {node}: {failure}")
        return "\n".join(lines)

    def wait(self, condition, what, timeout_s):
        return wait_until(condition, what, timeout_s, self.evidence)

    @staticmethod
    def active_in(status):
        return next((node["name"] for node in status.get("nodes", []) if node.get("role") == "active"), None)

    @staticmethod
    def node_in(status, name):
        for node in status.get("nodes", []):
            if node["name"] == name:
                return node
        raise LabFailure(f"the status knows no node {name}: {status.get('nodes')}")

    def active(self):
        name = self.active_in(self.status())
        if name is None:
            raise LabFailure(f"no node is active\n{self.evidence()}")
        return name

    def other(self, name):
        return next(node for node in self.nodes if node != name)

    def passive(self):
        return self.other(self.active())

    def wait_active(self, name, timeout_s=20):
        self.wait(lambda: self.active_in(self.status_of(name)) == name, f"{name} is active and says so", timeout_s)

    def wait_synchronized(self, timeout_s=90):
        """Both nodes are there, one is active, the other synchronized, no plan runs and the application is healthy.
        Returns (active, passive)."""
        def synchronized():
            status = self.status()
            active = self.active_in(status)
            if not active or status.get("plan") or len(status["nodes"]) != len(self.nodes):
                return None
            if any(node["synchronized"] is not True for node in status["nodes"] if node["name"] != active):
                return None
            if any(application["state"] != "running" for application in status.get("applications", [])):
                return None
            return active, self.other(active)
        return self.wait(synchronized, "one node active, the other synchronized, the application running", timeout_s)

    def wait_automatic_failover(self, timeout_s=60):
        """The state in which losing the active may be tried: synchronized, and automatic failover says available."""
        nodes = self.wait_synchronized(timeout_s)
        self.wait(lambda: self.status()["automatic_failover"]["available"], "automatic failover is available",
                  timeout_s)
        return nodes

    def recovery_point_s(self, passive):
        return self.node_in(self.status(), passive)["recovery_point_s"]

    def config_version(self, node=None):
        return json.loads(self.cli(node or self.active(), "config", "show", "--json").stdout)["version"]

    def set_mode(self, mode):
        """async or fsync, live."""
        self.cli(self.active(), "config", "set", "mode", mode)
        self.wait(lambda: self.status()["cluster"]["mode"] == mode, f"the cluster's mode is {mode}", 20)

    def make_active(self, name, timeout_s=60):
        self.cli(self.active(), "make-active", name, timeout_s=timeout_s)

    def events_of(self, node):
        """What the node tells of itself and the others, oldest first."""
        page = json.loads(self.cli(node, "events", "--json").stdout)
        return sorted(page["events"] if isinstance(page, dict) else page, key=lambda event: event["time"])

    def journal_cursor(self, machine):
        return self.lab.sh(machine, "journalctl -q -n 0 --show-cursor | sed -n 's/^-- cursor: //p'").strip()

    def told_since(self, machine, unit, cursor, words):
        """What the unit logged since then with these words in it, without the ports, which differ between attempts."""
        lines = self.lab.sh(machine, 'journalctl -q -o cat --no-pager --after-cursor "$1" -u "$2" | grep -i -e "$3" || true',
                            cursor, unit, words).splitlines()
        return [re.sub(r"(\d\]?):\d{4,5}\b", r"\1", line) for line in lines]

    def collect_journals(self, directory):
        """What support would ask for, of every machine that is on. Returns the last lines, for people in a hurry."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        last = []
        for machine, each in self.lab.machines().items():
            if each["power"] != "on":
                last.append(f"{machine}: power is {each['power']}")
                continue
            if machine == "c1":
                continue
            units = [argument for unit in UNITS for argument in ("-u", unit)]
            for name, argv in {"journal": ["journalctl", "-o", "short-precise", "--no-pager", *units],
                               "status": ["holdfast", "status"], "status.json": ["holdfast", "status", "--json"],
                               "events": ["holdfast", "events"], "units": ["systemctl", "--failed", "--no-pager"],
                               "mounts": ["cat", "/proc/self/mountinfo"], "addresses": ["ip", "address"],
                               "nftables": ["nft", "list", "ruleset"]}.items():
                try:
                    done = self.lab.exec(machine, *argv, timeout_s=20, check=False)
                    (directory / f"{machine}.{name}").write_text(done.stdout + done.stderr)
                    if name == "journal":
                        last += [f"{machine}: {line}" for line in done.stdout.strip().splitlines()[-12:]]
                except subprocess.TimeoutExpired:
                    last.append(f"{machine}: {argv[0]} gave no answer in 20 s")
        return last
