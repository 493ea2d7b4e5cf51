# SPDX-License-Identifier: Apache-2.0
"""Carries faults out in a lab, several at a time, and heals everything."""

import contextlib
import struct
import subprocess
import threading
import time
import traceback

from labs import CHECKOUT, LabFailure

PLACE = "/opt/holdfast-tests"
DAEMONS = {"n": ("holdfastd", "holdfast-mirror"), "w": ("holdfast-witness",)}


def daemons(machine):
    return DAEMONS.get(machine[0], ())


def bend_clocks(lab, machine, library):
    """Before the daemons are in use: their wall clocks can be moved from now on."""
    lab.exec(machine, "sh", "-euc", f"mkdir -p {PLACE}; base64 -d > {PLACE}/clock_offset.so;"
             f"head -c 8 /dev/zero > {PLACE}/clock_offset", data=library)
    for unit in daemons(machine):
        lab.put(machine, f"/etc/systemd/system/{unit}.service.d/chaos.conf",
                f"[Service]\nEnvironment=LD_PRELOAD={PLACE}/clock_offset.so\n")
    # What has not joined yet ends again at once where it is a witness.
    lab.sh(machine, "systemctl daemon-reload; systemctl restart \"$@\" || true; sync -f /opt /etc", *daemons(machine))


def build_clock(directory):
    """The preloaded library, as text."""
    library = directory / "clock_offset.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, CHECKOUT / "tests/chaos/clock_offset.c", "-ldl"], check=True)
    return subprocess.run(["base64", library], check=True, capture_output=True, text=True).stdout


def demand_bent_clocks(lab, machine):
    """The daemons that run have the library, and the file that moves their clocks."""
    for unit in daemons(machine):
        maps = lab.sh(machine, 'cat "/proc/$(systemctl show --property=MainPID --value "$1")/maps"', unit)
        if f"{PLACE}/clock_offset.so" not in maps or f"{PLACE}/clock_offset\n" not in maps:
            raise LabFailure(f"the clock of {unit} on {machine} can't be moved")


