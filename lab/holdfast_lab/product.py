# SPDX-License-Identifier: Apache-2.0
"""The product's own packages: which file goes to which machine."""

import os
from pathlib import Path

from .errors import LabError
from .settings import CHECKOUT, is_data_node

BUILT = CHECKOUT / "build/packages"


def package_for(name):
    """The newest package file for a machine; None for machines that carry nothing of the product."""
    if name.startswith("c"):
        return None
    package = "holdfast" if is_data_node(name) else "holdfast-witness"
    directory = Path(os.environ.get("HOLDFAST_DEBS") or BUILT)
    files = sorted(directory.glob(f"{package}_*.deb"), key=lambda file: file.stat().st_mtime)
    if not files:
        raise LabError(f"no {package}_*.deb in {directory}: run './dev package' first, or use --no-product")
    return files[-1]
