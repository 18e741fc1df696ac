"""Monitors of merged books, which get what is journalled in batches of a fifth of a second: many small ones would cost more.

batch, batch, .. ──every INTERVAL_NS, and at once while everything is drained──> FeedMonitor, GapReporter
"""

from __future__ import annotations

import numpy as np

from conf.clock import SECOND_NS
from ringbuf.records import ORDERBOOK, join_records
from writer.feeds.monitor import FeedMonitor
from writer.ingest.arbitration_result import ArbitrationResult, join_results
from writer.volume.gap_report import GapReporter

INTERVAL_NS = SECOND_NS // 5


class BookMonitors:
    """Feed monitor and gap reporter of a dataset of books, as far as there are any."""

    def __init__(self, feed_monitor: FeedMonitor | None, gap_reporter: GapReporter | None) -> None:
        self._feed_monitor = feed_monitor
        self._gap_reporter = gap_reporter
        self._waiting: list[tuple[np.ndarray, ArbitrationResult]] = []
        self._passed_ns = 0

    def add(self, books: np.ndarray, result: ArbitrationResult | None, through_ns: int, now_ns: int) -> None:
        """Books (ORDERBOOK, in receive order) and the arbiter's result, None without books.

        Those received up to `through_ns` (mono_ns) were added: up to `now_ns` while everything is drained.
        """
        if result is not None:
            self._waiting.append((books, result))
        if now_ns - self._passed_ns < INTERVAL_NS and through_ns < now_ns:
            return
        self._passed_ns = now_ns
        joined, joined_result = np.empty(0, ORDERBOOK), None
        if self._waiting:
            parts, results = zip(*self._waiting, strict=True)
            joined, joined_result = join_records(parts), join_results(results)
            self._waiting.clear()
        if self._gap_reporter is not None:
            self._gap_reporter.add_books(joined)
        if self._feed_monitor is not None:
            self._feed_monitor.add_books(joined, joined_result, through_ns)
