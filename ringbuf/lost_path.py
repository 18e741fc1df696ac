"""Recovery of the ring directory when it was deleted under living processes.

    run/ring -> /dev/shm/collectorctl-...     gone: logind (RemoveIPC), tmpfiles, a person
    mapped pages                              still there, for those who have them

The kernel gives no new name to a file that has none (linkat: ENOENT), so whoever writes a ring or a page copies it into a new file.

Guarantees:
    * A directory that another user owns or may write in is never used.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from ringbuf.access import inherit_group


def is_missing(path: Path) -> bool:
    """Whether nothing is at `path`. OSError: unknown (no permission)."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    return False


def restore_directory(directory: Path, target: Path) -> None:
    """Make `directory` lead to `target`, as it did, and `target` a directory of this user alone, or open to the group of run/.

    Any process may do it, at once. OSError.
    """
    with suppress(FileExistsError):
        target.mkdir(mode=0o700)
    found = target.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(errno.EACCES, "others own it or may write in it", str(target))
    inherit_group(target, directory.parent)
    if directory != target and not os.path.lexists(directory):
        with suppress(FileExistsError):
            directory.symlink_to(target)
