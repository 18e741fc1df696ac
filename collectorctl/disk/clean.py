"""Removal of files whose days in [retention] are over.

    names, sizes, ages ─plan_removal─> order ─> each is looked at again ─> unlink ─> folders that are empty now

Guarantees:
    * Below data/ and log/ no link is followed, whoever puts one there and whenever; only regular files are removed.
    * A file that was changed after the plan was made stays.
    * Killed at any point, it leaves whole files; the next one goes on. Frames stay while `reprocess` is at work, fetched pages
      while recovery is.
    * Of market data only whole days go that may (market_days.py), under the lock of their date, each recorded before its first
      file.

Not handled here:
    * A clock that is years ahead: it makes every file old.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import date
from pathlib import Path, PurePosixPath

import msgspec
import pyarrow as pa

from collectorctl.disk import retired
from collectorctl.disk.market_days import find_obstacles
from collectorctl.disk.retention import (
    MARKET_KINDS,
    CleanPlan,
    Kind,
    Removal,
    RetentionClock,
    StoredFile,
    find_market_dates,
    find_recovery_dates,
    parse_market_date,
    plan_removal,
)
from collectorctl.disk.retired import FileTotals
from collectorctl.recover.certificate import store
from collectorctl.recover.certificate.certify import FINAL_GRADES
from collectorctl.recover.download.page_store import recovery_folder
from collectorctl.recover.job import recovery_lock
from conf.clock import to_kst
from conf.files.lock import LockHeld, exclusive_lock
from conf.home import Home
from conf.instrument import Instrument
from conf.market import MARKETS, MarketDate
from conf.process import AlreadyRunning, ShutdownSignal, acquire_lock
from writer.publish.verified_file import PartitionWriteError

LOCK_TIMEOUT_S = 10.0
"""Longest wait for a process that changes files of a day."""

_LISTED_FOLDERS = ("quarantine", "capture", "recover", *map("/".join, MARKET_KINDS.values()))
"""Below data/; nothing else there is even looked at."""
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

OnFile = Callable[[], None]


class CleanReport(msgspec.Struct, frozen=True):
    """What was removed; why something else could not be; why days of market data stay that are over."""

    removed: list[Removal]
    skipped: list[str]
    kept: list[str] = []


def plan(home: Home, on_file: OnFile = lambda: None) -> CleanPlan:
    """What would be removed now; `on_file` is called for every file, and every day of market data, that is looked at."""
    files = list(_list_files(home, on_file))
    clock = RetentionClock(to_kst(home.load_clock().now_ns()).date(), time.time_ns())
    certified = {
        str(day): found for day in find_recovery_dates(files) if (found := _find_certified(home, day)) is not None
    }
    retention = home.settings.retention
    over = find_market_dates(files, retention, clock.today)
    return plan_removal(files, retention, clock, certified, find_obstacles(home, over, on_file))


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
        planned = plan(home, on_file)
        by_day: dict[MarketDate | None, list[Removal]] = {None: []}
        for one in planned.removals:
            if one.kind in blocked:
                continue
            by_day.setdefault(parse_market_date(one), []).append(one)
        for day, removals in by_day.items():
            try:
                with _retiring(home, day, removals):
                    _remove_all(home, removals, on_file, removed, skipped)
            except (LockHeld, PartitionWriteError, OSError) as error:
                skipped.append(f"{day}: {error}")
        _remove_empty_folders(home, removed)
    return CleanReport(removed, skipped, planned.kept)


@contextmanager
def _retiring(home: Home, one: MarketDate | None, removals: list[Removal]) -> Iterator[None]:
    """Nobody else changes the files of a day inside the block, and its record is there. LockHeld, PartitionWriteError, OSError."""
    if one is None:
        yield
        return
    with exclusive_lock(home.date_lock_path(str(one.day)), "clean", LOCK_TIMEOUT_S):
        totals: dict[str, FileTotals] = {}
        for removal in removals:
            _, dataset = MARKET_KINDS[removal.kind]
            files, size = totals.get(dataset, FileTotals(0, 0))
            totals[dataset] = FileTotals(files + 1, size + removal.bytes)
        retired.record(home.data, one.day, totals, to_kst(home.load_clock().now_ns()).date(), MARKETS[one.market])
        yield


def _remove_all(
    home: Home, removals: list[Removal], on_file: OnFile, removed: list[Removal], skipped: list[str]
) -> None:
    """Remove them; what went and what could not are added to the lists."""
    for removal in removals:
        on_file()
        try:
            if _remove(home, removal):
                removed.append(removal)
        except OSError as error:
            skipped.append(f"{locate(home, removal)}: {error.strerror}")


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
        for folder in PurePosixPath(one.path).parents
        if any(part.startswith("date=") for part in folder.parts)
    }
    for path in sorted(folders, key=lambda folder: -len(folder.parts)):
        root, (*above, name) = _split(home, path)
        with suppress(OSError):  # not empty
            fd = _open_folder(root, tuple(above))
            try:
                os.rmdir(name, dir_fd=fd)
            finally:
                os.close(fd)
