# SPDX-License-Identifier: Apache-2.0
"""A small disk of its own under a folder of a lab machine, to be filled up and emptied again."""

import contextlib

MOUNT = r"""
image=/var/tmp/small-$(echo "$1" | tr / -).img
[ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237
truncate -s "$2" "$image"
mkfs.ext4 -q -F -m 0 -I 512 "$image"
number=$(($3))
[ -e "/dev/loop$number" ] || mknod "/dev/loop$number" b 7 "$number"
losetup "/dev/loop$number" "$image"
mkdir -p "$1" /mnt/small
mount "/dev/loop$number" /mnt/small
cp -a "$1/." /mnt/small/ 2>/dev/null || true
umount /mnt/small
mount "/dev/loop$number" "$1"
"""
UNMOUNT = r"""
image=/var/tmp/small-$(echo "$1" | tr / -).img
device=$(losetup -n -O NAME -j "$image" || true)
rm -f "$1/filler"
umount "$1"
mkdir -p /mnt/small
mount "$device" /mnt/small
find "$1" -mindepth 1 -delete
rm -rf /mnt/small/lost+found
cp -a /mnt/small/. "$1/"
umount /mnt/small
losetup -d "$device"
rm -f "$image"
"""
# All but a few blocks; a file of zeros would do as well, but takes as long as it is big.
FILL = r"""
rm -f "$1/filler"
fallocate -l "$(($(df --output=avail -B1 "$1" | tail -n 1) - $2))" "$1/filler"
"""
_numbers = iter(range(200, 256))


@contextlib.contextmanager
def under(lab, machine, folder, size, around=contextlib.nullcontext):
    """`folder` of the machine lies on a file system of `size` (800M, ...) of its own. `around()` is a context in which it
    may be swapped: who uses it is stopped there. What the folder holds is copied there and back."""
    with around():
        lab.sh(machine, MOUNT, folder, size, str(next(_numbers)), timeout_s=120)
    try:
        yield
    finally:
        with around():
            lab.sh(machine, UNMOUNT, folder, timeout_s=120)


def fill(lab, machine, folder, left=0):
    """Leaves about `left` bytes."""
    lab.sh(machine, FILL, folder, str(left))


def free(lab, machine, folder):
    lab.sh(machine, 'rm -f "$1/filler"', folder)
