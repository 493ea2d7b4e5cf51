# SPDX-License-Identifier: Apache-2.0
"""Wrong input: one line that says what to do, an exit status, and nothing changed."""

import contextlib
import json
import os
import time

import postgres
import pytest
from cluster import Cluster
from labs import CHANNEL, Lab

TOKEN_LIFE_S = 60       # the shortest that may be asked for


def snapshot(cluster, node):
    """What a refused command must leave as it was."""
    status = cluster.status_of(node)
    config = json.loads(cluster.cli(node, "config", "show", "--json").stdout)
    return {"config": config, "protected": status["protected"], "applications": len(status["applications"]),
            "nodes": [(each["name"], each["node_id"], each["role"]) for each in status["nodes"]],
            "public": [each["address"] for each in status["public_addresses"]]}


def demand_one_line(done, *words):
    assert done.returncode in (1, 2, 3, 4, 5), f"exit status {done.returncode}: {done.stdout}{done.stderr}"
    lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("joining through ")]
    assert len(lines) == 1 and lines[0].startswith("holdfast: "), f"not one line of ours:\n{done.stderr}"
    for word in words:
        assert word.lower() in lines[0].lower(), f"'{word}' is not in: {lines[0]}"


def refuse(cluster, node, argv, *words, data=None):
    before = snapshot(cluster, node)
    demand_one_line(cluster.cli(node, *argv, check=False, data=data), *words)
    assert snapshot(cluster, node) == before, "a refused command changed something"


PREPARED_FOLDERS = {    # case -> (script that prepares it on the active, folder, words of the refusal, undo script)
    "missing": ("true", "/srv/does-not-exist", ("/srv/does-not-exist", "exist"), "true"),
    "relative": ("true", "srv/x", ("absolute",), "true"),
    "protected": ("true", postgres.DATA, ("already", "protect"), "true"),
    "inside-protected": ("true", postgres.DATA + "/base", ("protect", "already"), "true"),
    "around-protected": ("true", "/var/lib/postgresql", ("protected",), "true"),
    "root": ("true", "/", ("/",), "true"),
    "system": ("true", "/etc", ("/etc",), "true"),
    "own": ("true", "/var/lib/holdfast", ("/var/lib/holdfast",), "true"),
    "file-not-folder": ("echo x > /srv/file", "/srv/file", ("/srv/file",), "rm /srv/file"),
    "holds-mount": ("mkdir -p /srv/m/sub; mount -t tmpfs tmpfs /srv/m/sub", "/srv/m", ("/srv/m/sub", "mount"),
                    "umount /srv/m/sub; rm -r /srv/m"),
    "is-mount": ("mkdir -p /srv/t; mount -t tmpfs tmpfs /srv/t", "/srv/t", ("mount",), "umount /srv/t; rmdir /srv/t"),
    "tmpfs": ("mkdir -p /srv/t; mount -t tmpfs tmpfs /srv/t; mkdir /srv/t/x", "/srv/t/x", ("tmpfs",),
              "umount /srv/t; rmdir /srv/t"),
    "symlink": ("mkdir -p /srv/real; ln -s real /srv/link", "/srv/link", ("really /srv/real",),
                "rm /srv/link; rmdir /srv/real"),
    "below-symlink": ("mkdir -p /srv/real/x; ln -s real /srv/link", "/srv/link/x", ("really /srv/real/x",),
                      "rm -r /srv/link /srv/real"),
    "around-own": ("true", "/var", ("/var/lib/",), "true"),
    "inside-own": ("mkdir -p /var/lib/holdfast/x", "/var/lib/holdfast/x", ("/var/lib/holdfast",),
                   "rmdir /var/lib/holdfast/x"),
    "proc": ("true", "/proc/sys", ("/proc",), "true"),
    "devices": ("true", "/dev/shm", ("/dev",), "true"),
    "programs": ("true", "/usr/local", ("/usr",), "true"),
    "read-only": ("mkdir -p /srv/r/x; mount --bind /srv/r /srv/r; mount -o remount,bind,ro /srv/r", "/srv/r/x",
                  ("read-only", "remount"), "umount /srv/r; rm -r /srv/r"),
    "bound-part": ("mkdir -p /srv/b/sub /mnt/b; mount --bind /srv/b/sub /mnt/b", "/srv/b", ("through /mnt/b", "unmount"),
                   "umount /mnt/b; rm -r /srv/b /mnt/b"),
    "overlay-upper": ("mkdir -p /srv/o/up /srv/o/work /srv/o-low /mnt/o; mount -t overlay overlay "
                      "-o lowerdir=/srv/o-low,upperdir=/srv/o/up,workdir=/srv/o/work /mnt/o", "/srv/o",
                      ("layer of the overlay at /mnt/o", "unmount"), "umount /mnt/o; rm -r /srv/o /srv/o-low /mnt/o"),
    "container": ("mkdir -p /srv/c; setsid unshare --mount --propagation private sh -c 'echo $$ > /run/c; exec sleep 600' "
                  ">/dev/null 2>&1 & until [ -s /run/c ]; do sleep 0.1; done", "/srv/c",
                  ("mounts of its own", "start it again"), "kill $(cat /run/c); rm /run/c; rmdir /srv/c"),
    "immutable": ("mkdir -p /srv/i; echo x > /srv/i/file; chattr +i /srv/i/file", "/srv/i", ("immutable", "chattr -i"),
                  "chattr -i /srv/i/file; rm -r /srv/i"),
    "odd-name": ("mkdir -p \"$(printf '/srv/new\\nline')\"", "/srv/new\nline", ("rename it",), "rmdir /srv/new*line"),
    "overlay": ("mkdir -p /opt/x", "/opt/x", ("overlay",), "rmdir /opt/x"),
}


