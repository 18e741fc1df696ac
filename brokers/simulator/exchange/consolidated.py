"""Both venues of a stock as one: what the unified feed shows of each step of KRX and of NXT.

    KRX step ──┐                       trades   as they are, on a ledger of its own: volume = KRX + NXT
               ├─> Unified.follow ─>   book     levels of the venues that trade just now, put together by price
    NXT step ──┘

Promises: pure; every trade of a venue is a trade here, in the same order, and nothing else is; ten levels a side are the best
ten of both venues' ten; phase and expected price are KRX's if it trades, the mid price is that of the first that has one.
Leaves to others: the venues themselves (market.py), histories (history.py), who hears of it (line.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from copy import copy

import numpy as np

from brokers.simulator.exchange.listing import Listing
from brokers.simulator.exchange.models import Book, Day, Step
from brokers.simulator.exchange.order_book import LEVELS
from brokers.simulator.exchange.trade_history import Tape, hhmmss, row
from conf.instrument import Instrument

PARTS = ("KRX", "NXT")
_TRADE = ("exch_s", "price", "size", "side", "ask_price_1", "bid_price_1")


class Unified:
    """The unified venue of one stock. `parts` are its listings, KRX first."""

    def __init__(self, instrument: Instrument, parts: list[Listing]) -> None:
        self.instrument = instrument
        self.parts = parts
        self.tape = Tape()
        self.shown: Book | None = None
        days = [part.day for part in parts]
        self._begin(days[0], sum(day.previous_volume for day in days), sum(day.previous_value for day in days))

    def _begin(self, of: Day, volume: int, value: int) -> None:
        """A day as that of a part, which has the same close before it; with a volume and a value before it of its own."""
        self.day = Day(of.date, of.previous_close, volume, value, of.listed_shares, of.lower, of.upper)
        self.tape.begin(self.day)
        self.shown = None

    def _new_day(self, of: Day) -> None:
        old = self.day
        volume, value = (old.cum_volume, old.cum_value) if old.last else (old.previous_volume, old.previous_value)
        self._begin(of, volume, value)

    def follow(self, step: Step, trade_ids: Iterator[int], book_ids: Iterator[int]) -> Step | None:
        """What is shown here of a step of one of the parts; None if nothing."""
        moved = next(part for part in self.parts if part.instrument == step.instrument)
        if moved.day.date != self.day.date:
            self._new_day(moved.day)
        days = []
        for trade in step.trades:
            self.day.trade(trade.price, trade.size, trade.side, trade.at)
            days.append(copy(self.day))
        heard = step.book or step.trades[-1].book
        book = self._together(self._beside(moved, heard), heard.exch_s, heard.at, heard.mono_ns)
        trades = [
            one._replace(id=next(trade_ids), instrument=self.instrument, day=day, book=book)
            for one, day in zip(step.trades, days, strict=True)
        ]
        for trade in trades:
            self.tape.add(trade)
        if step.book is None or (self.shown is not None and book.content() == self.shown.content()):
            return Step(self.instrument, trades, None) if trades else None
        book.follow(self.shown)
        book.id = next(book_ids)
        self.shown = book
        return Step(self.instrument, trades, book)

    def view(self, phase: str, exch_s: int, at: str, mono_ns: int) -> Book:
        """The book of both venues as it would be shown in `phase`, without an id."""
        books = [part.shown or part.view(phase, exch_s, at, mono_ns) for part in self.parts]
        return self._together(books, exch_s, at, mono_ns)

    def _beside(self, moved: Listing, heard: Book) -> list[Book]:
        """The books of the venues that show one in their present phase; the one that moves is heard even as its session ends."""
        return [
            heard if part is moved else part.shown
            for part in self.parts
            if part is moved or (part.shown and part.shown.phase == part.phase and part.day.date == self.day.date)
        ]

    def _together(self, books: list[Book], exch_s: int, at: str, mono_ns: int) -> Book:
        first, middle = books[0], next((book for book in books if book.mid_price), books[0])
        asks = _best([pair for book in books for pair in zip(book.ask_price, book.ask_size, strict=True)], 1)
        bids = _best([pair for book in books for pair in zip(book.bid_price, book.bid_size, strict=True)], -1)
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

    def make_day(self, date: str) -> None:
        """The parts have made a day's history, or none: the same trades here, in the order of their seconds."""
        parts = [part for part in self.parts if part.tape.days[-1].day.date == date]
        if not parts or date == self.day.date:
            return
        self._new_day(parts[0].day)
        rows = np.concatenate([part.tape.rows(part.tape.days[-1].first) for part in parts])
        made = []
        for one in rows[np.argsort(rows["exch_s"], kind="stable")]:
            exch_s, price, size, side, ask, bid = (int(one[name]) for name in _TRADE)
            self.day.trade(price, size, side, hhmmss(exch_s))
            made.append(row(exch_s, price, size, side, self.day, ask, bid))
        self.tape.extend(made)


def _best(levels: list[tuple[int, int]], sign: int) -> list[tuple[int, int]]:
    """The ten best (price, size), sizes of one price added up; (0, 0) where there are fewer."""
    total: Counter[int] = Counter()
    for price, size in levels:
        if price:
            total[price] += size
    return [*sorted(total.items(), key=lambda level: sign * level[0])[:LEVELS], *[(0, 0)] * LEVELS][:LEVELS]
