"""An instrument: one symbol on one venue.

    "005930"     -> Instrument("005930", KRX)
    "005930_NX"  -> Instrument("005930", NXT)
    "005930_AL"  -> Instrument("005930", UN)      both venues unified
    "Q500001"    -> Instrument("Q500001", KRX)    an ETN

Promises: `parse` accepts exactly the forms above and `str()` gives the form back.
Leaves to others: how each vendor spells it on the wire.
"""

from __future__ import annotations

import re
from typing import NamedTuple

VENUES = {"": "KRX", "_NX": "NXT", "_AL": "UN"}
_FORM = re.compile(r"([0-9][0-9A-Z]{5}|Q[0-9A-Z]{6})(_NX|_AL)?")
_SUFFIX = {venue: suffix for suffix, venue in VENUES.items()}


class Instrument(NamedTuple):
    """`symbol` as the exchange writes it, `venue` one of KRX, NXT, UN."""

    symbol: str
    venue: str

    def __str__(self) -> str:
        return self.symbol + _SUFFIX[self.venue]


def parse(text: str) -> Instrument:
    """The instrument a setting names; ValueError says which forms exist."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is not an instrument: write six characters such as 005930 or 0074K0, Q and six for an ETN, "
            "with _NX or _AL behind it for NXT or the unified book"
        )
    return Instrument(match[1], VENUES[match[2] or ""])
