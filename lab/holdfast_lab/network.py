# SPDX-License-Identifier: Apache-2.0
"""The two networks. They live in a network namespace of the lab's own, so that labs never meet, nor touch the host.

A network is a bridge; a machine's port on it is called MACHINE-NETWORK. Cuts are kept as pairs of ports in a set of a
packet filter on the bridge: frames of every protocol are dropped, in one direction a pair.
"""

import hashlib
import json

from .errors import LabError, run
from .settings import GATEWAY, HOSTS, NETWORKS

INTERFACES = {"public": "pub0", "channel": "chan0"}

FILTER = """
table bridge lab {
  set cut { type ifname . ifname; }
  chain forward { type filter hook forward priority 0; policy accept; iifname . oifname @cut drop; }
}
"""


def create(places):
    run(["ip", "netns", "add", places.netns])
    lines = ["link set lo up"]
    for net in NETWORKS:
        # Without snooping: it would delay the first multicast frames, and neighbour discovery is made of them.
        lines += [f"link add {net} type bridge forward_delay 0 mcast_snooping 0", f"link set {net} up"]
    lines += [f"address add {GATEWAY[0]} dev public", f"address add {GATEWAY[1]} dev public nodad"]
    _batch(places.netns, lines)
    run(["ip", "netns", "exec", places.netns, "nft", "-f", "-"], stdin=FILTER)


def plug_in(places, name):
    """Gives a machine a new network namespace with its interfaces: nothing of an earlier boot is left in it."""
    netns = places.machine_netns(name)
    run(["ip", "netns", "add", netns])
    lines = []
    for net in _networks_of(name):
        port = f"{name}-{net}"
        lines += [f"link add {port} type veth peer name {INTERFACES[net]} address {_mac(places, port)} netns {netns}",
                  f"link set {port} master {net} up"]
    _batch(places.netns, lines)


def pull_plug(places, name):
    """From here on no frame leaves the machine."""
    _batch(places.netns, [f"link set {name}-{net} down" for net in _networks_of(name)])


def unplug(places, name):
    """Removes the interfaces and the namespace."""
    run(["ip", "-force", "-netns", places.netns, "-batch", "-"], check=False,
        stdin="".join(f"link delete {name}-{net}\n" for net in _networks_of(name)))
    run(["ip", "netns", "delete", places.machine_netns(name)], check=False)


def destroy(places):
    for line in run(["ip", "netns", "list"]).stdout.splitlines():
        netns = line.split()[0]
        if netns == places.netns or netns.startswith(f"{places.netns}."):
            run(["ip", "netns", "delete", netns], check=False)


def cut(places, one, others, net, one_way):
    """All at the same moment."""
    pairs = [pair for other in others for pair in _pairs(one, other, net, one_way)]
    if pairs:
        _filter(places, f"add element bridge lab cut {{ {', '.join(pairs)} }}")


def heal(places, one, others, net, one_way):
    standing = {f'"{a}" . "{b}"' for a, b in _standing(places)}
    pairs = [pair for other in others for pair in _pairs(one, other, net, one_way) if pair in standing]
    if pairs:
        _filter(places, f"delete element bridge lab cut {{ {', '.join(pairs)} }}")


def cuts(places):
    """The cuts that stand, as [from, to, network]."""
    return [[source.rsplit("-", 1)[0], *target.rsplit("-", 1)] for source, target in _standing(places)]


def _standing(places):
    listing = json.loads(run(["ip", "netns", "exec", places.netns, "nft", "-j", "list", "set", "bridge", "lab",
                              "cut"]).stdout)
    elements = next(item["set"] for item in listing["nftables"] if "set" in item).get("elem", [])
    return [tuple(element["concat"]) for element in elements]


def _pairs(one, other, net, one_way):
    if one == other:
        raise LabError("cut and heal take two different machines, for example 'lab/lab cut n1 n2'")
    pairs = []
    for name in (one, other):
        if not HOSTS[name].channel and net == "channel":
            raise LabError(f"{name} is not on the channel network: use --net public")
    for each in [net] if net else NETWORKS:
        if each in _networks_of(one) and each in _networks_of(other):
            pairs.append(f'"{one}-{each}" . "{other}-{each}"')
            pairs += [] if one_way else [f'"{other}-{each}" . "{one}-{each}"']
    return pairs


def _networks_of(name):
    return [net for net in NETWORKS if net == "public" or HOSTS[name].channel]


def _mac(places, port):
    """The same address after every boot, as a real card has."""
    digest = hashlib.sha256(f"{places.lab} {port}".encode()).hexdigest()
    return "02:" + ":".join(digest[i:i + 2] for i in range(0, 10, 2))


def _batch(netns, lines):
    run(["ip", "-netns", netns, "-batch", "-"], stdin="\n".join(lines) + "\n")


def _filter(places, command):
    run(["ip", "netns", "exec", places.netns, "nft", "-f", "-"], stdin=command + "\n")
