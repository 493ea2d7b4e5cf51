# SPDX-License-Identifier: Apache-2.0
"""The past: timeline, shadows, rollback to a point in time and back again, failover to an earlier point."""

import history
import postgres
import pytest
import trees
from history import clock_s, iso, told
from labs import PUBLIC_ADDRESS, LabFailure

CLIENT = "c1"
ROLLBACK_LIMIT_S = 180


class Rows:
    """Rows of a table that are known to be committed, each with the second in which it was."""

    def __init__(self, lab, node):
        self.lab = lab
        postgres.psql(lab, node, "DROP TABLE IF EXISTS past; CREATE TABLE past (n int PRIMARY KEY, pad text)", "ledger")

    def add(self, node, count):
        postgres.psql(self.lab, node, "INSERT INTO past SELECT (SELECT coalesce(max(n), 0) FROM past) + i, repeat('x', 500) "
                      f"FROM generate_series(1, {count}) i", "ledger")
        return self.count(node)

    def count(self, node):
        return int(postgres.psql(self.lab, node, "SELECT count(*) FROM past", "ledger"))


def client_sees(lab, query):
    return lab.exec(CLIENT, "psql", f"host={PUBLIC_ADDRESS} user=ledger dbname=ledger connect_timeout=3", "-X", "-At", "-c",
                    query).stdout.strip()


def served_by(cluster, lab, node):
    try:
        return client_sees(lab, "SELECT btrim(pg_read_file('/proc/sys/kernel/hostname'), E' \\n')") == node
    except LabFailure:
        return False


@pytest.fixture
def rows(cluster, lab):
    active, _ = history.need(cluster)
    yield Rows(lab, active)
    cluster.wait_synchronized(240)


@pytest.mark.ci
def test_a_shadow_stands_on_the_passive_and_can_be_kept_and_deleted(cluster, lab):
    active, passive = history.need(cluster)
    made = told(cluster, active, "shadow", "create", "before-upgrade", "--keep")
    assert made["shadow"]["nodes"] == [passive], made
    assert made["shadow"]["application_consistent"], "postgresql has a hook"
    try:
        again = cluster.cli(passive, "shadow", "create", "before-upgrade", check=False)
        assert again.returncode != 0 and "before-upgrade" in again.stderr, again
        listed = told(cluster, passive, "shadow", "list")["shadows"]
        assert [s["name"] for s in listed if s["keep"]] == ["before-upgrade"], listed
        assert passive in cluster.cli(active, "timeline").stdout
        cluster.cli(active, "shadow", "keep", "before-upgrade", "--no-keep")
        assert not any(s["keep"] for s in told(cluster, active, "shadow", "list")["shadows"])
    finally:
        cluster.cli(active, "shadow", "delete", "before-upgrade", "--yes")
    assert "before-upgrade" not in [s["name"] for s in told(cluster, active, "shadow", "list")["shadows"]]
    missing = cluster.cli(active, "shadow", "delete", "before-upgrade", "--yes", check=False)
    assert missing.returncode == 1 and "shadow list" in missing.stderr, missing.stderr


@pytest.mark.ci
def test_what_can_not_be_gone_back_to_is_refused_with_what_there_is(cluster, lab):
    active, passive = history.need(cluster)
    epoch = cluster.status()["lease"]["epoch"]
    for to in ("2001-01-01", "no-such-shadow"):
        refused = cluster.cli(passive, "rollback", "--to", to, "--yes", check=False)
        assert refused.returncode in (1, 3), refused
        assert passive in refused.stderr and "holdfast timeline" in refused.stderr, refused.stderr
    wrong = cluster.cli(active, "rollback", "--to", "25:61", "--yes", check=False)
    assert wrong.returncode == 2 and "90s ago" in wrong.stderr, wrong.stderr
    assert cluster.status()["lease"]["epoch"] == epoch, "the role changed"


