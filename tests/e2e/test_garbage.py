# SPDX-License-Identifier: Apache-2.0
"""Bytes that no peer of ours would send, on every port: refused, logged, never a crash."""

import pytest
from labs import CHANNEL
from verdicts import demand_nothing_lost

UNITS = {"n1": ("holdfastd", "holdfast-mirror"), "n2": ("holdfastd", "holdfast-mirror"), "w1": ("holdfast-witness",)}
PORTS = {"n1": (9727, 9728), "n2": (9727, 9728), "w1": (9729,)}

# Runs in a machine: HOST PORT. Seeded, so that a failure repeats. Prints how many connections were accepted.
SENDER = r"""
import random, socket, ssl, sys
host, port = sys.argv[1], int(sys.argv[2])
dice = random.Random(port)
CLIENT_HELLO = bytes.fromhex("16030100ff010000fb0303")
payloads = [b"", b"\0", b"\xff" * 65536, b"GET / HTTP/1.1\r\n\r\n", b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n",
            b"POST /v1/join HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", CLIENT_HELLO,
            CLIENT_HELLO + dice.randbytes(300), b"\x16\x03\x01\xff\xff" + dice.randbytes(70000), b"SSH-2.0-x\r\n"]
payloads += [dice.randbytes(dice.randrange(1, 5000)) for _ in range(40)]
accepted = 0

def connect():
    global accepted
    plain = socket.create_connection((host, port), 5)
    accepted += 1
    plain.settimeout(0.3)
    return plain

def drain(sock):
    try:
        while sock.recv(65536):
            pass
    except OSError:
        pass

for payload in payloads:
    try:
        with connect() as plain:
            plain.sendall(payload)
            plain.shutdown(socket.SHUT_WR)
            drain(plain)
    except OSError:
        pass
# The same inside TLS, for each protocol that may be asked for.
for protocol in (["http/1.1"], ["holdfast-control/1"], ["holdfast-data/1"], ["nonsense"], None):
    for payload in payloads:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if protocol:
            context.set_alpn_protocols(protocol)
        try:
            with connect() as plain, context.wrap_socket(plain, server_hostname="0123456789abcdef") as sock:
                sock.sendall(payload)
                drain(sock)
        except (OSError, ssl.SSLError):
            pass
# Many connections that say nothing.
idle = []
try:
    for _ in range(200):
        idle.append(connect())
except OSError:
    pass
print(accepted)
"""


def processes(lab):
    """{unit: (main pid, restarts)} of all Holdfast units."""
    return {(machine, unit): lab.sh(machine, 'systemctl show -p MainPID -p NRestarts --value "$1"', unit).split()
            for machine, units in UNITS.items() for unit in units}


@pytest.mark.ci
def test_garbage_on_every_port_never_crashes_anything(cluster, lab, clients):
    nodes = cluster.wait_automatic_failover()
    before = processes(lab)
    for target, ports in PORTS.items():
        source = "n2" if target == "n1" else "n1"
        for port in ports:
            done = lab.exec(source, "python3", "-c", SENDER, CHANNEL[target], str(port), timeout_s=180)
            accepted = int(done.stdout)
            # A passive's mirror listens on 9728; the active's dials, and need not.
            assert accepted > 0 or (port, target) == (9728, nodes[0]), f"nobody listens on {target}:{port}"
    after = processes(lab)
    assert after == before, "a process was restarted"
    assert cluster.wait_automatic_failover() == nodes, "the role moved"
    clients.wait_commits(200)
    clients.stop()
    demand_nothing_lost(cluster, clients)
    secrets = lab.sh(nodes[0], "journalctl --no-pager -u holdfastd | grep -c 'BEGIN .*PRIVATE KEY' || true").strip()
    assert secrets == "0"
