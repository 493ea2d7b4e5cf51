# SPDX-License-Identifier: Apache-2.0
"""What applications do with files, as rates: a tree of small files, MariaDB, Redis, SQLite. Each runs inside the machine, beside its data."""

import json

from labs import LabFailure

FILES = 10_000           # of the tree, in 500 folders
TREE_TAR, TREE_GIT = "/var/tmp/bench-tree.tar", "/var/tmp/bench-tree.git"
# Packages that only these rows need, in a layer of their own above the lab's image.
PACKAGES = {"tree": "git", "mariadb": "mariadb-server sysbench", "redis": "redis"}

# Text files of 0.5 to 16 KiB, like sources; the same in every run.
MAKE_TREE = r"""
import os, random, subprocess, sys
tar, git, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
chance = random.Random(1)
words = [bytes(chance.choices(b"abcdefghijklmnopqrstuvwxyz", k=chance.randrange(2, 12))) for _ in range(5000)]
for n in range(count):
    folder = f"/var/tmp/bench-tree/{n // 400:02}/{n // 20:03}"
    if n % 20 == 0:
        os.makedirs(folder)
    with open(f"{folder}/{n:05}.c", "wb") as file:
        file.write(b"\n".join(b" ".join(chance.choices(words, k=8)) for _ in range(chance.randrange(10, 300))) + b"\n")
os.chdir("/var/tmp")
subprocess.run(["tar", "-cf", tar, "bench-tree"], check=True)
os.chdir("bench-tree")
for command in ("init -q", "add .", "-c user.name=b -c user.email=b@b commit -qm tree", f"clone -q --bare . {git}"):
    subprocess.run(["git", *command.split()], check=True)
"""

# Before each: the folder as the row needs it, written back. Prints the seconds that the work took.
WORK = r"""
import os, subprocess, sys, time
folder, what = sys.argv[1], sys.argv[2]
tree, repo = folder + "/bench-tree", folder + "/repo"
steps = {
    "unpack": (None, f"tar -C {folder} -xf {sys.argv[3]}"),
    "find": ("tree", f"find {tree} -type f -size +100 -printf ''"),
    "grep": ("tree", f"grep -rc nowheretobefound {tree}"),
    "rm": ("tree", f"rm -rf {tree}"),
    "clone": (None, f"git clone -q {sys.argv[4]} {repo}"),
    "status": ("repo", f"git -C {repo} status --short"),
}
needs, command = steps[what]
def sh(command, check=True):
    subprocess.run(command, shell=True, check=check, stdout=subprocess.DEVNULL)
for there, is_needed, make in ((tree, needs == "tree", steps["unpack"][1]), (repo, needs == "repo", steps["clone"][1])):
    if os.path.exists(there) and not is_needed:
        sh(f"rm -rf {there}")
    elif not os.path.exists(there) and is_needed:
        sh(make)
sh(f"sync -f {folder}")
if needs and len(sys.argv) == 5:  # warm
    sh(command if what != "rm" else f"find {tree} -printf ''", what != "grep")
began = time.monotonic()
sh(command, what != "grep")   # grep's status says that it found nothing
print(time.monotonic() - began)
"""

SQLITE = r"""
import os, sqlite3, sys, time
path, seconds = sys.argv[1] + "/bench.sqlite", float(sys.argv[2])
for end in ("", "-wal", "-shm"):
    if os.path.exists(path + end):
        os.remove(path + end)
db = sqlite3.connect(path, isolation_level=None)
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA synchronous=FULL")
db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB)")
count, end = 0, time.monotonic() + seconds
began = time.monotonic()
while time.monotonic() < end:
    db.execute("INSERT INTO t (v) VALUES (?)", (os.urandom(200),))
    count += 1
print(count / (time.monotonic() - began))
"""


