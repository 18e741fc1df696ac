"""One connected WebSocket client: send queue, writer task, and the outcome of every record.

    enqueue -> queue (due times ascend) -> conflate -> encode -> corrupt / silence -> socket
    send control ------------------------------------------------------------^        at once

Guarantees:
    * One task writes to a socket; a client that stops reading holds at most MAX_QUEUED records and is then disconnected.
    * An outcome is written for every record, at the latest when the connection ends.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple, Protocol

from aiohttp import WSMsgType, web

from brokers.simulator.faults import FeedFaults
from brokers.simulator.ground_truth import DeliveryOutcome, Stream
from conf.instrument import Instrument

MAX_QUEUED = 10_000
SEND_BUFFER_BYTES = 1 << 18
"""Small, so that what a client never read is soon known to be unsent."""
CLOSE_TIMEOUT_S = 2.0
STOPPED_READING = "client stopped reading"
TIMER_EARLY_NS = 500_000
"""An event loop's timer may fire this much before its time."""
SECOND_NS = 1_000_000_000


class QueuedItem(NamedTuple):
    """Something to send, not before `due_ns` (CLOCK_MONOTONIC): a book, or the trades of one sweep.

    `content` is what the feed's own encoder takes; `record_ids`: (first, last) id of each record in it.
    """

    due_ns: int
    instrument: Instrument
    stream: Stream
    content: Any
    record_ids: Sequence[tuple[int, int]] = ()


class EncodedFrame(NamedTuple):
    """One text frame of data and the records it carries: (stream, first id, last id)."""

    payload: bytes
    records: list[tuple[Stream, int, int]]
    corrupted: bool = False


class Feed(Protocol):
    """The source of a vendor's server: what its clients are sent, and where the outcome is written down.

    A simulated market (feed.py), or the live stream of a home (collectorctl/relay/feed.py).
    """

    random: Random
    faults: FeedFaults
    connections: dict[int, ClientConnection]
    vendor_faults: dict[str, Callable[[float], None]]
    """Faults that the vendor's server carries out: what to do with the amount."""

    @property
    def flush_s(self) -> float:
        """Pause between two flushes of a connection; 0: none."""

    @property
    def max_books_per_s(self) -> float:
        """The most books of one instrument that are sent in a second; 0: all."""

    def add_client(self, ws: web.WebSocketResponse, transport: asyncio.Transport) -> ClientConnection:
        """A client has come."""

    def is_refusing(self) -> bool:
        """True while nobody is let in."""

    def encode_frames(self, due: list[QueuedItem]) -> list[EncodedFrame]:
        """What is due as the vendor's frames."""

    def record_delivery(
        self, connection: ClientConnection, stream: Stream, outcome: DeliveryOutcome, first: int, last: int, at_ns: int
    ) -> None:
        """What became of a record, of several where the frame merged them."""

    def record_connection(self, connection: ClientConnection) -> None:
        """A connection has ended; its reason is known."""


