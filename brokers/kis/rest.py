"""KIS REST: the approval key that a WebSocket session shows. Spec kis 1.3, 1.5, 1.7.

Promises: a key is fresh per process, renewed when it nears its 24 hours or was refused.
Leaves to others: HTTP (brokers/rest.py).
"""

from __future__ import annotations

from brokers.broker import RestLimited, RestRefused, mask
from brokers.rest import LIMITED_WAIT_S, post
from conf.clock import SECOND_NS, Clock
from conf.settings import Secrets

LIFE_NS = 23 * 3600 * SECOND_NS
"""An hour less than the vendor's 24: checked only when a session begins to subscribe."""
REFUSED_WAIT_S = 60.0
_LIMITED = {"EGW00133", "EGW00201"}


class Approval:
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

    def spoil(self) -> None:
        """Take a new one next time."""
        self._key = ""

    def _issue(self) -> str:
        # here, and here only, the appsecret is called secretkey
        status, body = post(
            self._url,
            {
                "grant_type": "client_credentials",
                "appkey": self._secrets.app_key,
                "secretkey": self._secrets.app_secret,
            },
            content_type="application/json; utf-8",
        )
        key = body.get("approval_key")
        if status == 200 and isinstance(key, str) and key:
            return key
        code = str(body.get("error_code") or body.get("msg_cd") or f"HTTP {status}")
        text = mask(str(body.get("error_description") or body.get("msg1") or "no reason given").strip())
        words = f"approval key refused: {code}: {text}"
        if code in _LIMITED:
            raise RestLimited(words, wait_s=LIMITED_WAIT_S)
        raise RestRefused(words, wait_s=REFUSED_WAIT_S)
