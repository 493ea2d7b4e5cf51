# SPDX-License-Identifier: Apache-2.0
"""A small disk of its own under a folder of a lab machine, to be filled up and emptied again.

The disk is a loop device that ends with its mount, so nothing is left on the host when the machine dies.
"""

import contextlib

ATTACH = r"""
image=/var/tmp/small-$(echo "$1" | tr / -).img
[ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237
device=
attach() { # MOUNTPOINT; the number stays free between the question and the answer only if nobody else asks: tried again
  for attempt in 1 2 3 4 5; do
    device=$(losetup -f)
    [ -e "$device" ] || mknod "$device" b 7 "${device#/dev/loop}"
    if losetup "$device" "$image" 2>/dev/null; then
      mount "$device" "$1"
      losetup -d "$device"      # when it is unmounted
      return
    fi
  done
  echo "no loop device is free" >&2
  exit 1
}
mkdir -p /mnt/small
"""
MOUNT = ATTACH + r"""
rm -f "$image"
truncate -s "$2" "$image"
case "$3" in
  ext4) mkfs.ext4 -q -F -m 0 -I 512 "$image" ;;
  xfs) mkfs.xfs -q -f -i size=512 "$image" ;;
esac
mkdir -p "$1"
attach /mnt/small
cp -a "$1/." /mnt/small/
umount /mnt/small
attach "$1"
"""
UNMOUNT = ATTACH + r"""
rm -f "$1/filler"
umount "$1"
attach /mnt/small
find "$1" -mindepth 1 -delete
rmdir /mnt/small/lost+found 2>/dev/null || true
cp -a /mnt/small/. "$1/"
umount /mnt/small
rm -f "$image"
"""
# The rest is what the file system needs to note the filler itself.
FILL = r"""
rm -f "$1/filler"
fallocate -l "$(($(df --output=avail -B1 "$1" | tail -n 1) - $2 - (4 << 20)))" "$1/filler"
"""


@contextlib.contextmanager
def under(lab, machine, folder, size, around=contextlib.nullcontext, kind="ext4"):
    """`folder` of the machine lies on a file system of `size` (800M, ...) of its own, of ext4 or xfs. `around()` is a context in which it
    may be swapped: who uses it is stopped there. What the folder holds is copied there and back."""
    with around():
        lab.sh(machine, MOUNT, folder, size, kind, timeout_s=120)
    try:
        yield
    finally:
        with around():
            lab.sh(machine, UNMOUNT, folder, timeout_s=120)


def fill(lab, machine, folder, left=0):
    """Leaves about `left` bytes and a little."""
    lab.sh(machine, FILL, folder, str(left))


def free(lab, machine, folder):
    lab.sh(machine, 'rm -f "$1/filler"', folder)
