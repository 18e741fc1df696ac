"""A published message: its topic, and a JSON object with its number in that topic (pure).

    Book   orderbook.005930        Gap            gap.005930       Phase  phase.005930, phase
    Tick   tick.005930_NX          FeedDown, Up   feed.kis.0       Lost   lost             Heads  heads

Guarantees:
    * Instruments are named as in the settings.
    * `decode(encode(...))` is the message, with the same types.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import msgspec

from collectorctl.reader.messages import Book, FeedDown, FeedUp, Gap, Lost, Message, Phase, Tick
from conf.instrument import Instrument

HEADS = b"heads"


class Heads(NamedTuple):
    """The number of the newest message of every topic that has one. It has no number of its own."""

    topics: dict[str, int]


class Envelope(msgspec.Struct, frozen=True):
    """What surrounds a message. Times in ns of the home's clock.

    `epoch`: when the publisher began to read the rings, by which another life of it is recognised; `topic_seq`: 1, 2, 3, ... in
    the topic; `at_ns`: the beginning of the look at the rings that found it; `is_snapshot`: the last value of the topic, sent
    again because somebody subscribed.
    """

    epoch: int
    topic_seq: int
    at_ns: int
    type: str
    message: msgspec.Raw
    is_snapshot: bool = False


_TYPES: dict[str, Any] = {
    "book": Book,
    "tick": Tick,
    "gap": Gap,
    "lost": Lost,
    "feed_down": FeedDown,
    "feed_up": FeedUp,
    "phase": Phase,
    "heads": Heads,
}
_NAMES = {kind: name for name, kind in _TYPES.items()}
_encode = msgspec.json.Encoder().encode
_decode_envelope = msgspec.json.Decoder(Envelope).decode


@cache
def _name(symbol: str, venue: str) -> str:
    return str(Instrument(symbol, venue))


def topic_of(message: Message) -> bytes:
    """The topic of a message."""
    match message:
        case Book():
            topic = f"orderbook.{_name(message.symbol, message.venue)}"
        case Tick():
            topic = f"tick.{_name(message.symbol, message.venue)}"
        case Gap():
            topic = f"gap.{_name(message.symbol, message.venue)}"
        case Phase():
            has_instrument = message.symbol and message.venue
            topic = f"phase.{_name(message.symbol, message.venue)}" if has_instrument else "phase"
        case FeedDown() | FeedUp():
            topic = f"feed.{message.feed}.{message.connection}"
        case Lost():
            topic = "lost"
    return topic.encode()


def wrap(message: Message | Heads, epoch: int, topic_seq: int, at_ns: int) -> Envelope:
    """A message in its envelope."""
    return Envelope(epoch, topic_seq, at_ns, _NAMES[type(message)], msgspec.Raw(_encode(message._asdict())))


def encode(envelope: Envelope) -> bytes:
    """The JSON object."""
    return _encode(envelope)


def decode(payload: bytes) -> tuple[Envelope, Message | Heads]:
    """The envelope, and the message in it. ValueError (msgspec's too): the form is another one."""
    envelope = _decode_envelope(payload)
    fields: dict[str, Any] = msgspec.json.decode(envelope.message)
    kind = _TYPES.get(envelope.type)
    if kind is None or fields.keys() != set(kind._fields):
        raise ValueError(f"a {envelope.type!r} with the fields {sorted(fields)}")
    for side in ("asks", "bids"):
        if side in fields:
            fields[side] = tuple((price, size) for price, size in fields[side])
    return envelope, kind(**fields)
