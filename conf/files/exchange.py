"""Exchange of two directories in one system call (renameat2, RENAME_EXCHANGE).

Guarantees:
    * Whoever opens one of the paths gets the old or the new directory, whole; after a kill or a power cut it is one of the two.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def exchange_directories(one: Path, other: Path) -> None:
    """Let each path lead to the other's directory; both have the same parent, which is synced.

    OSError: nothing has changed; ENOSYS or EINVAL where the file system has no such call (ext4, XFS, Btrfs and tmpfs have it).
    """
    renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), ctypes.c_uint(_RENAME_EXCHANGE)):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot be exchanged with {other}: {os.strerror(number)}", str(one))
    fd = os.open(one.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
