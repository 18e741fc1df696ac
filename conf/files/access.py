"""Access to the directories of the rings: the owner's alone, or one group may read.

run/          0700    or  02710 group     may pass through
ring/         0700    or  02750 group     may list
its files     0600    or   0640 group     may read and map (ringbuf/access.py creates them so)
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

PRIVATE, PASSED, LISTED = 0o700, stat.S_ISGID | 0o710, stat.S_ISGID | 0o750


def set_run_access(run: Path, gid: int | None) -> None:
    """Let the group `gid` pass through run/, or nobody. OSError."""
    _set_access(run, PRIVATE if gid is None else PASSED, gid)


def set_ring_access(directory: Path, gid: int | None) -> None:
    """Open a ring directory and what is in it to a group, or close them again. OSError."""
    if gid is None and stat.S_IMODE(directory.stat().st_mode) != LISTED:
        return
    _set_access(directory, PRIVATE if gid is None else LISTED, gid)
    for path in directory.iterdir():
        try:
            if path.is_symlink():
                continue
            if gid is not None:
                os.chown(path, -1, gid)
            path.chmod(0o600 if gid is None else 0o640)
        except FileNotFoundError:
            continue  # a temporary file of a process that starts


def _set_access(directory: Path, mode: int, gid: int | None) -> None:
    found = directory.stat()
    if gid is not None and found.st_gid != gid:
        os.chown(directory, -1, gid)
    if stat.S_IMODE(found.st_mode) != mode:  # a read-only disk refuses even a change that changes nothing
        directory.chmod(mode)
