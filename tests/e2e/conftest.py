# SPDX-License-Identifier: Apache-2.0
"""One lab for all tests of the run; each test gets it whole: both nodes up, synchronized, mode fsync, no cuts.

    pytest tests/e2e [-m ci] [--cuts N] [--lab NAME] [--keep] [--fault NAME | --faults]
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

import ledger  # noqa: E402
import postgres  # noqa: E402
from cluster import Cluster  # noqa: E402
from labs import CHECKOUT, Lab, LabFailure  # noqa: E402

EVIDENCE = CHECKOUT / "build/e2e"
TRIO = ("n1", "n2", "n3")


def pytest_addoption(parser):
    parser.addoption("--cuts", type=int, default=2, help="power cuts of the active in fsync mode (default 2)")
    parser.addoption("--flaps", type=int, default=150, help="seconds up and seconds down of a flapping link (default 150)")
    parser.addoption("--minutes", type=int, default=3, help="of memory pressure (default 3)")
    parser.addoption("--lab", help="use this lab, which is up and formed; it is not taken down")
    parser.addoption("--keep", action="store_true", help="leave the lab up at the end")
    parser.addoption("--fault", metavar="NAME", help="only what shows this fault")
    parser.addoption("--faults", action="store_true", help="list the faults and end")


def pytest_configure(config):
    config.addinivalue_line("markers", "ci: runs in CI")
    config.addinivalue_line("markers", "long: takes minutes; not in CI")
    config.addinivalue_line("markers", "fault(name): shows what a fault does; run it with ./dev fault NAME")
    if config.getoption("--faults"):
        return
    if os.geteuid() != 0:
        raise pytest.UsageError("the lab boots machines and needs root: sudo ./dev e2e")
    shutil.rmtree(EVIDENCE, ignore_errors=True)


def pytest_generate_tests(metafunc):
    if "cut_number" in metafunc.fixturenames:
        metafunc.parametrize("cut_number", range(1, metafunc.config.getoption("cuts") + 1))


def faults_of(item):
    return {mark.args[0] for mark in item.iter_markers("fault")}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    wanted = config.getoption("--fault")
    if not wanted and not config.getoption("--faults"):
        return
    known = {name: item for item in reversed(items) for name in faults_of(item)}
    if config.getoption("--faults"):
        for name in sorted(known):
            print(f"{name:28} {(known[name].function.__doc__ or known[name].name).strip().splitlines()[0]}")
        items.clear()
    elif wanted not in known:
        raise pytest.UsageError(f"no fault is named '{wanted}': ./dev fault --list names them")
    else:
        items[:] = [item for item in items if wanted in faults_of(item)]


def pytest_sessionfinish(session, exitstatus):
    if session.config.getoption("--faults") and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = 0


class Ground:
    """The lab of this run. When a test leaves it beyond repair, the next one gets a new one."""

    def __init__(self, name, own):
        self.lab, self.own = Lab(name), own
        self.cluster = Cluster(self.lab)

    def form(self):
        self.lab.up("--witness")
        self.lab.run_shown("cluster", "--mode", "fsync", "--plugin", "postgresql", timeout_s=400)
        self.furnish()

    def furnish(self):
        active, _ = self.cluster.wait_synchronized()
        self.cluster.cli(active, "config", "set", "failures_limit", "0")    # the tests make nodes fail all the time
        postgres.create_ledger_database(self.lab, active)
        ledger.deploy(self.lab)
        ledger.set_up_tables(self.lab)
        postgres.checkpoint(self.lab, active)       # making a database is not part of any recovery that is timed

    def is_whole(self):
        """A quick look, so that a test after a harmless one need not wait."""
        found = self.lab.picture()
        if found["cuts"] or any(machine["power"] != "on" for machine in found["machines"].values()):
            return False
        try:
            answers = [self.cluster.status_of(node) for node in self.cluster.nodes]
        except (LabFailure, subprocess.TimeoutExpired):
            return False
        return all(status["cluster"]["mode"] == "fsync" and self.cluster.active_in(status) and not status["plan"] and
                   status["automatic_failover"]["available"] and all(vote["reachable"] for vote in status["votes"]) and
                   all((application["state"], application["health"]) == ("running", "healthy")
                       for application in status["applications"])
                   for status in answers)

    def restore(self):
        """Whatever the last test did: power, links, daemons, mode, and both nodes synchronized again."""
        if self.is_whole():
            return
        self.lab.heal_all()
        for machine, each in self.lab.machines().items():
            if each["power"] == "frozen":
                self.lab.thaw(machine)
            elif each["power"] == "off":
                self.lab.boot(machine)
        for node in self.cluster.nodes:
            self.lab.sh(node, "systemctl unmask --runtime --quiet holdfastd holdfast-mirror;"
                              "systemctl kill --signal=CONT holdfastd 2>/dev/null || true;"
                              "systemctl reset-failed holdfastd holdfast-mirror 2>/dev/null || true;"
                              "systemctl start holdfast-mirror holdfastd")
        self.cluster.wait_synchronized(120)
        if self.cluster.status()["cluster"]["mode"] != "fsync":
            self.cluster.set_mode("fsync")
        self.cluster.wait_automatic_failover(60)
        self.cluster.wait(self.is_whole, "every vote counts and the application is healthy, on both nodes' word", 30)

    def start_over(self):
        if not self.own:
            raise LabFailure("the lab given with --lab can't be repaired")
        self.lab.down()
        self.form()


@pytest.fixture(scope="session")
def ground(request):
    name = request.config.getoption("lab")
    ground = Ground(name or f"e2e-{os.getpid()}", own=name is None)
    try:
        if ground.own:
            ground.form()
        else:
            ground.furnish()
        yield ground
    finally:
        if ground.own and not request.config.getoption("keep"):
            ground.lab.down()


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    setattr(item, f"report_{report.when}", report)


@pytest.fixture
def cluster(request, ground):
    """The cluster, whole. After a failed test, its evidence is kept before anything is repaired."""
    try:
        ground.restore()
    except (LabFailure, KeyError) as failure:
        keep_evidence(ground.cluster, f"before-{request.node.name}")
        print(f"the last test left the lab beyond repair ({failure}); starting over", file=sys.stderr)
        ground.start_over()
    yield ground.cluster
    report = getattr(request.node, "report_call", None)
    if report is not None and report.failed:
        keep_evidence(ground.cluster, request.node.name)


@pytest.fixture
def lab(cluster):
    return cluster.lab


@pytest.fixture
def clients(request, cluster):
    """8 ledger clients at work on the active; the test stops them."""
    run = "".join(letter if letter.isalnum() else "-" for letter in request.node.name) + f"-{os.getpid()}"
    with ledger.Clients(cluster.lab, run) as clients:
        clients.wait_served_by(cluster.active())
        clients.wait_commits(100)
        yield clients


@pytest.fixture
def trio(request):
    """Three nodes without a witness in a lab of their own; the test module's FOLDER is protected."""
    lab = Lab(f"{request.module.__name__.removeprefix('test_').replace('_', '-')}-{os.getpid()}")
    cluster = Cluster(lab, TRIO)
    try:
        lab.up("--nodes", "3")
        lab.run_shown("cluster", "--mode", "fsync", "--protect", request.module.FOLDER, timeout_s=400)
        yield cluster
        report = getattr(request.node, "report_call", None)
        if report is not None and report.failed:
            keep_evidence(cluster, request.node.name)
    finally:
        if not request.config.getoption("keep"):
            lab.down()


def keep_evidence(cluster, name):
    directory = EVIDENCE / "".join(letter if letter.isalnum() else "-" for letter in name)
    try:
        last = cluster.collect_journals(directory)
        print(f"\njournals, status and network of each machine: {directory}\n" + "\n".join(last))
    except (LabFailure, OSError) as trouble:
        print(f"\njournals: {trouble}")