class Faults:
    """serving: who the clients say serves them, the best word there is of who is active while faults happen."""

    def __init__(self, lab, nodes, witness, serving, say):
        self.lab, self.nodes, self.serving, self.say = lab, nodes, serving, say
        self.machines = (*nodes, *(["w1"] if witness else []))
        self.cuts, self.cuts_lock = [], threading.Lock()
        self.done, self.broken = {}, []

    def play(self, faults):
        """Returns when all have ended."""
        threads = [threading.Thread(target=self._one, args=(fault,)) for fault in faults]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _one(self, fault):
        time.sleep(fault.at_s)
        who = self._who(fault.who)
        self.say(f"  {fault}" + (f" ({who})" if who != fault.who else ""))
        act = getattr(self, "_" + fault.kind.replace(" ", "_").replace("-", "_"))
        try:
            act(who, fault)
            self.done[fault.kind] = self.done.get(fault.kind, 0) + 1
        except (LabFailure, subprocess.TimeoutExpired) as failure:      # another fault was in its way
            self.say(f"  {fault.kind} of {who} came to nothing: {str(failure).splitlines()[0][:160]}")
        except Exception:       # a bug here: it must not pass for a fault that was tried
            self.broken.append(traceback.format_exc())

    def _who(self, word):
        if word not in ("active", "passive"):
            return word
        active = self.serving() if self.serving() in self.nodes else self.nodes[0]
        return active if word == "active" else next(node for node in self.nodes if node != active)

    def _others(self, who, words):
        others = [node for node in self.nodes if node != who]
        found = {"other nodes": others, "one node": others[:1]}
        return [other for word in words for other in found.get(word, [word]) if other != who]

    def _cut(self, who, fault):
        """What to give to cut and heal."""
        others, net, way = self._others(who, fault.detail["from"]), fault.detail["net"], fault.detail.get("way")
        if net == "channel":
            others = [other for other in others if other != "c1"]
        if way == "in":
            return [(other, who, net, ("--one-way",)) for other in others]
        return [(who, ",".join(others), net, ("--one-way",) if way else ())] if others else []

    def _begin(self, cuts):
        with self.cuts_lock:
            self.cuts += cuts
            for one, others, net, options in cuts:
                self.lab.cut(one, others, net, *options)

    def _end(self, cuts):
        """What another fault cuts as well stays cut."""
        with self.cuts_lock:
            for cut in cuts:
                if cut in self.cuts:
                    self.cuts.remove(cut)
            for one, others, net, _ in cuts:
                self.lab.heal(one, others, net)
            for one, others, net, options in self.cuts:
                self.lab.cut(one, others, net, *options)

    def _partition(self, who, fault):
        cuts = self._cut(who, fault)
        self._begin(cuts)
        time.sleep(fault.for_s)
        self._end(cuts)

    _one_way = _partition

    def _flap(self, who, fault):
        cuts, end_s = self._cut(who, fault), time.monotonic() + fault.for_s
        while time.monotonic() < end_s:
            self._begin(cuts)
            time.sleep(fault.detail["every_s"])
            self._end(cuts)
            time.sleep(fault.detail["every_s"])

    def _freeze(self, who, fault):
        self.lab.freeze(who)
        time.sleep(fault.for_s)
        self.lab.thaw(who)

    def _signal(self, who, signal, units):
        self.lab.sh(who, 'signal=$1 hit=; shift; for unit; do systemctl kill --signal="$signal" --kill-whom=main "$unit" && hit=1; done;'
                    ' [ -n "$hit" ]', signal, *units, timeout_s=20)

    def _stop(self, who, fault):
        self._signal(who, "STOP", fault.detail["units"])
        time.sleep(fault.for_s)
        with contextlib.suppress(LabFailure):       # it was killed meanwhile
            self._signal(who, "CONT", fault.detail["units"])

    def _kill(self, who, fault):
        end_s = time.monotonic() + fault.for_s
        while True:
            self._signal(who, "KILL", fault.detail["units"])
            if time.monotonic() + fault.detail["every_s"] >= end_s:
                return
            time.sleep(fault.detail["every_s"])

    def _power_cut(self, who, fault):
        self.lab.power_cut(who)
        time.sleep(fault.for_s)
        self.lab.boot(who)

    def _all_power(self, _, fault):
        machines = [each for each in self.machines if each != "w1" or fault.detail["w1"]]
        self._each(machines, self.lab.power_cut)
        time.sleep(fault.for_s)
        self._each(machines, self.lab.boot)

    @staticmethod
    def _each(machines, act):
        troubles = []

        def one(machine):
            try:
                act(machine)
            except (LabFailure, subprocess.TimeoutExpired) as failure:
                troubles.append(failure)
        threads = [threading.Thread(target=one, args=(machine,)) for machine in machines]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if troubles:
            raise troubles[0]

    def _set_clock(self, machine, jump_s):
        value = struct.pack("<q", int(jump_s * 1e9)).hex()
        self.lab.exec(machine, "python3", "-c", "import os, sys; os.pwrite(os.open(sys.argv[1], os.O_WRONLY),"
                      " bytes.fromhex(sys.argv[2]), 0)", f"{PLACE}/clock_offset", value, timeout_s=20)

    def _clock(self, who, fault):
        demand_bent_clocks(self.lab, who)
        self._set_clock(who, fault.detail["jump_s"])
        time.sleep(fault.for_s)
        self._set_clock(who, 0)

    def _switchover(self, who, fault):
        self._ask(who, "make-active", who)

    def _failover(self, who, fault):
        self._ask(who, "failover")

    def _ask(self, machine, *command):
        said = self.lab.exec(machine, "holdfast", *command, timeout_s=40, check=False)
        last = (said.stderr.strip() or said.stdout.strip()).splitlines()[-1:]
        self.say(f"  {machine}# holdfast {' '.join(command)}: {said.returncode} {' '.join(last)[:200]}")

    def _flush(self, who, fault):
        self.lab.exec(who, "nft", "flush", "ruleset", timeout_s=20)

    def heal(self):
        """Everything is as it was, whatever stood in a fault's way."""
        with self.cuts_lock:
            self.cuts.clear()
        self.lab.heal_all()
        self._each(self.machines, self._mend)

    def _mend(self, machine):
        power = self.lab.machines()[machine]["power"]
        if power == "frozen":
            self.lab.thaw(machine)
        elif power != "on":
            self.lab.boot(machine)
        with contextlib.suppress(LabFailure):       # whatever just restarts needs none
            self._signal(machine, "CONT", daemons(machine))
        self._set_clock(machine, 0)
