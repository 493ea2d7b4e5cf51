# SPDX-License-Identifier: Apache-2.0
"""A node whose certificate has expired: refused, told once with what to do, and well again when it can renew it."""

import json

import pytest
from labs import wait_until

# On a node: its own certificate again, over since 2021, signed by the cluster's authority. And the authority's key is not at
# hand, or holdfastd would sign itself a new one at its next start.
EXPIRE = r"""
cd /var/lib/holdfast/tls
ca=$(mktemp -d)
: > $ca/index
cat > $ca/conf <<CONF
[ca]
default_ca = expired
[expired]
database = $ca/index
new_certs_dir = $ca
certificate = ca.crt
private_key = ca.key
rand_serial = yes
default_md = sha256
policy = as_given
copy_extensions = copyall
preserve = yes
[as_given]
organizationName = supplied
organizationalUnitName = supplied
commonName = supplied
CONF
openssl x509 -x509toreq -copy_extensions copyall -in node.crt -signkey node.key -out $ca/request 2> /dev/null
openssl ca -config $ca/conf -batch -notext -startdate 20200101000000Z -enddate 20210101000000Z \
  -in $ca/request -out $ca/certificate 2> /dev/null
cat $ca/certificate > node.crt
mv ca.key /var/lib/holdfast/ca.key.away
rm -r $ca
systemctl restart holdfast-mirror holdfastd
"""
GIVE_THE_KEY_BACK = """
[ ! -e /var/lib/holdfast/ca.key.away ] || mv /var/lib/holdfast/ca.key.away /var/lib/holdfast/tls/ca.key
systemctl restart holdfastd
"""
ATTEMPTS_S = 7          # a refused control link is tried again each 1.5 s, a data channel each second


@pytest.mark.ci
def test_expired_certificate_is_refused_and_told_once(cluster, lab, clients):
    active, passive = cluster.wait_automatic_failover()
    machines = {active: ("holdfastd", "holdfast-mirror"), passive: ("holdfastd", "holdfast-mirror"),
                "w1": ("holdfast-witness",)}
    since = {machine: cluster.journal_cursor(machine) for machine in machines}

    def told(machine, unit):
        return cluster.told_since(machine, unit, since[machine], "expired")
    try:
        lab.sh(passive, EXPIRE)
        node_id = cluster.node_in(cluster.status_of(active), passive)["node_id"]
        wait_until(lambda: told(active, "holdfastd"), "the active says what is wrong", 10)
        clients.wait_seconds(ATTEMPTS_S)
        clients.wait_commits(100)
        for machine, units in machines.items():
            for unit in units:
                lines = told(machine, unit)
                assert lines, f"{unit} on {machine} says nothing of the certificate"
                assert len(lines) == len(set(lines)), f"{unit} on {machine} repeats itself:\n" + "\n".join(lines)
                assert len(lines) <= 3, f"{unit} on {machine}:\n" + "\n".join(lines)
                if machine != passive:
                    assert all(node_id in line and "2021-01-01" in line and "restart holdfastd" in line
                               for line in lines), f"{unit} on {machine}: not who, since when and what to do: {lines}"
        assert cluster.node_in(cluster.status_of(active), passive)["synchronized"] is False
        own = json.loads(cluster.cli(passive, "status", "--json").stdout)
        assert any("ca.key" in alert["hint"] and passive in alert["text"] for alert in own["alerts"]), own["alerts"]
    finally:
        lab.sh(passive, GIVE_THE_KEY_BACK)
    assert cluster.wait_automatic_failover(60) == (active, passive)
    assert "notAfter" in lab.sh(passive, "openssl x509 -in /var/lib/holdfast/tls/node.crt -noout -enddate -checkend 0")
