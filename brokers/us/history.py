"""KIS overseas REST market data: minute bars (no list of trades exists); docs/wire/kis.md 1.4 to 1.7, 5.

    bars  HHDFS76950200   120 rows a call, newest first, paged by the exchange's time          day market: of today only

Guarantees:
    * A page's key is the minute before its oldest row; the first page of a day begins at the day's end.
    * A row that is not a bar in every field is rejected, and no other row with it; prices are 1/10,000 of a dollar.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar

import msgspec

from brokers.history import BAR_ROW, HistoryError, PageRequest, PageResponse, PageRows, read_rows
from brokers.kis import frame
from brokers.kis.rest import KisRestClient
from brokers.us.decode import EXCHANGE_OF, is_day_market
from conf.clock import KST, parse_instant
from conf.home import Home
from conf.instrument import Instrument
from conf.loader import load_secrets
from conf.market import NEW_YORK
from ringbuf.records import MAX_INT64, UNDEFINED

PATH = "/uapi/overseas-price/v1/quotations/inquire-time-itemchartprice"
TR = "HHDFS76950200"
ROWS = "output2"
KEY_FORM = "%Y%m%d%H%M%S"
MINUTE = timedelta(minutes=1)
DAY_ENDS = "235900"


class UsHistory:
    """The calls, with one app key."""

    PAGE_ROWS: ClassVar[dict[str, int]] = {"bars": 120}

    def __init__(self, home: Home) -> None:
        """Read keys; nothing is called yet. SettingsError."""
        table = home.settings.us
        secrets = load_secrets(home.root, "us")
        self._client = KisRestClient(
            table.rest_url, table.customer_type, secrets, home.token_path("us"), home.load_clock()
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def fetch_page(self, request: PageRequest) -> PageResponse:
        """One page of minute bars up to the key, or to the end of the day. RestError; RateLimited when it came too soon."""
        if request.kind not in self.PAGE_ROWS:
            raise HistoryError(f"the US feed has no {request.kind}")
        description = f"{TR} of {request.instrument}"
        reply = self._client.get(PATH, TR, _build_query(request), description)
        times = [at for row in _find_rows(reply.content, description) if (at := _parse_local_time(row)) is not None]
        # the day market has one day, and pages within it
        return PageResponse(reply.content, f"{times[-1] - MINUTE:{KEY_FORM}}" if times else "")

    def parse_bars(self, content: bytes) -> PageRows:
        """BAR_ROW of one minute, prices in 1/10,000; HistoryError."""
        return read_rows(_find_rows(content, TR), BAR_ROW, _parse_bar)

    def parse_ticks(self, content: bytes) -> PageRows:
        """Not available: HistoryError."""
        raise HistoryError("the US feed has no ticks")

    def parse_trades(self, content: bytes, day: object) -> PageRows:
        """Not available: HistoryError."""
        raise HistoryError("the US feed has no list of trades")

    def parse_days(self, content: bytes) -> PageRows:
        """They are not asked for: HistoryError."""
        raise HistoryError("the US feed has no day chart")


def _build_query(request: PageRequest) -> dict[str, str]:
    """docs/wire/kis.md 5: KEYB wants PINC 1 and NEXT 1; the day market has no earlier days."""
    instrument: Instrument = request.instrument
    today_only = is_day_market(instrument)
    key = request.key or ("" if today_only else f"{request.day:%Y%m%d}{DAY_ENDS}")
    return {
        "AUTH": "",
        "EXCD": EXCHANGE_OF[instrument.venue],
        "SYMB": instrument.symbol,
        "NMIN": "1",
        "PINC": "1" if key else "0",
        "NEXT": "1" if key else "",
        "NREC": "120",
        "FILL": "",
        "KEYB": key,
    }


def _find_rows(content: bytes, description: str) -> list[Any]:
    found = msgspec.json.decode(content).get(ROWS)
    if not isinstance(found, list):
        raise HistoryError(f"{description}: {ROWS} is no list of rows")
    return found


def _parse_bar(row: Mapping[str, Any]) -> tuple[int, ...]:
    """BAR_ROW of a row. ValueError."""
    at_ns = parse_instant(NEW_YORK, str(row.get("xymd")), str(row.get("xhms")), _parse_korean_ns(row))
    prices = [frame.parse_price_e4(str(row.get(field)).strip().encode()) for field in ("open", "high", "low", "last")]
    volume = frame.parse_uint(str(row.get("evol")).strip().encode())
    if max(*prices, volume) > MAX_INT64:
        raise ValueError("a number of a bar is larger than any price or volume")
    return (at_ns, *prices, volume, UNDEFINED)


def _parse_local_time(row: object) -> datetime | None:
    """The exchange's time of a row; None where it cannot be read."""
    try:
        return datetime.strptime(f"{row.get('xymd')}{row.get('xhms')}", KEY_FORM) if isinstance(row, dict) else None
    except ValueError:
        return None


def _parse_korean_ns(row: Mapping[str, Any]) -> int:
    """Korea's time of a bar, which distinguishes the two hours of a night in which clocks are set back."""
    return parse_instant(KST, str(row.get("kymd")), str(row.get("khms")), 0)


HISTORY = UsHistory
"""Looked up by brokers.history."""
