"""Selection of symbols by an expression over the table (pure).

Guarantees:
    * The same table and expression give the same symbols in the same order: by market capitalisation, equal ones by code.
    * A symbol whose capitalisation no vendor says is in no selection of the largest; an index that no vendor says is an error.
"""

from __future__ import annotations

import pyarrow as pa

from conf.universe.listing import INDICES, KINDS, parse_expression

COLUMNS = ["symbol", "kind", "market_cap", *INDICES]


class SelectionError(Exception):
    """An expression that cannot be resolved; the message has the reason and what can be written."""


def select_symbols(expression: str, table: pa.Table) -> list[str]:
    """The symbols of a table with COLUMNS. SelectionError."""
    try:
        name, limit = parse_expression(expression)
    except ValueError as error:
        raise SelectionError(str(error)) from None
    if name in INDICES and not any(table[name].to_pylist()):
        raise SelectionError(f"{expression}: the table has no members of {name.upper()}: they are in KIS's list alone")
    rows = [
        row
        for row in table.to_pylist()
        if (row["kind"] == KINDS[name] if name in KINDS else row[name])
        and (row["market_cap"] is not None or limit is None)
    ]
    rows.sort(key=lambda row: (-(row["market_cap"] or 0), row["symbol"]))
    return [row["symbol"] for row in rows[:limit]]
