"""Arrow schemas of published files, and the conversion of records to their columns.

    ORDERBOOK, TICK, EVENT records ──build_columns──> columns of PARQUET[dataset]

            times             prices           in addition
    kr.*    Asia/Seoul        int64 won        recv_time_kis, recv_time_kiwoom of a book
    us.*    America/New_York  float64 dollars  business_date

Guarantees:
    * Every record becomes an entry, whatever it holds; UNDEFINED becomes null.
    * Where prices are whole units, a fractional one (a midpoint between two one-won ticks) is rounded half to even and its
      row flagged PRICE_ROUNDED; elsewhere prices are the float64 nearest to the recorded 1/10,000.
    * Times carry their zone; `business_date` is the day of the venue's session.
    * In published files a price that the exchange did not give is null, with its size. A journal entry has what the vendor sent:
      arbitration goes on from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conf.clock import HOUR_NS
from conf.market import KR, MARKETS, Market
from ringbuf.records import LEVELS, PRICE_SCALE, RINGS, STREAM_NAMES, UNDEFINED, EventType, FeedId, Flag, Session, Venue
from writer.ingest.trading_day import compute_exchange_ns, compute_session_days

WRITER_FEED = "writer"
"""The writer's own feed: it has events only, which are stored like those of the collectors."""

FILE_VERSION = 2
"""Of published files: from 2 on a price that the exchange did not give is null, with its size; in 1 it is the vendor's 0."""

_Rows = TypeVar("_Rows", pa.Table, pa.RecordBatch)
_SIDES = ("ask", "bid")
_SOURCE = pa.array(["live", "recovered"])
_ORIGIN = [
    ("broker", pa.string()),
    ("session", pa.string()),
    ("flags", pa.int64()),
    ("seq", pa.int64()),
    ("extra", pa.string()),
]


def timestamp_type(market: Market) -> pa.DataType:
    """An instant in the market's zone."""
    return pa.timestamp("ns", tz=market.zone_name)


KOREAN_TIME = timestamp_type(KR)


def _arrival_columns(market: Market) -> list[str]:
    """Where several feeds bring the same books, each row has the arrival time of each of them."""
    return [f"recv_time_{line}" for line in market.feeds] if len(market.feeds) > 1 else []


def _list_columns(market: Market, stream: str) -> pa.Schema:
    """The columns of one dataset."""
    time, price, whole = timestamp_type(market), pa.int64() if market.integer_prices else pa.float64(), pa.int64()
    head = [("symbol", pa.string()), ("venue", pa.string()), ("exch_time", time), ("recv_time", time)]
    head += [("business_date", pa.date32())] if market.has_business_date else []
    if stream == "tick":
        content = [
            ("price", price),
            ("size", whole),
            ("side", pa.int8()),
            ("cum_volume", whole),
            ("cum_value", whole),
            ("value_change", whole),
            ("trade_count", whole),
            ("ask_price_1", price),
            ("bid_price_1", price),
            ("source", pa.string()),
        ]
    else:
        kinds = {"price": price, "size": whole}
        content = [
            *((name, time) for name in _arrival_columns(market)),
            *((f"{side}_{what}_{n + 1}", kinds[what]) for side in _SIDES for what in kinds for n in range(LEVELS)),
            ("total_ask_size", whole),
            ("total_bid_size", whole),
            ("cum_volume", whole),
            ("expected_price", price),
            ("expected_size", whole),
            ("mid_price", price),
            ("mid_size", whole),
        ]
    return pa.schema([*head, *content, *_ORIGIN])


def _list_event_columns(market: Market) -> pa.Schema:
    """The columns of a market's events."""
    time, text, whole = timestamp_type(market), pa.string(), pa.int64()
    head = [("time", time), ("line", text), ("kind", text), ("symbol", text), ("venue", text), ("stream", text)]
    content = [("connection", whole), ("value", whole), ("since", time), ("message", text)]
    return pa.schema([*head, *content, ("exch_time", time), ("flags", whole), ("seq", whole)])


def parse_dataset(dataset: str) -> tuple[Market, str]:
    """Market and stream of a dataset such as "kr.tick"."""
    market, _, stream = dataset.partition(".")
    return MARKETS[market], stream


def feeds_of(dataset: str) -> tuple[str, ...]:
    """The feeds of a dataset, in the order that breaks ties; the writer's own events are among those of Korea."""
    market, stream = parse_dataset(dataset)
    own = {"event": (WRITER_FEED,) if market is KR else (), "tick": market.backfill_sources}
    return (*market.feeds, *own.get(stream, ()))


def is_merged(dataset: str) -> bool:
    """Whether its rows are books that come by several feeds, of which the first wins."""
    market, stream = parse_dataset(dataset)
    return stream == "orderbook" and len(market.feeds) > 1


def may_overlap(dataset: str) -> bool:
    """Whether several feeds may bring equal ticks, or some are backfilled."""
    market, stream = parse_dataset(dataset)
    return stream == "tick" and (len(market.feeds) > 1 or bool(market.backfill_sources))


