# SPDX-License-Identifier: Apache-2.0
"""Ledger clients on c1: start, watch, judge."""

import contextlib
import json
import subprocess
import threading
import time

import ledger_client
from labs import CHECKOUT, PUBLIC_ADDRESS, LabFailure

PROGRAM = "/opt/holdfast-tests/ledger_client.py"
LEDGERS = "/var/lib/ledgers"
CLIENT = "c1"


def deploy(lab):
    lab.put(CLIENT, PROGRAM, (CHECKOUT / "tests/lib/ledger_client.py").read_text())
    lab.exec(CLIENT, "mkdir", "-p", LEDGERS)


def set_up_tables(lab, patience_s=30):
    lab.exec(CLIENT, "python3", PROGRAM, "setup", "--host", PUBLIC_ADDRESS, "--patience", str(patience_s),
             timeout_s=patience_s + 30)


class Clients:
    """Clients at work. Everything they say is read by a thread of its own; waits are on what they said."""

    def __init__(self, lab, run, clients=8, on_progress=lambda progress: None):
        self.lab, self.run = lab, run
        self.file = f"{LEDGERS}/{run}.ledger"
        self.latest, self.moves, self.ended = {}, [], False
        self.on_progress = on_progress
        self._news = threading.Condition()
        self._process = lab.popen(CLIENT, "python3", PROGRAM, "run", "--host", PUBLIC_ADDRESS, "--run", run,
                                  "--ledger", self.file, "--clients", str(clients),
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.stop()
        else:                       # something else is wrong already: don't hide it
            self._process.kill()
            self._process.wait()

    def _read(self):
        for line in self._process.stdout:
            said = json.loads(line)
            with self._news:
                if said["event"] == "hello" and not abs(said["t"] - time.monotonic()) < 5:
                    self.latest = {"error": "the machine's monotonic clock is not the host's: times can't be compared"}
                if said["event"] == "progress":
                    self.latest = said
                elif said["event"] == "server":
                    self.moves.append(said)
                self._news.notify_all()
            if said["event"] == "progress":
                self.on_progress(said)
        with self._news:
            self.ended = True
            self._news.notify_all()

    def _trouble(self):
        return f"the clients last said: {self.latest}"

    def wait_for(self, condition, what, timeout_s):
        """Waits until condition(self) holds after something was said."""
        with self._news:
            met = self._news.wait_for(lambda: self.ended or condition(self), timeout_s)
            if not met or not condition(self):
                raise LabFailure(f"not within {timeout_s:g} s: {what}; {self._trouble()}")

    def wait_commits(self, more, timeout_s=30):
        """Waits for that many further commits."""
        target = self.latest.get("commits", 0) + more
        self.wait_for(lambda me: me.latest.get("commits", 0) >= target, f"{more} more commits", timeout_s)

    def wait_served_by(self, node, timeout_s=30):
        self.wait_for(lambda me: me.latest.get("server", "-").split("@")[0] == node and me.latest["quiet_s"] < 0.5,
                      f"commits on {node}", timeout_s)

    def wait_seconds(self, seconds):
        """Lets them work for a while."""
        end = time.monotonic() + seconds
        self.wait_for(lambda me: me.latest.get("t", 0) >= end, f"a word from the clients for {seconds} s", seconds + 10)

    def stop(self):
        """Lets the transactions in flight end. The ledger is complete when this returns."""
        if self._process.poll() is None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise LabFailure(f"the ledger clients do not end; {self._trouble()}") from None
        self._reader.join(10)
        if self._process.returncode != 0:
            raise LabFailure(f"the ledger clients failed with {self._process.returncode}: "
                             f"{self._process.stderr.read()}")

    def entries(self):
        return ledger_client.parse_ledger(self.lab.exec(CLIENT, "cat", self.file).stdout)

    def verdict(self, patience_s=30):
        """The ledger against the database, through the public address, now."""
        done = self.lab.exec(CLIENT, "python3", PROGRAM, "verify", "--host", PUBLIC_ADDRESS, "--run", self.run,
                             "--ledger", self.file, "--patience", str(patience_s), timeout_s=patience_s + 60)
        return json.loads(done.stdout)


def commits(entries):
    return sorted((entry for entry in entries if entry.outcome == "ok"), key=lambda entry: entry.end_ns)


def switchover_gap_s(entries, old, new):
    """Last commit on the old node to first commit on the new one, in the last change from old to new."""
    done = commits(entries)
    for index in range(len(done) - 1, 0, -1):
        before, after = done[index - 1].server.split("@")[0], done[index].server.split("@")[0]
        if (before, after) == (old, new):
            return (done[index].end_ns - done[index - 1].end_ns) / 1e9
    raise LabFailure(f"the ledger shows no change from {old} to {new}")


def outage_after_s(entries, moment_s):
    """From a moment to the first commit on another server than the one that served until then."""
    done = commits(entries)
    before = [entry for entry in done if entry.end_ns / 1e9 <= moment_s]
    if not before:
        raise LabFailure("no commit before that moment")
    old = before[-1].server
    later = [entry.end_ns / 1e9 for entry in done[len(before):] if entry.server != old]
    if not later:
        raise LabFailure(f"no commit on another server than {old}")
    return later[0] - moment_s


def longest_gap_s(entries, since_s=0.0):
    """The longest time without a commit by anyone."""
    ends = [entry.end_ns / 1e9 for entry in commits(entries) if entry.end_ns / 1e9 >= since_s]
    if len(ends) < 2:
        raise LabFailure("fewer than two commits")
    return max(after - before for before, after in zip(ends, ends[1:]))
