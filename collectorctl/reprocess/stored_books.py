"""Quarantined books that are stored already, because the other feed delivered them.

    quarantined (kis)    A . B C          first wins, with both in order of receipt
    stored (kiwoom)      A . B .    ─>    A and B are twins of stored rows, C is new

Guarantees:
    * Rule and window are those of the writer; only rows with the arrival of one feed can be twins.
    * Files are read by row group, and only rows received near a quarantined book are kept in memory.

Not handled here:
    * The arrival of such a book: a published file is never changed, and the frame keeps it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conf.clock import SECOND_NS
from conf.home import Home
from conf.market import HOUR_NS
from ringbuf.records import LEVELS, ORDERBOOK, PRICE_SCALE, UNDEFINED, FeedId, Venue, empty_records
from writer.ingest.book_arbiter import NEW, BookArbiter
from writer.journal import segment
from writer.journal.journal import find_newest_rows
from writer.publish import partition

_FEED_BY_COLUMN = {f"recv_time_{line}": FeedId[line.upper()] for line in ("kis", "kiwoom")}
BOOKS = "kr.orderbook"
"""The one dataset whose rows several brokers deliver."""
_SIDES = ("ask", "bid")
_LEVELS = [f"{side}_{what}_{n + 1}" for side in _SIDES for what in ("price", "size") for n in range(LEVELS)]
_COLUMNS = ["symbol", "venue", *_FEED_BY_COLUMN, "cum_volume", *_LEVELS]


def window_ns(home: Home) -> int:
    """The writer's window in the calendar's nanoseconds: a warped calendar passes faster than what the window is measured in."""
    clock = home.settings.clock
    return round(home.settings.writer.twin_window_s * SECOND_NS * (clock.speed if clock.start else 1.0))


def find_unpublished_hours(home: Home, stream: str) -> set[int]:
    """Hours of which the journal holds rows that are in no file yet."""
    newest: dict[tuple[str, int], int] = {}
    for path in segment.segment_paths(home.journal_directory(f"kr.{stream}")):
        try:
            buffer = segment.map_file(path)
        except FileNotFoundError:
            continue  # published meanwhile
        lineage = segment.read_lineage(buffer) or ""
        for batch in segment.read_batches(buffer):
            for hour, row in find_newest_rows(batch.entries).items():
                newest[lineage, hour] = max(row, newest.get((lineage, hour), 0))
    directory = home.data / "kr" / stream
    return {
        hour for (lineage, hour), row in newest.items() if row > partition.read_published_to(directory, hour, lineage)
    }


def find_already_stored(home: Home, books: np.ndarray) -> np.ndarray:
    """Which of `books` (ORDERBOOK, in order of receipt, mono_ns equal to recv_ns) are twins of stored rows; bool, shape (n,)."""
    stored = _read_near(home.data / "kr" / "orderbook", books, window_ns(home))
    both = np.concatenate([stored, books])
    order = np.argsort(both["mono_ns"], kind="stable")
    arbiter = BookArbiter(window_ns(home), home.settings.writer.identity_cum_volume)
    twin_of = arbiter.arbitrate(both[order], np.zeros(len(both), np.int64), 0).twin_of
    later = np.flatnonzero(twin_of != NEW)
    pairs = np.column_stack([order[later], order[twin_of[later]]]).reshape(-1, 2)
    found = np.zeros(len(both), bool)
    found[pairs[(pairs < len(stored)).any(axis=1)]] = True
    return found[len(stored) :]


def _read_near(dataset: Path, books: np.ndarray, within_ns: int) -> np.ndarray:
    """Stored rows of these symbols with the arrival of one feed within the window of any of the books."""
    symbols = pa.array([symbol.decode() for symbol in np.unique(books["symbol"])])
    pieces = [empty_records(ORDERBOOK, 0)]
    for path in find_files_near(dataset, books):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=_COLUMNS):
                one = pc.xor(*(pc.is_valid(batch.column(name)) for name in _FEED_BY_COLUMN))
                rows = batch.filter(pc.and_(one, pc.is_in(batch.column("symbol"), symbols)))
                if rows.num_rows:
                    found = _to_records(rows)
                    pieces.append(found[_is_near(found["mono_ns"], books["mono_ns"], within_ns)])
    return np.concatenate(pieces)


def find_files_near(dataset: Path, records: np.ndarray) -> Iterable[Path]:
    """The files of the records' hours and the neighbouring ones: the exchange times of two brokers may differ."""
    hours = np.unique(records["recv_ns"] // HOUR_NS * HOUR_NS)
    for hour in sorted({int(hour) + step * HOUR_NS for hour in hours for step in (-1, 0, 1)}):
        yield from sorted(partition.hour_directory(dataset, hour).glob("[!._]*.parquet"))


def _is_near(stamps: np.ndarray, books: np.ndarray, within_ns: int) -> np.ndarray:
    """Which of `stamps` lie within the window of any of `books` (sorted)."""
    after = np.searchsorted(books, stamps - within_ns)
    return (after < len(books)) & (books[np.minimum(after, len(books) - 1)] <= stamps + within_ns)


def _to_records(rows: pa.RecordBatch) -> np.ndarray:
    """Stored rows as records with identity, feed and arrival."""
    found = empty_records(ORDERBOOK, rows.num_rows)
    found["symbol"] = np.array([symbol.encode() for symbol in rows.column("symbol").to_pylist()])
    found["venue"] = [Venue[name] for name in rows.column("venue").to_pylist()]
    for name, feed in _FEED_BY_COLUMN.items():
        arrived = pc.fill_null(rows.column(name).cast(pa.int64()), UNDEFINED).to_numpy()
        here = arrived != UNDEFINED
        found["mono_ns"][here], found["line"][here] = arrived[here], feed
    found["cum_volume"] = pc.fill_null(rows.column("cum_volume"), UNDEFINED).to_numpy()
    for side in _SIDES:
        for n in range(LEVELS):
            found[f"{side}_price_e4"][:, n] = rows.column(f"{side}_price_{n + 1}").to_numpy() * PRICE_SCALE
            found[f"{side}_size"][:, n] = rows.column(f"{side}_size_{n + 1}").to_numpy()
    return found
