# SPDX-License-Identifier: Apache-2.0
"""The machines of the benchmark: PostgreSQL and a folder in every variant, side by side on n1's data disk."""

from pathlib import Path

from cluster import Cluster
from labs import CHANNEL, LabFailure, wait_until
from workloads import Workloads, fio_rate

NODE, PEER = "n1", "n2"
SCALE = 20                      # pgbench: about 300 MB, more than shared_buffers
FLOOR_PROGRAM = "/usr/sbin/holdfast-floor"       # part of the package
PROTECTED_FOLDER = "/srv/protected"

# variant -> port of its PostgreSQL on n1; both protected modes are the same server.
PORTS = {"native": 5440, "async": 5432, "fsync": 5432, "alone": 5432, "floor": 5441, "pg-streaming-async": 5442,
         "pg-streaming-sync": 5442}
CLUSTERS = {"native": "/srv/native/pg", "floor": "/srv/floor/pg", "streaming": "/srv/streaming/pg"}
# variant -> folder of its file tests
FOLDERS = {"native": "/srv/native/files", "async": PROTECTED_FOLDER + "/files", "fsync": PROTECTED_FOLDER + "/files",
           "alone": PROTECTED_FOLDER + "/files",
           "floor": "/srv/floor/files"}


# Four operations for each file: made, its mode changed, renamed, removed.
METADATA_FILES = 10_000
METADATA = r"""
import os, sys
folder, count = sys.argv[1] + "/metadata", int(sys.argv[2])
os.makedirs(folder)
for n in range(count):
    os.close(os.open(f"{folder}/{n}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
for n in range(count):
    os.chmod(f"{folder}/{n}", 0o600)
for n in range(count):
    os.rename(f"{folder}/{n}", f"{folder}/renamed-{n}")
for n in range(count):
    os.unlink(f"{folder}/renamed-{n}")
os.rmdir(folder)
"""


