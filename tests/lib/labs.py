# SPDX-License-Identifier: Apache-2.0
"""A lab as an object. Everything goes through the command lab/lab, as it would by hand."""

import json
import os
import subprocess
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
COMMAND = str(CHECKOUT / "lab/lab")

PUBLIC_ADDRESS = "192.0.2.10"
CHANNEL = {"n1": "10.0.0.1", "n2": "10.0.0.2", "n3": "10.0.0.3", "w1": "10.0.0.20"}


class LabFailure(AssertionError):
    """A command of the lab, or in a machine, did not do what the test needs. Says which, and its last words."""


def wait_until(condition, what, timeout_s, evidence=lambda: "", pause_s=0.1):
    """Returns condition()'s first true value. A condition that raises LabFailure is not true yet.

    Most conditions ask a machine, which takes longer than the pause; it only keeps the rest from spinning.
    """
    deadline = time.monotonic() + timeout_s
    trouble = ""
    while True:
        try:
            if value := condition():
                return value
            trouble = ""
        except (LabFailure, subprocess.TimeoutExpired) as failure:
            trouble = f"\nlast trouble: {failure}"
        if time.monotonic() >= deadline:
            raise LabFailure(f"not within {timeout_s:g} s: {what}{trouble}\n{evidence()}".rstrip())
        time.sleep(min(pause_s, max(0.0, deadline - time.monotonic())))


class Lab:
    """One lab, by name. Use it as a context manager, so that it is taken down whatever happens."""

    def __init__(self, name, say=lambda text: None):
        self.name, self.say = name, say

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.down()

    def _environment(self):
        return {**os.environ, "LAB": self.name}

    def run(self, *argv, timeout_s=120, data=None, check=True):
        """One lab command; text in and out."""
        done = subprocess.run([COMMAND, *argv], text=True, capture_output=True, timeout=timeout_s, check=False,
                              env=self._environment(), **({"input": data} if data is not None
                                                          else {"stdin": subprocess.DEVNULL}))
        if check and done.returncode != 0:
            words = (done.stderr.strip() or done.stdout.strip() or "no message")[-2000:]
            raise LabFailure(f"'{' '.join(argv)[:300]}' failed with {done.returncode}: {words}")
        return done

    def run_shown(self, *argv, timeout_s):
        """One lab command whose messages the user sees as they come."""
        done = subprocess.run([COMMAND, *argv], stdin=subprocess.DEVNULL, timeout=timeout_s, check=False,
                              env=self._environment())
        if done.returncode != 0:
            raise LabFailure(f"'lab/lab {' '.join(argv)}' failed with {done.returncode} (its message is above)")

    def up(self, *options, timeout_s=900):
        self.run_shown("up", *options, timeout_s=timeout_s)

    def down(self):
        self.run("down", timeout_s=180)

    def exec(self, machine, *argv, timeout_s=60, data=None, check=True):
        """A command in a machine; the result has stdout and stderr as text."""
        return self.run("exec", machine, "--", *argv, timeout_s=timeout_s, data=data, check=check)

    def sh(self, machine, script, *args, timeout_s=60, check=True):
        """A shell script in a machine; returns what it printed."""
        return self.exec(machine, "sh", "-euc", script, "sh", *args, timeout_s=timeout_s, check=check).stdout

    def popen(self, machine, *argv, **options):
        """A command in a machine that goes on; it dies with this process, but not of the Ctrl-C meant for this one."""
        return subprocess.Popen([COMMAND, "exec", machine, "--", *argv], env=self._environment(), text=True,
                                start_new_session=True, **options)

    def put(self, machine, path, text):
        self.exec(machine, "sh", "-euc", 'mkdir -p "$(dirname "$1")" && cat > "$1"', "sh", path, data=text)

    def picture(self):
        """The machines and the cuts between them."""
        return json.loads(self.run("status", "--json").stdout)

    def machines(self):
        return self.picture()["machines"]

    def is_on(self, machine):
        return self.machines()[machine]["power"] == "on"

    def power_cut(self, machine):
        """Returns the moment of the cut on the monotonic clock, which all machines and this process share."""
        wall_minus_monotonic_ns = time.time_ns() - time.monotonic_ns()
        cut = json.loads(self.run("powercut", machine, "--json").stdout)
        return (cut["cut_unix_ns"] - wall_minus_monotonic_ns) / 1e9

    def boot(self, machine):
        self.run("boot", machine, timeout_s=180)

    def cut(self, one, other, net=None, *more):
        self.run("cut", one, other, *(["--net", net] if net else []), *more)

    def heal(self, one, other, net=None):
        self.run("heal", one, other, *(["--net", net] if net else []))

    def heal_all(self):
        for one, other, net in self.picture()["cuts"]:
            self.run("heal", one, other, "--net", net)

    def freeze(self, machine):
        self.run("freeze", machine)

    def thaw(self, machine):
        self.run("thaw", machine)
