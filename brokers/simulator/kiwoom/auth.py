"""Kiwoom authentication server: access tokens.

    POST /oauth2/token   /oauth2/revoke

Guarantees:
    * docs/wire/kiwoom.md 1.3, 1.5: one token while it is valid, KST stamps, errors with HTTP 200 and the fine code inside the
      text.
    * Any key pair is accepted; the first secret seen for a key is its right one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any

import msgspec
from aiohttp import web

from brokers.simulator.faults import FeedFaults
from conf.clock import KST

OK_TEXT = "정상적으로 처리되었습니다"
NOT_REGISTERED = "지정단말기 인증에 실패했습니다"


@dataclass
class KiwoomToken:
    """An access token that was issued."""

    text: str
    app_key: str
    until_s: float
    expires: datetime


class TokenStore:
    """App keys, secrets and tokens; times in monotonic seconds."""

    def __init__(self, random: Random, life_s: float) -> None:
        self._random = random
        self._life_s = life_s
        self._secrets: dict[str, str] = {}
        self._tokens: dict[str, KiwoomToken] = {}

    def check_secret(self, app_key: str, secret: str) -> bool:
        """Whether the pair is valid; the first secret of a new key is accepted."""
        return self._secrets.setdefault(app_key, secret) == secret

    def issue(self, app_key: str, now_s: float) -> KiwoomToken:
        """The token of the key, one while it is valid (docs/wire/kiwoom.md 1.3)."""
        for token in self._tokens.values():
            if token.app_key == app_key and now_s < token.until_s:
                return token
        text = "".join(self._random.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", k=86))
        token = KiwoomToken(text, app_key, now_s + self._life_s, datetime.now(KST) + timedelta(seconds=self._life_s))
        self._tokens[text] = token
        return token

    def find_holder(self, text: str, now_s: float) -> str | None:
        """The app key of a valid token."""
        token = self._tokens.get(text)
        return token.app_key if token is not None and now_s < token.until_s else None

    def expire(self) -> None:
        """All tokens end now."""
        self._tokens.clear()

    def revoke(self, text: str) -> bool:
        """Revoke a token; False for an unknown one."""
        return self._tokens.pop(text, None) is not None


class AuthRoutes:
    """The /oauth2 calls."""

    def __init__(self, keys: TokenStore, faults: FeedFaults) -> None:
        self.keys = keys
        self.faults = faults

    def build_routes(self) -> list[web.RouteDef]:
        """What it answers."""
        return [
            web.post("/oauth2/token", self.issue_token),
            web.post("/oauth2/revoke", self.revoke_token),
        ]

    async def issue_token(self, request: web.Request) -> web.Response:
        """POST /oauth2/token (docs/wire/kiwoom.md 1.3)."""
        given = await read_body(request)
        if self.faults.is_blocked():
            return build_refusal(3, NOT_REGISTERED, 8050)
        if not given.get("grant_type"):
            return build_refusal(2, "grant_type이 존재하지 않습니다", 8011)
        if given["grant_type"] != "client_credentials":
            return build_refusal(2, "grant_type의 값이 맞지 않습니다", 8012)
        if not given.get("appkey") or not given.get("secretkey"):
            return build_refusal(2, "입력파라미터로 appkey 또는 secretkey가 들어오지 않았습니다", 8020)
        if not self.keys.check_secret(str(given["appkey"]), str(given["secretkey"])):
            return build_refusal(3, "App Key와 Secret Key 검증에 실패했습니다", 8001)
        token = self.keys.issue(str(given["appkey"]), time.monotonic())
        return build_response(
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
        given = await read_body(request)
        if not given.get("token"):
            return build_refusal(2, "입력파라미터로 토큰이 들어오지 않았습니다", 8016)
        if not self.keys.revoke(str(given["token"])):
            return build_refusal(3, "토큰 폐기에 실패하였습니다", 8015)
        return build_response({"return_code": 0, "return_msg": OK_TEXT})


async def read_body(request: web.Request) -> dict[str, Any]:
    """The JSON object of a request, empty when it is none."""
    try:
        given = await request.json()
    except ValueError:
        return {}
    return given if isinstance(given, dict) else {}


def build_response(answer: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer, Korean as it is."""
    more = {"Content-Type": "application/json;charset=UTF-8", **(headers or {})}
    return web.Response(body=msgspec.json.encode(answer), status=status, headers=more)


def build_refusal(code: int, text: str, inner: int) -> web.Response:
    """An error: HTTP 200, the outer code, and the fine one inside the text (docs/wire/kiwoom.md 1.5)."""
    lead = "인증에 실패했습니다" if code == 3 else "입력 값 오류입니다"
    return build_response({"return_code": code, "return_msg": f"{lead}[{inner}:{text}]"})
