"""Deduplication of overlapping ticks: received from two feeds, or repeated by one (pure).

    feed A   [ 7 ][   12   ][ 5 ]
    feed B        [ 4 ][ 8 ][ 5 ][ 9 ]      published:  [ 7 ][ 4 ][ 8 ][ 5 ][ 9 ]     every share in one row

Equal intervals of cumulative volume at one price are one trade: the first received is published. Of a merged trade of one feed and
its parts on the other feed, the parts are published if they are complete, else the merged trade. Ticks that contradict each other
are all published and flagged: equal intervals at different prices, intervals that cross, or one within another on one feed.

Guarantees:
    * A tick without a cumulative volume is never dropped.
    * A tick is dropped only if the remaining ones cover its shares.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from writer.ingest.backfill_filter import find_covered
from writer.volume.coverage import OverlapKind, compute_coverage


class TickArrays(NamedTuple):
    """Ticks as arrays, int64 (n,): `group` a number for symbol and venue (of one day), `feed` the receiver."""

    group: np.ndarray
    cum_volume: np.ndarray
    size: np.ndarray
    price: np.ndarray
    feed: np.ndarray

    def take(self, chosen: np.ndarray | slice) -> TickArrays:
        """Some of them."""
        return TickArrays(*(column[chosen] for column in self))


def deduplicate(ticks: TickArrays) -> tuple[np.ndarray, np.ndarray]:
    """Which ticks stay, and which contradict others; both bool (n,).

    `ticks`: by group (ascending), each group's in order of arrival.
    """
    count = len(ticks.group)
    keep, conflict = np.ones(count, bool), np.zeros(count, bool)
    edges = np.flatnonzero(np.diff(ticks.group)) + 1
    for begin, end in zip([0, *edges.tolist()], [*edges.tolist(), count], strict=True):
        for _, _, first, second, kind in compute_coverage(
            ticks.cum_volume[begin:end], ticks.size[begin:end], None
        ).overlaps.tolist():
            pair = [begin + first, begin + second]
            same_price, same_feed = (column[pair[0]] == column[pair[1]] for column in (ticks.price, ticks.feed))
            if kind == OverlapKind.SAME:
                is_conflict = not same_price
            elif kind == OverlapKind.INSIDE:
                is_conflict = same_feed or not same_price
            else:
                is_conflict = same_feed or kind == OverlapKind.CROSSED
            if is_conflict:
                conflict[pair] = True
            else:
                keep[pair[1]] = False
    return keep | conflict, conflict


def deduplicate_against(published: TickArrays, ticks: TickArrays) -> tuple[np.ndarray, np.ndarray]:
    """Deduplicate `ticks` that come after some of their hour are `published` (in any order).

    Published ones are never retracted: a tick that they cover is dropped, even a finer one.
    """
    before = len(published.group)
    both = TickArrays(*(np.concatenate(columns) for columns in zip(published, ticks, strict=True)))
    order = np.argsort(both.group, kind="stable")
    keep, conflict = np.ones(len(order), bool), np.zeros(len(order), bool)
    keep[order], conflict[order] = deduplicate(both.take(order))
    old = np.arange(len(order)) < before
    for number in np.unique(published.group).tolist():
        mine = np.flatnonzero(both.group == number)
        keep[mine] &= conflict[mine] | ~find_covered(both.cum_volume[mine], both.size[mine], old[mine])
    return keep[before:], conflict[before:]
