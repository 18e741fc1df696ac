"""KIS REST client: approval key of a WebSocket session, access token, calls; docs/wire/kis.md 1.2 to 1.7.

Guarantees:
    * An approval key is issued per process, and renewed when it nears its 24 hours or was rejected.
    * There is one access token per key, cached on disk for all processes; after a rejection none is requested within the
      vendor's minute.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from brokers.errors import RateLimited, RequestRejected, RestError, ServiceUnavailable, redact
from brokers.history import HistoryError
from brokers.transport.rest import LIMITED_WAIT_S, JsonResponse, RestClient, post
from brokers.transport.token_cache import AccessToken
from conf.clock import SECOND_NS, Clock
from conf.loader import Secrets

LIFE_NS = 23 * 3600 * SECOND_NS
"""An hour less than the vendor's 24: checked only when a session begins to subscribe."""
TOKEN_LIFE_S = 86_400
REFUSED_WAIT_S = 60.0
ISSUE_WAIT_S = 60.0
"""Access tokens are issued once a minute (EGW00133)."""
_RATE_LIMITED_CODES = {"EGW00133", "EGW00201"}


class ApprovalKey:
    """The approval key of one appkey."""

    def __init__(self, rest_url: str, secrets: Secrets, clock: Clock) -> None:
        self._url = f"{rest_url.rstrip('/')}/oauth2/Approval"
        self._secrets = secrets
        self._clock = clock
        self._key = ""
        self._issued_ns = 0

    def get(self) -> str:
        """The key; RestError."""
        now_ns = self._clock.mono_ns()
        if not self._key or now_ns - self._issued_ns > LIFE_NS:
            self._key, self._issued_ns = self._issue(), now_ns
        return self._key

    def invalidate(self) -> None:
        """Request a new key next time."""
        self._key = ""

    def _issue(self) -> str:
        # here, and here only, the appsecret is called secretkey
        reply = post(
            self._url,
            {
                "grant_type": "client_credentials",
                "appkey": self._secrets.app_key,
                "secretkey": self._secrets.app_secret,
            },
            content_type="application/json; utf-8",
        )
        key = reply.body.get("approval_key")
        if reply.status == 200 and isinstance(key, str) and key:
            return key
        raise _build_rejection("approval key", reply, LIMITED_WAIT_S)


def access_token(rest_url: str, secrets: Secrets, path: Path, clock: Clock) -> AccessToken:
    """The access token of one appkey, cached at `path`."""

    def issue() -> tuple[str, int]:
        reply = post(
            f"{rest_url.rstrip('/')}/oauth2/tokenP",
            {"grant_type": "client_credentials", "appkey": secrets.app_key, "appsecret": secrets.app_secret},
            content_type="application/json; charset=utf-8",
        )
        token, life_s = reply.body.get("access_token"), reply.body.get("expires_in")
        if reply.status != 200 or not isinstance(token, str) or not token:
            raise _build_rejection("access token", reply, ISSUE_WAIT_S)
        if not isinstance(life_s, int) or not 0 < life_s <= TOKEN_LIFE_S:
            life_s = TOKEN_LIFE_S  # a partner's lives longer; one that ends sooner is refused and then renewed
        return token, clock.now_ns() + life_s * SECOND_NS

    return AccessToken(path, f"{rest_url} {secrets.app_key}", clock, issue)


def _build_rejection(what: str, reply: JsonResponse, limited_wait_s: float) -> RestError:
    """The gateway's message for a rejected key or token (docs/wire/kis.md 1.5, 1.7)."""
    code, text = _parse_error(reply)
    message = f"{what} refused: {code}: {text}"
    return (
        RateLimited(message, limited_wait_s)
        if code in _RATE_LIMITED_CODES
        else RequestRejected(message, REFUSED_WAIT_S)
    )


def _parse_error(reply: JsonResponse) -> tuple[str, str]:
    """Code and text of an answer: token calls and others name them differently (docs/wire/kis.md 1.2, 1.5)."""
    status, body, *_ = reply
    code = str(body.get("error_code") or body.get("msg_cd") or f"HTTP {status}").strip()
    return code, redact(str(body.get("error_description") or body.get("msg1") or "no reason given").strip())


REFRESH_CODES = frozenset({"EGW00121", "EGW00123"})
RATE_LIMITED_CODE = "EGW00201"
RATE_LIMITED_WAIT_S = 1.0
"""The servers are a cluster that rejects below its own limit, too; the vendor advises an immediate retry (1.6)."""
CREDENTIAL_ERROR_CODES = frozenset({"EGW00103", "EGW00105", "EGW00206", "EGW00213", *REFRESH_CODES})
"""Rejections that concern the caller, whatever the request."""


class KisRestClient:
    """GET calls with one app key; a token that is refused is renewed once and the call repeated once."""

    def __init__(self, rest_url: str, customer_type: str, secrets: Secrets, token: Path, clock: Clock) -> None:
        """`token`: cache of the access token."""
        self._base = rest_url.rstrip("/")
        self._customer = customer_type
        self._secrets = secrets
        self._token = access_token(rest_url, secrets, token, clock)
        self._client = RestClient()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def get(self, path: str, tr: str, query: Mapping[str, str], description: str) -> JsonResponse:
        """A successful response; messages call it `description`. RateLimited, ServiceUnavailable, RequestRejected, RestError."""
        reply = self._call(path, tr, query)
        if _parse_error(reply)[0] in REFRESH_CODES:
            self._token.invalidate()
            reply = self._call(path, tr, query)
        if reply.status != 200 or reply.body.get("rt_cd") != "0":
            raise _build_error(description, reply)
        return reply

    def _call(self, path: str, tr: str, query: Mapping[str, str]) -> JsonResponse:
        headers = {
            "authorization": f"Bearer {self._token.get()}",
            "appkey": self._secrets.app_key,
            "appsecret": self._secrets.app_secret,
            "tr_id": tr,
            "tr_cont": "",
            "custtype": self._customer,
        }
        return self._client.get(self._base + path, query, headers)


def _build_error(description: str, reply: JsonResponse) -> RestError:
    """What an answer without rows means (docs/wire/kis.md 1.6, 1.7)."""
    code, text = _parse_error(reply)
    message = f"{description}: {code}: {text}"
    if code == RATE_LIMITED_CODE:
        return RateLimited(message, RATE_LIMITED_WAIT_S)
    if code in CREDENTIAL_ERROR_CODES:
        return RequestRejected(message, REFUSED_WAIT_S)
    return (
        ServiceUnavailable(message)
        if reply.status >= 500 and code.startswith(("EGW", "HTTP"))
        else HistoryError(message)
    )
