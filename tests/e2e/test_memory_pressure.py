# SPDX-License-Identifier: Apache-2.0
"""The application is short of memory, for its pages of the protected folder too: it is slow, and nothing ever stands still."""

from pathlib import Path

import folders
import memory_limit
import pytest
import trees
from labs import wait_until

FOLDER, COUNTERS, UNIT = "/srv/pressed", "/run/pressure", "pressed-application"
PROGRAM = "/opt/holdfast-tests/pressure_application.py"
LIMIT_BYTES = 64 << 20      # of 150 MiB that it keeps dirty
STANDS_STILL_S = 60         # a round takes seconds
LOOK_EACH_S = 10


@pytest.fixture
def folder(cluster):
    with folders.protected(cluster, FOLDER) as nodes:
        yield nodes


def rounds(lab, node):
    lines = lab.sh(node, f"systemctl is-active --quiet {UNIT} || journalctl --no-pager -u {UNIT} >&2 && "
                         f"cd {COUNTERS}; for n in *; do echo $n $(cat $n); done").splitlines()
    return {name: int(count) for name, count in (line.split() for line in lines if " " in line)}


@pytest.mark.long
@pytest.mark.fault("memory-pressure")
def test_nothing_stands_still_without_memory(request, cluster, lab, folder):
    """Writers, mappings and small files under a memory limit, with kills for want of memory, for --minutes (default 3)."""
    if not memory_limit.is_possible():
        pytest.skip("this host bounds no memory")
    active, passive = folder
    epoch = cluster.status()["lease"]["epoch"]
    lab.put(active, PROGRAM, (Path(__file__).parent / "pressure_application.py").read_text())
    mark = f"HOLDFAST_PRESSED={lab.name}"
    with memory_limit.limited(f"holdfast-pressure-{lab.name}", LIMIT_BYTES) as take:
        lab.sh(active, f"mkdir -p {COUNTERS}; systemd-run --quiet --unit={UNIT} --property=OOMPolicy=continue --setenv={mark} "
                       f"python3 {PROGRAM} {FOLDER} {COUNTERS}")
        try:
            take(mark)
            take(mark)      # who was started in between
            first = rounds_of_all(lab, active)
            before = first
            for _ in range(request.config.getoption("--minutes") * 60 // LOOK_EACH_S):
                before = wait_for_all(cluster, lab, active, before)
        finally:
            lab.sh(active, f"systemctl kill --signal=KILL {UNIT}; systemctl stop {UNIT} 2>/dev/null || true", check=False)
    print({name: before[name] - first.get(name, 0) for name in before})
    assert before.get("killed", 0) > 0, "nobody was ever killed for want of memory: that was no pressure"
    assert cluster.wait_automatic_failover(120) == (active, passive)
    assert cluster.status()["lease"]["epoch"] == epoch, "the role moved"
    trees.wait_equal(cluster, FOLDER, 120)


def rounds_of_all(lab, node):
    return wait_until(lambda: len(done := rounds(lab, node)) >= 5 and done, "each has done a round", STANDS_STILL_S)


def wait_for_all(cluster, lab, node, before):
    """Until LOOK_EACH_S are over and everybody has got on since `before`."""
    lab.sh(node, f"sleep {LOOK_EACH_S}")
    names = [name for name in before if name != "killed"]
    return wait_until(lambda: all((now := rounds(lab, node)).get(name, 0) > before[name] for name in names) and now,
                      f"everybody gets on, beyond {before}", STANDS_STILL_S, cluster.evidence)