@pytest.mark.ci
@pytest.mark.parametrize("case", PREPARED_FOLDERS)
def test_bad_input_protect(cluster, lab, case):
    prepare, folder, words, undo = PREPARED_FOLDERS[case]
    active, _ = cluster.wait_synchronized()
    lab.sh(active, prepare)
    try:
        refuse(cluster, active, ["protect", folder], *words)
    finally:
        lab.sh(active, undo)


@pytest.mark.ci
def test_bad_input_too_little_space_on_the_peer(cluster, lab):
    active, passive = cluster.wait_synchronized()
    lab.sh(active, "mkdir -p /srv/big; fallocate -l 600M /srv/big/file")
    lab.sh(passive, "free=$(($(stat -f -c '%a*%S' /srv) / 1048576)); fallocate -l $((free - 300))M /srv/ballast")
    try:
        refuse(cluster, active, ["protect", "/srv/big"], passive, "space")
    finally:
        lab.sh(active, "rm -r /srv/big")
        lab.sh(passive, "rm /srv/ballast")


COMMANDS = {        # case -> (arguments, words)
    "unknown-plugin": (["protect", "oracle"], ("oracle",)),
    "postgresql-twice": (["protect", "postgresql"], ("already",)),
    "unprotect-nothing": (["unprotect", "/srv/nothing", "--yes"], ("/srv/nothing",)),
    "make-active-unknown": (["make-active", "n9"], ("n9",)),
    "config-unknown-key": (["config", "set", "no.such.key", "1"], ("no.such.key",)),
    "config-bad-value": (["config", "set", "mode", "sometimes"], ("sometimes", "async", "fsync")),
    "init-twice": (["init", "--name", "again", "--channel", "10.0.0.1"], ("already",)),
    "join-member": (["join", "10.0.0.2", "--token", "-"], ("already",)),
    "release-nothing": (["release"], ("held",)),
}


@pytest.mark.ci
@pytest.mark.parametrize("case", COMMANDS)
def test_bad_input_commands(cluster, case):
    argv, words = COMMANDS[case]
    refuse(cluster, cluster.active(), argv, *words, data="x\n" if "-" in argv else None)


@pytest.mark.ci
def test_bad_input_make_active_on_the_active(cluster):
    active = cluster.active()
    before = snapshot(cluster, active)
    done = cluster.cli(active, "make-active", active, check=False)
    assert "already" in (done.stdout + done.stderr).lower()
    assert snapshot(cluster, active) == before


@pytest.fixture(scope="module")
def strangers():
    """Two machines with the product: n1 has initialized a cluster, n2 belongs to none."""
    with Lab(f"join-{os.getpid()}") as lab:
        lab.up()
        pair = Cluster(lab)
        pair.cli("n1", "init", "--name", "first", "--node", "n1", "--channel", CHANNEL["n1"])
        yield pair


def token(pair, *options):
    return json.loads(pair.cli("n1", "token", *options, "--json").stdout)["token"]


def join(pair, secret, *options):
    return pair.cli("n2", "join", CHANNEL["n1"], "--token", "-", "--channel", CHANNEL["n2"], *options,
                    data=secret + "\n", check=False)


def demand_refused_join(pair, secret, *words):
    """Nothing of it stays, neither there nor here, and the token is still good."""
    folders = pair.lab.sh("n2", "ls -la /srv /var/lib/holdfast /var/lib/postgresql")
    demand_one_line(join(pair, secret), *words)
    demand_still_alone(pair)
    assert pair.lab.sh("n2", "ls -la /srv /var/lib/holdfast /var/lib/postgresql") == folders


MOVE_POSTGRESQL = "systemctl stop postgresql; for at in /usr/lib /etc /var/lib; do " \
                  "mv $at/postgresql/$1 $at/postgresql/$2; done"


@contextlib.contextmanager
def postgresql_14_on(lab, node):
    lab.sh(node, MOVE_POSTGRESQL, "15", "14")
    try:
        yield
    finally:
        lab.sh(node, MOVE_POSTGRESQL, "14", "15")


def demand_still_alone(pair):
    assert [node["name"] for node in pair.status_of("n1")["nodes"]] == ["n1"], "n1 has a member more"
    assert not pair.status_of("n2").get("nodes"), "n2 believes to be a member"


