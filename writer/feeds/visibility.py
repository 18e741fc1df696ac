"""Which line sees whose books, out of the events as they come (pure).

    acknowledged ─> sees     disconnected (of its connection), stopped, started, resubscribed, refused, released ─> does not

Promises: the same events again, in order, change nothing in the end; only books count.
Leaves to others: asking it of a whole day's rows (collectorctl/explain/sight.py), judging a line (latent.py).
"""

from __future__ import annotations

import numpy as np

from ringbuf.records import STREAM_WORDS, Kind

_BOOKS = STREAM_WORDS.index("orderbook")
_WHOLE_LINE = (Kind.STARTED, Kind.STOPPED)
_OF_ONE = (Kind.RESUBSCRIBED, Kind.REFUSED, Kind.RELEASED)
_FIELDS = ("line", "kind", "connection", "stream", "symbol", "venue", "mono_ns")


class Sight:
    """What each line sees now."""

    def __init__(self) -> None:
        self._since: dict[int, dict[bytes, tuple[int, int]]] = {}

    def events(self, events: np.ndarray) -> None:
        """Follow events (EVENT, in order)."""
        for line, kind, connection, stream, symbol, venue, mono_ns in zip(
            *(events[name].tolist() for name in _FIELDS), strict=True
        ):
            seen = self._since.setdefault(line, {})
            name = name_of(symbol, venue)
            if kind == Kind.ACKNOWLEDGED and stream == _BOOKS:
                seen[name] = mono_ns, connection
            elif kind in _OF_ONE and stream == _BOOKS:
                seen.pop(name, None)
            elif kind in _WHOLE_LINE:
                seen.clear()
            elif kind == Kind.DISCONNECTED:
                for gone in [name for name, (_, number) in seen.items() if number == connection]:
                    del seen[gone]

    def since(self, line: int, name: bytes) -> int | None:
        """Since when (mono_ns) the line sees this book; None if it does not, or nobody told."""
        found = self._since.get(line, {}).get(name)
        return None if found is None else found[0]

    def newest(self, line: int) -> int:
        """When the line was last given something to see; 0 if it sees nothing."""
        return max((since_ns for since_ns, _ in self._since.get(line, {}).values()), default=0)


def name_of(symbol: bytes, venue: int) -> bytes:
    """Symbol and venue as they lie in a record: 16 bytes."""
    return symbol.ljust(15, b"\0") + bytes([venue])
