"""Pages of a chart that goes backwards, split by day (pure).

    pages       [ 20th 15:30 .. 11:02 ][ 20th 11:02 .. 09:00 | 19th 15:30 .. 13:40 ][ 19th 13:40 .. 10:15 ]   the list ends here
    days        20th ──────────────────────────── is whole   | 19th ──────────────────────────── cut

Guarantees:
    * The memory holds one day.
    * A day is whole only if a row of an older one follows: the last day of a list may lack its beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from conf.clock import DAY_NS, kst_midnight_ns

_EPOCH = date(1970, 1, 1)


class ChartDay(NamedTuple):
    """A Korean day's rows, oldest first; `is_whole`: none of its beginning is cut off; how many pages have some of them."""

    day: date
    rows: np.ndarray
    is_whole: bool
    pages: int


def split_by_day(pages: Iterable[np.ndarray]) -> Iterator[ChartDay]:
    """The days, newest first, of rows with `exch_ns`, newest first within pages and from page to page."""
    pieces: list[np.ndarray] = []
    current = 0
    for rows in pages:
        numbers = (rows["exch_ns"] - kst_midnight_ns(_EPOCH)) // DAY_NS
        edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(rows)]
        for begin, end in pairwise(edges):
            if begin == end:
                continue
            if pieces and current != numbers[begin]:
                yield _join(current, pieces, True)
                pieces = []
            current = int(numbers[begin])
            pieces.append(rows[begin:end])
    if pieces:
        yield _join(current, pieces, False)


def _join(number: int, pieces: list[np.ndarray], is_whole: bool) -> ChartDay:
    return ChartDay(_EPOCH + timedelta(days=number), np.concatenate(pieces)[::-1], is_whole, len(pieces))
