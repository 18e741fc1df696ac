"""The market: every instrument's book and ledger, moved one step at a time, from one seed.

    phase      opening_auction   regular, pre_market, after_market   closing_auction   closing_price
    a step     orders gather     one event of continuous trading     orders gather     now and then a trade at the close
    leaving    one side-less print ................................  one side-less print

Promises: pure: time and phase are arguments; the same seed, steps and phases give the same market whatever the order in
which instruments are named; books, trades and cumulative figures come from one ledger per instrument and day; ids count
1, 2, 3 ... over the whole market, books and trades apart; every trade is on its instrument's tape.
Leaves to others: pacing (pace.py), what brokers make of it (line.py), writing it down (truth.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from itertools import count
from random import Random

from brokers.simulator.book import LEVELS, OrderBook
from brokers.simulator.flow import Fill, Flow
from brokers.simulator.grid import Cents, Grid
from brokers.simulator.ledger import Book, Day, Step, Trade
from brokers.simulator.tape import Tape
from brokers.simulator.tide import Tide
from conf.clock import SECOND_NS
from conf.instrument import Instrument
from conf.market import KR, US, hours_of, local

AUCTIONS = frozenset({"opening_auction", "closing_auction"})
CONTINUOUS = frozenset({"pre_market", "regular", "after_market", "day_market"})
CLOSING_PRICE = "closing_price"
ATTEMPTS = 4
LATE_TRADES = 3


class Listing:
    """One instrument: its orders, its day, the last book it showed."""

    def __init__(self, instrument: Instrument, seed: int) -> None:
        self.instrument = instrument
        self.random = Random(f"{seed}:{instrument}")
        self.tape = Tape()
        self.phase: str | None = None
        self.shown: Book | None = None
        self.seen_s = 0
        korean = instrument.market is KR
        self._grid = Grid if korean else Cents
        # 1,600 to 800,000 won; 6 to 630 dollars in 1/10,000
        close = self._grid.floor(int(10 ** self.random.uniform(*((3.2, 5.9) if korean else (4.8, 6.8)))))
        volume = int(10 ** self.random.uniform(5, 7))
        self._begin(
            "", close, volume, volume * close + self.random.randrange(10**6), int(10 ** self.random.uniform(7, 9.5))
        )

    def _begin(self, date: str, close: int, volume: int, value: int, listed: int) -> None:
        self.grid = self._grid(close)
        self.day = Day(date, close, volume, value, listed, self.grid.lower, self.grid.upper)
        self.tape.begin(self.day)
        self.flow = Flow(self.random, self.grid, close)
        self.book = OrderBook()
        self.shown = None

    def new_day(self, date: str) -> None:
        """Yesterday's close and volume become the previous ones; all orders are gone."""
        old = self.day
        if old.date and old.last:
            self._begin(date, self._grid.floor(old.last), old.cum_volume, old.cum_value, old.listed_shares)
        else:
            self._begin(date, old.previous_close, old.previous_volume, old.previous_value, old.listed_shares)

    def date(self, exch_s: int) -> str:
        """The trading day of a second, YYYYMMDD: the date where the venue's sessions are."""
        return f"{local(exch_s * SECOND_NS, hours_of(self.instrument.venue).zone):%Y%m%d}"

    def at(self, exch_s: int) -> str:
        """The exchange's time of a second, HHMMSS."""
        return f"{self.instrument.market.local(exch_s * SECOND_NS):%H%M%S}"

    def best(self) -> tuple[int | None, int | None]:
        """Indexes of the best ask and the best bid, None where there is no order."""
        return self.book.asks.best(), self.book.bids.best()

    def act(self, phase: str) -> list[Fill]:
        """One event of `phase`; what it executed."""
        if phase in AUCTIONS:
            self.flow.gather(self.book)
        elif phase in CONTINUOUS:
            return self.flow.trade_on(self.book)
        elif phase == CLOSING_PRICE and self.day.last and self.random.random() < 0.1:
            return [Fill(self.day.last, self.flow.size(), -1)]
        return []

    def leave(self, phase: str | None) -> list[Fill]:
        """The end of `phase`: an auction executes; the mid-price orders of continuous trading lapse."""
        self.flow.mid_side = self.flow.mid_size = 0
        if phase not in AUCTIONS:
            return []
        found = self.book.uncross()
        return [] if found is None else [Fill(self.grid.prices[found[0]], found[1], 0)]

    def view(self, phase: str, exch_s: int, at: str, mono_ns: int) -> Book:
        """The book as it is now, without an id."""
        prices = self.grid.prices
        expected_price = expected_size = mid_price = 0
        if phase in AUCTIONS:
            found = self.book.equilibrium()
            if found is not None:
                expected_price, expected_size = prices[found[0]], found[1]
            asks, bids = self.book.after_auction(expected_size)
        else:
            asks = [(index, self.book.asks.total[index]) for index in self.book.asks.shown()]
            bids = [(index, self.book.bids.total[index]) for index in self.book.bids.shown()]
            mid_price = self.flow.mid_price(self.book)
        blank = [0] * LEVELS
        return Book(
            id=0,
            instrument=self.instrument,
            day=self.day,
            phase=phase,
            exch_s=exch_s,
            at=at,
            mono_ns=mono_ns,
            ask_price=([prices[index] for index, _ in asks] + blank)[:LEVELS],
            ask_size=([size for _, size in asks] + blank)[:LEVELS],
            bid_price=([prices[index] for index, _ in bids] + blank)[:LEVELS],
            bid_size=([size for _, size in bids] + blank)[:LEVELS],
            cum_volume=self.day.cum_volume,
            expected_price=expected_price,
            expected_size=expected_size,
            mid_price=mid_price,
            mid_size=self.flow.mid_size if mid_price else 0,
            mid_side=self.flow.mid_side if mid_price and self.flow.mid_size else 0,
        )


