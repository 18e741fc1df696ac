"""Kiwoom REST server: TRs named by a header.

    POST /api/dostk/...   api-id: ka10079   cont-yn: Y   next-key: KEY

Guarantees:
    * docs/wire/kiwoom.md 1.4 to 1.6: errors with HTTP 200 and the fine code inside the text, HTTP 429 without page headers.
    * A missing or stale key brings page 1 again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from aiohttp import web

from brokers.simulator.exchange.consolidated import AnyListing
from brokers.simulator.exchange.market import SimulatedMarket
from brokers.simulator.faults import FeedFaults
from brokers.simulator.gateway.token_bucket import TokenBucket
from brokers.simulator.kiwoom.auth import (
    NOT_REGISTERED,
    OK_TEXT,
    TokenStore,
    build_refusal,
    build_response,
    read_body,
)
from brokers.simulator.kiwoom.charts import CHARTS
from brokers.simulator.kiwoom.encode import format_item_code
from brokers.simulator.kiwoom.paging import (
    EMPTY_PAGE,
    CursorStore,
    ListRequest,
    Page,
    PageCursor,
    Tr,
    TrRequestRejected,
    check_request,
)
from brokers.simulator.kiwoom.snapshots import BATCH_TOO_LARGE, SNAPSHOTS
from brokers.simulator.kiwoom.trade_lists import TRADE_LISTS
from conf.instrument import Instrument

TRS: dict[str, Tr] = CHARTS | TRADE_LISTS
PATHS = {name: tr.path for name, tr in TRS.items()} | {name: tr.path for name, tr in SNAPSHOTS.items()}
TOO_MANY = "허용된 요청 개수를 초과하였습니다"
HTML = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>"


@dataclass(frozen=True)
class KiwoomRestRules:
    """What is a parameter because sources disagree, or because a test wants another value (docs/wire/kiwoom.md 1.6, 5)."""

    burst: float = 5
    per_s: float = 4.5
    horizon_days: int = 20
    key_life_s: float = 0.0
    """How long a page key is good; 0: for ever."""
    keys_are_offsets: bool = False
    """A page key counts rows from the head of the list, so that new trades move the pages; else they are cursors."""
    trades_paged: bool = True
    """Whether ka10084 goes on by page keys; else by `tm` only (docs/wire/kiwoom.md 5.5)."""
    krx_only: bool = False
    """Whether a code with the suffix of another venue is answered as the bare one; the mock server's answer is not known."""


