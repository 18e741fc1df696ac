"""Protocol of historical and intraday REST market data, and the dtypes of its rows.

    PageRequest ──fetch_page──> PageResponse(content, next_key) ──parse_*──> PageRows: newest first as received, and the rejects

Guarantees:
    * Fetching and parsing are separate, so that a response can be stored and parsed again.
    * A value that the response did not carry is UNDEFINED.
    * A row that cannot be read costs no other row: it is left out, and the page has the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from importlib import import_module
from typing import Any, NamedTuple, Protocol

import numpy as np

from brokers.errors import RestError
from conf.clock import MINUTE_NS, SECOND_NS
from conf.home import Home
from conf.instrument import Instrument

TRADE_ROW = np.dtype(
    [
        ("exch_ns", "<i8"),  # whole seconds
        ("price", "<i8"),  # won
        ("size", "<i8"),
        ("side", "i1"),  # 1 buy, -1 sell, 0 auction or unknown
        ("cum_volume", "<i8"),
        ("ask_price_1", "<i8"),
        ("bid_price_1", "<i8"),
    ]
)
BAR_ROW = np.dtype(
    [
        ("exch_ns", "<i8"),  # the bar's first second
        ("open", "<i8"),
        ("high", "<i8"),
        ("low", "<i8"),
        ("close", "<i8"),
        ("volume", "<i8"),
        ("cum_volume", "<i8"),
    ]
)
DAY_ROW = np.dtype([("date", "<M8[D]"), ("volume", "<i8"), ("value_m", "<i8")])
"""Shares, and won in millions."""
BAR_SETTLE_NS = 10 * SECOND_NS
"""How long after its end a minute may still change: the vendor's clock and its lists are somewhat behind."""
MAX_REASON_CHARS = 120


class HistoryError(RestError):
    """A response that cannot be used: rejected, or not of the documented form."""


class PageRequest(NamedTuple):
    """Request of one page. `kind`: ticks, trades, bars or days; `key` of the previous page continues it."""

    kind: str
    instrument: Instrument
    day: date  # the newest day wanted, where the call has such a parameter
    previous_day: bool = False  # trades: of the previous trading day
    until: str = ""  # trades: the newest wanted, Korean time; "HHMM" of Kiwoom, "HHMMSS" of KIS
    key: str = ""


class PageResponse(NamedTuple):
    """An accepted response: its bytes, and the key of the next page ("" for none)."""

    content: bytes
    next_key: str


class PageRows(NamedTuple):
    """The rows of a page, newest first as received; `rejects`: why each row that is not among them could not be read."""

    rows: np.ndarray
    rejects: list[str]


def read_rows(
    found: Sequence[object], dtype: np.dtype, read: Callable[[Mapping[str, Any]], tuple[int, ...]]
) -> PageRows:
    """Each row as `read` makes it of its fields; HistoryError or ValueError of `read` rejects that row alone."""
    rows, rejects = [], []
    for row in found:
        try:
            if not isinstance(row, dict):
                raise HistoryError(f"a row is no object: {row!r:.40}")
            rows.append(read(row))
        except (HistoryError, ValueError) as error:
            rejects.append(str(error)[:MAX_REASON_CHARS])
    return PageRows(np.array(rows, dtype), rejects)


def keep_finished_bars(bars: np.ndarray, asked_ns: int) -> np.ndarray:
    """BAR_ROW without minutes that were not over when they were asked for, and without those in which nothing was traded.

    Vendors fill minutes of the future, and of an auction, with the last price (docs/wire/kis.md 5).
    """
    return bars[(bars["volume"] > 0) & (bars["exch_ns"] + MINUTE_NS + BAR_SETTLE_NS <= asked_ns)]


def format_rejects(rejects: Sequence[str]) -> str:
    """How many rows could not be read, and why not the first."""
    return f"{len(rejects)} rows of the broker's list cannot be read, the first: {rejects[0]}"


class IntradayTrades(Protocol):
    """Intraday trades with their cumulative volume, which every broker has."""

    PAGE_ROWS: dict[str, int]

    def fetch_page(self, request: PageRequest) -> PageResponse:
        """One call; `kind` is one of PAGE_ROWS. RestError; RateLimited if it exceeded the rate limit."""

    def parse_trades(self, content: bytes, day: date) -> PageRows:
        """TRADE_ROW of a page of trades with cumulative volume, dated `day`; HistoryError if it has no list."""

    def close(self) -> None:
        """Close the connection."""


class HistoricalData(IntradayTrades, Protocol):
    """All REST market data of one broker."""

    def parse_ticks(self, content: bytes) -> PageRows:
        """TRADE_ROW of a page of ticks; HistoryError if it has no list."""

    def parse_bars(self, content: bytes) -> PageRows:
        """BAR_ROW of one minute; HistoryError."""

    def parse_days(self, content: bytes) -> PageRows:
        """DAY_ROW; HistoryError."""


def open_history(home: Home, broker: str) -> HistoricalData:
    """The market data of a broker with this home's keys. SettingsError if secrets are missing."""
    return import_module(f"brokers.{broker}.history").HISTORY(home)
