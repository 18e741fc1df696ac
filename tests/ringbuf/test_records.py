"""Records: where each byte is, what identifies a book, what blank means."""

from __future__ import annotations

import numpy as np
import pytest

from conf.calendar import PHASES
from ringbuf.fields import MONO_NS_AT, STREAM_FIELDS, compute_layout
from ringbuf.records import (
    BOOK_KEY,
    BOOK_KEY_WITHOUT_VOLUME,
    EVENT,
    LEVELS,
    ORDERBOOK,
    RINGS,
    STREAMS,
    TICK,
    UNDEFINED,
    EventType,
    FeedId,
    Flag,
    Session,
    Side,
    empty_records,
    field_offset,
    find_layout,
)

ORDERBOOK_LAYOUT = {  # name: (offset, bytes)
    "seq": (0, 8),
    "recv_ns": (8, 8),
    "mono_ns": (16, 8),
    "exch_ns": (24, 8),
    "symbol": (32, 15),
    "venue": (47, 1),
    "ask_price_e4": (48, 80),
    "ask_size": (128, 80),
    "bid_price_e4": (208, 80),
    "bid_size": (288, 80),
    "cum_volume": (368, 8),
    "total_ask_size": (376, 8),
    "total_bid_size": (384, 8),
    "expected_price_e4": (392, 8),
    "expected_size": (400, 8),
    "mid_price_e4": (408, 8),
    "mid_size": (416, 8),
    "flags": (424, 4),
    "line": (428, 1),
    "session": (429, 1),
    "extra": (430, 42),
}
TICK_LAYOUT = {
    "seq": (0, 8),
    "recv_ns": (8, 8),
    "mono_ns": (16, 8),
    "exch_ns": (24, 8),
    "symbol": (32, 15),
    "venue": (47, 1),
    "price_e4": (48, 8),
    "size": (56, 8),
    "cum_volume": (64, 8),
    "cum_value": (72, 8),
    "value_change": (80, 8),
    "trade_count": (88, 8),
    "ask_price_1_e4": (96, 8),
    "bid_price_1_e4": (104, 8),
    "side": (112, 1),
    "_pad": (113, 7),
    "flags": (120, 4),
    "line": (124, 1),
    "session": (125, 1),
    "extra": (126, 42),
}
EVENT_LAYOUT = {
    "seq": (0, 8),
    "recv_ns": (8, 8),
    "mono_ns": (16, 8),
    "exch_ns": (24, 8),
    "symbol": (32, 15),
    "venue": (47, 1),
    "value": (48, 8),
    "since_ns": (56, 8),
    "flags": (64, 4),
    "connection": (68, 4),
    "line": (72, 1),
    "session": (73, 1),
    "kind": (74, 1),
    "stream": (75, 1),
    "message": (76, 180),
}


@pytest.mark.parametrize(
    ("dtype", "size", "table"),
    [(ORDERBOOK, 472, ORDERBOOK_LAYOUT), (TICK, 168, TICK_LAYOUT), (EVENT, 256, EVENT_LAYOUT)],
    ids=RINGS,
)
def test_every_byte_of_a_record_is_where_the_table_says(
    dtype: np.dtype, size: int, table: dict[str, tuple[int, int]]
) -> None:
    """The layout is a format on disk and between versions: moving a byte must be seen here."""
    found = {name: (offset, field.itemsize) for name, (field, offset) in dtype.fields.items()}

    assert found == table
    assert dtype.itemsize == size


@pytest.mark.parametrize("dtype", RINGS.values(), ids=RINGS)
def test_records_have_no_hidden_padding_and_integers_only(dtype: np.dtype) -> None:
    """Every byte belongs to a named field, every number is a little-endian integer, every 8-byte number is aligned."""
    ends = [offset + field.itemsize for field, offset in dtype.fields.values()]
    begins = [offset for _, offset in dtype.fields.values()]
    bases = [field.base for field, _ in dtype.fields.values()]

    assert begins == [0, *ends[:-1]]
    assert ends[-1] == dtype.itemsize
    assert {base.kind for base in bases} <= set("iuSV")
    assert all(base.str[0] in "<|" for base in bases)
    assert all(offset % field.base.itemsize == 0 for field, offset in dtype.fields.values() if field.base.kind in "iu")


