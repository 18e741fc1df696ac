"""Replay: a book arbiter as it was, rebuilt from the batches of its journal.

Guarantees:
    * Rows that may still have a twin wait again, unless they are published; what was paired and learned is known again; volumes
      count again from the last ceilings. What comes next is decided as if the process had never ended.
    * Memory is bounded by the rows of WINDOWS times the longest stall and of the newest segment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import takewhile
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from ringbuf.records import UNDEFINED, take_records
from writer.ingest.arbitration_result import NEW
from writer.ingest.book_arbiter import BookArbiter, UnmatchedRow
from writer.ingest.feed_progress import compute_made_ns
from writer.ingest.pair_evidence import encode_details
from writer.journal.entries import instrument_column, read_records
from writer.journal.journal import STATE
from writer.journal.segment import JournalBatch

WINDOWS = 3
"""Longest stalls that are replayed: rows that wait, their twins, and what those were compared with."""


class _Recent(NamedTuple):
    """A batch, when its newest row was received, and what the arbiter had learned before it."""

    newest_ns: int
    entries: pa.RecordBatch
    state: Mapping | None


class ArbiterReplay:
    """The batches that matter to an arbiter; `window_ns`: how long a row may wait for its twin, if that is late."""

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self._horizon_ns = 0
        self._recent: deque[_Recent] = deque()
        self._since_ceilings: list[pa.RecordBatch] = []
        self._state: Mapping | None = None

    def add(self, batch: JournalBatch) -> None:
        """Add the next batch of the journal."""
        if "ceilings" in batch.metadata:
            self._since_ceilings.clear()
        state, self._state = self._state, batch.metadata.get(STATE) or self._state
        if batch.entries.num_rows == 0:
            return
        self._since_ceilings.append(batch.entries)
        newest_ns = int(batch.entries.column("mono_ns").to_numpy().max())
        self._horizon_ns = max(self._horizon_ns, newest_ns)
        self._recent.append(_Recent(newest_ns, batch.entries, state))
        while self._recent[0].newest_ns < self._horizon_ns - WINDOWS * self._window_ns:
            self._recent.popleft()

    def restore(self, arbiter: BookArbiter, published_to: Mapping[int, int]) -> None:
        """Restore an arbiter that has the ceilings; `published_to`: hour -> newest published row."""
        for entries in self._since_ceilings:
            _raise_volume_high_water(arbiter, entries)
        if self._recent and (state := self._recent[0].state) is not None:
            arbiter.restore_state(state)
        for recent in self._recent:
            _replay(arbiter, recent.entries)
        for recent in takewhile(lambda one: one.newest_ns < self._horizon_ns - self._window_ns, self._recent):
            arbiter.expire(recent.entries.column("row")[-1].as_py())
        for hour, row in published_to.items():
            arbiter.forget(hour, row)
        if self._state is not None:
            arbiter.restore_state(self._state)


def _replay(arbiter: BookArbiter, entries: pa.RecordBatch) -> None:
    """Let the journalled rows wait, and pair them, as they were."""
    books = read_records(entries)
    instruments = instrument_column(books).to_pylist()
    made = compute_made_ns(books["exch_ns"], arbiter.calendar_speed).tolist()
    numbers = (entries.column(name).to_pylist() for name in ("row", "hour", "identity"))
    twins = pc.fill_null(entries.column("twin_of"), NEW).to_pylist()
    fields = (books[name].tolist() for name in ("mono_ns", "line"))
    for row, hour, identity, twin_of, mono_ns, feed, made_ns, details, instrument in zip(
        *numbers, twins, *fields, made, encode_details(books, books.tobytes()), instruments, strict=True
    ):
        is_late = arbiter.advance(feed, mono_ns, made_ns)
        details = details if instrument[0] else b""  # version 1 did not keep the content of a twin
        arbiter.replay(identity, UnmatchedRow(row, mono_ns, feed, hour, made_ns, is_late, details, instrument), twin_of)


def _raise_volume_high_water(arbiter: BookArbiter, entries: pa.RecordBatch) -> None:
    """Count journalled rows' cumulative volumes again."""
    books = read_records(entries)
    is_row = entries.column("twin_of").is_null().to_numpy(zero_copy_only=False)
    books = take_records(books, is_row & (books["cum_volume"] != UNDEFINED))
    columns = (books[name].tolist() for name in ("symbol", "venue", "exch_ns", "cum_volume"))
    for symbol, venue, exch_ns, volume in zip(*columns, strict=True):
        arbiter.raise_volume_high_water(symbol.decode("latin-1"), venue, exch_ns, volume)