class Machines:
    def __init__(self, lab, variants, packages=()):
        self.lab, self.variants, self.packages = lab, variants, sorted(packages)
        self.cluster = Cluster(lab)
        self.work = Workloads(lab, NODE, FOLDERS.get)
        self.mode = None
        self.frozen = False

    def set_up(self, say):
        say("booting, forming the pair")
        self._form()
        say("creating the databases")
        self._furnish()
        self.wait_quiet()

    def _form(self):
        lab = self.lab
        lab.up("--witness", "--disk", "16G", *(["--packages", " ".join(self.packages)] if self.packages else []))
        lab.run_shown("cluster", "--mode", "async", "--plugin", "postgresql", "--protect", PROTECTED_FOLDER,
                      timeout_s=400)
        if self.cluster.active() != NODE:
            self.cluster.make_active(NODE)
            self.cluster.wait_synchronized()

    def _furnish(self):
        for variant, folder in FOLDERS.items():
            if variant in self.variants and variant != "floor":
                self.lab.sh(NODE, 'mkdir -p "$1"', folder)
        self._create_cluster("native")
        if "floor" in self.variants:
            self._mount_floor()
            self._create_cluster("floor")
        if any(variant.startswith("pg-streaming") for variant in self.variants):
            self._create_cluster("streaming")
            self._create_standby()
        for port in sorted({PORTS[variant] for variant in self.variants}):
            self._as_postgres(f"createdb -p {port} bench; pgbench -p {port} -q -i -s {SCALE} bench")

    def _as_postgres(self, script, node=NODE, timeout_s=300, check=True):
        return self.lab.exec(node, "runuser", "-u", "postgres", "--", "sh", "-euc", script, timeout_s=timeout_s,
                             check=check)

    def _create_cluster(self, name):
        """Data checksums on, like the protected one; everything else as Debian makes it."""
        port = {"native": 5440, "floor": 5441, "streaming": 5442}[name]
        self.lab.sh(NODE, """
            mkdir -p "$2"; chown postgres: "$2"
            pg_createcluster -d "$2" -p "$3" 15 "$1"
            grep '# the lab' -A 9 /etc/postgresql/15/main/pg_hba.conf >> "/etc/postgresql/15/$1/pg_hba.conf"
            echo "listen_addresses = '*'" > "/etc/postgresql/15/$1/conf.d/lab.conf"
            pg_ctlcluster 15 "$1" start""", name, CLUSTERS[name], str(port), timeout_s=120)

    def _mount_floor(self):
        self.lab.sh(NODE, """
            mkdir -p /srv/floor-below /srv/floor
            systemd-run --quiet --unit=holdfast-floor "$1" /srv/floor-below /srv/floor""", FLOOR_PROGRAM)
        wait_until(lambda: "fuse" in self.lab.sh(NODE, "stat -f -c %T /srv/floor"), "the floor is mounted", 10,
                   lambda: self.lab.sh(NODE, "journalctl --no-pager -u holdfast-floor"))
        self.lab.sh(NODE, "mkdir -p /srv/floor/files")

    def _create_standby(self):
        lab = self.lab
        self._as_postgres("psql -p 5442 -qc \"CREATE ROLE standby REPLICATION LOGIN\"")
        lab.sh(PEER, """
            mkdir -p /srv/streaming; chown postgres: /srv/streaming
            pg_createcluster -d /srv/streaming/pg -p 5442 15 streaming
            rm -rf /srv/streaming/pg
            runuser -u postgres -- pg_basebackup -h "$1" -p 5442 -U standby -D /srv/streaming/pg -R -c fast \
                -d 'application_name=standby'
            pg_ctlcluster 15 streaming start""", CHANNEL[NODE], timeout_s=300)
        wait_until(lambda: "streaming" in self._as_postgres(
            "psql -p 5442 -Atc 'SELECT state FROM pg_stat_replication'").stdout, "the standby streams", 30)

    def select(self, variant):
        """Makes a variant ready to be measured, with nothing left over from the one before."""
        self.thaw_peer()
        mode = "async" if variant == "alone" else variant
        if mode in ("async", "fsync") and self.mode != mode:
            self.cluster.set_mode(mode)
            self.mode = mode
        if variant.startswith("pg-streaming"):
            names = "standby" if variant.endswith("-sync") else ""
            self._as_postgres(f"psql -p 5442 -qc \"ALTER SYSTEM SET synchronous_standby_names = '{names}'\""
                              " -c 'SELECT pg_reload_conf()' >/dev/null")
            wanted = "sync" if names else "async"
            wait_until(lambda: wanted == self._as_postgres(
                "psql -p 5442 -Atc 'SELECT sync_state FROM pg_stat_replication'").stdout.strip(),
                f"the standby is {wanted}", 20)
        self.wait_quiet()
        if variant == "alone":
            self.lab.freeze(PEER)
            self.frozen = True

    def thaw_peer(self):
        if self.frozen:
            self.lab.thaw(PEER)
            self.frozen = False

    def wait_quiet(self):
        """Nothing is on its way to a disk or to the peer any more."""
        for machine in (NODE, PEER):
            self.lab.sh(machine, "sync --file-system /srv", timeout_s=120)
        wait_until(self._all_confirmed, "the passive has confirmed and applied everything", 120, self.cluster.evidence)

    def _all_confirmed(self):
        status = self.cluster.status_of(NODE)
        passive = self.cluster.node_in(status, PEER)
        queues = passive["queues"]
        return passive["synchronized"] and not queues["send_bytes"] and not queues["receive_bytes"]

    def pgbench(self, variant, clients, seconds):
        """Transactions a second, from the node itself: the network to the client is the same for everyone."""
        port = PORTS[variant]
        self._as_postgres(f"psql -p {port} -qc CHECKPOINT")
        text = self._as_postgres(f"pgbench -p {port} -n -c {clients} -j {min(clients, 2)} -T {seconds} bench",
                                 timeout_s=seconds + 120).stdout
        line, = (line for line in text.splitlines() if line.startswith("tps = "))
        if "number of failed transactions: 0" not in text:
            raise LabFailure(f"{variant}: transactions failed:\n{text}")
        return float(line.split()[2])

    def _fio(self, variant, *options, seconds=None):
        timed = ("--time_based", f"--runtime={seconds}") if seconds else ()
        return self.lab.exec(NODE, "fio", "--name=row", f"--directory={FOLDERS[variant]}", "--ioengine=psync",
                             "--output-format=json", "--group_reporting", "--fallocate=none", "--randrepeat=1",
                             *timed, *options, timeout_s=(seconds or 0) + 120).stdout

    def fio(self, variant, options, field, seconds):
        """One fio job set that writes; field: bw_bytes in MB/s, or iops."""
        text = self._fio(variant, *options, seconds=seconds)
        self._remove_files(variant)
        return fio_rate(text, False, field)

    def fio_read(self, variant, options, field, seconds):
        """The files are written before. Cold: each byte is read once (seconds: None), and is in no cache."""
        self._fio(variant, "--create_only=1", *options)
        self.lab.sh(NODE, "sync --file-system /srv", timeout_s=120)
        self.wait_quiet()
        if seconds is None:
            drop_caches()
        else:
            self._fio(variant, *options, "--invalidate=0")
        text = self._fio(variant, *options, "--invalidate=0", seconds=seconds)
        self._remove_files(variant)
        return fio_rate(text, True, field)

    def _remove_files(self, variant):
        self.lab.sh(NODE, 'rm -f "$1"/row.*', FOLDERS[variant], timeout_s=120)

    def cost(self, variant, work, amount):
        """CPU seconds that `work(variant)` and what follows of it cost the mirrors, divided by `amount`: [here, on the peer]."""
        before = self.mirror_cpu_s(variant)
        work(variant)
        self.wait_quiet()
        return [(after - then) / amount for then, after in zip(before, self.mirror_cpu_s(variant))]

    def write_gib(self, variant):
        self._fio(variant, "--rw=write", "--bs=1m", "--size=1g", "--end_fsync=1")
        self._remove_files(variant)

    def metadata(self, variant):
        self.lab.exec(NODE, "python3", "-c", METADATA, FOLDERS[variant], str(METADATA_FILES), timeout_s=300)

    def mirror_cpu_s(self, variant):
        """What the processes behind the variant's mount have used so far: [on the node, on its peer]."""
        name = "holdfast-floor" if variant == "floor" else "holdfast-mirror"
        script = ('for p in $(pidof "$1"); do cat /proc/$p/stat; done | '
                  "awk -v hz=$(getconf CLK_TCK) '{s += $14 + $15} END {print s / hz}'")
        return [float(self.lab.sh(machine, script, name) or 0) for machine in (NODE, PEER)]


def drop_caches():
    """Of this host, whose kernel the machines share."""
    Path("/proc/sys/vm/drop_caches").write_text("3\n")

