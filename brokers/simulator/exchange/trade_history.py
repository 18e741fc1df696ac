"""Trade history of one instrument: every trade in order, in compact columns from which REST responses are built (pure).

    rows   0 ......... 299 | 300 ................... 41_107 | 41_108 ...     ROW, 65 bytes a trade
    days   first 0, Day     first 300, Day                    first 41_108, Day (the one that still grows)

Guarantees:
    * Trades are only appended and never change place, so a row's number is a cursor.
    * A day's totals include what was traded off the book; groups never span two days.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from brokers.simulator.exchange.models import DailyStats, Trade

ROW = np.dtype(
    [
        ("exch_s", "<i8"),
        ("price", "<i4"),
        ("size", "<i4"),
        ("side", "i1"),
        ("cum_volume", "<i8"),
        ("cum_value", "<i8"),
        ("sells", "<i4"),
        ("buys", "<i4"),
        ("sell_volume", "<i8"),
        ("buy_volume", "<i8"),
        ("ask_price_1", "<i4"),
        ("bid_price_1", "<i4"),
    ]
)
"""Won, shares, seconds since 1970 UTC; the day's sums as they stood after the trade, the best quotes it left behind."""

KOREA_S = 9 * 3600
DAY_S = 86_400

GroupSplitter = Callable[[int, int], np.ndarray]
"""(first row, end) of a part of one day -> the numbers of the rows that begin a group, ascending, the first one first."""


class TradingDay(NamedTuple):
    """The number of a day's first row, and its ledger."""

    first: int
    day: DailyStats


class TradeGroups(NamedTuple):
    """Neighbouring trades put together, oldest first; arrays of shape (n,), and one Day for each."""

    first: np.ndarray
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    last: np.ndarray
    size: np.ndarray
    """Shares of the trades in the group."""
    volume: np.ndarray
    """What the day's cumulative volume grew by, off-book volume since the group before included."""
    rows: np.ndarray
    """The group's last trade, ROW."""
    days: list[DailyStats]


