# SPDX-License-Identifier: Apache-2.0
"""Protection is taken away: the data stay where they are, on both nodes, and nothing of Holdfast holds them any more."""

import postgres
import pytest
import trees

PLAIN = "/srv/plain"


def holdfast_left_at(lab, node, path):
    """Mounts over the folder, drop-ins of its units."""
    return lab.sh(node, """awk -v at="$1" '$5 == at || index($5, at "/") == 1' /proc/self/mountinfo
                           find /etc/systemd/system /run/systemd/system -name '*holdfast.conf'""", path).strip()


MARKED = """import os, sys
def marks(path):
    return [name for name in os.listxattr(path, follow_symlinks=False) if name.startswith("trusted.holdfast.")]
top = sys.argv[1]
print(sum(bool(marks(path)) for path in [top] + [os.path.join(at, name) for at, folders, files in os.walk(top)
                                                 for name in folders + files]))
"""


def marked(lab, node, path):
    """How many of its objects carry an attribute of Holdfast's."""
    return int(lab.exec(node, "python3", "-c", MARKED, path).stdout)


def mounted_at(lab, node, path):
    return lab.sh(node, """awk -v at="$1" '$5 == at' /proc/self/mountinfo""", path).strip()


@pytest.mark.ci
def test_unprotect_leaves_a_plain_folder_on_both_nodes(cluster, lab):
    active, _ = cluster.wait_synchronized()
    lab.sh(active, 'mkdir -p "$1/sub"; head -c 3000000 /dev/urandom > "$1/sub/file"; ln -s sub/file "$1/link"', PLAIN)
    cluster.cli(active, "protect", PLAIN)
    cluster.wait_synchronized()
    trees.wait_equal(cluster, PLAIN)
    before = trees.digest(lab, active, PLAIN)
    server = postgres.psql(lab, active, "SELECT pg_postmaster_start_time()")
    cluster.cli(active, "unprotect", PLAIN, "--yes")
    cluster.wait_synchronized()
    for node in cluster.nodes:
        cluster.wait(lambda at=node: not mounted_at(lab, at, PLAIN), f"{node} has nothing over {PLAIN}", 20)
        assert trees.digest(lab, node, PLAIN) == before, f"{node}: not the same data"
        cluster.wait(lambda at=node: marked(lab, at, PLAIN) == 0, f"{node}: nothing of Holdfast's is on the files", 20)
        assert sorted(lab.sh(node, 'ls -A "$1"', PLAIN).split()) == ["link", "sub"], "something was left behind"
        lab.sh(node, 'echo free > "$1/sub/more"; rm -r "$1"', PLAIN)
    assert postgres.psql(lab, active, "SELECT pg_postmaster_start_time()") == server, "PostgreSQL was not concerned"


@pytest.mark.ci
def test_a_folder_is_protected_again_at_once(cluster, lab):
    """The mirror is still at work on what the first protection left on 20,000 files: it holds the folder, and is in nobody's way."""
    active, _ = cluster.wait_synchronized()
    lab.sh(active, 'mkdir -p "$1"; cd "$1"; seq 20000 | xargs touch; cp /bin/true program', PLAIN, timeout_s=120)
    cluster.cli(active, "protect", PLAIN, timeout_s=120)
    cluster.wait_synchronized(120)
    cluster.cli(active, "unprotect", PLAIN, "--yes")
    cluster.cli(active, "protect", PLAIN, timeout_s=120)
    cluster.wait_synchronized(120)
    trees.wait_equal(cluster, PLAIN)
    cluster.cli(active, "unprotect", PLAIN, "--yes")
    for node in cluster.nodes:
        cluster.wait(lambda at=node: not mounted_at(lab, at, PLAIN), f"{node} has nothing over {PLAIN}", 20)
        lab.sh(node, 'rm -rf "$1"', PLAIN, timeout_s=120)


def test_a_node_that_was_down_when_a_protection_ended_lets_the_folder_go(cluster, lab):
    """Its mirror covers it as it starts, for all that it knows, and is then told better."""
    active, passive = cluster.wait_automatic_failover()
    lab.sh(active, 'mkdir -p "$1"; echo text > "$1/file"; echo text > "$1/other"', PLAIN)
    cluster.cli(active, "protect", PLAIN)
    cluster.wait_synchronized()
    lab.sh(active, 'rm "$1/other"; sync -f "$1"', PLAIN)        # it lies in the passive's graveyard now
    trees.wait_equal(cluster, PLAIN)
    lab.sh(passive, "systemctl stop holdfastd holdfast-mirror")
    cluster.cli(active, "unprotect", PLAIN, "--yes")
    lab.sh(passive, "systemctl start holdfast-mirror holdfastd")
    cluster.wait_synchronized()
    for node in cluster.nodes:
        cluster.wait(lambda at=node: not mounted_at(lab, at, PLAIN), f"{node} has nothing over {PLAIN}", 20)
        cluster.wait(lambda at=node: marked(lab, at, PLAIN) == 0, f"{node}: nothing of Holdfast's is on the files", 20)
        assert lab.sh(node, 'ls -A "$1"', PLAIN).split() == ["file"], f"{node}: something was left behind"
        lab.sh(node, 'rm -r "$1"', PLAIN)
    cluster.wait_automatic_failover()


def test_unprotect_an_application_that_runs_on_and_protect_it_again(cluster, lab):
    active, passive = cluster.wait_synchronized()
    postgres.psql(lab, active, "CREATE TABLE unprotected (at int); INSERT INTO unprotected VALUES (1)", "ledger")
    cluster.cli(active, "unprotect", "postgresql", "--yes")
    for node in cluster.nodes:
        cluster.wait(lambda at=node: not holdfast_left_at(lab, at, "/var/lib/postgresql"),
                     f"{node} is without covers and drop-ins", 20)
        assert lab.sh(node, "cat $1/PG_VERSION", postgres.DATA).strip() == "15"
        lab.sh(node, "touch $1/postmaster.opts", postgres.DATA)
    assert cluster.status()["protected"] == cluster.status()["applications"] == []
    assert postgres.psql(lab, active, "SELECT count(*) FROM unprotected", "ledger") == "1"
    lab.exec(active, "systemctl", "restart", "postgresql@15-main")
    postgres.psql(lab, active, "INSERT INTO unprotected VALUES (2)", "ledger")
    postgres.checkpoint(lab, active)

    cluster.cli(active, "protect", "postgresql")
    cluster.wait_automatic_failover()
    assert postgres.psql(lab, active, "SELECT count(*) FROM unprotected", "ledger") == "2"
    cluster.make_active(passive)
    assert postgres.psql(lab, passive, "SELECT count(*) FROM unprotected", "ledger") == "2"
    postgres.psql(lab, passive, "DROP TABLE unprotected", "ledger")
    postgres.check(lab, passive)
