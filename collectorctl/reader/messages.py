"""Messages of a live stream: books, ticks, and in band everything that makes them incomplete (pure).

    ring record  ──>  Book  Tick                     one per record, fields as docs/live.md has them
    ring, event  ──>  Lost  Gap  FeedDown  FeedUp  Phase

Guarantees:
    * Times are int ns since 1970 UTC; `mono_ns` is CLOCK_MONOTONIC of this host.
    * Prices are whole numbers in a market that has only those, else floats, in the currency; what the exchange did not give is
      None, never 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from conf.market import market_of
from ringbuf.records import PRICE_SCALE, UNDEFINED, EventType, FeedId, Session, Venue

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


Message = Book | Tick | Gap | Lost | FeedDown | FeedUp | Phase


def make_books(records: np.ndarray) -> list[Book]:
    """The books of ORDERBOOK records."""
    names = ("cum_volume", "total_ask_size", "total_bid_size", "expected_price_e4", "expected_size", "session", "flags")
    books = []
    for (venue, head), asks, bids, volume, total_ask, total_bid, expected, expected_size, session, flags in zip(
        _heads(records),
        _levels(records, "ask"),
        _levels(records, "bid"),
        *(records[name].tolist() for name in names),
        strict=True,
    ):
        books.append(
            Book(  # type: ignore[call-arg]  # a head is seven fields
                *head,
                asks,
                bids,
                _optional(volume),
                _optional(total_ask),
                _optional(total_bid),
                _price(expected, _DIVISORS[venue]),
                _optional(expected_size) if expected else None,
                _SESSIONS.get(session, "unknown"),
                flags,
            )
        )
    return books


def make_ticks(records: np.ndarray) -> list[Tick]:
    """The ticks of TICK records."""
    names = ("price_e4", "size", "side", "cum_volume", "cum_value", "trade_count", "ask_price_1_e4", "bid_price_1_e4")
    ticks = []
    for (venue, head), price, size, side, volume, value, count, ask, bid, session, flags in zip(
        _heads(records), *(records[name].tolist() for name in (*names, "session", "flags")), strict=True
    ):
        ticks.append(
            Tick(  # type: ignore[call-arg]  # a head is seven fields
                *head,
                _price(price, _DIVISORS[venue]),
                size,
                side,
                _optional(volume),
                _optional(value),
                _optional(count),
                _price(ask, _DIVISORS[venue]),
                _price(bid, _DIVISORS[venue]),
                _SESSIONS.get(session, "unknown"),
                flags,
            )
        )
    return ticks


def make_event(record: np.void) -> FeedDown | FeedUp | Phase | None:
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


def _heads(records: np.ndarray) -> list[tuple[int, tuple[str, str, str, int, int, int, int]]]:
    """For each record its venue's number, and the first fields of its message."""
    names = ("line", "symbol", "venue", "seq", "recv_ns", "mono_ns", "exch_ns")
    return [
        (venue, (FEED_NAMES[line], symbol.decode("latin-1"), _VENUES[venue], *rest))
        for line, symbol, venue, *rest in zip(*(records[name].tolist() for name in names), strict=True)
    ]


def _levels(records: np.ndarray, side: str) -> list[tuple[tuple[int | float, int], ...]]:
    """For each book the levels of a side that exist, best first."""
    rows = zip(
        records["venue"].tolist(),
        records[f"{side}_price_e4"].tolist(),
        records[f"{side}_size"].tolist(),
        strict=True,
    )
    return [
        tuple(
            (price // divisor if (divisor := _DIVISORS[venue]) else price / PRICE_SCALE, size)
            for price, size in zip(prices, sizes, strict=True)
            if price > 0
        )
        for venue, prices, sizes in rows
    ]


def _price(price_e4: int, divisor: int) -> Price:
    if price_e4 in (0, UNDEFINED):
        return None
    return price_e4 // divisor if divisor else price_e4 / PRICE_SCALE


def _optional(value: int) -> int | None:
    return None if value == UNDEFINED else value
