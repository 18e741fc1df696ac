"""Durable file operations: every effect of the writer on the disk, one function each.

    append  sync                 a journal segment grows, and becomes durable
    create  truncate  remove     a segment begins, loses its torn tail, goes
    open_temporary  rename       a Parquet file is written under a temporary name, and put in place

Guarantees:
    * No other module of the writer changes a file, so that a test can stop the process at each of these points.
    * A failed `append` leaves the file as it was.
    * `rename`, `create` and `remove` are durable when they return.
"""

from __future__ import annotations

import os
from pathlib import Path


def create(path: Path) -> int:
    """Begin a file that must not exist; an open descriptor for appending."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        sync_directory(path.parent)
    except OSError:
        os.close(fd)
        raise
    return fd


def append(fd: int, at: int, data: bytes | memoryview) -> None:
    """Write `data` at the end, which must be `at`; what an earlier failure left behind it is cut off first.

    OSError (no space, over quota, bad disk) leaves the file as long as it was.
    """
    if os.fstat(fd).st_size != at:
        os.ftruncate(fd, at)
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError:
        os.ftruncate(fd, at)
        raise


def sync(fd: int) -> None:
    """Make what was written durable."""
    os.fsync(fd)


def sync_directory(path: Path) -> None:
    """Make names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def truncate(path: Path, size: int) -> None:
    """Truncate a file, durably."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.ftruncate(fd, size)
        os.fsync(fd)
    finally:
        os.close(fd)


def open_temporary(path: Path) -> int:
    """An open descriptor for a file that will be renamed when complete; a leftover of that name is removed."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)


def rename(temporary: Path, path: Path) -> None:
    """Put a complete, synced file in place."""
    temporary.rename(path)
    sync_directory(path.parent)


def link_backup(path: Path, backup: Path) -> None:
    """Give a file a second name, so that replacing the first keeps it."""
    if not backup.exists():
        os.link(path, backup)
    sync_directory(path.parent)


def remove(path: Path) -> None:
    """Remove a file if it exists."""
    path.unlink(missing_ok=True)
    sync_directory(path.parent)
