"""Simulated exchange: the books and daily totals of every instrument, advanced one step at a time from one seed (pure).

    phase      opening_auction   regular, pre_market, after_market   closing_auction   closing_price
    a step     orders gather     one event of continuous trading     orders gather     occasional trades at the close
    leaving    one auction trade ..................................  one auction trade

Guarantees:
    * Time and phase are arguments. Equal seeds, steps and phases give equal markets, whatever the order in which instruments
      are named.
    * Books, trades and cumulative figures come from one set of totals per instrument and day.
    * Ids count 1, 2, 3 ... over the whole market, books and trades apart; every trade is in the trade history of its
      instrument.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from datetime import date
from itertools import count

from brokers.simulator.exchange.consolidated import COMPONENT_VENUES, AnyListing, ConsolidatedListing
from brokers.simulator.exchange.listing import CLOSING_PRICE, CONTINUOUS, Listing
from brokers.simulator.exchange.market_factor import MarketFactor
from brokers.simulator.exchange.models import DailyStats, MarketUpdate, Trade
from brokers.simulator.exchange.order_flow import Execution
from conf.instrument import Instrument
from conf.market import US

LEADER, FOLLOWER = COMPONENT_VENUES
CONSOLIDATED = "UN"
MAX_ATTEMPTS = 4
FORCED_TRADES = 3


class SimulatedMarket:
    """All instruments by venue: `primary_listings` with orders of their own, `consolidated` built of them, `listings` both.

    A unified instrument brings the two it is made of with it.
    """

    def __init__(self, instruments: Iterable[Instrument], seed: int) -> None:
        requested = dict.fromkeys(instruments)
        consolidated_instruments = [one for one in requested if one.venue == CONSOLIDATED]
        requested |= dict.fromkeys(
            Instrument(one.symbol, venue) for one in consolidated_instruments for venue in COMPONENT_VENUES
        )
        self.primary_listings = {
            one: Listing(one, seed) for one in requested if one.venue not in (CONSOLIDATED, FOLLOWER)
        }
        for one in requested:
            if one.venue == FOLLOWER:
                self.primary_listings[one] = Listing(
                    one, seed, self.primary_listings.get(Instrument(one.symbol, LEADER))
                )
        self.consolidated = {
            one: ConsolidatedListing(
                one, [self.primary_listings[Instrument(one.symbol, venue)] for venue in COMPONENT_VENUES]
            )
            for one in consolidated_instruments
        }
        self.listings: dict[Instrument, AnyListing] = {
            one: self.consolidated[one] if one in self.consolidated else self.primary_listings[one] for one in requested
        }
        self._factor = MarketFactor(seed)
        self._book_ids = count(1)
        self._trade_ids = count(1)
        self.book_count = 0
        self.trade_count = 0

    def advance(self, instrument: Instrument, phase: str | None, exch_s: int, mono_ns: int) -> MarketUpdate | None:
        """Execute one event of `instrument`, a primary listing, whose venue is in `phase` at `exch_s`, seconds since 1970 UTC.

        None when no feed would show a change.
        """
        listing = self.primary_listings[instrument]
        date, at = listing.find_trading_date(exch_s), listing.format_time(exch_s)
        if date != listing.day.date:
            listing.begin_day(date)
        executions: list[Execution] = []
        if phase != listing.phase:
            executions = listing.end_phase(listing.phase)
            listing.phase = phase
            if phase in CONTINUOUS:
                listing.flow.restore_depth(listing.book)
        if phase is None and not executions:
            return None
        if instrument.market is US:
            listing.flow.shift_fair_value(self._factor.return_between(listing.last_event_s or exch_s, exch_s))
            listing.last_event_s = exch_s
        return self._build_update(listing, phase, executions, exch_s, at, mono_ns)

    def consolidate(self, update: MarketUpdate) -> MarketUpdate | None:
        """The unified venue's update after a step; None if the stock is not listed there, or nothing changed."""
        listing = self.consolidated.get(Instrument(update.instrument.symbol, CONSOLIDATED))
        if listing is None:
            return None
        consolidated_update = listing.apply_update(update, self._trade_ids, self._book_ids)
        if consolidated_update is not None:
            self.trade_count += len(consolidated_update.trades)
            self.book_count += consolidated_update.book is not None
        return consolidated_update

    def consolidate_day(self, day: date) -> None:
        """Add a generated day to the unified venues."""
        for listing in self.consolidated.values():
            listing.merge_day(f"{day:%Y%m%d}")

    def affected_listings(self, instrument: Instrument) -> list[AnyListing]:
        """The listings that an event of a primary one affects: itself, and the unified venue if the stock is listed there."""
        consolidated = self.consolidated.get(Instrument(instrument.symbol, CONSOLIDATED))
        return [self.primary_listings[instrument], *([] if consolidated is None else [consolidated])]

    def find_origin(self, instrument: Instrument) -> Instrument:
        """Where what happens to `instrument` really happens: for a unified one on KRX."""
        return Instrument(instrument.symbol, LEADER) if instrument in self.consolidated else instrument

    def _build_update(
        self, listing: Listing, phase: str | None, executions: list[Execution], exch_s: int, at: str, mono_ns: int
    ) -> MarketUpdate | None:
        # An auction's trade and book carry the phase they belong to, even when the session ends with them.
        labelled_phase = phase or "closing_auction"
        book = None
        for _ in range(MAX_ATTEMPTS):
            if not executions and phase is not None:
                executions = listing.run_event(phase)
            days = self._apply_executions(listing, executions, at)
            book = listing.build_book(phase or "regular", exch_s, at, mono_ns)
            if executions or listing.last_book is None or book.content_key() != listing.last_book.content_key():
                break
        else:
            return None
        book.phase = labelled_phase
        book.set_changes(listing.last_book)
        trades = [
            Trade(next(self._trade_ids), listing.instrument, labelled_phase, exch_s, at, mono_ns, *fill, day, book)
            for fill, day in zip(executions, days, strict=True)
        ]
        self._record_trades(listing, trades)
        if phase == CLOSING_PRICE:
            return MarketUpdate(listing.instrument, trades, None) if trades else None
        book.day = copy(listing.day)
        book.id = next(self._book_ids)
        self.book_count += 1
        listing.last_book = book
        return MarketUpdate(listing.instrument, trades, book)

    def _record_trades(self, listing: Listing, trades: list[Trade]) -> None:
        for trade in trades:
            listing.history.append(trade)
        self.trade_count += len(trades)

    def force_trades(self, instrument: Instrument, exch_s: int, mono_ns: int) -> MarketUpdate | None:
        """Three trades at the last price, whatever the phase; None on a day without any trade."""
        listing = self.primary_listings[instrument]
        day = listing.day
        if not day.last:
            return None
        at = listing.format_time(exch_s)
        executions = [Execution(day.last, listing.flow.draw_size(), -1) for _ in range(FORCED_TRADES)]
        book = listing.last_book or listing.build_book("regular", exch_s, at, mono_ns)
        trades = [
            Trade(
                next(self._trade_ids), instrument, listing.phase or "regular", exch_s, at, mono_ns, *fill, after, book
            )
            for fill, after in zip(executions, self._apply_executions(listing, executions, at), strict=True)
        ]
        self._record_trades(listing, trades)
        return MarketUpdate(instrument, trades, None)

    def trade_block(self, instrument: Instrument, shares: int) -> int:
        """Trade volume off the book: it is in the day's sums and in no trade. Its price."""
        day = self.primary_listings[instrument].day
        price = day.last or day.previous_close
        day.add_off_book(price, shares)
        for listing in self.affected_listings(instrument)[1:]:
            listing.day.add_off_book(price, shares)
        return price

    def allocate_trade_ids(self, number: int) -> int:
        """Allocate ids for generated trades (backfill.py); the first."""
        first = next(self._trade_ids)
        self._trade_ids = count(first + number)
        self.trade_count += number
        return first

    @staticmethod
    def _apply_executions(listing: Listing, executions: list[Execution], at: str) -> list[DailyStats]:
        days = []
        for execution in executions:
            listing.day.add_trade(execution.price, execution.size, execution.side, at)
            days.append(copy(listing.day))
        return days
