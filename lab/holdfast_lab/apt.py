# SPDX-License-Identifier: Apache-2.0
"""Debian packages from wherever the host's own apt gets them.

The image is Debian 12 whatever else the host uses, so only the host's sources of that release made by Debian count.
apt itself is asked for them: it understands every form in which they can be written.
"""

import os
import shlex
from pathlib import Path

from .errors import LabError, run

SUITE = "bookworm"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# How to reach the mirror (proxies, certificates, snapshots with an old date); nothing else of the host's settings.
PASSED_ON = ("Acquire::http", "Acquire::ftp", "Acquire::socks", "Acquire::Retries", "Acquire::Check-Valid-Until",
             "Acquire::Check-Date")
FIELDS = "$(CREATED_BY)|$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(CODENAME)|$(COMPONENT)"


def sources():
    """The host's sources of Debian 12, as a sources.list."""
    found = _indexed_sources()
    if not any(suite == SUITE for _, suite in found):
        run(["apt-get", "update", "-q"])
        found = _indexed_sources()
    if not any(suite == SUITE for _, suite in found):
        raise LabError(f"the host's apt has no source of Debian {SUITE}: add one to /etc/apt and run 'apt-get update'")
    signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
    return "".join(f"deb {signed}{uri} {suite} {' '.join(sorted(components))}\n"
                   for (uri, suite), components in sorted(found.items()))


def _indexed_sources():
    found = {}
    for line in run(["apt-get", "indextargets", "--format", FIELDS]).stdout.splitlines():
        created_by, origin, uri, suite, codename, component = line.split("|")
        if created_by == "Packages" and origin == "Debian" and codename.split("-")[0] == SUITE:
            found.setdefault((uri, suite), set()).add(component)
    return found


def options():
    """The host's way to its mirror, as lines of an apt.conf."""
    dump = run(["apt-config", "dump", "--no-empty"]).stdout.splitlines()
    return [line for line in dump if line.startswith(PASSED_ON)]


def download(names, status_file, target, scratch):
    """Puts the packages that a system with this dpkg status lacks into `target`, verified, and returns their files."""
    for place in ("state/lists/partial", "archives/partial"):
        (scratch / place).mkdir(parents=True, exist_ok=True)
    (scratch / "sources.list").write_text(sources())
    config = scratch / "apt.conf"
    config.write_text("\n".join(options() + [
        f'Dir::State "{scratch}/state";', f'Dir::State::status "{status_file}";', f'Dir::Cache "{scratch}";',
        f'Dir::Etc::sourcelist "{scratch}/sources.list";', 'Dir::Etc::sourceparts "-";',
        'APT::Install-Recommends "false";', 'APT::Sandbox::User "root";']) + "\n")
    environment = {**os.environ, "APT_CONFIG": str(config), "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-q"], env=environment)
    asked = run(["apt-get", "install", "-q", "-y", "--download-only", *names], check=False, env=environment)
    if asked.returncode != 0:
        raise LabError(f"cannot get {shlex.join(names)}: {asked.stderr.strip().splitlines()[-1]}; correct --packages")
    files = sorted((scratch / "archives").glob("*.deb"))
    target.mkdir(parents=True, exist_ok=True)
    return [file.rename(target / file.name) for file in files]
