"""KIS's REST quotations: the gateway's checks, and one function for each call.

    GET /uapi/domestic-stock/v1/quotations/NAME      authorization: Bearer TOKEN, appkey, tr_id      -> rt_cd, msg_cd, output

Promises: answers come from the market's own ledger, all values strings (spec kis 1.5); an unknown token, TR or market division
gets its gateway code (spec kis 1.7).
Leaves to others: tokens (kis_keys.py). Served is what client libraries ask before they subscribe; the calls of spec kis 5, and the
throughput limit of 1.6, are added here, each call as a line of QUOTATIONS.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from aiohttp import web

from brokers.simulator import kis_wire
from brokers.simulator.kis_keys import Keys
from brokers.simulator.ledger import Day
from brokers.simulator.market import Market
from conf.instrument import Instrument

BASE = "/uapi/domestic-stock/v1/quotations/"
DIVISIONS = {"J": "KRX", "NX": "NXT", "UN": "UN"}
STOCK = "300"


class QuotationError(Exception):
    """A call that is refused: msg_cd and msg1."""

    def __init__(self, code: str, text: str, rt_cd: str = "1") -> None:
        super().__init__(code)
        self.code, self.text, self.rt_cd = code, text, rt_cd


def inquire_price(day: Day | None, symbol: str) -> dict[str, str]:
    """Price, day range, volume and limits; a code that is not listed has a price of zero."""
    if day is None:
        return {"stck_prpr": "0", "stck_shrn_iscd": symbol}
    price = day.last or day.previous_close
    change = price - day.previous_close
    return {
        "rprs_mrkt_kor_name": "KOSPI",
        "stck_prpr": str(price),
        "prdy_vrss": str(change),
        "prdy_vrss_sign": kis_wire.sign(price, day),
        "prdy_ctrt": kis_wire.ratio(change, day.previous_close),
        "acml_tr_pbmn": str(day.cum_value),
        "acml_vol": str(day.cum_volume),
        "stck_oprc": str(day.open),
        "stck_hgpr": str(day.high),
        "stck_lwpr": str(day.low),
        "stck_mxpr": str(day.upper),
        "stck_llam": str(day.lower),
        "stck_sdpr": str(day.previous_close),
        "stck_shrn_iscd": symbol,
    }


def search_info(day: Day | None, symbol: str) -> dict[str, str]:
    """Master data; nothing is known but the code."""
    if day is None:
        raise QuotationError("KIER2620", "조회할 자료가 없습니다", "7")
    name = f"SIM {symbol}"
    names = ("prdt_name", "prdt_name120", "prdt_abrv_name", "prdt_eng_name", "prdt_eng_name120", "prdt_eng_abrv_name")
    return {
        "pdno": symbol.rjust(12, "0"),
        "shtn_pdno": symbol,
        "std_pdno": f"KR7{symbol}003",
        "prdt_type_cd": STOCK,
        **dict.fromkeys(names, name),
    }


QUOTATIONS: Mapping[str, tuple[str, Callable[[Day | None, str], dict[str, str]]]] = {
    "inquire-price": ("FHKST01010100", inquire_price),
    "search-info": ("CTPF1604R", search_info),
}


class Quotations:
    """The calls over one market."""

    def __init__(self, keys: Keys, market: Market) -> None:
        self.keys = keys
        self.market = market

    def routes(self) -> list[web.RouteDef]:
        """One route for all calls."""
        return [web.get(BASE + "{name}", self.answer)]

    async def answer(self, request: web.Request) -> web.Response:
        """Check as the gateway does, then answer from the ledger; HTTP 500 carries a gateway's refusal."""
        try:
            output = self._output(request)
        except QuotationError as refusal:
            body = {"rt_cd": refusal.rt_cd, "msg_cd": refusal.code, "msg1": refusal.text}
            return web.json_response(body, status=200 if refusal.rt_cd == "7" else 500)
        headers = {"tr_id": request.headers["tr_id"], "tr_cont": "", "gt_uid": f"{time.monotonic_ns():032x}"}
        body = {"output": output, "rt_cd": "0", "msg_cd": "MCA00000", "msg1": "정상처리 되었습니다."}
        return web.json_response(body, headers=headers)

    def _output(self, request: web.Request) -> dict[str, str]:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.keys.holder(token) is None:
            raise QuotationError("EGW00121", "유효하지 않은 token 입니다.")
        tr_id, call = QUOTATIONS.get(request.match_info["name"], ("", None))
        if call is None or request.headers.get("tr_id") != tr_id:
            raise QuotationError("OPSQ0002", "없는 서비스 코드 입니다.")
        division = DIVISIONS.get(request.query.get("FID_COND_MRKT_DIV_CODE", "J"))
        if division is None:
            raise QuotationError("OPSQ2001", "ERROR : INPUT INVALID_CHECK_MRKT_DIV_CODE")
        symbol = request.query.get("FID_INPUT_ISCD") or request.query.get("PDNO", "")
        listing = self.market.listings.get(Instrument(symbol, division))
        return call(listing.day if listing else None, symbol)
