"""Trading halts, detected from the vendor's mark on trades, and changes of the states that a vendor repeats (pure).

    trades with the vendor's mark, and without ──HaltTracker──> halted, resumed
    phase, halt, VI with each message          ──StateChanges─> what is new

Guarantees:
    * A change is reported once.

Not handled here:
    * A halt without trades, unless the stream that carries it is subscribed: it costs a slot per symbol (docs/wire/kis.md 4.6).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from brokers.decoded import MarketEvent
from conf.instrument import Instrument
from ringbuf.records import UNDEFINED, EventType, Flag, Venue


class StateChanges:
    """Changes of the states that a vendor repeats; that trading is neither halted nor interrupted is what is assumed at first."""

    def __init__(self) -> None:
        self._known: dict[tuple[EventType, Instrument | None], tuple[int, str]] = {}

    def filter(self, events: Iterable[MarketEvent]) -> list[MarketEvent]:
        """The events without the states that are known already."""
        found = []
        for event in events:
            if event.is_state:
                # what belongs to a halt is told as it begins; of a phase the message is all there is
                state = event.value, event.message if event.value == UNDEFINED else ""
                key = event.kind, event.instrument
                if self._known.get(key, (0, "")) == state:
                    continue
                self._known[key] = state
            found.append(event)
        return found


class HaltTracker:
    """The symbols of one line that are halted."""

    def __init__(self) -> None:
        self._halted: set[Instrument] = set()

    @property
    def is_any_halted(self) -> bool:
        """Whether a trade without the mark may change something."""
        return bool(self._halted)

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
