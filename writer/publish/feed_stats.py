"""Per-minute statistics of each feed: books, twins, first arrivals, lag, ticks and gaps (pure).

    an hour's books ─┐                 minute  symbol  books_kis  books_kiwoom  twins  first_kis  lag_p50_ms  gaps  gap_shares ...
                     ├─ aggregate  ──> 09:00   000660        212            90     90       88        80.1     0           0
    an hour's ticks ─┘                 09:00   005930        ...

A lag is how much later the second feed had a book than the first, for books that both had.

Guarantees:
    * The result depends on the rows alone, not on their order.
    * A percentile is one of the values (nearest rank).
    * A gap is counted in the minute of the tick behind it, also one that began in an hour before, as far as `last_volumes`
      tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from conf.clock import MINUTE_NS
from ringbuf.records import UNDEFINED
from writer.volume.coverage import compute_coverage

PERCENTILES = (1, 50, 99)
NO_FEED = -1
_MINUTE_BITS = 32


class BookColumns(NamedTuple):
    """Published books as columns of n rows.

    `name` int64: number of (symbol, venue). `minute`: its start, ns. `recv_ns` (n, 2): when each feed had it, UNDEFINED for never.
    `first`: which feed was first, 0 or 1. bool: `late`, `timed` (its times may be compared).
    """

    name: np.ndarray
    minute: np.ndarray
    recv_ns: np.ndarray
    first_feed: np.ndarray
    late: np.ndarray
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


def aggregate_by_minute(
    books: BookColumns,
    ticks: TickColumns,
    names: Sequence[tuple[str, str]],
    last_volumes: Mapping[tuple[str, str], int],
    speed: float,
    columns: pa.Schema,
) -> pa.Table:
    """The table of an hour, sorted by symbol, venue, minute.

    `names`: (symbol, venue) by number. `last_volumes`: cumulative volume before this hour. `speed`: calendar seconds per real
    second; lags are real. `columns`: what `schema` gave. Of the table, `volume` is how far the ticks reach after the minute, null
    where none came yet.
    """
    packed, which = np.unique(
        np.concatenate([rows.name << _MINUTE_BITS | rows.minute // MINUTE_NS for rows in (books, ticks)]),
        return_inverse=True,
    )
    keys = np.stack([packed >> _MINUTE_BITS, (packed & (1 << _MINUTE_BITS) - 1) * MINUTE_NS])
    of_book, of_tick, count = which[: len(books.name)], which[len(books.name) :], len(packed)
    had = books.recv_ns != UNDEFINED
    both = had.all(axis=1)
    timed = both & books.timed
    lag_ms = (books.recv_ns[timed, 1] - books.recv_ns[timed, 0]) / (speed * 1e6)
    found = [
        _count(of_book, count),
        *(_count(of_book[had[:, line]], count) for line in (0, 1)),
        _count(of_book[both], count),
        *(_count(of_book[both & (books.first_feed == line)], count) for line in (0, 1)),
        _count(of_book[books.late], count),
        _count(of_book[timed], count),
        *_compute_percentiles(of_book[timed], lag_ms, count),
        _count(of_tick, count),
        *(_count(of_tick[ticks.feed == line], count) for line in (0, 1)),
        *_count_gaps(ticks, of_tick, names, last_volumes, keys),
    ]
    order = sorted(range(count), key=lambda at: (*names[keys[0, at]], keys[1, at]))
    symbol, venue = (pa.array([names[number][part] for number in keys[0]], pa.string()) for part in (0, 1))
    arrays = [pa.array(keys[1]).cast(columns.field("minute").type), symbol, venue, *found]
    return pa.table(arrays, columns).take(pa.array(order, pa.int64()))


def _count(group: np.ndarray, count: int) -> pa.Array:
    return pa.array(np.bincount(group, minlength=count).astype(np.int64))


def _compute_percentiles(group: np.ndarray, values: np.ndarray, count: int) -> list[pa.Array]:
    """Nearest-rank percentiles by group, null where a group has no value."""
    order = np.lexsort((values, group))
    values = values[order]
    sizes = np.bincount(group, minlength=count)
    begins = np.cumsum(sizes) - sizes
    some = sizes > 0
    found = []
    for percent in PERCENTILES:
        at = begins + np.maximum(np.ceil(sizes * percent / 100).astype(np.int64), 1) - 1
        picked = values[np.where(some, at, 0)] if len(values) else np.zeros(count)
        found.append(pa.array(picked, mask=~some))
    return found


def _count_gaps(
    ticks: TickColumns,
    group: np.ndarray,
    names: Sequence[tuple[str, str]],
    last_volumes: Mapping[tuple[str, str], int],
    keys: np.ndarray,
) -> list[pa.Array]:
    """Gaps, their shares, and how far the ticks reach, by group."""
    count = keys.shape[1]
    gaps, shares, reach = np.zeros(count, np.int64), np.zeros(count, np.int64), np.full(count, UNDEFINED, np.int64)
    for number in np.unique(keys[0]).tolist():
        mine = np.flatnonzero(ticks.name == number)
        last_volume = last_volumes.get(names[number], UNDEFINED)
        coverage = compute_coverage(ticks.cum_volume[mine], ticks.size[mine], None)
        # what lies before the day's first tick may be an auction, a block or missed: it is no gap here
        open_ = coverage.gaps[(coverage.gaps["after"] >= 0) | (last_volume != UNDEFINED)]
        low = np.maximum(open_["low"], last_volume)
        real = open_["high"] > low
        where = group[mine[open_["before"][real]]]
        np.add.at(gaps, where, 1)
        np.add.at(shares, where, (open_["high"] - low)[real])
        np.maximum.at(reach, group[mine[coverage.order]], ticks.cum_volume[mine[coverage.order]])
        of_name = np.flatnonzero(keys[0] == number)  # in order of their minutes
        reach[of_name] = np.maximum.accumulate(np.maximum(reach[of_name], last_volume))
    return [pa.array(gaps), pa.array(shares), pa.array(reach, mask=reach == UNDEFINED)]
