# SPDX-License-Identifier: Apache-2.0
"""Misfortunes of a resynchronization, and of an ex-active with changes that nobody was sent."""

import folders
import history
import postgres
import pytest
import trees
from labs import wait_until
from verdicts import demand_consistent

FOLDER = "/srv/bulk"
BULK_MB = 300
SLOW = "60mbit"             # so that BULK_MB takes long enough to be interrupted
UNSENT_S = 10


# Starts PostgreSQL on a copy of what the view $1 shows, counts, and takes all away again.
COUNT_IN_VIEW = r"""
copy=/var/tmp/divergent
rm -rf $copy
cp -a "$(dirname "$(find "$1" -path "*/main/PG_VERSION")")" $copy
rm -f $copy/postmaster.pid
cd /tmp
options="-c config_file=/etc/postgresql/15/main/postgresql.conf -c data_directory=$copy -c external_pid_file=$copy/external.pid"
options="$options -c listen_addresses= -c unix_socket_directories=/tmp -c port=5999"
runuser -u postgres -- $2/pg_ctl -s -w -D $copy -l $copy/start.log -o "$options" start || { cat $copy/start.log >&2; exit 1; }
runuser -u postgres -- psql -h /tmp -p 5999 -X -At -d ledger -c 'SELECT count(*) FROM entries'
runuser -u postgres -- $2/pg_ctl -s -w -D $copy -m fast stop
rm -rf $copy
"""


def look_at_the_rows(cluster, node, name, expected):
    """PostgreSQL, started on a copy of the view, finds the rows that nobody else has."""
    view = "/run/divergent"
    cluster.lab.exec(node, "mkdir", "-p", view)
    cluster.cli(node, "look", "--at", name, "--node", node, view, timeout_s=120)
    try:
        found = cluster.lab.sh(node, COUNT_IN_VIEW, view, postgres.BIN, timeout_s=180)
    finally:
        cluster.cli(node, "look", "--end", view, "--node", node)
    assert int(found) == expected, f"the view has {found} rows, the ex-active had {expected}"


def wait_answers(cluster, node):
    wait_until(lambda: postgres.psql(cluster.lab, node, "SELECT 1") == "1", "PostgreSQL answers", 60, cluster.evidence)


def rows(cluster, node):
    return int(postgres.psql(cluster.lab, node, "SELECT count(*) FROM entries", "ledger"))


def is_resynchronized_by(cluster, active, node):
    told = cluster.node_in(cluster.status_of(active), node)
    return told["synchronized"] is False and (told.get("sync_progress") or {}).get("done_objects", 0) > 0


def is_whole(lab, node, what):
    """A file of the test holds what its name says."""
    return lab.sh(node, 'sha256sum < "$1" | cut -d" " -f1', f"{FOLDER}/{what}").strip() == \
        lab.sh(node, 'cat "$1"', f"{FOLDER}/{what}.sha256").strip()


@pytest.mark.long
@pytest.mark.fault("powercut-in-resync")
def test_powercut_of_the_passive_in_resync_then_of_the_active(cluster, lab, clients):
    """The passive dies in mid-resync, then the active: the passive serves as of its last consistent point, and says how old."""
    history.need(cluster)
    make = ('head -c "$2M" /dev/urandom > "$1/$3"; sha256sum < "$1/$3" | cut -d" " -f1 > "$1/$3.sha256"; '
            'sync "$1/$3" "$1/$3.sha256" "$1"')
    with folders.protected(cluster, FOLDER) as (first, second):
        lab.sh(first, make, FOLDER, "5", "early")
        clients.wait_commits(300)
        lab.power_cut(first)                                    # unclean: it will be compared with its successor
        clients.wait_served_by(second)
        clients.wait_commits(300)
        lab.sh(second, f"{make}; tc qdisc replace dev chan0 root tbf rate {SLOW} burst 64kb latency 100ms",
               FOLDER, str(BULK_MB), "late", timeout_s=120)
        lab.boot(first)
        cluster.wait(lambda: is_resynchronized_by(cluster, second, first), f"{first} is being resynchronized", 60)
        lab.power_cut(first)
        lab.boot(first)
        cluster.wait(lambda: is_resynchronized_by(cluster, second, first), "the resynchronization goes on", 60)
        clients.stop()
        lab.power_cut(second)
        refused = cluster.cli(first, "failover", check=False)
        assert refused.returncode != 0, "an incomplete node became the active without being forced"
        cluster.wait(lambda: not cluster.status_of(first)["lease"]["holder"], "the lease has lapsed", 20)
        node = cluster.node_in(cluster.status_of(first), first)
        assert 0 < (node["consistent_point_age_s"] or 0) < 600, f"the status does not say how old its last consistent point is: {node}"
        print(f"the last consistent point is {node['consistent_point_age_s']:.1f} s old")
        cluster.cli(first, "failover", "--force", "--yes", timeout_s=120)
        cluster.wait_active(first, 60)
        wait_answers(cluster, first)
        assert is_whole(lab, first, "early"), "what was there before is not whole"
        assert lab.sh(first, f"ls {FOLDER}").split() == ["early", "early.sha256"], "half of what came later is there"
        postgres.check(lab, first)
        lab.boot(second)
        cluster.wait_automatic_failover(180)
        postgres.checkpoint(lab, first)
        for path in (postgres.DATA, FOLDER):
            trees.wait_equal(cluster, path)


@pytest.mark.long
@pytest.mark.fault("divergent-ex-active")
def test_ex_active_with_unsent_writes_returns(cluster, lab, clients):
    """An ex-active returns with ten seconds of writes that nobody was sent: they can be looked at, and gone back to."""
    history.need(cluster)
    cluster.set_mode("async")
    old, new = cluster.wait_automatic_failover()
    epoch = cluster.status()["lease"]["epoch"]
    lab.cut(old, new, "channel")
    clients.wait_seconds(UNSENT_S)
    clients.stop()
    unsent = rows(cluster, old)
    lab.power_cut(old)
    lab.heal_all()
    cluster.wait(lambda: not cluster.status_of(new)["lease"]["holder"], "the lease has lapsed", 20)
    cluster.cli(new, "failover", "--force", "--yes", timeout_s=120)
    cluster.wait_active(new, 60)
    wait_answers(cluster, new)
    kept = rows(cluster, new)
    print(f"{unsent - kept} of {unsent} rows were not sent")
    assert kept < unsent, "nothing was unsent: the test shows nothing"
    lab.boot(old)
    cluster.wait_automatic_failover(180)
    name = f"{old}-epoch-{epoch}-divergent"
    shadows = history.told(cluster, new, "shadow", "list")["shadows"]
    assert any(s["name"] == name and old in s["nodes"] for s in shadows), f"{old} kept no name for its changes: {shadows}"
    demand_consistent(cluster, clients.verdict())
    postgres.checkpoint(lab, new)
    trees.wait_equal(cluster, postgres.DATA)

    # What nobody else had is all there: to be looked at while the cluster goes on, and to be gone back to by whoever wants
    # it more than what came since.
    look_at_the_rows(cluster, old, name, unsent)
    cluster.cli(new, "rollback", "--to", name, "--node", old, "--yes", timeout_s=180)
    cluster.wait_active(old)
    assert rows(cluster, old) == unsent, "the ex-active's changes are not what it had"
    postgres.check(lab, old)
    cluster.wait_automatic_failover(240)
    postgres.checkpoint(lab, old)
    trees.wait_equal(cluster, postgres.DATA)
