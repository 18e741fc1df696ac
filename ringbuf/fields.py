"""Fields of the records, their enums and flags: what a process needs that handles no record.

    ORDERBOOK  472 bytes        TICK  168 bytes             EVENT  256 bytes
    +--------------------+      +--------------------+      +--------------------+
    | seq recv mono exch |      | seq recv mono exch |      | seq recv mono exch |  sequence number and times
    | symbol venue       |      | symbol venue       |      | symbol venue       |  what; blank in an event of no instrument
    | 10 x 4 levels      |      | price size side    |      | value since        |  content; in a book, `symbol` to `cum_volume`
    | cum_volume         |      | cum_volume ...     |      | flags connection   |  is what arbitration compares (BOOK_KEY)
    | totals expected .. |      | best quotes        |      | line session       |
    | line session flags |      | line session flags |      | kind stream        |  origin
    | extra              |      | extra              |      | message            |  raw fields beyond the known ones
    +--------------------+      +--------------------+      +--------------------+

Guarantees:
    * Fields are little-endian integers; no padding that the dtype does not name.
    * Times are int64 ns since 1970 UTC, prices int64 in 1/10,000 of the currency (`_e4`), sizes int64 shares, values int64
      whole units of the currency.
    * What a frame did not carry is UNDEFINED.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, IntFlag
from hashlib import sha256
from math import prod
from typing import NamedTuple

UNDEFINED = -(2**63)
"""The value of a field that the frame did not carry; null in Parquet."""

MAX_INT64 = 2**63 - 1
"""A bound that no instant and no volume reaches."""

PRICE_SCALE = 10_000
LEVELS = 10


Fields = list[tuple]
"""(name, type) or (name, type, shape), as numpy describes a dtype."""


class FeedId(IntEnum):
    """The feed of a record: one per collector process, one for backfilled ticks, one for events of the writer."""

    KIS = 1
    KIWOOM = 2
    US = 3
    GAPFILL = 4  # fetched over REST during the day (collectorctl/gapfill)
    WRITER = 9


class Venue(IntEnum):
    """Where the trade or book belongs. Volumes of different venues are never mixed."""

    KRX = 1
    NXT = 2
    UN = 3
    NASDAQ = 11
    NYSE = 12
    AMEX = 13
    NASDAQ_DAY = 21  # the US day market: Korean daytime, another book and another volume than the exchange's
    NYSE_DAY = 22
    AMEX_DAY = 23


class Session(IntEnum):
    """The phase of the trading day."""

    UNKNOWN = 0
    PRE_MARKET = 1
    OPENING_AUCTION = 2
    REGULAR = 3
    CLOSING_AUCTION = 4
    CLOSING_PRICE = 5
    AFTER_MARKET = 6
    INTRADAY_AUCTION = 7
    DAY_MARKET = 8
    NIGHT_MARKET = 9


class Side(IntEnum):
    """The aggressor's side."""

    SELL = -1
    NONE = 0
    BUY = 1


class Flag(IntFlag):
    """One bit per finding; a flag never removes a record."""

    SNAPSHOT = 1 << 0  # first of its symbol and stream after a subscription: what came before it was not received
    LATE = 1 << 1  # its cumulative volume is behind what was already stored (set by the writer)
    CHECKSUM = 1 << 2  # totals are not the sum of the levels, or volume did not advance by the size
    EXTRA = 1 << 3  # the frame was wider than known; the surplus is in `extra`
    EXTRA_CUT = 1 << 4  # the surplus did not fit into `extra`
    VALUE_ROUNDED = 1 << 5  # cum_value is rounded to a million won by the vendor
    CLOCK_STEP = 1 << 6  # the wall clock had been stepped shortly before
    HALTED = 1 << 7  # the vendor marked the symbol as halted
    PRICE_ROUNDED = 1 << 8  # a price finer than stored (a midpoint of one-won ticks): rounded half to even
    DATE_MISMATCH = 1 << 9  # dates and times of the frame contradict each other, or its time of day was yet to come
    CONFLICT = 1 << 10  # a tick overlaps another one that differs: one is wrong (set by the writer)
    VENUE_MISMATCH = 1 << 11  # the frame names another venue than the one its stream was subscribed for
    SIZE_ROUNDED = 1 << 12  # a size or volume with a fraction of a share, stored in whole shares that add up as before
    UNREADABLE_FIELD = 1 << 13  # an optional field holds something that cannot be read; it is stored as empty
    SPLIT = 1 << 14  # other rows have some of the tick's shares: size and volume are the rest's (set by the writer)
    TWIN_DIFFERS = (
        1 << 15
    )  # of a book: the other feed states another midpoint, total or expected trade (set by the writer)


