# SPDX-License-Identifier: Apache-2.0
"""One machine: boot it, run commands in it, freeze it, cut its power."""

import os
import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path

from . import cgroups, disks, network
from .errors import LabError
from .settings import CHECKOUT

BOOT_TIMEOUT_S = 120
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
               "USER": "root", "LOGNAME": "root", "LANG": "C.UTF-8"}


class Boot:
    """A machine that is booting: started by the constructor, awaited together with others by `wait_all`."""

    def __init__(self, places, name):
        self.places, self.name, self.ready = places, name, False
        places.machine(name).mkdir(parents=True, exist_ok=True)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = places.machine(name) / "notify"
        address.unlink(missing_ok=True)
        self.notify.bind(str(address))
        network.unplug(places, name)            # what is left of a machine that switched itself off
        network.plug_in(places, name)
        group = places.cgroup(name)
        cgroups.create(group)
        with open(console(places, name), "ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private",
                 "/usr/bin/python3", "-m", "holdfast_lab.cradle", places.lab, name],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
                preexec_fn=lambda: cgroups.join(group),
                env={**os.environ, "PYTHONPATH": str(CHECKOUT / "lab"), "PYTHONDONTWRITEBYTECODE": "1"})
        self.end = os.pidfd_open(self.process.pid)

    def on_event(self, source):
        if source is self.notify:
            self.ready = self.ready or b"READY=1" in self.notify.recv(4096).splitlines()
        else:
            tail = console(self.places, self.name).read_text(errors="replace").strip().splitlines()
            raise LabError(f"{self.name} does not boot; the end of its console:\n" + "\n".join(tail[-8:]))

    def close(self):
        self.notify.close()
        os.close(self.end)


def wait_all(boots):
    """Returns when systemd in each of the machines has reported that it has finished to start."""
    deadline = time.monotonic() + BOOT_TIMEOUT_S
    try:
        with selectors.DefaultSelector() as selector:
            for boot in boots:
                selector.register(boot.notify, selectors.EVENT_READ, boot)
                selector.register(boot.end, selectors.EVENT_READ, boot)
            while waiting := [boot.name for boot in boots if not boot.ready]:
                events = selector.select(deadline - time.monotonic())
                if not events:
                    raise LabError(f"{', '.join(waiting)} did not finish booting in {BOOT_TIMEOUT_S} s: see "
                                   f"{console(boots[0].places, waiting[0])} or "
                                   f"'lab/lab exec {waiting[0]} -- systemctl list-jobs'")
                for key, _ in events:
                    key.data.on_event(key.fileobj)
    finally:
        for boot in boots:
            boot.close()


def console(places, name):
    return places.machine(name) / "console.log"


def supervisor(places, name):
    """The host's pid of the machine's nspawn, or None. It lives in the machine's outer mount namespace."""
    return next((pid for pid, nesting in _processes(places, name) if len(nesting) == 1 and _is_nspawn(pid)), None)


def init(places, name):
    """The host's pid of the machine's init, or None: the machine is off, or has not got that far."""
    return next((pid for pid, nesting in _processes(places, name) if len(nesting) == 2 and nesting[1] == "1"), None)


def _processes(places, name):
    """All processes of the machine with their pids in each nested pid namespace."""
    for pid in sorted(cgroups.processes(places.cgroup(name))):
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        yield pid, next(line.split()[1:] for line in lines if line.startswith("NSpid:"))


def _is_nspawn(pid):
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "systemd-nspawn"
    except (FileNotFoundError, ProcessLookupError):
        return False


def power(places, name):
    """on, frozen, booting or off."""
    if init(places, name):
        return "frozen" if cgroups.is_frozen(places.cgroup(name)) else "on"
    return "booting" if cgroups.processes(places.cgroup(name)) else "off"


def require(places, name, *wanted):
    found = power(places, name)
    if found not in wanted:
        hint = {"off": "boot", "frozen": "thaw", "on": "powercut", "booting": "powercut"}[found]
        raise LabError(f"{name} is {found}: first 'lab/lab {hint} {name}'")


def execute(places, name, argv):
    """Becomes the command, run in the machine: exit status, signals and the standard streams are the command's own."""
    require(places, name, "on")
    pid = init(places, name)
    variables = [f"{key}={value}" for key, value in ENVIRONMENT.items()]
    variables += [f"TERM={os.environ['TERM']}"] if "TERM" in os.environ else []
    cgroups.join_like(pid)      # frozen with the machine, and found by the power cut
    sys.stdout.flush()
    # setpriv: when the caller is killed, say by a test's timeout, the command does not stay behind in the machine.
    os.execvp("nsenter", ["nsenter", f"--target={pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup",
                          "--wd=/proc/self/cwd", "--", "setpriv", "--pdeathsig", "KILL", "env", "-i", "-C", "/root",
                          *variables, *argv])


def capture(places, name, argv, *, stdin="", timeout_s=60):
    """Runs a command in the machine and returns its result with stdout and stderr as text."""
    return subprocess.run([str(CHECKOUT / "lab/lab"), "exec", name, "--", *argv], input=stdin, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout_s, check=False,
                          env={**os.environ, "LAB": places.lab})


def freeze(places, name):
    require(places, name, "on", "frozen")
    cgroups.freeze(places.cgroup(name), True)


def thaw(places, name):
    require(places, name, "on", "frozen")
    cgroups.freeze(places.cgroup(name), False)


def cut_power(places, name):
    """Returns the time of the cut and of the disk's end, in ns of Unix time."""
    require(places, name, "on", "frozen", "booting")
    pid = supervisor(places, name)
    cut_at = time.time_ns()
    network.pull_plug(places, name)     # first: dying processes must not say goodbye to their peers
    if pid:
        disks.cut_power(f"/proc/{pid}/root{places.machine(name)}/disk")
    disk_at = time.time_ns()
    switch_off(places, name)
    return cut_at, disk_at


def switch_off(places, name):
    """Ends all that is left of a machine, except its disk."""
    cgroups.kill_and_wait(places.cgroup(name))
    cgroups.remove(places.cgroup(name))
    disks.wait_detached(places.disk(name))
    network.unplug(places, name)
