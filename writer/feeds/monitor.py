"""Feed monitor: runs the degradation checks, emits events, publishes a snapshot for `status`.

    writer: books and their twins, events ──> DegradationDetector ──each bucket──> HOME/run/lines.json ──> collectorctl status
                                                  └── begin, end ──> events degraded, restored; vitals; the log

Guarantees:
    * After a restart of the writer, a feed's subscriptions are known again from its event ring; its past shares are learned
      anew.
    * A snapshot that cannot be written stops nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from loguru import logger

from conf.clock import SECOND_NS, to_kst
from conf.home import Home
from conf.market import KR
from ringbuf.records import EVENT, EventType, FeedId
from ringbuf.ring import Consumer, RingError
from ringbuf.vitals import Vitals
from writer.feeds.degradation import BUCKETS, DegradationDetector
from writer.feeds.feed_report import Degradation, FeedReport
from writer.feeds.visibility import FeedVisibility
from writer.ingest.arbitration_result import ArbitrationResult
from writer.snapshot_file import SnapshotFile


class FeedMonitor:
    """The lines of a home's Korean books."""

    def __init__(self, home: Home, vitals: Vitals, emit: Callable[..., None]) -> None:
        """Read the event rings for the subscriptions of each feed; degradations are emitted as events."""
        settings = home.settings
        window_ns = round(settings.health.window_s * SECOND_NS)
        settle_ns = round(settings.writer.twin_window_s * SECOND_NS) + SECOND_NS
        codes = {int(FeedId[feed.upper()]): feed for feed in KR.feeds}
        self._file = SnapshotFile(home.feed_report_path(), "an old state of the feeds")
        self._vitals = vitals
        self._emit_event = emit
        self._clock = home.load_clock()
        self._window_s = settings.health.window_s
        self._interval_ns = window_ns // BUCKETS
        self._detector = DegradationDetector(codes, window_ns, settle_ns, settings.health.min_books)
        self._visibility = FeedVisibility()
        self._through_ns = 0
        self._evaluated_ns = 0
        self._since_ns: dict[Degradation, int] = {}
        for feed in KR.feeds:
            try:
                ring = Consumer.open(home.ring_path(feed, "event"), EVENT)
                next_seq = ring.oldest
                while next_seq <= ring.head:
                    batch = ring.read(next_seq, ring.capacity)
                    self._visibility.add_events(batch.records)
                    next_seq = batch.next_seq
                ring.close()
            except FileNotFoundError:
                pass
            except (OSError, RingError) as error:
                logger.warning("{}: the subscriptions of {} are known from its next events on", error, feed)

    def add_events(self, events: np.ndarray) -> None:
        """Events (EVENT), in order."""
        self._visibility.add_events(events)

    def add_books(self, books: np.ndarray, arbitration: ArbitrationResult | None, through_ns: int) -> None:
        """Add books (ORDERBOOK) and the arbiter's result, None without books; complete up to `through_ns` (mono_ns)."""
        self._through_ns = through_ns
        if arbitration is not None and len(books):
            self._detector.add_books(books, arbitration)

    def evaluate(self, now_ns: int) -> None:
        """Evaluate once a bucket of the window (mono_ns), emit events, publish the report."""
        if now_ns - self._evaluated_ns < self._interval_ns:
            return
        self._evaluated_ns = now_ns
        evaluation = self._detector.evaluate(self._visibility, self._through_ns)
        for degradation in evaluation.began:
            self._since_ns[_key(degradation)] = self._clock.now_ns()
            logger.warning("{} is degraded: {}", _format_name(degradation), degradation.message)
            self._vitals.add("feeds_degraded")
            self._emit(EventType.DEGRADED, degradation, degradation.message)
        for degradation in evaluation.ended:
            logger.info("{} is restored; it was {}", _format_name(degradation), degradation.message)
            self._emit(EventType.RESTORED, degradation, "", self._since_ns.pop(_key(degradation)))
        self._vitals.set("degraded", len(evaluation.degradations))
        for share in evaluation.feeds:
            for name in ("twin_share", "first_share"):
                self._vitals.set(f"{name}_{share.feed}_e4", round(10_000 * (getattr(share, name) or 0)))
        for name in ("lag_p50", "lag_p99"):
            self._vitals.set(f"{name}_us", round(1000 * (getattr(evaluation, f"{name}_ms") or 0)))
        written = f"{to_kst(self._clock.now_ns()):%Y-%m-%d %H:%M:%S}"
        lags = evaluation.lag_p50_ms, evaluation.lag_p99_ms
        self._file.write(FeedReport(written, self._window_s, *lags, evaluation.feeds, evaluation.degradations))

    def _emit(self, kind: EventType, degradation: Degradation, message: str, since_ns: int | None = None) -> None:
        fields = {} if since_ns is None else {"since_ns": since_ns}
        feed = FeedId[degradation.feed.upper()]
        self._emit_event(
            kind, message, feed=feed, symbol=degradation.symbol, venue=degradation.venue, stream="orderbook", **fields
        )


def _key(degradation: Degradation) -> Degradation:
    """The degradation without its message, which changes."""
    return msgspec.structs.replace(degradation, message="")


def _format_name(degradation: Degradation) -> str:
    return " ".join(filter(None, (degradation.feed, degradation.symbol, degradation.venue)))
