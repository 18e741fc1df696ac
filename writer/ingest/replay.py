"""Replay: a book arbiter as it was, rebuilt from the batches of its journal.

Guarantees:
    * Rows that may still have a twin wait again, unless they are published, and each feed has come as far as it had; volumes count
      again from the last ceilings.
    * Memory is bounded by the rows of the longest stall and of the newest segment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from ringbuf.records import UNDEFINED, FeedId
from writer.ingest.book_arbiter import NEW, BookArbiter, UnmatchedRow
from writer.ingest.feed_progress import compute_made_ns
from writer.journal.segment import JournalBatch
from writer.schema import VENUE_NAMES


class ArbiterReplay:
    """The batches that matter to an arbiter; `window_ns`: how long a row may wait for its twin, if that is late."""

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self._horizon_ns = 0
        self._recent: deque[tuple[int, pa.RecordBatch]] = deque()
        self._since_ceilings: list[pa.RecordBatch] = []

    def add(self, batch: JournalBatch) -> None:
        """Add the next batch of the journal."""
        if "ceilings" in batch.metadata:
            self._since_ceilings.clear()
        if batch.entries.num_rows == 0:
            return
        self._since_ceilings.append(batch.entries)
        newest_ns = int(batch.entries.column("mono_ns").to_numpy().max())
        self._horizon_ns = max(self._horizon_ns, newest_ns)
        self._recent.append((newest_ns, batch.entries))
        while self._recent[0][0] < self._horizon_ns - self._window_ns:
            self._recent.popleft()

    def restore(self, arbiter: BookArbiter, published_to: Mapping[int, int]) -> None:
        """Restore an arbiter that has the ceilings; `published_to`: hour -> newest published row."""
        for entries in self._since_ceilings:
            _raise_volume_high_water(arbiter, entries)
        for _, entries in self._recent:
            _replay(arbiter, entries, published_to)


def _replay(arbiter: BookArbiter, batch: pa.RecordBatch, published_to: Mapping[int, int]) -> None:
    """Restore the journalled rows that wait for twins, as far as they are not published."""
    names = ["row", "mono_ns", "hour", "identity", "broker"]
    twins = pc.fill_null(batch.column("twin_of"), NEW).to_pylist()
    exch_ns = pc.fill_null(batch.column("exch_time").cast(pa.int64()), UNDEFINED).to_numpy()
    made = compute_made_ns(exch_ns, arbiter.calendar_speed).tolist()
    columns = (batch.column(name).to_pylist() for name in names)
    for row, mono_ns, hour, identity, broker, twin_of, made_ns in zip(*columns, twins, made, strict=True):
        feed = FeedId[broker.upper()]
        is_late = arbiter.advance(feed, mono_ns, made_ns)
        if (row if twin_of == NEW else twin_of) > published_to.get(hour, 0):
            arbiter.replay(identity, UnmatchedRow(row, mono_ns, feed, hour, made_ns, is_late), twin_of)


def _raise_volume_high_water(arbiter: BookArbiter, batch: pa.RecordBatch) -> None:
    """Count journalled rows' cumulative volumes again."""
    rows = batch.filter(pc.and_(pc.is_null(batch.column("twin_of")), pc.is_valid(batch.column("cum_volume"))))
    venues = {name: code for code, name in enumerate(VENUE_NAMES.to_pylist())}
    exch_ns = pc.fill_null(rows.column("exch_time").cast(pa.int64()), UNDEFINED).to_pylist()
    columns = (rows.column(name).to_pylist() for name in ("symbol", "venue", "cum_volume"))
    for symbol, venue, volume, at_ns in zip(*columns, exch_ns, strict=True):
        arbiter.raise_volume_high_water(symbol, venues[venue], at_ns, volume)
