# SPDX-License-Identifier: Apache-2.0
"""Damage that no system call made on the protected folder: written to the folder below its cover, on the passive."""

CHANGE = r"""
cover=$(findmnt -n -o TARGET -T "$1/$2" | tail -n 1)
mkdir -p /run/below
mount --bind "$(dirname "$cover")" /run/below     # without what is mounted on it: the folder itself
trap 'umount /run/below' EXIT
python3 - "/run/below/$(basename "$cover")/$(realpath --relative-to="$cover" "$1/$2")" "$3" "$4" <<'END'
import os, sys
path, how, offset = sys.argv[1], sys.argv[2], int(sys.argv[3])
before = os.stat(path)
with open(path, "r+b") as file:
    file.seek(offset)
    byte = file.read(1)
    file.seek(offset)
    file.write(bytes([byte[0] ^ 1]))
    file.flush()
    os.fsync(file.fileno())
if how == "rot":
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
END
"""


def change(lab, node, folder, name, how, offset=0):
    """Flips a bit of the file, which is at or below a protected folder. how: "write", as a program would; "rot": the modification time says nothing of it."""
    assert how in ("write", "rot")
    lab.exec(node, "bash", "-euc", CHANGE, "below", folder, name, how, str(offset))
