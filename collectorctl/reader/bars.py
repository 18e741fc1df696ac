"""Bars of an instrument's trades by time, volume or value, with the holes in them (pure).

    cumulative volume   0      10   13        20          33       40      46        51 official
    trades              [ 10    ][ 3 ]         [    13     ]        [  6    ]
    bars by time        [ 10:00                ][ 10:01    ][ 10:02 ][ 10:03 ][ 10:04 ]
    missing                                 7            0        0        7         5
    hole                        yes                yes      yes       yes       yes

Guarantees:
    * Each share that any trade covers counts once, whatever the order of the rows; all bars' `volume` and `missing` add up to
      the official volume, or to as far as the trades reach.
    * Where shares are missing, every bar in which they may have been traded is a hole; no bar is filled in.
    * An interval without a trade is a bar without prices.

Not handled here:
    * A trade is in one bar: a bar by volume or value ends with the trade that reaches its bound, and may have more. Missing
      shares advance the volume; their value is not known.
    * A day without a trade has no bars but those in which no feed received trades.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ringbuf.records import UNDEFINED
from writer.volume.coverage import compute_coverage

AUCTIONS = ("opening_auction", "closing_auction", "intraday_auction")
Span = tuple[int, int]
"""[begin, end) in ns since 1970 UTC."""


class BarClock(NamedTuple):
    """What ends a bar, one of three: `width_ns` from `begin_ns` on, that many shares, or that much value."""

    begin_ns: int = 0
    width_ns: int = 0
    volume: int = 0
    value: float = 0


class _Trades(NamedTuple):
    """Trades that count, in their order; arrays (n,). `gaps`: [positions of the trades before and behind], each with its shares."""

    rows: np.ndarray
    missing: np.ndarray
    gaps: list[tuple[int, int]]
    missing_behind: int


def compute_bars(ticks: pa.Table, clock: BarClock, total: int | None = None, dark: Sequence[Span] = ()) -> pa.Table:
    """The bars of a day's ticks (columns as stored, in any order).

    `total`: the official volume, None: not known. Then `dark` are the spans in sessions in which no feed received trades: behind
    the last trade nothing else shows what is missing.
    """
    times = pc.coalesce(ticks["exch_time"], ticks["recv_time"]).cast(pa.int64()).to_numpy()
    trades = _find_trades(ticks, times, total)
    rows = trades.rows
    columns = _Columns(ticks.take(pa.array(rows)), times[rows])
    bins = _compute_bins(columns, trades, clock)
    order = np.argsort(bins, kind="stable")
    numbers, starts = np.unique(bins[order], return_index=True)
    last_ns = int(times[rows].max()) if len(rows) else clock.begin_ns
    dark = [] if total is not None else [(max(begin, last_ns + 1), end) for begin, end in dark if end > last_ns + 1]
    grid = _compute_grid(numbers, clock, dark)
    at = np.searchsorted(grid, numbers)
    missing = np.zeros(len(grid), np.int64)
    if len(rows):
        missing[at] = np.add.reduceat(trades.missing[order], starts)
        missing[at[-1]] += trades.missing_behind
    is_hole = missing > 0
    place = np.searchsorted(grid, bins)
    for before, behind in trades.gaps:
        one = place[before] if before >= 0 else 0
        other = place[behind] if behind < len(rows) else len(grid) - 1
        is_hole[min(one, other) : max(one, other) + 1] = True
    for begin, end in dark:
        if clock.width_ns:
            first, behind = (begin - clock.begin_ns) // clock.width_ns, -((clock.begin_ns - end) // clock.width_ns)
            is_hole[np.searchsorted(grid, first) : np.searchsorted(grid, behind)] = True
        elif len(grid):
            is_hole[-1] = True
    return columns.build(order, starts, at, grid, clock, missing, is_hole)


def intersect(some: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    """What of `some` spans lies in any of the `others`, in order."""
    found = [(max(a, c), min(b, d)) for a, b in some for c, d in others if max(a, c) < min(b, d)]
    return sorted(set(found))


def _find_trades(ticks: pa.Table, times: np.ndarray, total: int | None) -> _Trades:
    """The trades that count: of rows that cover the same shares one, or its parts."""
    volume, size = (pc.fill_null(ticks[name], UNDEFINED).to_numpy() for name in ("cum_volume", "size"))
    dates = ticks["business_date"].cast(pa.int32()).to_numpy() if "business_date" in ticks.column_names else None
    groups = [np.arange(len(volume))]
    if dates is not None and len(dates):  # the volume begins anew with a business date
        groups = [np.flatnonzero(dates == date) for date in np.unique(dates)]
    kept: list[np.ndarray] = []
    gaps: list[tuple[int, int]] = []
    missing, behind, unplaced = np.zeros(len(volume), np.int64), 0, np.zeros(len(volume), bool)
    for group in groups:
        found = compute_coverage(volume[group], size[group], total if len(groups) == 1 else None)
        kept.append(group[found.order])
        unplaced[group] = found.unplaced
        for gap in found.gaps.tolist():
            _, _, shares, after, before = gap
            first = int(group[after]) if after >= 0 else -1
            if before < len(group):
                missing[group[before]] += shares
                gaps.append((first, int(group[before])))
            else:
                behind += shares
                gaps.append((first, len(volume)))
    late = np.flatnonzero(unplaced & (size > 0))
    rows = np.concatenate([*kept, late[np.argsort(times[late], kind="stable")]])
    position = np.full(len(volume) + 2, len(rows))
    position[rows], position[-1] = np.arange(len(rows)), -1
    return _Trades(rows, missing[rows], [(int(position[a]), int(position[b])) for a, b in gaps], behind)


class _Columns:
    """What bars are made of, per trade."""

    def __init__(self, ticks: pa.Table, times: np.ndarray) -> None:
        self.times = times
        self.time_type = ticks.schema.field("exch_time").type
        self.price_type = ticks.schema.field("price").type
        self.price = pc.fill_null(ticks["price"], 0).to_numpy()
        self.size = ticks["size"].to_numpy()
        self.value = self.price * self.size
        self.flags = pc.fill_null(ticks["flags"], 0).to_numpy()
        self.session = pc.fill_null(ticks["session"], "unknown").to_numpy(zero_copy_only=False).astype(object)
        is_recovered = pc.fill_null(pc.equal(ticks["source"], "recovered"), False).to_numpy(zero_copy_only=False)
        is_auction = np.isin(self.session.astype(str), AUCTIONS) | (~is_recovered & (ticks["side"].to_numpy() == 0))
        self.recovered = np.where(is_recovered, self.size, 0)
        self.auction = np.where(is_auction, self.size, 0)

    def build(
        self,
        order: np.ndarray,
        starts: np.ndarray,
        at: np.ndarray,
        grid: np.ndarray,
        clock: BarClock,
        missing: np.ndarray,
        is_hole: np.ndarray,
    ) -> pa.Table:
        """The table: bar `at[i]` of `grid` has the trades order[starts[i] : starts[i + 1]], the others have none."""
        ends = np.append(starts[1:], len(order)) - 1

        def reduce(operation: np.ufunc, values: np.ndarray) -> np.ndarray:
            return operation.reduceat(values[order], starts) if len(order) else values[:0]

        def spread(values: np.ndarray, kind: pa.DataType, is_null: bool = True) -> pa.Array:
            whole = np.zeros(len(grid), values.dtype)
            whole[at] = values
            absent = np.ones(len(grid), bool)
            absent[at] = False
            return pa.array(whole, mask=absent if is_null else None).cast(kind)

        if clock.width_ns:
            begin = clock.begin_ns + grid * clock.width_ns
            end = begin + clock.width_ns
        else:
            begin, end = reduce(np.minimum, self.times), reduce(np.maximum, self.times)
        codes, names = np.unique(self.session.astype(str), return_inverse=True)
        low, high = reduce(np.minimum, names), reduce(np.maximum, names)
        session = np.full(len(grid), None, object)
        session[at] = [str(codes[one]) if one == other else None for one, other in zip(low, high, strict=True)]
        price, whole, real = self.price_type, pa.int64(), pa.float64()
        volume, value = reduce(np.add, self.size), reduce(np.add, self.value)
        counts = ends - starts + 1 if len(order) else starts
        prices = self.price[order]
        columns = {
            "begin": pa.array(begin).cast(self.time_type),
            "end": pa.array(end).cast(self.time_type),
            "session": pa.array(session.tolist(), pa.string()),
            "open": spread(prices[starts] if len(order) else prices, price),
            "high": spread(reduce(np.maximum, self.price), price),
            "low": spread(reduce(np.minimum, self.price), price),
            "close": spread(prices[ends] if len(order) else prices, price),
            "volume": spread(volume, whole, is_null=False),
            "value": spread(value, price, is_null=False),
            "vwap": spread(value / np.maximum(volume, 1), real),
            "count": spread(counts, whole, is_null=False),
            "auction_volume": spread(reduce(np.add, self.auction), whole, is_null=False),
            "recovered_volume": spread(reduce(np.add, self.recovered), whole, is_null=False),
            "missing": pa.array(missing),
            "hole": pa.array(is_hole),
            "flags": spread(reduce(np.bitwise_or, self.flags), whole, is_null=False),
        }
        return pa.table(columns)


def _compute_bins(columns: _Columns, trades: _Trades, clock: BarClock) -> np.ndarray:
    """The number of each trade's bar, int64 (n,)."""
    if clock.width_ns:
        return (columns.times - clock.begin_ns) // clock.width_ns
    if clock.volume:
        return (np.cumsum(columns.size + trades.missing) - 1) // clock.volume
    return np.ceil(np.cumsum(columns.value) / clock.value).astype(np.int64) - 1


def _compute_grid(numbers: np.ndarray, clock: BarClock, dark: Sequence[Span]) -> np.ndarray:
    """The numbers of all bars: by time also those without a trade."""
    if not clock.width_ns:
        return numbers
    ends = [-((clock.begin_ns - end) // clock.width_ns) - 1 for _, end in dark]
    begins = [(begin - clock.begin_ns) // clock.width_ns for begin, _ in dark]
    if not len(numbers) and not dark:
        return numbers
    first = int(numbers[0]) if len(numbers) else min(begins)
    return np.arange(first, max([*ends, *([int(numbers[-1])] if len(numbers) else [])]) + 1)
