# SPDX-License-Identifier: Apache-2.0
"""A protected folder of a test's own, beside the application's."""

import contextlib

UNPROTECTED_WITHIN_S = 60


@contextlib.contextmanager
def protected(cluster, folder, prepare="", patience_s=180):
    """`folder` is protected on both nodes; `prepare` is a script that makes its contents before ($1: the folder). Yields
    (active, passive), synchronized within `patience_s`. At the end it is gone, whatever the test left cut, slow or off."""
    lab = cluster.lab
    active, _ = cluster.wait_automatic_failover()
    lab.sh(active, f'mkdir -p "$1"; {prepare}', folder, timeout_s=patience_s)
    cluster.cli(active, "protect", folder, timeout_s=patience_s)
    try:
        yield cluster.wait_automatic_failover(patience_s)
    finally:
        make_whole(cluster)
        cluster.cli(cluster.active(), "unprotect", folder, "--yes", timeout_s=120)
        for node in cluster.nodes:
            cluster.wait(lambda n=node: is_bare(lab, n, folder), f"{node} covers {folder} no more", UNPROTECTED_WITHIN_S)
            lab.sh(node, 'chattr -R -f -i -a "$1" || true; rm -rf "$1"', folder, timeout_s=patience_s)


def is_bare(lab, node, folder):
    """Neither captured nor covered. Asked of the folder itself: a list of mounts that is read while it changes may lack one."""
    script = 'case $(stat -f -c %T "$1") in *fuse*) exit 1 ;; esac; test -w "$1"'
    return lab.exec(node, "sh", "-c", script, "sh", folder, check=False).returncode == 0


def make_whole(cluster):
    lab = cluster.lab
    lab.heal_all()
    for machine, each in lab.machines().items():
        if each["power"] == "off":
            lab.boot(machine)
    for node in cluster.nodes:
        lab.sh(node, "tc qdisc del dev chan0 root 2>/dev/null || true; systemctl start holdfast-mirror holdfastd")
    cluster.wait_synchronized(180)


@contextlib.contextmanager
def mirror_stopped(cluster, node):
    """The node's part of the product is down; it is synchronized again when the block has ended."""
    lab = cluster.lab
    lab.heal_all()
    lab.sh(node, "systemctl stop holdfastd holdfast-mirror")
    try:
        yield
    finally:
        lab.sh(node, "systemctl start holdfast-mirror holdfastd")
        cluster.wait_automatic_failover(120)