@pytest.mark.ci
@pytest.mark.fault("rm-rf-rollback")
def test_rm_rf_is_taken_back_to_the_second_before(cluster, lab, rows):
    """The application's user removes the data on the active: a rollback brings back the second before."""
    old, new = cluster.wait_automatic_failover()
    before = rows.add(old, 2000)
    good_s = clock_s(lab, old)
    history.wait_past(cluster, old, good_s)
    lab.sh(old, f"runuser -u postgres -- rm -rf {postgres.DATA}/base {postgres.DATA}/pg_wal {postgres.DATA}/global")
    cluster.wait(lambda: cluster.recovery_point_s(new) is not None and cluster.recovery_point_s(new) < 2,
                 "the passive has lost the data too", 20)

    shown = cluster.cli(old, "rollback", "--to", iso(good_s), "--dry-run").stdout
    assert new in shown and "taken back" in shown and "before-rollback" in shown, shown
    cluster.cli(old, "rollback", "--to", iso(good_s), "--yes", timeout_s=ROLLBACK_LIMIT_S)
    cluster.wait_active(new)
    assert rows.count(new) == before
    cluster.wait(lambda: served_by(cluster, lab, new), "clients reach the new active", 10)
    assert int(client_sees(lab, "SELECT count(*) FROM past")) == before
    assert rows.add(new, 10) == before + 10, "it can be written again"
    postgres.check(lab, new)

    cluster.wait_automatic_failover(240)
    postgres.checkpoint(lab, new)
    trees.wait_equal(cluster, postgres.DATA)
    names = [s["name"] for s in told(cluster, new, "shadow", "list")["shadows"] if old in s["nodes"]]
    assert any(name.startswith("before-rollback-") for name in names), names


@pytest.mark.ci
def test_a_rollback_is_taken_back(cluster, lab, rows):
    old, new = cluster.wait_automatic_failover()
    first = rows.add(old, 100)
    good_s = clock_s(lab, old)
    history.wait_past(cluster, old, good_s)
    both = rows.add(old, 100)
    history.wait_past(cluster, old, clock_s(lab, old))
    cluster.cli(old, "rollback", "--to", iso(good_s), "--yes", timeout_s=ROLLBACK_LIMIT_S)
    cluster.wait_active(new)
    assert rows.count(new) == first
    cluster.wait_automatic_failover(240)

    cluster.cli(new, "rollback", "--to", "before-rollback", "--yes", timeout_s=ROLLBACK_LIMIT_S)
    cluster.wait_active(old)
    assert rows.count(old) == both, "what was taken back is not there again"
    cluster.wait(lambda: served_by(cluster, lab, old), "clients reach it", 10)
    cluster.wait_automatic_failover(240)
    postgres.check(lab, old)
    postgres.checkpoint(lab, old)
    trees.wait_equal(cluster, postgres.DATA)


def test_a_failover_takes_over_at_an_earlier_point(cluster, lab, rows):
    """The active made the damage and died before anybody asked."""
    old, new = cluster.wait_automatic_failover()
    before = rows.add(old, 500)
    good_s = clock_s(lab, old)
    history.wait_past(cluster, old, good_s)
    cluster.cli(old, "config", "set", "automatic_failover", "off")
    try:
        postgres.psql(lab, old, "DELETE FROM past", "ledger")
        history.wait_past(cluster, old, clock_s(lab, old))
        lab.power_cut(old)
        cluster.wait(lambda: not cluster.status_of(new)["lease"]["holder"], "the lease has lapsed", 20)
        cluster.cli(new, "failover", "--to", iso(good_s), "--yes", timeout_s=ROLLBACK_LIMIT_S)
        cluster.wait_active(new)
        assert rows.count(new) == before
        cluster.wait(lambda: served_by(cluster, lab, new), "clients reach it", 10)
        lab.boot(old)
        cluster.wait_synchronized(240)
    finally:
        if not lab.is_on(old):
            lab.boot(old)
        cluster.cli(new, "config", "set", "automatic_failover", "on")
    postgres.check(lab, new)


def test_a_successor_that_dies_while_it_goes_back_loses_nothing(cluster, lab, rows):
    """Whoever is active afterwards holds everything, or exactly what was asked for; and the plan says which."""
    old, new = cluster.wait_automatic_failover()
    first = rows.add(old, 3000)
    good_s = clock_s(lab, old)
    history.wait_past(cluster, old, good_s)
    both = rows.add(old, 3000)
    history.wait_past(cluster, old, clock_s(lab, old))
    plan = told(cluster, old, "rollback", "--to", iso(good_s), "--yes", "--no-wait")["plan"]

    def handed_over():
        found = told(cluster, old, "plan", plan)
        return found["epoch_recorded"] or found["state"] != "running"
    cluster.wait(handed_over, "the epoch is recorded", 60)
    lab.power_cut(new)
    cluster.wait(lambda: cluster.active_in(cluster.status_of(old)) in (old, None), f"{new} is not the active any more", 30)
    lab.boot(new)
    active, _ = cluster.wait_automatic_failover(240)
    left = rows.count(active)
    assert left == (both if active == old else first), f"{active} has {left} rows of {first} or {both}"
    outcome = told(cluster, old, "plan", plan)
    assert outcome["state"] != "running"
    if active == old:
        assert outcome["state"] != "done", outcome
    postgres.check(lab, active)


