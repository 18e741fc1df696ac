"""Kiwoom REST client: access token and calls; docs/wire/kiwoom.md 1.3, 1.5.

Guarantees:
    * There is one token per key, cached on disk for all processes, renewed ten minutes before its end in Korean time.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from brokers.errors import RateLimited, RequestRejected, redact
from brokers.transport.rest import LIMITED_WAIT_S, post
from brokers.transport.token_cache import AccessToken
from conf.clock import KST, SECOND_NS, Clock
from conf.loader import Secrets

REFUSED_WAIT_S = 60.0
_CODE = re.compile(r"(?:\[|CODE=)\s*([A-Z]*\d{4,6})")


def inner_code(text: str) -> str:
    """The detailed code inside a message, `[8005:...]` or `CODE=8005`; empty without one (docs/wire/kiwoom.md 1.5)."""
    match = _CODE.search(text)
    return match[1] if match else ""


def access_token(rest_url: str, secrets: Secrets, path: Path, clock: Clock) -> AccessToken:
    """The access token of one app key, cached at `path`."""

    def issue() -> tuple[str, int]:
        status, body, *_ = post(
            f"{rest_url.rstrip('/')}/oauth2/token",
            {"grant_type": "client_credentials", "appkey": secrets.app_key, "secretkey": secrets.app_secret},
        )
        token, expires = body.get("token"), str(body.get("expires_dt", ""))
        outer = str(body.get("return_code", body.get("returnCode", "0" if token else f"HTTP {status}")))
        if outer == "0" and isinstance(token, str) and token:
            return token, _end_ns(expires)
        text = str(body.get("return_msg", body.get("returnMsg", "no reason given")))
        code = inner_code(text)
        message = f"token refused: {code or outer}: {redact(text)}"
        if outer == "5" or code.startswith("17"):
            raise RateLimited(message, retry_after_s=LIMITED_WAIT_S)
        raise RequestRejected(message, retry_after_s=REFUSED_WAIT_S)

    return AccessToken(path, f"{rest_url} {secrets.app_key}", clock, issue)


def _end_ns(expires_dt: str) -> int:
    """`YYYYMMDDHHmmss` in Korean time. RequestRejected if it is not."""
    try:
        return int(datetime.strptime(expires_dt, "%Y%m%d%H%M%S").replace(tzinfo=KST).timestamp()) * SECOND_NS
    except ValueError:
        raise RequestRejected(
            f"token without a readable end: expires_dt {expires_dt[:20]!r}", retry_after_s=REFUSED_WAIT_S
        ) from None
