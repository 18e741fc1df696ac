"""Messages of a live stream: books, ticks, and in band everything that makes them incomplete (pure).

    ring record  ──>  Book  Tick                     one per record, fields as docs/live.md has them
    ring, event  ──>  Lost  Gap  FeedDown  FeedUp  Phase

Guarantees:
    * Times are int ns since 1970 UTC; `mono_ns` is CLOCK_MONOTONIC of this host.
    * Prices are whole numbers in a market that has only those, else floats, in the currency; what the exchange did not give is
      None, never 0.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from conf.market import market_of
from ringbuf.records import (
    LEVELS,
    ORDERBOOK,
    PRICE_SCALE,
    TICK,
    UNDEFINED,
    EventType,
    FeedId,
    Session,
    Venue,
    build_packer,
)

Price = int | float | None
FEED_NAMES = {int(feed): feed.name.lower() for feed in FeedId}
PHASE_KINDS = {EventType.PHASE: "phase", EventType.VI: "vi", EventType.HALT: "halt"}
_VENUES = {int(venue): venue.name for venue in Venue}
_SESSIONS = {int(session): session.name.lower() for session in Session}
_DIVISORS = {
    int(venue): PRICE_SCALE if market_of(venue.name).integer_prices else 0 for venue in Venue
}  # 0: prices with a fraction


class Book(NamedTuple):
    """An order book as the first of its feeds delivered it; levels best first, as (price, size), only those that exist."""

    feed: str
    symbol: str
    venue: str
    seq: int
    recv_ns: int
    mono_ns: int
    exch_ns: int
    asks: tuple[tuple[int | float, int], ...]
    bids: tuple[tuple[int | float, int], ...]
    cum_volume: int | None
    total_ask_size: int | None
    total_bid_size: int | None
    expected_price: Price
    expected_size: int | None
    session: str
    flags: int


class Tick(NamedTuple):
    """A trade; `side`: 1 the buyer was the aggressor, -1 the seller, 0 an auction. It covers (cum_volume - size, cum_volume]."""

    feed: str
    symbol: str
    venue: str
    seq: int
    recv_ns: int
    mono_ns: int
    exch_ns: int
    price: Price
    size: int
    side: int
    cum_volume: int | None
    cum_value: int | None
    trade_count: int | None
    ask_price: Price
    bid_price: Price
    session: str
    flags: int


class Gap(NamedTuple):
    """Shares of a symbol's day that no tick so far covers: cumulative volume (begin, end]. They were traded before `recv_ns`."""

    symbol: str
    venue: str
    begin: int
    end: int
    recv_ns: int

    @property
    def shares(self) -> int:
        """How many shares."""
        return self.end - self.begin


class Lost(NamedTuple):
    """Records of a feed's ring that this reader cannot get: numbers `first` to `last`, both included.

    It was too slow and they were overwritten, or `is_damage`. The files are not concerned: they have a reader of their own.
    `last` is None where the ring is gone: how many came after `first`, or whether any did, is unknown (only with `since`).
    """

    feed: str
    stream: str
    first: int
    last: int | None
    is_damage: bool = False


class FeedDown(NamedTuple):
    """A connection of a feed ended, or with `connection` 0 its process; nothing was received after `since_ns` (None: unknown)."""

    feed: str
    connection: int
    reason: str
    since_ns: int | None


class FeedUp(NamedTuple):
    """A connection of a feed is up, or with `connection` 0 its process lives again."""

    feed: str
    connection: int


class Phase(NamedTuple):
    """What the exchange does: `kind` phase, vi (volatility interruption) or halt; `value` 1 begins, 0 ends, None unknown."""

    kind: str
    feed: str
    symbol: str
    venue: str
    recv_ns: int
    value: int | None
    text: str


_unpack_books, _unpack_ticks = build_packer(ORDERBOOK).iter_unpack, build_packer(TICK).iter_unpack
"""The fields of each record, in its order: a few records cost a fifth of what a column of each field does."""
_new_book, _new_tick = partial(tuple.__new__, Book), partial(tuple.__new__, Tick)

Message = Book | Tick | Gap | Lost | FeedDown | FeedUp | Phase


