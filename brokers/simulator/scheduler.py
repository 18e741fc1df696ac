"""Real-time scheduler of market events: when which instrument moves, and the exchange second of the event.

    CLOCK_MONOTONIC -> next due instrument -> Market.advance(phase, exchange second) -> ground truth, feeds

Guarantees:
    * Events are paced in real seconds whatever the home's clock does, and stamped with its exchange second.
    * Every step is written to the ground truth before any feed gets it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heapify, heapreplace
from random import Random

from brokers.simulator.exchange.market import SimulatedMarket
from brokers.simulator.exchange.models import MarketUpdate
from brokers.simulator.gateway.feed import SimulatedFeed
from brokers.simulator.ground_truth import FLUSH_S, GroundTruthWriter
from conf.calendar import TradingCalendar
from conf.clock import SECOND_NS, Clock, to_kst
from conf.home import Home
from conf.instrument import Instrument

MIN_SLEEP_S = 0.002
CATCH_UP_NS = SECOND_NS // 2
ALWAYS_OPEN = "regular"


@dataclass
class MarketScheduler:
    """Advances a market; a callback gets (venue, before, after, at) at every change of phase."""

    home: Home
    market: SimulatedMarket
    feeds: list[SimulatedFeed]
    truth: GroundTruthWriter
    random: Random
    books_per_s: float
    always_open: bool
    on_phase_change: Callable[[str, str | None, str | None, str], None]
    clock: Clock = field(init=False)
    calendar: TradingCalendar = field(init=False)
    rate_factor: float = 1.0  # of the usual number of events
    paused: bool = False  # nothing moves, so that what is on its way can arrive
    _phases: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clock = self.home.load_clock()
        self.calendar = self.home.load_calendar()

    async def run(self) -> None:
        """Move the market for ever."""
        instruments = list(self.market.primary_listings)
        interval_ns = SECOND_NS / self.books_per_s
        start_ns = time.monotonic_ns()
        heap = [(start_ns + int(self.random.random() * interval_ns), number) for number in range(len(instruments))]
        heapify(heap)
        flushed_ns = start_ns
        while True:
            now_ns = time.monotonic_ns()
            self._check_phases(now_ns)
            while heap[0][0] <= now_ns and not self.paused:
                due_ns, number = heap[0]
                self._advance(instruments[number])
                # A stall is not made up for by a burst.
                step_ns = int(self.random.uniform(0.5, 1.5) * interval_ns / self.rate_factor)
                next_ns = max(due_ns, now_ns - CATCH_UP_NS) + step_ns
                heapreplace(heap, (next_ns, number))
            if now_ns - flushed_ns > FLUSH_S * SECOND_NS:
                self.truth.flush()
                flushed_ns = now_ns
            pause_s = (heap[0][0] - time.monotonic_ns()) / SECOND_NS
            await asyncio.sleep(min(max(pause_s, MIN_SLEEP_S), FLUSH_S / 2))

    def _advance(self, instrument: Instrument) -> None:
        mono_ns = time.monotonic_ns()
        exch_s = self.clock.to_calendar_ns(mono_ns) // SECOND_NS
        update = self.market.advance(instrument, self._current_phase(instrument.venue, exch_s), exch_s, mono_ns)
        if update is not None:
            self._publish(update)

    def force_trades(self, instrument: Instrument) -> None:
        """Make trades happen at once, also while the market rests or is closed: then they bear the time of its last one."""
        instrument = self.market.find_origin(instrument)
        listing, mono_ns = self.market.primary_listings[instrument], time.monotonic_ns()
        exch_s = self.clock.to_calendar_ns(mono_ns) // SECOND_NS
        open_now = self._current_phase(instrument.venue, exch_s) is not None
        if len(listing.history) and not (open_now and listing.day.date == f"{to_kst(exch_s * SECOND_NS):%Y%m%d}"):
            exch_s = int(listing.history.read_column("exch_s")[-1])
        update = self.market.force_trades(instrument, exch_s, mono_ns)
        if update is not None:
            self._publish(update)

    def _publish(self, update: MarketUpdate) -> None:
        for venue_update in (update, self.market.consolidate(update)):
            if venue_update is None:
                continue
            for trade in venue_update.trades:
                self.truth.record_trade(trade)
            if venue_update.book is not None:
                self.truth.record_book(venue_update.book)
            for feed in self.feeds:
                feed.publish(venue_update)

    def _check_phases(self, now_ns: int) -> None:
        """Detect changes of phase, and steps of the wall clock."""
        self.clock.detect_step()
        exch_s = self.clock.to_calendar_ns(now_ns) // SECOND_NS
        for venue in {instrument.venue for instrument in self.market.listings}:
            now = self._current_phase(venue, exch_s)
            before = self._phases.setdefault(venue, now)
            if now != before:
                self._phases[venue] = now
                self.on_phase_change(venue, before, now, f"{to_kst(exch_s * SECOND_NS):%H%M%S}")

    def _current_phase(self, venue: str, exch_s: int) -> str | None:
        return ALWAYS_OPEN if self.always_open else self.calendar.find_phase(venue, exch_s * SECOND_NS)
