#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An application that has less memory than it dirties: writers, mappers, makers of small files, and one that eats memory until it is killed.
Runs in a machine: FOLDER COUNTERS. COUNTERS gets a file for each sort of work, with how many rounds of it were done."""

import mmap
import os
import random
import sys
import time

FOLDER, COUNTERS = sys.argv[1:3]
MIB = 1 << 20


def write_and_sync(name, done):
    """Big buffered writes over what is there, made durable each time."""
    with open(f"{FOLDER}/{name}", "wb", buffering=0) as file:
        while True:
            for at in range(24):
                os.pwrite(file.fileno(), os.urandom(MIB), at * MIB)
            os.fsync(file.fileno())
            done()


def write_and_leave(name, done):
    """Nobody syncs: the kernel has to find pages to write back by itself."""
    while True:
        with open(f"{FOLDER}/{name}.new", "wb") as file:
            for _ in range(40):
                file.write(random.randbytes(MIB))
        os.rename(f"{FOLDER}/{name}.new", f"{FOLDER}/{name}")
        done()


def dirty_a_mapping(name, done):
    with open(f"{FOLDER}/{name}", "w+b") as file:
        os.ftruncate(file.fileno(), 48 * MIB)
        with mmap.mmap(file.fileno(), 48 * MIB) as pages:
            while True:
                for _ in range(6000):
                    pages[random.randrange(len(pages))] = 1
                if random.random() < 0.2:
                    pages.flush()
                done()


def make_small_files(name, done):
    os.makedirs(f"{FOLDER}/{name}", exist_ok=True)
    while True:
        for n in range(200):
            with open(f"{FOLDER}/{name}/{n}", "wb") as file:
                file.write(os.urandom(3000))
                if n % 20 == 0:
                    os.fsync(file.fileno())
        for n in range(0, 200, 2):
            os.unlink(f"{FOLDER}/{name}/{n}")
        done()


def eat(_, done):
    """Ends by the kernel's hand; so may, as likely, one of the others."""
    time.sleep(5)
    done()
    eaten = []
    while True:
        eaten.append(bytearray(os.urandom(MIB)))


WORK = {work.__name__: work for work in (write_and_sync, write_and_leave, dirty_a_mapping, make_small_files, eat)}


def start(name):
    pid = os.fork()
    if pid:
        return pid
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as score:
            score.write("500")      # rather one of us than who starts us anew
        counter = os.open(f"{COUNTERS}/{name}", os.O_RDWR | os.O_CREAT, 0o644)
        before = int(os.pread(counter, 20, 0) or b"0")
        rounds = iter(range(before + 1, 1 << 60))
        WORK[name](name, lambda: os.pwrite(counter, str(next(rounds)).encode(), 0))
    except BaseException as trouble:  # pylint: disable=broad-except
        print(f"{name}: {trouble!r}", file=sys.stderr, flush=True)
    finally:
        os._exit(1)


def main():
    running = {start(name): name for name in WORK}
    killed = 0
    while True:
        pid, status = os.wait()
        killed += os.WIFSIGNALED(status)
        with open(f"{COUNTERS}/killed", "w", encoding="ascii") as file:
            file.write(str(killed))
        if not os.WIFSIGNALED(status):
            sys.exit(f"{running[pid]} failed")
        name = running.pop(pid)
        running[start(name)] = name


main()
