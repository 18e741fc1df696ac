"""KIS REST market data: trades of today with their cumulative volume; docs/wire/kis.md 1.4 to 1.7, 5.

    trades  FHPST01060000   30 rows a call at or before a second, newest first, no side                 today only

Guarantees:
    * The return code of every response is checked before its rows.
    * A rejected token is renewed once and the call repeated once.
    * A row that is not a trade in every required field is rejected, and no other row with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any, ClassVar

import msgspec

from brokers.history import TRADE_ROW, HistoryError, PageRequest, PageResponse, PageRows, read_rows
from brokers.kis.rest import KisRestClient
from conf.clock import DAY_NS, KST, SECOND_NS, parse_time_of_day
from conf.home import Home
from conf.loader import load_secrets
from ringbuf.records import UNDEFINED

PATH = "/uapi/domestic-stock/v1/quotations/inquire-time-itemconclusion"
TR = "FHPST01060000"
DIVISION = {"KRX": "J", "NXT": "NX", "UN": "UN"}
ROWS = "output2"


class KisHistory:
    """The calls, with one app key."""

    PAGE_ROWS: ClassVar[dict[str, int]] = {"trades": 30}

    def __init__(self, home: Home) -> None:
        """Read keys; nothing is called yet. SettingsError."""
        table = home.settings.kis
        secrets = load_secrets(home.root, "kis")
        self._client = KisRestClient(
            table.rest_url, table.customer_type, secrets, home.token_path("kis"), home.load_clock()
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def fetch_page(self, request: PageRequest) -> PageResponse:
        """One page of trades of today, up to the second `until`. RateLimited, ServiceUnavailable, RequestRejected, HistoryError."""
        if request.kind not in self.PAGE_ROWS:
            raise HistoryError(f"not available from KIS: {request.kind}")
        query = {
            "FID_COND_MRKT_DIV_CODE": DIVISION[request.instrument.venue],
            "FID_INPUT_ISCD": request.instrument.symbol,
            "FID_INPUT_HOUR_1": request.until,
        }
        description = f"{TR} of {request.instrument}"
        reply = self._client.get(PATH, TR, query, description)
        if not isinstance(reply.body.get(ROWS), list):
            raise HistoryError(f"{description}: an answer without {ROWS}")
        return PageResponse(reply.content, "")

    def parse_trades(self, content: bytes, day: date) -> PageRows:
        """TRADE_ROW without side, dated `day`; HistoryError."""
        found = msgspec.json.decode(content).get(ROWS)
        if not isinstance(found, list):
            raise HistoryError(f"{ROWS} is no list of rows")
        begin_ns = int(datetime.combine(day, time(), KST).timestamp()) * SECOND_NS
        return read_rows(found, TRADE_ROW, lambda row: _parse_trade(row, begin_ns))


def _parse_trade(row: Mapping[str, Any], begin_ns: int) -> tuple[int, ...]:
    """TRADE_ROW of a row of the day that begins then. HistoryError."""
    # the vendor's own tables disagree about the price's name (docs/wire/kis.md 5)
    price = _parse_number(row, "stck_prpr" if "stck_prpr" in row else "stck_pbpr")
    size, volume = _parse_number(row, "cnqn"), _parse_number(row, "acml_vol")
    if not price or not size:
        raise HistoryError("a row without price or quantity is no trade")
    quotes = (_parse_quote(row, "askp"), _parse_quote(row, "bidp"))
    return (_parse_instant(row, begin_ns), price, size, 0, volume, *quotes)


def _parse_instant(row: Mapping[str, Any], begin_ns: int) -> int:
    """The row's second within the day that begins then, ns since 1970 UTC."""
    digits = str(row.get("stck_cntg_hour"))
    try:
        return parse_time_of_day(digits, begin_ns + DAY_NS // 2)
    except ValueError:
        raise HistoryError(f"{digits[:20]!r} is no time: HHMMSS was expected") from None


def _parse_number(row: Mapping[str, Any], field: str) -> int:
    text = row.get(field)
    if not isinstance(text, str) or not (digits := text.strip()).isascii() or not digits.isdigit() or len(digits) > 18:
        raise HistoryError(f"{field} is no number: {str(text)[:40]!r}")
    return int(digits)


def _parse_quote(row: Mapping[str, Any], field: str) -> int:
    """A quote; UNDEFINED where it cannot be read, since a trade does not need it."""
    try:
        return _parse_number(row, field)
    except HistoryError:
        return UNDEFINED


HISTORY = KisHistory
"""Looked up by brokers.history."""
