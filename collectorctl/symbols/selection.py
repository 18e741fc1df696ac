"""Selection of symbols by an expression over the table (pure).

    @market_cap:100     stocks of the largest market capitalisation
    @etf:50  @etn:20    ETFs, ETNs likewise            @etf:top=50 means the same
    @KOSPI200  @KOSDAQ150                              members of an index, all or the largest N

Guarantees:
    * The same table and expression give the same symbols in the same order: by market capitalisation, equal ones by code.
    * A symbol whose capitalisation no vendor says is in no selection of the largest; an index that no vendor says is an error.
"""

from __future__ import annotations

import re

import pyarrow as pa

_EXPRESSION = re.compile(r"@(\w+)(?::(?:top=)?([1-9][0-9]{0,4}))?")
_KINDS = {"market_cap": "STOCK", "etf": "ETF", "etn": "ETN"}
_INDICES = {"kospi200": "kospi200", "kosdaq150": "kosdaq150"}
COLUMNS = ["symbol", "kind", "market_cap", *_INDICES.values()]


class SelectionError(Exception):
    """An expression that cannot be resolved; the message has the reason and what can be written."""


def select_symbols(expression: str, table: pa.Table) -> list[str]:
    """The symbols of a table with COLUMNS. SelectionError."""
    match = _EXPRESSION.fullmatch(expression)
    name = match[1].lower() if match else ""
    if match is None or name not in {**_KINDS, **_INDICES} or (name in _KINDS and not match[2]):
        raise SelectionError(
            f"{expression!r} is no selection: write @market_cap:N, @etf:N, @etn:N, @KOSPI200 or @KOSDAQ150, the last two "
            "with or without :N, the largest N"
        )
    if name in _INDICES and not any(table[_INDICES[name]].to_pylist()):
        raise SelectionError(f"{expression}: the table has no members of {match[1]}: they are in KIS's list alone")
    rows = [
        row
        for row in table.to_pylist()
        if (row["kind"] == _KINDS[name] if name in _KINDS else row[_INDICES[name]])
        and (row["market_cap"] is not None or not match[2])
    ]
    rows.sort(key=lambda row: (-(row["market_cap"] or 0), row["symbol"]))
    return [row["symbol"] for row in rows[: int(match[2]) if match[2] else None]]
