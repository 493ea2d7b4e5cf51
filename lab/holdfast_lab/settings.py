# SPDX-License-Identifier: Apache-2.0
"""Names, places and addresses: what a lab consists of."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("HOLDFAST_LAB_CACHE", "/var/cache/holdfast-lab"))
RUN = Path("/run/holdfast-lab")          # state and mount points: gone after a reboot, as the machines are
DISKS = Path("/var/tmp/holdfast-lab")    # data disks: too big for memory

NETWORKS = ("public", "channel")
SERVICE_ADDRESS = "192.0.2.10/24"        # the floating address; configured by the product, never by the lab
GATEWAY = ("192.0.2.1/24", "2001:db8:0:1::1/64")


@dataclass(frozen=True)
class Host:
    """A machine's fixed place in every lab."""
    name: str
    public: str
    public6: str
    channel: str | None


HOSTS = {host.name: host for host in (
    Host("n1", "192.0.2.11", "2001:db8:0:1::11", "10.0.0.1"),
    Host("n2", "192.0.2.12", "2001:db8:0:1::12", "10.0.0.2"),
    Host("n3", "192.0.2.13", "2001:db8:0:1::13", "10.0.0.3"),
    Host("w1", "192.0.2.20", "2001:db8:0:1::20", "10.0.0.20"),
    Host("c1", "192.0.2.30", "2001:db8:0:1::30", None),
)}


def is_data_node(name):
    return name.startswith("n")


def lab_name():
    name = os.environ.get("LAB", "lab")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,19}", name):
        raise LabError(f"LAB={name!r} is not a lab's name: use up to 20 of a-z, 0-9 and '-'")
    return name


@dataclass(frozen=True)
class Places:
    """Where one lab keeps its things. Everything that carries the lab's name is found by it again in `down`."""
    lab: str

    @property
    def state(self):
        return RUN / self.lab

    @property
    def state_file(self):
        return self.state / "state.json"

    @property
    def disks(self):
        return DISKS / self.lab

    def disk(self, machine):
        return self.disks / f"{machine}.disk"

    def machine(self, machine):
        return self.state / machine

    @property
    def netns(self):
        return f"holdfast-lab.{self.lab}"

    def machine_netns(self, machine):
        return f"{self.netns}.{machine}"

    def cgroup(self, machine):
        return f"holdfast-lab/{self.lab}/{machine}"
