"""Value types of the exchange: trades, books, and the daily totals they add up to (pure).

    orders -> OrderBook -> fills -> DailyStats -> Trade     cumulative volume, value, counts: one set of totals
                              -> levels    -> Book      from which every vendor's fields are computed

Guarantees:
    * A Trade and a Book are complete: encoding them later needs nothing else.
    * Within a day cum_volume and cum_value advance by exactly size and size x price, and by what is traded off the book.
    * A buy raises only the buy sums, a sell only the sell sums, an auction trade neither (docs/wire/kis.md 3,
      docs/wire/kiwoom.md 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from conf.instrument import Instrument


@dataclass(slots=True)
class DailyStats:
    """One instrument's trading day. Prices and values in won, times HHMMSS, a price of 0 or a time of 000000 is "not yet"."""

    date: str
    previous_close: int
    previous_volume: int
    previous_value: int
    listed_shares: int
    lower: int
    upper: int
    cum_volume: int = 0
    cum_value: int = 0
    sells: int = 0
    buys: int = 0
    sell_volume: int = 0
    buy_volume: int = 0
    last: int = 0
    open: int = 0
    high: int = 0
    low: int = 0
    open_at: str = "000000"
    high_at: str = "000000"
    low_at: str = "000000"
    upper_at: str = "000000"
    lower_at: str = "000000"
    opening_volume: int = 0

    def add_trade(self, price: int, size: int, side: int, at: str) -> None:
        """Enter one trade: `side` 1 buyer was the aggressor, -1 seller, 0 an auction."""
        self.cum_volume += size
        self.cum_value += size * price
        if side > 0:
            self.buys += 1
            self.buy_volume += size
        elif side < 0:
            self.sells += 1
            self.sell_volume += size
        self.last = price
        if not self.open:
            self.open, self.open_at = price, at
            self.opening_volume = 0 if side else size
        if price > self.high:
            self.high, self.high_at = price, at
        if price < self.low or not self.low:
            self.low, self.low_at = price, at
        if price == self.upper and self.upper_at == "000000":
            self.upper_at = at
        if price == self.lower and self.lower_at == "000000":
            self.lower_at = at

    def add_off_book(self, price: int, size: int) -> None:
        """Volume of the day outside the book, such as a block trade."""
        self.cum_volume += size
        self.cum_value += size * price


@dataclass(slots=True)
class Book:
    """Ten levels a side; prices in won, 0 and size 0 for an absent level."""

    id: int
    instrument: Instrument
    day: DailyStats
    phase: str
    exch_s: int
    at: str
    mono_ns: int
    ask_price: list[int]
    ask_size: list[int]
    bid_price: list[int]
    bid_size: list[int]
    cum_volume: int
    expected_price: int
    expected_size: int
    mid_price: int
    mid_size: int
    mid_side: int
    total_ask: int = 0
    total_bid: int = 0
    ask_change: list[int] = field(default_factory=lambda: [0] * 10)
    bid_change: list[int] = field(default_factory=lambda: [0] * 10)

    def __post_init__(self) -> None:
        self.total_ask, self.total_bid = sum(self.ask_size), sum(self.bid_size)

    def content_key(self) -> tuple[object, ...]:
        """The content that identifies a book."""
        return (
            *(tuple(levels) for levels in (self.ask_price, self.ask_size, self.bid_price, self.bid_size)),
            (self.cum_volume, self.expected_price, self.expected_size, self.mid_price, self.mid_size, self.mid_side),
        )

    def set_changes(self, previous: Book | None) -> None:
        """Fill in the changes of the sizes, level by level, since the book before."""
        if previous is not None:
            self.ask_change = [new - old for new, old in zip(self.ask_size, previous.ask_size, strict=True)]
            self.bid_change = [new - old for new, old in zip(self.bid_size, previous.bid_size, strict=True)]


class Trade(NamedTuple):
    """One trade and the day just after it; best quotes are those of `book`, the state after its order."""

    id: int
    instrument: Instrument
    phase: str
    exch_s: int
    at: str
    mono_ns: int
    price: int
    size: int
    side: int
    day: DailyStats
    """A copy of the ledger as it stood after this trade."""
    book: Book


class MarketUpdate(NamedTuple):
    """What one step of one instrument brought: trades in order, then the book they led to (None: no book is published)."""

    instrument: Instrument
    trades: list[Trade]
    book: Book | None
