"""Access to the files of a ring directory: the owner's alone, or readable by the directory's group.

    run/   0700   or  02710 group       ring/   0700   or  02750 group       files   0600   or   0640 group

Whoever makes the directories decides (conf/files/access.py); a file follows its directory.

Guarantees:
    * A file has its mode before it has content; nobody but the owner can write in any of them.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


def create_file(path: Path, flags: int) -> int:
    """Create a file of a ring directory and return its descriptor, open for reading and writing. OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
    try:
        if _opened_to_group(path.parent.stat().st_mode, stat.S_IRGRP):
            os.fchmod(fd, 0o640)  # whatever the umask is
    except OSError:
        os.close(fd)
        raise
    return fd


def inherit_group(directory: Path, run: Path) -> None:
    """Open a ring directory that was made again to the group that may pass through `run`, if one may. OSError."""
    found = run.stat()
    if _opened_to_group(found.st_mode, stat.S_IXGRP):
        os.chown(directory, -1, found.st_gid)
        directory.chmod(stat.S_ISGID | 0o750)


def _opened_to_group(mode: int, permission: int) -> bool:
    return bool(mode & stat.S_ISGID and mode & permission)
