"""One vendor's form of the live stream: records of any feed as its frames, for the clients that registered them.

    records ──encode once──> frame ──> queue of each client ──> socket

Guarantees:
    * A record is encoded once, in order, and only if a client has registered it.
    * A client that does not read holds at most MAX_QUEUED frames and is then cut; no other client waits for it.
    * Every client's end is logged, with its reason and how many frames it did not get.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

import numpy as np
from aiohttp import web
from loguru import logger

from brokers.simulator.faults import FeedFaults
from brokers.simulator.gateway.client import STOPPED_READING, ClientConnection, EncodedFrame, QueuedItem
from brokers.simulator.ground_truth import DeliveryOutcome, Stream
from conf.instrument import Instrument
from ringbuf.records import Venue

STREAM_OF = {"orderbook": Stream.BOOK, "tick": Stream.TICK}


@dataclass
class RelayFeed:
    """The source of one vendor's server. `encode`: a stream's record, by the names of its fields, as a frame."""

    name: str
    encode: Callable[[str, Mapping[str, Any], Instrument], bytes]
    add: Callable[[str], None]
    """Counts: `relayed`, `clients_cut`."""
    flush_s: float = 0.0
    max_books_per_s: float = 0.0
    refusal: str = ""
    """Why nobody is let in; "" while everybody is."""
    random: Random = field(default_factory=Random)
    faults: FeedFaults = field(default_factory=FeedFaults)
    connections: dict[int, ClientConnection] = field(default_factory=dict)
    vendor_faults: dict[str, Callable[[float], None]] = field(default_factory=dict)
    not_sent: int = 0
    """Frames that waited for clients when they ended."""

    def __post_init__(self) -> None:
        self._connection_numbers = count(1)
        self._lost: Counter[int] = Counter()

    def add_client(self, ws: web.WebSocketResponse, transport: asyncio.Transport) -> ClientConnection:
        """A client has come."""
        connection = ClientConnection(self, next(self._connection_numbers), ws, transport)
        self.connections[connection.number] = connection
        logger.info("{}: client {} of {}", self.name, connection.number, transport.get_extra_info("peername"))
        return connection

    def is_refusing(self) -> bool:
        """True while nobody is let in."""
        return bool(self.refusal)

    def cut_all(self, reason: str) -> None:
        """End every connection."""
        for connection in list(self.connections.values()):
            connection.abort(reason)

    def publish(self, stream: str, records: np.ndarray) -> None:
        """Queue `records` (ORDERBOOK or TICK) for the clients that registered them."""
        kind = STREAM_OF[stream]
        wanted = {
            (instrument.symbol.encode(), int(Venue[instrument.venue])): instrument
            for connection in self.connections.values()
            for instrument, registered in connection.subscriptions
            if registered is kind
        }
        if not wanted:
            return
        now_ns, names = time.monotonic_ns(), records.dtype.names or ()
        for row in records.tolist():
            record = dict(zip(names, row, strict=True))
            instrument = wanted.get((record["symbol"], record["venue"]))
            if instrument is None:
                continue
            seq = record["seq"]
            frame = self.encode(stream, record, instrument)
            item = QueuedItem(now_ns, instrument, kind, frame, [(seq, seq)])
            for connection in list(self.connections.values()):
                if (instrument, kind) in connection.subscriptions:
                    connection.enqueue(item)

    def encode_frames(self, due: list[QueuedItem]) -> list[EncodedFrame]:
        """The frames of what is due: encoded already."""
        return [
            EncodedFrame(item.content, [(item.stream, first, last) for first, last in item.record_ids]) for item in due
        ]

    def record_delivery(
        self, connection: ClientConnection, stream: Stream, outcome: DeliveryOutcome, first: int, last: int, at_ns: int
    ) -> None:
        """Count it."""
        if outcome is DeliveryOutcome.SENT:
            self.add("relayed")
        else:
            self._lost[connection.number] += 1

    def record_connection(self, connection: ClientConnection) -> None:
        """Log the end."""
        lost, reason = self._lost.pop(connection.number, 0), connection.disconnect_reason
        self.not_sent += lost
        if reason == STOPPED_READING:
            self.add("clients_cut")
            logger.warning("{}: client {} cut: {}, {} frames behind", self.name, connection.number, reason, lost)
        else:
            logger.info("{}: client {} ended: {}, {} frames not sent", self.name, connection.number, reason, lost)
