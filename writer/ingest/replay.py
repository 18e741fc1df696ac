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

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ringbuf.records import ORDERBOOK, PRICE_SCALE, UNDEFINED, FeedId, empty_records
from writer.ingest.book_arbiter import NEW, BookArbiter, UnmatchedRow, encode_instrument
from writer.ingest.feed_progress import compute_made_ns
from writer.ingest.pair_evidence import DETAILS, encode_details
from writer.journal.journal import STATE
from writer.journal.segment import JournalBatch
from writer.schema import VENUE_NAMES

_VENUES = {name: code for code, name in enumerate(VENUE_NAMES.to_pylist())}

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


def _replay(arbiter: BookArbiter, batch: pa.RecordBatch) -> None:
    """Let the journalled rows wait, and pair them, as they were."""
    twins = pc.fill_null(batch.column("twin_of"), NEW).to_pylist()
    exch_ns = pc.fill_null(batch.column("exch_time").cast(pa.int64()), UNDEFINED).to_numpy()
    made = compute_made_ns(exch_ns, arbiter.calendar_speed).tolist()
    names = ("row", "mono_ns", "hour", "identity", "broker", "symbol", "venue", "flags")
    columns = (batch.column(name).to_pylist() for name in names)
    for row, mono_ns, hour, identity, broker, symbol, venue, flags, made_ns, details, twin_of in zip(
        *columns, made, _read_details(batch), twins, strict=True
    ):
        feed = FeedId[broker.upper()]
        is_late = arbiter.advance(feed, mono_ns, made_ns)
        instrument = encode_instrument(symbol, _VENUES[venue]) if twin_of == NEW else b""
        own = b"" if twin_of != NEW and flags is None else details
        arbiter.replay(identity, UnmatchedRow(row, mono_ns, feed, hour, made_ns, is_late, own, instrument), twin_of)


def _read_details(batch: pa.RecordBatch) -> list[bytes]:
    """The details of each journalled book."""
    books = empty_records(ORDERBOOK, batch.num_rows)
    for name in DETAILS:
        column = batch.column(name.removesuffix("_e4"))
        values = pc.fill_null(column, 0).to_numpy() * (PRICE_SCALE if name.endswith("_e4") else 1)
        books[name] = np.where(column.is_null().to_numpy(zero_copy_only=False), UNDEFINED, values)
    return encode_details(books, books.tobytes())


def _raise_volume_high_water(arbiter: BookArbiter, batch: pa.RecordBatch) -> None:
    """Count journalled rows' cumulative volumes again."""
    rows = batch.filter(pc.and_(pc.is_null(batch.column("twin_of")), pc.is_valid(batch.column("cum_volume"))))
    exch_ns = pc.fill_null(rows.column("exch_time").cast(pa.int64()), UNDEFINED).to_pylist()
    columns = (rows.column(name).to_pylist() for name in ("symbol", "venue", "cum_volume"))
    for symbol, venue, volume, at_ns in zip(*columns, exch_ns, strict=True):
        arbiter.raise_volume_high_water(symbol, _VENUES[venue], at_ns, volume)
