"""Coverage of cumulative volume by ticks: gaps and overlaps of a day (pure).

    (0 ─────────────────────────────────────────────── total]        a tick of size q with cumulative volume v covers (v - q, v]
     [ t0 ][ t1 ]      [ t2 ][     t3     ]      [ t4 ]
                  gap         [ t5 ][ t6  ]   gap                    t3 is a merged trade, t5 and t6 its parts: t3 is dropped

Cumulative volume serves as the sequence number that brokers do not provide.

Guarantees:
    * Input order does not matter but for exact copies, of which the first is kept.
    * The kept ticks cover all shares that any tick covers.
    * Total and kept shares differ by exactly the gaps, but for overlaps that are CROSSED and shares beyond the total.
"""

from __future__ import annotations

from bisect import bisect_left
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from ringbuf.records import UNDEFINED

GAP = np.dtype([("low", "<i8"), ("high", "<i8"), ("shares", "<i8"), ("after", "<i8"), ("before", "<i8")])
"""(low, high] is covered by no tick. `after`: index of the tick that ends at low, -1 at the day's beginning; `before`: index of
the tick that begins at high (beyond it at the day's end), n for none."""

OVERLAP = np.dtype([("low", "<i8"), ("high", "<i8"), ("first", "<i8"), ("second", "<i8"), ("why", "i1")])
"""(low, high] is covered by tick `first`, which is kept, and by tick `second`, which is kept only if they are CROSSED."""


class OverlapKind(IntEnum):
    """Why an interval is covered twice."""

    SAME = 0  # an equal interval: the first given stays
    PARTS = 1  # `second` is a merged trade whose parts are all here, `first` is the first of them: the parts stay
    INSIDE = 2  # `second` is a part of `first`, but not all parts are here: the merged trade stays
    CROSSED = 3  # they overlap, neither holds the other: one of them is wrong, both stay


class Coverage(NamedTuple):
    """What n ticks cover of (0, total].

    `gaps` GAP; `overlaps` OVERLAP; `keep` bool (n,): to be counted; `unplaced` bool (n,): no interval (size or cumulative
    volume undefined, or the size larger than the volume); `order` int64: indexes of the kept ticks in volume order; `total` shares,
    `official` whether it was given, `excess_shares`: shares covered above it.
    """

    gaps: np.ndarray
    overlaps: np.ndarray
    keep: np.ndarray
    unplaced: np.ndarray
    order: np.ndarray
    total: int
    official: bool
    excess_shares: int


def compute_coverage(cum_volume: np.ndarray, size: np.ndarray, total: int | None) -> Coverage:
    """Coverage of the ticks of one symbol, venue and day (both int64, shape (n,), any order).

    `total`: the official volume of the same venue; None: as far as the ticks reach. Of ticks that cover the same shares the finer
    are kept: a tick is dropped when others tile it exactly, else those inside it are dropped; of copies the first is kept.
    """
    high = np.asarray(cum_volume, np.int64)
    size = np.asarray(size, np.int64)
    placed = (size > 0) & (high != UNDEFINED) & (high >= size)
    low = np.where(placed, high - np.where(placed, size, 0), 0)
    order = np.flatnonzero(placed)
    order = order[np.argsort(low[order], kind="stable")]
    keep = placed.copy()
    overlaps = _drop_copies(low, high, order, keep)
    overlaps += _resolve_overlaps(low, high, order[keep[order]], keep)
    order = order[keep[order]]
    reach = np.maximum.accumulate(high[order])
    end = int(reach[-1]) if len(order) else 0
    day = end if total is None else total
    return Coverage(
        gaps=_find_gaps(low[order], high[order], reach, order, day, len(high)),
        overlaps=np.array(sorted(overlaps), OVERLAP),
        keep=keep,
        unplaced=~placed,
        order=order,
        total=day,
        official=total is not None,
        excess_shares=max(0, end - day),
    )


def compute_gap_values(
    coverage: Coverage, price_e4: np.ndarray, size: np.ndarray, cum_value: np.ndarray, value_change: np.ndarray
) -> np.ndarray:
    """Value traded in each gap, won, int64 (gaps,), UNDEFINED where the ticks around it have none.

    Arrays int64 (n,) of the ticks; `cum_value` UNDEFINED where the vendor rounded it. `value_change` (cum_value less a
    constant) serves as well, but not for the gap at the day's beginning. Exact where prices are (docs/wire/kiwoom.md 3.1).
    """
    after, before = coverage.gaps["after"], coverage.gaps["before"]
    gap_values = np.full(len(coverage.gaps), UNDEFINED, np.int64)
    if not len(price_e4):
        return gap_values
    inner = (after >= 0) & (before < len(price_e4))
    left, right = np.where(inner, after, 0), np.where(before < len(price_e4), before, 0)
    own = size[right] * price_e4[right] // 10_000
    for value, first in ((value_change, False), (cum_value, True)):
        known = inner & (value[left] != UNDEFINED) & (value[right] != UNDEFINED)
        gap_values = np.where(known, value[right] - own - value[left], gap_values)
        if first:
            known = (after < 0) & (before < len(price_e4)) & (value[right] != UNDEFINED)
            gap_values = np.where(known, value[right] - own, gap_values)
    return gap_values


