"""Gap-fill loop.

    volume.json ─> GapQueue ─next─> pages of trades, newest first ─verify─> TICK records ─> gapfill.tick.ring ─> writer
                                              ^ at most max_calls_per_s

Guarantees:
    * The loop sends heartbeats whatever it waits for.
    * Nothing is fetched outside the sessions, nor faster than the setting; a refusal halves the rate, and every failure is
      waited out. Nothing is fetched while the room on the disk belongs to the writer; the state gives the reason.
    * Only verified rows are published, one publish per gap; rows published twice, even across a kill, are accepted once by
      the writer. What the vendor's list leaves out of a gap, or shows in a row that cannot be read, stays open.
"""

from __future__ import annotations

import time

import numpy as np
from loguru import logger

from brokers.errors import BrokerError, RateLimited
from brokers.feed.publisher import SessionResolver
from brokers.history import TRADE_ROW, HistoryError, IntradayTrades, PageRequest, format_rejects
from brokers.transport.backoff import Backoff
from brokers.transport.blocking_call import ShutdownRequested, call_with_heartbeat
from collectorctl.disk.guard import find_low_space
from collectorctl.gapfill.queue import FillableGap, GapfillLimits, GapQueue
from collectorctl.gapfill.verify import verify
from collectorctl.recover.download.rate_limiter import RateLimiter
from conf.clock import to_kst
from conf.home import Home
from conf.market import KR
from conf.process import ShutdownSignal
from ringbuf.records import PRICE_SCALE, TICK, UNDEFINED, FeedId, Venue, empty_records
from ringbuf.ring import Producer
from ringbuf.vitals import ProcessState, Vitals
from writer.volume.gaps import decode_gap_report

RING_CAPACITY = 16_384
"""Ticks that may wait for the writer: 2.8 MB."""
POLL_INTERVAL_S = 0.5
MAX_REFUSALS = 8
"""Refusals for the rate in a row after which a page is left for later."""
BACKOFF_INITIAL_S, BACKOFF_MAX_S = 2.0, 60.0


