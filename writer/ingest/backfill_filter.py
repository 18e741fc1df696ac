"""Filter of backfilled ticks against open gaps and received ticks (pure).

    open gaps (low, high]        (    gap    ]      backfilled rows that lie wholly in one are accepted, each
    fetched                   [x][ a ][ b ][x ]     interval once: nothing is covered twice
    received later                    [ b ]         of a backfilled row stays what no received one covers (publish/overlap.py)

Guarantees:
    * A received tick is never dropped.
    * A backfilled tick that is dropped is covered by others, or lies in no gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from ringbuf.records import UNDEFINED, FeedId

GapLookup = Callable[[np.ndarray], Iterable[tuple[int, int]]]
"""The open gaps, (low, high], of the symbol, venue and day of one tick (TICK, shape (1,))."""


def accept_backfill(ticks: np.ndarray, find_gaps: GapLookup) -> np.ndarray:
    """Which ticks of a batch (TICK, in receive order) are accepted, bool (n,).

    All received ones; and backfilled ones that lie wholly in an open gap which no received tick of the batch and no earlier
    backfilled one covers.
    """
    keep = np.ones(len(ticks), bool)
    fetched = np.flatnonzero(ticks["line"] == FeedId.GAPFILL)
    if not len(fetched):
        return keep
    live = ticks[ticks["line"] != FeedId.GAPFILL]
    covered_by_key: dict[tuple[bytes, int], list[tuple[int, int]]] = {}
    for at in fetched.tolist():
        tick = ticks[at]
        key = (tick["symbol"], int(tick["venue"]))
        if key not in covered_by_key:
            same = live[(live["symbol"] == key[0]) & (live["venue"] == key[1])]
            covered_by_key[key] = [_tick_interval(one) for one in same]
        low, high = _tick_interval(tick)
        free = all(high <= begin or end <= low for begin, end in covered_by_key[key])
        keep[at] = (
            low < high and free and any(begin <= low and high <= end for begin, end in find_gaps(ticks[at : at + 1]))
        )
        if keep[at]:
            covered_by_key[key].append((low, high))
    return keep


def _tick_interval(tick: np.void) -> tuple[int, int]:
    """(low, high] of a tick; empty where it has none."""
    high, size = int(tick["cum_volume"]), int(tick["size"])
    return (high - size, high) if 0 < size <= high else (0, 0)


def forward_fill(cum_volume: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Cumulative volumes, int64 (n,); one that is UNDEFINED is that of the tick before it, but for the `first` of a group."""
    known = (cum_volume != UNDEFINED) | first
    return cum_volume[np.maximum.accumulate(np.where(known, np.arange(len(cum_volume)), 0))]


def find_covered(cum_volume: np.ndarray, size: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Which ticks are wholly covered by those of them that are in `by` (bool), bool (n,)."""
    placed = (size > 0) & (cum_volume >= size)
    low, high = np.where(placed, cum_volume - size, 0), np.where(placed, cum_volume, 0)
    starts, ends = merge_intervals(low[placed & by], high[placed & by])
    if not len(starts):
        return np.zeros(len(size), bool)
    at = np.searchsorted(starts, low, side="right") - 1
    return placed & (at >= 0) & (high <= ends[at])


def merge_intervals(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The union of intervals (low, high] as disjoint ones that do not touch, ascending; int64."""
    if not len(low):
        return low, high
    order = np.argsort(low, kind="stable")
    low, reach = low[order], np.maximum.accumulate(high[order])
    begins = np.concatenate([[True], low[1:] > reach[:-1]])
    return low[begins], reach[np.append(np.flatnonzero(begins)[1:], len(reach)) - 1]
