# SPDX-License-Identifier: Apache-2.0
"""Whether the nodes' protected folders are equal."""

import ast
import concurrent.futures
import os
import re

from labs import CHECKOUT, LabFailure

PROGRAM = "/opt/holdfast-tests/tree_digest.py"
EQUAL = "/opt/holdfast-tests/equal"
NAME = re.compile(r"""b('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")
MOST_NAMES = 500        # that fit on a command line


def run(lab, node, *argv, timeout_s=900):
    lab.put(node, PROGRAM, (CHECKOUT / "tests/lib/tree_digest.py").read_text())
    return lab.exec(node, "python3", PROGRAM, *argv, timeout_s=timeout_s).stdout.splitlines()


def digest(lab, node, folder, names=(), timeout_s=900):
    return run(lab, node, folder, *names, timeout_s=timeout_s)


def lines_that_may_differ(lab, nodes, folder):
    """Of each node. Most of a big tree is equal: its lines stay where they are, only hashes of them come here."""
    with concurrent.futures.ThreadPoolExecutor() as at_once:
        hashes = [set(lines) for lines in at_once.map(lambda node: run(lab, node, "--summary", folder), nodes)]
    if hashes[0] == hashes[1]:
        return [[], []]
    for node in nodes:
        lab.put(node, EQUAL, "\n".join(hashes[0] & hashes[1]))
    return [run(lab, node, "--except", EQUAL, folder) for node in nodes]


def differing_lines(lab, nodes, folder, names=()):
    """As a diff shows them: - is on the first node only, + on the second."""
    both = [digest(lab, node, folder, names) for node in nodes] if names else lines_that_may_differ(lab, nodes, folder)
    one, other = (set(lines) for lines in both)
    found = [f"-{line}" for line in one - other] + [f"+{line}" for line in other - one]
    return sorted(found, key=lambda line: (line[1:].split(" ", 1)[0], line))


def difference(lab, nodes, folder):
    """Empty when equal, else the differing lines, the first 40."""
    return "\n".join(differing_lines(lab, nodes, folder)[:40])


def names_in(lines):
    return sorted({os.fsdecode(ast.literal_eval(NAME.match(line[1:])[0])) for line in lines})


def wait_equal(cluster, folder, timeout_s=60):
    """For a folder to which no client writes any more. What the kernel still holds back on the active comes within a
    recovery point target, and the product's own health probe commits every few seconds, perhaps between the reading
    of one node and of the other. So what differed is compared again; each object must have been equal once."""
    lab, nodes = cluster.lab, cluster.nodes
    last = differing_lines(lab, nodes, folder)

    def equal():
        if last:
            names = names_in(last)
            last[:] = differing_lines(lab, nodes, folder, names if len(names) <= MOST_NAMES else ())
        return not last
    try:
        cluster.wait(equal, f"{folder} is equal on {' and '.join(nodes)}", timeout_s)
    except LabFailure as failure:
        shown = "\n".join(last[:40])
        raise LabFailure(f"{failure}\n--- difference\n{shown}") from None
