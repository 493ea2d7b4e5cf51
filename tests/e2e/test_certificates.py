# SPDX-License-Identifier: Apache-2.0
"""A node whose certificate has expired: refused, told once with what to do, and well again when it can renew it."""

import json

import pytest
from labs import wait_until

# On a node, in its tls folder: signs the request $1 with the cluster's authority, valid from $2 to $3, and writes the certificate to $4.
SIGN = r"""
sign() {
  ca=$(mktemp -d)
  : > $ca/index
  cat > $ca/conf <<CONF
[ca]
default_ca = other_times
[other_times]
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
  openssl ca -config $ca/conf -batch -notext -startdate $2 -enddate $3 -in $1 -out $ca/certificate 2> /dev/null
  cat $ca/certificate > $4
  rm -r $ca
}
"""
REQUEST = "openssl x509 -x509toreq -copy_extensions copyall -in node.crt -signkey node.key 2> /dev/null"
# A node's own certificate again, over since 2021. And the authority's key is not at hand, or holdfastd would sign itself a new one at its
# next start.
EXPIRE = SIGN + f"""
cd /var/lib/holdfast/tls
{REQUEST} > /root/request
sign /root/request 20200101000000Z 20210101000000Z node.crt
mv ca.key /var/lib/holdfast/ca.key.away
systemctl restart holdfast-mirror holdfastd
"""
WITNESS_TLS = "cd /var/lib/holdfast-witness/clusters/*/tls"
GIVE_THE_KEY_BACK = """
[ ! -e /var/lib/holdfast/ca.key.away ] || mv /var/lib/holdfast/ca.key.away /var/lib/holdfast/tls/ca.key
systemctl restart holdfastd
"""
WITNESS_LOOKS_S = 20    # so long after its start the witness looks at its certificates for the first time
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


def test_witness_renews_its_certificate_before_it_ends(cluster, lab):
    active, _ = cluster.wait_automatic_failover()

    def ends():
        return lab.sh("w1", f"{WITNESS_TLS} && openssl x509 -in node.crt -noout -enddate")
    soon = lab.sh("w1", "date -u -d '+10 days' +%Y%m%d%H%M%SZ").strip()
    lab.put(active, "/root/witness.csr", lab.sh("w1", f"{WITNESS_TLS} && {REQUEST}"))
    lab.sh(active, f"{SIGN} cd /var/lib/holdfast/tls && sign /root/witness.csr 20260101000000Z {soon} /root/witness.crt")
    lab.put("w1", "/root/witness.crt", lab.sh(active, "cat /root/witness.crt"))
    lab.sh("w1", f"{WITNESS_TLS} && cat /root/witness.crt > node.crt && systemctl restart holdfast-witness")
    due = ends()
    cluster.wait_automatic_failover(30)
    since = cluster.journal_cursor("w1")
    wait_until(lambda: ends() != due, "the witness has a new certificate", WITNESS_LOOKS_S + 30)
    assert lab.sh("w1", f"{WITNESS_TLS} && openssl x509 -in node.crt -noout -checkend {365 * 86400}"), "for long"
    wait_until(lambda: cluster.told_since("w1", "holdfast-witness", since, "was renewed"), "it says so", 5)
    # The new one is used without a restart: connections made from now on present it.
    lab.sh("w1", "ss -K dst 10.0.0.0/8 > /dev/null 2>&1 || true")
    assert cluster.wait_automatic_failover(60)[0] == active
