#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The whole story on real machines: two servers and a witness, PostgreSQL under load, a switchover, a power cut.

    sudo ./dev demo           tells it, then stays up for you to try things, until Ctrl-C
    sudo ./dev demo --once    tells it and ends; the last line sums up; fails unless no acknowledged commit was lost
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

import ledger  # noqa: E402
import postgres  # noqa: E402
from cluster import Cluster  # noqa: E402
from labs import PUBLIC_ADDRESS, Lab, LabFailure  # noqa: E402

CLIENTS = 8
WORK_S = 5              # how long the clients work between two events


class Teller:
    """Says what happens: steps as lines; the clients' progress as a line that renews itself on a terminal."""

    def __init__(self):
        self.started = time.monotonic()
        self.terminal = sys.stdout.isatty()
        self.open_line = False
        self.shown_s = 0.0
        self.waiting = False

    def say(self, text):
        if self.open_line:
            sys.stdout.write("\n")
            self.open_line = False
        for line in text.rstrip().split("\n"):
            sys.stdout.write(f"{time.monotonic() - self.started:6.1f} s  {line}\n")
        sys.stdout.flush()

    def progress(self, said):
        quiet = said["quiet_s"] >= 0.5
        node = said["server"].split("@")[0]
        text = (f"no commit for {said['quiet_s']:.1f} s, the last was on {node}  {said['error'][:60]}" if quiet else
                f"{said['rate']:7.0f} commits/s, active is {node}")
        text = f"  {said['commits']:8d} commits acknowledged, {text}"
        if self.terminal:
            sys.stdout.write(f"\r\033[K{time.monotonic() - self.started:6.1f} s{text}")
            sys.stdout.flush()
            self.open_line = True
        elif quiet != self.waiting or said["t"] - self.shown_s >= (1 if quiet else 2):
            self.say(text)
            self.shown_s = said["t"]
        self.waiting = quiet