@pytest.mark.ci
class TestJoin:
    """In this order: n2 joins at the end."""

    def test_bad_input_wrong_token(self, strangers):
        good = token(strangers)
        for wrong in ("nonsense", good[:-1] + ("a" if good[-1] != "a" else "b"), "", "x" * 10000, good + good):
            demand_one_line(join(strangers, wrong), "token")
        demand_still_alone(strangers)

    def test_bad_input_witness_token_for_a_node(self, strangers):
        demand_one_line(join(strangers, token(strangers, "--witness")), "token")
        demand_still_alone(strangers)

    def test_bad_input_token_of_another_cluster(self, cluster, strangers):
        foreign = json.loads(cluster.cli(cluster.active(), "token", "--json").stdout)["token"]
        demand_one_line(join(strangers, foreign), "token")
        demand_still_alone(strangers)

    def test_bad_input_name_clash(self, strangers):
        demand_one_line(join(strangers, token(strangers), "--node", "n1"), "n1", "name")
        demand_still_alone(strangers)

    def test_bad_input_nobody_there(self, strangers):
        done = strangers.cli("n2", "join", "10.0.0.77", "--token", "-", data=token(strangers) + "\n", check=False)
        demand_one_line(done, "10.0.0.77")
        demand_still_alone(strangers)

    def test_bad_input_public_address_leased_by_dhcp(self, strangers):
        """A dynamic address with a lifetime is what a DHCP client leaves."""
        lab = strangers.lab
        lab.sh("n2", "ip address add 192.0.2.99/24 dev pub0 valid_lft 3600 preferred_lft 3600")
        try:
            done = strangers.cli("n2", "init", "--name", "other", "--channel", CHANNEL["n2"], "--public",
                                 "192.0.2.99/24", check=False)
            demand_one_line(done, "192.0.2.99", "DHCP")
            assert not strangers.status_of("n2").get("nodes"), "the refused init left a cluster behind"
        finally:
            lab.sh("n2", "ip address delete 192.0.2.99/24 dev pub0")

    def test_bad_input_public_address_malformed(self, strangers):
        for wrong in ("192.0.2.300/24", "192.0.2.10/99", "banana"):
            done = strangers.cli("n2", "init", "--name", "other", "--channel", CHANNEL["n2"], "--public", wrong,
                                 check=False)
            demand_one_line(done, wrong)

    @pytest.mark.long
    def test_bad_input_expired_token(self, strangers):
        secret = token(strangers, "--ttl", str(TOKEN_LIFE_S))
        time.sleep(TOKEN_LIFE_S + 1)        # nothing but the time itself can be awaited
        demand_one_line(join(strangers, secret), "token", "expired")
        demand_still_alone(strangers)

    def test_bad_input_join_what_this_machine_cannot_hold(self, strangers):
        """The cluster protects already, so the node that joins is asked before anything changes."""
        lab = strangers.lab
        lab.sh("n1", "mkdir -p /srv/big; fallocate -l 300M /srv/big/file")
        strangers.cli("n1", "protect", "/srv/big")
        strangers.cli("n1", "protect", "postgresql")
        secret = token(strangers)
        with postgresql_14_on(lab, "n2"):
            demand_refused_join(strangers, secret, "n2", "15", "14", "install postgresql-15")
        lab.sh("n2", "free=$(($(stat -f -c '%a*%S' /srv) / 1048576)); fallocate -l $((free - 200))M /srv/ballast")
        try:
            demand_refused_join(strangers, secret, "n2", "/srv/big", "space", "make room")
        finally:
            lab.sh("n2", "rm /srv/ballast")
        strangers.cli("n1", "unprotect", "postgresql", "--yes")

    def test_join_makes_the_folders_that_are_protected(self, strangers):
        """And then: the token that was not used up is used again."""
        secret = token(strangers)
        done = join(strangers, secret)
        assert done.returncode == 0, done.stderr
        strangers.wait(lambda: strangers.node_in(strangers.status_of("n1"), "n2")["synchronized"],
                       "n2 is a member and synchronized", 40)
        assert strangers.lab.sh("n2", "stat -c %s /srv/big/file").strip() == str(300 << 20)
        admit = ["curl", "--silent", "--show-error", "--insecure", "--max-time", "10", "--request", "POST",
                 f"https://{CHANNEL['n1']}:9727/v1/join", "--header", "Content-Type: application/json", "--data",
                 json.dumps({"token": secret, "kind": "node", "node": "n3", "csr": "x"})]
        answer = strangers.lab.exec("n2", *admit, check=False).stdout
        assert "error" in answer and "token" in answer, answer
        assert len(strangers.status_of("n1")["nodes"]) == 2

    def test_bad_input_other_postgresql_on_the_peer(self, strangers):
        strangers.wait(lambda: len(strangers.status_of("n1")["nodes"]) == 2, "n2 is a member", 20)
        with postgresql_14_on(strangers.lab, "n2"):
            refuse(strangers, "n1", ["protect", "postgresql"], "n2", "15", "14")
