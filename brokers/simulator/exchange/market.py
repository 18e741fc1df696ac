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

from brokers.simulator.exchange.consolidated import PARTS, Unified
from brokers.simulator.exchange.listing import CLOSING_PRICE, CONTINUOUS, Listing
from brokers.simulator.exchange.market_factor import Tide
from brokers.simulator.exchange.models import Day, Step, Trade
from brokers.simulator.exchange.order_flow import Fill
from conf.instrument import Instrument
from conf.market import US

LEADER, FOLLOWER = PARTS
UNIFIED = "UN"
ATTEMPTS = 4
LATE_TRADES = 3


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