class GapFiller:
    """The process's state from turn to turn."""

    def __init__(self, home: Home, stop: ShutdownSignal, vitals: Vitals, history: IntradayTrades) -> None:
        """OSError while there is no room for its ring."""
        table = home.settings.gapfill
        self._home = home
        self._stop, self._vitals, self._history = stop, vitals, history
        self._clock, self._calendar = home.load_clock(), home.load_calendar()
        self._report_path = home.gap_report_path(KR.name)
        self._report_id: tuple[int, int] | None = None
        self._max_pages = table.max_pages
        page_rows = history.PAGE_ROWS["trades"]
        self._queue = GapQueue(GapfillLimits(table.settle_s, table.attempts, table.max_pages * page_rows))
        self._limiter = RateLimiter(table.calls_per_s, table.calls_per_s)
        self._backoff = Backoff(BACKOFF_INITIAL_S, BACKOFF_MAX_S)
        self._session_resolver = SessionResolver(home)
        self._failure_state: tuple[ProcessState, str] | None = None
        self._last_state: tuple[ProcessState | None, str] = (None, "")
        self._ring = Producer.open(home.ring_path("gapfill", "tick"), TICK, RING_CAPACITY)
        # a process that dies and comes again is no reason to ask faster
        self._limiter.on_call(time.monotonic())

    def run(self) -> None:
        """Until a stop is requested."""
        try:
            fetched = False
            while not self._stop.wait(0.0 if fetched else POLL_INTERVAL_S):
                fetched = self._poll_once()
        except ShutdownRequested:
            pass
        finally:
            self._ring.close()

    def _poll_once(self) -> bool:
        """Read the report and fetch one gap; whether anything was fetched."""
        self._vitals.heartbeat()
        self._ring.restore_path()
        self._clock.detect_step()
        self._read_report()
        venues = [venue for venue in KR.venues if self._calendar.find_phase(venue, self._clock.now_ns()) is not None]
        gap = self._queue.next_gap(venues, time.monotonic())
        if gap is None:
            self._failure_state = None
        low_space = find_low_space(self._home)
        self._set_state(
            *(
                ((ProcessState.PAUSED, low_space) if low_space else None)
                or self._failure_state
                or (ProcessState.RUNNING if venues else ProcessState.CLOSED_MARKET, self._format_summary())
            )
        )
        if gap is None or low_space or not self._has_room():
            return False
        try:
            self._fill_gap(gap)
        except HistoryError as error:
            self._mark_failed(gap, str(error))
        except BrokerError as error:
            self._vitals.add("calls_failed")
            state = ProcessState.RUNNING if isinstance(error, RateLimited) else error.state
            self._failure_state = (state, f"{error}; {self._format_summary()}")
            self._set_state(*self._failure_state)
            wait_s = max(error.retry_after_s, self._backoff.next_s())
            logger.warning("{}; next call in {:.0f} s", error, wait_s)
            self._wait(wait_s)
        return True

    def _read_report(self) -> None:
        """Read a new report of the writer, if there is one."""
        try:
            found = self._report_path.stat()
            if (found.st_mtime_ns, found.st_ino) == self._report_id:
                return
            report = decode_gap_report(self._report_path.read_bytes())
            self._report_id = (found.st_mtime_ns, found.st_ino)
        except OSError:
            return  # no report yet, or no descriptor now: again in half a second
        if report is None:
            return
        update = self._queue.update(report, f"{to_kst(self._clock.now_ns()):%Y-%m-%d}", time.monotonic())
        self._vitals.add("gaps_filled", len(update.filled))
        self._vitals.add("gaps_given_up", len(update.too_large))
        for gap in update.too_large:
            logger.info("{}: {} trades are more than the gap filler fetches", _format_gap(gap), gap.trades)

    def _fill_gap(self, gap: FillableGap) -> None:
        """Ask page after page, until the gap is filled or cannot be. BrokerError."""
        self._vitals.add("gaps_asked")
        trades = np.zeros(0, TRADE_ROW)
        until_ns = gap.end_ns
        for _ in range(self._max_pages):
            page = self._fetch_page(gap, until_ns)
            trades = np.concatenate([trades, page])
            result = verify(self._queue.open_gaps_of(gap), trades)
            for filled, rows in result.fills.items():
                self._publish(filled, rows)
            mismatch = result.mismatches.get(gap, "")
            if gap in result.fills:
                return
            if not len(page):
                self._mark_failed(gap, "no more rows")
                return
            if int((page["cum_volume"] - page["size"]).min()) <= gap.low:
                if gap in result.partial_fills:
                    logger.info("{}: {}, the vendor's list has no more", _format_gap(gap), mismatch)
                    self._publish(gap, result.partial_fills[gap])
                else:
                    self._mark_failed(gap, mismatch or "no rows of it")
                return
            oldest_ns = int(page["exch_ns"].min())
            if oldest_ns >= until_ns:
                self._mark_failed(gap, "more trades in one second than a page has", permanently=True)
                return
            until_ns = oldest_ns
        self._mark_failed(gap, f"it reaches further back than {self._max_pages} pages", permanently=True)

    def _fetch_page(self, gap: FillableGap, until_ns: int) -> np.ndarray:
        """TRADE_ROW of the gap's day up to a second, at the rate that is allowed. BrokerError."""
        day = to_kst(until_ns).date()
        request = PageRequest("trades", gap.instrument, day, until=f"{to_kst(until_ns):%H%M%S}")
        for refusals in range(MAX_REFUSALS):
            self._wait(self._limiter.wait_s(time.monotonic()))
            self._limiter.on_call(time.monotonic())
            self._vitals.add("calls")
            try:
                response = call_with_heartbeat(lambda: self._history.fetch_page(request), self._vitals, self._stop)
            except RateLimited as error:
                self._limiter.on_refusal()
                self._vitals.add("calls_limited")
                if refusals == MAX_REFUSALS - 1:
                    raise
                self._wait(error.retry_after_s)
            else:
                break
        self._limiter.on_success()
        self._backoff.reset()
        self._failure_state = None
        rows, rejects = self._history.parse_trades(response.content, day)
        if rejects:
            self._vitals.add("rows_rejected", len(rejects))
            logger.warning("{}: {}; the others are used", gap.instrument, format_rejects(rejects))
        return rows

    def _publish(self, gap: FillableGap, trades: np.ndarray) -> None:
        """The gap's ticks to the writer, by one publish: either all of them are in the ring, or none."""
        ticks = empty_records(TICK, len(trades))
        ticks["recv_ns"], ticks["mono_ns"] = self._clock.now_ns(), self._clock.mono_ns()
        ticks["symbol"], ticks["venue"] = gap.instrument.symbol.encode(), Venue[gap.instrument.venue]
        ticks["line"] = FeedId.GAPFILL
        for name in ("exch_ns", "size", "cum_volume", "side"):
            ticks[name] = trades[name]
        for name in ("price", "ask_price_1", "bid_price_1"):
            known = trades[name] != UNDEFINED
            ticks[f"{name}_e4"] = np.where(known, np.where(known, trades[name], 0) * PRICE_SCALE, UNDEFINED)
        self._session_resolver.resolve(ticks)
        self._ring.publish(ticks)
        self._vitals.add("ticks", len(ticks))
        self._queue.mark_published(gap, time.monotonic())
        logger.info("{}: {} ticks, published to the writer", _format_gap(gap), len(ticks))

    def _mark_failed(self, gap: FillableGap, reason: str, permanently: bool = False) -> None:
        given_up = self._queue.mark_failed(gap, time.monotonic(), permanently)
        self._vitals.add("gaps_given_up", int(given_up))
        logger.warning(
            "{}: not filled: {}{}", _format_gap(gap), reason, "; given up, left to recovery" if given_up else ""
        )

    def _has_room(self) -> bool:
        """Whether the ring has room for all that the pages of one gap may bring."""
        queued = self._ring.head - self._ring.tail + 1
        return queued + self._max_pages * self._history.PAGE_ROWS["trades"] <= self._ring.capacity

    def _wait(self, seconds: float) -> None:
        """Wait, sending heartbeats and reading reports; raises if a stop is requested."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._vitals.heartbeat()
            if self._stop.wait(min(POLL_INTERVAL_S, left)):
                raise ShutdownRequested

    def _format_summary(self) -> str:
        count = self._vitals.get
        gap_text = (
            f"{count('gaps_asked')} gaps asked for, {count('gaps_filled')} filled, {count('gaps_given_up')} given up"
        )
        waiting_text = f"{len(self._queue)} wait, " if len(self._queue) else ""
        return f"{waiting_text}{gap_text}; {count('calls')} calls, {count('calls_limited') + count('calls_failed')} refused"

    def _set_state(self, state: ProcessState, detail: str) -> None:
        if (state, detail) != self._last_state:
            self._last_state = (state, detail)
            self._vitals.set_state(state, detail)


def _format_gap(gap: FillableGap) -> str:
    return f"{gap.instrument} {gap.day} volume {gap.low} to {gap.high}"
