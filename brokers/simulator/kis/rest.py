"""KIS REST server: the gateway's checks, and one function per call.

    GET /uapi/domestic-stock/v1/quotations/NAME      authorization: Bearer TOKEN, appkey, tr_id      -> rt_cd, msg_cd, output

Guarantees:
    * Responses come from the market's own totals, every value a string (docs/wire/kis.md 1.5).
    * An unknown token, TR, market division or code gets its gateway code (docs/wire/kis.md 1.7); the rate limit of 1.6 holds per
      appkey.
    * Names of parameters are taken in either case, and a path with any number of leading slashes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from aiohttp import web

from brokers.simulator.exchange.consolidated import AnyListing
from brokers.simulator.exchange.market import SimulatedMarket
from brokers.simulator.exchange.models import DailyStats
from brokers.simulator.exchange.price_grid import find_tick_size
from brokers.simulator.faults import FeedFaults
from brokers.simulator.gateway.token_bucket import TokenBucket
from brokers.simulator.kis import encode, rest_bars, rest_book, rest_trades
from brokers.simulator.kis.auth import ANY_SLASHES, KeyStore
from conf.instrument import Instrument

BASE = "uapi/domestic-stock/v1/quotations/"
HUNDRED_MILLION = 100_000_000
DIVISIONS = {"J": "KRX", "NX": "NXT", "UN": "UN"}
STOCK = "300"
NEXT_KEY = "ctx_area_nk"
"""The output that names the next page."""
CONTINUED = {"rt_cd": "0", "msg_cd": "KIOK0500", "msg1": "조회가 계속됩니다..다음버튼을 Click 하십시오."}


class QuotationError(Exception):
    """A call that is refused: msg_cd and msg1."""

    def __init__(self, code: str, text: str, rt_cd: str = "1") -> None:
        super().__init__(code)
        self.code, self.text, self.rt_cd = code, text, rt_cd


def inquire_price(day: DailyStats, symbol: str) -> dict[str, str]:
    """Price, day range, volume and limits."""
    price = day.last or day.previous_close
    change = price - day.previous_close
    return {
        "rprs_mrkt_kor_name": "KOSPI",
        "stck_prpr": str(price),
        "prdy_vrss": str(change),
        "prdy_vrss_sign": encode.encode_sign(price, day),
        "prdy_ctrt": encode.format_ratio(change, day.previous_close),
        "acml_tr_pbmn": str(day.cum_value),
        "acml_vol": str(day.cum_volume),
        "stck_oprc": str(day.open),
        "stck_hgpr": str(day.high),
        "stck_lwpr": str(day.low),
        "stck_mxpr": str(day.upper),
        "stck_llam": str(day.lower),
        "stck_sdpr": str(day.previous_close),
        "stck_shrn_iscd": symbol,
        "aspr_unit": str(find_tick_size(price)),
        "prdy_vrss_vol_rate": encode.format_ratio(day.cum_volume, day.previous_volume),
        "hts_avls": str(price * day.listed_shares // HUNDRED_MILLION),
        "mrkt_warn_cls_code": "00",
        "temp_stop_yn": "N",
        "short_over_yn": "N",
    }


def search_info(day: DailyStats, symbol: str) -> dict[str, str]:
    """Master data; nothing is known but the code."""
    name = f"SIM {symbol}"
    names = ("prdt_name", "prdt_name120", "prdt_abrv_name", "prdt_eng_name", "prdt_eng_name120", "prdt_eng_abrv_name")
    return {
        "pdno": symbol.rjust(12, "0"),
        "shtn_pdno": symbol,
        "std_pdno": f"KR7{symbol}003",
        "prdt_type_cd": STOCK,
        **dict.fromkeys(names, name),
    }


Call = Callable[[AnyListing, Mapping[str, str], int], dict[str, object]]
"""(listing, query, the exchange's second) -> outputs. InputError."""
MarketCall = Callable[[Mapping[str, str]], dict[str, object]]
"""A call about no instrument: query -> outputs. InputError."""


def _wrap_day_call(call: Callable[[DailyStats, str], dict[str, str]]) -> Call:
    """A call that needs no more than the day."""

    def answer(listing: AnyListing, query: Mapping[str, str], now_s: int) -> dict[str, object]:
        return {"output": call(listing.day, _read_symbol(query))}

    return answer


def _read_symbol(query: Mapping[str, str]) -> str:
    return query.get("FID_INPUT_ISCD") or query.get("PDNO", "")


class CallTable(NamedTuple):
    """Where calls are made, name -> TR id and answer, and which instrument a query is about (QuotationError)."""

    base: str
    calls: Mapping[str, tuple[str, Call]]
    find_instrument: Callable[[Mapping[str, str]], Instrument]
    market_calls: Mapping[str, tuple[str, MarketCall]] = {}


def _read_instrument(query: Mapping[str, str]) -> Instrument:
    division = DIVISIONS.get(query.get("FID_COND_MRKT_DIV_CODE", "J"))
    if division is None:
        raise QuotationError("OPSQ2001", "ERROR : INPUT INVALID_CHECK_MRKT_DIV_CODE")
    return Instrument(_read_symbol(query), division)


QUOTATIONS: Mapping[str, tuple[str, Call]] = {
    "inquire-price": ("FHKST01010100", _wrap_day_call(inquire_price)),
    "search-info": ("CTPF1604R", _wrap_day_call(search_info)),
    "inquire-ccnl": ("FHKST01010300", rest_trades.inquire_ccnl),
    "inquire-time-itemconclusion": ("FHPST01060000", rest_trades.inquire_time_itemconclusion),
    "inquire-time-itemchartprice": ("FHKST03010200", rest_bars.inquire_time_itemchartprice),
    "inquire-time-dailychartprice": ("FHKST03010230", rest_bars.inquire_time_dailychartprice),
    "inquire-asking-price-exp-ccn": ("FHKST01010200", rest_book.inquire_asking_price_exp_ccn),
}


DOMESTIC = CallTable(BASE, QUOTATIONS, _read_instrument)


class QuotationRoutes:
    """The calls over one market; `now_s()` is the exchange's second."""

    def __init__(
        self,
        keys: KeyStore,
        market: SimulatedMarket,
        calls_per_s: float,
        faults: FeedFaults,
        now_s: Callable[[], int],
        call_table: CallTable = DOMESTIC,
    ) -> None:
        self.call_table = call_table
        self.keys = keys
        self.market = market
        self.faults = faults
        self.now_s = now_s
        self.token_bucket = TokenBucket(calls_per_s, calls_per_s)

    def build_routes(self) -> list[web.RouteDef]:
        """One route for all calls."""
        return [web.get(f"/{ANY_SLASHES}{self.call_table.base}{{name}}", self.handle)]

    async def handle(self, request: web.Request) -> web.Response:
        """Check as the gateway does, then answer from the ledger; HTTP 500 carries a gateway's refusal."""
        if self.faults.take("error"):
            if self.faults.pending["error"] % 2 == 0:
                return web.Response(
                    status=502, text="<html><body>502 Bad Gateway</body></html>", content_type="text/html"
                )
            return _build_refusal(QuotationError("EGW00002", "서버 에러가 발생했습니다."))
        try:
            outputs = self._compute_outputs(request)
        except QuotationError as refusal:
            return _build_refusal(refusal)
        continues = "" if not outputs.get(NEXT_KEY) else "M" if request.headers.get("tr_cont") == "N" else "F"
        headers = {"tr_id": request.headers["tr_id"], "tr_cont": continues, "gt_uid": f"{time.monotonic_ns():032x}"}
        body = outputs | (
            CONTINUED if continues else {"rt_cd": "0", "msg_cd": "MCA00000", "msg1": "정상처리 되었습니다."}
        )
        return web.json_response(body, headers=headers)

    def _compute_outputs(self, request: web.Request) -> dict[str, object]:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        app_key = self.keys.find_holder(token)
        if app_key is None and self.keys.is_expired(token):
            raise QuotationError("EGW00123", "기간이 만료된 token 입니다.")
        if app_key is None:
            raise QuotationError("EGW00121", "유효하지 않은 token 입니다.")
        if self.faults.take("limit"):
            raise QuotationError("EGW00201", "초당 거래건수를 초과하였습니다.")
        if not self.token_bucket.try_acquire(app_key, time.monotonic()):
            raise QuotationError("EGW00201", "초당 거래건수를 초과하였습니다.")
        name, query = request.match_info["name"], {key.upper(): value for key, value in request.query.items()}
        tr_id, market_call = self.call_table.market_calls.get(name, ("", None))
        tr_id, call = self.call_table.calls.get(name, (tr_id, None))
        if not tr_id or request.headers.get("tr_id") != tr_id:
            raise QuotationError("OPSQ0002", "없는 서비스 코드 입니다.")
        try:
            if market_call is not None:
                return market_call(query)
            listing = self.market.listings.get(self.call_table.find_instrument(query))
            if listing is None or call is None:
                raise QuotationError("KIER2620", "조회할 자료가 없습니다", "7")
            outputs = call(listing, query, self.now_s())
            rows = outputs.get("output2")
            if isinstance(rows, list) and len(rows) > 2 and "cnqn" in rows[0] and self.faults.take("omitrow"):
                del rows[len(rows) // 2]
            return outputs
        except rest_trades.InputError as error:
            raise QuotationError("OPSQ2001", f"ERROR : INPUT INVALID_CHECK_{error}") from None


def _build_refusal(refusal: QuotationError) -> web.Response:
    body = {"rt_cd": refusal.rt_cd, "msg_cd": refusal.code, "msg1": refusal.text}
    return web.json_response(body, status=200 if refusal.rt_cd == "7" else 500)
