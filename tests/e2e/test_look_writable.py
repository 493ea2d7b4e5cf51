# SPDX-License-Identifier: Apache-2.0
"""A past point that can be written to: the database is started in it on the passive, which follows all the while."""

import contextlib
import subprocess

import folders
import history
import postgres
import pytest
import trees
from history import clock_s, iso, told

VIEW = "/mnt/try"
INSIDE = VIEW + postgres.DATA.removeprefix("/var/lib/postgresql")   # of the one folder that is protected
PORT = "5999"
CONFIG = """\
listen_addresses = ''
port = 5999
unix_socket_directories = '/tmp'
hba_file = '/etc/postgresql/15/main/pg_hba.conf'
ident_file = '/etc/postgresql/15/main/pg_ident.conf'
"""


def as_postgres(lab, node, *argv, timeout_s=120):
    return lab.exec(node, "runuser", "-u", "postgres", "--", *argv, timeout_s=timeout_s).stdout.strip()


def query(lab, node, text, database="ledger", timeout_s=120):
    """Of the server in the view."""
    return as_postgres(lab, node, "psql", "-h", "/tmp", "-p", PORT, "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", database,
                       "-c", text, timeout_s=timeout_s)


def control(lab, node, *argv):
    options = "-c config_file=/tmp/try.conf"
    return as_postgres(lab, node, f"{postgres.BIN}/pg_ctl", "-D", INSIDE, "-w", "-t", "150", "-l", "/tmp/try.log", "-o", options,
                       *argv, timeout_s=200)


@contextlib.contextmanager
def view(cluster, lab, active, passive, at, *options):
    lab.sh(passive, f"mkdir -p {VIEW}")
    shown = told(cluster, active, "look", "--at", at, "--node", passive, "--writable", *options, VIEW, timeout_s=120)
    assert shown["writable"] and shown["limit_bytes"] > 0, shown
    try:
        yield shown
    finally:
        cluster.cli(active, "look", "--end", VIEW, "--node", passive, check=False)


@contextlib.contextmanager
def database_in_the_view(lab, node):
    lab.put(node, "/tmp/try.conf", CONFIG)
    lab.sh(node, f"rm -f {INSIDE}/postmaster.pid")      # of the server that ran on the active
    try:
        control(lab, node, "start")
    except Exception:
        print(lab.sh(node, "tail -n 40 /tmp/try.log", check=False))
        raise
    try:
        yield
    finally:
        control(lab, node, "-m", "fast", "stop")


def rows(lab, node):
    return int(postgres.psql(lab, node, "SELECT count(*) FROM tried", "ledger"))


@pytest.mark.ci
def test_the_database_runs_in_a_past_point_while_the_passive_follows(cluster, lab):
    """PostgreSQL starts in what was, beside a pgbench on the active; what it writes reaches neither node's folder."""
    active, passive = history.need(cluster)
    postgres.psql(lab, active, "DROP TABLE IF EXISTS tried; CREATE TABLE tried AS SELECT i AS n, repeat('x', 200) AS pad "
                  "FROM generate_series(1, 5000) i", "ledger")
    as_postgres(lab, active, "pgbench", "-i", "-q", "-s", "2", "ledger", timeout_s=120)
    good_s = clock_s(lab, active)
    history.wait_past(cluster, active, good_s)
    load = lab.popen(active, "runuser", "-u", "postgres", "--", "pgbench", "-n", "-c", "2", "-T", "40", "ledger")
    try:
        postgres.psql(lab, active, "INSERT INTO tried SELECT i, 'later' FROM generate_series(5001, 6000) i", "ledger")
        with view(cluster, lab, active, passive, iso(good_s)), database_in_the_view(lab, passive):
            assert query(lab, passive, "SELECT count(*), max(n) FROM tried") == "5000|5000", "what was there then"
            assert query(lab, passive, "SELECT count(*) FROM pgbench_history") == "0", "the load began later"
            assert load.poll() is None, "the load ended before the database in the view was up"
            query(lab, passive, "DELETE FROM tried WHERE n % 2 = 0")
            query(lab, passive, "CREATE TABLE only_here AS SELECT generate_series(1, 50000) AS i")
            query(lab, passive, "VACUUM FULL tried", timeout_s=200)
            query(lab, passive, "CHECKPOINT")
            assert query(lab, passive, "SELECT (SELECT count(*) FROM tried), (SELECT count(*) FROM only_here)") == "2500|50000"
            as_postgres(lab, passive, f"{postgres.BIN}/pg_amcheck", "-h", "/tmp", "-p", PORT, "--database", "ledger",
                        "--heapallindexed", timeout_s=180)
            used = told(cluster, active, "look", "--list")["looks"]
            assert [(v["node"], v["dir"], v["writable"]) for v in used] == [(passive, VIEW, True)] and used[0]["bytes"] > 1 << 20, used
            busy = cluster.cli(active, "look", "--end", VIEW, "--node", passive, check=False)
            assert busy.returncode != 0 and "fuser" in busy.stderr, busy
            assert lab.exec(passive, "holdfast", "status").returncode == 0
        assert lab.exec(passive, "mountpoint", "-q", VIEW, check=False).returncode != 0
        assert not told(cluster, active, "look", "--list")["looks"]
        assert load.wait(180) == 0, "the load on the active failed"
    finally:
        load.terminate()
    assert rows(lab, active) == 6000
    cluster.wait_automatic_failover(120)
    postgres.checkpoint(lab, active)
    trees.wait_equal(cluster, postgres.DATA)
    postgres.psql(lab, active, "DROP TABLE tried, pgbench_history, pgbench_tellers, pgbench_branches, pgbench_accounts", "ledger")


