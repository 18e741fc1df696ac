"""Alignment of tick-chart rows with live ticks: bounds of the volume offset at each live tick (pure).

    rows          [ 5 ][ 3 ][ 7 ][ 7 ][ 2 ][ 9 ]..[ 4 ][ 6 ]       a row begins at the sum of sizes before it, plus the offset
    live                     [ t0 ][ t1 ]             [ t2 ]       a live tick is one row, or consecutive rows of its price, second
    offset        0 ............................. d .......        it only grows: by volume without a row

A pass from the day's beginning takes the smallest possible offset, a pass from its end the largest. The true offset lies between
them at every tick whose rows are complete, so it is known where they meet, however many equal trades there are.

Guarantees:
    * An offset is certain only if no other one is possible.
    * Time is linear but where the offset changes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

LOOKAHEAD_TICKS = 32
"""How many live ticks of one stretch an offset has to fit before it is accepted."""

MAX_FAILURES = 20_000
"""Live ticks without rows after which the rows are assumed to be of another day."""

NO_BOUND = 2**62


class ChartRows(NamedTuple):
    """m chart rows: `edges` int64 (m + 1,) sums of sizes; int64 (m,): `price`, `second`, `run` grows where one of them changes."""

    edges: np.ndarray
    price: np.ndarray
    second: np.ndarray
    run: np.ndarray


class LiveTicks(NamedTuple):
    """n live ticks in volume order: intervals (low, high], price, second; `joined` bool: begins where the one before ends."""

    low: np.ndarray
    high: np.ndarray
    price: np.ndarray
    second: np.ndarray
    joined: np.ndarray


class Alignment(NamedTuple):
    """Per live tick, shape (n,): `offset` int64; bool: `certain`, `suits` (there are rows like it), `checked` (there should be)."""

    offset: np.ndarray
    certain: np.ndarray
    matches: np.ndarray
    checked: np.ndarray


def build_chart_rows(size: np.ndarray, price: np.ndarray, second: np.ndarray) -> ChartRows:
    """Chart rows, oldest first; the columns are copied, so that fields of packed records may be given."""
    price, second = (np.array(column, np.int64) for column in (price, second))
    edges = np.zeros(len(size) + 1, np.int64)
    np.cumsum(size, out=edges[1:])
    change = np.ones(len(size), bool)
    change[1:] = (price[1:] != price[:-1]) | (second[1:] != second[:-1])
    return ChartRows(edges, price, second, np.cumsum(change))


def align(
    rows: ChartRows,
    ticks: LiveTicks,
    min_offset: int,
    max_offset: int,
    from_start: bool,
    to_end: bool,
    tolerance_ns: int = 0,
) -> Alignment:
    """The offset at each tick, which is known to lie in least .. most (NO_BOUND: nothing is known).

    `from_start`, `to_end`: the first row is the day's first, the last its last; else ticks outside their time are not checked.
    `tolerance_ns`: how far apart the stamps of a tick and of its rows may be.
    """
    count = len(ticks.low)
    offset, certain, matches, checked = (np.zeros(count, kind) for kind in (np.int64, bool, bool, bool))
    if not len(rows.price):
        return Alignment(offset, certain, matches, checked)
    within = (ticks.second >= rows.second[0] - tolerance_ns) | from_start
    within &= (ticks.second <= rows.second[-1] + tolerance_ns) | to_end
    chosen = np.flatnonzero(within)
    offset[chosen], certain[chosen], matches[chosen] = _bound_offsets(
        rows, LiveTicks(*(column[chosen] for column in ticks)), min_offset, max_offset, tolerance_ns
    )
    checked = (ticks.second > rows.second[0] + tolerance_ns) | from_start
    checked &= (ticks.second < rows.second[-1] - tolerance_ns) | to_end
    return Alignment(offset, certain, matches, (checked & within) | certain)


def _bound_offsets(
    rows: ChartRows, ticks: LiveTicks, min_offset: int, max_offset: int, tolerance_ns: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offset, certain, suits of ticks that lie in the rows' time."""
    lower, matches = _sweep(rows, ticks, min_offset, max_offset, tolerance_ns)
    if matches.all() and (lower == max_offset).all():
        return lower, matches, matches
    end = int(ticks.high[-1])
    rest = end - int(rows.edges[-1])
    begin = -NO_BOUND if max_offset >= NO_BOUND else rest - max_offset
    reverse = _reverse_rows(rows), _reverse_ticks(ticks, end)
    upper, matches_reversed = _sweep(*reverse, begin, rest - min_offset, tolerance_ns)
    upper, matches_reversed = rest - upper[::-1], matches_reversed[::-1]
    return lower, matches & matches_reversed & (lower == upper), matches & matches_reversed


