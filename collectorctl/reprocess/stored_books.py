"""Quarantined books that are stored already, because the other feed delivered them.

    quarantined (kis)    A . B C          first wins, with both in order of receipt
    stored (kiwoom)      A . B .    ─>    A and B are twins of stored rows, C is new

Guarantees:
    * Rule, window and longest stall are those of the writer; only rows with the arrival of one feed can be twins.
    * Files are read by row group, and only rows received near a quarantined book are kept in memory.

Not handled here:
    * The arrival of such a book: a published file is never changed, and the frame keeps it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conf.clock import HOUR_NS, SECOND_NS
from conf.home import Home
from ringbuf.records import LEVELS, ORDERBOOK, PRICE_SCALE, UNDEFINED, FeedId, Venue, empty_records
from writer.catalog import Catalog
from writer.ingest.arbitration_result import NEW
from writer.ingest.book_arbiter import BookArbiter

FEED_BY_COLUMN = {f"recv_time_{line}": FeedId[line.upper()] for line in ("kis", "kiwoom")}
BOOKS = "kr.orderbook"
"""The one dataset whose rows several brokers deliver."""
_SIDES = ("ask", "bid")
_LEVELS = [f"{side}_{what}_{n + 1}" for side in _SIDES for what in ("price", "size") for n in range(LEVELS)]
_COLUMNS = ["symbol", "venue", "exch_time", *FEED_BY_COLUMN, "cum_volume", *_LEVELS]


def window_ns(home: Home) -> int:
    """The writer's window in the calendar's nanoseconds: a warped calendar passes faster than what the window is measured in."""
    clock = home.settings.clock
    return round(home.settings.writer.twin_window_s * SECOND_NS * (clock.speed if clock.start else 1.0))


def find_already_stored(home: Home, books: np.ndarray) -> np.ndarray:
    """Which of `books` (ORDERBOOK, in order of receipt, mono_ns equal to recv_ns) are twins of stored rows; bool, shape (n,)."""
    return _find_twins(home, books, find_partitions_near(home, BOOKS, books))


def find_rows_stored(home: Home, rows: pa.Table, paths: list[Path]) -> np.ndarray:
    """Which published `rows`, of one arrival each, are twins of rows of `paths`; bool, shape (n,)."""
    found = np.zeros(len(rows), bool)
    one = pc.xor(*(pc.is_valid(rows.column(name)) for name in FEED_BY_COLUMN)).to_numpy()
    books = to_records(rows.select(_COLUMNS).filter(pa.array(one)))
    order = np.argsort(books["mono_ns"], kind="stable")
    if len(books):
        found[np.flatnonzero(one)[order]] = _find_twins(home, books[order], paths)
    return found


def _find_twins(home: Home, books: np.ndarray, paths: list[Path]) -> np.ndarray:
    """Which of `books`, in order of receipt, are twins of rows of `paths`; bool, shape (n,)."""
    arbiter = BookArbiter(window_ns(home), home.settings.writer.identity_cum_volume)
    stored = _read_near(paths, books, arbiter.stall_ns)
    both = np.concatenate([stored, books])
    order = np.argsort(both["mono_ns"], kind="stable")
    twin_of = arbiter.arbitrate(both[order], np.zeros(len(both), np.int64), 0).twin_of
    later = np.flatnonzero(twin_of != NEW)
    pairs = np.column_stack([order[later], order[twin_of[later]]]).reshape(-1, 2)
    found = np.zeros(len(both), bool)
    found[pairs[(pairs < len(stored)).any(axis=1)]] = True
    return found[len(stored) :]


def _read_near(paths: list[Path], books: np.ndarray, within_ns: int) -> np.ndarray:
    """Stored rows of these symbols with the arrival of one feed within `within_ns` of any of the books."""
    symbols = pa.array([symbol.decode() for symbol in np.unique(books["symbol"])])
    pieces = [empty_records(ORDERBOOK, 0)]
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=_COLUMNS):
                one = pc.xor(*(pc.is_valid(batch.column(name)) for name in FEED_BY_COLUMN))
                rows = batch.filter(pc.and_(one, pc.is_in(batch.column("symbol"), symbols)))
                if rows.num_rows:
                    found = to_records(rows)
                    pieces.append(found[_is_near(found["mono_ns"], books["mono_ns"], within_ns)])
    return np.concatenate(pieces)


def find_partitions_near(home: Home, dataset: str, records: np.ndarray) -> list[Path]:
    """The files of the records' hours and the neighbouring ones: the exchange times of two brokers may differ."""
    first_ns, last_ns = int(records["recv_ns"].min()), int(records["recv_ns"].max())
    return Catalog(home).partitions_between(dataset, first_ns - HOUR_NS, last_ns + HOUR_NS + 1)


def _is_near(stamps: np.ndarray, books: np.ndarray, within_ns: int) -> np.ndarray:
    """Which of `stamps` lie within `within_ns` of any of `books` (sorted)."""
    after = np.searchsorted(books, stamps - within_ns)
    return (after < len(books)) & (books[np.minimum(after, len(books) - 1)] <= stamps + within_ns)


def to_records(rows: pa.RecordBatch | pa.Table) -> np.ndarray:
    """Stored rows (ORDERBOOK, the columns of Parquet) as records with identity, feed and arrival."""
    found = empty_records(ORDERBOOK, rows.num_rows)
    found["symbol"] = np.array([symbol.encode() for symbol in rows.column("symbol").to_pylist()])
    found["venue"] = [Venue[name] for name in rows.column("venue").to_pylist()]
    for name, feed in FEED_BY_COLUMN.items():
        arrived = pc.fill_null(rows.column(name).cast(pa.int64()), UNDEFINED).to_numpy()
        here = arrived != UNDEFINED
        found["mono_ns"][here], found["line"][here] = arrived[here], feed
    found["recv_ns"] = found["mono_ns"]
    found["exch_ns"] = pc.fill_null(rows.column("exch_time").cast(pa.int64()), UNDEFINED).to_numpy()
    found["cum_volume"] = pc.fill_null(rows.column("cum_volume"), UNDEFINED).to_numpy()
    for side in _SIDES:
        for n in range(LEVELS):
            for field, what, scale in (("price_e4", "price", PRICE_SCALE), ("size", "size", 1)):
                level = pc.fill_null(rows.column(f"{side}_{what}_{n + 1}"), 0)  # the vendors' empty level, in a frame
                found[f"{side}_{field}"][:, n] = level.to_numpy() * scale
    return found
