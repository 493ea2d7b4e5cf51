# SPDX-License-Identifier: Apache-2.0
"""What makes a Debian system a lab machine: files in the image, and files of each machine."""

import hashlib

from .settings import GATEWAY, HOSTS

# Units that a test machine does not need, or that would reach through to the host: a machine's /sys and /proc/sys are
# writable (the product sets FUSE's write-back limits there), and udev or sysctl at boot would act on the host's devices.
MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "man-db.timer", "systemd-tmpfiles-clean.timer", "xfs_scrub_all.timer",
    "systemd-udevd.service", "systemd-udev-trigger.service", "systemd-udev-settle.service",
    "systemd-udevd-kernel.socket", "systemd-udevd-control.socket", "systemd-hwdb-update.service",
    "systemd-sysctl.service", "systemd-modules-load.service", "systemd-binfmt.service", "kmod-static-nodes.service",
    "modprobe@.service", "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount",
    "dev-hugepages.mount", "systemd-timesyncd.service", "systemd-resolved.service", "systemd-networkd.service", "systemd-logind.service",
    "getty.target", "console-getty.service", "container-getty@.service", "getty@.service",
    "systemd-random-seed.service", "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service",
    "systemd-firstboot.service", "ldconfig.service", "systemd-journal-catalog-update.service",
)

IMAGE_FILES = {
    # Addresses come from inside the machine, as on a real server. nodad: a machine must be reachable once it is up.
    "etc/systemd/system/lab-network.service": """\
[Unit]
Description=Static addresses of this lab machine
DefaultDependencies=no
After=local-fs.target
Before=network-pre.target network.target network-online.target
Wants=network-pre.target network.target network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=ip -batch /etc/lab-network

[Install]
WantedBy=sysinit.target
""",
    "etc/postgresql-common/createcluster.d/lab.conf": """\
initdb_options = '--data-checksums'
ssl = off
""",
}

POSTGRESQL_ACCESS = """\
# the lab's tests
host  all          all  192.0.2.0/24        trust
host  all          all  2001:db8:0:1::/64   trust
host  replication  all  192.0.2.0/24        trust
host  replication  all  10.0.0.0/24         trust
host  all          all  10.0.0.0/24         trust
"""


def image(root):
    """Changes a freshly made system into the lab's image."""
    for name, text in IMAGE_FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    units = root / "etc/systemd/system"
    for unit in MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    (units / "sysinit.target.wants").mkdir(exist_ok=True)
    (units / "sysinit.target.wants/lab-network.service").symlink_to("/etc/systemd/system/lab-network.service")
    (root / "etc/machine-id").write_text("uninitialized\n")


def machine(root, lab, host, members):
    """Writes what is particular to one machine into its own root."""
    (root / "etc/hostname").write_text(f"{host.name}\n")
    (root / "etc/hosts").write_text(_hosts(members))
    # A machine without an id would enable and disable services by preset when it boots for the first time.
    identity = hashlib.sha256(f"{lab} {host.name}".encode()).hexdigest()[:32]
    (root / "etc/machine-id").write_text(f"{identity}\n")
    (root / "etc/lab-network").write_text(_network(host))
    _open_postgresql(root)


def _hosts(members):
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost"]
    for name in members:
        host = HOSTS[name]
        lines += [f"{host.public} {name}", f"{host.public6} {name}"]
        lines += [f"{host.channel} {name}-channel"] if host.channel else []
    return "\n".join(lines) + "\n"


def _network(host):
    lines = ["link set lo up", f"address replace {host.public}/24 dev pub0",
             f"address replace {host.public6}/64 dev pub0 nodad", "link set pub0 up"]
    if host.channel:
        lines += [f"address replace {host.channel}/24 dev chan0", "link set chan0 up"]
    lines += [f"route replace default via {GATEWAY[0].split('/')[0]}",
              f"route replace default via {GATEWAY[1].split('/')[0]} dev pub0"]
    return "\n".join(lines) + "\n"


def _open_postgresql(root):
    config = root / "etc/postgresql/15/main"
    if not config.is_dir():
        return
    (config / "conf.d/lab.conf").write_text("listen_addresses = '*'\n")
    with open(config / "pg_hba.conf", "a", encoding="utf-8") as access:
        access.write(POSTGRESQL_ACCESS)
