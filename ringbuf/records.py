"""Records of the rings as numpy arrays: ORDERBOOK, TICK, EVENT (fields.py), and what is done with them as bytes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache

import numpy as np

from ringbuf.fields import (
    EVENT_FIELDS,
    LEVELS,
    MAX_INT64,
    ORDERBOOK_FIELDS,
    PRICE_SCALE,
    STATUS_STREAM,
    STREAM_NAMES,
    TICK_FIELDS,
    UNDEFINED,
    EventType,
    FeedId,
    Flag,
    RecordLayout,
    Session,
    Side,
    Venue,
    compute_layout,
    fit_text,
)

__all__ = [
    "BOOK_KEY",
    "BOOK_KEY_WITHOUT_VOLUME",
    "EVENT",
    "INSTRUMENT_BYTES",
    "LEVELS",
    "MAX_INT64",
    "ORDERBOOK",
    "PRICE_SCALE",
    "RINGS",
    "STATUS_STREAM",
    "STREAMS",
    "STREAM_NAMES",
    "TICK",
    "UNDEFINED",
    "EventType",
    "FeedId",
    "Flag",
    "Session",
    "Side",
    "Venue",
    "build_packer",
    "empty_records",
    "encode_instruments",
    "field_offset",
    "find_layout",
    "fit_text",
    "join_records",
    "take_records",
]
"""The vocabulary of records in one place, for whoever has arrays of them."""

ORDERBOOK, TICK, EVENT = map(np.dtype, (ORDERBOOK_FIELDS, TICK_FIELDS, EVENT_FIELDS))

STREAMS: dict[str, np.dtype] = {"orderbook": ORDERBOOK, "tick": TICK}
"""The streams a broker sends."""

RINGS: dict[str, np.dtype] = STREAMS | {"event": EVENT}
"""The rings of a feed: its streams and its events."""

INSTRUMENT_BYTES = 16
"""Of symbol and venue, which are neighbours in a record."""


def field_offset(dtype: np.dtype, name: str) -> int:
    """Where a field of a record begins, in bytes."""
    return dtype.fields[name][1]  # type: ignore[index]  # a record's dtype has fields


BOOK_KEY = slice(field_offset(ORDERBOOK, "symbol"), field_offset(ORDERBOOK, "total_ask_size"))
"""Bytes that identify a book's content for arbitration: symbol, venue, the 40 numbers of its levels, cumulative volume."""

BOOK_KEY_WITHOUT_VOLUME = slice(BOOK_KEY.start, field_offset(ORDERBOOK, "cum_volume"))
"""`BOOK_KEY` without the cumulative volume, for venues where one broker stamps it late."""


@cache
def find_layout(dtype: np.dtype) -> RecordLayout:
    """The layout of records of a dtype."""
    return compute_layout(dtype.descr)


def build_packer(dtype: np.dtype) -> struct.Struct:
    """A Struct with the layout of `dtype`; void fields are padding and take no value."""
    form = "<"
    for name in dtype.names or ():
        field = dtype[name]
        base, shape = field.subdtype or (field, ())
        count = int(np.prod(shape, dtype=int))
        if base.kind == "S":
            form += f"{base.itemsize}s"
        elif base.kind == "V":
            form += f"{base.itemsize}x"
        else:
            form += f"{count}{_STRUCT_CODES[base.str]}"
    packer = struct.Struct(form)
    if packer.size != dtype.itemsize:
        raise TypeError(f"{dtype} has padding that its fields do not name: {packer.size} bytes of {dtype.itemsize}")
    return packer


def encode_instruments(records: np.ndarray) -> bytes:
    """Symbol and venue of each record as they lie in it, 16 bytes each, one behind the other."""
    begin = field_offset(records.dtype, "symbol")
    raw = np.ascontiguousarray(records).view(np.uint8).reshape(len(records), records.dtype.itemsize)
    return raw[:, begin : begin + INSTRUMENT_BYTES].tobytes()


def take_records(records: np.ndarray, at: np.ndarray | Sequence[int] | Sequence[bool]) -> np.ndarray:
    """`records[at]`, a copy; at: positions, or bools, one per record."""
    # as bytes without fields: numpy copies records field by field otherwise, ten times slower
    whole = np.frombuffer(records.tobytes(), f"V{records.dtype.itemsize}")
    return np.frombuffer(whole[at], records.dtype)


def join_records(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The records of all parts, which are of one dtype, one after the other; a single part is returned as it is."""
    return (
        parts[0]
        if len(parts) == 1
        else np.frombuffer(bytearray().join([part.tobytes() for part in parts]), parts[0].dtype)
    )


def empty_records(dtype: np.dtype, count: int) -> np.ndarray:
    """`count` records in which every number that a frame may leave out is UNDEFINED.

    Levels, the size of a trade, sides, flags and codes start at zero; shape (count,), dtype as given.
    """
    records = np.zeros(count, dtype)
    for name in dtype.names or ():
        if name in _OPTIONAL:
            records[name] = UNDEFINED
    return records


_STRUCT_CODES = {"<i8": "q", "<u4": "I", "|u1": "B", "|i1": "b"}

_OPTIONAL = frozenset(
    [
        "cum_volume",
        "total_ask_size",
        "total_bid_size",
        "expected_price_e4",
        "expected_size",
        "mid_price_e4",
        "mid_size",
        "cum_value",
        "value_change",
        "trade_count",
        "ask_price_1_e4",
        "bid_price_1_e4",
        "value",
        "since_ns",
    ]
)
