# SPDX-License-Identifier: Apache-2.0
"""The lists of Debian packages under tools/."""

from .errors import LabError
from .settings import CHECKOUT


def read_list(name):
    file = CHECKOUT / "tools" / f"packages.{name}"
    try:
        lines = file.read_text().splitlines()
    except FileNotFoundError:
        raise LabError(f"{file} is missing: restore it from the repository") from None
    names = (line.split("#")[0].strip() for line in lines)
    return sorted({name for name in names if name})