def test_the_old_active_dies_while_it_hands_over(cluster, lab, rows):
    """An order without the last word of who gave it is nothing: a failover keeps everything. With it, it is carried out."""
    old, new = cluster.wait_automatic_failover()
    first = rows.add(old, 100)
    good_s = clock_s(lab, old)
    history.wait_past(cluster, old, good_s)
    both = rows.add(old, 100)
    history.wait_past(cluster, old, clock_s(lab, old))
    told(cluster, old, "rollback", "--to", iso(good_s), "--yes", "--no-wait")
    lab.power_cut(old)
    try:
        cluster.wait_active(new, 60)
        cluster.wait(lambda: not told(cluster, new, "status")["plan"], f"{new} has done what it had to", 60)
        kind = told(cluster, new, "plan")["kind"]
        assert rows.count(new) == (first if kind == "rollback" else both), kind
    finally:
        lab.boot(old)
    cluster.wait_automatic_failover(240)
    postgres.check(lab, new)


@pytest.mark.ci
def test_a_look_shows_the_second_before_while_the_passive_follows(cluster, lab):
    """Files come out of the past of a passive; nothing can be changed there; it is gone with the mirror."""
    active, passive = history.need(cluster)
    papers, past = f"{postgres.DATA}/papers", "/mnt/past"
    lab.sh(active, f"runuser -u postgres -- sh -c 'mkdir -p {papers}/sub && seq 1 200000 > {papers}/a && echo old > {papers}/sub/b "
                   f"&& ln -s a {papers}/link'")
    good_s = clock_s(lab, active)
    history.wait_past(cluster, active, good_s)
    wanted = lab.sh(active, f"cd {papers} && cat a sub/b link | sha256sum")
    lab.sh(active, f"runuser -u postgres -- sh -c 'echo new > {papers}/a && rm -rf {papers}/sub {papers}/link && echo c > {papers}/c'")
    cluster.wait(lambda: lab.sh(passive, f"ls {papers}").split() == ["a", "c"], "the passive has it too", 20)
    lab.sh(passive, f"mkdir -p {past}")
    try:
        cluster.cli(active, "look", "--at", iso(good_s), "--node", passive, past)
        inside = past + papers.removeprefix("/var/lib/postgresql")  # the one folder that is protected
        assert lab.sh(passive, f"ls {inside}").split() == ["a", "link", "sub"]
        assert lab.sh(passive, f"cd {inside} && cat a sub/b link | sha256sum") == wanted
        # What is applied later is not seen.
        lab.sh(active, f"runuser -u postgres -- sh -c 'rm {papers}/a && seq 5 > {papers}/d'")
        cluster.wait(lambda: lab.sh(passive, f"ls {papers}").split() == ["c", "d"], "the passive goes on", 20)
        for name in ("a", "sub/b"):  # read again, from no cache
            lab.sh(passive, f"dd if={inside}/{name} iflag=nocache count=0 status=none")
        assert lab.sh(passive, f"cd {inside} && cat a sub/b link | sha256sum") == wanted
        assert lab.sh(passive, f"rm -rf /root/out && cp -a {inside} /root/out && stat -c %U /root/out/a").strip() == "postgres"
        assert lab.exec(passive, "touch", f"{inside}/x", check=False).returncode != 0
        assert lab.exec(passive, "runuser", "-u", "postgres", "--", "ls", inside, check=False).returncode != 0, "root only"
        looks = told(cluster, active, "look", "--list")["looks"]
        assert [(v["node"], v["dir"]) for v in looks] == [(passive, past)], looks
        cluster.cli(active, "look", "--end", past, "--node", passive)
        assert lab.exec(passive, "mountpoint", "-q", past, check=False).returncode != 0
        cluster.cli(active, "look", "--at", iso(good_s), "--node", passive, past)
        lab.exec(passive, "systemctl", "kill", "-s", "KILL", "holdfast-mirror")
        cluster.wait(lambda: lab.exec(passive, "mountpoint", "-q", past, check=False).returncode != 0
                     and lab.exec(passive, "ls", past, check=False).returncode == 0, "no dead view is left", 30)
    finally:
        cluster.cli(active, "look", "--end", past, "--node", passive, check=False)
        lab.sh(active, f"rm -rf {papers}")
        cluster.wait_synchronized(240)
