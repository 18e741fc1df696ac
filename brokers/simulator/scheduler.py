"""The market in real time: when which instrument moves, and what the exchange's clock says then.

    CLOCK_MONOTONIC -> next due instrument -> Market.advance(phase, exchange second) -> truth, lines

Promises: events are paced in real seconds whatever the home's clock does; they are stamped with its exchange second; every
step goes to the truth before any line.
Leaves to others: what happens in a step (market.py), delay and loss (line.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heapify, heapreplace
from random import Random

from brokers.simulator.exchange.market import Market
from brokers.simulator.exchange.models import Step
from brokers.simulator.gateway.feed import Line
from brokers.simulator.ground_truth import FLUSH_S, Truth
from conf.calendar import Calendar
from conf.clock import SECOND_NS, Clock, korean
from conf.home import Home
from conf.instrument import Instrument

LEAST_SLEEP_S = 0.002
CATCH_UP_NS = SECOND_NS // 2
ALWAYS_OPEN = "regular"


@dataclass
class Pace:
    """Moves a market; `tell(venue, before, after, at)` hears of every change of phase."""

    home: Home
    market: Market
    lines: list[Line]
    truth: Truth
    random: Random
    books_per_s: float
    always_open: bool
    tell: Callable[[str, str | None, str | None, str], None]
    clock: Clock = field(init=False)
    calendar: Calendar = field(init=False)
    times: float = 1.0  # of the usual number of events
    resting: bool = False  # nothing moves, so that what is on its way can arrive
    _phases: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clock = self.home.clock()
        self.calendar = self.home.calendar()

    async def run(self) -> None:
        """Move the market for ever."""
        instruments = list(self.market.traded)
        gap_ns = SECOND_NS / self.books_per_s
        start_ns = time.monotonic_ns()
        heap = [(start_ns + int(self.random.random() * gap_ns), number) for number in range(len(instruments))]
        heapify(heap)
        flushed_ns = start_ns
        while True:
            now_ns = time.monotonic_ns()
            self._watch(now_ns)
            while heap[0][0] <= now_ns and not self.resting:
                due_ns, number = heap[0]
                self._move(instruments[number])
                # A stall is not made up for by a burst.
                step_ns = int(self.random.uniform(0.5, 1.5) * gap_ns / self.times)
                next_ns = max(due_ns, now_ns - CATCH_UP_NS) + step_ns
                heapreplace(heap, (next_ns, number))
            if now_ns - flushed_ns > FLUSH_S * SECOND_NS:
                self.truth.flush()
                flushed_ns = now_ns
            pause_s = (heap[0][0] - time.monotonic_ns()) / SECOND_NS
            await asyncio.sleep(min(max(pause_s, LEAST_SLEEP_S), FLUSH_S / 2))

    def _move(self, instrument: Instrument) -> None:
        mono_ns = time.monotonic_ns()
        exch_s = self.clock.at(mono_ns) // SECOND_NS
        step = self.market.advance(instrument, self._phase(instrument.venue, exch_s), exch_s, mono_ns)
        if step is not None:
            self._show(step)

    def move_late(self, instrument: Instrument) -> None:
        """Make trades happen at once, also while the market rests or is closed: then they bear the time of its last one."""
        instrument = self.market.origin(instrument)
        listing, mono_ns = self.market.traded[instrument], time.monotonic_ns()
        exch_s = self.clock.at(mono_ns) // SECOND_NS
        open_now = self._phase(instrument.venue, exch_s) is not None
        if len(listing.tape) and not (open_now and listing.day.date == f"{korean(exch_s * SECOND_NS):%Y%m%d}"):
            exch_s = int(listing.tape.column("exch_s")[-1])
        step = self.market.late(instrument, exch_s, mono_ns)
        if step is not None:
            self._show(step)

    def _show(self, step: Step) -> None:
        for seen in (step, self.market.unify(step)):
            if seen is None:
                continue
            for trade in seen.trades:
                self.truth.trade(trade)
            if seen.book is not None:
                self.truth.book(seen.book)
            for line in self.lines:
                line.publish(seen)

    def _watch(self, now_ns: int) -> None:
        """Notice changes of phase, and steps of the wall clock."""
        self.clock.follow_wall()
        exch_s = self.clock.at(now_ns) // SECOND_NS
        for venue in {instrument.venue for instrument in self.market.listings}:
            now = self._phase(venue, exch_s)
            before = self._phases.setdefault(venue, now)
            if now != before:
                self._phases[venue] = now
                self.tell(venue, before, now, f"{korean(exch_s * SECOND_NS):%H%M%S}")

    def _phase(self, venue: str, exch_s: int) -> str | None:
        return ALWAYS_OPEN if self.always_open else self.calendar.phase(venue, exch_s * SECOND_NS)
