"""One broker's line: what of the market reaches its clients, how late, and what is lost on the way.

    market step -> Line.publish -> each Connection that registered it: due = now + latency +- jitter, never before the one
                                   ahead of it; lost with the line's probability

Promises: order per connection is kept; every record of a registered (instrument, stream) gets exactly one outcome in the
truth (and one more for each repetition).
Leaves to others: sending (connection.py), the vendor's words (kis.py, kiwoom.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from random import Random
from typing import NamedTuple

from aiohttp import web

from brokers.simulator.exchange.market import LEADER, UNIFIED
from brokers.simulator.exchange.models import Book, Step, Trade
from brokers.simulator.faults import Fault, LineFaults
from brokers.simulator.gateway.client import Connection, Frame, Item
from brokers.simulator.ground_truth import LineNumber, Outcome, Stream, Truth
from conf.instrument import Instrument
from conf.market import KR

SECOND_NS = 1_000_000_000


BOOK_MORE = {"kis": 16, "us": 45}
"""What a book has more of fields than a trade (spec kis 3)."""

_SPREAD = 2_654_435_761
"""Odd and irregular: multiples of it spread evenly over 32 bits."""
_MOST = (1 << 32) - 1


class Options(NamedTuple):
    """How a line behaves: seconds, a probability, flushes, books per second and instrument (0: as they come)."""

    latency_s: float
    jitter_s: float
    loss: float
    flush_s: float
    books_per_s: float


@dataclass
class Line:
    """One broker's side of the market. `pack` turns what is due on a connection into frames."""

    number: LineNumber
    options: Options
    truth: Truth
    random: Random
    pack: Callable[[list[Item]], list[Frame]]
    expire: Callable[[], None]
    """Ends all tokens of this broker."""

    def __post_init__(self) -> None:
        self.name = self.number.name.lower()
        self.faults = LineFaults()
        self.connections: dict[int, Connection] = {}
        self._numbers = count(1)

    def open(self, ws: web.WebSocketResponse, transport: asyncio.Transport) -> Connection:
        """A client has come."""
        connection = Connection(self, next(self._numbers), ws, transport)
        self.connections[connection.number] = connection
        return connection

    @property
    def flush_s(self) -> float:
        """Pause between two flushes of a connection; 0: none."""
        return self.options.flush_s

    @property
    def books_per_s(self) -> float:
        """The most books of one instrument that are sent in a second; 0: all."""
        return self.options.books_per_s if self.faults.conflate is None else self.faults.conflate

    def refuses(self) -> bool:
        """True while an outage lasts."""
        return time.monotonic_ns() < self.faults.outage_until_ns

    def publish(self, step: Step) -> None:
        """Queue a step of the market for the clients that registered it, or lose it."""
        now_ns = time.monotonic_ns()
        if self.faults.unified and step.instrument.market is KR:
            if step.instrument.venue != UNIFIED:
                return
            step = _mislabelled(step)
        for connection in list(self.connections.values()):
            if step.trades and (step.instrument, Stream.TICK) in connection.registered:
                ids = [(trade.id, trade.id) for trade in step.trades]
                self._enqueue(connection, Item(0, step.instrument, Stream.TICK, step.trades), ids, now_ns)
            if step.book is not None and (step.instrument, Stream.BOOK) in connection.registered:
                ids = [(step.book.id, step.book.id)]
                self._enqueue(connection, Item(0, step.instrument, Stream.BOOK, step.book), ids, now_ns)

    def frames(self, due: list[Item]) -> list[Frame]:
        """What is due as the vendor's frames, with the stamps this line puts on them."""
        made = self.pack([self._skewed(item) for item in due] if self.faults.skew else due)
        return [frame._replace(spoiled=True) for frame in made] if self.faults.unified else made

    def _skewed(self, item: Item) -> Item:
        """A clock that is ahead by a part of a second stamps that part of all records a second later."""
        if isinstance(item.content, Book):
            return item._replace(content=replace(item.content, at=self._stamp(item.content)))
        return item._replace(content=[trade._replace(at=self._stamp(trade)) for trade in item.content])

    def _stamp(self, one: Book | Trade) -> str:
        """HHMMSS; which records are late in their second is drawn from their id, so that it is the same on every run."""
        late = (one.id * _SPREAD & _MOST) < self.faults.skew * _MOST
        at_s = (int(one.at[:2]) * 60 + int(one.at[2:4])) * 60 + int(one.at[4:]) + late
        return f"{at_s // 3600 % 24:02}{at_s // 60 % 60:02}{at_s % 60:02}"

    def _enqueue(self, connection: Connection, item: Item, ids: list[tuple[int, int]], now_ns: int) -> None:
        loss = self.options.loss if self.faults.loss is None else self.faults.loss
        if self.random.random() < loss:
            for first, last in ids:
                self.truth.sent(self.number, item.stream, Outcome.LOST, connection.number, first, last, now_ns)
            return
        delay_s = self.options.latency_s + self.random.uniform(-1, 1) * self.options.jitter_s
        connection.enqueue(item._replace(due_ns=now_ns + int(delay_s * SECOND_NS)))

    def apply(self, fault: Fault) -> None:
        """Make a fault happen from now on."""
        until_ns = time.monotonic_ns() + int(fault.amount * SECOND_NS)
        match fault.word:
            case "drop":
                self._cut_all("fault drop")
            case "cut":
                for connection in list(self.connections.values())[int(fault.amount) - 1 :][:1]:
                    connection.cut("fault cut")
            case "outage":
                self.faults.outage_until_ns = until_ns
                self._cut_all("fault outage")
            case "expire":
                self.expire()
            case "silence":
                for connection in self.connections.values():
                    connection.silent_until_ns = until_ns
            case "quiet":
                self.faults.quiet_until_ns = until_ns
            case "lateack":
                self.faults.late_ack_s = fault.amount
            case "loss" | "skew" | "conflate" | "unified" as word:
                setattr(self.faults, word, fault.amount)
            case "width":
                self.faults.widths = (int(fault.amount), int(fault.amount) + BOOK_MORE[self.name])
            case word:
                setattr(self.faults, word, getattr(self.faults, word) + int(fault.amount))

    def _cut_all(self, how: str) -> None:
        for connection in list(self.connections.values()):
            connection.cut(how)

    def status(self) -> dict[str, object]:
        """Counters for whoever steers the simulator."""
        outcomes: dict[str, dict[str, int]] = {stream.name.lower(): {} for stream in Stream}
        for (line, stream, outcome), number in self.truth.counts.items():
            if line == self.number:
                outcomes[Stream(stream).name.lower()][Outcome(outcome).name.lower()] = number
        registered = sum(len(connection.registered) for connection in self.connections.values())
        return {"connections": len(self.connections), "registered": registered, **outcomes}


def _mislabelled(step: Step) -> Step:
    """A step of the unified venue as if it were one of KRX."""
    shown = Instrument(step.instrument.symbol, LEADER)
    book = None if step.book is None else replace(step.book, instrument=shown)
    return Step(shown, [trade._replace(instrument=shown) for trade in step.trades], book)
