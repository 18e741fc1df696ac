"""One WebSocket client: its queue, its writer, and what became of every record.

    enqueue -> queue (due times ascend) -> conflate -> pack -> spoil / silence -> socket
    say ----> control -------------------------------------------------------^        at once

Promises: one writer per socket; a client that stops reading costs at most MOST_WAITING records of memory and is then cut;
an outcome is written for every record, at the latest when the connection ends.
Leaves to others: what the client says (kis.py, kiwoom.py), packing (kis_wire.py, kiwoom_wire.py).
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from random import Random
from typing import NamedTuple, Protocol

from aiohttp import WSMsgType, web

from brokers.simulator.exchange.models import Book, Trade
from brokers.simulator.faults import LineFaults
from brokers.simulator.ground_truth import LineNumber, Outcome, Stream, Truth
from conf.instrument import Instrument

MOST_WAITING = 10_000
SEND_BUFFER_BYTES = 1 << 18
"""Small, so that what a client never read is soon known to be unsent."""
CLOSE_S = 2.0
EARLY_NS = 500_000
"""An event loop's timer may fire this much before its time."""
SECOND_NS = 1_000_000_000


class Item(NamedTuple):
    """Something to send, not before `due_ns` (CLOCK_MONOTONIC): a book, or the trades of one sweep."""

    due_ns: int
    instrument: Instrument
    stream: Stream
    content: Book | list[Trade]

    def ids(self) -> list[tuple[int, int]]:
        """(first, last) id of each record in it."""
        if isinstance(self.content, Book):
            return [(self.content.id, self.content.id)]
        return [(trade.id, trade.id) for trade in self.content]


class Frame(NamedTuple):
    """One text frame of data and the records it carries: (stream, first id, last id)."""

    payload: bytes
    records: list[tuple[Stream, int, int]]
    spoiled: bool = False


class Line(Protocol):
    """What a connection needs of the feed that it belongs to (feed.py)."""

    number: LineNumber
    truth: Truth
    random: Random
    faults: LineFaults
    connections: dict[int, Connection]

    @property
    def flush_s(self) -> float:
        """Pause between two flushes of a connection; 0: none."""

    @property
    def books_per_s(self) -> float:
        """The most books of one instrument that are sent in a second; 0: all."""

    def frames(self, due: list[Item]) -> list[Frame]:
        """What is due as the vendor's frames."""


