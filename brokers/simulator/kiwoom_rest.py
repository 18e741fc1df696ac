"""Kiwoom over REST: tokens, and TRs named by a header.

    POST /oauth2/token   /oauth2/revoke   POST /api/dostk/...   api-id: ka10079

Promises: spec kiwoom 1.3 to 1.5: the same token while it is valid, KST stamps, errors with HTTP 200 and the fine code inside the
text; any key pair is good, the first secret seen for a key is its right one.
Leaves to others: the WebSocket (kiwoom.py). Market-data TRs (spec kiwoom 5) and their rate limit are added at ANSWERS.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

from aiohttp import web

from conf.clock import KST

Answer = Callable[[web.Request, dict[str, Any]], Awaitable[web.Response]]
ANSWERS: dict[str, tuple[str, Answer]] = {}
"""api-id -> (path, what answers it): the place of ka10079 and its sisters (spec kiwoom 5)."""

OK_TEXT = "정상적으로 처리되었습니다"


@dataclass
class Token:
    text: str
    app_key: str
    until_s: float
    expires: datetime


class Keys:
    """App keys, secrets and tokens; times in monotonic seconds."""

    def __init__(self, random: Random, life_s: float) -> None:
        self._random = random
        self._life_s = life_s
        self._secrets: dict[str, str] = {}
        self._tokens: dict[str, Token] = {}

    def known(self, app_key: str, secret: str) -> bool:
        """Whether the pair fits; a new key is taken at its word."""
        return self._secrets.setdefault(app_key, secret) == secret

    def issue(self, app_key: str, now_s: float) -> Token:
        """The key's token; the same one while it is valid (spec kiwoom 1.3)."""
        for token in self._tokens.values():
            if token.app_key == app_key and now_s < token.until_s:
                return token
        text = "".join(self._random.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", k=86))
        token = Token(text, app_key, now_s + self._life_s, datetime.now(KST) + timedelta(seconds=self._life_s))
        self._tokens[text] = token
        return token

    def holder(self, text: str, now_s: float) -> str | None:
        """The app key of a valid token."""
        token = self._tokens.get(text)
        return token.app_key if token is not None and now_s < token.until_s else None

    def revoke(self, text: str) -> bool:
        """Forget a token; False when there is none such."""
        return self._tokens.pop(text, None) is not None


class Desk:
    """The REST calls."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys

    def routes(self) -> list[web.RouteDef]:
        """What it answers."""
        return [
            web.post("/oauth2/token", self.issue_token),
            web.post("/oauth2/revoke", self.revoke_token),
            web.post("/api/{path:.*}", self.call),
        ]

    async def issue_token(self, request: web.Request) -> web.Response:
        """POST /oauth2/token (spec kiwoom 1.3)."""
        given = await body(request)
        if not given.get("grant_type"):
            return refusal(2, "grant_type이 존재하지 않습니다", 8011)
        if given["grant_type"] != "client_credentials":
            return refusal(2, "grant_type의 값이 맞지 않습니다", 8012)
        if not given.get("appkey") or not given.get("secretkey"):
            return refusal(2, "입력파라미터로 appkey 또는 secretkey가 들어오지 않았습니다", 8020)
        if not self.keys.known(str(given["appkey"]), str(given["secretkey"])):
            return refusal(3, "App Key와 Secret Key 검증에 실패했습니다", 8001)
        token = self.keys.issue(str(given["appkey"]), time.monotonic())
        return web.json_response(
            {
                "expires_dt": f"{token.expires:%Y%m%d%H%M%S}",
                "token_type": "bearer",
                "token": token.text,
                "return_code": 0,
                "return_msg": OK_TEXT,
            }
        )

    async def revoke_token(self, request: web.Request) -> web.Response:
        """POST /oauth2/revoke."""
        given = await body(request)
        if not given.get("token"):
            return refusal(2, "입력파라미터로 토큰이 들어오지 않았습니다", 8016)
        if not self.keys.revoke(str(given["token"])):
            return refusal(3, "토큰 폐기에 실패하였습니다", 8015)
        return web.json_response({"return_code": 0, "return_msg": OK_TEXT})

    async def call(self, request: web.Request) -> web.Response:
        """POST /api/...: the TR is named by the header api-id (spec kiwoom 1.1, 1.5)."""
        api_id = request.headers.get("api-id", "").strip()
        if not api_id or api_id.lower() == "null":
            return refusal(2, "API ID가 Null이거나 값이 없습니다", 1501)
        authorization = request.headers.get("authorization", "")
        if not authorization:
            return refusal(3, "Header에 authorization 필드가 없습니다", 1513)
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return refusal(3, "Header의 authorization 필드 형식이 맞지 않습니다", 1514)
        if not token.strip():
            return refusal(3, "Header의 authorization 필드에 Token이 없습니다", 1516)
        if self.keys.holder(token.strip(), time.monotonic()) is None:
            return refusal(3, "Token이 유효하지 않습니다", 8005)
        if api_id not in ANSWERS:
            return refusal(2, f"해당 API ID는 존재하지 않습니다. API ID={api_id}", 1505)
        path, answer = ANSWERS[api_id]
        if request.path != path:
            return refusal(2, f"해당 URI는 지원하는 API ID가 아닙니다. API ID={api_id}", 1504)
        return await answer(request, await body(request))


async def body(request: web.Request) -> dict[str, Any]:
    """The JSON object of a request, empty when it is none."""
    try:
        given = await request.json()
    except ValueError:
        return {}
    return given if isinstance(given, dict) else {}


def refusal(code: int, text: str, inner: int) -> web.Response:
    """An error: HTTP 200, the outer code, and the fine one inside the text (spec kiwoom 1.5)."""
    lead = "인증에 실패했습니다" if code == 3 else "입력 값 오류입니다"
    return web.json_response({"return_code": code, "return_msg": f"{lead}[{inner}:{text}]"})
