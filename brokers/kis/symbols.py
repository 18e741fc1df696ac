"""KIS symbol masters: one zipped file of fixed-width rows a market, without a key; docs/symbols.md.

    MASTER_URL/kospi_code.mst.zip     short code 9 | standard code 12 | name <= 40 | 227 bytes of fields, CP949, a row a line
               kosdaq_code.mst.zip                                                   221
               konex_code.mst.zip                                                    184

Guarantees:
    * Fields are counted from the end of a row, in bytes; a row of another width, and one with a field of another form, are refused.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import NamedTuple

from brokers.symbols import SymbolListError, SymbolRow, read_choice, read_date, read_number
from brokers.transport.rest import RestClient
from conf.home import Home
from conf.text.escape import escape_controls

CODE_BYTES, HEAD_BYTES, NAME_BYTES = 9, 21, 40
MAX_ZIP_BYTES, MAX_FILE_BYTES = 8 << 20, 64 << 20
KINDS = {
    "ST": "STOCK",
    "EF": "ETF",
    "FE": "ETF",
    "EN": "ETN",
    "RT": "REIT",
    "MF": "FUND",
    "BC": "FUND",
    "IF": "INFRASTRUCTURE",
    "SC": "SHIP",
    "DR": "DEPOSITARY_RECEIPT",
    "FS": "FOREIGN_STOCK",
    "EW": "ELW",
    "SW": "WARRANT",
    "SR": "RIGHT",
}
FLAG = {"Y": True, "N": False, " ": False}
_SYMBOL = re.compile(r"[0-9A-Z]{6,9}")
_MILLE, _HUNDRED_MILLION = 1000, 100_000_000


class _Layout(NamedTuple):
    """Offsets in the fields behind the name; None: the file has no such field."""

    width: int
    spac: int | None
    kospi200: int | None
    kosdaq150: int | None
    base_price: int
    halted: int
    listed_date: int
    market_cap: int


FILES: dict[str, tuple[str, _Layout]] = {
    "KOSPI": ("kospi_code.mst", _Layout(227, 29, 18, None, 41, 60, 105, 212)),
    "KOSDAQ": ("kosdaq_code.mst", _Layout(221, 24, None, 35, 36, 55, 100, 206)),
    "KONEX": ("konex_code.mst", _Layout(184, None, None, None, 2, 21, 66, 172)),
}


class KisSymbols:
    """The download of all files."""

    def __init__(self, home: Home) -> None:
        self._url = home.settings.kis.master_url.rstrip("/")

    def __call__(self) -> list[SymbolRow]:
        """The rows of all markets. RestError."""
        rows: list[SymbolRow] = []
        with RestClient() as client:
            for market, (name, _) in FILES.items():
                rows += parse_master(client.download(f"{self._url}/{name}.zip", MAX_ZIP_BYTES), market)
        return rows


def parse_master(content: bytes, market: str) -> list[SymbolRow]:
    """The rows of a zipped file. SymbolListError."""
    name, layout = FILES[market]
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive, archive.open(name) as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise SymbolListError(f"{name}.zip: no zip file with {name}: {error}") from None
    if len(text) > MAX_FILE_BYTES:
        raise SymbolListError(f"{name}: more than {MAX_FILE_BYTES} bytes")
    lines = text.removesuffix(b"\n").split(b"\n") if text else []
    rows = [_parse_row(line.removesuffix(b"\r"), market, layout, f"{name} line {n}") for n, line in enumerate(lines, 1)]
    if not rows:
        raise SymbolListError(f"{name}: no rows")
    return rows


def _parse_row(row: bytes, market: str, layout: _Layout, where: str) -> SymbolRow:
    name_bytes = len(row) - HEAD_BYTES - layout.width
    if not 0 < name_bytes <= NAME_BYTES:
        expected = f"{HEAD_BYTES + layout.width + 1} to {HEAD_BYTES + layout.width + NAME_BYTES}"
        raise SymbolListError(f"{where}: {len(row)} bytes: {expected} were expected")
    try:
        symbol = row[:CODE_BYTES].decode("ascii").rstrip()
        name = row[HEAD_BYTES : -layout.width].decode("cp949").strip()
        fields = row[-layout.width :].decode("cp949")
    except UnicodeDecodeError as error:
        raise SymbolListError(f"{where}: no CP949 text at byte {error.start}") from None
    if not _SYMBOL.fullmatch(symbol) or not name:
        raise SymbolListError(f"{where}: code {symbol!r} or name {name!r} is none")
    if len(fields) != layout.width:
        raise SymbolListError(f"{where}: letters of two bytes among the fields")
    return _build_row(symbol, escape_controls(name), market, fields, layout, where)


def _build_row(symbol: str, name: str, market: str, fields: str, layout: _Layout, where: str) -> SymbolRow:
    def flag(at: int, key: str) -> bool | None:
        return read_choice(fields[at], FLAG, f"{where}: {key}")

    def number(at: int, width: int, key: str, factor: int = 1) -> int | None:
        found = read_number(fields[at : at + width], f"{where}: {key}")
        return None if found is None else found * factor

    kind = KINDS.get(fields[:2])
    if not re.fullmatch("[A-Z]{2}", fields[:2]):
        raise SymbolListError(f"{where}: group {fields[:2]!r} is no two letters")
    if layout.spac is not None and flag(layout.spac, "SPAC") and kind == "STOCK":
        kind = "SPAC"
    sector = None if layout.kospi200 is None else fields[layout.kospi200]
    if sector is not None and not re.fullmatch("[0-9A-Z ]", sector):
        raise SymbolListError(f"{where}: KOSPI200 sector {sector!r} is no letter or digit")
    at = layout.listed_date
    return SymbolRow(
        symbol,
        name,
        market,
        kind,
        base_price=number(layout.base_price, 9, "base price"),
        listed_shares=number(at + 8, 15, "listed shares", _MILLE),
        market_cap=number(layout.market_cap, 9, "market capitalisation", _HUNDRED_MILLION),
        listed_date=read_date(fields[at : at + 8], f"{where}: listed"),
        halted=flag(layout.halted, "halted"),
        liquidation=flag(layout.halted + 1, "liquidation"),
        managed=flag(layout.halted + 2, "managed"),
        kospi200=None if sector is None else sector not in "0 ",
        kosdaq150=None if layout.kosdaq150 is None else flag(layout.kosdaq150, "KOSDAQ150"),
    )


SYMBOLS: Callable[[Home], Callable[[], list[SymbolRow]]] = KisSymbols
"""Looked up by brokers.symbols."""
