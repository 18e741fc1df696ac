"""Stored rows as they were received: the records of a span of receipt in receive order.

    data/, journal ──Catalog──> rows of a span of receipt ──> records of ringbuf.records, by receive time

Guarantees:
    * Every received row of the span and instruments is there once, each feed's in the order of its ring; rows that only the
      journal has are as they will be published.
    * Files are held open from the beginning: a day that is compacted or recovered meanwhile is read as it was.
    * `StoredRows` of one feed has the books that this feed delivered, each at the time of its own arrival (feed_view.py).
    * `StoredStreams` ends with one frame of each journal, and has the positions of the rings behind it: what is read from there on
      follows without a seam.
    * Memory holds a window of rows, and what only the journal has yet of the wanted instruments.
    * Ticks that recovery or gapfill fetched were not received: they are left out, and counted.

Not handled here:
    * What files do not keep: `mono_ns`, which is computed from `recv_ns`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from datetime import date
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from collectorctl.reader.feed_view import rebuild_feed
from conf.clock import DAY_NS, HOUR_NS, SECOND_NS
from conf.home import Home
from conf.instrument import Instrument
from conf.market import KR, MARKETS, Market
from ringbuf.records import (
    EVENT,
    LEVELS,
    ORDERBOOK,
    PRICE_SCALE,
    RINGS,
    STREAM_NAMES,
    STREAMS,
    UNDEFINED,
    EventType,
    FeedId,
    Session,
    Side,
    Venue,
    empty_records,
    field_offset,
    take_records,
)
from writer.catalog import PARQUET, Catalog, HeldFile

WINDOW_NS = 300 * SECOND_NS
"""Receive times of rows that are in memory at once."""

Instruments = Collection[tuple[bytes, int]] | None
"""(symbol, venue) wanted, venue 0 for all of them; None for all."""

_NAME_AT, _NAME_BYTES = field_offset(ORDERBOOK, "symbol"), 16
"""Symbol and venue, which lie alike in the records of all rings."""

_Name = TypeVar("_Name", bound=str | tuple[str, str])
_SESSIONS = {session.name.lower(): session for session in Session}


class Span(NamedTuple):
    """The receive times [begin, end) of a day, ns."""

    day: date
    begin_ns: int
    end_ns: int


class _StoredDataset(NamedTuple):
    """What is stored of a dataset: files, each with its first and last time of receipt, and rows that only the journal has.

    `received`: the column of the time of receipt.
    """

    dataset: str
    received: str
    files: list[tuple[HeldFile, int, int]]
    unpublished: pa.Table

    @classmethod
    def hold(cls, dataset: str, received: str, files: Sequence[HeldFile], unpublished: pa.Table) -> _StoredDataset:
        """PartitionWriteError: an unreadable file."""
        return cls(dataset, received, [(file, *file.read_time_span(received)) for file in files], unpublished)

    def find_spans(self) -> list[tuple[int, int]]:
        """The first and last time of receipt of each file, and of the rows of the journal, ns."""
        spans = [(first_ns, last_ns) for _, first_ns, last_ns in self.files]
        times = self.unpublished[self.received].drop_null()
        if len(times):
            spans.append(tuple(pc.min_max(times.cast(pa.int64())).as_py().values()))
        return spans

    def read(self, begin_ns: int, end_ns: int, wanted: pc.Expression) -> pa.Table:
        """The rows received in [begin_ns, end_ns) that are `wanted`, in any order. PartitionWriteError."""
        schema, received = PARQUET[self.dataset], pc.field(self.received)
        begin, end = (_to_scalar(self.dataset, self.received, at) for at in (begin_ns, end_ns))
        here = (received >= begin) & (received < end) & wanted
        tables = [
            file.read(schema.names, here)
            for file, first_ns, last_ns in self.files
            if first_ns < end_ns and begin_ns <= last_ns
        ]
        if len(self.unpublished):
            tables.append(self.unpublished.filter(here))
        return pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in tables)])


class StoredRows:
    """The rows of some instruments' day, and its events. They are read from partitions, and once from the journal."""

    def __init__(
        self, home: Home, instruments: Sequence[Instrument], day: date, market: Market = KR, feed: str = ""
    ) -> None:
        """Hold the files. OSError, PartitionWriteError: an unreadable file.

        `market`: of the instruments; the day is that of its zone, by the time of receipt. `feed`: only what this one delivered.
        """
        self._market, self._bounds_ns = market.name, market.day_bounds_ns(day)
        self._feed, self._volume_venues = feed, home.settings.writer.identity_cum_volume
        self._symbols = pa.array(sorted({instrument.symbol for instrument in instruments}))
        self._selection = Selection({(one.symbol.encode(), int(Venue[one.venue])) for one in instruments})
        self._stored = {stream: self._look(home, stream, instruments) for stream in (*STREAMS, "event")}

    def _look(self, home: Home, stream: str, instruments: Sequence[Instrument]) -> _StoredDataset:
        dataset, catalog = f"{self._market}.{stream}", Catalog(home)
        schema, (begin_ns, end_ns) = PARQUET[dataset], self._bounds_ns

        def read_journal() -> pa.Table:
            if stream != "event":
                return catalog.read_unpublished(dataset, instruments).select(schema.names).cast(schema)
            return pa.Table.from_batches([one.select(schema.names) for one in catalog.unpublished(dataset)], schema)

        # an hour is that of the exchange's stamp: what is received at midnight may lie in the day before
        files, unpublished = catalog.hold_beside_writer(dataset, begin_ns - DAY_NS, end_ns + DAY_NS, read_journal)
        arrival = f"recv_time_{self._feed}"
        received = arrival if arrival in schema.names else _find_received(stream)
        return _StoredDataset.hold(dataset, received, files, unpublished)

    @property
    def is_empty(self) -> bool:
        """Whether no row of the day was received."""
        begin_ns, end_ns = self._bounds_ns
        spans = [span for stream in STREAMS for _, *span in self._stored[stream].files]
        is_published = any(first_ns < end_ns and begin_ns <= last_ns for first_ns, last_ns in spans)
        return not (is_published or any(len(self.read(stream, begin_ns, end_ns)) for stream in STREAMS))

    def read(self, stream: str, begin_ns: int, end_ns: int) -> np.ndarray:
        """The records of a stream or the events received in [begin_ns, end_ns), in receive order. PartitionWriteError."""
        wanted = _choose_symbols(self._symbols)
        if self._feed and stream != "orderbook":
            wanted &= pc.field("line" if stream == "event" else "broker") == self._feed
        rows = self._stored[stream].read(begin_ns, end_ns, wanted)
        if self._feed and stream == "orderbook":
            rows = rebuild_feed(rows, self._feed, self._volume_venues)
        return _order(self._selection.choose(_convert(f"{self._market}.{stream}", rows)))

    def count_fetched(self, begin_ns: int, end_ns: int) -> int:
        """Ticks of trades in [begin_ns, end_ns) that were fetched, not received."""
        begin, end = (_to_scalar(f"{self._market}.tick", "exch_time", at) for at in (begin_ns, end_ns))
        here = pc.field("recv_time").is_null() & pc.field("symbol").isin(self._symbols)
        here &= (pc.field("exch_time") >= begin) & (pc.field("exch_time") < end)
        stored = self._stored["tick"]
        published = sum(len(file.read(["symbol"], here)) for file, *_ in stored.files)
        return published + len(stored.unpublished.filter(here))


