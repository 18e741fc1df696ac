"""Subscriber: the messages of `live` from a publisher, with what ZeroMQ dropped on the way fetched, or named.

    SUB ──> numbers of each topic ──> Book Tick Gap Lost FeedDown FeedUp Phase
               └─ a number is missing: REQ to the publisher ──> the messages, or Missed

Guarantees:
    * A message that was dropped is fetched from the publisher, as long as that keeps it, or is in a Missed with its number: at the
      next message of its topic, or at the next heads, within a second of those that follow.
    * The messages of a topic come in their order, each once. What was fetched comes late with regard to other topics.
    * After a restart of the publisher there is a Restarted, and then everything that the new one has sent.
    * While nothing at all comes for SILENT_S, the publisher is down: FeedDown of the feed `publisher`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from os import PathLike
from typing import NamedTuple

import msgspec

from collectorctl.reader.messages import Book, FeedDown, FeedUp, Message, Tick
from collectorctl.zmq.envelope import Envelope, Heads, decode
from collectorctl.zmq.sequence import Missed, Restarted, SequenceTracker
from conf.clock import SECOND_NS
from conf.instrument import parse_instrument
from ringbuf.records import STREAMS

try:
    import zmq
except ImportError as error:
    raise ImportError("pyzmq is not installed: .venv/bin/pip install -e '.[net]' in the clone") from error

ADDRESS = "tcp://127.0.0.1:21100"
RESEND_ADDRESS = "tcp://127.0.0.1:21101"
PUBLISHER = "publisher"
"""The feed of a FeedDown that is the publisher's own."""

HIGH_WATER = 10_000
MAX_MESSAGES_PER_READ = 1000
SILENT_S = 5.0
RESEND_TIMEOUT_S = 2.0
RESEND_PAUSE_S = 10.0
"""How long nothing is asked for after a request without an answer."""

MARGIN_NS = SECOND_NS
"""More than a collector takes from receipt to its ring."""


class Snapshot(NamedTuple):
    """The last book, or state of a feed, from before the subscription: with it a topic begins."""

    message: Message


Received = Message | Snapshot | Missed | Restarted


