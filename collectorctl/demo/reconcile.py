"""Reconciliation of the stored ticks of a finished day with the true trades (pure).

    trades of the ground truth ──in no live row──> missing ─┬─ must equal the recovered rows, one for one
    tick rows ─┬─ live: the trades they cover        │
               └─ recovered ─────────────────────────┘

A live row may cover several trades, if its broker merged them. A recovered row is one trade; price, size, cumulative volume and
second must be equal, and side and best quotes wherever its source has them.

Guarantees:
    * Rows are compared by content, never by order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any

import msgspec
import numpy as np
import pandas as pd

DAY_S, KST_OFFSET_S = 86_400, 9 * 3600


class Reconciliation(msgspec.Struct):
    """Stored ticks of one instrument's day, reconciled with its trades.

    `missed`: trades in no live row. `equal`: recovered rows that are one of those, each once. `wrong`: all other recovered rows.
    `missing`: trades in no row at all. `duplicated`: trades in several live rows.
    """

    symbol: str
    venue: str
    date: str
    trades: int
    live: int
    missed: int
    missed_shares: int
    recovered: int
    equal: int
    wrong: int
    missing: int
    duplicated: int

    def problems(self) -> list[str]:
        """Differences from the trades, as messages."""
        name = f"ticks of {self.symbol} {self.venue} on {self.date}"
        problems = []
        if self.wrong:
            problems.append(f"{name}: {self.wrong} recovered rows are no trade that was missed")
        if self.missing:
            problems.append(f"{name}: {self.missing} of {self.trades} trades are in no row")
        if self.duplicated:
            problems.append(f"{name}: {self.duplicated} of {self.trades} trades are in several live rows")
        return problems


def reconcile(trades: np.ndarray, rows: pd.DataFrame) -> list[Reconciliation]:
    """Compare each instrument's days. `trades`: the ground truth's TRADES; `rows`: the tick dataset as pandas reads it."""
    days, row_days = to_kst_days(trades["exch_s"]), rows["exch_time"].dt.strftime("%Y-%m-%d")
    names = sorted(set(zip(trades["symbol"].tolist(), trades["venue"].tolist(), days.tolist(), strict=True)))
    return [
        _reconcile_instrument(
            (symbol.decode(), venue.decode(), date := str(np.datetime64(day, "D"))),
            trades[(trades["symbol"] == symbol) & (trades["venue"] == venue) & (days == day)],
            rows[(rows["symbol"] == symbol.decode()) & (rows["venue"] == venue.decode()) & (row_days == date)],
        )
        for symbol, venue, day in names
    ]


def to_kst_days(exch_s: np.ndarray) -> np.ndarray:
    """Days since 1970 in Korea of instants (s since 1970 UTC), int64 (n,): cumulative volume begins anew with each."""
    return (exch_s.astype(np.int64) + KST_OFFSET_S) // DAY_S


def _reconcile_instrument(name: tuple[str, str, str], trades: np.ndarray, rows: pd.DataFrame) -> Reconciliation:
    trades = trades[np.argsort(trades["cum_volume"], kind="stable")]
    live, recovered = rows[rows["source"] == "live"], rows[rows["source"] != "live"]
    covered = _count_covering_rows(trades["cum_volume"], live)
    missed = trades[covered == 0]
    missed_by_volume = {int(trade["cum_volume"]): trade for trade in missed}
    matched = Counter[int]()
    for row in recovered.to_dict("records"):
        trade = missed_by_volume.get(row["cum_volume"])
        if trade is not None and _is_equal(row, trade):
            matched[row["cum_volume"]] += 1
    return Reconciliation(
        symbol=name[0],
        venue=name[1],
        date=name[2],
        trades=len(trades),
        live=len(live),
        missed=len(missed),
        missed_shares=int(missed["size"].sum()),
        recovered=len(recovered),
        equal=len(matched),
        wrong=len(recovered) - len(matched),
        missing=len(missed) - len(matched),
        duplicated=int((covered > 1).sum()),
    )


def _count_covering_rows(ends: np.ndarray, live: pd.DataFrame) -> np.ndarray:
    """In how many live rows each trade is, int64; `ends`: the trades' cumulative volumes, ascending."""
    placed = live.dropna(subset=["cum_volume", "size"])
    high = placed["cum_volume"].to_numpy(np.int64)
    low = high - placed["size"].to_numpy(np.int64)
    steps = np.zeros(len(ends) + 1, np.int64)
    np.add.at(steps, np.searchsorted(ends, low, side="right"), 1)
    np.add.at(steps, np.searchsorted(ends, high, side="right"), -1)
    return np.cumsum(steps[:-1])


def _is_equal(row: Mapping[Hashable, Any], trade: np.void) -> bool:
    """Whether a recovered row equals the trade."""
    exact = (row["price"], row["size"], row["exch_time"].timestamp())
    if exact != (int(trade["price"]), int(trade["size"]), int(trade["exch_s"])):
        return False
    quotes = all(pd.isna(row[name]) or row[name] == int(trade[name]) for name in ("ask_price_1", "bid_price_1"))
    return quotes and row["side"] in (0, int(trade["side"]))