class RestRoutes:
    """The REST calls. `move(instrument)` makes new trades happen (the fault movehead)."""

    def __init__(
        self,
        keys: TokenStore,
        market: SimulatedMarket,
        rules: KiwoomRestRules,
        faults: FeedFaults,
        random: Random,
        force_trades: Callable[[Instrument], None],
    ) -> None:
        self.keys = keys
        self.rules = rules
        self.faults = faults
        self.force_trades = force_trades
        self.listings: dict[str, AnyListing] = {
            format_item_code(one): listing for one, listing in market.listings.items()
        }
        self.token_bucket = TokenBucket(rules.burst, rules.per_s)
        self.cursors = CursorStore(random, rules.key_life_s)

    def build_routes(self) -> list[web.RouteDef]:
        """What it answers."""
        return [
            web.post("/api/{path:.*}", self.handle),
        ]

    async def handle(self, request: web.Request) -> web.Response:
        """POST /api/...: the TR is named by the header api-id (docs/wire/kiwoom.md 1.1, 1.5)."""
        api_id = request.headers.get("api-id", "").strip()
        if not api_id or api_id.lower() == "null":
            return build_refusal(2, "API ID가 Null이거나 값이 없습니다", 1501)
        authorization = request.headers.get("authorization", "")
        if not authorization:
            return build_refusal(3, "Header에 authorization 필드가 없습니다", 1513)
        scheme, blank, token = authorization.partition(" ")
        if not blank and scheme.lower() != "bearer":
            return build_refusal(3, "Header의 authorization 필드 형식이 맞지 않습니다", 1514)
        if scheme.lower() != "bearer":
            return build_refusal(3, "Header의 authorization 필드에서 인증 방식을 인식할 수 없습니다", 1515)
        if not token.strip():
            return build_refusal(3, "Header의 authorization 필드에 Token이 없습니다", 1516)
        if self.faults.is_blocked():
            return build_refusal(3, NOT_REGISTERED, 8050)
        app_key = self.keys.find_holder(token.strip(), time.monotonic())
        if app_key is None:
            return build_refusal(3, "Token이 유효하지 않습니다", 8005)
        if api_id not in PATHS:
            return build_refusal(2, f"해당 API ID는 존재하지 않습니다. API ID={api_id}", 1505)
        if request.path != PATHS[api_id]:
            return build_refusal(2, f"해당 URI는 지원하는 API ID가 아닙니다. API ID={api_id}", 1504)
        return (
            self._inject_error()
            or self._check_rate_limit(app_key, api_id)
            or await self._handle_tr(request, app_key, api_id)
        )

    def _inject_error(self) -> web.Response | None:
        """The fault error: a gateway's page, in turn 502 and 500."""
        if not self.faults.take("error"):
            return None
        status, text = (
            (500, "500 Internal Server Error") if self.faults.pending["error"] % 2 else (502, "502 Bad Gateway")
        )
        return web.Response(status=status, text=HTML.format(text), content_type="text/html")

    def _check_rate_limit(self, app_key: str, api_id: str) -> web.Response | None:
        """429 and no page headers (docs/wire/kiwoom.md 1.5, 1.6)."""
        if not self.faults.take("limit") and self.token_bucket.try_acquire((app_key, api_id), time.monotonic()):
            return None
        inner = f"1700:허용된 API 요청 개수를 초과하였습니다. 유량={self.rules.burst:g}, API ID={api_id}"
        return build_response({"return_code": 5, "return_msg": f"{TOO_MANY}[{inner}]"}, 429)

    async def _handle_tr(self, request: web.Request, app_key: str, api_id: str) -> web.Response:
        given = await read_body(request)
        try:
            if api_id in SNAPSHOTS:
                snapshot = SNAPSHOTS[api_id]
                return self._build_rows_response(
                    snapshot.build(check_request(snapshot.fields, given), self.listings), api_id
                )
            return self._build_page(request, TRS[api_id], check_request(TRS[api_id].fields, given), app_key)
        except TrRequestRejected as rejection:
            if rejection.inner_code == BATCH_TOO_LARGE:
                return build_response(
                    {"return_code": 5, "return_msg": f"{TOO_MANY}[{rejection.inner_code}:{rejection.text}]"}, 429
                )
            return build_refusal(rejection.code, rejection.text, rejection.inner_code)

    def _build_page(self, request: web.Request, tr: Tr, fields: dict[str, str], app_key: str) -> web.Response:
        """One page, the first or that of its key, after the pending faults."""
        api_id, now_s = request.headers["api-id"].strip(), time.monotonic()
        if self.faults.take("emptypage"):
            text = "예상치 못한 오류가 발생하였습니다[1999:예상치 못한 에러가 발생하였습니다. 사유=조회 지연]"
            return self._build_rows_response({tr.list_key: []}, api_id, code=1, text=text)
        listing = self.listings.get(fields["stk_cd"].partition("_")[0] if self.rules.krx_only else fields["stk_cd"])
        cursor_scope = (app_key, api_id, tuple(sorted(fields.items())))
        is_continuation = request.headers.get("cont-yn", "").upper() == "Y"
        key = request.headers.get("next-key", "") if is_continuation else ""
        cursor = self.cursors.find(key, cursor_scope, now_s) if key else None
        if listing is None:
            page = EMPTY_PAGE
        elif cursor is not None and self.faults.take("repeatpage"):
            page = tr.build_page(ListRequest(listing, fields, cursor.previous_start, self.rules.horizon_days))
            return self._build_rows_response(self._build_answer(tr, fields, page), api_id, key)
        else:
            start = None if cursor is None else self._find_start(tr, fields, listing, cursor)
            page = tr.build_page(ListRequest(listing, fields, start, self.rules.horizon_days))
        unpaged = api_id == "ka10084" and not self.rules.trades_paged
        if listing is None or page.next is None or unpaged:
            return self._build_rows_response(self._build_answer(tr, fields, page), api_id)
        next_key = self.cursors.issue(cursor_scope, PageCursor(page.next, page.start, len(listing.history)), now_s)
        return self._build_rows_response(self._build_answer(tr, fields, page), api_id, next_key)

    def _find_start(self, tr: Tr, fields: dict[str, str], listing: AnyListing, cursor: PageCursor) -> int:
        """Where a page begins: at the row its key was given for, unless the head of the list moves the pages."""
        moves = self.rules.keys_are_offsets
        if not tr.head_moves or fields.get("tdy_pred") == "2":  # nothing is traded on a day that is over
            return cursor.start
        if self.faults.take("movehead"):
            self.force_trades(listing.instrument)
            moves = True
        return cursor.start + (len(listing.history) - cursor.history_length) * moves

    @staticmethod
    def _build_answer(tr: Tr, fields: dict[str, str], page: Page) -> dict[str, Any]:
        head = {"stk_cd": fields["stk_cd"][:6], "last_tic_cnt": ""}
        return {name: head[name] for name in tr.head_fields} | {tr.list_key: page.rows or [tr.build_sentinel()]}

    @staticmethod
    def _build_rows_response(
        answer: Mapping[str, Any], api_id: str, next_key: str = "", code: int = 0, text: str = OK_TEXT
    ) -> web.Response:
        headers = {"api-id": api_id, "cont-yn": "Y" if next_key else "N", "next-key": next_key}
        return build_response({**answer, "return_code": code, "return_msg": text}, 200, headers)
