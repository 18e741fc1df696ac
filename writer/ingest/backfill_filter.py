"""Filter of backfilled ticks against open gaps and received ticks (pure).

    open gaps (low, high]        (    gap    ]      backfilled rows that lie wholly in one are accepted, each
    fetched                   [x][ a ][ b ][x ]     interval once: nothing is covered twice
    received later                    [ b ]         a backfilled row that received ones cover wholly is dropped

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


def prefer_live(group: np.ndarray, live: np.ndarray, cum_volume: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Positions of the ticks that stay, int64, in the order of publication.

    All of shape (n,), int64 but `live` bool: ticks by `group` (ascending: symbol and venue), each group's in order of arrival.
    A group in which a fetched tick stays is put in the order of the volume line.
    """
    keep = np.ones(len(group), bool)
    key = np.zeros(len(group), np.int64)
    for number in np.unique(group[~live]).tolist():
        begin, end = np.searchsorted(group, [number, number + 1])
        mine = slice(begin, end)
        keep[mine] = live[mine] | ~find_covered(cum_volume[mine], size[mine], live[mine])
        if not live[mine][keep[mine]].all():
            first = np.zeros(end - begin, bool)
            first[0] = True
            key[mine] = forward_fill(cum_volume[mine], first)
    order = np.lexsort((np.arange(len(group)), key, group))
    return order[keep[order]]


def forward_fill(cum_volume: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Cumulative volumes, int64 (n,); one that is UNDEFINED is that of the tick before it, but for the `first` of a group."""
    known = (cum_volume != UNDEFINED) | first
    return cum_volume[np.maximum.accumulate(np.where(known, np.arange(len(cum_volume)), 0))]


def find_covered(cum_volume: np.ndarray, size: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Which ticks are wholly covered by those of them that are in `by` (bool), bool (n,)."""
    placed = (size > 0) & (cum_volume >= size)
    low, high = np.where(placed, cum_volume - size, 0), np.where(placed, cum_volume, 0)
    by_low = np.flatnonzero(placed & by)
    by_low = by_low[np.argsort(low[by_low], kind="stable")]
    if not len(by_low):
        return np.zeros(len(size), bool)
    reach = np.maximum.accumulate(high[by_low])
    begins = np.concatenate([[True], low[by_low][1:] > reach[:-1]])
    starts, ends = low[by_low][begins], reach[np.append(np.flatnonzero(begins)[1:], len(reach)) - 1]
    at = np.searchsorted(starts, low, side="right") - 1
    return placed & (at >= 0) & (high <= ends[at])
