"""The command: one date's quarantine, an hour of receipt after the other.

    finish what was interrupted ─> for each hour: decode again ─> leave out what is stored ─> commit ─> finish

Promises: exactly once under a kill at any instruction and however often it is run; frames that still do not decode stay quarantined
and are counted by reason; a date that a collector or the writer may still write is refused while one of them runs.
Leaves to others: everything else, see the modules beside this one.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date as Date
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from brokers.registry import BROKERS
from collectorctl.reprocess import commit, decode, stored_books, stored_ticks
from conf.clock import KST, SECOND_NS, korean
from conf.home import Home
from conf.process import Busy, Stop, hold
from ringbuf.records import STREAMS

SLACK_NS = 600 * SECOND_NS
"""A date may still be written so long after its end: a frame's line follows its receipt, and clocks are stepped."""


class Report(msgspec.Struct):
    """What was done, or would be: `frames` that are understood now, by broker; rows by dataset; books that the other broker had
    delivered, and ticks whose shares others cover; frames and parts of frames that stay, by reason."""

    date: str
    dry_run: bool
    finished: int = 0
    """Batches of an earlier run that had been interrupted."""
    frames: dict[str, int] = {}
    rows: dict[str, int] = {}
    already_stored: int = 0
    ticks_covered: int = 0
    remaining: dict[str, int] = {}


def requarantine(home: Home, date: Date, dry_run: bool) -> Report:
    """Decode a date's quarantine again and place what is understood. Busy, with the reason in words; OSError."""
    report = Report(date=f"{date:%Y-%m-%d}", dry_run=dry_run)
    directory = home.quarantine() / f"date={report.date}"
    if not directory.is_dir():
        return report
    home.make()
    with _alone(home, date):
        if not dry_run:
            commit.clear(directory)
            for batch in commit.interrupted(directory):
                commit.finish(home, batch)
                report.finished += 1
        _refuse_unpublished(home, date)
        _place(home, directory, report)
    return report


def _place(home: Home, directory: Path, report: Report) -> None:
    again = decode.Again(home)
    counted, rows, remaining = Counter[str](), Counter[str](), Counter[str]()
    for hour in decode.hours(directory):
        batch = again.decode(directory, hour)
        books = batch.rows[stored_books.BOOKS]
        if len(books):
            known = stored_books.already_stored(home, books)
            report.already_stored += int(known.sum())
            batch.rows[stored_books.BOOKS] = books[~known]
        ticks = batch.rows[stored_ticks.TICKS]
        if len(ticks):
            known = stored_ticks.ticks_covered(home, ticks)
            report.ticks_covered += int(known.sum())
            batch.rows[stored_ticks.TICKS] = ticks[~known]
        counted.update({name: len(lines) for name, lines in batch.taken.items()})
        rows.update({dataset: len(found) for dataset, found in batch.rows.items() if len(found)})
        remaining += batch.remaining
        if not report.dry_run and any(batch.taken.values()):
            commit.commit(home, directory, batch)
            for committed in commit.interrupted(directory):
                commit.finish(home, committed)
    for name in BROKERS:
        unreadable = sum(kept is None for _, kept in decode.lines(directory / f"{name}.jsonl"))
        remaining.update({decode.UNREADABLE: unreadable} if unreadable else {})
    report.frames, report.rows, report.remaining = dict(counted), dict(rows), dict(remaining.most_common())


def _refuse_unpublished(home: Home, date: Date) -> None:
    """Busy while rows of that date are in the journal only: whether they say the same could not be told."""
    for stream in STREAMS:
        hours = sorted(korean(hour) for hour in stored_books.unpublished_hours(home, stream))
        waiting = [f"{hour:%H}h" for hour in hours if hour.date() == date]
        if waiting:
            raise Busy(
                f"{home.journal(f'kr.{stream}')}: {', '.join(waiting)} of {date:%Y-%m-%d} are not published yet: let the "
                "writer publish them (it runs, or: collectorctl start, collectorctl stop), then do this again"
            )


@contextmanager
def _alone(home: Home, date: Date) -> Iterator[None]:
    """One run at a time; beside no process that may still write to that date. Busy."""
    over = datetime.combine(date + timedelta(days=1), datetime.min.time(), KST)
    now_ns = home.clock().now_ns()
    names = ["requarantine"]
    if now_ns < round(over.timestamp()) * SECOND_NS + SLACK_NS:
        names += [*BROKERS, "writer"]
    at_once = Stop()
    at_once.request()
    locks: list[int] = []
    try:
        for name in names:
            try:
                locks.append(hold(home.lock(name), at_once))
            except Busy as error:
                why = "" if name == "requarantine" else f"{date:%Y-%m-%d} may still be written: "
                raise Busy(f"{why}{error}") from None
        yield
    finally:
        for lock in locks:
            os.close(lock)
