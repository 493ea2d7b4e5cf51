# SPDX-License-Identifier: Apache-2.0
"""The lab's own tests: each promise of lab/README.md, on real machines. Needs root; the image is built when missing."""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PREFIX = f"t{os.getpid()}"              # labs of other runs on this host are not ours

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the lab needs root: run the tests with sudo")


def lab(name, *argv, stdin="", check=True, timeout=120, **environment):
    done = subprocess.run([str(CHECKOUT / "lab/lab"), *argv], input=stdin, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=timeout, check=False,
                          env={**os.environ, "LAB": f"{PREFIX}-{name}", **environment})
    if check:
        assert done.returncode == 0, f"lab {' '.join(argv)}: {done.stderr}"
    return done


def sh(name, machine, script, **options):
    return lab(name, "exec", machine, "--", "sh", "-c", script, **options)


def pings(name, source, target):
    return lab(name, "exec", source, "--", "ping", "-c1", "-W2", "-q", target, check=False).returncode == 0


def power(name):
    status = json.loads(lab(name, "status", "--json").stdout)
    return {machine: each["power"] for machine, each in status["machines"].items()}


def traces(name):
    """All that a lab could leave behind on the host."""
    full = f"{PREFIX}-{name}"
    netns = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    loops = subprocess.run(["losetup", "--list", "--noheadings"], capture_output=True, text=True, check=True).stdout
    found = [f"netns {line}" for line in netns.splitlines() if f".{full}" in line]
    found += [f"loop {line}" for line in loops.splitlines() if f"/{full}/" in line]
    found += [f"mount {line}" for line in Path("/proc/mounts").read_text().splitlines() if full in line]
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"/{full}/" in (process / "cgroup").read_text() and not is_zombie(process):
                found.append(f"process {process.name} {(process / 'comm').read_text().strip()}")
    found += [f"directory {path}" for path in (Path("/run/holdfast-lab") / full, Path("/var/tmp/holdfast-lab") / full)
              if path.exists()]
    found += [f"control group {path}" for path in Path("/sys/fs/cgroup").glob(f"**/holdfast-lab/{full}")]
    return found