def _reverse_rows(rows: ChartRows) -> ChartRows:
    """The rows in reverse order."""
    edges = rows.edges[-1] - rows.edges[::-1]
    return ChartRows(
        edges, rows.price[::-1], -rows.second[::-1], (rows.run[-1] if len(rows.run) else 0) - rows.run[::-1]
    )


def _reverse_ticks(ticks: LiveTicks, end: int) -> LiveTicks:
    joined = np.concatenate([[False], ticks.joined[1:][::-1]]) if len(ticks.joined) else ticks.joined
    return LiveTicks(end - ticks.high[::-1], end - ticks.low[::-1], ticks.price[::-1], -ticks.second[::-1], joined)


def _sweep(
    rows: ChartRows, ticks: LiveTicks, offset: int, max_offset: int, tolerance_ns: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each tick the smallest offset that suits, never smaller than at the tick before; and whether one suits."""
    count = len(ticks.low)
    offsets, matches = np.zeros(count, np.int64), np.zeros(count, bool)
    times = np.maximum.accumulate(rows.second) if len(rows.second) else rows.second
    at, width, failures = 0, 1 << 16, 0
    while at < count and failures < MAX_FAILURES:
        good = _find_matches(rows, ticks, slice(at, min(at + width, count)), offset, tolerance_ns)
        ends = at + (len(good) if good.all() else int(good.argmin()))
        offsets[at:ends], matches[at:ends] = offset, True
        if ends == at + len(good):
            at, width = ends, width * 4
            continue
        at, width = ends, 2 * LOOKAHEAD_TICKS
        found = _find_next_offset(rows, ticks, times, at, offset, max_offset, tolerance_ns)
        if found is None:
            offsets[at] = offset
            at, failures = at + 1, failures + 1
        else:
            offset = found
    offsets[at:] = offset
    return offsets, matches


def _find_matches(rows: ChartRows, ticks: LiveTicks, part: slice, offset: int, tolerance_ns: int) -> np.ndarray:
    """Whether each tick is exactly some rows, of its price and second (or nearly), at this offset."""
    edges, last = rows.edges, len(rows.price)
    low, high = ticks.low[part] - offset, ticks.high[part] - offset
    begin, end = np.searchsorted(edges, low), np.searchsorted(edges, high)
    good = (begin < last) & (end <= last)
    begin, end = np.where(good, begin, 0), np.where(good, end, 1)
    if not last:
        return good
    good &= (edges[begin] == low) & (edges[end] == high) & (rows.run[begin] == rows.run[end - 1])
    is_near = np.abs(rows.second[begin] - ticks.second[part]) <= tolerance_ns
    return good & (rows.price[begin] == ticks.price[part]) & is_near


def _find_next_offset(
    rows: ChartRows,
    ticks: LiveTicks,
    times: np.ndarray,
    at: int,
    offset: int,
    max_offset: int,
    tolerance_ns: int,
) -> int | None:
    """The smallest offset above `offset` that fits tick `at` and its contiguous successors; None for none."""
    begin, end = np.searchsorted(times, [ticks.second[at] - tolerance_ns, ticks.second[at] + tolerance_ns + 1])
    starts = begin + np.flatnonzero(rows.price[begin:end] == ticks.price[at])
    offsets = ticks.low[at] - rows.edges[starts]
    offsets = offsets[(offsets > offset) & (offsets <= max_offset)]
    breaks = np.flatnonzero(~ticks.joined[at + 1 : at + LOOKAHEAD_TICKS])
    ahead = slice(at, at + 1 + (int(breaks[0]) if len(breaks) else LOOKAHEAD_TICKS - 1))
    ahead = slice(at, min(ahead.stop, len(ticks.low)))
    for candidate in offsets[::-1].tolist():
        if _find_matches(rows, ticks, ahead, candidate, tolerance_ns).all():
            return candidate
    return None
