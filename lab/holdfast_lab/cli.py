# SPDX-License-Identifier: Apache-2.0
"""The command line of the lab."""

import argparse
import json
import os
import signal
import sys

from . import cluster, image, lab, machine, network, state
from .errors import LabError
from .settings import HOSTS, NETWORKS, Places, lab_name


def say(text):
    print(f"lab: {text}", file=sys.stderr, flush=True)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))     # so that a half-made lab is removed
    try:
        sys.exit(_dispatch(sys.argv[1:]))
    except LabError as error:
        print(f"lab: error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _dispatch(argv):
    command = None
    if argv[:1] == ["exec"] and "--" in argv:       # what follows belongs to the machine, options included
        at = argv.index("--")
        argv, command = argv[:at], argv[at + 1:]
    options = _parser().parse_args(argv)
    if options.action == "exec" and not command:
        raise LabError("say what to run: 'lab/lab exec n1 -- COMMAND ...'")
    options.command = command
    if os.geteuid() != 0:
        raise LabError("the lab boots machines and needs root: use sudo")
    places = Places(lab_name())
    named = [getattr(options, key) for key in ("machine", "one") if hasattr(options, key)]
    for name in named + getattr(options, "others", []):
        if name not in state.load(places)["machines"]:
            raise LabError(f"there is no machine {name} in lab '{places.lab}': see 'lab/lab status'")
    return options.run(places, options)


def _parser():
    parser = argparse.ArgumentParser(prog="lab/lab", description="Real Debian machines on this one, to try and test "
                                     "Holdfast. LAB=NAME in the environment selects one of several labs.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="COMMAND")
    _add_whole(actions)
    _add_machine(actions)
    _add_network(actions)
    return parser


def _add_whole(actions):
    up = actions.add_parser("up", help="boot the machines: n1 n2 n3, witness w1, client host c1")
    up.add_argument("--nodes", type=int, choices=(2, 3), default=2)
    up.add_argument("--witness", action="store_true")
    up.add_argument("--fs", choices=("ext4", "xfs"), default="ext4", help="file system of the nodes' data disks")
    up.add_argument("--disk", default="4G", help="size of a node's data disk (sparse)")
    up.add_argument("--packages", type=str.split, default=[], help="more Debian packages, in a cached image")
    up.add_argument("--no-product", action="store_true", help="do not install Holdfast's packages")
    up.set_defaults(run=_up)
    form = actions.add_parser("cluster", help="form a cluster with Holdfast's own command; wait until synchronized")
    form.add_argument("--mode", choices=("async", "fsync"), default="async")
    form.add_argument("--protect", action="append", default=[], metavar="DIR")
    form.add_argument("--plugin", action="append", default=[], metavar="NAME")
    form.set_defaults(run=lambda places, options: cluster.form(places, options, say))
    status = actions.add_parser("status", help="the machines and the cuts")
    status.add_argument("--json", action="store_true")
    status.set_defaults(run=_status)
    build = actions.add_parser("image", help="only build the cached image")
    build.add_argument("--packages", type=str.split, default=[])
    build.set_defaults(run=_image)
    actions.add_parser("down", help="remove the lab; nothing is left behind").set_defaults(
        run=lambda places, options: lab.down(places))


def _add_machine(actions):
    texts = {"exec": ("run a command in a machine: exec n1 -- COMMAND ...", _exec),
             "freeze": ("stop all processes of a machine", lambda p, o: machine.freeze(p, o.machine)),
             "thaw": ("let them go on", lambda p, o: machine.thaw(p, o.machine)),
             "powercut": ("cut a machine's power: what was not synchronized to disk is lost", _powercut),
             "boot": ("boot a machine whose power was cut", lambda p, o: lab.boot(p, o.machine, say))}
    for name, (text, run) in texts.items():
        action = actions.add_parser(name, help=text)
        action.add_argument("machine", choices=HOSTS, metavar="MACHINE")
        action.set_defaults(run=run)
        if name == "powercut":
            action.add_argument("--json", action="store_true", help="print the time of the cut")


def _machines(text):
    names = text.split(",")
    if unknown := [name for name in names if name not in HOSTS]:
        raise argparse.ArgumentTypeError(f"there is no machine '{unknown[0]}': they are {', '.join(HOSTS)}")
    return names


def _add_network(actions):
    for name, text, run in (("cut", "drop all frames between two machines", network.cut),
                            ("heal", "end a cut", network.heal)):
        action = actions.add_parser(name, help=text)
        action.add_argument("one", choices=HOSTS, metavar="MACHINE")
        action.add_argument("others", type=_machines, metavar="MACHINE[,MACHINE...]")
        action.add_argument("--net", choices=NETWORKS, help="default: both")
        action.add_argument("--one-way", action="store_true", help="only frames from the first to the second")
        action.set_defaults(run=lambda p, o, run=run: run(p, o.one, o.others, o.net, o.one_way))


def _up(places, options):
    lab.up(places, options, say)


def _image(places, options):
    with image.cache_lock():
        image.with_packages(image.base(say), options.packages, say)


def _exec(places, options):
    machine.execute(places, options.machine, options.command)


def _powercut(places, options):
    cut_at, disk_at = machine.cut_power(places, options.machine)
    if options.json:
        print(json.dumps({"machine": options.machine, "cut_unix_ns": cut_at, "disk_unix_ns": disk_at}))


def _status(places, options):
    found = lab.status(places)
    if options.json:
        print(json.dumps(found, indent=1))
        return
    print(f"lab {found['lab']}")
    for name, each in found["machines"].items():
        print(f"  {name}  {each['power']:8} public {each['public']:11} channel {each['channel'] or '-':10} {each['fs']}")
    for source, target, net in found["cuts"]:
        print(f"  cut: {source} -> {target} on {net}")
