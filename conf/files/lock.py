"""File locks between the processes of a home: with a limit, interruptible, and naming their holder.

Guarantees:
    * A wait for a lock ends after LOCK_TIMEOUT_S unless told otherwise, or sooner when `wait` asks for it.
    * The error names the process that holds the lock.
    * A lock ends with its process, however that ends; nothing is left on disk but the lock file of
      a process that was killed, which locks nobody out.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

KERNEL_LOCKS = Path("/proc/locks")

LOCK_TIMEOUT_S = 10.0
"""Longest wait for a dying predecessor; a restart after supervisord was killed took 1.5 s."""

POLL_S = 0.05

Wait = Callable[[float], bool]
"""Sleeps for so many seconds; whether the caller should give up, because a stop was requested."""


class LockHeld(Exception):
    """Another process holds a lock; the message has the path, the process and what to do. `holder`: who."""

    def __init__(self, message: str, holder: str = "another process") -> None:
        self.holder = holder
        super().__init__(message)


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
                holder = f"process {pid}" if pid else "another process"
                raise LockHeld(f"{path}: {holder} holds it: stop that one first", holder) from None


def find_lock_holder(fd: int) -> int | None:
    """The process that has the flock of an open file that is locked; None if it cannot be known.

    Some file systems have another device in /proc/locks: there it is the number that the holder wrote into its lock file.
    """
    found = os.fstat(fd)
    inode = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for line in KERNEL_LOCKS.read_text().splitlines():
        words = line.split()  # 1: FLOCK ADVISORY WRITE 4711 fe:00:2392588 0 EOF; behind "1:" an arrow where one waits
        if len(words) > 5 and words[1] == "FLOCK" and words[5] == inode and int(words[4]) > 0:
            return int(words[4])
    with suppress(OSError):  # a directory
        written = os.pread(fd, 20, 0).split()
        if written and written[0].isdigit():
            return int(written[0])
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


@contextmanager
def exclusive_lock(
    path: Path,
    owner: str,
    timeout_s: float,
    cancelled: Callable[[], bool] = lambda: False,
    on_wait: Callable[[str], object] = lambda holder: None,
) -> Iterator[None]:
    """Hold the lock file `path` inside the block. LockHeld if another block holds it for longer than `timeout_s`; OSError.

    Args:
        path: created if it does not exist, with its directory; removed at the end of the block.
        owner: whom others name as the holder.
        timeout_s: longest wait.
        cancelled: ends the wait.
        on_wait: called once if there is a wait, with the holder.
    """
    fd = _open_locked(path, timeout_s, cancelled, on_wait)
    try:
        with suppress(OSError):  # a full disk: the lock is valid, only its holder's name is missing
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{owner}, process {os.getpid()}\n".encode(), 0)
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is locked: whoever waits for it finds that it is no longer the file of that name
        os.close(fd)


def _open_locked(path: Path, timeout_s: float, cancelled: Callable[[], bool], on_wait: Callable[[str], object]) -> int:
    deadline, waits, fd = time.monotonic() + timeout_s, False, -1

    def wait(seconds: float) -> bool:
        nonlocal waits
        if not waits:
            waits = True
            on_wait(_read_holder(fd))
        return cancelled() or sleep(seconds)

    while True:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            lock_file(fd, path, wait, max(0.0, deadline - time.monotonic()))
            if is_file_of(path, fd):
                return fd
            os.close(fd)
        except LockHeld:
            holder = _read_holder(fd)
            os.close(fd)
            raise LockHeld(f"{path}: {holder} holds it: wait for it, or stop it", holder) from None
        except BaseException:
            os.close(fd)
            raise


def _read_holder(fd: int) -> str:
    """Who holds a lock file, as that process wrote it; one that could not write is found by its lock."""
    return os.pread(fd, 100, 0).decode(errors="replace").strip() or f"process {find_lock_holder(fd) or 'unknown'}"


def is_file_of(path: Path, fd: int) -> bool:
    """Whether the name still stands for this file: its holder removes it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False
