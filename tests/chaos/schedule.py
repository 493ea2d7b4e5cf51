# SPDX-License-Identifier: Apache-2.0
"""What happens, and when: a function of the seed alone. Who `active` or `passive` is, is seen when the time has come.

A run is rounds until its minutes are over. In a round one to three faults begin at their times and end after theirs, so they
overlap; then all is healed and, mostly, the cluster is given the time to be whole again. Sometimes the next round begins at once.
"""

import dataclasses
import random

ROUND_S = 9.0       # in which faults begin

WEIGHTS = {"partition": 20, "one-way": 12, "flap": 6, "freeze": 12, "stop": 14, "kill": 10, "power cut": 10,
           "all power": 2, "clock": 8, "switchover": 9, "failover": 3, "flush": 3}
NETS = ("channel", "public", None)      # None: both
UNITS = (("holdfastd",), ("holdfast-mirror",), ("holdfastd", "holdfast-mirror"), ("holdfast-witness",))


@dataclasses.dataclass(frozen=True)
class Fault:
    kind: str
    at_s: float         # in the round
    for_s: float        # then it ends
    who: str            # active, passive, or a machine
    detail: dict

    def __str__(self):
        told = " ".join(f"{key}={value}" for key, value in self.detail.items() if value is not None)
        return f"+{self.at_s:.1f} s {self.kind} of {self.who} for {self.for_s:.1f} s {told}".rstrip()


@dataclasses.dataclass(frozen=True)
class Round:
    number: int
    faults: tuple
    settles: bool       # is whole before the next one begins


def rounds(seed, nodes, witness):
    """An endless schedule for machines n1.. (nodes of them), w1 if `witness`, and the clients' c1."""
    dice = random.Random(f"chaos {seed}")
    number = 0
    while True:
        number += 1
        count = dice.choices((1, 2, 3), (5, 4, 2))[0]
        faults = sorted((fault(dice, nodes, witness) for _ in range(count)), key=lambda each: each.at_s)
        yield Round(number, tuple(faults), dice.random() < 0.8)


def fault(dice, nodes, witness):
    kind = dice.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    at_s = round(dice.uniform(0, ROUND_S) * (dice.random() < 0.8), 1)
    make = {"partition": partition, "one-way": partition, "flap": partition, "freeze": freeze, "stop": stop, "kill": kill,
            "power cut": power_cut, "all power": all_power, "clock": clock, "switchover": order, "failover": order,
            "flush": flush}[kind]
    for_s, who, detail = make(dice, kind, nodes, witness)
    return Fault(kind, at_s, round(for_s, 1), who, detail)


def node(dice, nodes, active=6):
    return dice.choices(("active", "passive", f"n{dice.randint(1, nodes)}"), (active, 3, 1))[0]


def machine(dice, nodes, witness):
    return "w1" if witness and dice.random() < 0.15 else node(dice, nodes)


def partition(dice, kind, nodes, witness):
    """`from`: the others that it is cut off from."""
    peers = ["other nodes"] + (["w1"] if witness else [])
    others = dice.choice([peers, peers + ["c1"], ["other nodes"], ["one node"], peers[-1:], ["c1"]])
    net = "public" if others == ["c1"] else dice.choices(NETS, (4, 2, 5))[0]
    detail = {"from": others, "net": net}
    for_s = dice.choice((dice.uniform(0.3, 1.8), dice.uniform(2.2, 5), dice.uniform(4, 11)))
    if kind == "one-way":
        detail["way"] = dice.choice(("in", "out"))
    if kind == "flap":
        detail["every_s"] = round(dice.uniform(0.2, 1.5), 1)
        for_s = dice.uniform(4, 12)
    who = "w1" if witness and others == ["other nodes"] and dice.random() < 0.15 else node(dice, nodes)
    return for_s, who, detail


def freeze(dice, kind, nodes, witness):
    """For longer than a lease, mostly: on thaw it must block before it writes or answers."""
    return dice.choices((dice.uniform(0.2, 1.6), dice.uniform(2.5, 8)), (1, 4))[0], machine(dice, nodes, witness), {}


def stop(dice, kind, nodes, witness):
    units = dice.choices(UNITS, (5, 4, 3, 1 if witness else 0))[0]
    who = "w1" if units == ("holdfast-witness",) else node(dice, nodes)
    return dice.choice((dice.uniform(0.3, 1.8), dice.uniform(2.2, 9))), who, {"units": units}


def kill(dice, kind, nodes, witness):
    """kill -9, again and again."""
    who = machine(dice, nodes, witness)
    units = ("holdfast-witness",) if who == "w1" else dice.choice(UNITS[:3] + (("holdfastd", "postgresql@15-main"),))
    return dice.uniform(0.1, 7), who, {"units": units, "every_s": round(dice.uniform(0.3, 2), 1)}


def power_cut(dice, kind, nodes, witness):
    return dice.uniform(0.5, 7), machine(dice, nodes, witness), {}


def all_power(dice, kind, nodes, witness):
    return dice.uniform(0.5, 3), "all", {"w1": witness and dice.random() < 0.5}


def clock(dice, kind, nodes, witness):
    """Of the daemons' wall clocks: forward or back; then back to right, which is another jump."""
    jump_s = dice.choice((-1, 1)) * dice.choice((0.7, 3, 60, 3600))
    return dice.uniform(0.5, 8), machine(dice, nodes, witness), {"jump_s": jump_s}


def order(dice, kind, nodes, witness):
    """An administrator's commands at bad moments."""
    return 0.0, "passive", {}


def flush(dice, kind, nodes, witness):
    """Somebody's `nft flush ruleset`."""
    return 0.0, node(dice, nodes), {}
