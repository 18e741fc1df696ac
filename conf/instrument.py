"""Instrument id: one symbol on one venue.

    "005930"     -> Instrument("005930", KRX)
    "005930_NX"  -> Instrument("005930", NXT)
    "005930_AL"  -> Instrument("005930", UN)              both venues consolidated
    "Q500001"    -> Instrument("Q500001", KRX)            an ETN
    "NAS.AAPL"   -> Instrument("AAPL", NASDAQ)            NYS., AMS. likewise
    "BAQ.AAPL"   -> Instrument("AAPL", NASDAQ_DAY)        the day market; BAY., BAA. likewise

Guarantees:
    * `parse_instrument` accepts exactly the forms above, and `str()` gives the form back.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import NamedTuple

from conf.market import Market, market_of

VENUE_BY_SUFFIX = {"": "KRX", "_NX": "NXT", "_AL": "UN"}
VENUE_BY_EXCHANGE = {
    "NAS": "NASDAQ",
    "NYS": "NYSE",
    "AMS": "AMEX",
    "BAQ": "NASDAQ_DAY",
    "BAY": "NYSE_DAY",
    "BAA": "AMEX_DAY",
}
_KR_PATTERN = re.compile(r"([0-9][0-9A-Z]{5}|Q[0-9A-Z]{6})(_NX|_AL)?")
_US_PATTERN = re.compile(rf"({'|'.join(VENUE_BY_EXCHANGE)})\.([A-Z][A-Z0-9./-]{{0,14}})")
_SUFFIX = {venue: suffix for suffix, venue in VENUE_BY_SUFFIX.items()}
_PREFIX = {venue: exchange for exchange, venue in VENUE_BY_EXCHANGE.items()}


class Instrument(NamedTuple):
    """`symbol` as the exchange writes it, `venue` one of those in market.py."""

    symbol: str
    venue: str

    @property
    def market(self) -> Market:
        """The market it is traded on."""
        return market_of(self.venue)

    def __str__(self) -> str:
        return f"{_PREFIX[self.venue]}.{self.symbol}" if self.venue in _PREFIX else self.symbol + _SUFFIX[self.venue]


def parse_instrument(text: str) -> Instrument:
    """The instrument of a setting; ValueError lists the accepted forms."""
    match = _KR_PATTERN.fullmatch(text)
    if match is not None:
        return Instrument(match[1], VENUE_BY_SUFFIX[match[2] or ""])
    match = _US_PATTERN.fullmatch(text)
    if match is not None:
        return Instrument(match[2], VENUE_BY_EXCHANGE[match[1]])
    raise ValueError(
        f"{text!r} is not an instrument: write six characters such as 005930 or 0074K0, Q and six for an ETN, "
        "with _NX or _AL behind it for NXT or the unified book; or exchange and ticker such as NAS.AAPL, with one of "
        f"{', '.join(VENUE_BY_EXCHANGE)}"
    )


def guess_instrument(text: str) -> str:
    """The instrument that a wrong form may mean: lost zeros, lower case, a data service's suffix; "" if nothing suggests itself."""
    bare = re.sub(r"\.(KS|KQ|KRX)$|^A(?=\d{6}$)", "", text.strip().upper())
    for meant in (bare, bare.zfill(6) if bare.isdecimal() else ""):
        with suppress(ValueError):
            return str(parse_instrument(meant))
    return ""