class StoredStreams:
    """All streams and events of some instruments from an instant on, up to the newest frame of each journal.

    `positions`: (feed, stream) -> (ring_id, number of the first record that is not in here).
    """

    def __init__(self, home: Home, streams: Sequence[str], instruments: Instruments, since_ns: int) -> None:
        """OSError, PartitionWriteError, pa.ArrowException: an unreadable file; `instruments`: as Tap has them, None for all."""
        self._clock = home.load_clock()
        self._selection = Selection(instruments)
        self._since_ns = since_ns
        self._end_ns = self._clock.now_ns() + HOUR_NS
        self._wanted = pc.scalar(True)
        if instruments is not None:
            symbols = pa.array(sorted({symbol.decode() for symbol, _ in instruments}))
            self._wanted = _choose_symbols(symbols)
        self.positions: dict[tuple[str, str], tuple[int, int]] = {}
        self._datasets: list[_StoredDataset] = []
        for market in MARKETS.values():
            for stream in (*streams, "event"):
                self._look(home, market, stream)

    def _look(self, home: Home, market: Market, stream: str) -> None:
        dataset, received = f"{market.name}.{stream}", _find_received(stream)
        chosen = (pc.field(received) >= _to_scalar(dataset, received, self._since_ns)) & self._wanted
        files, unpublished, positions = Catalog(home).take_snapshot(
            # an hour is that of the exchange's stamp, which may be long before the receipt
            dataset,
            self._since_ns - DAY_NS,
            self._end_ns + DAY_NS,
            lambda rows: rows.filter(chosen),
        )
        self._datasets.append(_StoredDataset.hold(dataset, received, files, unpublished))
        names = {f"{feed}.{stream}": (feed, stream) for feed in market.feeds}
        self.positions |= {
            names[name]: (ring_id, next_seq) for name, (ring_id, next_seq) in positions.items() if name in names
        }

    def read_windows(self) -> Iterator[dict[str, np.ndarray]]:
        """By stream the records of one span of WINDOW_NS after the other, those without any left out."""
        spans = [span for stored in self._datasets for span in stored.find_spans()]
        begin_ns = self._since_ns
        while ahead := [first_ns for first_ns, last_ns in spans if begin_ns <= min(last_ns, self._end_ns)]:
            begin_ns = max(begin_ns, min(ahead))
            parts = self._read(begin_ns, begin_ns + WINDOW_NS)
            if any(len(records) for records in parts.values()):
                yield parts
            begin_ns += WINDOW_NS

    def _read(self, begin_ns: int, end_ns: int) -> dict[str, np.ndarray]:
        parts: dict[str, list[np.ndarray]] = {}
        for stored in self._datasets:
            rows = stored.read(begin_ns, end_ns, self._wanted)
            records = _order(self._selection.choose(_convert(stored.dataset, rows)))
            anchor = self._clock.anchor
            elapsed_ns = np.round((records["recv_ns"] - anchor.calendar_ns) / anchor.speed).astype(np.int64)
            records["mono_ns"] = anchor.mono_ns + elapsed_ns
            parts.setdefault(stored.dataset.partition(".")[2], []).append(records)
        return {stream: _order(np.concatenate(found)) for stream, found in parts.items()}


