"""Stored rows as they were received: the records of a span of receipt in receive order.

    data/, journal ──Catalog──> rows of a span of receipt ──> records of ringbuf.records, by receive time

Guarantees:
    * Every received row of the span and instruments is there once, each feed's in the order of its ring.
    * Ticks that recovery or gapfill fetched were not received: they are left out, and counted.

Not handled here:
    * Books as the feed that was second delivered them, and what files do not keep: `mono_ns`, which is `recv_ns` here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conf.clock import DAY_NS, kst_midnight_ns
from conf.home import Home
from conf.instrument import Instrument
from ringbuf.records import (
    LEVELS,
    MAX_INT64,
    PRICE_SCALE,
    STREAMS,
    UNDEFINED,
    FeedId,
    Session,
    Side,
    Venue,
    empty_records,
)
from writer.catalog import PARQUET, Catalog

_SESSIONS = {session.name.lower(): session for session in Session}


class Span(NamedTuple):
    """The receive times [begin, end) of a day, ns."""

    day: date
    begin_ns: int
    end_ns: int


class StoredRows:
    """The rows of some instruments' day. Streams are read from partitions, and once from the journal."""

    def __init__(self, home: Home, instruments: Sequence[Instrument], day: date) -> None:
        self._symbols = pa.array(sorted({instrument.symbol for instrument in instruments}))
        self._wanted = {(instrument.symbol.encode(), int(Venue[instrument.venue])) for instrument in instruments}
        begin_ns = kst_midnight_ns(day)
        self._files: dict[str, list[tuple[Path, int, int]]] = {}
        self._unpublished: dict[str, pa.Table] = {}
        for stream in STREAMS:
            paths, self._unpublished[stream] = Catalog(home).look_beside_writer(
                f"kr.{stream}", begin_ns, begin_ns + DAY_NS, partial(_read_unpublished, home, f"kr.{stream}")
            )
            self._files[stream] = [(path, *read_receive_span(path)) for path in paths]

    @property
    def is_empty(self) -> bool:
        """Whether the day has no row of any instrument."""
        return not any(self._files.values()) and not any(len(table) for table in self._unpublished.values())

    def read(self, stream: str, begin_ns: int, end_ns: int) -> np.ndarray:
        """The records received in [begin_ns, end_ns), in receive order. OSError, pa.ArrowException: an unreadable file."""
        schema = PARQUET[f"kr.{stream}"]
        kind = schema.field("recv_time").type
        begin, end = (pa.scalar(at, pa.int64()).cast(kind) for at in (begin_ns, end_ns))
        here = (pc.field("recv_time") >= begin) & (pc.field("recv_time") < end) & pc.field("symbol").isin(self._symbols)
        tables = [
            pq.read_table(path, columns=schema.names, filters=here, partitioning=None)
            for path, first_ns, last_ns in self._files[stream]
            if first_ns < end_ns and begin_ns <= last_ns
        ]
        rows = pa.concat_tables([*(table.cast(schema) for table in tables), self._unpublished[stream].filter(here)])
        records = to_records(stream, rows)
        keys = zip(records["symbol"].tolist(), records["venue"].tolist(), strict=True)
        records = records[np.fromiter((key in self._wanted for key in keys), bool, len(records))]
        return records[np.lexsort((records["seq"], records["recv_ns"]))]

    def count_fetched(self, begin_ns: int, end_ns: int) -> int:
        """Ticks of trades in [begin_ns, end_ns) that were fetched, not received."""
        kind = PARQUET["kr.tick"].field("exch_time").type
        begin, end = (pa.scalar(at, pa.int64()).cast(kind) for at in (begin_ns, end_ns))
        here = pc.field("recv_time").is_null() & pc.field("symbol").isin(self._symbols)
        here &= (pc.field("exch_time") >= begin) & (pc.field("exch_time") < end)
        names = ["symbol"]
        published = sum(
            len(pq.read_table(path, columns=names, filters=here, partitioning=None)) for path, *_ in self._files["tick"]
        )
        return published + len(self._unpublished["tick"].filter(here))


