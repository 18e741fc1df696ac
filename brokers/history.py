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
    """An answer that cannot be used: refused in words, or not of the form that is documented."""


class PageRequest(NamedTuple):
    """One page asked for. `what`: ticks, prints, bars or days; the key of the page before it says where to go on."""

    kind: str
    instrument: Instrument
    day: date  # the newest day wanted, where the call can say so
    previous_day: bool = False  # prints: of the previous trading day
    until: str = ""  # prints: the newest wanted, Korean time; "HHMM" of Kiwoom, "HHMMSS" of KIS
    key: str = ""


class PageResponse(NamedTuple):
    """An answer that was accepted: its bytes, and the key of the next page ("" when there is none)."""

    content: bytes
    next_key: str


class IntradayTrades(Protocol):
    """What every broker sells: prints with their cumulative volume."""

    PAGE_ROWS: dict[str, int]

    def fetch_page(self, request: PageRequest) -> PageResponse:
        """One call; `what` is one of PAGE_ROWS. RestError; RestLimited when it came too soon."""

    def parse_trades(self, content: bytes, day: date) -> np.ndarray:
        """PRINTS of a page of prints with cumulative volume, dated `day`, newest first; QuotesError."""

    def close(self) -> None:
        """Let go of the connection."""


class HistoricalData(IntradayTrades, Protocol):
    """One broker's whole REST market data."""

    def parse_ticks(self, content: bytes) -> np.ndarray:
        """PRINTS of a page of ticks, newest first; QuotesError when it is none."""

    def parse_bars(self, content: bytes) -> np.ndarray:
        """BARS of one minute, newest first; QuotesError."""

    def parse_days(self, content: bytes) -> np.ndarray:
        """DAYS, newest first; QuotesError."""


def open_history(home: Home, broker: str) -> HistoricalData:
    """The market data of a broker with this home's keys. SettingsError if secrets are missing."""
    return import_module(f"brokers.{broker}.history").HISTORY(home)
