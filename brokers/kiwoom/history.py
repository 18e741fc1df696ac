"""Kiwoom REST market data: tick chart, trade list of a day, minute and day bars; docs/wire/kiwoom.md 1.4, 1.5, 1.7, 5.

    ticks   ka10079   900 rows a page, date and time, no side, no cumulative volume          about 20 trading days back
    trades  ka10084   100 rows a page, side, quotes, cumulative volume                       today and the day before
    bars    ka10080   900 minutes a page, volume and cumulative volume                       about a year
    days    ka10081   600 days a page, volume and value

Guarantees:
    * The return code of every response is checked before its rows.
    * A rejected token is renewed once and the call repeated once.
    * A sign is never taken for part of a value; the one empty row that stands for "nothing" is dropped.
    * A row that cannot be read is rejected, and no other row with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from functools import lru_cache, partial
from typing import Any, ClassVar

import msgspec
import numpy as np

from brokers.errors import RateLimited, RequestRejected, ServiceUnavailable, redact
from brokers.history import BAR_ROW, DAY_ROW, TRADE_ROW, HistoryError, PageRequest, PageResponse, PageRows, read_rows
from brokers.kiwoom.rest import access_token, inner_code
from brokers.transport.rest import LIMITED_WAIT_S, JsonResponse, RestClient
from conf.clock import KST, SECOND_NS
from conf.home import Home
from conf.instrument import Instrument
from conf.loader import load_secrets
from ringbuf.records import UNDEFINED

CHART, STOCK = "/api/dostk/chart", "/api/dostk/stkinfo"
CALLS = {
    "ticks": ("ka10079", CHART),
    "trades": ("ka10084", STOCK),
    "bars": ("ka10080", CHART),
    "days": ("ka10081", CHART),
}
LISTS = {
    "ticks": "stk_tic_chart_qry",
    "trades": "tdy_pred_cntr",
    "bars": "stk_min_pole_chart_qry",
    "days": "stk_dt_pole_chart_qry",
}
SUFFIX = {"KRX": "", "NXT": "_NX", "UN": "_AL"}
EXCHANGE_NAMES = {"KRX": {"KRX"}, "NXT": {"NXT"}, "UN": {"통합", "KRX", "NXT"}}
"""Spellings of the venue of a trade; unified ones may name the exchange."""
KNOWN_EXCHANGES = frozenset().union(*EXCHANGE_NAMES.values())
SIDES = {"+": 1, "-": -1}
MAX_DIGITS = 18
REFRESH_CODES = frozenset({"8003", "8005", "8103"})
RATE_LIMITED_CODES = frozenset({"1687", "1700", "1701", "1702"})


class KiwoomHistory:
    """The calls, with one app key."""

    PAGE_ROWS: ClassVar[dict[str, int]] = {"ticks": 900, "trades": 100, "bars": 900, "days": 600}

    def __init__(self, home: Home) -> None:
        """Read keys; nothing is called yet. SettingsError."""
        url = home.settings.kiwoom.rest_url
        self._url = url.rstrip("/")
        self._token = access_token(url, load_secrets(home.root, "kiwoom"), home.token_path("kiwoom"), home.load_clock())
        self._client = RestClient()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def fetch_page(self, request: PageRequest) -> PageResponse:
        """One page. RateLimited, ServiceUnavailable, RequestRejected, HistoryError."""
        reply = self._call(request)
        if self._error_code(reply) in REFRESH_CODES:
            self._token.invalidate()
            reply = self._call(request)
        self._raise_if_rejected(request, reply)
        has_next = reply.headers.get("cont-yn", "").strip().upper() == "Y"
        key = reply.headers.get("next-key", "").strip()
        if has_next and not key:
            raise HistoryError(f"{_describe(request)}: the response continues, but has no key of the next page")
        rows = reply.body.get(LISTS[request.kind])
        if not isinstance(rows, list):
            raise HistoryError(f"{_describe(request)}: an answer without {LISTS[request.kind]}")
        reject_other_venues(request, rows)
        return PageResponse(reply.content, key if has_next else "")

    def _call(self, request: PageRequest) -> JsonResponse:
        name, path = CALLS[request.kind]
        headers = {"authorization": f"Bearer {self._token.get()}", "api-id": name}
        if request.key:
            headers |= {"cont-yn": "Y", "next-key": request.key}
        return self._client.post(self._url + path, _build_body(request), headers)

    @staticmethod
    def _error_code(reply: JsonResponse) -> str:
        return inner_code(str(reply.body.get("return_msg", reply.body.get("returnMsg", ""))))

    def _raise_if_rejected(self, request: PageRequest, reply: JsonResponse) -> None:
        """An error unless the response reports success (docs/wire/kiwoom.md 1.5)."""
        outer = str(reply.body.get("return_code", reply.body.get("returnCode", f"HTTP {reply.status}"))).strip()
        if outer == "0" and reply.status == 200:
            return
        code = self._error_code(reply)
        text = redact(str(reply.body.get("return_msg", reply.body.get("returnMsg", "no reason given"))))
        message = f"{_describe(request)}: {code or outer}: {text}"
        if code in RATE_LIMITED_CODES or (outer == "5" and code != "1634"):
            raise RateLimited(message, retry_after_s=LIMITED_WAIT_S)
        if reply.status >= 500 or code == "1999" or outer == "0":
            raise ServiceUnavailable(message)
        raise RequestRejected(message)

    def parse_ticks(self, content: bytes) -> PageRows:
        """TRADE_ROW without side and cumulative volume (docs/wire/kiwoom.md 5.1)."""
        return read_rows(_find_rows("ticks", content), TRADE_ROW, _parse_tick)

    def parse_trades(self, content: bytes, day: date) -> PageRows:
        """TRADE_ROW with everything (docs/wire/kiwoom.md 5.5)."""
        return read_rows(_find_rows("trades", content), TRADE_ROW, partial(_parse_trade, day=day))

    def parse_bars(self, content: bytes) -> PageRows:
        """BAR_ROW (docs/wire/kiwoom.md 5.2)."""
        return read_rows(_find_rows("bars", content), BAR_ROW, _parse_bar)

    def parse_days(self, content: bytes) -> PageRows:
        """DAY_ROW (docs/wire/kiwoom.md 5.3)."""
        return read_rows(_find_rows("days", content), DAY_ROW, _parse_day)


def code_of(instrument: Instrument) -> str:
    """The code as Kiwoom writes it (docs/wire/kiwoom.md 4)."""
    return instrument.symbol.removeprefix("Q") + SUFFIX[instrument.venue]


def _build_body(request: PageRequest) -> dict[str, str]:
    body = {"stk_cd": code_of(request.instrument)}
    if request.kind == "trades":
        return body | {"tdy_pred": "2" if request.previous_day else "1", "tic_min": "0", "tm": request.until}
    if request.kind == "ticks":
        return body | {"tic_scope": "1", "upd_stkpc_tp": "0"}
    body |= {"base_dt": f"{request.day:%Y%m%d}", "upd_stkpc_tp": "0"}
    return body | {"tic_scope": "1"} if request.kind == "bars" else body


def _describe(request: PageRequest) -> str:
    return f"{CALLS[request.kind][0]} of {request.instrument}"


def reject_other_venues(request: PageRequest, rows: list[Any]) -> None:
    """HistoryError for trades that name another venue; most responses name none (docs/wire/kiwoom.md 5.4)."""
    exchanges = {
        row["stex_tp"].strip() for row in rows if isinstance(row, dict) and isinstance(row.get("stex_tp"), str)
    }
    if wrong := sorted(exchanges & KNOWN_EXCHANGES - EXCHANGE_NAMES[request.instrument.venue]):
        raise HistoryError(f"{_describe(request)}: the answer is of {', '.join(wrong)}, another venue")


def _find_rows(kind: str, content: bytes) -> list[Any]:
    """The list of a response; none for the one empty row that stands for nothing (docs/wire/kiwoom.md 1.5)."""
    found = msgspec.json.decode(content).get(LISTS[kind])
    if not isinstance(found, list):
        raise HistoryError(f"{CALLS[kind][0]}: {LISTS[kind]} is no list of rows")
    is_nothing = len(found) == 1 and isinstance(found[0], dict) and not any(str(v).strip() for v in found[0].values())
    return [] if is_nothing else found


def _parse_tick(row: Mapping[str, Any]) -> tuple[int, ...]:
    price, size = _parse_price_and_size(row, "trde_qty")
    return (_parse_instant(_parse_text(row, "cntr_tm")), price, size, 0, UNDEFINED, UNDEFINED, UNDEFINED)


def _parse_trade(row: Mapping[str, Any], day: date) -> tuple[int, ...]:
    exchange = row.get("stex_tp") or ""
    if not isinstance(exchange, str) or exchange.strip() not in KNOWN_EXCHANGES | {""}:
        raise HistoryError(f"stex_tp is no exchange: {exchange!r:.40}")
    price, size = _parse_price_and_size(row, "cntr_trde_qty")
    quantity = _parse_text(row, "cntr_trde_qty").strip()
    quotes = (_parse_optional(row, "pri_sel_bid_unit"), _parse_optional(row, "pri_buy_bid_unit"))
    at_ns = _parse_instant(f"{day:%Y%m%d}{_parse_text(row, 'tm')}")
    return (at_ns, price, size, SIDES.get(quantity[0], 0), _parse_number(row, "acc_trde_qty"), *quotes)


def _parse_bar(row: Mapping[str, Any]) -> tuple[int, ...]:
    prices = [_parse_number(row, field) for field in ("open_pric", "high_pric", "low_pric", "cur_prc")]
    sums = (_parse_number(row, "trde_qty"), _parse_optional(row, "acc_trde_qty"))
    return (_parse_instant(_parse_text(row, "cntr_tm")), *prices, *sums)


def _parse_day(row: Mapping[str, Any]) -> tuple[Any, ...]:
    at_ns = _parse_instant(_parse_text(row, "dt") + "000000")
    day = np.datetime64(datetime.fromtimestamp(at_ns // SECOND_NS, KST).date())
    return (day, _parse_number(row, "trde_qty"), _parse_optional(row, "trde_prica"))


def _parse_price_and_size(row: Mapping[str, Any], quantity: str) -> tuple[int, int]:
    price, size = _parse_number(row, "cur_prc"), _parse_number(row, quantity)
    if not price or not size:
        raise HistoryError("a row without price or quantity is no trade")
    return price, size


def _parse_text(row: Mapping[str, Any], field: str) -> str:
    text = row.get(field, "")
    if not isinstance(text, str):
        raise HistoryError(f"{field} is no text: {text!r:.40}")
    return text


def _parse_number(row: Mapping[str, Any], field: str) -> int:
    """A magnitude; leading signs have another meaning (docs/wire/kiwoom.md 1.7)."""
    digits = _parse_text(row, field).strip().lstrip("+-")
    if not (digits.isdigit() and digits.isascii() and len(digits) <= MAX_DIGITS):
        raise HistoryError(f"{field} is no number: {row.get(field)!r:.40}")
    return int(digits)


def _parse_optional(row: Mapping[str, Any], field: str) -> int:
    """A magnitude that the row does not need: UNDEFINED where it cannot be read."""
    try:
        return _parse_number(row, field)
    except HistoryError:
        return UNDEFINED


def _parse_instant(digits: str) -> int:
    """`YYYYMMDDHHmmss` in Korean time, ns since 1970 UTC."""
    hour, minute, second = digits[8:10], digits[10:12], digits[12:]
    if len(digits) == 14 and digits.isascii() and digits.isdigit() and hour < "24" and minute < "60" and second < "60":
        return _parse_midnight(digits[:8]) + (int(hour) * 3600 + int(minute) * 60 + int(second)) * SECOND_NS
    raise HistoryError(f"{digits[:20]!r} is no time: YYYYMMDDHHmmss was expected")


@lru_cache(64)
def _parse_midnight(digits: str) -> int:
    try:
        return int(datetime.strptime(digits, "%Y%m%d").replace(tzinfo=KST).timestamp()) * SECOND_NS
    except ValueError:
        raise HistoryError(f"{digits!r} is no date: YYYYMMDD was expected") from None


HISTORY = KiwoomHistory
"""Looked up by brokers.history."""
