"""Names beside codes: from the newest table of symbols, without opening it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import date

import msgspec

from conf.files.replacement import read_replaced, replace_file
from conf.home import Home

_CODE = r"(?<![\w.])([0-9][0-9A-Z]{5}|Q[0-9A-Z]{6})"
_CODE_AND_VENUE = re.compile(rf"{_CODE}(?= (?:KRX|NXT|UN)\b)")
_LISTED_CODE = re.compile(rf"(?<=[( ]){_CODE}(?:_NX|_AL)?(?=[,)])")


class SymbolNames(msgspec.Struct, frozen=True):
    """The names of the symbols of a day's table."""

    day: date
    names: dict[str, str]


def write_names(home: Home, day: date, names: dict[str, str]) -> None:
    """Replace the names. OSError."""
    home.run.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace_file(home.symbol_names_path(), msgspec.json.encode(SymbolNames(day, names)))


def read_names(home: Home) -> Mapping[str, str]:
    """The name of each symbol; empty without a table."""
    with suppress(OSError):
        if found := read_replaced(home.symbol_names_path(), SymbolNames):
            return found.names
    return {}


def insert_names(text: str, names: Mapping[str, str], listed: bool = False) -> str:
    """The text with the name behind each code that a venue follows: "005930 KRX" becomes "005930 NAME KRX".

    `listed`: the codes stand in lists, "(005930, 000660_NX)". A bare number of six digits is no code.
    """

    def insert(match: re.Match[str]) -> str:
        return f"{match[0]} {names[match[1]]}" if match[1] in names else match[0]

    return (_LISTED_CODE if listed else _CODE_AND_VENUE).sub(insert, text) if names else text
