"""Durable file operations: every effect of the writer on the disk, one function each.

    append  sync                 a journal segment grows, and becomes durable
    create  truncate  remove     a segment begins, loses its torn tail, goes
    open_temporary  rename       a Parquet file is written under a temporary name, and replaces another
    link_new                     or gets a name that no file has
    create_directory             the directories of journals and partitions

Guarantees:
    * No other module of the writer changes a file, so that a test can stop the process, fail the disk, or cut the power at each of
      these points; each system call is one of this module's `os`.
    * A failed `append` leaves the file as it was.
    * `create_directory`, `rename`, `link_new`, `create` and `remove` are durable when they return.
"""

from __future__ import annotations

import os
from contextlib import suppress
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
    _sync_names(path)


def _sync_names(path: Path) -> None:
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
    os.rename(temporary, path)  # noqa: PTH104 see the module's first guarantee
    sync_directory(path.parent)


def link_new(temporary: Path, path: Path) -> None:
    """Put a complete, synced file where none is. FileExistsError: `path` exists, and both stay as they are."""
    os.link(temporary, path)
    os.unlink(temporary)  # noqa: PTH108
    sync_directory(path.parent)


def keep(path: Path, backup: Path) -> None:
    """Give a file that is about to be replaced a second name; one that is there stays."""
    with suppress(FileExistsError):
        os.link(path, backup)
    sync_directory(path.parent)


def replace(path: Path, data: bytes) -> None:
    """Put a new file of that content in place of `path`."""
    rename(_write_temporary(path, data), path)


def write_changed(path: Path, data: bytes) -> None:
    """Put a small file of that content at `path`, its directory made if there is none; nothing if it has that content."""
    if path.exists() and path.read_bytes() == data:
        return
    create_directory(path.parent)
    replace(path, data)


def create_whole(path: Path, data: bytes) -> None:
    """Put a new file of that content where none is. FileExistsError: `path` exists, and stays as it is."""
    link_new(_write_temporary(path, data), path)


def _write_temporary(path: Path, data: bytes) -> Path:
    """A synced file of that content beside `path`."""
    temporary = path.with_name(f".{path.name}.tmp")
    fd = open_temporary(temporary)
    try:
        append(fd, 0, data)
        sync(fd)
    finally:
        os.close(fd)
    return temporary


def remove(path: Path) -> None:
    """Remove a file if it exists."""
    with suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108
    sync_directory(path.parent)


_durable_directories: set[tuple[Path, int]] = set()
"""Directories that this process has made durable with their parents, and their inodes."""


def create_directory(path: Path) -> None:
    """Create a directory and its missing parents, if they are missing.

    The names on the way are made durable also where they exist: a process that was killed may have made them and not synced them.
    A directory that this process may not write in, and one of another file system, got no entry from it.
    """
    missing = []
    at = path = path.absolute()
    while not at.exists():
        missing.append(at)
        at = at.parent
    for directory in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(directory)  # noqa: PTH102
    found = path.stat()
    if (path, found.st_ino) in _durable_directories:
        return
    for parent in path.parents:
        if parent.stat().st_dev != found.st_dev or not os.access(parent, os.W_OK):
            break
        _sync_names(parent)
    _durable_directories.add((path, found.st_ino))
