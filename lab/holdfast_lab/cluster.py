# SPDX-License-Identifier: Apache-2.0
"""Forms a cluster with the product's own command, step by step as an administrator does."""

import json
import time

from . import machine, state
from .errors import LabError
from .settings import HOSTS, SERVICE_ADDRESS, is_data_node

TIMEOUT_S = 300
POLL_S = 0.25


def form(places, options, say):
    started = time.monotonic()
    names = list(state.load(places)["machines"])
    nodes = [name for name in names if is_data_node(name)]
    first, others = nodes[0], nodes[1:]
    _step(places, say, first, ["holdfast", "init", "--name", places.lab, "--node", first, "--channel",
                               HOSTS[first].channel, "--public", SERVICE_ADDRESS, "--mode", options.mode])
    for name in others:
        token = _step(places, say, first, ["holdfast", "token"])
        _step(places, say, name, ["holdfast", "join", HOSTS[first].channel, "--token", "-", "--node", name,
                                  "--channel", HOSTS[name].channel], stdin=token)
    if "w1" in names:
        token = _step(places, say, first, ["holdfast", "token", "--witness"])
        _step(places, say, "w1", ["holdfast-witness", "join", HOSTS[first].channel, "--token", "-"], stdin=token)
    for directory in options.protect:
        _step(places, say, first, ["mkdir", "-p", directory])
        _step(places, say, first, ["holdfast", "protect", directory])
    for plugin in options.plugin:
        _step(places, say, first, ["holdfast", "protect", plugin])
    _wait_synchronized(places, say, first, len(others))
    say(f"cluster synchronized after {time.monotonic() - started:.1f} s")


def _step(places, say, name, argv, stdin=""):
    say(f"{name}# {' '.join(argv)}")
    done = machine.capture(places, name, argv, stdin=stdin, timeout_s=120)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip() or "no message"
        raise LabError(f"{name}: '{' '.join(argv)}' failed with {done.returncode}: {words}")
    return done.stdout


def _wait_synchronized(places, say, first, wanted):
    deadline = time.monotonic() + TIMEOUT_S
    shown = last = ""
    while time.monotonic() < deadline:
        done = machine.capture(places, first, ["holdfast", "status", "--json"], timeout_s=30)
        last = done.stdout or done.stderr
        passive = _passive_nodes(done.stdout) if done.returncode == 0 else []
        if len(passive) == wanted and all(node.get("synchronized") is True for node in passive):
            return
        progress = ", ".join(_progress(node) for node in passive) or "no passive node yet"
        if progress != shown:
            say(f"waiting: {progress}")
            shown = progress
        time.sleep(POLL_S)
    raise LabError(f"the cluster is not synchronized after {TIMEOUT_S} s; see 'lab/lab exec {first} -- holdfast "
                   f"events'; its last status:\n{last.strip()}")


def _passive_nodes(text):
    try:
        return [node for node in json.loads(text)["nodes"] if node.get("role") != "active"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _progress(node):
    words = [str(node.get("name"))]
    words.append("synchronized" if node.get("synchronized") else str(node.get("state") or "not synchronized"))
    for key in ("sync_percent", "percent", "progress"):
        if isinstance(node.get(key), (int, float)):
            words.append(f"{node[key]:.0f} %")
            break
    return " ".join(words)
