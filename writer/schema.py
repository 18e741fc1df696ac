"""What the columns are: records as they cross a ring become journal entries and Parquet rows.

    ORDERBOOK, TICK records ──entries()──> RecordBatch of JOURNAL[stream] ──publication──> table of PARQUET[stream]

Promises: vectorised and total: every record becomes an entry, whatever it holds; UNDEFINED becomes null; prices become whole won,
and a price that is not whole (a midpoint between two one-won ticks) is rounded half to even and its row flagged PRICE_ROUNDED;
times carry their zone.
Leaves to others: which entries are twins (merge.py), the order of rows (gather.py).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ringbuf.records import LEVELS, PRICE_SCALE, UNDEFINED, Flag, Line, Session, Venue
from writer.merge import IDENTITY_BYTES, NEW, Taken

VERSION = 1
HOUR_NS = 3600 * 1_000_000_000

KOREAN_TIME = pa.timestamp("ns", tz="Asia/Seoul")
_SIDES = ("ask", "bid")

_LEVELS = [
    (f"{side}_{what}_{n + 1}", pa.int64()) for side in _SIDES for what in ("price", "size") for n in range(LEVELS)
]
_HEAD = [
    ("symbol", pa.string()),
    ("venue", pa.string()),
    ("exch_time", KOREAN_TIME),
    ("recv_time", KOREAN_TIME),
]
_ORIGIN = [
    ("broker", pa.string()),
    ("session", pa.string()),
    ("flags", pa.int64()),
    ("seq", pa.int64()),
    ("extra", pa.string()),
]

PARQUET: dict[str, pa.Schema] = {
    "orderbook": pa.schema(
        [
            *_HEAD,
            ("recv_time_kis", KOREAN_TIME),
            ("recv_time_kiwoom", KOREAN_TIME),
            *_LEVELS,
            ("total_ask_size", pa.int64()),
            ("total_bid_size", pa.int64()),
            ("cum_volume", pa.int64()),
            ("expected_price", pa.int64()),
            ("expected_size", pa.int64()),
            ("mid_price", pa.int64()),
            ("mid_size", pa.int64()),
            *_ORIGIN,
        ]
    ),
    "tick": pa.schema(
        [
            *_HEAD,
            ("price", pa.int64()),
            ("size", pa.int64()),
            ("side", pa.int8()),
            ("cum_volume", pa.int64()),
            ("cum_value", pa.int64()),
            ("value_change", pa.int64()),
            ("trade_count", pa.int64()),
            ("ask_price_1", pa.int64()),
            ("bid_price_1", pa.int64()),
            ("source", pa.string()),
            *_ORIGIN,
        ]
    ),
}
"""The columns of a published file (design 6.5)."""

_ENTRY = [
    ("row", pa.int64()),  # entry number, 1, 2, 3 ... over the journal's whole lineage
    ("twin_of", pa.int64()),  # null: a new row; else only the arrival of that row's twin, content columns null
    ("mono_ns", pa.int64()),
    ("hour", pa.int64()),  # start of the exchange hour the row is stored in, ns since 1970 UTC
]

JOURNAL: dict[str, pa.Schema] = {
    "orderbook": pa.schema([*_ENTRY, ("identity", pa.binary(IDENTITY_BYTES)), *PARQUET["orderbook"]]),
    "tick": pa.schema([*_ENTRY, *PARQUET["tick"]]),
}
"""A journal entry: the row as it will be published, and what the writer must know to go on."""


def _words(members: type[Line] | type[Session] | type[Venue], lower: bool) -> pa.Array:
    """Names by code; a code without a name keeps its number."""
    names = {int(member): member.name.lower() if lower else member.name for member in members}
    return pa.array([names.get(code, f"{members.__name__.lower()}_{code}") for code in range(256)])


_LINE, _SESSION, VENUES = _words(Line, lower=True), _words(Session, lower=True), _words(Venue, lower=False)


def hours(records: np.ndarray) -> np.ndarray:
    """Start of the exchange hour of each record, int64 ns (Korea's offset is whole hours); by receive time where the
    exchange time is undefined."""
    exch_ns = np.where(records["exch_ns"] > 0, records["exch_ns"], records["recv_ns"])
    return exch_ns // HOUR_NS * HOUR_NS


def entries(stream: str, records: np.ndarray, first_row: int, taken: Taken | None) -> pa.RecordBatch:
    """Journal entries of `records` (dtype of `stream`), numbered from `first_row`; `taken` is what merge said, None for ticks."""
    count = len(records)
    twin_of = np.full(count, NEW, np.int64) if taken is None else taken.twin_of
    twin = twin_of != NEW
    columns: dict[str, pa.Array] = {
        "row": pa.array(np.arange(first_row, first_row + count)),
        "twin_of": pa.array(twin_of, mask=~twin),
        "mono_ns": pa.array(records["mono_ns"]),
        "hour": pa.array(hours(records) if taken is None else taken.hour_ns),
        "symbol": _text(records["symbol"], twin),
        "venue": _named(VENUES, records["venue"], twin),
        "exch_time": _time(records["exch_ns"], twin),
        "recv_time": _time(records["recv_ns"]),
        "broker": _named(_LINE, records["line"]),
        "session": _named(_SESSION, records["session"], twin),
        "seq": pa.array(records["seq"]),
        "extra": _text(records["extra"], twin | (records["extra"] == b"")),
    }
    content = _book(records, columns, twin) if stream == "orderbook" else _tick(records, columns)
    flags = records["flags"].astype(np.int64) | np.where(content, int(Flag.PRICE_ROUNDED), 0)
    if taken is not None:
        flags |= np.where(taken.late, int(Flag.LATE), 0)
        columns["identity"] = pa.array(taken.identity, pa.binary(IDENTITY_BYTES))
    columns["flags"] = _numbers(flags, twin)
    schema = JOURNAL[stream]
    return pa.record_batch([columns[name] for name in schema.names], schema=schema)


def _book(records: np.ndarray, columns: dict[str, pa.Array], twin: np.ndarray) -> np.ndarray:
    """A book's own columns; whether a price was rounded, shape (n,)."""
    rounded = np.zeros(len(records), bool)
    for line in (Line.KIS, Line.KIWOOM):
        columns[f"recv_time_{line.name.lower()}"] = _time(records["recv_ns"], records["line"] != line)
    for side in _SIDES:
        for n in range(LEVELS):
            columns[f"{side}_price_{n + 1}"] = _won(records[f"{side}_price_e4"][:, n], rounded, twin)
            columns[f"{side}_size_{n + 1}"] = _numbers(records[f"{side}_size"][:, n], twin)
    for name in ("expected_price", "mid_price"):
        columns[name] = _won(records[f"{name}_e4"], rounded, twin)
    for name in ("total_ask_size", "total_bid_size", "cum_volume", "expected_size", "mid_size"):
        columns[name] = _numbers(records[name], twin)
    return rounded


def _tick(records: np.ndarray, columns: dict[str, pa.Array]) -> np.ndarray:
    """A tick's own columns; whether a price was rounded, shape (n,)."""
    rounded = np.zeros(len(records), bool)
    for name in ("price", "ask_price_1", "bid_price_1"):
        columns[name] = _won(records[f"{name}_e4"], rounded)
    for name in ("size", "cum_volume", "cum_value", "value_change", "trade_count"):
        columns[name] = _numbers(records[name])
    columns["side"] = pa.array(records["side"])
    columns["source"] = pa.repeat("live", len(records))
    return rounded


def _numbers(values: np.ndarray, hidden: np.ndarray | bool = False) -> pa.Array:
    return pa.array(np.ascontiguousarray(values), mask=(values == UNDEFINED) | hidden)


def _time(values: np.ndarray, hidden: np.ndarray | bool = False) -> pa.Array:
    return _numbers(values, hidden).cast(KOREAN_TIME)


def _won(price_e4: np.ndarray, rounded: np.ndarray, hidden: np.ndarray | bool = False) -> pa.Array:
    """Whole won, half to even; `rounded` is set where a price was not whole."""
    won = price_e4 // PRICE_SCALE
    rest = price_e4 - won * PRICE_SCALE
    defined = price_e4 != UNDEFINED
    rounded |= (rest != 0) & defined & ~np.asarray(hidden)
    half = PRICE_SCALE // 2
    won += (rest > half) | ((rest == half) & (won % 2 == 1))
    return pa.array(won, mask=~defined | hidden)


def _named(names: pa.Array, codes: np.ndarray, hidden: np.ndarray | None = None) -> pa.Array:
    return names.take(pa.array(np.ascontiguousarray(codes), mask=hidden))


def _text(values: np.ndarray, hidden: np.ndarray) -> pa.Array:
    """Bytes as text; what is not UTF-8 keeps its bytes in backslash escapes."""
    found = pa.array(values.tolist(), pa.binary(), mask=hidden)
    try:
        return found.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([text.decode(errors="backslashreplace") for text in values.tolist()], pa.string(), mask=hidden)
