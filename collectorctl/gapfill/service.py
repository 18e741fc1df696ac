"""The loop that fills gaps while the day goes on.

    volume.json ─hear─> Waiting ─next─> pages of prints, newest first ─prove─> TICK records ─> fill.tick.ring ─> writer
                                              ^ at calls_per_s at most

Promises: beats whatever it waits for; nothing is asked outside the sessions, nor faster than the setting; a refusal halves the
rate, and every failure is waited out; only what is proven is handed over, a gap by one publish; what is handed over twice, across
its own death even, the writer takes up once.
Leaves to others: which gap (waiting.py), what proves it (proof.py), the vendor's words (brokers/kis/quotes.py), storing (writer/).
"""

from __future__ import annotations

import time

import numpy as np
from loguru import logger

from brokers.errors import BrokerError, RestLimited
from brokers.feed.publisher import Sessions
from brokers.history import PRINTS, Asked, Prints, QuotesError
from brokers.transport.backoff import Backoff
from brokers.transport.blocking_call import Stopping, beating
from collectorctl.gapfill.queue import Gap, Limits, Waiting
from collectorctl.gapfill.verify import prove
from collectorctl.recover.download.rate_limiter import Limiter
from conf.clock import korean
from conf.home import Home
from conf.market import KR
from conf.process import Stop
from ringbuf.records import PRICE_SCALE, TICK, UNDEFINED, Line, Venue, blank
from ringbuf.ring import Producer
from ringbuf.vitals import Vitals
from writer.volume.gap_tracker import report_of

RING_CAPACITY = 16_384
"""Ticks that may wait for the writer: 2.8 MB."""
TURN_S = 0.5
LIMITED_MOST = 8
"""Refusals for the rate in a row after which a page is left for later."""
BACKOFF_FIRST_S, BACKOFF_MOST_S = 2.0, 60.0