def compute_gap_trades(coverage: Coverage, side: np.ndarray, trade_count: np.ndarray) -> np.ndarray:
    """Trades counted in each gap, int64 (gaps,), UNDEFINED where the ticks around it have no counter.

    Arrays (n,) of the ticks; `trade_count`: the day's trades up to each tick, its own included but for an auction's trade
    (side 0), which is none; UNDEFINED where a tick may be several trades. The day's end has no count. docs/wire/kis.md 3.
    """
    after, before = coverage.gaps["after"], coverage.gaps["before"]
    counts = np.full(len(coverage.gaps), UNDEFINED, np.int64)
    if not len(trade_count):
        return counts
    right = np.where(before < len(trade_count), before, 0)
    left = np.where(after < 0, 0, trade_count[after])
    known = (before < len(trade_count)) & (trade_count[right] != UNDEFINED) & (left != UNDEFINED)
    counted = np.where(known, trade_count[right], 0) - (side[right] != 0) - np.where(known, left, 0)
    return np.where(known, counted, counts)


def _drop_copies(low: np.ndarray, high: np.ndarray, order: np.ndarray, keep: np.ndarray) -> list[tuple]:
    """Remove ticks that follow one of an equal interval from `keep`; their OVERLAP rows."""
    same = (low[order][1:] == low[order][:-1]) & (high[order][1:] == high[order][:-1])
    if not same.any():
        return []
    second = np.flatnonzero(same) + 1
    run = np.concatenate([[False], same])
    first = np.maximum.accumulate(np.where(run, 0, np.arange(len(order))))[second]
    keep[order[second]] = False
    found = (low[order[second]], high[order[second]], order[first], order[second])
    return [(*row, int(OverlapKind.SAME)) for row in zip(*(column.tolist() for column in found), strict=True)]


def _resolve_overlaps(low: np.ndarray, high: np.ndarray, order: np.ndarray, keep: np.ndarray) -> list[tuple]:
    """Resolve overlapping ticks; `order`: kept ticks by low. The OVERLAP rows; `keep` is changed."""
    reach = np.maximum.accumulate(high[order])
    over = np.flatnonzero(low[order][1:] < reach[:-1])
    if not len(over):
        return []
    begins = over[np.concatenate([[True], np.diff(over) > 1])]
    ends = over[np.concatenate([np.diff(over) > 1, [True]])] + 2
    overlaps: list[tuple] = []
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        ticks = order[begin:end]
        overlaps += _keep_finest(
            list(zip(low[ticks].tolist(), high[ticks].tolist(), ticks.tolist(), strict=True)), keep
        )
    return [row for row in overlaps if row[4] != OverlapKind.CROSSED or (keep[row[2]] and keep[row[3]])]


def _keep_finest(ticks: list[tuple[int, int, int]], keep: np.ndarray) -> list[tuple]:
    """Which of some overlapping (low, high, index) are kept: the finest first, longer ones against those that are kept."""
    lows: list[int] = []
    kept_ticks: list[tuple[int, int]] = []
    overlaps: list[tuple] = []
    for low, high, index in sorted(ticks, key=lambda tick: (tick[1] - tick[0], tick[0], tick[2])):
        begin, end = bisect_left(lows, low), bisect_left(lows, high)
        inside = [at for at in range(begin, end) if kept_ticks[at][0] <= high]
        ends = [low, *(kept_ticks[at][0] for at in inside)]
        if inside and ends[:-1] == [lows[at] for at in inside] and ends[-1] == high:
            first = kept_ticks[inside[0]]
            kind = OverlapKind.SAME if len(inside) == 1 else OverlapKind.PARTS
            overlaps.append((low, high, first[1], index, int(kind)))
            keep[index] = False
            continue
        for at in (begin - 1, end - 1):
            if 0 <= at < len(lows) and at not in inside and lows[at] < high and kept_ticks[at][0] > low:
                other = kept_ticks[at]
                overlaps.append((max(low, lows[at]), min(high, other[0]), other[1], index, int(OverlapKind.CROSSED)))
        for at in reversed(inside):
            overlaps.append((lows[at], kept_ticks[at][0], index, kept_ticks[at][1], int(OverlapKind.INSIDE)))
            keep[kept_ticks[at][1]] = False
            del lows[at], kept_ticks[at]
        at = bisect_left(lows, low)
        lows.insert(at, low)
        kept_ticks.insert(at, (high, index))
    return overlaps


def _find_gaps(
    low: np.ndarray, high: np.ndarray, reach: np.ndarray, order: np.ndarray, total: int, count: int
) -> np.ndarray:
    """GAP rows of kept ticks by low; `reach`: the highest end up to each."""
    edge = np.concatenate([[0], reach])
    start = np.append(low, max(total, int(edge[-1])))
    holder = np.concatenate([[-1], order[np.maximum.accumulate(np.where(high == reach, np.arange(len(order)), 0))]])
    next_ = np.append(order, count)
    found = np.flatnonzero((start > edge) & (edge < total))
    gaps = np.zeros(len(found), GAP)
    gaps["low"], gaps["high"] = edge[found], np.minimum(start[found], total)
    gaps["shares"] = gaps["high"] - gaps["low"]
    gaps["after"], gaps["before"] = holder[found], next_[found]
    return gaps