class Connection:
    """A client of a line, from the handshake until the socket is gone."""

    def __init__(self, line: Line, number: int, ws: web.WebSocketResponse, transport: asyncio.Transport) -> None:
        self.line = line
        self.number = number
        self.registered: set[tuple[Instrument, Stream]] = set()
        self.app_key = ""
        self.opened_ns = time.monotonic_ns()
        self.silent_until_ns = 0
        self.last_sent_ns = self.opened_ns
        self.how = ""
        self._ws = ws
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._queue: deque[Item] = deque()
        self._control: deque[bytes] = deque()
        self._held: dict[Instrument, Item] = {}
        self._free_ns: dict[Instrument, int] = {}
        self._wake = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self._data_ns = 0
        self._flush_ns = int(line.flush_s * SECOND_NS)

    def silent(self) -> bool:
        """True while this connection is half-open."""
        return time.monotonic_ns() < self.silent_until_ns

    def say(self, text: str, late_s: float = 0.0) -> None:
        """Queue a control message; it does not wait for data."""
        if late_s:
            asyncio.get_running_loop().call_later(late_s, self.say, text)
            return
        self._control.append(text.encode())
        self._wake.set()

    def enqueue(self, item: Item) -> None:
        """Queue data; its time is put off where the item ahead of it is later."""
        if self.how:
            self._outcome(item, Outcome.LOST)
            return
        if self._queue and self._queue[-1].due_ns > item.due_ns:
            item = item._replace(due_ns=self._queue[-1].due_ns)
        self._queue.append(item)
        if self._alarm is None:
            self._set_alarm(item.due_ns)
        if len(self._queue) > MOST_WAITING:
            self.cut("client stopped reading")

    def cut(self, how: str) -> None:
        """End the TCP connection without a close frame; what waits is lost."""
        self.how = self.how or how
        self._transport.abort()
        self._wake.set()

    def hang_up(self, how: str) -> None:
        """End the TCP connection without a close frame once what was said has left."""
        self.how = self.how or how
        self._wake.set()

    async def close(self, how: str, code: int, reason: bytes) -> None:
        """End with a close frame after what was said."""
        self.how = self.how or how
        await self._say_all()
        await self._ws.close(code=code, message=reason)

    async def write(self) -> None:
        """The writer: runs until the connection ends, then settles what is left."""
        try:
            while not self.how:
                await self._wake.wait()
                self._wake.clear()
                await self._say_all()
                if self._queue or self._held:
                    now_ns = time.monotonic_ns() + EARLY_NS
                    if now_ns >= self._data_ns:
                        await self._send_due(now_ns)
                    self._rearm()
            await self._say_all()
            self._transport.close()
        except ConnectionError:
            self.how = self.how or "client vanished"

    def open(self) -> bool:
        """True while TCP is up."""
        return not self._transport.is_closing()

    async def finish(self, how: str, tasks: list[asyncio.Task[None]]) -> None:
        """Reading has ended: stop `tasks`, the writer first, and settle."""
        self.how = self.how or how
        self._wake.set()
        writer, *others = tasks
        for task in others:
            task.cancel()
        await asyncio.wait([writer], timeout=CLOSE_S)
        self._transport.abort()  # a writer still waiting for the client wakes up by this, with everything accounted for
        await asyncio.gather(*tasks, return_exceptions=True)
        self._settle()

    def _settle(self) -> None:
        """What was not sent is lost; the end is written down."""
        if self._alarm is not None:
            self._alarm.cancel()
        for item in (*self._held.values(), *self._queue):
            self._outcome(item, Outcome.LOST)
        self._held.clear()
        self._queue.clear()
        self.line.connections.pop(self.number, None)
        self.line.truth.connection(
            self.line.number, self.number, self.app_key, self.opened_ns, time.monotonic_ns(), self.how
        )

    async def send(self, payload: bytes) -> None:
        """Put one text frame on the socket now (replayed frames and the writer)."""
        self.last_sent_ns = time.monotonic_ns()
        await self._ws.send_frame(payload, WSMsgType.TEXT)

    async def _say_all(self) -> None:
        while self._control:
            payload = self._control.popleft()
            if not self.silent():
                await self.send(payload)

    async def _send_due(self, now_ns: int) -> None:
        due: list[Item] = []
        gap_ns = int(SECOND_NS / self.line.books_per_s) if self.line.books_per_s else 0
        while self._queue and self._queue[0].due_ns <= now_ns:
            item = self._queue.popleft()
            if gap_ns and item.stream is Stream.BOOK:
                older = self._held.pop(item.instrument, None)
                if older is not None:
                    self._outcome(older, Outcome.CONFLATED)
                self._held[item.instrument] = item
            else:
                due.append(item)
        for instrument in [name for name in self._held if not gap_ns or self._free_ns.get(name, 0) <= now_ns]:
            due.append(self._held.pop(instrument))
            self._free_ns[instrument] = max(self._free_ns.get(instrument, 0) + gap_ns, now_ns)
        due.sort(key=lambda item: item.due_ns)  # what was held came before what was not
        if due:
            for frame in self.line.frames(due):
                await self._deliver(frame)

    async def _deliver(self, frame: Frame) -> None:
        faults = self.line.faults
        now_ns = time.monotonic_ns()
        if self.how or now_ns < self.silent_until_ns or now_ns < faults.quiet_until_ns:
            self._record(frame, Outcome.LOST)
            return
        spoiled = faults.spoil(frame.payload, self.line.random)
        payload = frame.payload if spoiled is None else spoiled
        try:
            await self.send(payload)
        except ConnectionError:
            self.how = self.how or "client vanished"
            self._record(frame, Outcome.LOST)
            return
        self._record(frame, Outcome.SENT if spoiled is None and not frame.spoiled else Outcome.SPOILED)
        if faults.duplicate and spoiled is None:
            faults.duplicate -= 1
            await self.send(payload)
            self._record(frame, Outcome.REPEATED)

    def _record(self, frame: Frame, outcome: Outcome) -> None:
        for stream, first, last in frame.records:
            self.line.truth.sent(self.line.number, stream, outcome, self.number, first, last, self.last_sent_ns)

    def _outcome(self, item: Item, outcome: Outcome) -> None:
        now_ns = time.monotonic_ns()
        for first, last in item.ids():
            self.line.truth.sent(self.line.number, item.stream, outcome, self.number, first, last, now_ns)

    def _rearm(self) -> None:
        times = [self._queue[0].due_ns] if self._queue else []
        times += [self._free_ns.get(instrument, 0) for instrument in self._held]
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if times:
            self._set_alarm(min(times))

    def _set_alarm(self, at_ns: int) -> None:
        """Wake the writer at `at_ns`, or at the flush after it; flushes keep a rhythm counted from the handshake."""
        now_ns = time.monotonic_ns()
        at_ns = max(at_ns, now_ns)
        if self._flush_ns:
            at_ns += -(at_ns - self.opened_ns) % self._flush_ns
        self._data_ns = at_ns
        loop = asyncio.get_running_loop()
        self._alarm = loop.call_at(loop.time() + (at_ns - now_ns) / SECOND_NS, self._wake.set)
