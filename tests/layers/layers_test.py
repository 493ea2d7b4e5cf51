#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The rules of the source tree, checked: layers, purity of the cores, sizes, licence lines.

    layers_test.py            checks this checkout, after it has seen each rule catch a violation in a made-up tree
    layers_test.py DIRECTORY  checks another tree
"""

import re
import sys
import tempfile
from pathlib import Path

MAX_LINES = 550

CORES = {"log", "mirror", "cluster", "apps"}
OUTSIDE = {"platform", "capture", "network", "control"}
PROGRAMS = {"daemon", "cli", "witness"}

# What a folder may include besides itself.
MAY_INCLUDE = {
    "base": set(),
    "ports": {"base"},
    "log": {"base", "ports"},
    "mirror": {"base", "ports", "log"},
    "cluster": {"base", "ports"},
    "apps": {"base", "ports"},
    "platform": {"base", "ports"} | CORES,
    "capture": {"base", "ports", "platform"} | CORES,
    "network": {"base", "ports", "platform"} | CORES,
    "control": {"base", "ports", "platform", "network"} | CORES,
    "daemon": {"base", "ports"} | CORES | OUTSIDE,
    "cli": {"base", "ports"} | CORES | OUTSIDE,
    "witness": {"base", "ports"} | CORES | OUTSIDE,
    "sim": {"base", "ports"} | CORES,
}
FOLDERS = set(MAY_INCLUDE)

# Time, disk, network and processes reach the cores through ports only. Standard containers, algorithms and threads'
# locks are fine; what follows is how a program talks to the operating system.
OS_HEADERS = re.compile(
    r"(sys|linux|net|netinet|netpacket|arpa|asm|openssl|systemd|netlink|nftables|boost/asio|curl|bits)/.*|"
    r"(unistd|fcntl|poll|signal|pthread|netdb|dirent|time|sched|errno|dlfcn|mqueue|semaphore|spawn|termios|utime|"
    r"liburing|lmdb|httplib|libpq-fe|ifaddrs|pwd|grp|mntent|ftw|glob|fnmatch|syslog|stdio)\.h|"
    r"cerrno|csignal|ctime|cstdio|filesystem|fstream|iostream|thread|future")
CLOCK_READS = re.compile(
    r"\b(?:system_clock|steady_clock|high_resolution_clock)\b|\bclock_gettime\s*\(|\bgettimeofday\s*\(|"
    r"\bstd::time\s*\(|\b__rdtsc\b|\bstd::random_device\b|\bgetrandom\s*\(")
ERRNO = re.compile(r"(?<![\w.>])errno\b")
ERRNO_FOLDERS = {"platform", "capture", "network"}

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
COMMENT_OR_STRING = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)


def without_comments_and_strings(text):
    """The same lines, with comments and string literals blanked, so that words in them don't count."""
    return COMMENT_OR_STRING.sub(lambda match: "\n" * match.group().count("\n"), text)


def folder_of(path, root):
    """The layer that a file belongs to, or None when no layer rule applies to it."""
    parts = path.relative_to(root).parts
    if parts[0] == "src" and len(parts) > 2:
        return parts[1]
    return "sim" if parts[0] == "sim" else None


def is_test(path):
    return path.stem.endswith("_test") or "test_support" in path.stem


def check_includes(path, folder, text):
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        bracket, header = match.groups()
        target = header.split("/")[0]
        if bracket == '"' and target in FOLDERS and target != folder and target not in MAY_INCLUDE[folder]:
            allowed = ", ".join(sorted(MAY_INCLUDE[folder])) or "nothing else"
            yield number, f'{folder} may not include "{header}": it may include {allowed}'
        if bracket == '"' and "/" not in header and (path.parent / header).exists():
            yield number, f'include "{header}" as "folder/file.h"'
        if folder in CORES and bracket == "<" and not is_test(path) and OS_HEADERS.fullmatch(header):
            yield number, f"{folder} is a core: <{header}> belongs behind a port"


def check_words(path, folder, text):
    if is_test(path):
        return
    for number, line in enumerate(without_comments_and_strings(text).splitlines(), 1):
        if folder in CORES and CLOCK_READS.search(line):
            yield number, f"{folder} is a core: it gets the time and randomness from a port or as an argument"
        if folder not in ERRNO_FOLDERS and ERRNO.search(line):
            yield number, f"errno is turned into an Error in {', '.join(sorted(ERRNO_FOLDERS))} only"