def make_books(records: np.ndarray) -> list[Book]:
    """The books of ORDERBOOK records."""
    books = []
    whole = ((records[name] // PRICE_SCALE).tolist() for name in ("ask_price_e4", "bid_price_e4"))
    for fields, asks, bids in zip(_unpack_books(records.tobytes()), *whole, strict=True):
        seq, recv_ns, mono_ns, exch_ns, symbol, venue, *levels, flags, line, session, _ = fields
        volume, total_ask, total_bid, expected, expected_size, _, _ = levels[4 * LEVELS :]
        divisor = _DIVISORS[venue]
        if not divisor:
            asks, bids = ([price / PRICE_SCALE for price in levels[at : at + LEVELS]] for at in (0, 2 * LEVELS))
        books.append(
            _new_book(
                (
                    FEED_NAMES[line],
                    _decode_symbol(symbol),
                    _VENUES[venue],
                    seq,
                    recv_ns,
                    mono_ns,
                    exch_ns,
                    _pair_levels(levels[:LEVELS], asks, levels[LEVELS : 2 * LEVELS]),
                    _pair_levels(levels[2 * LEVELS : 3 * LEVELS], bids, levels[3 * LEVELS : 4 * LEVELS]),
                    _optional(volume),
                    _optional(total_ask),
                    _optional(total_bid),
                    _price(expected, divisor),
                    _optional(expected_size) if expected else None,
                    _SESSIONS.get(session, "unknown"),
                    flags,
                )
            )
        )
    return books


def make_ticks(records: np.ndarray) -> list[Tick]:
    """The ticks of TICK records."""
    ticks = []
    for fields in _unpack_ticks(records.tobytes()):
        seq, recv_ns, mono_ns, exch_ns, symbol, venue, price, size, volume, value, _, count, ask, bid, side, *rest = (
            fields
        )
        flags, line, session, _ = rest
        divisor = _DIVISORS[venue]
        ticks.append(
            _new_tick(
                (
                    FEED_NAMES[line],
                    _decode_symbol(symbol),
                    _VENUES[venue],
                    seq,
                    recv_ns,
                    mono_ns,
                    exch_ns,
                    _price(price, divisor),
                    size,
                    side,
                    _optional(volume),
                    _optional(value),
                    _optional(count),
                    _price(ask, divisor),
                    _price(bid, divisor),
                    _SESSIONS.get(session, "unknown"),
                    flags,
                )
            )
        )
    return ticks


def make_events(records: np.ndarray) -> list[FeedDown | FeedUp | Phase | None]:
    """The messages of EVENT records; None for one that has none."""
    return [_make_event(record) for record in records]


def _make_event(record: np.void) -> FeedDown | FeedUp | Phase | None:
    """The message of an EVENT record; None if it has none."""
    kind, feed = int(record["kind"]), FEED_NAMES[int(record["line"])]
    text = bytes(record["message"]).decode(errors="replace")
    if kind in PHASE_KINDS:
        symbol, venue = bytes(record["symbol"]).decode("latin-1"), _VENUES.get(int(record["venue"]), "")
        value = _optional(int(record["value"]))
        return Phase(PHASE_KINDS[EventType(kind)], feed, symbol, venue, int(record["recv_ns"]), value, text)
    if kind == EventType.CONNECTED:
        return FeedUp(feed, int(record["connection"]))
    if kind == EventType.DISCONNECTED:
        return FeedDown(feed, int(record["connection"]), text, _optional(int(record["since_ns"])))
    if kind == EventType.STOPPED:
        return FeedDown(feed, 0, "stopped", int(record["recv_ns"]))
    return None


@lru_cache(maxsize=8192)
def _decode_symbol(symbol: bytes) -> str:
    return symbol.rstrip(b"\0").decode("latin-1")


def _pair_levels(
    prices_e4: list[int], prices: list[int | float], sizes: list[int]
) -> tuple[tuple[int | float, int], ...]:
    """The levels of a side that exist, best first; `prices`: as the message has them."""
    levels = tuple(zip(prices, sizes, strict=True))
    if min(prices_e4) > 0:
        return levels
    return tuple([level for level, price_e4 in zip(levels, prices_e4, strict=True) if price_e4 > 0])


def _price(price_e4: int, divisor: int) -> Price:
    if price_e4 in (0, UNDEFINED):
        return None
    return price_e4 // divisor if divisor else price_e4 / PRICE_SCALE


def _optional(value: int) -> int | None:
    return None if value == UNDEFINED else value
