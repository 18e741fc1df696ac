"""Verification that fetched trades fill a gap exactly (pure).

    live    [ t0 ](       gap        ][ t1 ]     value and count of t1 less those of t0: value and number of trades of the gap
    rows     [ r ][ r ][ r ][  r  ][ r ][ r ]    accepted if they tile the gap with its value, number of trades and time
    rows     [ r ][ r ]     [  r  ][ r ][ r ]    of a list that the vendor left rows out of: accepted if the rest can be worth
                     residual                    what is left, and can be the trades that are left

Guarantees:
    * Rows are placed by cumulative volume alone; a gap is filled whole, or its residual is no larger than what the list leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from collectorctl.gapfill.queue import FillableGap
from collectorctl.recover.matching.gap_filling import find_inconsistent_gaps, format_inconsistency
from collectorctl.recover.matching.placement import place_by_volume
from collectorctl.recover.matching.trade_count import can_be_auction
from ringbuf.records import UNDEFINED
from writer.volume.coverage import GAP

MAX_PRICE_RATIO = 2
"""Prices of one day differ by less: limits are 30 % up and down."""


class VerifiedFills(NamedTuple):
    """The gaps that are filled, each with its TRADE_ROW in volume order; of others that rows lie in, what is wrong with them.

    `partial_fills`: rows of `mismatches` that are right if the list holds all that the vendor has of their gap.
    """

    fills: dict[FillableGap, np.ndarray]
    mismatches: dict[FillableGap, str]
    partial_fills: dict[FillableGap, np.ndarray]


def verify(gaps: Sequence[FillableGap], trades: np.ndarray) -> VerifiedFills:
    """Put TRADE_ROW (any order, copies allowed) into the gaps of one instrument and day (ascending)."""
    gap_rows = np.zeros(len(gaps), GAP)
    for name in ("low", "high"):
        gap_rows[name] = [getattr(gap, name) for gap in gaps]
    gap_rows["shares"] = gap_rows["high"] - gap_rows["low"]
    values = np.array([UNDEFINED if gap.value is None else gap.value for gap in gaps], np.int64)
    placed = place_by_volume(gap_rows, trades, values)
    inconsistent = set(find_inconsistent_gaps(gap_rows, trades, placed.gap, placed.inconsistencies))
    fills, mismatches, partial_fills = {}, {}, {}
    for number, gap in enumerate(gaps):
        rows = trades[placed.gap == number]
        rows = rows[np.argsort(rows["cum_volume"], kind="stable")]
        if number in inconsistent:
            mismatches[gap] = "; ".join(format_inconsistency(error) for error in placed.inconsistencies)[:300]
        elif int(rows["size"].sum()) != gap.high - gap.low:
            if len(rows):
                mismatches[gap] = f"rows of {rows['size'].sum()} of {gap.high - gap.low} shares"
                if _is_plausible_part(gap, rows):
                    partial_fills[gap] = rows
        elif mismatch := _find_mismatch(gap, rows):
            mismatches[gap] = mismatch
        else:
            fills[gap] = rows
    return VerifiedFills(fills, mismatches, partial_fills)


def _is_plausible_part(gap: FillableGap, rows: np.ndarray) -> bool:
    """Whether what rows leave of a gap can be trades of its value and number, and nothing else speaks against the rows."""
    at_ns = np.concatenate([[gap.begin_ns], rows["exch_ns"], [gap.end_ns]])
    if (np.diff(at_ns) < 0).any() or not (rows["price"] > 0).all():
        return False
    shares = gap.high - gap.low - int(rows["size"].sum())
    if gap.trades is not None and not gap.trades - len(rows) + _count_auctions(gap, rows, at_ns) >= 1:
        return False
    if gap.value is None:
        return True
    value = gap.value - int((rows["size"] * rows["price"]).sum())
    return (
        shares * int(rows["price"].min()) <= value * MAX_PRICE_RATIO
        and value <= shares * int(rows["price"].max()) * MAX_PRICE_RATIO
    )


def _count_auctions(gap: FillableGap, rows: np.ndarray, at_ns: np.ndarray) -> int:
    """How many rows may be an auction's, whose trades are not counted; `at_ns`: their times between those of the gap's edges."""
    return int((can_be_auction(at_ns, gap.instrument.venue)[1:-1] & (rows["side"] == 0)).sum())


def _find_mismatch(gap: FillableGap, rows: np.ndarray) -> str:
    """What speaks against rows that tile a gap and are worth it; empty if nothing does."""
    at_ns = np.concatenate([[gap.begin_ns], rows["exch_ns"], [gap.end_ns]])
    if gap.trades is not None and not 0 <= len(rows) - gap.trades <= _count_auctions(gap, rows, at_ns):
        return f"{len(rows)} rows for {gap.trades} trades"
    if (np.diff(at_ns) < 0).any():
        return "rows are not in the order of time, or not of the time of the gap"
    return "" if (rows["price"] > 0).all() else "a row without a price"