class Subscriber(AbstractContextManager["Subscriber"]):
    """A stream of a publisher. An iterator that ends only by `close`; not for several threads."""

    def __init__(
        self,
        symbols: Iterable[str] | None = None,
        streams: Iterable[str] = tuple(STREAMS),
        address: str = ADDRESS,
        resend_address: str = RESEND_ADDRESS,
        high_water: int = HIGH_WATER,
    ) -> None:
        """Connect, and again whenever the connection ends. ValueError: an unknown symbol or stream.

        Args:
            symbols: as in the settings ("005930", "005930_NX", "NAS.AAPL"); None for all.
            streams: of "orderbook" and "tick"; gaps come with ticks.
            address: of the stream.
            resend_address: where messages that were missed are asked for.
            high_water: messages that wait in this process; where that is full, ZeroMQ lets them wait with the publisher.
        """
        self._streams = list(streams)
        if unknown := set(self._streams) - set(STREAMS):
            raise ValueError(f"{sorted(unknown)}: no such stream: name some of {list(STREAMS)}")
        wanted = [symbols] if isinstance(symbols, str) else symbols
        self._symbols = None if wanted is None else sorted({str(parse_instrument(symbol)) for symbol in wanted})
        kinds = [*self._streams, *(["gap"] if "tick" in self._streams else []), "phase"]
        self._prefixes = tuple(f"{kind}." for kind in kinds)
        self._names = {"lost", "phase", *(prefix + one for prefix in self._prefixes for one in self._symbols or ())}
        self._tracker = SequenceTracker(self._is_wanted)
        self._address, self._resend_address = address, resend_address
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.rcvhwm = high_water
        self._socket.connect(address)
        # the heads last: behind them is everything that any other subscription brings
        for topic in (*(self._prefixes if self._symbols is None else ()), *sorted(self._names), "feed.", "heads"):
            self._socket.subscribe(topic.encode())
        self._received_s = time.monotonic()
        self._is_silent = False
        self._unanswered_s = -RESEND_PAUSE_S

    @property
    def has_begun(self) -> bool:
        """Whether the numbers of all topics are known: from then on nothing is missed without being named."""
        return self._tracker.has_begun

    def read(self, timeout_s: float = 0.0) -> list[Received]:
        """What came, at most MAX_MESSAGES_PER_READ messages and what was fetched for them; waits `timeout_s` for the first.

        ValueError: a message of another form, from a publisher of another version.
        """
        found: list[Received] = []
        if not self._socket.poll(round(timeout_s * 1000)):
            silence_s = time.monotonic() - self._received_s
            if silence_s >= SILENT_S and not self._is_silent:
                self._is_silent = True
                found.append(FeedDown(PUBLISHER, 0, f"nothing from {self._address} for {silence_s:.0f} s", None))
            return found
        if self._is_silent:
            self._is_silent = False
            found.append(FeedUp(PUBLISHER, 0))
        for _ in range(MAX_MESSAGES_PER_READ):
            try:
                topic, payload = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            found += self._take(topic.decode(), payload)
        self._received_s = time.monotonic()
        return found

    def __iter__(self) -> Iterator[Received]:
        while not self._socket.closed:
            yield from self.read(0.5)

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the iteration and the connection."""
        self._context.destroy(linger=0)

    def read_stored(self, home: str | PathLike[str], loss: Missed | Restarted) -> Iterator[Book | Tick]:
        """What a home on this host has of a loss, read only: files, journal and rings. Errors as of `live`.

        At least the books and ticks that were missed: also those that came at the ends of the span. One that is there twice has the
        same feed and number (`seq`), or as a book of the other feed the same levels. A loss of another topic has none.
        """
        from collectorctl.reader.home import HomeReader

        symbols, streams = self._symbols, self._streams
        if isinstance(loss, Missed):
            stream, _, symbol = loss.topic.partition(".")
            if stream not in STREAMS:
                return
            symbols, streams = [symbol], [stream]
        with HomeReader(home).live(symbols, streams, since=loss.begin_ns - MARGIN_NS) as live:
            while True:
                for message in live.read():
                    if isinstance(message, Book | Tick) and message.recv_ns <= loss.end_ns + MARGIN_NS:
                        yield message
                if not live.is_past:
                    return

    def _is_wanted(self, topic: str) -> bool:
        """Whether a topic was asked for: ZeroMQ brings all whose beginning was."""
        if topic in self._names or topic.startswith("feed."):
            return True
        return self._symbols is None and topic.startswith(self._prefixes)

    def _take(self, topic: str, payload: bytes) -> list[Received]:
        envelope, message = self._decode(payload)
        if isinstance(message, Heads):
            return self._fetch_all(self._tracker.take_heads(envelope.epoch, message.topics, envelope.at_ns))
        if not self._is_wanted(topic):
            return []
        at_ns = envelope.at_ns
        recv_ns = getattr(message, "recv_ns", at_ns)
        arrival = self._tracker.take(topic, envelope.epoch, envelope.topic_seq, recv_ns, at_ns)
        found = self._fetch_all(arrival.losses)
        if arrival.is_new:
            found.append(Snapshot(message) if arrival.is_first and envelope.is_snapshot else message)
        return found

    def _decode(self, payload: bytes) -> tuple[Envelope, Message | Heads]:
        try:
            return decode(payload)
        except ValueError as error:
            raise ValueError(f"{self._address}: {error}: the publisher is of another version than this one") from error

    def _fetch_all(self, losses: Iterable[Missed | Restarted]) -> list[Received]:
        found: list[Received] = []
        for loss in losses:
            found += self._fetch(loss) if isinstance(loss, Missed) else [loss]
        return found

    def _fetch(self, missed: Missed) -> list[Received]:
        """The messages in their order, as far as the publisher has them, and Missed for the others."""
        found: list[Received] = []
        first = missed.first
        while first <= missed.last:
            payloads = self._request(missed, first)
            if not payloads:
                found.append(missed._replace(first=first))
                break
            for payload in payloads:
                envelope, message = self._decode(payload)
                if isinstance(message, Heads):
                    continue
                if envelope.topic_seq > first:
                    found.append(missed._replace(first=first, last=envelope.topic_seq - 1))
                found.append(message)
                first = envelope.topic_seq + 1
        return found

    def _request(self, missed: Missed, first: int) -> list[bytes]:
        """Payloads from `first` on, or from the oldest that is kept; none without an answer."""
        if time.monotonic() - self._unanswered_s < RESEND_PAUSE_S:
            return []
        wanted = {"epoch": missed.epoch, "topic": missed.topic, "first": first, "last": missed.last}
        with self._context.socket(zmq.REQ) as socket:
            socket.linger = 0
            socket.connect(self._resend_address)
            socket.send(msgspec.json.encode(wanted))
            if not socket.poll(round(RESEND_TIMEOUT_S * 1000)):
                self._unanswered_s = time.monotonic()
                return []
            return socket.recv_multipart()[1:]
