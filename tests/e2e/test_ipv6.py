# SPDX-License-Identifier: Apache-2.0
"""A public address of version 6, end to end: it answers on the active, moves with it, and is announced by the new one."""

import json
import re
import subprocess

import pytest
from labs import wait_until

ADDRESS = "2001:db8:0:1::10"


class AdvertisementWatch:
    """Unsolicited neighbour advertisements for the address, as the client machine hears them."""

    def __init__(self, lab):
        # Byte 40 of the packet is the ICMPv6 type; to all nodes: nobody asked.
        self.process = lab.popen("c1", "tcpdump", "-Z", "root", "-i", "pub0", "-n", "-e", "-l",
                                 "icmp6 and ip6[40] == 136 and dst host ff02::1",
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert "listening" in (self.process.stderr.readline() + self.process.stderr.readline())

    def heard(self):
        """[(sender's hardware address, text with the target)]"""
        self.process.terminate()
        said = self.process.communicate(timeout=30)[0]
        return re.findall(r"^\S+ (\S+) > (?:.*) tgt is ([0-9a-f:]+)", said, re.MULTILINE)


def mac_of(lab, node):
    return re.search(r"link/ether (\S+)", lab.sh(node, "ip -o link show pub0"))[1]


def server_at(lab, address):
    """The node that answers a query through the address; raises when none does."""
    return lab.exec("c1", "psql", "-X", "-q", "-At", "-h", address, "-U", "ledger", "-d", "ledger", "-c",
                    "SELECT pg_read_file('/etc/hostname')", timeout_s=10).stdout.strip()


def addresses_on(lab, node):
    return lab.sh(node, "ip -6 -o address show dev pub0 scope global")


@pytest.mark.ci
def test_public_ipv6_address_moves_with_the_active(cluster, lab):
    old, new = cluster.wait_automatic_failover()
    items = json.loads(cluster.cli(old, "config", "show", "--json").stdout)["items"]
    before = next(item["value"] for item in items if item["key"] == "public_addresses")
    cluster.cli(old, "config", "set", "public_addresses", f"{before},{ADDRESS}/64")
    try:
        wait_until(lambda: server_at(lab, ADDRESS) == old, f"{old} answers at {ADDRESS}", 15)
        watch = AdvertisementWatch(lab)
        cluster.make_active(new)
        wait_until(lambda: server_at(lab, ADDRESS) == new, f"{new} answers at {ADDRESS}", 15)
        heard = watch.heard()
        senders = [mac for mac, target in heard if target == ADDRESS]
        assert mac_of(lab, new) in senders, f"{new} did not announce {ADDRESS}: {heard}"
        assert mac_of(lab, old) not in senders[senders.index(mac_of(lab, new)):], f"{old} goes on announcing: {heard}"
        assert mac_of(lab, new) in lab.sh("c1", "ip -6 neighbour show " + ADDRESS)
        assert f" {ADDRESS}/" in addresses_on(lab, new) and f" {ADDRESS}/" not in addresses_on(lab, old)
        shown = {each["address"]: each["on"] for each in cluster.status()["public_addresses"]}
        assert shown[f"{ADDRESS}/64"] == new, shown
    finally:
        cluster.cli(cluster.active(), "config", "set", "public_addresses", before)
    wait_until(lambda: all(f" {ADDRESS}/" not in addresses_on(lab, node) for node in cluster.nodes), "the address is gone", 15)
