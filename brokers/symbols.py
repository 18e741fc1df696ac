"""Symbol masters: the row that each vendor's list of Korean symbols is read into.

    bytes ──parse (brokers/NAME/symbols.py, pure)──> SymbolRow

Guarantees:
    * What a vendor's form does not hold is None.
    * A list of which anything cannot be read is refused as a whole, with the place: a missing symbol would be taken for delisted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime
from importlib import import_module
from typing import NamedTuple

from brokers.errors import RestError
from conf.home import Home

VENDORS = ("kis", "kiwoom")
"""Who has a master of the Korean symbols; the first one's value is stored where both have one."""


class SymbolListError(RestError):
    """A list of symbols that cannot be read: where, and what was expected."""


class SymbolRow(NamedTuple):
    """One symbol as one vendor has it. `symbol`: as the exchange writes it, ETNs with a leading Q; prices in won."""

    symbol: str
    name: str
    market: str  # KOSPI, KOSDAQ, KONEX
    kind: str | None  # STOCK, SPAC, REIT, ETF, ETN ...; None: the vendor's code is not known
    base_price: int | None = None
    previous_close: int | None = None
    listed_shares: int | None = None
    market_cap: int | None = None
    listed_date: date | None = None
    halted: bool | None = None
    managed: bool | None = None
    liquidation: bool | None = None
    nxt_eligible: bool | None = None
    kospi200: bool | None = None
    kosdaq150: bool | None = None


def open_symbols(home: Home, vendor: str) -> Callable[[], list[SymbolRow]]:
    """What fetches a vendor's whole list. SettingsError if a key is needed and missing; the call raises RestError."""
    return import_module(f"brokers.{vendor}.symbols").SYMBOLS(home)


def read_number(text: str, where: str) -> int | None:
    """Digits; None for zero, which stands for nothing. SymbolListError."""
    if not (text.isascii() and text.isdigit()):
        raise SymbolListError(f"{where}: {text[:30]!r} is no number")
    return int(text) or None


def read_date(text: str, where: str) -> date | None:
    """YYYYMMDD; None for zeros or blanks. SymbolListError."""
    if not text.strip("0 "):
        return None
    try:
        if len(text) != 8 or not (text.isascii() and text.isdigit()):
            raise ValueError
        return datetime.strptime(text, "%Y%m%d").date()
    except ValueError:
        raise SymbolListError(f"{where}: {text[:30]!r} is no date: YYYYMMDD was expected") from None


def read_choice(text: str, choices: Mapping[str, bool | None], where: str) -> bool | None:
    """The meaning of a flag. SymbolListError for another one."""
    if text not in choices:
        raise SymbolListError(f"{where}: {text[:30]!r} is none of {', '.join(map(repr, choices))}")
    return choices[text]
