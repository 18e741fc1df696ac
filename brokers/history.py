"""Protocol of historical and intraday REST market data, and the dtypes of its rows.

    PageRequest ──fetch_page──> PageResponse(content, next_key) ──parse_*──> arrays, newest first as received

Guarantees:
    * Fetching and parsing are separate, so that a response can be stored and parsed again.
    * A value that the response did not carry is UNDEFINED.
"""

from __future__ import annotations

from datetime import date
from importlib import import_module
from typing import NamedTuple, Protocol

import numpy as np

from brokers.errors import RestError
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


class IntradayTrades(Protocol):
    """Intraday trades with their cumulative volume, which every broker has."""

    PAGE_ROWS: dict[str, int]

    def fetch_page(self, request: PageRequest) -> PageResponse:
        """One call; `kind` is one of PAGE_ROWS. RestError; RateLimited if it exceeded the rate limit."""

    def parse_trades(self, content: bytes, day: date) -> np.ndarray:
        """TRADE_ROW of a page of trades with cumulative volume, dated `day`, newest first; HistoryError."""

    def close(self) -> None:
        """Close the connection."""


class HistoricalData(IntradayTrades, Protocol):
    """All REST market data of one broker."""

    def parse_ticks(self, content: bytes) -> np.ndarray:
        """TRADE_ROW of a page of ticks, newest first; HistoryError if it is not one."""

    def parse_bars(self, content: bytes) -> np.ndarray:
        """BAR_ROW of one minute, newest first; HistoryError."""

    def parse_days(self, content: bytes) -> np.ndarray:
        """DAY_ROW, newest first; HistoryError."""


def open_history(home: Home, broker: str) -> HistoricalData:
    """The market data of a broker with this home's keys. SettingsError if secrets are missing."""
    return import_module(f"brokers.{broker}.history").HISTORY(home)
