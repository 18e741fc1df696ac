"""Anchors of chart rows from minute bars and books, between two live ticks (pure).

    rows     ┌─────┬────┬──────┬───── jump ─────┬────┬──────┐      the offset grows by the jump behind an unknown row
    bars     ........................|......................|      a bar with the whole volume gives it at the end of a minute
    books    .     .           .                .           .      a book's volume is the end of some row, at either offset

Between two anchors of one offset nothing but rows passed, since the offset only grows: each row there has its place. Between two
anchors of different offsets with no row between them lies the jump, and its place is certain as well.

Guarantees:
    * A book is an anchor only if it cannot fit the other offset as well, when a row may be stamped SKEW_NS earlier or later
      than a book of its moment.
    * Volume off the book is taken to pass in one piece between two anchors of ticks or bars; where no single piece fits all
      books, they are no anchors.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import pairwise

import numpy as np

from collectorctl.recover.matching import alignment
from conf.clock import MINUTE_NS
from writer.volume.coverage import Coverage

MINUTE = np.dtype([("minute_ns", "<i8"), ("shares", "<i8")])
"""A minute bar: its beginning, ns since 1970 UTC, and the shares traded in it."""


BOOK_VOLUME = np.dtype([("cum_volume", "<i8"), ("first_ns", "<i8"), ("last_ns", "<i8")])
"""A cumulative volume that order books showed, and the exchange seconds of the first and of the last that did."""

SKEW_NS = 2_000_000_000
"""Both stamps are exchange times in whole seconds; feeds may round differently."""

Anchor = tuple[int, int]
"""(row, offset): in front of that row the offset is certain."""


def anchors_from_bars(chart: alignment.ChartRows, bars: np.ndarray, coverage: Coverage) -> list[Anchor]:
    """At the end of each minute (MINUTE), from bars with the whole official volume; else none."""
    if not coverage.official or int(bars["shares"].sum()) != coverage.total:
        return []
    bars = bars[np.argsort(bars["minute_ns"])]
    row = np.searchsorted(chart.second, bars["minute_ns"] + MINUTE_NS)
    return list(zip(row.tolist(), (np.cumsum(bars["shares"]) - chart.edges[row]).tolist(), strict=True))


def anchors_between(
    chart: alignment.ChartRows, first: Anchor, last: Anchor, bars: list[Anchor], book_volumes: np.ndarray
) -> list[Anchor]:
    """The anchors of bars and books (BOOK_VOLUME, ascending) between `first` and `last`, both included.

    Anchors of bars are used only if they go from one to the other without a step back.
    """
    inner = bars[bisect_left(bars, (first[0], 0)) : bisect_right(bars, (last[0], alignment.NO_BOUND))]
    found = [first, *inner, last]
    if any(a[1] > b[1] for a, b in pairwise(found)):
        found = [first, last]
    return [
        found[0],
        *(mark for a, b in pairwise(found) for mark in (*_anchors_from_books(chart, a, b, book_volumes), b)),
    ]


def _anchors_from_books(
    chart: alignment.ChartRows, first: Anchor, last: Anchor, book_volumes: np.ndarray
) -> list[Anchor]:
    """The last book before the volume passed and the first behind it, as far as only one of both can be meant."""
    if first[1] == last[1]:
        return []
    edges = chart.edges[first[0] : last[0] + 1]
    low, high = int(edges[0]) + first[1], int(edges[-1]) + last[1]
    book_volumes = book_volumes[
        np.searchsorted(book_volumes["cum_volume"], low, "right") : np.searchsorted(book_volumes["cum_volume"], high)
    ]
    second = chart.second[first[0] : last[0]]
    min_row = np.searchsorted(second, book_volumes["last_ns"] - SKEW_NS)
    max_row = np.searchsorted(second, book_volumes["first_ns"] + SKEW_NS, "right")
    rows, fits = [], []
    for offset in (first[1], last[1]):
        row = np.minimum(np.searchsorted(edges, book_volumes["cum_volume"] - offset), len(edges) - 1)
        rows.append(row)
        fits.append((edges[row] == book_volumes["cum_volume"] - offset) & (min_row <= row) & (row <= max_row))
    count = len(book_volumes)
    before = count if fits[0].all() else int(fits[0].argmin())
    behind = count if fits[1].all() else int(fits[1][::-1].argmin())
    if before + behind < count:
        return []
    found = [(first[0] + int(rows[0][count - behind - 1]), first[1])] if behind < count else []
    return found + ([(first[0] + int(rows[1][before]), last[1])] if before < count else [])
