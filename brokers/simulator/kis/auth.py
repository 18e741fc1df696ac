"""KIS authentication server: access tokens and WebSocket approval keys.

    POST /oauth2/tokenP   /oauth2/revokeP   /oauth2/Approval

Guarantees:
    * docs/wire/kis.md 1.2, 1.3: one token for six hours, a new one at most once a minute, one approval key a second.
    * Any key pair is accepted; the first secret seen for a key is its right one.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from aiohttp import web

from conf.clock import KST

TOKEN_LIFE_S = 86_400
TOKEN_REUSE_S = 6 * 3600
MIN_ISSUE_INTERVAL_S = 60.0
MIN_APPROVAL_INTERVAL_S = 1.0
ANY_SLASHES = "{slashes:/*}"
"""Public clients write two slashes before a path."""


@dataclass
class KisToken:
    """An access token that was issued."""

    text: str
    issued_s: float
    expires: datetime


class KeyStore:
    """Appkeys, their secrets, tokens and approvals. Times in monotonic seconds."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._secrets: dict[str, str] = {}
        self._tokens: dict[str, KisToken] = {}
        self._last_issue_s: dict[str, float] = {}
        self._last_approval_s: dict[str, float] = {}
        self._expired_tokens: set[str] = set()
        self._approvals: dict[str, tuple[str, float]] = {}

    def check_secret(self, app_key: str, secret: str) -> bool:
        """Whether the pair is valid; the first secret of a new key is accepted."""
        return self._secrets.setdefault(app_key, secret) == secret

    def issue(self, app_key: str, now_s: float) -> KisToken | None:
        """The token of a key, one for six hours; None when a new one is requested within a minute (docs/wire/kis.md 1.2)."""
        token = self._tokens.get(app_key)
        if token is not None and now_s - token.issued_s < TOKEN_REUSE_S:
            return token
        if now_s - self._last_issue_s.get(app_key, -MIN_ISSUE_INTERVAL_S) < MIN_ISSUE_INTERVAL_S:
            return None
        self._last_issue_s[app_key] = now_s
        text = "eyJ" + "".join(self._random.choices("ABCDEFGHabcdefgh0123456789", k=340))
        self._tokens[app_key] = KisToken(text, now_s, datetime.now(KST) + timedelta(seconds=TOKEN_LIFE_S))
        return self._tokens[app_key]

    def find_holder(self, text: str) -> str | None:
        """The appkey of a valid access token."""
        now = datetime.now(KST)
        return next((key for key, token in self._tokens.items() if token.text == text and now < token.expires), None)

    def expire(self) -> None:
        """All tokens end now; new ones can be had at once."""
        self._expired_tokens.update(token.text for token in self._tokens.values())
        self._tokens.clear()
        self._last_issue_s.clear()

    def is_expired(self, text: str) -> bool:
        """Whether this is an expired token."""
        ended = any(token.text == text and datetime.now(KST) >= token.expires for token in self._tokens.values())
        return ended or text in self._expired_tokens

    def revoke(self, app_key: str, text: str) -> bool:
        """Forget a token; False when it is not this key's."""
        token = self._tokens.get(app_key)
        if token is None or token.text != text:
            return False
        del self._tokens[app_key]
        return True

    def issue_approval(self, app_key: str, now_s: float) -> str | None:
        """A new approval key; None when asked twice in a second (docs/wire/kis.md 1.3)."""
        if now_s - self._last_approval_s.get(app_key, -MIN_APPROVAL_INTERVAL_S) < MIN_APPROVAL_INTERVAL_S:
            return None
        self._last_approval_s[app_key] = now_s
        approval = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        self._approvals[approval] = (app_key, now_s + TOKEN_LIFE_S)
        return approval

    def find_approval_holder(self, approval: str, now_s: float) -> str | None:
        """The appkey an approval key was issued to, while it is valid."""
        app_key, until_s = self._approvals.get(approval, ("", 0.0))
        return app_key if now_s < until_s else None

    def is_approval_expired(self, approval: str, now_s: float) -> bool:
        """Whether this is an approval key that was issued and has ended."""
        return approval in self._approvals and self._approvals[approval][1] <= now_s

    def expire_approvals(self) -> None:
        """All approval keys end now."""
        self._approvals = {approval: (app_key, 0.0) for approval, (app_key, _) in self._approvals.items()}


class AuthRoutes:
    """The /oauth2 calls."""

    def __init__(self, keys: KeyStore) -> None:
        self.keys = keys

    def build_routes(self) -> list[web.RouteDef]:
        """What it answers."""
        return [
            web.post(f"/{ANY_SLASHES}oauth2/tokenP", self.issue_token),
            web.post(f"/{ANY_SLASHES}oauth2/revokeP", self.revoke_token),
            web.post(f"/{ANY_SLASHES}oauth2/Approval", self.issue_approval),
        ]

    async def issue_token(self, request: web.Request) -> web.Response:
        """POST /oauth2/tokenP (docs/wire/kis.md 1.2)."""
        given, refusal = await self._check_credentials(request, "appsecret")
        if refusal is not None:
            return refusal
        token = self.keys.issue(given["appkey"], time.monotonic())
        if token is None:
            return build_gateway_error("EGW00133", "접근토큰 발급 잠시 후 다시 시도하세요(1분당 1회)")
        left_s = int((token.expires - datetime.now(KST)).total_seconds())
        return web.json_response(
            {
                "access_token": token.text,
                "access_token_token_expired": f"{token.expires:%Y-%m-%d %H:%M:%S}",
                "token_type": "Bearer",
                "expires_in": left_s,
            }
        )

    async def revoke_token(self, request: web.Request) -> web.Response:
        """POST /oauth2/revokeP; WebSocket slots stay as they are (docs/wire/kis.md 1.2)."""
        given, refusal = await self._check_credentials(request, "appsecret")
        if refusal is not None:
            return refusal
        if not self.keys.revoke(given["appkey"], str(given.get("token", ""))):
            return build_gateway_error("EGW00121", "유효하지 않은 token 입니다.")
        return web.json_response({"code": 200, "message": "접근토큰 폐기에 성공하였습니다"})

    async def issue_approval(self, request: web.Request) -> web.Response:
        """POST /oauth2/Approval (docs/wire/kis.md 1.3): the secret is called `secretkey` here."""
        given, refusal = await self._check_credentials(request, "secretkey")
        if refusal is not None:
            return refusal
        approval = self.keys.issue_approval(given["appkey"], time.monotonic())
        if approval is None:
            body = {"rt_cd": "1", "msg_cd": "EGW00201", "msg1": "초당 거래건수를 초과하였습니다."}
            return web.json_response(body, status=500)
        return web.json_response({"approval_key": approval})

    async def _check_credentials(self, request: web.Request, secret: str) -> tuple[dict[str, str], web.Response | None]:
        """The body of an /oauth2 call and, unless its keys are good, the refusal."""
        try:
            given = await request.json()
        except ValueError:
            given = {}
        if not isinstance(given, dict) or not given.get("appkey"):
            return {}, build_gateway_error("EGW00103", "유효하지 않은 AppKey입니다.")
        if not given.get(secret) or not self.keys.check_secret(given["appkey"], given[secret]):
            return {}, build_gateway_error("EGW00105", "유효하지 않은 AppSecret입니다.")
        return given, None


def build_gateway_error(code: str, text: str) -> web.Response:
    """An error of the token endpoints: 403 and no rt_cd (docs/wire/kis.md 1.2)."""
    return web.json_response({"error_description": text, "error_code": code}, status=403)
