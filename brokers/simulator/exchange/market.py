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
from datetime import date
from itertools import count
from random import Random

from brokers.simulator.exchange.consolidated import PARTS, Unified
from brokers.simulator.exchange.market_factor import Tide
from brokers.simulator.exchange.models import Book, Day, Step, Trade
from brokers.simulator.exchange.order_book import LEVELS, OrderBook
from brokers.simulator.exchange.order_flow import Fill, Flow
from brokers.simulator.exchange.price_grid import Cents, Grid
from brokers.simulator.exchange.trade_history import Tape
from conf.clock import SECOND_NS
from conf.instrument import Instrument
from conf.market import KR, US, hours_of, local

AUCTIONS = frozenset({"opening_auction", "closing_auction"})
CONTINUOUS = frozenset({"pre_market", "regular", "after_market", "day_market"})
CLOSING_PRICE = "closing_price"
LEADER, FOLLOWER = PARTS
UNIFIED = "UN"
ATTEMPTS = 4
LATE_TRADES = 3
LED = 0.2
"""How much nearer to the leader's fair value an event brings the one that follows."""
ALL = 1 << 40


class Listing:
    """One instrument: its orders, its day, the last book it showed. On NXT it follows `leader`, the same stock on KRX."""

    def __init__(self, instrument: Instrument, seed: int, leader: Listing | None = None) -> None:
        self.instrument = instrument
        self.leader = leader
        self.random = Random(f"{seed}:{instrument}")
        self.tape = Tape()
        self.phase: str | None = None
        self.shown: Book | None = None
        self.seen_s = 0
        korean = instrument.market is KR
        self._grid = Grid if korean else Cents
        # 1,600 to 800,000 won; 6 to 630 dollars in 1/10,000
        close = self._grid.floor(int(10 ** self.random.uniform(*((3.2, 5.9) if korean else (4.8, 6.8)))))
        volume, odd = int(10 ** self.random.uniform(5, 7)), self.random.randrange(10**6)
        listed = int(10 ** self.random.uniform(7, 9.5))
        if leader is not None:
            close, listed = leader.day.previous_close, leader.day.listed_shares
        self._begin("", close, volume, volume * close + odd, listed)

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
        close = self.close_before(date)
        if old.date and old.last:
            self._begin(date, close, old.cum_volume, old.cum_value, old.listed_shares)
        else:
            self._begin(date, close, old.previous_volume, old.previous_value, old.listed_shares)

    def close_before(self, date: str) -> int:
        """The close that counts on `date`: the leader's, who may or may not have begun that day; else the last price."""
        if self.leader is not None:
            return self.leader.close_before(date)
        day = self.day
        return day.previous_close if day.date == date or not (day.date and day.last) else self._grid.floor(day.last)

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
            return self._catch_up() or self.flow.trade_on(self.book)
        elif phase == CLOSING_PRICE and self.day.last and self.random.random() < 0.1:
            return [Fill(self.day.last, self.flow.size(), -1)]
        return []

    def follow(self, price: int) -> None:
        """From now on `price` is where traders think the stock belongs; 0 is no price."""
        if price:
            self.flow.home, self.flow.pull = self.grid.index(price), LED

    def _catch_up(self) -> list[Fill]:
        """Follow the leader: its price is the fair one, and what crosses its quotes is traded away at once."""
        leader = self.leader
        if leader is None:
            return []
        self.follow(leader.grid.prices[round(leader.flow.fair)])
        if leader.phase not in CONTINUOUS or leader.day.date != self.day.date:
            return []
        facing_ask, facing_bid = leader.best()
        if facing_ask is not None and (crossed := self.book.bids.take(ALL, facing_ask)):
            return [Fill(self.grid.prices[index], size, -1) for index, size in crossed]
        if facing_bid is not None and (crossed := self.book.asks.take(ALL, facing_bid)):
            return [Fill(self.grid.prices[index], size, 1) for index, size in crossed]
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
    """All instruments by venue: `traded` those with orders of their own, `unified` those made of them, `listings` both.

    A unified instrument brings the two it is made of with it.
    """

    def __init__(self, instruments: Iterable[Instrument], seed: int) -> None:
        asked = dict.fromkeys(instruments)
        whole = [one for one in asked if one.venue == UNIFIED]
        asked |= dict.fromkeys(Instrument(one.symbol, venue) for one in whole for venue in PARTS)
        self.traded = {one: Listing(one, seed) for one in asked if one.venue not in (UNIFIED, FOLLOWER)}
        for one in asked:
            if one.venue == FOLLOWER:
                self.traded[one] = Listing(one, seed, self.traded.get(Instrument(one.symbol, LEADER)))
        self.unified = {
            one: Unified(one, [self.traded[Instrument(one.symbol, venue)] for venue in PARTS]) for one in whole
        }
        self.listings: dict[Instrument, Listing | Unified] = {
            one: self.unified[one] if one in self.unified else self.traded[one] for one in asked
        }
        self._tide = Tide(seed)
        self._book_ids = count(1)
        self._trade_ids = count(1)
        self.books = 0
        self.trades = 0

    def advance(self, instrument: Instrument, phase: str | None, exch_s: int, mono_ns: int) -> Step | None:
        """Let one event happen to `instrument`, one of `traded`, whose venue is in `phase` at `exch_s`, seconds since 1970 UTC.

        None when nothing came of it that a feed would show.
        """
        listing = self.traded[instrument]
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

    def unify(self, step: Step) -> Step | None:
        """What the unified venue of the stock shows of a step; None if it is not listed there, or nothing is to be seen."""
        whole = self.unified.get(Instrument(step.instrument.symbol, UNIFIED))
        if whole is None:
            return None
        seen = whole.follow(step, self._trade_ids, self._book_ids)
        if seen is not None:
            self.trades += len(seen.trades)
            self.books += seen.book is not None
        return seen

    def unify_day(self, day: date) -> None:
        """A day's history has been made: the unified venues have the same."""
        for whole in self.unified.values():
            whole.make_day(f"{day:%Y%m%d}")

    def seen_as(self, instrument: Instrument) -> list[Listing | Unified]:
        """Where what happens to one of `traded` is seen: there, and on the unified venue if the stock is listed on it."""
        whole = self.unified.get(Instrument(instrument.symbol, UNIFIED))
        return [self.traded[instrument], *([] if whole is None else [whole])]

    def origin(self, instrument: Instrument) -> Instrument:
        """Where what happens to `instrument` really happens: for a unified one on KRX."""
        return Instrument(instrument.symbol, LEADER) if instrument in self.unified else instrument

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
        listing = self.traded[instrument]
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
        """Volume that is traded off the book of one of `traded`: it is in the day's sums and in no trade. Its price."""
        day = self.traded[instrument].day
        price = day.last or day.previous_close
        day.off_book(price, shares)
        for seen in self.seen_as(instrument)[1:]:
            seen.day.off_book(price, shares)
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
