"""Which fetched rows are the ticks that a gap lacks.

    live    [ t0 ](       gap        ][ t1 ]     value and count of t1 less those of t0: what the gap is worth, how many trades
    rows     [ r ][ r ][ r ][  r  ][ r ][ r ]    those inside tile it, are worth it, are as many, and lie in its time: proven

Promises: pure; rows are placed by cumulative volume alone; a gap is filled whole or not at all.
Leaves to others: placing (writer/place.py), asking (filler.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from collectorctl.gapfill.queue import Gap
from collectorctl.recover.matching.gap_filling import numbered, spoiled, words
from collectorctl.recover.matching.placement import place_numbered
from collectorctl.recover.matching.trade_count import silent_before
from ringbuf.records import UNDEFINED
from writer.volume.coverage import GAP


class Proof(NamedTuple):
    """The gaps that are filled, each with its PRINTS in volume order; of others that rows lie in, what is wrong with them."""

    filled: dict[Gap, np.ndarray]
    doubts: dict[Gap, str]


def prove(gaps: Sequence[Gap], prints: np.ndarray) -> Proof:
    """Put PRINTS (any order, copies allowed) into the gaps of one instrument and day (ascending)."""
    found = np.zeros(len(gaps), GAP)
    for name in ("low", "high"):
        found[name] = [getattr(gap, name) for gap in gaps]
    found["shares"] = found["high"] - found["low"]
    worth = np.array([UNDEFINED if gap.won is None else gap.won for gap in gaps], np.int64)
    placed = place_numbered(found, numbered(prints), worth)
    out = set(spoiled(found, prints, placed.gap, placed.errors))
    filled, doubts = {}, {}
    for number, gap in enumerate(gaps):
        mine = prints[placed.gap == number]
        mine = mine[np.argsort(mine["cum_volume"], kind="stable")]
        if number in out:
            doubts[gap] = "; ".join(words(error) for error in placed.errors)[:300]
        elif int(mine["size"].sum()) != gap.high - gap.low:
            if len(mine):
                doubts[gap] = f"rows of {mine['size'].sum()} of {gap.high - gap.low} shares"
        elif doubt := _doubt(gap, mine):
            doubts[gap] = doubt
        else:
            filled[gap] = mine
    return Proof(filled, doubts)


def _doubt(gap: Gap, mine: np.ndarray) -> str:
    """What speaks against rows that tile a gap and are worth it; empty if nothing does."""
    at_ns = np.concatenate([[gap.begin_ns], mine["exch_ns"], [gap.end_ns]])
    auctions = int(silent_before(at_ns)[1:-1].sum())  # their prints are not counted as trades
    if gap.trades is not None and not len(mine) - auctions <= gap.trades <= len(mine):
        return f"{len(mine)} rows for {gap.trades} trades"
    if (np.diff(at_ns) < 0).any():
        return "rows are not in the order of time, or not of the time of the gap"
    return "" if (mine["price"] > 0).all() else "a row without a price"
