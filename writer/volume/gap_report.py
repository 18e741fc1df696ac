"""Snapshot of the gap tracker for `status`, and its restoration after a restart.

    writer: ticks, books ──> GapTracker ──each 5 s──> HOME/run/volume.json ──> collectorctl status
                                 ^                          | with the journal row it is valid for
                                 └──── next writer: state, then the journal's rows behind it

Guarantees:
    * A restarted writer has the state of the one before it, to the tick.
    * Where the file is missing, the tracker starts from what the journal still holds; where file and journal do not meet (a
      power cut, a failed fsync before the end), it starts empty, and `since` shows it.
    * A file that cannot be written stops nothing.
    * The tick journal may be replayed by another thread than the one that adds books.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
import pyarrow as pa
from loguru import logger

from conf.clock import SECOND_NS
from conf.home import Home
from conf.market import KR, Market
from ringbuf.vitals import Vitals
from writer.ingest import backfill_filter
from writer.journal.entries import read_records
from writer.journal.reader import list_segments, read_lineage
from writer.snapshot_file import SnapshotFile
from writer.volume.gap_tracker import GapTracker
from writer.volume.gaps import GapReport, decode_gap_report

WRITE_INTERVAL_NS = 5 * SECOND_NS


_P = ParamSpec("_P")
_R = TypeVar("_R")


def _locked(method: Callable[Concatenate[GapReporter, _P], _R]) -> Callable[Concatenate[GapReporter, _P], _R]:
    """The method, called by one thread at a time."""

    @wraps(method)
    def wrapper(self: GapReporter, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with self._lock:
            return method(self, *args, **kwargs)

    return wrapper


class GapReporter:
    """The volume line of a market's ticks."""

    def __init__(self, home: Home, vitals: Vitals, market: Market = KR) -> None:
        """Restore what the last writer left; `replay` comes next, for each batch of the tick journal, then `begin`.

        The sums over Korean instruments are counters of `vitals`.
        """
        self._file = SnapshotFile(home.gap_report_path(market.name), "old gaps")
        self._market = market
        self._vitals = vitals if market is KR else None
        self._clock = home.load_clock()
        self._tracker = GapTracker()
        self._since = ""
        self._lineage = ""
        self._row = 0
        self._written_ns = 0
        self._lock = threading.RLock()
        try:
            self._restore(_read_journal_lineage(home, market))
        except FileNotFoundError:
            pass
        except (OSError, LookupError, ValueError) as error:
            self._reset(f"{self._file.path}: {error}")

    def _restore(self, lineage: str | None) -> None:
        known = decode_gap_report(self._file.path.read_bytes())
        if known is not None and known.lineage == lineage:
            self._tracker.restore(known.symbols)
            self._row, self._since = known.row, known.since

    @_locked
    def replay(self, batch: pa.RecordBatch) -> None:
        """Journalled ticks that the last writer may not have counted any more."""
        rows = batch.column("row").to_numpy()
        behind = int(np.searchsorted(rows, self._row, side="right"))
        if behind < len(rows):
            if self._row and rows[behind] != self._row + 1:
                self._reset(f"entries {self._row + 1} to {rows[behind] - 1} are not in the journal any more")
            ticks = read_records(batch.slice(behind))
            # of a journal whose beginning was pruned, a backfilled tick must not count as the first one seen
            self.add_ticks(ticks[self.accept_backfill(ticks)], int(rows[-1]))

    @_locked
    def begin(self, lineage: str, last_row: int) -> None:
        """The journal is recovered: it is `lineage` and ends at `last_row`."""
        if self._row and self._row != last_row:
            self._reset(f"it counted up to entry {self._row}, the journal ends at {last_row}")
        self._lineage, self._row = lineage, last_row
        self._since = self._since or self._format_now()

    def _reset(self, reason: str) -> None:
        logger.warning("gap tracking: {}: it starts empty", reason)
        self._tracker, self._since, self._row = GapTracker(), "", 0

    def _format_now(self) -> str:
        return f"{self._market.to_local(self._clock.now_ns()):%Y-%m-%d %H:%M:%S}"

    @_locked
    def accept_backfill(self, ticks: np.ndarray) -> np.ndarray:
        """Which of a batch of ticks (TICK, in receive order) are to be journalled, bool (n,): see backfill_filter.py."""
        return backfill_filter.accept_backfill(ticks, self._tracker.find_open_gaps)

    @_locked
    def add_ticks(self, ticks: np.ndarray, last_row: int) -> None:
        """Ticks (TICK) up to entry `last_row` are in the journal."""
        if len(ticks):
            self._since = self._since or f"{self._market.to_local(int(ticks['recv_ns'][0])):%Y-%m-%d %H:%M:%S}"
            self._tracker.add_ticks(ticks)
        self._row = last_row

    @_locked
    def add_books(self, books: np.ndarray) -> None:
        """Books (ORDERBOOK) of any feed."""
        if len(books):
            self._tracker.add_books(books)

    @_locked
    def check(self, through_ns: int) -> None:
        """All ticks received up to `through_ns` (mono_ns) were given."""
        self._tracker.check(through_ns)

    @_locked
    def write(self, now_ns: int, force: bool = False) -> None:
        """Write the file and the vitals, every WRITE_INTERVAL_NS (mono_ns); not before `begin`, which completes the state."""
        if not self._lineage or (now_ns - self._written_ns < WRITE_INTERVAL_NS and not force):
            return
        self._written_ns = now_ns
        report = GapReport(self._since, self._format_now(), self._lineage, self._row, self._tracker.export_symbols())
        if self._vitals is not None:
            today = report.newest_day()
            for counter, field in COUNTER_FIELDS.items():
                self._vitals.set(counter, sum(getattr(symbol, field) for symbol in today))
        self._file.write(report)


COUNTER_FIELDS = {
    "gap_count": "gaps",
    "gap_shares": "gap_shares",
    "gap_value": "gap_value",
    "duplicate_ticks": "duplicates",
    "gaps_confirmed_by_book": "confirmed_by_book",
}
"""Counter -> the sum over symbols that it publishes, of the newest day."""


def _read_journal_lineage(home: Home, market: Market) -> str | None:
    """The lineage of the stored tick journal."""
    paths = list_segments(home.journal_directory(f"{market.name}.tick"))
    return next(filter(None, map(read_lineage, paths)), None)
