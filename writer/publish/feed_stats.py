"""Per-minute statistics of each feed: books, twins, first arrivals, lag, ticks and gaps (pure).

    an hour's books ─┐                   minute  symbol  books_kis  books_kiwoom  twins  first_kis  lag_p50_ms  gaps  gap_shares ...
                     ├─ MinuteStats ──>  09:00   000660        212            90     90       88        80.1     0           0
    an hour's ticks ─┘                   09:00   005930        ...

A lag is how much later the second feed had a book than the first, for books that both had.

Guarantees:
    * The result depends on the rows alone, not on their order.
    * A percentile is one of the values (nearest rank).
    * Memory is some 12 bytes per book with a lag and 24 per tick, and one block of BLOCK_ROWS rows.
    * A gap is counted in the minute of the tick behind it, also one that began in an hour before, as far as `last_volumes`
      tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from conf.clock import MINUTE_NS
from ringbuf.records import UNDEFINED
from writer.volume.coverage import compute_coverage

PERCENTILES = (1, 50, 99)
NO_FEED = -1
BLOCK_ROWS = 1 << 18
"""Rows sorted at once, unless one minute or one symbol has more."""

_MINUTE_BITS = 32
_BOOK_COUNTS, _TICK_COUNTS = 9, 3
_COUNTS = _BOOK_COUNTS + _TICK_COUNTS


class BookColumns(NamedTuple):
    """Published books as columns of n rows.

    `name` int64: number of (symbol, venue). `minute`: its start, ns. `recv_ns` (n, 2): when each feed had it, UNDEFINED for never.
    `first`: which feed was first, 0 or 1. bool: `late`, `differs` (the feeds state another detail), `timed` (its times may be
    compared).
    """

    name: np.ndarray
    minute: np.ndarray
    recv_ns: np.ndarray
    first_feed: np.ndarray
    late: np.ndarray
    differs: np.ndarray
    timed: np.ndarray


class TickColumns(NamedTuple):
    """n rows, int64: `name`, `minute` as above, `feed` 0 or 1 or NO_FEED (backfilled), `size`, `cum_volume`."""

    name: np.ndarray
    minute: np.ndarray
    feed: np.ndarray
    size: np.ndarray
    cum_volume: np.ndarray


def build_schema(time: pa.DataType, feeds: Sequence[str]) -> pa.Schema:
    """The columns, one row per minute, symbol and venue that has rows."""
    first, second = feeds
    counts = [
        "books",
        f"books_{first}",
        f"books_{second}",
        "twins",
        f"first_{first}",
        f"first_{second}",
        "late",
        "differ",
        "timed",
    ]
    more = ["ticks", f"ticks_{first}", f"ticks_{second}", "gaps", "gap_shares", "volume"]
    return pa.schema(
        [
            ("minute", time),
            ("symbol", pa.string()),
            ("venue", pa.string()),
            *((name, pa.int64()) for name in counts),
            *((f"lag_p{percent:02}_ms", pa.float64()) for percent in PERCENTILES),
            *((name, pa.int64()) for name in more),
        ]
    )


class MinuteStats:
    """The statistics of an hour; rows are added in any number of pieces."""

    def __init__(self) -> None:
        self._groups: dict[int, int] = {}
        self._counts = np.zeros((_COUNTS, 0), np.int64)
        self._lags: list[tuple[np.ndarray, ...]] = []
        self._ticks: list[tuple[np.ndarray, ...]] = []

    def add_books(self, books: BookColumns) -> None:
        """Count some books."""
        group = self._number_groups(books.name, books.minute)
        had = books.recv_ns != UNDEFINED
        both = had.all(axis=1)
        timed = both & books.timed
        masks = [np.ones(len(group), bool), *had.T, both, *(both & (books.first_feed == feed) for feed in (0, 1))]
        self._count(0, group, [*masks, books.late, books.differs, timed])
        self._lags.append((group[timed], books.recv_ns[timed, 1] - books.recv_ns[timed, 0]))

    def add_ticks(self, ticks: TickColumns) -> None:
        """Count some ticks."""
        group = self._number_groups(ticks.name, ticks.minute)
        self._count(_BOOK_COUNTS, group, [np.ones(len(group), bool), *(ticks.feed == feed for feed in (0, 1))])
        self._ticks.append((ticks.name.astype(np.int32), group, ticks.size, ticks.cum_volume))

    def build_table(
        self,
        names: Sequence[tuple[str, str]],
        last_volumes: Mapping[tuple[str, str], int],
        speed: float,
        columns: pa.Schema,
    ) -> pa.Table:
        """The table of the hour, sorted by symbol, venue, minute.

        `names`: (symbol, venue) by number. `last_volumes`: cumulative volume before this hour. `speed`: calendar seconds per real
        second; lags are real. `columns`: what `build_schema` gave. Of the table, `volume` is how far the ticks reach after the
        minute, null where none came yet.
        """
        count = len(self._groups)
        packed = np.fromiter(self._groups, np.int64, count)
        name, minute = packed >> _MINUTE_BITS, (packed & (1 << _MINUTE_BITS) - 1) * MINUTE_NS
        counts = [pa.array(numbers) for numbers in self._counts[:, :count]]
        symbol, venue = (pa.array([names[number][part] for number in name.tolist()], pa.string()) for part in (0, 1))
        arrays = [
            *(pa.array(minute).cast(columns.field("minute").type), symbol, venue, *counts[:_BOOK_COUNTS]),
            *_compute_percentiles(self._lags, count, speed * 1e6),
            *counts[_BOOK_COUNTS:],
            *_count_gaps(self._ticks, names, last_volumes, name, minute),
        ]
        order = sorted(range(count), key=lambda at: (*names[int(name[at])], minute[at]))
        return pa.table(arrays, columns).take(pa.array(order, pa.int64()))

    def _number_groups(self, name: np.ndarray, minute: np.ndarray) -> np.ndarray:
        """A number for each row's name and minute, int32; new ones get a column of counts."""
        found, which = np.unique(name << _MINUTE_BITS | minute // MINUTE_NS, return_inverse=True)
        numbers = np.array([self._groups.setdefault(key, len(self._groups)) for key in found.tolist()], np.int32)
        lacking = len(self._groups) - self._counts.shape[1]
        if lacking > 0:
            self._counts = np.pad(self._counts, ((0, 0), (0, lacking)))
        return numbers[which]

    def _count(self, first: int, group: np.ndarray, masks: Sequence[np.ndarray]) -> None:
        """Count the rows in each of the masks, from count number `first` on."""
        for number, mask in enumerate(masks, first):
            self._counts[number] += np.bincount(group[mask], minlength=self._counts.shape[1])


def _iterate_blocks(pieces: Sequence[tuple[np.ndarray, ...]], count: int) -> Iterator[tuple[np.ndarray, ...]]:
    """The rows of all pieces by their first column, a number below `count`: a block of whole numbers at a time."""
    sizes = np.zeros(count, np.int64)
    for number, *_ in pieces:
        sizes += np.bincount(number, minlength=count)
    block = np.cumsum(sizes) // BLOCK_ROWS
    for first in np.unique(block[sizes > 0]):
        begin, end = np.searchsorted(block, (first, first + 1))
        chosen = [(piece[0] >= begin) & (piece[0] < end) for piece in pieces]
        yield tuple(
            np.concatenate([column[mask] for column, mask in zip(columns, chosen, strict=True)])
            for columns in zip(*pieces, strict=True)
        )


def _compute_percentiles(lags: Sequence[tuple[np.ndarray, ...]], count: int, unit_ns: float) -> list[pa.Array]:
    """Nearest-rank percentiles of (group, lag in ns) by group, null where a group has none."""
    found, some = np.zeros((len(PERCENTILES), count)), np.zeros(count, bool)
    for group, lag_ns in _iterate_blocks(lags, count):
        values = lag_ns[np.lexsort((lag_ns, group))]
        groups, sizes = np.unique(group, return_counts=True)
        begins = np.cumsum(sizes) - sizes
        some[groups] = True
        for row, percent in zip(found, PERCENTILES, strict=True):
            at = begins + np.maximum(np.ceil(sizes * percent / 100).astype(np.int64), 1) - 1
            row[groups] = values[at] / unit_ns
    return [pa.array(row, mask=~some) for row in found]


def _count_gaps(
    ticks: Sequence[tuple[np.ndarray, ...]],
    names: Sequence[tuple[str, str]],
    last_volumes: Mapping[tuple[str, str], int],
    name: np.ndarray,
    minute: np.ndarray,
) -> list[pa.Array]:
    """Gaps, their shares, and how far the ticks (name, group, size, cum_volume) reach, by group.

    `name`, `minute`: of each group.
    """
    count = len(name)
    gaps, shares, reach = np.zeros(count, np.int64), np.zeros(count, np.int64), np.full(count, UNDEFINED, np.int64)
    for number_of_tick, *columns in _iterate_blocks(ticks, len(names)):
        order = np.argsort(number_of_tick, kind="stable")
        numbers, begins = np.unique(number_of_tick[order], return_index=True)
        for number, mine in zip(numbers.tolist(), np.split(order, begins[1:]), strict=True):
            group, size, cum_volume = (column[mine] for column in columns)
            last_volume = last_volumes.get(names[number], UNDEFINED)
            coverage = compute_coverage(cum_volume, size, None)
            # what lies before the day's first tick may be an auction, a block or missed: it is no gap here
            open_ = coverage.gaps[(coverage.gaps["after"] >= 0) | (last_volume != UNDEFINED)]
            low = np.maximum(open_["low"], last_volume)
            real = open_["high"] > low
            where = group[open_["before"][real]]
            np.add.at(gaps, where, 1)
            np.add.at(shares, where, (open_["high"] - low)[real])
            np.maximum.at(reach, group[coverage.order], cum_volume[coverage.order])
    in_order = np.lexsort((minute, name))
    edges = np.flatnonzero(np.diff(name[in_order])) + 1
    for groups in np.split(in_order, edges) if count else []:
        last_volume = last_volumes.get(names[name[groups[0]]], UNDEFINED)
        reach[groups] = np.maximum.accumulate(np.maximum(reach[groups], last_volume))
    return [pa.array(gaps), pa.array(shares), pa.array(reach, mask=reach == UNDEFINED)]