class Demo:
    def __init__(self, lab, teller):
        self.lab, self.teller, self.say = lab, teller, teller.say
        self.cluster = Cluster(lab)

    def prepare(self):
        self.say("Booting two servers (n1, n2), a witness (w1) and a client machine (c1)")
        self.lab.up("--witness")
        self.say("Forming the cluster and protecting PostgreSQL, with the commands that an administrator types")
        self.lab.run_shown("cluster", "--mode", "fsync", "--plugin", "postgresql", timeout_s=400)
        active, _ = self.cluster.wait_synchronized()
        self.say(f"Creating a database with data checksums on {active}; clients reach it at {PUBLIC_ADDRESS}")
        postgres.create_ledger_database(self.lab, active)
        ledger.deploy(self.lab)
        ledger.set_up_tables(self.lab)

    def show_status(self, node):
        self.say(f"{node}# holdfast status\n" + self.cluster.cli(node, "status").stdout)

    def tell(self):
        """The story. Returns the summary line and whether all is well."""
        active, passive = self.cluster.wait_automatic_failover()
        self.show_status(active)
        self.say(f"{CLIENTS} clients commit through {PUBLIC_ADDRESS} and keep a ledger of every commit that was "
                 "acknowledged")
        with ledger.Clients(self.lab, "demo", CLIENTS, self.teller.progress) as clients:
            clients.wait_served_by(active)
            clients.wait_seconds(WORK_S)
            self.switch_over(clients, active, passive)
            cut_s = self.cut_power(clients, victim=passive, survivor=active)
            self.bring_back(clients, passive)
        return self.judge(clients, active, passive, cut_s)

    def switch_over(self, clients, old, new):
        self.say(f"Switchover, planned: {old}# holdfast make-active {new}")
        begin = time.monotonic()
        self.cluster.make_active(new)
        clients.wait_served_by(new)
        self.say(f"{new} serves; the command and the clients took {time.monotonic() - begin:.1f} s")
        self.cluster.wait_automatic_failover()
        clients.wait_seconds(WORK_S)

    def cut_power(self, clients, victim, survivor):
        self.say(f"Cutting the power of {victim}, the active: what it had not written to its disk is gone")
        cut_s = self.lab.power_cut(victim)
        clients.wait_served_by(survivor)
        self.say(f"{survivor} has taken over by itself, {clients.latest['t'] - cut_s:.1f} s after the cut or less")
        self.show_status(survivor)
        clients.wait_seconds(WORK_S)
        return cut_s

    def bring_back(self, clients, victim):
        self.say(f"Power is back: {victim} boots, rejoins as passive and catches up while the clients go on")
        self.lab.boot(victim)
        active, passive = self.cluster.wait_automatic_failover(120)
        self.say(f"{passive} is synchronized again; {active} is active")
        clients.wait_seconds(WORK_S)

    def judge(self, clients, first, second, cut_s):
        self.say("The clients have stopped. Comparing their ledger with the database")
        verdict, entries = clients.verdict(), clients.entries()
        active = self.cluster.active()
        self.say("PostgreSQL checks its own data: amcheck, and every page's checksum")
        postgres.check(self.lab, active)
        switchover_s = ledger.switchover_gap_s(entries, first, second)
        outage_s = ledger.outage_after_s(entries, cut_s)
        well = True
        if verdict["lost"] or verdict["ghosts"] or verdict["torn_accounts"]:
            well = False
            self.say(f"The ledger and the database do not agree: {verdict}")
        self.say(f"{verdict['unknown']} commits had no answer when the power went; "
                 f"{verdict['unknown_found']} of them are there, which is right either way")
        return (f"demo: commits acknowledged {verdict['acknowledged']}, found {verdict['found']}, "
                f"lost {verdict['lost']}; switchover {switchover_s:.2f} s; power-cut outage {outage_s:.2f} s"), well

    def stay(self):
        active = self.cluster.active()
        prefix = f"sudo LAB={self.lab.name} lab/lab"
        self.say("It stays up now, with the clients at work. Try in another terminal:\n"
                 f"  {prefix} exec {active} -- holdfast status --watch     what there is, live\n"
                 f"  {prefix} exec n1 -- holdfast make-active n2     move it (or n1)\n"
                 f"  {prefix} powercut n1     and     boot n1     pull the plug, and back\n"
                 f"  {prefix} cut n1 n2 --net channel     and     heal n1 n2     break the link between them\n"
                 f"  {prefix} exec {active} -- systemctl kill -s STOP holdfastd     hang the control plane\n"
                 f"  {prefix} exec n1 -- bash     look around\n"
                 f"  {prefix} exec c1 -- psql -h {PUBLIC_ADDRESS} -U ledger ledger     ask the database\n"
                 "Ctrl-C ends it and removes everything.")
        with ledger.Clients(self.lab, "visit", CLIENTS, self.teller.progress) as clients:
            clients.wait_for(lambda me: me.ended, "the clients end", 30 * 24 * 3600)


def tell_and_clean_up(lab, teller, once):
    demo = Demo(lab, teller)
    summary, well = "", False
    try:
        demo.prepare()
        summary, well = demo.tell()
        if not once:
            teller.say(summary)
            demo.stay()
    except KeyboardInterrupt:
        teller.say("Ctrl-C: ending")
    except BaseException as failure:
        report(demo, failure)
        raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)      # a second Ctrl-C must not leave machines behind
        teller.say("Taking the machines down")
        lab.down()
    if once and summary:
        print(summary, flush=True)
    return well


def report(demo, failure):
    """What support would ask for, before it is torn down."""
    directory = tempfile.mkdtemp(prefix="holdfast-demo-")
    demo.say(f"FAILED: {failure}")
    try:
        last = demo.cluster.collect_journals(directory)
        demo.say("The last lines of the journals:\n" + "\n".join(last))
    except (LabFailure, OSError) as trouble:
        demo.say(f"(journals: {trouble})")
    demo.say(f"Journals, status and network of each machine are in {directory}")


def interrupt(*_):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--once", action="store_true", help="end by itself; the last line sums up")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("the demo boots machines and needs root: sudo ./dev demo")
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
    try:
        well = tell_and_clean_up(Lab(f"demo-{os.getpid()}"), Teller(), options.once)
    except LabFailure as failure:
        sys.exit(f"demo: {str(failure).splitlines()[0]}")
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
