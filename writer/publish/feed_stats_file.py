"""Dataset feed_health: per-minute feed statistics of an hour, computed from its published books and ticks.

    data/kr/orderbook/date=D/hour=H/*.parquet ─┐
    data/kr/tick/date=D/hour=H/*.parquet      ─┼─> data/kr/feed_health/date=D/hour=H/part-0.parquet
    feed_health of D's hours before H: last volumes ─┘                      its metadata has a fingerprint of its inputs

Guarantees:
    * An hour's file is a function of the files above.
    * `refresh` writes what is missing or computed from other files, and nothing else; it may run at any time and be killed at
      any instruction.
    * Memory is a batch of rows, and what feed_stats.py keeps of each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conf.clock import MINUTE_NS
from conf.market import Market
from ringbuf.records import UNDEFINED, Flag
from writer import durable_io
from writer.publish.feed_stats import NO_FEED, BookColumns, MinuteStats, TickColumns, build_schema
from writer.publish.partition import COMPACTED
from writer.publish.verified_file import write_verified
from writer.schema import timestamp_type

VERSION = 2
DATASET = "feed_health"
_BOOK_COLUMNS = ("symbol", "venue", "exch_time", "recv_time", "broker", "flags")
_TICK_COLUMNS = ("symbol", "venue", "exch_time", "recv_time", "broker", "size", "cum_volume")


class SymbolIndex:
    """Numbers for (symbol, venue)."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[str, str], int] = {}

    def encode(self, batch: pa.RecordBatch) -> np.ndarray:
        """The number of each row, int64."""
        symbol, venue = (batch.column(name).dictionary_encode() for name in ("symbol", "venue"))
        symbols, venues = symbol.dictionary.to_pylist(), venue.dictionary.to_pylist()
        pair = symbol.indices.to_numpy().astype(np.int64) * len(venues) + venue.indices.to_numpy()
        found, which = np.unique(pair, return_inverse=True)
        keys = [(symbols[code // len(venues)], venues[code % len(venues)]) for code in found.tolist()]
        return np.array([self.numbers.setdefault(key, len(self.numbers)) for key in keys], np.int64)[which]


def refresh(root: Path, market: Market, date: str, speed: float, cancelled: Callable[[], bool] = lambda: False) -> None:
    """Bring the files of a date ("2026-11-20") below `root` (data/kr) up to date. OSError, pa.ArrowInvalid: what is in the way.

    `speed`: of the clock of the times. `cancelled` is called between two hours.
    """
    found = {path.name for stream in ("orderbook", "tick") for path in (root / stream / f"date={date}").glob("hour=*")}
    if COMPACTED in found:
        return  # made and compacted with the rows
    last_volumes: dict[tuple[str, str], int] = {}
    for hour in sorted(found):
        if cancelled():
            return
        path = root / DATASET / f"date={date}" / hour / "part-0.parquet"
        fingerprint = _compute_fingerprint(root, date, hour, last_volumes, speed)
        if _read_metadata(path).get(b"made_of") != fingerprint:
            _write_file(path, fingerprint, _build_table(root, market, date, hour, last_volumes, speed))
        for row in pq.ParquetFile(path).read(["symbol", "venue", "volume"]).to_pylist():
            if row["volume"] is not None:
                name = row["symbol"], row["venue"]
                last_volumes[name] = max(last_volumes.get(name, 0), row["volume"])


def find_newest_dates(root: Path, max_dates: int) -> list[str]:
    """The newest dates with books, oldest first."""
    return sorted(path.name.removeprefix("date=") for path in (root / "orderbook").glob("date=*"))[-max_dates:]


def _compute_fingerprint(
    root: Path, date: str, hour: str, last_volumes: dict[tuple[str, str], int], speed: float
) -> bytes:
    """Identifies the inputs: an equal fingerprint means an equal file."""
    parts = [path for stream in ("orderbook", "tick") for path in _find_parts(root, stream, date, hour)]
    part_states = [(str(path.relative_to(root)), (stat := path.stat()).st_size, stat.st_mtime_ns) for path in parts]
    return json.dumps(
        [VERSION, speed, part_states, sorted([*name, top] for name, top in last_volumes.items())]
    ).encode()


def _read_metadata(path: Path) -> dict[bytes, bytes]:
    try:
        return pq.read_metadata(path).metadata or {}
    except (FileNotFoundError, pa.ArrowInvalid):
        return {}


def _write_file(path: Path, fingerprint: bytes, table: pa.Table) -> None:
    durable_io.create_directory(path.parent)
    write_verified(path, table.schema.with_metadata({"made_of": fingerprint}), [table])


def _build_table(
    root: Path, market: Market, date: str, hour: str, last_volumes: dict[tuple[str, str], int], speed: float
) -> pa.Table:
    names, feeds, stats = SymbolIndex(), market.feeds, MinuteStats()
    arrivals = [f"recv_time_{feed}" for feed in feeds]
    for batch in _read_batches(root, "orderbook", date, hour, (*_BOOK_COLUMNS, *arrivals)):
        flags = pc.fill_null(batch.column("flags"), 0).to_numpy()
        stats.add_books(
            BookColumns(
                names.encode(batch),
                _compute_minutes(batch),
                np.stack([_to_ns(batch.column(name)) for name in arrivals], axis=1),
                pc.equal(batch.column("broker"), feeds[1]).to_numpy(zero_copy_only=False).astype(np.int8),
                (flags & Flag.LATE) != 0,
                (flags & Flag.TWIN_DIFFERS) != 0,
                (flags & Flag.CLOCK_STEP) == 0,
            )
        )
    for batch in _read_batches(root, "tick", date, hour, _TICK_COLUMNS):
        feed = pc.index_in(batch.column("broker"), pa.array(feeds)).fill_null(NO_FEED).to_numpy().astype(np.int8)
        feed[batch.column("recv_time").is_null().to_numpy(zero_copy_only=False)] = (
            NO_FEED  # fetched: no feed brought it
        )
        size, cum_volume = (pc.fill_null(batch.column(name), UNDEFINED).to_numpy() for name in ("size", "cum_volume"))
        stats.add_ticks(TickColumns(names.encode(batch), _compute_minutes(batch), feed, size, cum_volume))
    return stats.build_table(list(names.numbers), last_volumes, speed, build_schema(timestamp_type(market), feeds))


def _find_parts(root: Path, stream: str, date: str, hour: str) -> list[Path]:
    return sorted((root / stream / f"date={date}" / hour).glob("*.parquet"))


def _read_batches(root: Path, stream: str, date: str, hour: str, columns: tuple[str, ...]) -> Iterator[pa.RecordBatch]:
    for path in _find_parts(root, stream, date, hour):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=list(columns), use_threads=False):
                if batch.num_rows:
                    yield batch


def _compute_minutes(batch: pa.RecordBatch) -> np.ndarray:
    """The start of the minute each row belongs to: exchange time, else arrival."""
    ns = _to_ns(batch.column("exch_time"))
    ns = np.where(ns > 0, ns, _to_ns(batch.column("recv_time")))
    return ns // MINUTE_NS * MINUTE_NS


def _to_ns(column: pa.Array) -> np.ndarray:
    return pc.fill_null(column.cast(pa.int64()), UNDEFINED).to_numpy(zero_copy_only=False)
