"""Consolidated listing: what the unified feed shows of both venues of a stock (pure).

    KRX step ──┐                       trades   unchanged, with totals of their own: volume = KRX + NXT
               ├─> ConsolidatedListing ─>   book     levels of the venues that trade now, merged by price
    NXT step ──┘

Guarantees:
    * Every trade of a venue is a trade here, in the order of the venues, and there is no other.
    * Ten levels a side are the best ten of both venues' ten.
    * Phase and expected price are those of KRX while it trades; the mid price is the first that exists.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from copy import copy

import numpy as np

from brokers.simulator.exchange.listing import Listing
from brokers.simulator.exchange.models import Book, DailyStats, MarketUpdate
from brokers.simulator.exchange.order_book import LEVELS
from brokers.simulator.exchange.trade_history import TradeHistory, build_row, format_hhmmss
from conf.instrument import Instrument

COMPONENT_VENUES = ("KRX", "NXT")
_TRADE_FIELDS = ("exch_s", "price", "size", "side", "ask_price_1", "bid_price_1")


class ConsolidatedListing:
    """The unified venue of one stock. `components` are its listings, KRX first."""

    def __init__(self, instrument: Instrument, components: list[Listing]) -> None:
        self.instrument = instrument
        self.components = components
        self.history = TradeHistory()
        self.last_book: Book | None = None
        days = [part.day for part in components]
        self._reset_day(days[0], sum(day.previous_volume for day in days), sum(day.previous_value for day in days))

    def _reset_day(self, component_day: DailyStats, volume: int, value: int) -> None:
        """A day like that of a component, with its previous close; volume and value are its own."""
        self.day = DailyStats(
            component_day.date,
            component_day.previous_close,
            volume,
            value,
            component_day.listed_shares,
            component_day.lower,
            component_day.upper,
        )
        self.history.begin_day(self.day)
        self.last_book = None

    def _begin_day(self, component_day: DailyStats) -> None:
        old = self.day
        volume, value = (old.cum_volume, old.cum_value) if old.last else (old.previous_volume, old.previous_value)
        self._reset_day(component_day, volume, value)

    def apply_update(
        self, update: MarketUpdate, trade_ids: Iterator[int], book_ids: Iterator[int]
    ) -> MarketUpdate | None:
        """The update of this listing after a step of a component; None for none."""
        component = next(part for part in self.components if part.instrument == update.instrument)
        if component.day.date != self.day.date:
            self._begin_day(component.day)
        days = []
        for trade in update.trades:
            self.day.add_trade(trade.price, trade.size, trade.side, trade.at)
            days.append(copy(self.day))
        current_book = update.book or update.trades[-1].book
        book = self._combine(
            self._component_books(component, current_book), current_book.exch_s, current_book.at, current_book.mono_ns
        )
        trades = [
            one._replace(id=next(trade_ids), instrument=self.instrument, day=day, book=book)
            for one, day in zip(update.trades, days, strict=True)
        ]
        for trade in trades:
            self.history.append(trade)
        if update.book is None or (self.last_book is not None and book.content_key() == self.last_book.content_key()):
            return MarketUpdate(self.instrument, trades, None) if trades else None
        book.set_changes(self.last_book)
        book.id = next(book_ids)
        self.last_book = book
        return MarketUpdate(self.instrument, trades, book)

    def build_book(self, phase: str, exch_s: int, at: str, mono_ns: int) -> Book:
        """The book of both venues in `phase`, without an id."""
        books = [part.last_book or part.build_book(phase, exch_s, at, mono_ns) for part in self.components]
        return self._combine(books, exch_s, at, mono_ns)

    def _component_books(self, component: Listing, current_book: Book) -> list[Book]:
        """The books of venues that show one in their present phase; the venue that moves is included even as its session ends."""
        books = [(part, current_book if part is component else part.last_book) for part in self.components]
        return [
            book
            for part, book in books
            if book and (part is component or (book.phase == part.phase and part.day.date == self.day.date))
        ]

    def _combine(self, books: list[Book], exch_s: int, at: str, mono_ns: int) -> Book:
        first, middle = books[0], next((book for book in books if book.mid_price), books[0])
        asks = _combine_levels([pair for book in books for pair in zip(book.ask_price, book.ask_size, strict=True)], 1)
        bids = _combine_levels([pair for book in books for pair in zip(book.bid_price, book.bid_size, strict=True)], -1)
        return Book(
            id=0,
            instrument=self.instrument,
            day=copy(self.day),
            phase=first.phase,
            exch_s=exch_s,
            at=at,
            mono_ns=mono_ns,
            ask_price=[price for price, _ in asks],
            ask_size=[size for _, size in asks],
            bid_price=[price for price, _ in bids],
            bid_size=[size for _, size in bids],
            cum_volume=self.day.cum_volume,
            expected_price=first.expected_price,
            expected_size=first.expected_size,
            mid_price=middle.mid_price,
            mid_size=middle.mid_size,
            mid_side=middle.mid_side,
        )

    def merge_day(self, date: str) -> None:
        """The components have generated a day, or none: add their trades in the order of their seconds."""
        components = [part for part in self.components if part.history.days[-1].day.date == date]
        if not components or date == self.day.date:
            return
        self._begin_day(components[0].day)
        rows = np.concatenate([part.history.read_rows(part.history.days[-1].first) for part in components])
        merged = []
        for one in rows[np.argsort(rows["exch_s"], kind="stable")]:
            exch_s, price, size, side, ask, bid = (int(one[name]) for name in _TRADE_FIELDS)
            self.day.add_trade(price, size, side, format_hhmmss(exch_s))
            merged.append(build_row(exch_s, price, size, side, self.day, ask, bid))
        self.history.extend(merged)


def _combine_levels(levels: list[tuple[int, int]], sign: int) -> list[tuple[int, int]]:
    """The ten best (price, size), sizes of one price added; (0, 0) where there are fewer."""
    total: Counter[int] = Counter()
    for price, size in levels:
        if price:
            total[price] += size
    return [*sorted(total.items(), key=lambda level: sign * level[0])[:LEVELS], *[(0, 0)] * LEVELS][:LEVELS]


AnyListing = Listing | ConsolidatedListing
"""A listing of one venue, or that of both."""
