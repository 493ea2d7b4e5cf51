# SPDX-License-Identifier: Apache-2.0
"""The image: a Debian system made from the listed packages, and layers on top of it; cached by what they are made of.

A layer is a directory that overlayfs puts above the ones below it. A chain of layers is a list of their names, the base
first. Machines only ever read them. Each is built under a scratch name and renamed: a killed build leaves no half image.
"""

import contextlib
import hashlib
import os
import shutil
import time
from pathlib import Path

from . import apt, cgroups, customize, packages, state
from .errors import LabError, run
from .settings import CACHE

VERSION = 1                 # raise it when the recipe below changes: old images are then not used any more
# Layers kept besides those in use, the latest used first: every build of the product makes new ones.
KEPT = {"base": 2, "packages": 6, "product": 6}


def base(say):
    """The chain of the base image, built when it is not in the cache."""
    names = packages.read_list("lab-image")
    key = _digest("base", str(VERSION), *customize.IMAGE_FILES.keys(), *customize.IMAGE_FILES.values(),
                  *customize.MASKED, *names)
    return [_cached(f"base-{key}", lambda scratch: _build_base(names, scratch), say, "base image")]


def with_packages(chain, names, say):
    """The chain with more Debian packages."""
    if not names:
        return chain
    names = sorted(set(names))
    key = _digest("packages", *chain, *names)
    layer = _cached(f"packages-{key}", lambda scratch: _build_packages(chain, names, scratch), say,
                    f"image with {' '.join(names)}")
    return chain + [layer]


def with_debs(chain, files, say):
    """The chain with the product's own packages, installed as a user installs them."""
    contents = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    key = _digest("product", *chain, *contents)
    layer = _cached(f"product-{key}", lambda scratch: _build_debs(chain, files, scratch), say,
                    f"image with {' '.join(file.name for file in files)}")
    return chain + [layer]


def lower_directories(chain):
    """The chain for overlayfs, the uppermost first."""
    return ":".join(str(CACHE / layer / "root") for layer in reversed(chain))


@contextlib.contextmanager
def cache_lock():
    """One builder at a time: the second finds the image ready instead of making it twice."""
    with state.lock(CACHE / "lock"):
        yield


def prune():
    """Removes scratch of killed builds and old layers. Call it under the cache lock."""
    for scratch in CACHE.glob("scratch-*"):
        shutil.rmtree(scratch, ignore_errors=True)
    used = state.layers_in_use()
    for kind, kept in KEPT.items():
        layers = sorted(CACHE.glob(f"{kind}-*"), key=lambda layer: layer.stat().st_mtime, reverse=True)
        for layer in layers[kept:]:
            if layer.name not in used:
                shutil.rmtree(layer, ignore_errors=True)


def _digest(*parts):
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _cached(name, build, say, what):
    if (CACHE / name).is_dir():
        os.utime(CACHE / name)      # lately used: not to be pruned
        return name
    say(f"building the {what} (once)")
    started = time.monotonic()
    scratch = CACHE / f"scratch-{name}-{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        build(scratch)
        finished = scratch / "finished"
        finished.mkdir()
        (scratch / "root").rename(finished / "root")
        # The rename must not reach the disk before the contents. Not sync(): it waits for every file system of the host.
        run(["sync", "--file-system", str(scratch)])
        finished.rename(CACHE / name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    say(f"built the {what} in {time.monotonic() - started:.0f} s")
    return name


def _build_base(names, scratch):
    root = scratch / "root"
    (scratch / "sources.list").write_text(apt.sources())
    settings = [f"--aptopt={line}" for line in apt.options()]
    trimmed = [f"--dpkgopt=path-exclude=/usr/share/{tree}/*" for tree in ("man", "doc", "locale")]
    run(["mmdebstrap", "--variant=apt", "--mode=root", f"--include={','.join(names)}", *settings, *trimmed,
         "--aptopt=APT::Install-Recommends \"false\"", apt.SUITE, str(root), str(scratch / "sources.list")],
        env={"PATH": os.environ["PATH"], "HOME": "/", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"})
    _forget_host(root)
    customize.image(root)
    # With data checksums, which Debian's installation does not switch on: the tests look for torn and stray pages.
    in_root(root, ["sh", "-ec", "pg_dropcluster 15 main && pg_createcluster --locale C.UTF-8 15 main"])


def _forget_host(root):
    """mmdebstrap leaves traces of the machine it ran on: the mirror, the way to it, the resolver, the name."""
    for file in ("etc/apt/sources.list", "etc/apt/apt.conf.d/99mmdebstrap", "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
                 "etc/resolv.conf", "etc/hostname"):
        (root / file).unlink(missing_ok=True)
    for file in (root / "etc/apt/sources.list.d").iterdir():
        file.unlink()


def _build_packages(chain, names, scratch):
    status = next(file for layer in reversed(chain)
                  if (file := CACHE / layer / "root/var/lib/dpkg/status").exists())
    debs = apt.download(names, status, scratch / "debs", scratch / "apt")
    (scratch / "root").mkdir()
    if debs:
        _install(chain, scratch / "debs", ["apt-get", "install", "-y", "--no-install-recommends"], debs, scratch)


def _build_debs(chain, files, scratch):
    (scratch / "debs").mkdir()
    (scratch / "root").mkdir()
    debs = [Path(shutil.copy(file, scratch / "debs")) for file in files]
    try:
        _install(chain, scratch / "debs", ["dpkg", "-i"], debs, scratch)
    except LabError as error:
        raise LabError(f"the product's packages do not install on the lab image (a dependency that is missing in "
                       f"tools/packages.lab-image?): {error}") from None


def _install(chain, directory, command, debs, scratch):
    (scratch / "work").mkdir()
    (scratch / "merged").mkdir()
    overlay = f"lowerdir={lower_directories(chain)},upperdir={scratch}/root,workdir={scratch}/work"
    in_root(scratch / "merged", [*command, *(f"/mnt/{deb.name}" for deb in debs)], overlay=overlay,
            binds=[f"--bind-ro={directory}:/mnt"])
    (scratch / "root/mnt").exists() and shutil.rmtree(scratch / "root/mnt")


# nspawn keeps locks and sockets in /run/systemd: a private, passing one leaves nothing on the host.
_IN_PRIVATE = ('mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd && '
               '{ [ -z "$1" ] || mount -t overlay overlay -o "$1" "$2"; } && shift 2 && exec "$@"')


def in_root(root, argv, *, overlay="", binds=()):
    """Runs a command in a system that is not booted: own processes, /proc and /dev, no network."""
    group = f"holdfast-lab/.build-{os.getpid()}"

    def enter():
        cgroups.create(group)
        cgroups.join(group)
    try:
        run(["unshare", "--mount", "--propagation", "private", "sh", "-ec", _IN_PRIVATE, "sh", overlay, str(root),
             "systemd-nspawn", f"--directory={root}", "--quiet", "--register=no", "--keep-unit", "--private-network",
             "--resolv-conf=off", "--timezone=off", "--link-journal=no", "--pipe", *binds,
             "--setenv=DEBIAN_FRONTEND=noninteractive", "--setenv=LC_ALL=C.UTF-8", *argv],
            preexec_fn=enter, env={"PATH": os.environ["PATH"], "SYSTEMD_SECCOMP": "0"})
    finally:
        cgroups.kill_and_wait(group)
        cgroups.remove(group)
        cgroups.remove_if_empty("holdfast-lab")