def is_sorted_by_symbol(dataset: str) -> bool:
    """Whether a published file is sorted by symbol and venue before the order of arrival."""
    return parse_dataset(dataset)[1] != "event"


PARQUET: dict[str, pa.Schema] = {
    f"{market.name}.{stream}": _list_event_columns(market) if stream == "event" else _list_columns(market, stream)
    for market in MARKETS.values()
    for stream in RINGS
}
"""Dataset ("kr.tick") -> the columns of a published file."""

_GIVEN_WITH_PRICE = {
    **{f"{side}_price_{n + 1}": f"{side}_size_{n + 1}" for side in _SIDES for n in range(LEVELS)},
    "mid_price": "mid_size",
    "expected_price": "expected_size",
}
"""Prices that vendors send as 0 where there is none, each with the size beside it (a tick's quotes have none)."""


def _names_by_code(members: type[EventType] | type[FeedId] | type[Session] | type[Venue], lower: bool) -> pa.Array:
    """Names by code; a code without a name keeps its number."""
    names = {int(member): member.name.lower() if lower else member.name for member in members}
    return pa.array([names.get(code, f"{members.__name__.lower()}_{code}") for code in range(256)])


FEED_NAMES, SESSION_NAMES, VENUE_NAMES = (
    _names_by_code(FeedId, lower=True),
    _names_by_code(Session, lower=True),
    _names_by_code(Venue, lower=False),
)
FEED_NAMES = pc.replace_with_mask(
    FEED_NAMES, pc.equal(FEED_NAMES, "gapfill"), pa.scalar("kis")
)  # backfilled ticks come from KIS REST
EVENT_TYPE_NAMES = _names_by_code(EventType, lower=True)
EVENT_STREAM_NAMES = pa.array(STREAM_NAMES)


def clear_zero_prices(table: _Rows) -> _Rows:
    """Published columns with null in place of the vendors' 0: an empty level, no midpoint book, no expected trade, with the size.

    A table without a price keeps the size beside it.
    """
    names = table.schema.names
    for price, size in _GIVEN_WITH_PRICE.items():
        if price not in names or not pc.any(is_absent := pc.equal(table[price], 0)).as_py():
            continue
        for name in (price, size):
            if name in names:
                values = pc.if_else(is_absent, pa.scalar(None, table[name].type), table[name])
                table = table.set_column(names.index(name), table.schema.field(name), values)
    return table


def compute_hours(records: np.ndarray) -> np.ndarray:
    """Start of the exchange hour of each record, int64 ns (every market's offset from UTC is whole hours).

    Of an event: the hour in which it was emitted.
    """
    ns = records["recv_ns"] if records.dtype == RINGS["event"] else compute_exchange_ns(records)
    return ns // HOUR_NS * HOUR_NS


def build_columns(
    dataset: str, records: np.ndarray, twin: np.ndarray | None = None, arrivals: Sequence[np.ndarray] = ()
) -> dict[str, pa.Array]:
    """The columns (PARQUET) of `records` (dtype of the dataset's stream, shape (n,)), by name.

    `twin` bool (n,): which are only the other arrival of a row. `arrivals`: records (n,) of which each feed's time of receipt is
    that of the first with its line; those of `records` by default.
    """
    market, stream = parse_dataset(dataset)
    if stream == "event":
        return _build_event_columns(records, market)
    time = timestamp_type(market)
    twin = np.zeros(len(records), bool) if twin is None else twin
    is_same = twin & (records["flags"] & int(Flag.TWIN_DIFFERS) == 0)  # a twin that differs keeps its details
    fetched = records["line"] == FeedId.GAPFILL
    columns: dict[str, pa.Array] = {
        "symbol": _to_text(records["symbol"], twin),
        "venue": _to_names(VENUE_NAMES, records["venue"], twin),
        "exch_time": _to_ints(records["exch_ns"]).cast(time),
        "recv_time": _to_ints(records["recv_ns"], fetched).cast(time),
        "broker": _to_names(FEED_NAMES, records["line"]),
        "session": _to_names(SESSION_NAMES, records["session"], twin),
        "seq": _to_ints(records["seq"], fetched),
        "extra": _to_text(records["extra"], twin | (records["extra"] == b"")),
    }
    if market.has_business_date:
        columns["business_date"] = pa.array(compute_session_days(records).astype(np.int32)).cast(pa.date32())
    rounded = np.zeros(len(records), bool)
    if stream == "orderbook":
        _add_book_columns(records, market, columns, twin, is_same, rounded)
        for name, feed in zip(_arrival_columns(market), market.feeds, strict=False):
            columns[name] = _to_ints(_find_arrivals(arrivals or [records], FeedId[feed.upper()])).cast(time)
    else:
        _add_tick_columns(records, market, columns, rounded)
    flags = records["flags"].astype(np.int64) | np.where(rounded, int(Flag.PRICE_ROUNDED), 0)
    columns["flags"] = _to_ints(np.where(twin, int(Flag.TWIN_DIFFERS), flags), is_same)
    return columns