class EventType(IntEnum):
    """The type of an event, with the meaning of `value`, `since` and `message`; fields not named are empty."""

    STARTED = 1  # a process began; since: the last heartbeat of its predecessor, if that did not stop in order
    STOPPED = 2  # a process stopped on request
    CONNECTED = 3  # message: address
    DISCONNECTED = 4  # message: reason; since: time of the last frame, after which nothing was received
    ACKNOWLEDGED = 5  # the vendor confirmed a subscription: its stream is received from here on
    REFUSED = 6  # the vendor rejected a subscription; message: the vendor's
    RESUBSCRIBED = 7  # a subscription is sent again; message: reason
    RELEASED = 8  # a subscription was cancelled on purpose: this feed does not receive its stream from here on
    TAKEN_OVER = 9  # this feed collects a symbol's ticks in place of another; message: the other feed
    GIVEN_BACK = 10  # this feed no longer collects them; message: the other feed
    PHASE = 11  # the market's phase; message: the vendor's code and its meaning
    VI = 12  # volatility interruption; value: 1 begins, 0 ends, undefined: unknown
    HALT = 13  # trading of a symbol; value: 1 halted, 0 resumed
    CLOCK_STEP = 14  # the wall clock was stepped; value: by how many ns
    RING_LOSS = (
        15  # records were overwritten unread or damaged; value: count, message: which, since: the last record before
    )
    QUARANTINED = 16  # frames were quarantined; value: how many since the last such event, message: the latest reason
    PAUSED = 17  # a dataset cannot be written, the rings hold its data; message: which, and the error
    RESUMED = 18  # it can be written again; message: which, since: when it paused
    DEGRADED = 19  # a feed delivers much less than the other; message: how
    RESTORED = 20  # the feed delivers as much as the other again; since: when it was degraded
    JOURNAL_DAMAGED = (
        21  # a part of the journal is unreadable; value: rows lost, message: where, since: the last row before them
    )
    DETAIL_CHANGED = (
        22  # books that differ in one field alone are two books (value 1) or one (0) from here on; message: which
    )


_STAMPS: Fields = [
    ("seq", "<i8"),  # 1, 2, 3 ... on its ring, never reused; written by the ring
    ("recv_ns", "<i8"),  # calendar time at which the bytes left the socket (home's clock)
    ("mono_ns", "<i8"),  # the instant on CLOCK_MONOTONIC: for order, windows, lags
    ("exch_ns", "<i8"),  # exchange time, second resolution
]
MONO_NS_AT = 8 * [name for name, _ in _STAMPS].index("mono_ns")
"""Where every record has it, in bytes."""

_ORIGIN: Fields = [
    ("flags", "<u4"),
    ("line", "|u1"),
    ("session", "|u1"),
    ("extra", "|S42"),
]

ORDERBOOK_FIELDS: Fields = [
    *_STAMPS,
    ("symbol", "|S15"),
    ("venue", "|u1"),
    ("ask_price_e4", "<i8", (LEVELS,)),
    ("ask_size", "<i8", (LEVELS,)),
    ("bid_price_e4", "<i8", (LEVELS,)),
    ("bid_size", "<i8", (LEVELS,)),
    ("cum_volume", "<i8"),
    ("total_ask_size", "<i8"),
    ("total_bid_size", "<i8"),
    ("expected_price_e4", "<i8"),
    ("expected_size", "<i8"),
    ("mid_price_e4", "<i8"),
    ("mid_size", "<i8"),
    *_ORIGIN,
]

TICK_FIELDS: Fields = [
    *_STAMPS,
    ("symbol", "|S15"),
    ("venue", "|u1"),
    ("price_e4", "<i8"),
    ("size", "<i8"),
    ("cum_volume", "<i8"),
    ("cum_value", "<i8"),
    ("value_change", "<i8"),  # cum_value minus the previous day's total, exact, where the vendor gives that instead
    ("trade_count", "<i8"),  # buyer- plus seller-initiated trades of the day
    ("ask_price_1_e4", "<i8"),
    ("bid_price_1_e4", "<i8"),
    ("side", "|i1"),
    ("_pad", "|V7"),
    *_ORIGIN,
]

EVENT_FIELDS: Fields = [
    *_STAMPS,
    ("symbol", "|S15"),
    ("venue", "|u1"),
    ("value", "<i8"),
    ("since_ns", "<i8"),  # calendar time, like recv_ns
    ("flags", "<u4"),
    ("connection", "<u4"),  # 1, 2, ... within its feed; 0: the whole process
    ("line", "|u1"),
    ("session", "|u1"),
    ("kind", "|u1"),
    ("stream", "|u1"),  # index into STREAM_NAMES
    ("message", "|S180"),
]

STREAM_FIELDS = {"orderbook": ORDERBOOK_FIELDS, "tick": TICK_FIELDS}
"""The fields of the records of each stream that a broker sends."""

STATUS_STREAM = "status"
"""A stream that a broker may send beside the others: what the exchange does with an instrument. It becomes events."""

STREAM_NAMES = ("", *STREAM_FIELDS, STATUS_STREAM)
"""An event's `stream` by number; the first is none."""


class RecordLayout(NamedTuple):
    """Size of a record, and a 63-bit fingerprint of its fields: names, types, order and offsets."""

    record_bytes: int
    fingerprint: int


def compute_layout(fields: Iterable[tuple]) -> RecordLayout:
    """The layout of records with these fields, as numpy describes them: a name, a type that ends with its size, a shape."""
    described = list(fields)
    record_bytes = sum(int(form[2:]) * prod(shape[0] if shape else ()) for _, form, *shape in described)
    return RecordLayout(
        record_bytes, int.from_bytes(sha256(repr((described, record_bytes)).encode()).digest()[:8], "little") >> 1
    )


def fit_text(text: str, max_bytes: int) -> bytes:
    """UTF-8 of `text`, cut between two characters to `max_bytes`; what has no UTF-8 is a question mark."""
    return text.encode(errors="replace")[:max_bytes].decode(errors="ignore").encode()
