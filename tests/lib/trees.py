# SPDX-License-Identifier: Apache-2.0
"""Whether the nodes' protected folders are equal."""

import difflib

from labs import CHECKOUT, LabFailure

PROGRAM = "/opt/holdfast-tests/tree_digest.py"


def digest(lab, node, folder, timeout_s=180):
    lab.put(node, PROGRAM, (CHECKOUT / "tests/lib/tree_digest.py").read_text())
    return lab.exec(node, "python3", PROGRAM, folder, timeout_s=timeout_s).stdout.splitlines()


def difference(lab, nodes, folder):
    """Empty when equal, else the differing lines, the first 40."""
    one, other = (digest(lab, node, folder) for node in nodes)
    found = difflib.unified_diff(one, other, *nodes, n=0, lineterm="")
    return "\n".join(line for _, line in zip(range(40), found))


def wait_equal(cluster, folder, timeout_s=60):
    """For a folder to which nobody writes any more. What the kernel still holds back on the active comes within a
    recovery point target, so the comparison is repeated; each one covers everything."""
    lab, nodes = cluster.lab, cluster.nodes
    last = []

    def equal():
        last[:] = [difference(lab, nodes, folder)]
        return not last[0]
    try:
        cluster.wait(equal, f"{folder} is equal on {' and '.join(nodes)}", timeout_s)
    except LabFailure as failure:
        raise LabFailure(f"{failure}\n--- difference\n{''.join(last)}") from None