def test_a_writable_view_is_bounded_and_gone_with_its_mirror(cluster, lab):
    active, passive = history.need(cluster)
    good_s = clock_s(lab, active)
    history.wait_past(cluster, active, good_s)
    free = "df --output=avail -B1 /var/lib/holdfast | tail -n 1"
    with view(cluster, lab, active, passive, iso(good_s), "--scratch-mib", "32") as shown:
        assert shown["limit_bytes"] == 32 << 20
        before = int(lab.sh(passive, free))
        full = lab.exec(passive, "dd", "if=/dev/zero", f"of={VIEW}/big", "bs=1M", "count=40", check=False)
        assert full.returncode != 0 and "No space" in full.stderr, full
        cluster.wait(lambda: any(e["code"] == "look_full" for e in told(cluster, passive, "events", "--last", "50")["events"]),
                     "an event says that the view is full", 15)
        lab.exec(passive, "systemctl", "kill", "-s", "KILL", "holdfast-mirror")
        cluster.wait(lambda: lab.exec(passive, "mountpoint", "-q", VIEW, check=False).returncode != 0
                     and lab.exec(passive, "ls", VIEW, check=False).returncode == 0, "no dead view is left", 30)
        cluster.wait(lambda: int(lab.sh(passive, free)) > before - (8 << 20), "its room is free again", 30)
    cluster.wait_synchronized(120)


def test_a_writable_view_does_not_hold_up_a_promotion(cluster, lab):
    """The node takes over as if there were none; who is in the view hears that it is over."""
    active, passive = history.need(cluster)
    good_s = clock_s(lab, active)
    history.wait_past(cluster, active, good_s)
    with view(cluster, lab, active, passive, iso(good_s)), \
         lab.popen(passive, "sh", "-c", f"echo $$ > /tmp/holder; exec tail -f {INSIDE}/PG_VERSION",
                   stdout=subprocess.DEVNULL) as holder:
        try:
            lab.sh(passive, f"echo mine > {VIEW}/mine")
            cluster.make_active(passive)
            stale = lab.exec(passive, "touch", f"{VIEW}/another", check=False)
            assert stale.returncode != 0 and "Stale" in stale.stderr, stale
            cluster.wait(lambda: any(e["code"] == "look_over" for e in told(cluster, passive, "events", "--last", "50")["events"]),
                         "an event says that the view is over", 15)
            assert cluster.cli(passive, "look", "--end", VIEW, check=False).returncode != 0, "somebody is in it"
        finally:
            lab.sh(passive, "kill $(cat /tmp/holder)", check=False)
            holder.terminate()
        cluster.cli(passive, "look", "--end", VIEW)
    assert lab.exec(passive, "mountpoint", "-q", VIEW, check=False).returncode != 0
    cluster.wait_automatic_failover(240)


def test_a_folder_above_that_keeps_others_out_keeps_them_out_of_the_view(cluster, lab):
    active, passive = history.need(cluster)
    prepare = 'chmod 0700 /srv/closed; echo secret > "$1/open-to-all"; chmod 0644 "$1/open-to-all"; chmod 0755 "$1"'
    with folders.protected(cluster, "/srv/closed/data", prepare):
        good_s = clock_s(lab, active)
        history.wait_past(cluster, active, good_s)
        lab.sh(active, "echo later > /srv/closed/data/later")
        with view(cluster, lab, active, passive, iso(good_s)) as shown:
            assert shown["closed_above"] == "/srv/closed", shown
            inside = f"{VIEW}/srv/closed/data/open-to-all"
            assert lab.sh(passive, f"cat {inside}") == "secret\n"
            as_nobody = lab.exec(passive, "runuser", "-u", "nobody", "--", "cat", inside, check=False)
            assert as_nobody.returncode != 0 and "secret" not in as_nobody.stdout, as_nobody
