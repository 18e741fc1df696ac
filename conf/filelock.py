"""File locks between the processes of a home: with a limit, interruptible, and naming their holder.

Guarantees:
    * A wait for a lock ends after LOCK_TIMEOUT_S unless told otherwise, or sooner when `wait` asks for it.
    * The error names the process that holds the lock.
    * A lock ends with its process, however that ends; nothing is left on disk.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_TIMEOUT_S = 10.0
"""Longest wait for a dying predecessor; a restart after supervisord was killed took 1.5 s."""

POLL_S = 0.05

Wait = Callable[[float], bool]
"""Sleeps for so many seconds; whether the caller should give up, because a stop was requested."""


class LockHeld(Exception):
    """Another process holds a lock; the message has the path, the process and what to do."""


def sleep(seconds: float) -> bool:
    """A wait that never gives up."""
    time.sleep(seconds)
    return False


def lock_file(fd: int, path: Path, wait: Wait = sleep, timeout_s: float | None = None) -> None:
    """Lock the open file exclusively. LockHeld if another process holds it for `timeout_s`, or `wait` gives up."""
    deadline = time.monotonic() + (LOCK_TIMEOUT_S if timeout_s is None else timeout_s)
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline or wait(POLL_S):
                pid = find_lock_holder(fd)
                holder = f"process {pid}" if pid else "a process that /proc/locks does not show"
                raise LockHeld(f"{path}: {holder} holds it: stop that one first") from None


def find_lock_holder(fd: int) -> int | None:
    """The process that locked the open file with flock; None if there is none, or it cannot be known."""
    found = os.fstat(fd)
    inode = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for line in Path("/proc/locks").read_text().splitlines():
        words = (
            line.split()
        )  # "1: FLOCK ADVISORY WRITE 4711 fe:00:2392588 0 EOF"; a waiting one has "->" behind the number
        if len(words) > 5 and words[1] == "FLOCK" and words[5] == inode and int(words[4]) > 0:
            return int(words[4])
    return None


@contextmanager
def directory_lock(directory: Path, wait: Wait = sleep) -> Iterator[None]:
    """Be the only process inside a block on this directory, which must exist. LockHeld."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        lock_file(fd, directory, wait)
        yield
    finally:
        os.close(fd)