def is_zombie(process):
    return (process / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"


@contextlib.contextmanager
def running(name, *options):
    lab(name, "up", "--no-product", *options, timeout=600)
    try:
        yield name
    finally:
        lab(name, "down")


@pytest.fixture(scope="module")
def pair():
    with running("pair", "--witness") as name:
        yield name


def test_machines_run_a_complete_debian(pair):
    assert power(pair) == {"n1": "on", "n2": "on", "w1": "on", "c1": "on"}
    assert sh(pair, "n2", "systemctl is-system-running; hostname").stdout.split() == ["running", "n2"]
    assert "on" in sh(pair, "c1", "psql -h n1 -U postgres -Atc 'show data_checksums'").stdout
    assert pings(pair, "c1", "2001:db8:0:1::12") and pings(pair, "w1", "10.0.0.1")


def test_exec_passes_status_and_streams(pair):
    done = sh(pair, "n1", "cat; echo problem >&2; exit 7", stdin="in\n", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "in\n", "problem\n")
    assert lab(pair, "exec", "n1", "--", "printf", "%s|", "a b", "--json").stdout == "a b|--json|"
    assert "HOME=/root" in (variables := lab(pair, "exec", "n1", "--", "env").stdout) and "LAB=" not in variables


def test_killed_exec_leaves_no_command_behind(pair):
    client = subprocess.Popen([str(CHECKOUT / "lab/lab"), "exec", "n1", "--", "sleep", "987654"],
                              env={**os.environ, "LAB": f"{PREFIX}-{pair}"})
    wait_for(lambda: "987654" in sh(pair, "n1", "ps ax | grep '[9]87654'", check=False).stdout)
    client.kill()
    client.wait()
    wait_for(lambda: "987654" not in sh(pair, "n1", "ps ax | grep '[9]87654'", check=False).stdout)


def wait_for(condition, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def test_data_disk_can_do_what_the_product_needs(pair):
    """File handles, trusted attributes, detached mounts, FUSE and a packet filter of the machine's own."""
    probe = (Path(__file__).parent / "machine_probe.py").read_text()
    done = lab(pair, "exec", "n1", "--", "python3", "-", stdin=probe, check=False)
    assert done.returncode == 0, done.stderr


def test_cut_and_heal(pair):
    lab(pair, "cut", "n1", "n2", "--net", "channel")
    assert not pings(pair, "n1", "n2-channel") and not pings(pair, "n2", "n1-channel")
    assert pings(pair, "n1", "192.0.2.12") and pings(pair, "n1", "w1-channel")
    lab(pair, "heal", "n1", "n2", "--net", "channel")
    assert pings(pair, "n1", "n2-channel") and pings(pair, "n2", "n1-channel")
    lab(pair, "cut", "n1", "w1", "--one-way")
    counted = "cat /proc/net/snmp | awk '/^Icmp:/ {line=$2} END {print line}'"
    before = int(sh(pair, "w1", counted).stdout)
    assert not pings(pair, "n1", "10.0.0.20"), "the request does not arrive"
    assert int(sh(pair, "w1", counted).stdout) == before
    assert {(a, b) for a, b, _ in json.loads(lab(pair, "status", "--json").stdout)["cuts"]} == {("n1", "w1")}
    lab(pair, "heal", "n1", "w1")
    assert pings(pair, "n1", "10.0.0.20")


def test_freeze_and_thaw(pair):
    ticking = "setsid sh -c 'while :; do echo . >> /run/ticks; sleep 0.01; done' >/dev/null 2>&1 &"
    sh(pair, "n2", ticking)
    ticks = Path(f"/proc/{init_pid(pair, 'n2')}/root/run/ticks")
    wait_for(ticks.exists)
    lab(pair, "freeze", "n2")
    before = ticks.stat().st_size
    time.sleep(0.2)             # the claim is that nothing happens in this time
    assert ticks.stat().st_size == before and power(pair)["n2"] == "frozen"
    refused = lab(pair, "exec", "n2", "--", "true", check=False)
    assert refused.returncode == 1 and "lab/lab thaw n2" in refused.stderr
    lab(pair, "thaw", "n2")
    wait_for(lambda: ticks.stat().st_size > before)


def init_pid(name, machine):
    """The host's pid of a machine's init."""
    group = f"/holdfast-lab/{PREFIX}-{name}/{machine}"
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            nesting = [line for line in (process / "status").read_text().splitlines() if line.startswith("NSpid:")]
            if nesting[0].split()[2:] == ["1"] and group in (process / "cgroup").read_text():
                return int(process.name)
    raise AssertionError(f"{machine} has no init")


def test_frozen_machine_loses_power(pair):
    lab(pair, "freeze", "w1")
    lab(pair, "powercut", "w1")
    assert power(pair)["w1"] == "off"
    lab(pair, "boot", "w1")
    assert pings(pair, "c1", "w1")


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_powercut_loses_what_was_not_synced_and_nothing_else(pair, kind):
    if kind == "ext4":
        powercut(pair, kind)
    else:
        with running("xfs", "--fs", "xfs", "--disk", "1G") as name:
            powercut(name, kind)


STUCK_FUSE = """
import ctypes, os, subprocess
os.makedirs("/run/stuck")
fuse = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0".encode()
assert ctypes.CDLL(None).mount(b"stuck", b"/run/stuck", b"fuse.stuck", 0, options) == 0
quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, start_new_session=True)
subprocess.Popen(["sleep", "1000"], pass_fds=[fuse], **quiet)
subprocess.Popen(["ls", "/run/stuck"], **quiet)
"""


def powercut(name, kind):
    assert sh(name, "n1", "stat -f -c %T /srv").stdout.strip() == {"ext4": "ext2/ext3", "xfs": "xfs"}[kind]
    # Two obstacles that must not hold up the cut: a file system that never answers, and a process that never ends.
    lab(name, "exec", "n1", "--", "python3", "-c", STUCK_FUSE)
    sh(name, "n1", "setsid dd if=/dev/zero of=/srv/endless bs=64k count=8000 conv=fsync >/dev/null 2>&1 & "
       "for d in /srv /etc; do echo kept > $d/synced; sync $d/synced $d; echo lost > $d/unsynced; done")
    started = time.time_ns()
    cut = json.loads(lab(name, "powercut", "n1", "--json").stdout)
    assert power(name)["n1"] == "off" and not pings(name, "c1", "n1")
    lab(name, "boot", "n1")
    for directory in ("/srv", "/etc"):
        assert sh(name, "n1", f"cat {directory}/synced").stdout == "kept\n"
        assert sh(name, "n1", f"cat {directory}/unsynced", check=False).stdout == ""
    assert sh(name, "n1", "systemctl is-system-running").stdout == "running\n"
    assert pings(name, "n1", "10.0.0.2") and pings(name, "c1", "n1")
    # Some 5 ms on an idle host. The bound is there for what would wait for the disk, so it can be generous.
    assert started < cut["cut_unix_ns"] < cut["disk_unix_ns"] < cut["cut_unix_ns"] + 250_000_000


def test_labs_side_by_side_do_not_meet(pair):
    with running("other"):
        sh("other", "n1", "echo other > /srv/mark")
        assert sh(pair, "n1", "cat /srv/mark", check=False).returncode != 0
        assert not pings("other", "n1", "10.0.0.20"), "w1 is a machine of the first lab only"
        lab("other", "cut", "n1", "n2")
        assert pings(pair, "n1", "n2-channel")
    assert traces("other") == []
    assert power(pair)["n1"] == "on"


def test_down_cleans_up_after_a_killed_up():
    up = subprocess.Popen([str(CHECKOUT / "lab/lab"), "up", "--no-product"], stderr=subprocess.DEVNULL,
                          env={**os.environ, "LAB": f"{PREFIX}-killed"})
    wait_for(lambda: any(trace.startswith("loop") for trace in traces("killed")), timeout_s=300)
    up.send_signal(signal.SIGKILL)
    up.wait()
    assert traces("killed") != []
    lab("killed", "down")
    assert traces("killed") == []


def test_failed_up_cleans_up_after_itself():
    failed = lab("failed", "up", "--no-product", "--disk", "1M", check=False)
    assert failed.returncode == 1 and failed.stderr.startswith("lab: ")
    assert traces("failed") == []


def test_mistakes_get_one_line_with_the_next_step(tmp_path):
    for argv, hint in ((["status"], "lab/lab up"), (["powercut", "n1"], "lab/lab up"),
                       (["up", "--disk", "many", "--no-product"], "4G")):
        done = lab("mistake", *argv, check=False)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and hint in done.stderr
    done = lab("mistake", "up", check=False, HOLDFAST_DEBS=str(tmp_path))
    assert done.returncode == 1 and "./dev package" in done.stderr
    assert traces("mistake") == []


def test_down_leaves_nothing_behind():
    with running("gone", "--witness"):
        lab("gone", "cut", "n1", "n2")
        lab("gone", "freeze", "n2")
    assert traces("gone") == []