def _find_received(stream: str) -> str:
    """The column of the time of receipt."""
    return "time" if stream == "event" else "recv_time"


def _convert(dataset: str, rows: pa.Table) -> np.ndarray:
    stream = dataset.partition(".")[2]
    if not len(rows):
        return empty_records(RINGS[stream], 0)  # most windows of a night
    return to_events(dataset, rows) if stream == "event" else to_records(stream, rows)


def _order(records: np.ndarray) -> np.ndarray:
    return records[np.lexsort((records["seq"], records["recv_ns"]))]


def _choose_symbols(symbols: pa.Array) -> pc.Expression:
    """Rows of these, and events of no instrument."""
    return pc.field("symbol").isin(symbols) | pc.field("symbol").is_null()


def _to_scalar(dataset: str, column: str, ns: int) -> pa.Scalar:
    return pa.scalar(ns, pa.int64()).cast(PARQUET[dataset].field(column).type)


class Selection:
    """The records of some instruments, and those of none, told by the bytes of symbol and venue, which all records have."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = None if instruments is None else frozenset(instruments)
        self._known: dict[bytes, bool] = {}

    def choose(self, records: np.ndarray) -> np.ndarray:
        """Those of `records` (of any ring's dtype) that are wanted."""
        if self._instruments is None:
            return records
        raw, known = records.tobytes(), self._known
        names = [raw[at : at + _NAME_BYTES] for at in range(_NAME_AT, len(raw), records.dtype.itemsize)]
        for name in names:
            if name not in known:
                known[name] = self._is_wanted(name[:-1].rstrip(b"\0"), name[-1])
        wanted = [known[name] for name in names]
        if all(wanted):
            return records
        return take_records(records, wanted) if any(wanted) else records[:0]

    def _is_wanted(self, symbol: bytes, venue: int) -> bool:
        chosen = self._instruments or ()
        return not symbol or (symbol, venue) in chosen or (symbol, 0) in chosen


def to_records(stream: str, rows: pa.Table) -> np.ndarray:
    """Stored rows (columns of PARQUET) as ring records; a null quote, midpoint or expected trade is the 0 that vendors send."""
    records = empty_records(STREAMS[stream], len(rows))

    def ints(name: str, absent: int = UNDEFINED) -> np.ndarray:
        return pc.fill_null(rows[name].cast(pa.int64()), absent).to_numpy()

    def prices(name: str, absent: int = UNDEFINED) -> np.ndarray:
        if pa.types.is_floating(rows[name].type):
            given = pc.fill_null(rows[name], np.nan).to_numpy()
            found = np.round(np.nan_to_num(given) * PRICE_SCALE).astype(np.int64)
            return np.where(np.isnan(given), absent, found)
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


def to_events(dataset: str, rows: pa.Table) -> np.ndarray:
    """Stored events as ring records; those of the writer, which no ring has, are left out."""
    feeds = MARKETS[dataset.partition(".")[0]].feeds
    rows = rows.filter(pc.field("line").isin(pa.array(feeds)))
    records = empty_records(EVENT, len(rows))
    columns = {name: rows[name].to_pylist() for name in ("symbol", "venue", "line", "kind", "stream", "message")}
    records["symbol"] = [(symbol or "").encode() for symbol in columns["symbol"]]
    records["venue"] = [Venue[name] if name else 0 for name in columns["venue"]]
    records["line"] = [FeedId[name.upper()] for name in columns["line"]]
    records["kind"] = [EventType[name.upper()] for name in columns["kind"]]
    records["stream"] = [STREAM_NAMES.index(name or "") for name in columns["stream"]]
    records["message"] = [(text or "").encode() for text in columns["message"]]
    for name, column, absent in (
        ("recv_ns", "time", 0),
        ("exch_ns", "exch_time", 0),
        ("since_ns", "since", UNDEFINED),
        ("value", "value", UNDEFINED),
        ("connection", "connection", 0),
        ("flags", "flags", 0),
        ("seq", "seq", 0),
    ):
        records[name] = pc.fill_null(rows[column].cast(pa.int64()), absent).to_numpy()
    return records


def merge_runs(parts: dict[_Name, np.ndarray], max_records: int) -> Iterator[tuple[_Name, np.ndarray]]:
    """Records of several streams as runs of one stream, in the order of receipt, a book before a tick of the same instant."""
    names = list(parts)
    stamps = np.concatenate([parts[name]["recv_ns"] for name in names])
    streams = np.repeat(np.arange(len(names)), [len(parts[name]) for name in names])
    order = np.argsort(stamps, kind="stable")
    ordered = streams[order]
    breaks = np.flatnonzero(np.diff(ordered)) + 1
    taken: Counter[_Name] = Counter()
    for run in np.split(ordered, breaks) if len(ordered) else ():
        name = names[run[0]]
        for begin in range(0, len(run), max_records):
            count = min(max_records, len(run) - begin)
            yield name, parts[name][taken[name] : taken[name] + count]
            taken[name] += count
