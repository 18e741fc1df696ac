"""Ticks that were received more than once: while two lines collect a symbol, or because a broker repeats itself.

    line A   [ 7 ][   12   ][ 5 ]
    line B        [ 4 ][ 8 ][ 5 ][ 9 ]      published:  [ 7 ][ 4 ][ 8 ][ 5 ][ 9 ]     every share in one row

The same interval of cumulative volume at the same price is the same trade: who received it first is published. Of one line's merged
print and its parts on another line the parts are, if they are all there, else the merged print. What contradicts stays, all of it,
and is flagged: the same interval at another price, intervals that cross, or one within another on the same line.

Promises: pure; a tick without a cumulative volume is never touched; a tick goes only if what stays covers its shares.
Leaves to others: laying intervals (volume.py), ticks that were fetched (filled.py), rows and files (standing.py).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from writer.ingest.backfill_filter import covered
from writer.volume.coverage import Why, lay


class Received(NamedTuple):
    """Ticks as arrays, int64 (n,): `group` a number for symbol and venue (of one day), `line` who delivered it."""

    group: np.ndarray
    cum_volume: np.ndarray
    size: np.ndarray
    price: np.ndarray
    line: np.ndarray

    def take(self, chosen: np.ndarray) -> Received:
        """Some of them."""
        return Received(*(column[chosen] for column in self))


def once(ticks: Received) -> tuple[np.ndarray, np.ndarray]:
    """Which ticks stay, and which contradict others; both bool (n,).

    `ticks`: by group (ascending), each group's in order of arrival.
    """
    count = len(ticks.group)
    stays, odd = np.ones(count, bool), np.zeros(count, bool)
    edges = np.flatnonzero(np.diff(ticks.group)) + 1
    for begin, end in zip([0, *edges.tolist()], [*edges.tolist(), count], strict=True):
        for _, _, first, second, why in lay(ticks.cum_volume[begin:end], ticks.size[begin:end], None).doubled.tolist():
            pair = [begin + first, begin + second]
            same_price, same_line = (column[pair[0]] == column[pair[1]] for column in (ticks.price, ticks.line))
            if why == Why.SAME:
                is_odd = not same_price
            elif why == Why.INSIDE:
                is_odd = same_line or not same_price
            else:
                is_odd = same_line or why == Why.CROSSED
            if is_odd:
                odd[pair] = True
            else:
                stays[pair[1]] = False
    return stays | odd, odd


def once_beside(published: Received, ticks: Received) -> tuple[np.ndarray, np.ndarray]:
    """The same of `ticks` that come after some of their hour are `published` (in any order).

    Nothing takes those back: what they cover goes, be it finer.
    """
    before = len(published.group)
    both = Received(*(np.concatenate(columns) for columns in zip(published, ticks, strict=True)))
    order = np.argsort(both.group, kind="stable")
    stays, odd = np.ones(len(order), bool), np.zeros(len(order), bool)
    stays[order], odd[order] = once(both.take(order))
    old = np.arange(len(order)) < before
    for number in np.unique(published.group).tolist():
        mine = np.flatnonzero(both.group == number)
        stays[mine] &= odd[mine] | ~covered(both.cum_volume[mine], both.size[mine], old[mine])
    return stays[before:], odd[before:]
