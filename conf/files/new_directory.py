"""Directory that appears as a whole: written under a temporary name, synced, renamed.

    .NAME.PID.new/ ──fsync of every file and directory──rename──> NAME/

Guarantees:
    * A directory of that name is complete, and its content is on the disk; after an error or a kill there is none.
    * What is there is never replaced; leftovers of dead processes are removed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """The temporary directory to be filled in the block. FileExistsError if `path` exists, before or after it; OSError."""
    if os.path.lexists(path):
        raise FileExistsError(f"{path}: exists already: nothing was written")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    temporary.mkdir()
    try:
        yield temporary
        for directory, _, names in os.walk(temporary):
            for name in names:
                _sync(Path(directory, name))
            _sync(Path(directory))
        if os.path.lexists(path):
            raise FileExistsError(f"{path}: appeared meanwhile: nothing was written")
        os.rename(temporary, path)  # noqa: PTH104 refuses a directory that is not empty, where Path.replace is no better
        _sync(path.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove_leftovers(path: Path) -> None:
    for leftover in path.parent.glob(f".{path.name}.*.new"):
        pid = leftover.name.removesuffix(".new").rpartition(".")[2]
        if pid.isdigit() and (int(pid) == os.getpid() or not Path("/proc", pid).exists()):
            with suppress(OSError):
                shutil.rmtree(leftover)