class Filler:
    """The process's state from turn to turn."""

    def __init__(self, home: Home, stop: Stop, vitals: Vitals, quotes: Prints) -> None:
        """OSError while there is no room for its ring."""
        table = home.settings.fill
        self._stop, self._vitals, self._quotes = stop, vitals, quotes
        self._clock, self._calendar = home.clock(), home.calendar()
        self._report = home.run / "volume.json"
        self._seen: tuple[int, int] | None = None
        self._pages_most = table.pages_most
        page_rows = quotes.PAGE_ROWS["prints"]
        self._waiting = Waiting(Limits(table.settle_s, table.attempts, table.pages_most * page_rows))
        self._limiter = Limiter(table.calls_per_s, table.calls_per_s)
        self._backoff = Backoff(BACKOFF_FIRST_S, BACKOFF_MOST_S)
        self._sessions = Sessions(home)
        self._trouble: tuple[str, str] | None = None
        self._said = ("", "")
        self._ring = Producer.open(home.ring("fill", "tick"), TICK, RING_CAPACITY)
        # a process that dies and comes again is no reason to ask faster
        self._limiter.called(time.monotonic())

    def run(self) -> None:
        """Until a stop is requested."""
        try:
            asked = False
            while not self._stop.wait(0.0 if asked else TURN_S):
                asked = self._turn()
        except Stopping:
            pass
        finally:
            self._ring.close()

    def _turn(self) -> bool:
        """Hear and ask; whether something was asked."""
        self._vitals.beat()
        self._clock.follow_wall()
        self._hear()
        venues = [venue for venue in KR.venues if self._calendar.phase(venue, self._clock.now_ns()) is not None]
        gap = self._waiting.next(venues, time.monotonic())
        if gap is None:
            self._trouble = None
        self._say(*(self._trouble or ("running" if venues else "closed_market", self._tally())))
        if gap is None or not self._room():
            return False
        try:
            self._fill(gap)
        except QuotesError as error:
            self._failed(gap, str(error))
        except BrokerError as error:
            self._vitals.add("calls_failed")
            state = "running" if isinstance(error, RestLimited) else error.state
            self._trouble = (state, f"{error}; {self._tally()}")
            self._say(*self._trouble)
            wait_s = max(error.wait_s, self._backoff.next_s())
            logger.warning("{}; next call in {:.0f} s", error, wait_s)
            self._rest(wait_s)
        return True

    def _hear(self) -> None:
        """Take up a new report of the writer, if there is one."""
        try:
            found = self._report.stat()
            if (found.st_mtime_ns, found.st_ino) == self._seen:
                return
            report = report_of(self._report.read_bytes())
            self._seen = (found.st_mtime_ns, found.st_ino)
        except OSError:
            return  # no writer has told anything yet, or we have no descriptor now: half a second later again
        if report is None:
            return
        heard = self._waiting.hear(report, f"{korean(self._clock.now_ns()):%Y-%m-%d}", time.monotonic())
        self._vitals.add("gaps_filled", len(heard.filled))
        self._vitals.add("gaps_given_up", len(heard.beyond))
        for gap in heard.beyond:
            logger.info("{}: {} trades are more than is asked for during the day", _named(gap), gap.trades)

    def _fill(self, gap: Gap) -> None:
        """Ask page after page, until the gap is filled or cannot be. BrokerError."""
        self._vitals.add("gaps_asked")
        prints = np.zeros(0, PRINTS)
        until_ns = gap.end_ns
        for _ in range(self._pages_most):
            page = self._page(gap, until_ns)
            prints = np.concatenate([prints, page])
            proof = prove(self._waiting.beside(gap), prints)
            for filled, rows in proof.filled.items():
                self._hand_over(filled, rows)
            doubt = proof.doubts.get(gap, "")
            if gap in proof.filled:
                return
            if not len(page):
                self._failed(gap, "no more rows")
                return
            if int((page["cum_volume"] - page["size"]).min()) <= gap.low:
                self._failed(gap, doubt or "no rows of it")
                return
            oldest_ns = int(page["exch_ns"].min())
            if oldest_ns >= until_ns:
                self._failed(gap, "more trades in one second than a page has", for_good=True)
                return
            until_ns = oldest_ns
        self._failed(gap, f"it reaches further back than {self._pages_most} pages", for_good=True)

    def _page(self, gap: Gap, until_ns: int) -> np.ndarray:
        """PRINTS of the gap's day up to a second, at the rate that is allowed. BrokerError."""
        day = korean(until_ns).date()
        asked = Asked("prints", gap.instrument, day, until=f"{korean(until_ns):%H%M%S}")
        for refusals in range(LIMITED_MOST):
            self._rest(self._limiter.wait_s(time.monotonic()))
            self._limiter.called(time.monotonic())
            self._vitals.add("calls")
            try:
                reply = beating(lambda: self._quotes.ask(asked), self._vitals, self._stop)
            except RestLimited as error:
                self._limiter.refused()
                self._vitals.add("calls_limited")
                if refusals == LIMITED_MOST - 1:
                    raise
                self._rest(error.wait_s)
            else:
                break
        self._limiter.succeeded()
        self._backoff.reset()
        self._trouble = None
        return self._quotes.prints(reply.content, day)

    def _hand_over(self, gap: Gap, prints: np.ndarray) -> None:
        """The gap's ticks to the writer, by one publish: either all of them are in the ring, or none."""
        ticks = blank(TICK, len(prints))
        ticks["recv_ns"], ticks["mono_ns"] = self._clock.now_ns(), self._clock.mono_ns()
        ticks["symbol"], ticks["venue"] = gap.instrument.symbol.encode(), Venue[gap.instrument.venue]
        ticks["line"] = Line.FILL
        for name in ("exch_ns", "size", "cum_volume", "side"):
            ticks[name] = prints[name]
        for name in ("price", "ask_price_1", "bid_price_1"):
            known = prints[name] != UNDEFINED
            ticks[f"{name}_e4"] = np.where(known, np.where(known, prints[name], 0) * PRICE_SCALE, UNDEFINED)
        self._sessions.fill(ticks)
        self._ring.publish(ticks)
        self._vitals.add("ticks", len(ticks))
        self._waiting.handed_over(gap, time.monotonic())
        logger.info("{}: {} ticks, handed over to the writer", _named(gap), len(ticks))

    def _failed(self, gap: Gap, why: str, for_good: bool = False) -> None:
        given_up = self._waiting.failed(gap, time.monotonic(), for_good)
        self._vitals.add("gaps_given_up", int(given_up))
        logger.warning("{}: not filled: {}{}", _named(gap), why, "; given up, recovery will see" if given_up else "")

    def _room(self) -> bool:
        """Whether the ring has room for all that the pages of one gap may bring."""
        waiting = self._ring.head - self._ring.tail + 1
        return waiting + self._pages_most * self._quotes.PAGE_ROWS["prints"] <= self._ring.capacity

    def _rest(self, seconds: float) -> None:
        """Wait, beating and hearing. Stopping."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._vitals.beat()
            if self._stop.wait(min(TURN_S, left)):
                raise Stopping

    def _tally(self) -> str:
        count = self._vitals.get
        said = f"{count('gaps_asked')} gaps asked for, {count('gaps_filled')} filled, {count('gaps_given_up')} given up"
        waits = f"{len(self._waiting)} wait, " if len(self._waiting) else ""
        return f"{waits}{said}; {count('calls')} calls, {count('calls_limited') + count('calls_failed')} refused"

    def _say(self, state: str, detail: str) -> None:
        if (state, detail) != self._said:
            self._said = (state, detail)
            self._vitals.say(state, detail)


def _named(gap: Gap) -> str:
    return f"{gap.instrument} {gap.day} volume {gap.low} to {gap.high}"
