"""Numbers of each topic, its last value, and the newest messages of all, for whoever missed them (pure).

Guarantees:
    * The messages of a topic have the numbers 1, 2, 3, ... of one epoch.
    * What is kept of a topic is its newest messages without a hole; in all at most `max_bytes`, oldest first out.
"""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import msgspec

from collectorctl.reader.messages import Message
from collectorctl.zmq.envelope import Envelope, Heads, encode, topic_of, wrap

LAST_VALUES = (b"orderbook.", b"feed.")
"""Topics whose last value is sent to whoever subscribes."""

OVERHEAD_BYTES = 100
"""What a kept message costs beside its own bytes."""


@dataclass
class Topic:
    """One topic: how many messages it had, and the newest of them."""

    count: int = 0
    kept: deque[bytes] = field(default_factory=deque)
    last: Envelope | None = None


class Numbered(NamedTuple):
    """A message with its number, encoded."""

    topic: bytes
    payload: bytes
    envelope: Envelope

    @property
    def parts(self) -> tuple[bytes, bytes]:
        """What is sent."""
        return self.topic, self.payload


class History:
    """All topics of one epoch."""

    def __init__(self, epoch: int, max_bytes: int) -> None:
        self.epoch = epoch
        self._max_bytes = max_bytes
        self._bytes = 0
        self._topics: defaultdict[bytes, Topic] = defaultdict(Topic)
        self._order: deque[Topic] = deque()

    def add(self, message: Message, at_ns: int) -> tuple[bytes, bytes]:
        """Number and keep a message; its topic and payload."""
        numbered = self.number(message, at_ns)
        self.keep(numbered)
        return numbered.parts

    def number(self, message: Message, at_ns: int) -> Numbered:
        """A message under the next number of its topic, which heads do not name before it is kept."""
        name = topic_of(message)
        count = self._topics[name].count if name in self._topics else 0
        envelope = wrap(message, self.epoch, count + 1, at_ns)
        return Numbered(name, encode(envelope), envelope)

    def keep(self, numbered: Numbered) -> None:
        """Count a message, and keep it to be sent again."""
        topic = self._topics[numbered.topic]
        topic.count += 1
        if numbered.topic.startswith(LAST_VALUES):
            topic.last = numbered.envelope
        topic.kept.append(numbered.payload)
        self._order.append(topic)
        self._bytes += len(numbered.payload) + OVERHEAD_BYTES
        while self._bytes > self._max_bytes:
            self._bytes -= len(self._order.popleft().kept.popleft()) + OVERHEAD_BYTES

    def make_heads(self, at_ns: int) -> bytes:
        """The payload of a Heads."""
        topics = {name.decode(): topic.count for name, topic in self._topics.items()}
        return encode(wrap(Heads(topics), self.epoch, 0, at_ns))

    def make_snapshots(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        """Topic and payload of the last values whose topic begins with `prefix`, under the numbers that they have."""
        return [
            (name, encode(msgspec.structs.replace(topic.last, is_snapshot=True)))
            for name, topic in self._topics.items()
            if topic.last is not None and name.startswith(prefix)
        ]

    def read(self, name: bytes, first: int, last: int, limit: int) -> tuple[list[bytes], int]:
        """The payloads of the messages `first` to `last` of a topic, as far as they are kept, and how many are no longer.

        `limit`: the most payloads that are returned, the oldest.
        """
        topic = self._topics.get(name, Topic())
        oldest = topic.count - len(topic.kept) + 1
        begin = max(0, first - oldest)
        end = max(begin, min(last + 1 - oldest, begin + limit, len(topic.kept)))
        return list(islice(topic.kept, begin, end)), max(0, min(oldest, last + 1) - max(first, 1))