class TradeHistory:
    """One instrument's trades."""

    def __init__(self) -> None:
        self.days: list[TradingDay] = []
        self._columns = {name: np.zeros(256, ROW[name]) for name in ROW.names or ()}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def read_column(self, name: str, first: int = 0, end: int | None = None) -> np.ndarray:
        """One field of the trades `first` .. `end`: a view, good until the next trade."""
        return self._columns[name][first : self._length if end is None else end]

    def read_rows(self, first: int = 0, end: int | None = None) -> np.ndarray:
        """The trades `first` .. `end`, ROW, shape (n,): a copy."""
        return self._copy_rows(slice(first, self._length if end is None else end))

    def _copy_rows(self, places: slice | np.ndarray) -> np.ndarray:
        columns = {name: column[places] for name, column in self._columns.items()}
        rows = np.empty(len(columns["exch_s"]), ROW)
        for name, column in columns.items():
            rows[name] = column
        return rows

    def find_price(self, exch_s: int) -> int:
        """The last price up to a second; 0 before the first trade."""
        place = int(np.searchsorted(self.read_column("exch_s"), exch_s, "right"))
        return int(self.read_column("price")[place - 1]) if place else 0

    def begin_day(self, day: DailyStats) -> None:
        """A day begins; one before it without any trade leaves no mark."""
        if self.days and self.days[-1].first == self._length:
            self.days.pop()
        self.days.append(TradingDay(self._length, day))

    def append(self, trade: Trade) -> None:
        """Append one trade of the day that began last."""
        day, book = trade.day, trade.book
        self.extend(
            [build_row(trade.exch_s, trade.price, trade.size, trade.side, day, book.ask_price[0], book.bid_price[0])]
        )

    def extend(self, rows: Sequence[tuple[int, ...]]) -> None:
        """Append many trades, each as made by `row`."""
        if not rows:
            return
        end = self._length + len(rows)
        for (name, column), values in zip(self._columns.items(), zip(*rows, strict=True), strict=True):
            if end > len(column):
                column = np.concatenate((column, np.zeros(max(len(column), len(rows)), column.dtype)))
                self._columns[name] = column
            column[self._length : end] = values
        self._length = end

    def list_traded_days(self) -> list[TradingDay]:
        """The days that have trades, oldest first."""
        return self.days[:-1] if self.days and self.days[-1].first == self._length else self.days

    def find_day_rows(self, number: int) -> tuple[int, int]:
        """First row and end of the day `number` of `traded()`."""
        days = self.list_traded_days()
        return days[number].first, days[number + 1].first if number + 1 < len(days) else self._length

    def count_days_until(self, date: str) -> int:
        """How many of `traded()` are not younger than `date`, YYYYMMDD."""
        return sum(one.day.date <= date for one in self.list_traded_days())

    def find_horizon(self, max_days: int) -> int:
        """The first row of the last `most_days` days."""
        days = self.list_traded_days()[-max_days:]
        return days[0].first if days else self._length

    def split_by_count(self, number: int) -> GroupSplitter:
        """Groups of `number` trades, counted from the day's first."""
        return lambda first, end: np.arange(first, end, number)

    def split_by_minute(self, minutes: int) -> GroupSplitter:
        """Groups of all trades of `minutes` clock minutes."""
        length_s = 60 * minutes

        def divide(first: int, end: int) -> np.ndarray:
            seconds = self.read_column("exch_s", first, end)
            edges = np.arange(seconds[0] // length_s + 1, seconds[-1] // length_s + 1) * length_s
            return np.unique(np.concatenate(([0], np.searchsorted(seconds, edges)))) + first

        return divide

    def build_groups(self, end: int, max_groups: int, oldest: int, divide: GroupSplitter) -> TradeGroups | None:
        """The newest `max_groups` groups of the rows `oldest` .. `end`; None without trades."""
        starts: list[np.ndarray] = []
        found, stop = 0, end
        for first, _ in reversed(self.list_traded_days()):
            if first >= stop or stop <= oldest or found >= max_groups:
                continue
            begun = divide(first, stop)[-(max_groups - found) :]
            starts.insert(0, begun)
            found, stop = found + len(begun), first
        return self._aggregate(np.concatenate(starts), end) if found else None

    def _aggregate(self, starts: np.ndarray, end: int) -> TradeGroups:
        low = int(starts[0])
        places, last = starts - low, np.append(starts[1:], end) - 1
        price, size, cum_volume = self.read_column("price"), self.read_column("size"), self.read_column("cum_volume")
        firsts = np.array([one.first for one in self.list_traded_days()])
        numbers = np.searchsorted(firsts, starts, "right") - 1
        before = np.where(starts == firsts[numbers], 0, cum_volume[np.maximum(starts - 1, 0)])
        return TradeGroups(
            starts,
            price[starts],
            np.maximum.reduceat(price[low:end], places),
            np.minimum.reduceat(price[low:end], places),
            price[last],
            np.add.reduceat(size[low:end], places, dtype=np.int64),
            cum_volume[last] - before,
            self._copy_rows(last),
            [self.list_traded_days()[number].day for number in numbers.tolist()],
        )


def build_row(exch_s: int, price: int, size: int, side: int, day: DailyStats, ask: int, bid: int) -> tuple[int, ...]:
    """One trade as a ROW; `day` after the trade."""
    sums = (day.cum_volume, day.cum_value, day.sells, day.buys, day.sell_volume, day.buy_volume)
    return (exch_s, price, size, side, *sums, ask, bid)


def format_hhmmss(exch_s: int) -> str:
    """The Korean time of day of a second."""
    of_day = (exch_s + KOREA_S) % DAY_S
    return f"{of_day // 3600:02}{of_day // 60 % 60:02}{of_day % 60:02}"
