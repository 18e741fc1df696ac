"""A stored day through the gateway: the received rows of books and ticks in receive order, at their pace.

    data/, journal ──Catalog──> rows of a span of receipt ──> records in receive order ──pace──> Gateway

    each feed by itself:  what KIS delivered ──────> clients of KIS's form        both in one receive order
                          what Kiwoom delivered ───> clients of Kiwoom's form

Guarantees:
    * Every received row of the span and instruments is sent once to each client that registered it, in receive order.
    * It plays while as many clients as wanted have registered something and none is in the middle of it, and waits otherwise;
      nobody is cut for the speed of the replay.
    * Ticks that recovery or gapfill fetched were not received: they are not played, and counted, as are the shares of gaps.
    * Memory is bounded by WINDOW_NS of rows.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from loguru import logger

from collectorctl.reader.live import GapFinder
from collectorctl.reader.stored import Span, StoredRows, merge_runs
from collectorctl.relay.gateway import Gateway
from conf.clock import SECOND_NS, to_kst
from ringbuf.records import STREAMS

WINDOW_NS = 120 * SECOND_NS
STEP_RECORDS = 500
MAX_WAITING = 4000
"""Frames that may wait for a client before the replay does."""
POLL_S = 0.01
SETTLE_S = 1.0
"""A client that has registered something within this time may register more."""
MAX_SETTLE_S = 30.0
"""After its first registration a client is waited for no longer than this."""


class _Registrations(NamedTuple):
    """How many a client has, and when the first and the latest change of it were seen (monotonic)."""

    number: int
    first_s: float
    changed_s: float


class Replay:
    """A day on its way to the clients of a gateway."""

    def __init__(
        self, rows: Mapping[str, StoredRows], span: Span, speed: float, gateway: Gateway, clients: int = 1
    ) -> None:
        """Play `span`.

        Args:
            rows: by the form that they are played in, "" for both.
            span: of the day.
            speed: how much faster than it was received; 0: as fast as the clients take it.
            gateway: which serves the clients.
            clients: how many must have registered something; while there are fewer it waits.
        """
        self._rows, self._span, self._speed, self._gateway = rows, span, speed, gateway
        self._clients = clients
        self._registrations: dict[tuple[str, int], _Registrations] = {}
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
        for begin_ns in range(self._span.begin_ns, self._span.end_ns, WINDOW_NS):
            end_ns = min(begin_ns + WINDOW_NS, self._span.end_ns)
            parts = {
                (stream, form): await asyncio.to_thread(rows.read, stream, begin_ns, end_ns)
                for stream in STREAMS
                for form, rows in self._rows.items()
            }
            for (stream, form), records in merge_runs(parts, STEP_RECORDS):
                if stream == "tick":
                    self.gap_shares += sum(gap.shares for _, gap in self._gaps.find(records))
                await self._play(stream, form, records)
        while self._find_longest_queue():
            await asyncio.sleep(POLL_S)

    async def _play(self, stream: str, form: str, records: np.ndarray) -> None:
        done = 0
        while done < len(records):
            await self._wait_for_clients()
            due = self._count_due(records[done:])
            if not due:
                await asyncio.sleep(POLL_S)
                continue
            self._gateway.publish(stream, records[done : done + due], form)
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
        """Wait for clients with registrations, and for those that are behind; the pace resumes where it was."""
        begin_s = time.monotonic()
        is_logged = not sum(self.played.values())
        while not (is_ready := self._is_ready()) or self._find_longest_queue() > MAX_WAITING:
            if not is_ready and not is_logged:
                is_logged = True
                at = f"{to_kst(self._reached_ns):%H:%M:%S.%f}"
                logger.warning("at {}: waits until {} clients have registered what they want", at, self._clients)
            await asyncio.sleep(POLL_S)
        if self._origin_s is not None:
            self._origin_s += time.monotonic() - begin_s

    def _is_ready(self) -> bool:
        """Whether as many clients as wanted have registered something, and none of them is in the middle of it."""
        now_s, known = time.monotonic(), self._registrations
        self._registrations = {}
        for feed in self._gateway.feeds:
            for one in feed.connections.values():
                if number := len(one.subscriptions):
                    key = feed.name, one.number
                    old = known.get(key, _Registrations(0, now_s, now_s))
                    is_same = old.number == number
                    self._registrations[key] = old if is_same else _Registrations(number, old.first_s, now_s)
        return len(self._registrations) >= self._clients and all(
            now_s - one.changed_s >= SETTLE_S or now_s - one.first_s >= MAX_SETTLE_S
            for one in self._registrations.values()
        )

    def _find_longest_queue(self) -> int:
        return max((one.queued for feed in self._gateway.feeds for one in feed.connections.values()), default=0)