class ClientConnection:
    """A client of a feed, from the handshake until the socket is closed."""

    def __init__(self, feed: Feed, number: int, ws: web.WebSocketResponse, transport: asyncio.Transport) -> None:
        self.feed = feed
        self.number = number
        self.subscriptions: set[tuple[Instrument, Stream]] = set()
        self.app_key = ""
        self.opened_ns = time.monotonic_ns()
        self.silent_until_ns = 0
        self.last_sent_ns = self.opened_ns
        self.disconnect_reason = ""
        self._ws = ws
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._queue: deque[QueuedItem] = deque()
        self._control_queue: deque[bytes] = deque()
        self._pending_books: dict[Instrument, QueuedItem] = {}
        self._next_book_ns: dict[Instrument, int] = {}
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._next_data_ns = 0
        self._in_flight = 0
        self._flush_ns = int(feed.flush_s * SECOND_NS)

    @property
    def queued(self) -> int:
        """How many items are not on the socket yet."""
        return len(self._queue) + self._in_flight

    def is_silent(self) -> bool:
        """True while this connection is half-open."""
        return time.monotonic_ns() < self.silent_until_ns

    def send_control(self, text: str, delay_s: float = 0.0) -> None:
        """Queue a control message; it does not wait for data."""
        if delay_s:
            asyncio.get_running_loop().call_later(delay_s, self.send_control, text)
            return
        self._control_queue.append(text.encode())
        self._wake.set()

    def enqueue(self, item: QueuedItem) -> None:
        """Queue data; its time is put off where the item ahead of it is later."""
        if self.disconnect_reason:
            self._record_item(item, DeliveryOutcome.LOST)
            return
        if self._queue and self._queue[-1].due_ns > item.due_ns:
            item = item._replace(due_ns=self._queue[-1].due_ns)
        self._queue.append(item)
        if self._timer is None:
            self._set_timer(item.due_ns)
        if len(self._queue) > MAX_QUEUED:
            self.abort(STOPPED_READING)

    def abort(self, disconnect_reason: str) -> None:
        """End the TCP connection without a close frame; what waits is lost."""
        self.disconnect_reason = self.disconnect_reason or disconnect_reason
        self._transport.abort()
        self._wake.set()

    def close_after_flush(self, disconnect_reason: str) -> None:
        """End the TCP connection without a close frame, after the queued messages."""
        self.disconnect_reason = self.disconnect_reason or disconnect_reason
        self._wake.set()

    async def close(self, disconnect_reason: str, code: int, reason: bytes) -> None:
        """End with a close frame, after the queued messages."""
        self.disconnect_reason = self.disconnect_reason or disconnect_reason
        await self._send_control_queue()
        await self._ws.close(code=code, message=reason)

    async def run_writer(self) -> None:
        """The writer: runs until the connection ends, then settles what is left."""
        try:
            while not self.disconnect_reason:
                await self._wake.wait()
                self._wake.clear()
                await self._send_control_queue()
                if self._queue or self._pending_books:
                    now_ns = time.monotonic_ns() + TIMER_EARLY_NS
                    if now_ns >= self._next_data_ns:
                        await self._send_due(now_ns)
                    self._reset_timer()
            await self._send_control_queue()
            self._transport.close()
        except ConnectionError:
            self.disconnect_reason = self.disconnect_reason or "client vanished"

    def is_open(self) -> bool:
        """True while TCP is up."""
        return not self._transport.is_closing()

    async def finish(self, disconnect_reason: str, tasks: list[asyncio.Task[None]]) -> None:
        """Reading has ended: stop `tasks`, the writer first, and settle."""
        self.disconnect_reason = self.disconnect_reason or disconnect_reason
        self._wake.set()
        writer, *others = tasks
        for task in others:
            task.cancel()
        await asyncio.wait([writer], timeout=CLOSE_TIMEOUT_S)
        self._transport.abort()  # a writer still waiting for the client wakes up by this, with everything accounted for
        await asyncio.gather(*tasks, return_exceptions=True)
        self._record_unsent()

    def _record_unsent(self) -> None:
        """What was not sent is lost; the end is written down."""
        if self._timer is not None:
            self._timer.cancel()
        for item in (*self._pending_books.values(), *self._queue):
            self._record_item(item, DeliveryOutcome.LOST)
        self._pending_books.clear()
        self._queue.clear()
        self.feed.connections.pop(self.number, None)
        self.feed.record_connection(self)

    async def send(self, payload: bytes) -> None:
        """Put one text frame on the socket now (replayed frames and the writer)."""
        self.last_sent_ns = time.monotonic_ns()
        await self._ws.send_frame(payload, WSMsgType.TEXT)

    async def _send_control_queue(self) -> None:
        while self._control_queue:
            payload = self._control_queue.popleft()
            if not self.is_silent():
                await self.send(payload)

    async def _send_due(self, now_ns: int) -> None:
        due: list[QueuedItem] = []
        interval_ns = int(SECOND_NS / self.feed.max_books_per_s) if self.feed.max_books_per_s else 0
        while self._queue and self._queue[0].due_ns <= now_ns:
            item = self._queue.popleft()
            if interval_ns and item.stream is Stream.BOOK:
                older = self._pending_books.pop(item.instrument, None)
                if older is not None:
                    self._record_item(older, DeliveryOutcome.CONFLATED)
                self._pending_books[item.instrument] = item
            else:
                due.append(item)
        for instrument in [
            name for name in self._pending_books if not interval_ns or self._next_book_ns.get(name, 0) <= now_ns
        ]:
            due.append(self._pending_books.pop(instrument))
            self._next_book_ns[instrument] = max(self._next_book_ns.get(instrument, 0) + interval_ns, now_ns)
        due.sort(key=lambda item: item.due_ns)  # what was held came before what was not
        if due:
            self._in_flight = len(due)
            for frame in self.feed.encode_frames(due):
                await self._deliver(frame)
            self._in_flight = 0

    async def _deliver(self, frame: EncodedFrame) -> None:
        faults = self.feed.faults
        now_ns = time.monotonic_ns()
        if self.disconnect_reason or now_ns < self.silent_until_ns or now_ns < faults.quiet_until_ns:
            self._record_frame(frame, DeliveryOutcome.LOST)
            return
        corrupted = faults.corrupt(frame.payload, self.feed.random)
        payload = frame.payload if corrupted is None else corrupted
        try:
            await self.send(payload)
        except ConnectionError:
            self.disconnect_reason = self.disconnect_reason or "client vanished"
            self._record_frame(frame, DeliveryOutcome.LOST)
            return
        self._record_frame(
            frame, DeliveryOutcome.SENT if corrupted is None and not frame.corrupted else DeliveryOutcome.CORRUPTED
        )
        if corrupted is None and faults.take("duplicate"):
            await self.send(payload)
            self._record_frame(frame, DeliveryOutcome.REPEATED)

    def _record_frame(self, frame: EncodedFrame, outcome: DeliveryOutcome) -> None:
        for stream, first, last in frame.records:
            self.feed.record_delivery(self, stream, outcome, first, last, self.last_sent_ns)

    def _record_item(self, item: QueuedItem, outcome: DeliveryOutcome) -> None:
        now_ns = time.monotonic_ns()
        for first, last in item.record_ids:
            self.feed.record_delivery(self, item.stream, outcome, first, last, now_ns)

    def _reset_timer(self) -> None:
        times = [self._queue[0].due_ns] if self._queue else []
        times += [self._next_book_ns.get(instrument, 0) for instrument in self._pending_books]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if times:
            self._set_timer(min(times))

    def _set_timer(self, at_ns: int) -> None:
        """Wake the writer at `at_ns`, or at the flush after it; flushes have a rhythm counted from the handshake."""
        now_ns = time.monotonic_ns()
        at_ns = max(at_ns, now_ns)
        if self._flush_ns:
            at_ns += -(at_ns - self.opened_ns) % self._flush_ns
        self._next_data_ns = at_ns
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(loop.time() + (at_ns - now_ns) / SECOND_NS, self._wake.set)
