"""Output of a decoder: packed rows, their subscriptions, and rejected input.

    values in dtype order --Struct.pack--> bytes --joined--> one array per batch

Guarantees:
    * Packing raises struct.error for a value outside int64, so no record can hold a wrapped number.
    * Values are packed by position; tests/brokers/test_protocol.py checks that decoders name them as the dtype does, in its order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from brokers.subscription import Subscription
from conf.instrument import Instrument
from ringbuf.records import ORDERBOOK, TICK, UNDEFINED, EventType, Flag, build_packer


class MarketEvent(NamedTuple):
    """A market event of the vendor that is neither book nor trade, as an event of one type (records.py).

    `is_state`: the vendor repeats it with each message, and only a change is an event.
    """

    kind: EventType
    message: str
    instrument: Instrument | None = None
    value: int = UNDEFINED
    exch_ns: int = UNDEFINED
    is_state: bool = False


def check_totals(total_ask: int, ask_sizes: Sequence[int], total_bid: int, bid_sizes: Sequence[int]) -> int:
    """Flag of totals that are not the sums of their sizes; an absent total is not checked."""
    if total_ask in (UNDEFINED, sum(ask_sizes)) and total_bid in (UNDEFINED, sum(bid_sizes)):
        return 0
    return Flag.CHECKSUM


def flag_unreadable(texts: Iterable[str | bytes], values: Sequence[int]) -> int:
    """Flag of optional fields that are not empty and could not be read."""
    if UNDEFINED not in values:
        return 0
    unreadable = any(text and value == UNDEFINED for text, value in zip(texts, values, strict=True))
    return Flag.UNREADABLE_FIELD if unreadable else 0


pack_book = build_packer(ORDERBOOK).pack
pack_tick = build_packer(TICK).pack
EXTRA_BYTES = ORDERBOOK["extra"].itemsize


def to_records(dtype: np.dtype, rows: Sequence[bytes | bytearray]) -> np.ndarray:
    """Rows as one writable array, shape (len(rows),)."""
    return np.frombuffer(bytearray(b"".join(rows)), dtype)


class DecodedBatch:
    """One message, or a batch of them: rows of both streams with the subscriptions they belong to, and the rest."""

    __slots__ = (
        "book_rows",
        "book_subscriptions",
        "control",
        "empty_trades",
        "market_events",
        "oversized_frames",
        "rejects",
        "tick_rows",
        "tick_subscriptions",
    )

    def __init__(self) -> None:
        self.book_rows: list[bytes] = []
        self.tick_rows: list[bytes] = []
        self.book_subscriptions: list[Subscription] = []
        self.tick_subscriptions: list[Subscription] = []
        self.rejects: list[tuple[bytes, str]] = []  # raw frame that can be decoded again later, reason
        self.control: bytes | None = None  # the message is a control message, not data
        self.empty_trades = 0  # records of trades without price and quantity: nothing was traded
        self.market_events: list[MarketEvent] = []  # phases, interruptions, halts
        self.oversized_frames: list[tuple[str, int]] = []  # kind and width of frames wider than known

    @property
    def books(self) -> np.ndarray:
        """The books, dtype ORDERBOOK."""
        return to_records(ORDERBOOK, self.book_rows)

    @property
    def ticks(self) -> np.ndarray:
        """The ticks, dtype TICK."""
        return to_records(TICK, self.tick_rows)

    def extend(self, other: DecodedBatch) -> None:
        """Append the rows of another message."""
        self.book_rows += other.book_rows
        self.book_subscriptions += other.book_subscriptions
        self.tick_rows += other.tick_rows
        self.tick_subscriptions += other.tick_subscriptions
        self.empty_trades += other.empty_trades