class Workloads:
    """On one node; `folder_of(variant)` is an empty or used folder there for the files of these rows."""

    def __init__(self, lab, node, folder_of):
        self.lab, self.node, self.folder_of = lab, node, folder_of
        self._tree_is_made = False
        self._databases = set()

    def _python(self, script, *arguments, timeout_s=300):
        return self.lab.exec(self.node, "python3", "-c", script, *arguments, timeout_s=timeout_s).stdout

    def tree(self, variant, what, drop_caches=None):
        """Files a second. `drop_caches`: called between what is prepared and what is measured."""
        if not self._tree_is_made:
            self._python(MAKE_TREE, TREE_TAR, TREE_GIT, str(FILES))
            self._tree_is_made = True
        arguments = [self.folder_of(variant), what, TREE_TAR, TREE_GIT]
        if drop_caches is not None:
            self._python(WORK, *arguments)
            drop_caches()
            arguments.append("cold")
        return FILES / float(self._python(WORK, *arguments).split()[-1])

    def sqlite(self, variant, seconds):
        return float(self._python(SQLITE, self.folder_of(variant), str(seconds)))

    def mariadb(self, variant, seconds):
        """oltp_read_write, 8 threads, transactions a second. The server runs only while it is measured."""
        folder, socket = self.folder_of(variant) + "/mariadb", f"/run/bench-{variant}.sock"
        unit = f"bench-mariadb-{variant}"
        bench = (f"sysbench oltp_read_write --mysql-socket={socket} --mysql-user=root --tables=4 --table-size=25000 "
                 "--threads=8")
        fresh = folder not in self._databases
        if fresh:
            self.lab.sh(self.node, 'rm -rf "$1"; mkdir -p "$1"; mariadb-install-db --no-defaults --datadir="$1" '
                        "--auth-root-authentication-method=normal --user=root >/dev/null", folder, timeout_s=120)
        self.lab.sh(self.node, 'systemd-run --quiet --unit="$1" mariadbd --no-defaults --user=root --datadir="$2" '
                    '--socket="$3" --skip-networking --innodb-buffer-pool-size=128M\n'
                    'until mariadb-admin --no-defaults -S "$3" ping >/dev/null 2>&1; do sleep 0.1; done', unit, folder,
                    socket, timeout_s=60)
        try:
            if fresh:
                self.lab.sh(self.node, f"mariadb --no-defaults -S {socket} -e 'CREATE DATABASE sbtest'; {bench} prepare",
                            timeout_s=180)
                self._databases.add(folder)
            text = self.lab.sh(self.node, f"{bench} --time={seconds} run", timeout_s=seconds + 60)
        finally:
            self.lab.sh(self.node, 'systemctl stop "$1"', unit, timeout_s=120)
        line, = (line for line in text.splitlines() if "transactions:" in line)
        return float(line.split("(")[1].split()[0])

    def redis(self, variant, requests):
        """SETs of 512 bytes a second, appended to a file that is synced each second."""
        folder, socket, unit = self.folder_of(variant), f"/run/bench-{variant}-redis.sock", f"bench-redis-{variant}"
        self.lab.sh(self.node, 'rm -rf "$1/redis"; mkdir -p "$1/redis"; systemd-run --quiet --unit="$2" redis-server '
                    '--dir "$1/redis" --appendonly yes --appendfsync everysec --save "" --port 0 --unixsocket "$3"\n'
                    'until redis-cli -s "$3" ping >/dev/null 2>&1; do sleep 0.1; done', folder, unit, socket)
        try:
            text = self.lab.sh(self.node, f"redis-benchmark -s {socket} -t set -n {requests} -r 100000 -d 512 -c 8 "
                               "--csv", timeout_s=120)
        finally:
            self.lab.sh(self.node, 'systemctl stop "$1"', unit, timeout_s=60)
        return float(text.splitlines()[-1].split(",")[1].strip('"'))


def fio_rate(text, is_read, field):
    """Of one fio job set, from its JSON: MB/s (bw_bytes) or iops."""
    try:
        done = json.loads(text[text.index("{"):])["jobs"][0]["read" if is_read else "write"]
    except (ValueError, LookupError) as trouble:
        raise LabFailure(f"fio said no result: {text[:500]}") from trouble
    return done["bw_bytes"] / 1e6 if field == "bw_bytes" else done["iops"]
