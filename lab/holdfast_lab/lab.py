# SPDX-License-Identifier: Apache-2.0
"""The whole lab: up, status, down."""

import contextlib
import shutil
import time

from . import cgroups, disks, image, machine, network, product, state
from .errors import LabError
from .settings import DISKS, HOSTS, RUN, is_data_node

SMALL_DISK = 1 << 30        # for machines without data


def up(places, options, say):
    started = time.monotonic()
    names = [f"n{i + 1}" for i in range(options.nodes)] + (["w1"] if options.witness else []) + ["c1"]
    size = disks.size_in_bytes(options.disk)
    with state.lock(state.lab_lock_file(places)):
        if places.state.exists() or places.disks.exists():
            raise LabError(f"lab '{places.lab}' is up already, or was not taken down: 'lab/lab down' first")
        try:
            config = {"machines": {}, "layers": {}}
            places.state.mkdir(parents=True)
            places.disks.mkdir(parents=True)
            for name in names:
                config["machines"][name] = {"fs": options.fs if is_data_node(name) else "ext4",
                                            "disk": size if is_data_node(name) else SMALL_DISK}
            with image.cache_lock():
                config["layers"] = _layers(names, options, say)
                state.save(places, config)
                image.prune()
            say(f"booting {' '.join(names)}")
            network.create(places)
            machine.wait_all([machine.Boot(places, name) for name in names])
        except BaseException:
            _remove(places)
            raise
    say(f"lab '{places.lab}' is up after {time.monotonic() - started:.1f} s")


def _layers(names, options, say):
    """The chain of image layers of each machine."""
    debs = {} if options.no_product else {name: product.package_for(name) for name in names}   # fail before building
    common = image.with_packages(image.base(say), options.packages, say)
    chains = {}
    for name in names:
        deb = debs.get(name)
        chains[name] = image.with_debs(common, [deb], say) if deb else common
    return chains


def boot(places, name, say):
    started = time.monotonic()
    with state.lock(places.machine(name) / "lock"):
        machine.require(places, name, "off")
        disks.wait_detached(places.disk(name))
        try:
            machine.wait_all([machine.Boot(places, name)])
        except BaseException:
            machine.switch_off(places, name)
            raise
    say(f"{name} is up after {time.monotonic() - started:.1f} s")


def status(places):
    config = state.load(places)
    machines = {}
    for name, settings in config["machines"].items():
        host = HOSTS[name]
        machines[name] = {"power": machine.power(places, name), "fs": settings["fs"], "public": host.public,
                          "public6": host.public6, "channel": host.channel,
                          "console": str(machine.console(places, name))}
    return {"lab": places.lab, "machines": machines, "cuts": network.cuts(places)}


def down(places):
    with state.lock(state.lab_lock_file(places)):
        _remove(places)


def _remove(places):
    """Finds everything by the lab's name, not by what a command recorded: that command may have been killed."""
    group = f"holdfast-lab/{places.lab}"
    cgroups.kill_and_wait(group)
    cgroups.remove(group)
    cgroups.remove_if_empty("holdfast-lab")
    network.destroy(places)
    for disk in places.disks.glob("*.disk"):
        disks.wait_detached(disk)
    for directory in (places.disks, places.state):
        if directory.exists():
            shutil.rmtree(directory)
    state.lab_lock_file(places).unlink(missing_ok=True)
    for parent in (DISKS, RUN):
        with contextlib.suppress(OSError):
            parent.rmdir()      # fails while there are other labs
