"""Kiwoom REST: the access token that a LOGIN shows. Spec kiwoom 1.3, 1.5.

Promises: one token per key, kept on disk for all processes, renewed ten minutes before its end in Korean time.
Leaves to others: HTTP and the file (brokers/rest.py).
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from brokers.broker import RestLimited, RestRefused, mask
from brokers.rest import LIMITED_WAIT_S, TokenFile, post
from conf.clock import KST, SECOND_NS, Clock
from conf.settings import Secrets

REFUSED_WAIT_S = 60.0
_CODE = re.compile(r"(?:\[|CODE=)\s*([A-Z]*\d{4,6})")


def inner_code(text: str) -> str:
    """The fine-grained code inside a message, `[8005:...]` or `CODE=8005`; empty if there is none (spec kiwoom 1.5)."""
    match = _CODE.search(text)
    return match[1] if match else ""


class AccessToken:
    """The access token of one app key."""

    def __init__(self, rest_url: str, secrets: Secrets, path: Path, clock: Clock) -> None:
        self._url = f"{rest_url.rstrip('/')}/oauth2/token"
        self._secrets = secrets
        self._clock = clock
        self._file = TokenFile(path, f"{rest_url} {secrets.app_key}")
        self._last = ""

    def get(self) -> str:
        """The token; RestError."""
        self._last = self._file.get(self._clock.now_ns(), self._issue)
        return self._last

    def spoil(self) -> None:
        """Take a new one next time."""
        self._file.spoil(self._last)

    def _issue(self) -> tuple[str, int]:
        status, body = post(
            self._url,
            {
                "grant_type": "client_credentials",
                "appkey": self._secrets.app_key,
                "secretkey": self._secrets.app_secret,
            },
        )
        token, expires = body.get("token"), str(body.get("expires_dt", ""))
        outer = str(body.get("return_code", body.get("returnCode", "0" if token else f"HTTP {status}")))
        if outer == "0" and isinstance(token, str) and token:
            return token, _end_ns(expires)
        text = str(body.get("return_msg", body.get("returnMsg", "no reason given")))
        code = inner_code(text)
        words = f"token refused: {code or outer}: {mask(text)}"
        if outer == "5" or code.startswith("17"):
            raise RestLimited(words, wait_s=LIMITED_WAIT_S)
        raise RestRefused(words, wait_s=REFUSED_WAIT_S)


def _end_ns(expires_dt: str) -> int:
    """`YYYYMMDDHHmmss` in Korean time. RestRefused if it is not."""
    try:
        return int(datetime.strptime(expires_dt, "%Y%m%d%H%M%S").replace(tzinfo=KST).timestamp()) * SECOND_NS
    except ValueError:
        raise RestRefused(
            f"token without a readable end: expires_dt {expires_dt[:20]!r}", wait_s=REFUSED_WAIT_S
        ) from None
