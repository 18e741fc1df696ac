"""A registration: one stream of one instrument, the unit in which vendors count and everything below is kept.

Leaves to others: how it is spelled on the wire (sessions), which connection it goes to (plan.py), how it stands (ledger.py).
"""

from __future__ import annotations

from typing import NamedTuple

from conf.instrument import Instrument


class Registration(NamedTuple):
    """One stream of one instrument, as asked for on one connection."""

    instrument: Instrument
    stream: str  # "orderbook" or "tick"

    def __str__(self) -> str:
        return f"{self.instrument} {self.stream}"
