"""Feed visibility: which feed is subscribed to which book, from the events (pure).

    acknowledged ─> visible     disconnected (of its connection), stopped, started, resubscribed, refused, released ─> not visible

Guarantees:
    * Repeating events in order does not change the result; only books count.
"""

from __future__ import annotations

import numpy as np

from ringbuf.records import STREAM_NAMES, EventType

_BOOKS = STREAM_NAMES.index("orderbook")
_FEED_WIDE = (EventType.STARTED, EventType.STOPPED)
_SUBSCRIPTION_ENDS = (EventType.RESUBSCRIBED, EventType.REFUSED, EventType.RELEASED)
_FIELDS = ("line", "kind", "connection", "stream", "symbol", "venue", "mono_ns")


class FeedVisibility:
    """What each feed sees now."""

    def __init__(self) -> None:
        self._visible_since: dict[int, dict[bytes, tuple[int, int]]] = {}

    def add_events(self, events: np.ndarray) -> None:
        """Follow events (EVENT, in order)."""
        for feed, kind, connection, stream, symbol, venue, mono_ns in zip(
            *(events[name].tolist() for name in _FIELDS), strict=True
        ):
            visible = self._visible_since.setdefault(feed, {})
            name = instrument_key(symbol, venue)
            if kind == EventType.ACKNOWLEDGED and stream == _BOOKS:
                visible[name] = mono_ns, connection
            elif kind in _SUBSCRIPTION_ENDS and stream == _BOOKS:
                visible.pop(name, None)
            elif kind in _FEED_WIDE:
                visible.clear()
            elif kind == EventType.DISCONNECTED:
                for disconnected in [name for name, (_, number) in visible.items() if number == connection]:
                    del visible[disconnected]

    def visible_since_ns(self, feed: int, name: bytes) -> int | None:
        """Since when (mono_ns) the feed is subscribed to this book; None if it is not, or if unknown."""
        found = self._visible_since.get(feed, {}).get(name)
        return None if found is None else found[0]

    def newest_subscription_ns(self, feed: int) -> int:
        """When the feed was last given something to see; 0 if it sees nothing."""
        return max((since_ns for since_ns, _ in self._visible_since.get(feed, {}).values()), default=0)


def instrument_key(symbol: bytes, venue: int) -> bytes:
    """Symbol and venue as they lie in a record: 16 bytes."""
    return symbol.ljust(15, b"\0") + bytes([venue])