def test_identity_covers_symbol_venue_levels_and_volume_and_nothing_else() -> None:
    """Design 6.2: a book's identity is symbol, venue, the 20 (price, size) pairs and the cumulative volume."""
    inside = {"symbol", "venue", "ask_price_e4", "ask_size", "bid_price_e4", "bid_size", "cum_volume"}

    def covered(part: slice) -> set[str]:
        book = np.zeros(1, ORDERBOOK)
        raw = book.view(np.uint8)
        raw[part] = 0xFF
        return {name for name in ORDERBOOK.names if book[name].tobytes().strip(b"\0")}

    whole = sum(ORDERBOOK.fields[name][0].itemsize for name in inside)
    assert covered(BOOK_KEY) == inside
    assert BOOK_KEY.stop - BOOK_KEY.start == whole == 15 + 1 + 4 * LEVELS * 8 + 8
    assert covered(BOOK_KEY_WITHOUT_VOLUME) == inside - {"cum_volume"}
    assert BOOK_KEY_WITHOUT_VOLUME.stop - BOOK_KEY_WITHOUT_VOLUME.start == whole - 8


@pytest.mark.parametrize("stream", STREAMS)
def test_who_has_no_numpy_finds_the_same_layout(stream: str) -> None:
    """`status` reads how full a ring is, and refuses the rings that others refuse."""
    fields, dtype = STREAM_FIELDS[stream], STREAMS[stream]

    assert compute_layout(fields) == find_layout(dtype)
    assert find_layout(dtype).record_bytes == dtype.itemsize
    assert dtype.descr == fields
    assert field_offset(dtype, "mono_ns") == MONO_NS_AT


def test_the_dtype_hash_changes_with_any_change() -> None:
    """A field renamed, retyped, resized, moved, added or taken away is another layout; the same one is not."""
    fields = [("seq", "<i8"), ("size", "<i8", (3,)), ("code", "u1"), ("text", "S7")]
    others = [
        [("seq", "<i8"), ("sizes", "<i8", (3,)), ("code", "u1"), ("text", "S7")],
        [("seq", "<i8"), ("size", "<u8", (3,)), ("code", "u1"), ("text", "S7")],
        [("seq", "<i8"), ("size", ">i8", (3,)), ("code", "u1"), ("text", "S7")],
        [("seq", "<i8"), ("size", "<f8", (3,)), ("code", "u1"), ("text", "S7")],
        [("seq", "<i8"), ("size", "<i8", (4,)), ("code", "u1"), ("text", "S7")],
        [("seq", "<i8"), ("size", "<i8", (3,)), ("text", "S7"), ("code", "u1")],
        [("seq", "<i8"), ("size", "<i8", (3,)), ("code", "u1"), ("text", "S6"), ("more", "u1")],
        [("seq", "<i8"), ("size", "<i8", (3,)), ("code", "u1")],
        [("size", "<i8", (3,)), ("seq", "<i8"), ("code", "u1"), ("text", "S7")],
    ]
    padded = np.dtype({"names": ["seq"], "formats": ["<i8"], "offsets": [0], "itemsize": 16})
    hashes = [find_layout(np.dtype(other)).fingerprint for other in [fields, *others, [("seq", "<i8")]]] + [
        find_layout(padded).fingerprint
    ]

    assert find_layout(np.dtype(list(fields))).fingerprint == hashes[0]
    assert len(set(hashes)) == len(hashes)
    assert all(0 <= value < 2**63 for value in hashes)
    assert len({find_layout(dtype).fingerprint for dtype in RINGS.values()}) == len(RINGS)


@pytest.mark.parametrize("dtype", RINGS.values(), ids=RINGS)
def test_blank_records_say_undefined_where_a_frame_may_be_silent(dtype: np.dtype) -> None:
    """What a frame may leave out is UNDEFINED; its core, which every frame has, and codes start at zero."""
    core = {
        *("seq", "recv_ns", "mono_ns", "exch_ns", "symbol", "venue", "flags", "line", "session", "extra"),
        *("ask_price_e4", "ask_size", "bid_price_e4", "bid_size", "price_e4", "size", "side", "_pad"),
        *("connection", "kind", "stream", "message"),
    }

    records = empty_records(dtype, 3)

    assert records.shape == (3,)
    assert records.dtype == dtype
    for name in dtype.names:
        if name in core:
            assert not records[name].tobytes().strip(b"\0"), name
        else:
            assert (records[name] == UNDEFINED).all(), name
    assert empty_records(dtype, 0).shape == (0,)


def test_undefined_is_no_number_a_feed_can_send() -> None:
    """The smallest int64: no price, size, volume or change reaches it."""
    assert np.iinfo(np.int64).min == UNDEFINED


def test_codes_fit_the_fields_they_are_stored_in() -> None:
    """One bit per flag within 32, sides within a signed byte, and the sessions of the settings are those of the records."""
    assert all(flag.value.bit_count() == 1 for flag in Flag)
    assert sum(Flag) < 2**32
    assert sorted(Side) == [-1, 0, 1]
    assert all(0 < code < 256 for code in (*EventType, *FeedId))
    assert {phase.upper() for phase in PHASES} == {session.name for session in Session} - {"UNKNOWN"}
