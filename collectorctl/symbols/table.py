"""Table of a day's symbols, made of the vendors' lists, and where those differ (pure).

    {vendor: [SymbolRow]} ──build_table──> one row a symbol, sorted; differences

Guarantees:
    * A value is the first vendor's that has one; what no vendor has is null. Nothing is computed but `tick_table`, from the kind.
    * Each value in which two vendors differ is a difference, and its column is named in `differs` of the row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from brokers.symbols import VENDORS, SymbolRow

SCHEMA = pa.schema(
    [
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("market", pa.string(), nullable=False),
        ("kind", pa.string()),
        ("tick_table", pa.string()),
        ("base_price", pa.int64()),
        ("previous_close", pa.int64()),
        ("lower_limit", pa.int64()),
        ("upper_limit", pa.int64()),
        ("nxt_eligible", pa.bool_()),
        ("halted", pa.bool_()),
        ("managed", pa.bool_()),
        ("liquidation", pa.bool_()),
        ("listed_date", pa.date32()),
        ("listed_shares", pa.int64()),
        ("market_cap", pa.int64()),
        ("kospi200", pa.bool_()),
        ("kosdaq150", pa.bool_()),
        *((f"in_{vendor}", pa.bool_()) for vendor in VENDORS),
        pa.field("differs", pa.list_(pa.string()), nullable=False),
    ]
)
"""docs/symbols.md has what each column means."""

_ETP, _EQUITY = {"ETF", "ETN"}, {"STOCK", "SPAC", "REIT", "FOREIGN_STOCK", "DEPOSITARY_RECEIPT"}
_SHARES_UNIT = 1000
"""One vendor counts listed shares in thousands."""


class Difference(NamedTuple):
    """A symbol's value that the vendors have differently; `column` "symbol": one lists it twice, or not as one symbol."""

    symbol: str
    column: str
    values: dict[str, object]


def build_table(lists: Mapping[str, Sequence[SymbolRow]]) -> tuple[pa.Table, list[Difference]]:
    """The table of the lists that came, by vendor; and what differs."""
    differences: list[Difference] = []
    found: dict[str, dict[str, SymbolRow]] = {}
    for vendor in VENDORS:
        for row in lists.get(vendor, ()):
            first = found.setdefault(row.symbol, {}).setdefault(vendor, row)
            if first != row:
                differences.append(Difference(row.symbol, "symbol", {vendor: [first.market, row.market]}))
    rows = []
    for symbol, by_vendor in sorted(found.items()):
        differing = _compare(symbol, by_vendor)
        differences += differing
        rows.append(_merge(by_vendor, lists, [difference.column for difference in differing]))
    return pa.Table.from_pylist(rows, SCHEMA), differences


def _merge(
    by_vendor: Mapping[str, SymbolRow], lists: Mapping[str, Sequence[SymbolRow]], differs: list[str]
) -> dict[str, object]:
    merged: dict[str, object] = {}
    for name in SymbolRow._fields:
        values = (getattr(row, name) for row in by_vendor.values())
        merged[name] = next((value for value in values if value is not None), None)
    kind = merged["kind"]
    merged["tick_table"] = "ETP" if kind in _ETP else "EQUITY" if kind in _EQUITY else None
    merged |= {f"in_{vendor}": vendor in by_vendor for vendor in VENDORS if vendor in lists}
    return merged | {"differs": differs}


def _compare(symbol: str, by_vendor: Mapping[str, SymbolRow]) -> list[Difference]:
    """Where the rows of a symbol differ, in the columns that more than one has."""
    differing = []
    for name in SymbolRow._fields[1:]:
        values = {vendor: getattr(row, name) for vendor, row in by_vendor.items() if getattr(row, name) is not None}
        if name != "market_cap" and len({_normalise(name, value) for value in values.values()}) > 1:
            differing.append(Difference(symbol, name, values))
    return differing


def _normalise(name: str, value: object) -> object:
    """A value as it is compared: names without blanks and case, thousands of shares, a SPAC as the stock it is."""
    if name == "name":
        return "".join(str(value).split()).casefold()
    if name == "listed_shares" and isinstance(value, int):
        return value // _SHARES_UNIT
    return "STOCK" if name == "kind" and value in _EQUITY - {"REIT"} else value
