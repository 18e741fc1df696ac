"""One vendor's feed: latency, loss and conflation between the market and its clients.

    market step -> SimulatedFeed.publish -> each subscribed client: due = now + latency +- jitter, never before the one
                                            ahead of it; lost with the probability of the feed

Guarantees:
    * The order per connection is kept.
    * Every record of a subscribed (instrument, stream) gets exactly one outcome in the ground truth, and one more for each
      repetition.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from random import Random
from typing import NamedTuple

from aiohttp import web

from brokers.simulator.exchange.market import CONSOLIDATED, LEADER
from brokers.simulator.exchange.models import Book, MarketUpdate, Trade
from brokers.simulator.faults import Fault, FeedFaults
from brokers.simulator.gateway.client import ClientConnection, EncodedFrame, QueuedItem
from brokers.simulator.ground_truth import DeliveryOutcome, FeedId, GroundTruthWriter, Stream
from conf.instrument import Instrument
from conf.market import KR

SECOND_NS = 1_000_000_000


BOOK_EXTRA_FIELDS = {"kis": 16, "us": 45}
"""What a book has more of fields than a trade (docs/wire/kis.md 3)."""

_HASH_MULTIPLIER = 2_654_435_761
"""Odd and irregular: multiples of it spread evenly over 32 bits."""
_MAX_UINT32 = (1 << 32) - 1


class FeedOptions(NamedTuple):
    """Behaviour of a feed: seconds, a probability, flushes, books per second and instrument (0: as they come)."""

    latency_s: float
    jitter_s: float
    loss: float
    flush_s: float
    max_books_per_s: float


@dataclass
class SimulatedFeed:
    """One broker's feed of the market. `encode` turns due records of a connection into frames."""

    feed_id: FeedId
    options: FeedOptions
    truth: GroundTruthWriter
    random: Random
    encode: Callable[[list[QueuedItem]], list[EncodedFrame]]
    vendor_faults: dict[str, Callable[[float], None]] = field(default_factory=dict)
    """Faults that the vendor's server carries out: what to do with the amount."""

    def __post_init__(self) -> None:
        self.name = self.feed_id.name.lower()
        self.faults = FeedFaults()
        self.connections: dict[int, ClientConnection] = {}
        self._connection_numbers = count(1)

    def add_client(self, ws: web.WebSocketResponse, transport: asyncio.Transport) -> ClientConnection:
        """A client has come."""
        connection = ClientConnection(self, next(self._connection_numbers), ws, transport)
        self.connections[connection.number] = connection
        return connection

    @property
    def flush_s(self) -> float:
        """Pause between two flushes of a connection; 0: none."""
        return self.options.flush_s

    @property
    def max_books_per_s(self) -> float:
        """The most books of one instrument that are sent in a second; 0: all."""
        return self.options.max_books_per_s if self.faults.conflate is None else self.faults.conflate

    def is_refusing(self) -> bool:
        """True while an outage lasts."""
        return time.monotonic_ns() < self.faults.outage_until_ns

    def publish(self, update: MarketUpdate) -> None:
        """Queue a step of the market for the clients that subscribed it, or lose it."""
        now_ns = time.monotonic_ns()
        if self.faults.unified and update.instrument.market is KR:
            if update.instrument.venue != CONSOLIDATED:
                return
            update = _as_wrong_venue(update)
        for connection in list(self.connections.values()):
            if update.trades and (update.instrument, Stream.TICK) in connection.subscriptions:
                ids = [(trade.id, trade.id) for trade in update.trades]
                self._enqueue(connection, QueuedItem(0, update.instrument, Stream.TICK, update.trades, ids), now_ns)
            if update.book is not None and (update.instrument, Stream.BOOK) in connection.subscriptions:
                ids = [(update.book.id, update.book.id)]
                self._enqueue(connection, QueuedItem(0, update.instrument, Stream.BOOK, update.book, ids), now_ns)

    def encode_frames(self, due: list[QueuedItem]) -> list[EncodedFrame]:
        """What is due as the vendor's frames, with the stamps this feed puts on them."""
        encoded = self.encode([self._apply_skew(item) for item in due] if self.faults.skew else due)
        return [frame._replace(corrupted=True) for frame in encoded] if self.faults.unified else encoded

    def _apply_skew(self, item: QueuedItem) -> QueuedItem:
        """A clock that is ahead by a part of a second stamps that part of all records a second later."""
        if isinstance(item.content, Book):
            return item._replace(content=replace(item.content, at=self._skew_time(item.content)))
        return item._replace(content=[trade._replace(at=self._skew_time(trade)) for trade in item.content])

    def _skew_time(self, one: Book | Trade) -> str:
        """HHMMSS; which records are late in their second depends on their id, so that every run is equal."""
        is_next_second = (one.id * _HASH_MULTIPLIER & _MAX_UINT32) < self.faults.skew * _MAX_UINT32
        at_s = (int(one.at[:2]) * 60 + int(one.at[2:4])) * 60 + int(one.at[4:]) + is_next_second
        return f"{at_s // 3600 % 24:02}{at_s // 60 % 60:02}{at_s % 60:02}"

    def record_delivery(
        self, connection: ClientConnection, stream: Stream, outcome: DeliveryOutcome, first: int, last: int, at_ns: int
    ) -> None:
        """Enter the outcome into the ground truth."""
        self.truth.record_delivery(self.feed_id, stream, outcome, connection.number, first, last, at_ns)

    def record_connection(self, connection: ClientConnection) -> None:
        """Enter the connection into the ground truth."""
        self.truth.record_connection(
            self.feed_id,
            connection.number,
            connection.app_key,
            connection.opened_ns,
            time.monotonic_ns(),
            connection.disconnect_reason,
        )

    def _enqueue(self, connection: ClientConnection, item: QueuedItem, now_ns: int) -> None:
        loss = self.options.loss if self.faults.loss is None else self.faults.loss
        if self.random.random() < loss:
            for first, last in item.record_ids:
                self.record_delivery(connection, item.stream, DeliveryOutcome.LOST, first, last, now_ns)
            return
        delay_s = self.options.latency_s + self.random.uniform(-1, 1) * self.options.jitter_s
        connection.enqueue(item._replace(due_ns=now_ns + int(delay_s * SECOND_NS)))

    def apply_fault(self, fault: Fault) -> None:
        """Make a fault happen from now on."""
        until_ns = time.monotonic_ns() + int(fault.value * SECOND_NS)
        match fault.name:
            case "drop":
                self._abort_all("fault drop")
            case "cut":
                for connection in list(self.connections.values())[int(fault.value) - 1 :][:1]:
                    connection.abort("fault cut")
            case "outage":
                self.faults.outage_until_ns = until_ns
                self._abort_all("fault outage")
            case "block":
                self.faults.blocked_until_ns = until_ns
                self._abort_all("fault block")
            case "silence":
                for connection in self.connections.values():
                    connection.silent_until_ns = until_ns
            case "quiet":
                self.faults.quiet_until_ns = until_ns
            case "lateack":
                self.faults.late_ack_s = fault.value
            case "loss":
                self.faults.loss = fault.value
            case "skew":
                self.faults.skew = fault.value
            case "conflate":
                self.faults.conflate = fault.value
            case "unified":
                self.faults.unified = int(fault.value)
            case "mutelogin":
                self.faults.mute_login = int(fault.value)
            case "width":
                self.faults.widths = (int(fault.value), int(fault.value) + BOOK_EXTRA_FIELDS[self.name])
            case name if name in self.vendor_faults:
                self.vendor_faults[name](fault.value)
            case name:
                self.faults.pending[name] += int(fault.value)

    def _abort_all(self, reason: str) -> None:
        for connection in list(self.connections.values()):
            connection.abort(reason)

    def collect_status(self) -> dict[str, object]:
        """Counters for the control channel."""
        outcomes: dict[str, dict[str, int]] = {stream.name.lower(): {} for stream in Stream}
        for (feed, stream, outcome), number in self.truth.counts.items():
            if feed == self.feed_id:
                outcomes[Stream(stream).name.lower()][DeliveryOutcome(outcome).name.lower()] = number
        subscriptions = sum(len(connection.subscriptions) for connection in self.connections.values())
        return {"connections": len(self.connections), "subscriptions": subscriptions, **outcomes}


def _as_wrong_venue(update: MarketUpdate) -> MarketUpdate:
    """A step of the unified venue as if it were one of KRX."""
    instrument = Instrument(update.instrument.symbol, LEADER)
    book = None if update.book is None else replace(update.book, instrument=instrument)
    return MarketUpdate(instrument, [trade._replace(instrument=instrument) for trade in update.trades], book)