def check_file(path, root):
    text = path.read_text(errors="replace")
    folder = folder_of(path, root)
    is_cpp = path.suffix in (".cc", ".h")
    if folder is not None and folder not in FOLDERS:
        yield 1, f"src/{folder} is no layer: add it to docs/ARCHITECTURE.md and to this test"
    elif is_cpp and folder is not None:
        yield from check_includes(path, folder, text)
        yield from check_words(path, folder, text)
    head = text.splitlines()[:2]
    if text and not any("SPDX-License-Identifier: Apache-2.0" in line for line in (head[:1] if is_cpp else head)):
        yield 1, f"no '{'//' if is_cpp else '#'} SPDX-License-Identifier: Apache-2.0' at the top"
    lines = text.count("\n")
    if lines > MAX_LINES:
        yield lines, f"{lines} lines, the limit is {MAX_LINES}: split it by concept"


def source_files(root):
    for top in ("src", "sim", "bench", "lab", "tests", "tools", "packaging"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix in (".cc", ".h", ".py", ".sh") and path.is_file() and "__pycache__" not in path.parts:
                yield path


def violations(root):
    """One line for each violation, as compilers write them."""
    return [f"{path.relative_to(root)}:{number}: {what}"
            for path in source_files(root) for number, what in check_file(path, root)]


SPDX = "// SPDX-License-Identifier: Apache-2.0\n"
BAD_FILES = {     # file -> (its text, what must be said of it)
    "src/base/a.cc": (SPDX + '#include "ports/clock.h"\n', "base may not include"),
    "src/log/b.cc": (SPDX + '#include "mirror/apply.h"\n', "log may not include"),
    "src/mirror/c.cc": (SPDX + '#include "platform/disk.h"\n', "mirror may not include"),
    "src/cluster/d.h": (SPDX + '#include "log/record.h"\n', "cluster may not include"),
    "src/network/e.cc": (SPDX + '#include "control/plan.h"\n', "network may not include"),
    "src/platform/f.cc": (SPDX + '#include "capture/fuse.h"\n', "platform may not include"),
    "src/log/g.cc": (SPDX + "#include <sys/stat.h>\n", "belongs behind a port"),
    "src/apps/h.cc": (SPDX + "#include <unistd.h>\n", "belongs behind a port"),
    "src/cluster/i.cc": (SPDX + "auto t = std::chrono::steady_clock::now();\n", "gets the time"),
    "src/control/j.cc": (SPDX + "int f() { return errno; }\n", "errno is turned"),
    "src/log/k.h": ("#pragma once\n", "no '// SPDX"),
    "src/log/l.cc": (SPDX + "\n" * MAX_LINES, "the limit is"),
    "src/extras/m.cc": (SPDX, "is no layer"),
    "sim/n.cc": (SPDX + '#include "platform/disk.h"\n', "sim may not include"),
    "tests/o.py": ("print()\n", "no '# SPDX"),
    "tools/p.sh": ("#!/bin/sh\n# a\n# SPDX-License-Identifier: Apache-2.0\n", "no '# SPDX"),
}
GOOD_FILES = {
    "src/mirror/ok.cc": SPDX + '#include <map>\n#include "log/record.h"\n// errno, steady_clock\nauto s = "errno";\n',
    "src/mirror/ok_test.cc": SPDX + "#include <unistd.h>\n",
    "src/platform/ok.cc": SPDX + "#include <cerrno>\nint f() { return errno; }\n",
    "src/base/ok.cc": SPDX + "int g(Error e) { return e.sys_errno; }\n",
    "src/control/ok.cc": SPDX + '#include "network/tls.h"\n#include "cluster/step.h"\n',
    "tests/ok.py": "#!/usr/bin/env python3\n# SPDX-License-Identifier: Apache-2.0\n",
}


def self_test():
    """A checker that can't fail proves nothing: each rule must catch its violation and leave good files alone."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        for name, text in {**{name: bad[0] for name, bad in BAD_FILES.items()}, **GOOD_FILES}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        found = violations(root)
    for name, (_, expected) in BAD_FILES.items():
        if not any(line.startswith(name + ":") and expected in line for line in found):
            sys.exit(f"layers_test: the checker missed '{expected}' in {name}; it said: {found}")
    if wrong := [line for line in found if line.split(":")[0] in GOOD_FILES]:
        sys.exit(f"layers_test: the checker complains about good files: {wrong}")


def main():
    self_test()
    root = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]
    found = violations(root)
    print("\n".join(found) if found else f"layers_test: {len(list(source_files(root)))} files, no violation")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
