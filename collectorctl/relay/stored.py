"""A stored day through the gateway: the received rows of books and ticks in receive order, at their pace.

    data/, journal ──Catalog──> rows of a span of receipt ──> records in receive order ──pace──> Gateway

Guarantees:
    * Every received row of the span and instruments is sent once to each client that registered it, in receive order.
    * It plays while a client has registered something and waits otherwise; nobody is cut for the speed of the replay.
    * Ticks that recovery or gapfill fetched were not received: they are not played, and counted, as are the shares of gaps.
    * Memory is bounded by WINDOW_NS of rows.

Not handled here:
    * Books as the feed that was second delivered them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import numpy as np

from collectorctl.reader.live import GapFinder
from collectorctl.reader.stored import Span, StoredRows, merge_runs
from collectorctl.relay.gateway import Gateway
from conf.clock import SECOND_NS
from ringbuf.records import STREAMS

WINDOW_NS = 120 * SECOND_NS
STEP_RECORDS = 500
MAX_WAITING = 4000
"""Frames that may wait for a client before the replay does."""
POLL_S = 0.01
SETTLE_S = 1.0
"""After the last registration of a first client: it may have more."""


class Replay:
    """A day on its way to the clients of a gateway."""

    def __init__(self, rows: StoredRows, span: Span, speed: float, gateway: Gateway) -> None:
        """`speed`: how much faster than it was received; 0: as fast as the clients take it."""
        self._rows, self._span, self._speed, self._gateway = rows, span, speed, gateway
        self._gaps = GapFinder()
        self.played: Counter[str] = Counter()
        self.gap_shares = 0
        self._origin_s: float | None = None
        self._first_ns = 0
        self._reached_ns = span.begin_ns

    @property
    def now_ns(self) -> int:
        """The time of the recorded day."""
        return self._reached_ns

    async def run(self) -> None:
        """Play it to its end, and until every client has what it registered."""
        await self._wait_for_clients()
        await asyncio.sleep(SETTLE_S)
        for begin_ns in range(self._span.begin_ns, self._span.end_ns, WINDOW_NS):
            end_ns = min(begin_ns + WINDOW_NS, self._span.end_ns)
            parts = {stream: await asyncio.to_thread(self._rows.read, stream, begin_ns, end_ns) for stream in STREAMS}
            self.gap_shares += sum(gap.shares for _, gap in self._gaps.find(parts["tick"]))
            for stream, records in merge_runs(parts, STEP_RECORDS):
                await self._play(stream, records)
        while self._find_longest_queue():
            await asyncio.sleep(POLL_S)

    async def _play(self, stream: str, records: np.ndarray) -> None:
        done = 0
        while done < len(records):
            await self._wait_for_clients()
            due = self._count_due(records[done:])
            if not due:
                await asyncio.sleep(POLL_S)
                continue
            self._gateway.publish(stream, records[done : done + due])
            self.played[stream] += due
            self._reached_ns = int(records["recv_ns"][done + due - 1])
            done += due
            await asyncio.sleep(0)

    def _count_due(self, records: np.ndarray) -> int:
        """How many of the records, at least one of which is left, are due now."""
        if not self._speed:
            return len(records)
        if self._origin_s is None:
            self._origin_s, self._first_ns = time.monotonic(), int(records["recv_ns"][0])
        now_ns = self._first_ns + int((time.monotonic() - self._origin_s) * self._speed * SECOND_NS)
        return int(np.searchsorted(records["recv_ns"], now_ns, "right"))

    async def _wait_for_clients(self) -> None:
        """Wait for a client with registrations, and for those that are behind; the pace resumes where it was."""
        begin_s = time.monotonic()
        while not self._has_registrations() or self._find_longest_queue() > MAX_WAITING:
            await asyncio.sleep(POLL_S)
        if self._origin_s is not None:
            self._origin_s += time.monotonic() - begin_s

    def _has_registrations(self) -> bool:
        return any(one.subscriptions for feed in self._gateway.feeds for one in feed.connections.values())

    def _find_longest_queue(self) -> int:
        return max((one.queued for feed in self._gateway.feeds for one in feed.connections.values()), default=0)