def _read_unpublished(home: Home, dataset: str) -> pa.Table:
    schema = PARQUET[dataset]
    batches = [batch.select(schema.names) for batch in Catalog(home).unpublished(dataset)]
    return pa.Table.from_batches(batches, schema=schema)


def read_receive_span(path: Path) -> tuple[int, int]:
    """The first and the last receive time in a file, by its statistics; wider where it has none."""
    metadata = pq.read_metadata(path)
    column = metadata.schema.names.index("recv_time")
    groups = [metadata.row_group(number).column(column).statistics for number in range(metadata.num_row_groups)]
    if any(one is None or (not one.has_min_max and one.null_count != one.num_values) for one in groups):
        return 0, MAX_INT64
    found = [one for one in groups if one.has_min_max]
    return min((one.min_raw for one in found), default=MAX_INT64), max((one.max_raw for one in found), default=0)


def to_records(stream: str, rows: pa.Table) -> np.ndarray:
    """Stored rows (PARQUET of Korea) as ring records; a null quote, midpoint or expected trade is the 0 that vendors send."""
    records = empty_records(STREAMS[stream], len(rows))

    def ints(name: str, absent: int = UNDEFINED) -> np.ndarray:
        return pc.fill_null(rows[name].cast(pa.int64()), absent).to_numpy()

    def prices(name: str, absent: int = UNDEFINED) -> np.ndarray:
        found = ints(name, absent)
        return np.where(found == UNDEFINED, UNDEFINED, found * PRICE_SCALE)

    records["symbol"] = np.array([symbol.encode() for symbol in rows["symbol"].to_pylist()], "S15")
    records["venue"] = [Venue[name] for name in rows["venue"].to_pylist()]
    records["line"] = [FeedId[name.upper()] for name in rows["broker"].to_pylist()]
    records["session"] = [_SESSIONS.get((name or "").lower(), Session.UNKNOWN) for name in rows["session"].to_pylist()]
    records["flags"], records["seq"] = ints("flags", 0), ints("seq", 0)
    records["recv_ns"] = records["mono_ns"] = ints("recv_time")
    exch_ns = ints("exch_time")
    records["exch_ns"] = np.where(exch_ns == UNDEFINED, records["recv_ns"], exch_ns)
    if stream == "tick":
        records["price_e4"] = prices("price")
        for name in ("ask_price_1", "bid_price_1"):
            records[f"{name}_e4"] = prices(name, 0)
        for name in ("cum_volume", "cum_value", "value_change", "trade_count"):
            records[name] = ints(name)
        records["size"], records["side"] = ints("size", 0), ints("side", Side.NONE)
        return records
    for side in ("ask", "bid"):
        for level in range(LEVELS):
            records[f"{side}_price_e4"][:, level] = prices(f"{side}_price_{level + 1}", 0)
            records[f"{side}_size"][:, level] = ints(f"{side}_size_{level + 1}", 0)
    for name in ("expected", "mid"):
        records[f"{name}_price_e4"], records[f"{name}_size"] = prices(f"{name}_price", 0), ints(f"{name}_size", 0)
    for name in ("cum_volume", "total_ask_size", "total_bid_size"):
        records[name] = ints(name)
    return records


def merge_runs(parts: dict[str, np.ndarray], max_records: int) -> Iterator[tuple[str, np.ndarray]]:
    """Records of several streams as runs of one stream, in the order of receipt, a book before a tick of the same instant."""
    names = list(parts)
    stamps = np.concatenate([parts[name]["recv_ns"] for name in names])
    streams = np.repeat(np.arange(len(names)), [len(parts[name]) for name in names])
    order = np.argsort(stamps, kind="stable")
    ordered = streams[order]
    breaks = np.flatnonzero(np.diff(ordered)) + 1
    taken: Counter[str] = Counter()
    for run in np.split(ordered, breaks) if len(ordered) else ():
        name = names[run[0]]
        for begin in range(0, len(run), max_records):
            count = min(max_records, len(run) - begin)
            yield name, parts[name][taken[name] : taken[name] + count]
            taken[name] += count
