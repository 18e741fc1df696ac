"""Kiwoom's list of symbols, ka10099; docs/wire/kiwoom.md 5.9, docs/symbols.md.

Guarantees:
    * The return code of every page is checked before its rows; a rejected token is renewed once and the call repeated once.
    * A page with a row that cannot be read is refused.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from brokers.errors import RateLimited, RequestRejected, ServiceUnavailable, redact
from brokers.kiwoom.rest import access_token, inner_code
from brokers.symbols import SymbolListError, SymbolRow, read_choice, read_date, read_number
from brokers.transport.rest import LIMITED_WAIT_S, JsonResponse, RestClient
from conf.home import Home
from conf.loader import load_secrets
from conf.text.escape import escape_controls

LISTS = {"KOSPI": "0", "KOSDAQ": "10", "KONEX": "50"}
"""The list of each market; that of KOSPI has its ETFs, ETNs and REITs as well."""
KINDS = {
    **dict.fromkeys(("0", "10", "50"), "STOCK"),
    **dict.fromkeys(("60", "70", "90"), "ETN"),
    "2": "INFRASTRUCTURE",
    "3": "ELW",
    "4": "FUND",
    "5": "RIGHT",
    "6": "REIT",
    "7": "WARRANT",
    "8": "ETF",
    "9": "FUND",
}
"""By marketCode, which is the kind of product and no market."""
ELIGIBLE = {"Y": True, "N": False, "": False, " ": False}
HALTED, MANAGED, LIQUIDATION = "거래정지", "관리종목", "정리매매"
SPAC_CLASSES = frozenset({"스팩", "SPAC", "기업인수목적회사"})
MAX_PAGES, MAX_PAGE_BYTES = 20, 8 << 20
REFRESH_CODES = frozenset({"8003", "8005", "8103"})
RATE_LIMITED_CODES = frozenset({"1687", "1700", "1701", "1702"})


class KiwoomSymbols:
    """The calls, with the first app key."""

    def __init__(self, home: Home) -> None:
        """Read keys; nothing is called yet. SettingsError."""
        url, recover = home.settings.kiwoom.rest_url, home.settings.recover
        self._url = f"{url.rstrip('/')}/api/dostk/stkinfo"
        self._token = access_token(url, load_secrets(home.root, "kiwoom"), home.token_path("kiwoom"), home.load_clock())
        self._pause_s, self._attempts = 1 / recover.calls_per_s_first, recover.attempts

    def __call__(self) -> list[SymbolRow]:
        """The rows of all markets. RestError."""
        rows: list[SymbolRow] = []
        with RestClient(MAX_PAGE_BYTES) as client:
            for market in LISTS:
                rows += self._fetch_market(client, market)
        return rows

    def _fetch_market(self, client: RestClient, market: str) -> list[SymbolRow]:
        rows: list[SymbolRow] = []
        key = ""
        for _ in range(MAX_PAGES):
            reply = self._fetch_page(client, market, key)
            rows += parse_list(reply.content, market)
            key = reply.headers.get("next-key", "").strip()
            if reply.headers.get("cont-yn", "").strip().upper() != "Y":
                return rows
            if not key:
                raise SymbolListError(f"{_describe(market)}: the list continues, but has no key of the next page")
        raise SymbolListError(f"{_describe(market)}: more than {MAX_PAGES} pages")

    def _fetch_page(self, client: RestClient, market: str, key: str) -> JsonResponse:
        for attempt in range(self._attempts):
            if attempt or key or market != "KOSPI":
                time.sleep(self._pause_s)
            try:
                reply = self._call(client, market, key)
                if _error_code(reply) in REFRESH_CODES:
                    self._token.invalidate()
                    reply = self._call(client, market, key)
                _raise_if_rejected(reply, market)
                return reply
            except RateLimited:
                if attempt + 1 == self._attempts:
                    raise
        raise AssertionError("recover.attempts is at least 1")

    def _call(self, client: RestClient, market: str, key: str) -> JsonResponse:
        headers = {"authorization": f"Bearer {self._token.get()}", "api-id": "ka10099"}
        if key:
            headers |= {"cont-yn": "Y", "next-key": key}
        return client.post(self._url, {"mrkt_tp": LISTS[market]}, headers)


def parse_list(content: bytes, market: str) -> list[SymbolRow]:
    """The rows of a page of a market's list. SymbolListError."""
    where = _describe(market)
    try:
        found = msgspec.json.decode(content)
    except msgspec.DecodeError:
        raise SymbolListError(f"{where}: no JSON") from None
    listed = found.get("list") if isinstance(found, dict) else None
    if not isinstance(listed, list) or not listed:
        raise SymbolListError(f"{where}: an answer without rows")
    return [_parse_row(row, market, f"{where} row {number}") for number, row in enumerate(listed, 1)]


def _parse_row(row: object, market: str, where: str) -> SymbolRow:
    if not isinstance(row, dict):
        raise SymbolListError(f"{where}: no object")

    def text(key: str, default: str | None = None) -> str:
        found = row.get(key, default)
        if not isinstance(found, str):
            raise SymbolListError(f"{where}: {key} {found!r:.40} is no text")
        return found.strip()

    code, name, product = text("code"), text("name"), text("marketCode")
    if not re.fullmatch("[0-9A-Z]{6,9}", code) or not name:
        raise SymbolListError(f"{where}: code {code!r:.20} or name {name!r:.60} is none")
    kind = KINDS.get(product)
    if kind == "STOCK" and text("companyClassName", "") in SPAC_CLASSES:
        kind = "SPAC"
    marks = {mark.strip() for field in ("state", "auditInfo") for mark in text(field).split("|")}
    close = read_number(text("lastPrice"), f"{where}: lastPrice")
    shares = read_number(text("listCount"), f"{where}: listCount")
    return SymbolRow(
        f"Q{code}" if kind == "ETN" and len(code) == 6 else code,
        escape_controls(name),
        market,
        kind,
        previous_close=close,
        listed_shares=shares,
        market_cap=close * shares if close and shares else None,
        listed_date=read_date(text("regDay"), f"{where}: regDay"),
        halted=HALTED in marks,
        managed=MANAGED in marks,
        liquidation=LIQUIDATION in marks or text("orderWarning", "0") == "2",
        nxt_eligible=read_choice(text("nxtEnable", ""), ELIGIBLE, f"{where}: nxtEnable"),
    )


def _describe(market: str) -> str:
    return f"ka10099 of {market}"


def _error_code(reply: JsonResponse) -> str:
    return inner_code(_message(reply.body))


def _message(body: Mapping[str, Any]) -> str:
    return str(body.get("return_msg", body.get("returnMsg", "no reason given")))


def _raise_if_rejected(reply: JsonResponse, market: str) -> None:
    """An error unless the response reports success (docs/wire/kiwoom.md 1.5)."""
    outer = str(reply.body.get("return_code", reply.body.get("returnCode", f"HTTP {reply.status}"))).strip()
    if outer == "0" and reply.status == 200:
        return
    code = _error_code(reply)
    message = f"{_describe(market)}: {code or outer}: {redact(_message(reply.body))}"
    if code in RATE_LIMITED_CODES or outer == "5":
        raise RateLimited(message, retry_after_s=LIMITED_WAIT_S)
    raise (ServiceUnavailable if reply.status >= 500 or outer == "0" else RequestRejected)(message)


SYMBOLS: Callable[[Home], Callable[[], list[SymbolRow]]] = KiwoomSymbols
"""Looked up by brokers.symbols."""
