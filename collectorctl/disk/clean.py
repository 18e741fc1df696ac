"""Removal of files whose days in [retention] are over.

    names, sizes, ages ─plan_removal─> order ─> each is looked at again ─> unlink ─> folders that are empty now

Guarantees:
    * Below data/ and log/ no link is followed, whoever puts one there and whenever; only regular files are removed.
    * A file that was changed after the plan was made stays.
    * Killed at any point, it leaves whole files; the next one goes on. Frames stay while `reprocess` is at work, fetched pages
      while recovery is.

Not handled here:
    * A clock that is years ahead: it makes every file old.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import date
from pathlib import Path, PurePosixPath

import msgspec
import pyarrow as pa

from collectorctl.disk.retention import (
    CleanPlan,
    Kind,
    Removal,
    RetentionClock,
    StoredFile,
    find_recovery_dates,
    plan_removal,
)
from collectorctl.recover.certificate import store
from collectorctl.recover.certificate.certify import FINAL_GRADES
from collectorctl.recover.download.page_store import recovery_folder
from collectorctl.recover.job import recovery_lock
from conf.clock import to_kst
from conf.home import Home
from conf.instrument import Instrument
from conf.process import AlreadyRunning, ShutdownSignal, acquire_lock

_LISTED_FOLDERS = ("quarantine", "capture", "recover")
"""Below data/; nothing else there is even looked at."""
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

OnFile = Callable[[], None]


class CleanReport(msgspec.Struct, frozen=True):
    """What was removed; why something else was not."""

    removed: list[Removal]
    skipped: list[str]


def plan(home: Home, on_file: OnFile = lambda: None) -> CleanPlan:
    """What would be removed now; `on_file` is called for every file that is looked at."""
    files = list(_list_files(home, on_file))
    clock = RetentionClock(to_kst(home.load_clock().now_ns()).date(), time.time_ns())
    certified = {
        str(day): found for day in find_recovery_dates(files) if (found := _find_certified(home, day)) is not None
    }
    return plan_removal(files, home.settings.retention, clock, certified)


def clean(home: Home, on_file: OnFile = lambda: None) -> CleanReport:
    """Remove it; `on_file` is called for every file, and what it raises ends the removal."""
    removed: list[Removal] = []
    skipped: list[str] = []
    home.create_directories()
    with ExitStack() as locks:
        blocked: set[Kind] = set()
        for kinds, lock in (
            ({Kind.QUARANTINE}, _reprocess_lock),
            ({Kind.STAGING, Kind.UNCERTIFIED}, recovery_lock),
        ):
            try:
                locks.callback(os.close, lock(home))
            except AlreadyRunning as error:
                blocked |= kinds
                skipped.append(f"{', '.join(sorted(kinds))}: {error}")
        for removal in plan(home, on_file).removals:
            on_file()
            if removal.kind in blocked:
                continue
            try:
                if _remove(home, removal):
                    removed.append(removal)
            except OSError as error:
                skipped.append(f"{locate(home, removal)}: {error.strerror}")
        _remove_empty_folders(home, removed)
    return CleanReport(removed, skipped)


def locate(home: Home, removal: Removal) -> Path:
    """Where a file is."""
    root, parts = _split(home, PurePosixPath(removal.path))
    return root.joinpath(*parts)


def _reprocess_lock(home: Home) -> int:
    """A descriptor that excludes `reprocess` until it is closed. AlreadyRunning."""
    no_wait = ShutdownSignal()
    no_wait.request()
    return acquire_lock(home.lock_path("requarantine"), no_wait)


def _list_files(home: Home, on_file: OnFile) -> Iterator[StoredFile]:
    for name, root, top in (*(("data", home.data, folder) for folder in _LISTED_FOLDERS), ("log", home.log, "")):
        start = root.resolve() / top
        if not start.is_dir():
            continue
        for folder, _, names, fd in os.fwalk(start):  # follows no link, also not `start`
            for one in names:
                on_file()
                with suppress(FileNotFoundError):
                    found = os.stat(one, dir_fd=fd, follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode):
                        path = PurePosixPath(name, top, Path(folder).relative_to(start), one)
                        yield StoredFile(path, found.st_size, found.st_mtime_ns)


def _find_certified(home: Home, day: date) -> set[str] | None:
    """The folders of instruments whose certificate of the day is final; None if that is unknown."""
    try:
        certificates = store.load(home.data, day)
    except (OSError, pa.ArrowException, msgspec.MsgspecError):
        return None
    return {
        recovery_folder(home.data, str(day), Instrument(*key)).name
        for key, one in certificates.items()
        if one.certificate in FINAL_GRADES
    }


def _split(home: Home, path: PurePosixPath) -> tuple[Path, tuple[str, ...]]:
    root, *parts = path.parts
    return (home.log if root == "log" else home.data), tuple(parts)


def _open_folder(root: Path, parts: tuple[str, ...]) -> int:
    """A descriptor of a folder below `root`, by way of no link. OSError."""
    fd = os.open(root.resolve(), _FOLDER_FLAGS)
    for part in parts:
        parent = fd
        try:
            fd = os.open(part, _FOLDER_FLAGS, dir_fd=parent)
        finally:
            os.close(parent)
    return fd


def _remove(home: Home, removal: Removal) -> bool:
    """Whether the file was still as planned and is gone. OSError."""
    root, (*folders, name) = _split(home, PurePosixPath(removal.path))
    fd = _open_folder(root, tuple(folders))
    try:
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        planned = stat.S_ISREG(found.st_mode), found.st_size, found.st_mtime_ns
        if planned != (True, removal.bytes, removal.mtime_ns):
            return False
        os.unlink(name, dir_fd=fd)
        return True
    except FileNotFoundError:
        return False
    finally:
        os.close(fd)


def _remove_empty_folders(home: Home, removed: list[Removal]) -> None:
    """Those of a date, and what lies below them."""
    folders = {
        folder
        for one in removed
        if one.kind in (Kind.QUARANTINE, Kind.STAGING, Kind.UNCERTIFIED)
        for folder in PurePosixPath(one.path).parents
        if len(folder.parts) > len(("data", "quarantine"))
    }
    for path in sorted(folders, key=lambda folder: -len(folder.parts)):
        root, (*above, name) = _split(home, path)
        with suppress(OSError):  # not empty
            fd = _open_folder(root, tuple(above))
            try:
                os.rmdir(name, dir_fd=fd)
            finally:
                os.close(fd)
