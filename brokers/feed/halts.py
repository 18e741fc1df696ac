"""Trading halts, detected from the vendor's mark on trades (pure).

    trades with the vendor's mark, and without ──detect_changes()──> halted, resumed

Guarantees:
    * A change is reported once; only halted symbols are remembered.

Not handled here:
    * A halt without trades: the stream that carries it costs a slot per symbol (docs/wire/kis.md 4.3).
"""

from __future__ import annotations

import numpy as np

from brokers.decoded import MarketEvent
from conf.instrument import Instrument
from ringbuf.records import EventType, Flag, Venue


class HaltTracker:
    """The symbols of one line that are halted."""

    def __init__(self) -> None:
        self._halted: set[Instrument] = set()

    def detect_changes(self, ticks: np.ndarray) -> list[MarketEvent]:
        """What these trades (TICK, in receive order) change."""
        marked = (ticks["flags"] & Flag.HALTED) != 0
        if not self._halted and not marked.any():
            return []
        found = []
        fields = (ticks["symbol"].tolist(), ticks["venue"].tolist(), ticks["exch_ns"].tolist(), marked.tolist())
        for symbol, venue, exch_ns, halted in zip(*fields, strict=True):
            instrument = Instrument(symbol.decode(), Venue(venue).name)
            if halted == (instrument in self._halted):
                continue
            (self._halted.add if halted else self._halted.remove)(instrument)
            found.append(MarketEvent(EventType.HALT, "by its trades", instrument, int(halted), exch_ns))
        return found