def _find_arrivals(arrivals: Sequence[np.ndarray], feed: FeedId) -> np.ndarray:
    """When a feed received each book, UNDEFINED if it did not."""
    recv_ns = np.full(len(arrivals[0]), UNDEFINED)
    for records in reversed(arrivals):
        recv_ns = np.where(records["line"] == feed, records["recv_ns"], recv_ns)
    return recv_ns


def _add_book_columns(
    records: np.ndarray,
    market: Market,
    columns: dict[str, pa.Array],
    twin: np.ndarray,
    is_same: np.ndarray,
    rounded: np.ndarray,
) -> None:
    """A book's own columns; `rounded` is set where a price had to be rounded."""
    for side in _SIDES:
        for n in range(LEVELS):
            columns[f"{side}_price_{n + 1}"] = build_prices(market, records[f"{side}_price_e4"][:, n], rounded, twin)
            columns[f"{side}_size_{n + 1}"] = _to_ints(records[f"{side}_size"][:, n], twin)
    for name in ("expected_price", "mid_price"):
        columns[name] = build_prices(market, records[f"{name}_e4"], rounded, is_same)
    for name in ("total_ask_size", "total_bid_size", "expected_size", "mid_size"):
        columns[name] = _to_ints(records[name], is_same)
    columns["cum_volume"] = _to_ints(records["cum_volume"], twin)


def _add_tick_columns(records: np.ndarray, market: Market, columns: dict[str, pa.Array], rounded: np.ndarray) -> None:
    """A tick's own columns; `rounded` is set where a price had to be rounded."""
    for name in ("price", "ask_price_1", "bid_price_1"):
        columns[name] = build_prices(market, records[f"{name}_e4"], rounded)
    for name in ("size", "cum_volume", "cum_value", "value_change", "trade_count"):
        columns[name] = _to_ints(records[name])
    columns["side"] = pa.array(records["side"])
    columns["source"] = _SOURCE.take(pa.array((records["line"] == FeedId.GAPFILL).astype(np.int8)))


def _build_event_columns(records: np.ndarray, market: Market) -> dict[str, pa.Array]:
    """The columns of events: what an event does not name is null."""
    time = timestamp_type(market)
    columns = {
        "line": _to_names(FEED_NAMES, records["line"]),
        "kind": _to_names(EVENT_TYPE_NAMES, records["kind"]),
        "venue": _to_names(VENUE_NAMES, records["venue"], records["venue"] == 0),
        "stream": _to_names(EVENT_STREAM_NAMES, records["stream"], records["stream"] == 0),
        "value": _to_ints(records["value"]),
    }
    for name, field in (("time", "recv_ns"), ("since", "since_ns"), ("exch_time", "exch_ns")):
        columns[name] = _to_ints(records[field]).cast(time)
    columns |= {name: _to_text(records[name], records[name] == b"") for name in ("symbol", "message")}
    return columns | {name: pa.array(records[name].astype(np.int64)) for name in ("connection", "flags", "seq")}


def name_instruments(records: np.ndarray) -> list[tuple[str, str]]:
    """Symbol and venue of each record, as published."""
    none = np.zeros(len(records), bool)
    columns = _to_text(records["symbol"], none), _to_names(VENUE_NAMES, records["venue"])
    return list(zip(*(column.to_pylist() for column in columns), strict=True))


def _to_ints(values: np.ndarray, hidden: np.ndarray | bool = False) -> pa.Array:
    return pa.array(np.ascontiguousarray(values), mask=(values == UNDEFINED) | hidden)


def build_prices(
    market: Market, price_e4: np.ndarray, rounded: np.ndarray | None = None, hidden: np.ndarray | bool = False
) -> pa.Array:
    """Prices as the market's files have them, null where UNDEFINED or `hidden`; `rounded` is set where one had to be rounded."""
    if market.integer_prices:
        return _to_whole_prices(price_e4, rounded, hidden)
    return pa.array(price_e4 / PRICE_SCALE, mask=(price_e4 == UNDEFINED) | hidden)


def _to_whole_prices(price_e4: np.ndarray, rounded: np.ndarray | None, hidden: np.ndarray | bool) -> pa.Array:
    """Whole units of the currency, half to even; `rounded` is set for fractional prices."""
    units = price_e4 // PRICE_SCALE
    rest = price_e4 - units * PRICE_SCALE
    defined = price_e4 != UNDEFINED
    if rounded is not None:
        rounded |= (rest != 0) & defined & ~np.asarray(hidden)
    half = PRICE_SCALE // 2
    units += (rest > half) | ((rest == half) & (units % 2 == 1))
    return pa.array(units, mask=~defined | hidden)


def _to_names(names: pa.Array, codes: np.ndarray, hidden: np.ndarray | None = None) -> pa.Array:
    return names.take(pa.array(np.ascontiguousarray(codes), mask=hidden))


def _to_text(values: np.ndarray, hidden: np.ndarray) -> pa.Array:
    """Bytes as text; what is not UTF-8 keeps its bytes in backslash escapes."""
    found = pa.array(values.tolist(), pa.binary(), mask=hidden)
    try:
        return found.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([text.decode(errors="backslashreplace") for text in values.tolist()], pa.string(), mask=hidden)
