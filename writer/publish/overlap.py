"""Deduplication of overlapping ticks: received from two feeds, or repeated by one (pure).

    feed A   [ 7 ][   12   ][ 5 ]
    feed B        [ 4 ][ 8 ][ 5 ][ 9 ]      published:  [ 7 ][ 4 ][ 8 ][ 5 ][ 9 ]     every share in one row

Equal intervals of cumulative volume at one price are one trade: the first received is published. Of a merged trade of one feed and
its parts on the other feed, the parts are published if they are complete, else the merged trade. Ticks that contradict each other
are all published and flagged: equal intervals at different prices, intervals that cross, or one within another on one feed.

    published    [ 4 ]           [ 5 ]
    later        [     12            ]      published as well:  [ 8 ] of it, SPLIT; published rows stay as they are

Guarantees:
    * A tick without a cumulative volume is never dropped.
    * A tick is dropped only if the remaining ones cover its shares.
    * Rows that do not contradict each other share no share, whatever was published before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ringbuf.records import UNDEFINED, Flag
from writer.ingest.backfill_filter import forward_fill, merge_intervals
from writer.volume.coverage import OverlapKind, compute_coverage

NO_FEED = 0
"""The feed of a row that is a piece of a tick: it contradicts no tick of the feed that it came by."""
VALUES_AT_END = ("cum_value", "value_change", "trade_count")


class SelectedRows(NamedTuple):
    """Rows to publish, int64 (m,) each: `tick` the position of the tick that a row is, or is a piece of; `flags` bits to add."""

    tick: np.ndarray
    cum_volume: np.ndarray
    size: np.ndarray
    flags: np.ndarray

    @staticmethod
    def concatenate(parts: Iterable[SelectedRows]) -> SelectedRows:
        """One after the other; no rows for no parts."""
        none = SelectedRows(*[np.empty(0, np.int64)] * len(SelectedRows._fields))
        return SelectedRows(*(np.concatenate(columns) for columns in zip(none, *parts, strict=True)))


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
        prices: dict[tuple[int, int], set[int]] = {}
        for low, high, first, second, kind in compute_coverage(
            ticks.cum_volume[begin:end], ticks.size[begin:end], None
        ).overlaps.tolist():
            pair = [begin + first, begin + second]
            same_price, same_feed = (column[pair[0]] == column[pair[1]] for column in (ticks.price, ticks.feed))
            if kind == OverlapKind.SAME:  # a third one may be a copy of the second
                known = prices.setdefault((low, high), {int(ticks.price[pair[0]])})
                is_conflict = int(ticks.price[pair[1]]) not in known
                known.add(int(ticks.price[pair[1]]))
            elif kind == OverlapKind.INSIDE:
                is_conflict = same_feed or not same_price
            else:
                is_conflict = same_feed or kind == OverlapKind.CROSSED
            if is_conflict:
                conflict[pair] = True
            else:
                keep[pair[1]] = False
    return keep | conflict, conflict


def select(published: TickArrays, ticks: TickArrays, live: np.ndarray) -> SelectedRows:
    """The rows that `ticks` (all of one group, in order of arrival) add to `published` ones (in any order).

    `live`: which were received, bool (n,); the others were fetched, and give way to received ones. A group in which a fetched tick
    stays is put in the order of the volume. Published rows are never retracted, so a tick that reaches over them, finer or not, is
    published without their shares; one that contradicts them is published whole.
    """
    count = len(published.group)
    received = ticks.take(live)
    stays, conflict = deduplicate(_concatenate(published, received))
    stays, conflict = stays[count:], conflict[count:]
    at = np.flatnonzero(live)
    rows = [
        _subtract(ticks, at[stays & ~conflict], published),
        _select_whole(ticks, at[stays & conflict], int(Flag.CONFLICT)),
    ]
    if not live.all():
        fetched = np.flatnonzero(~live)
        fetched = fetched[deduplicate(ticks.take(fetched))[0]]
        rows.append(_subtract(ticks, fetched, _concatenate(published, received.take(stays))))
    tick, cum_volume, size, flags = SelectedRows.concatenate(rows)
    key = np.zeros(len(tick), np.int64)
    order = np.lexsort((cum_volume, tick))
    if not live[tick].all():
        first = np.zeros(len(tick), bool)
        first[0] = True
        key[order] = forward_fill(cum_volume[order], first)
        order = np.lexsort((cum_volume, tick, key))
    return SelectedRows(tick[order], cum_volume[order], size[order], flags[order])


def _concatenate(one: TickArrays, other: TickArrays) -> TickArrays:
    return TickArrays(*(np.concatenate(columns) for columns in zip(one, other, strict=True)))


def _select_whole(ticks: TickArrays, at: np.ndarray, flags: int) -> SelectedRows:
    return SelectedRows(at, ticks.cum_volume[at], ticks.size[at], np.full(len(at), flags))


def _subtract(ticks: TickArrays, at: np.ndarray, others: TickArrays) -> SelectedRows:
    """The ticks at the positions `at` without the shares that `others` cover."""
    placed = (others.size > 0) & (others.cum_volume >= others.size)
    starts, ends = merge_intervals((others.cum_volume - others.size)[placed], others.cum_volume[placed])
    high, size = ticks.cum_volume[at], ticks.size[at]
    has_place = (size > 0) & (high >= size)
    low = np.where(has_place, high - size, high)
    first, behind = np.searchsorted(ends, low, "right"), np.searchsorted(starts, high, "left")
    reaches = has_place & (first < behind)
    rows = [_select_whole(ticks, at[~reaches], 0)]
    covered = reaches.copy()
    covered[reaches] = (starts[first[reaches]] <= low[reaches]) & (high[reaches] <= ends[first[reaches]])
    for number in np.flatnonzero(reaches & ~covered).tolist():
        inside = slice(first[number], behind[number])
        begins = np.maximum(low[number], np.concatenate([[low[number]], ends[inside]]))
        stops = np.minimum(high[number], np.concatenate([starts[inside], [high[number]]]))
        left = begins < stops
        cut = np.full(int(left.sum()), int(Flag.SPLIT))
        rows.append(SelectedRows(np.full(len(cut), at[number]), stops[left], (stops - begins)[left], cut))
    return SelectedRows.concatenate(rows)


def mark_rows(table: pa.Table, cum_volume: np.ndarray, size: np.ndarray, flags: np.ndarray) -> pa.Table:
    """Published columns of ticks as the rows of a selection. What only holds at a tick's own end is null in a piece before it."""
    if not flags.any():
        return table
    columns = dict(zip(table.column_names, table.columns, strict=True))
    columns["flags"] = pc.bit_wise_or(columns["flags"], pa.array(flags))
    cut = (flags & int(Flag.SPLIT)) != 0
    if cut.any():
        before_end = pa.array(cut & (pc.fill_null(columns["cum_volume"], UNDEFINED).to_numpy() != cum_volume))
        for name in VALUES_AT_END:
            columns[name] = pc.if_else(before_end, pa.scalar(None, columns[name].type), columns[name])
        for name, values in (("cum_volume", cum_volume), ("size", size)):
            columns[name] = pc.if_else(pa.array(cut), pa.array(values), columns[name])
    return pa.table(list(columns.values()), table.schema)