class Market:
    """All instruments; `listings` by instrument."""

    def __init__(self, instruments: Iterable[Instrument], seed: int) -> None:
        self.listings = {instrument: Listing(instrument, seed) for instrument in instruments}
        self._tide = Tide(seed)
        self._book_ids = count(1)
        self._trade_ids = count(1)
        self.books = 0
        self.trades = 0

    def advance(self, instrument: Instrument, phase: str | None, exch_s: int, mono_ns: int) -> Step | None:
        """Let one event happen to `instrument`, whose venue is in `phase` at `exch_s`, seconds since 1970 UTC.

        None when nothing came of it that a feed would show.
        """
        listing = self.listings[instrument]
        date, at = listing.date(exch_s), listing.at(exch_s)
        if date != listing.day.date:
            listing.new_day(date)
        fills: list[Fill] = []
        if phase != listing.phase:
            fills = listing.leave(listing.phase)
            listing.phase = phase
            if phase in CONTINUOUS:
                listing.flow.fill_up(listing.book)
        if phase is None and not fills:
            return None
        if instrument.market is US:
            listing.flow.lift(self._tide.moved(listing.seen_s or exch_s, exch_s))
            listing.seen_s = exch_s
        return self._show(listing, phase, fills, exch_s, at, mono_ns)

    def _show(
        self, listing: Listing, phase: str | None, fills: list[Fill], exch_s: int, at: str, mono_ns: int
    ) -> Step | None:
        # An auction's print and book carry the phase they belong to, even when the session ends with them.
        named = phase or "closing_auction"
        book = None
        for _ in range(ATTEMPTS):
            if not fills and phase is not None:
                fills = listing.act(phase)
            days = self._enter(listing, fills, at)
            book = listing.view(phase or "regular", exch_s, at, mono_ns)
            if fills or listing.shown is None or book.content() != listing.shown.content():
                break
        else:
            return None
        book.phase = named
        book.follow(listing.shown)
        trades = [
            Trade(next(self._trade_ids), listing.instrument, named, exch_s, at, mono_ns, *fill, day, book)
            for fill, day in zip(fills, days, strict=True)
        ]
        self._keep(listing, trades)
        if phase == CLOSING_PRICE:
            return Step(listing.instrument, trades, None) if trades else None
        book.day = copy(listing.day)
        book.id = next(self._book_ids)
        self.books += 1
        listing.shown = book
        return Step(listing.instrument, trades, book)

    def _keep(self, listing: Listing, trades: list[Trade]) -> None:
        for trade in trades:
            listing.tape.add(trade)
        self.trades += len(trades)

    def late(self, instrument: Instrument, exch_s: int, mono_ns: int) -> Step | None:
        """Three trades at the last price, whatever the phase; None on a day without any trade."""
        listing = self.listings[instrument]
        day = listing.day
        if not day.last:
            return None
        at = listing.at(exch_s)
        fills = [Fill(day.last, listing.flow.size(), -1) for _ in range(LATE_TRADES)]
        book = listing.shown or listing.view("regular", exch_s, at, mono_ns)
        trades = [
            Trade(
                next(self._trade_ids), instrument, listing.phase or "regular", exch_s, at, mono_ns, *fill, after, book
            )
            for fill, after in zip(fills, self._enter(listing, fills, at), strict=True)
        ]
        self._keep(listing, trades)
        return Step(instrument, trades, None)

    def block(self, instrument: Instrument, shares: int) -> int:
        """Volume that is traded off the book: it is in the day's sums and in no trade. Its price."""
        day = self.listings[instrument].day
        price = day.last or day.previous_close
        day.off_book(price, shares)
        return price

    def count_made(self, number: int) -> int:
        """Trades were made at once (history.py): the id of the first."""
        first = next(self._trade_ids)
        self._trade_ids = count(first + number)
        self.trades += number
        return first

    @staticmethod
    def _enter(listing: Listing, fills: list[Fill], at: str) -> list[Day]:
        days = []
        for fill in fills:
            listing.day.trade(fill.price, fill.size, fill.side, at)
            days.append(copy(listing.day))
        return days
