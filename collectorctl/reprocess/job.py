"""Reprocessing job: one date's quarantine, by hour of receipt.

    complete interrupted batches ─> for each hour: decode ─> drop what is stored ─> commit ─> complete
                                                             └ the dates of its rows are locked ┘

Guarantees:
    * Rows appear exactly once under a kill at any instruction and however often it is run.
    * Frames that still do not decode stay quarantined and are counted by reason.
    * A date that a collector or the writer may still write is refused while one of them runs, and one whose partitions another
      process changes for longer than LOCK_TIMEOUT_S.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import date as Date
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from brokers.registry import BROKERS
from collectorctl.disk import retired
from collectorctl.reprocess import commit, decode, stored_books, stored_ticks
from conf.clock import DAY_NS, KST, SECOND_NS, kst_midnight_ns, to_kst
from conf.files.lock import LockHeld, exclusive_lock
from conf.home import Home
from conf.market import KR, MARKETS, MarketDate
from conf.process import AlreadyRunning, ShutdownSignal, acquire_lock
from ringbuf.records import STREAMS
from writer.catalog import Catalog

WRITE_GRACE_NS = 600 * SECOND_NS
"""A date may still be written so long after its end: a frame's line follows its receipt, and clocks are stepped."""

LOCK_TIMEOUT_S = 10.0
"""Longest wait for a process that changes partitions of a date."""


class ReprocessReport(msgspec.Struct):
    """What was done, or with `dry_run` would be.

    `frames` that are decoded now, by broker; `rows` by dataset; books that the other broker had delivered; ticks whose shares other
    ticks cover; frames and parts of frames that remain, by reason.
    """

    date: str
    dry_run: bool
    finished: int = 0
    """Batches of an earlier run that had been interrupted."""
    frames: dict[str, int] = {}
    rows: dict[str, int] = {}
    already_stored: int = 0
    ticks_covered: int = 0
    remaining: dict[str, int] = {}


def reprocess(home: Home, date: Date, dry_run: bool) -> ReprocessReport:
    """Decode the quarantine of a date again and store what is decoded. AlreadyRunning, with the reason; OSError."""
    report = ReprocessReport(date=f"{date:%Y-%m-%d}", dry_run=dry_run)
    directory = home.quarantine_directory() / f"date={report.date}"
    if not directory.is_dir():
        return report
    home.create_directories()
    with _locked(home, date):
        if not dry_run:
            commit.clear(directory)
            for batch in commit.find_pending(directory):
                with _lock_dates(home, commit.find_pending_dates(batch)):
                    commit.complete(home, batch)
                report.finished += 1
        _refuse_unpublished(home, date)
        _reprocess_hours(home, date, directory, report)
    return report


def _reprocess_hours(home: Home, date: Date, directory: Path, report: ReprocessReport) -> None:
    redecoder = decode.Redecoder(home, date)
    frames, rows, remaining = Counter[str](), Counter[str](), Counter[str]()
    for hour in decode.find_hours(directory):
        batch = redecoder.decode(directory, hour)
        dates = commit.find_dates(batch)
        for one in sorted(dates):
            _refuse_retired(home, one)
        with _lock_dates(home, [] if report.dry_run else {str(one.day) for one in dates}):
            _drop_stored(home, batch, report)
            if not report.dry_run and any(batch.decoded.values()):
                commit.commit(home, directory, batch)
                for committed in commit.find_pending(directory):
                    commit.complete(home, committed)
        frames.update({name: len(lines) for name, lines in batch.decoded.items()})
        rows.update({dataset: len(found) for dataset, found in batch.rows.items() if len(found)})
        remaining += batch.failures
    for name in BROKERS:
        unreadable = sum(entry is None for _, entry in decode.read_lines(directory / f"{name}.jsonl"))
        remaining.update({decode.UNREADABLE: unreadable} if unreadable else {})
    report.frames, report.rows, report.remaining = dict(frames), dict(rows), dict(remaining.most_common())


def _drop_stored(home: Home, batch: decode.Batch, report: ReprocessReport) -> None:
    """Remove the rows of a batch that are stored already; they are counted."""
    if len(books := batch.rows[stored_books.BOOKS]):
        known = stored_books.find_already_stored(home, books)
        report.already_stored += int(known.sum())
        batch.rows[stored_books.BOOKS] = books[~known]
    if len(ticks := batch.rows[stored_ticks.TICKS]):
        batch.rows[stored_ticks.TICKS] = stored_ticks.drop_stored(home, ticks)
        report.ticks_covered += len(ticks) - len(batch.rows[stored_ticks.TICKS])


@contextmanager
def _lock_dates(home: Home, dates: Iterable[str]) -> Iterator[None]:
    """Nobody else changes partitions of these dates inside the block. AlreadyRunning."""
    with ExitStack() as locks:
        for date in sorted(dates):  # in one order, so that two processes never wait for each other
            try:
                locks.enter_context(exclusive_lock(home.date_lock_path(date), "reprocess", LOCK_TIMEOUT_S))
            except LockHeld as error:
                raise AlreadyRunning(
                    f"{date}: {error.holder} changes files of that date: wait for it or stop it, then do this again"
                ) from None
        yield


def _refuse_retired(home: Home, one: MarketDate) -> None:
    """AlreadyRunning where rows of a date were removed by retention: duplicates could not be detected."""
    if gone := retired.describe(home.data, one.day, market=MARKETS[one.market]):
        raise AlreadyRunning(f"{gone}: its frames stay in quarantine")


def _refuse_unpublished(home: Home, date: Date) -> None:
    """AlreadyRunning while rows of that date are only in the journal, or retired: duplicates could not be detected."""
    _refuse_retired(home, MarketDate(KR.name, date))
    catalog, begin_ns = Catalog(home), kst_midnight_ns(date)
    for stream in STREAMS:
        unpublished = [
            f"{to_kst(hour):%H}h" for hour in catalog.journal_only(f"kr.{stream}", begin_ns, begin_ns + DAY_NS)
        ]
        if unpublished:
            raise AlreadyRunning(
                f"{home.journal_directory(f'kr.{stream}')}: {', '.join(unpublished)} of {date:%Y-%m-%d} are not published "
                "yet: let the writer publish them (it runs, or: collectorctl start, collectorctl stop), then do this again"
            )


@contextmanager
def _locked(home: Home, date: Date) -> Iterator[None]:
    """One run at a time, and none beside a process that may still write to that date. AlreadyRunning."""
    day_end = datetime.combine(date + timedelta(days=1), datetime.min.time(), KST)
    now_ns = home.load_clock().now_ns()
    names = ["requarantine"]
    if now_ns < round(day_end.timestamp()) * SECOND_NS + WRITE_GRACE_NS:
        names += [*BROKERS, "writer"]
    no_wait = ShutdownSignal()
    no_wait.request()
    locks: list[int] = []
    try:
        for name in names:
            try:
                locks.append(acquire_lock(home.lock_path(name), no_wait))
            except AlreadyRunning as error:
                prefix = "" if name == "requarantine" else f"{date:%Y-%m-%d} may still be written: "
                raise AlreadyRunning(f"{prefix}{error}") from None
        yield
    finally:
        for lock in locks:
            os.close(lock)
