"""Errors between a collector and a broker.

BrokerError
├─ WireError                 the connection
│  ├─ ConnectError           no connection came about
│  ├─ Closed                 the other side ended it
│  │  └─ Cut                 without a close frame, or it broke
│  └─ FrameError             the other side does not speak RFC 6455, or sends too much at once
├─ RestError                 a REST call
│  ├─ RestUnreachable        no answer, or one that is none
│  ├─ RestLimited            too many calls
│  └─ RestRefused            understood and refused: keys, address, permission
└─ SessionError              the dialogue on a connection
   ├─ SessionLost            it has to be begun again
   └─ SessionRefused         the vendor says no; waits by the vendor's rule
"""

from __future__ import annotations

import re

MAX_MESSAGE_CHARS = 300
"""Characters of a vendor's words that are repeated in a message."""


class BrokerError(Exception):
    """Something between us and a broker. `wait_s`: not again sooner than this; `renew`: take a new key or token first."""

    state = "retrying"

    def __init__(self, message: str, retry_after_s: float = 0.0, refresh_credential: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.refresh_credential = refresh_credential


class TransportError(BrokerError):
    """The connection failed."""


class ConnectError(TransportError):
    """No connection came about."""


class ConnectionClosed(TransportError):
    """The connection ended."""


class ConnectionClosedAbnormally(ConnectionClosed):
    """It ended without a close frame: the vendor may not know yet."""


class ProtocolError(TransportError):
    """Bytes that are no WebSocket frames, or a frame over the limit."""


class RestError(BrokerError):
    """A REST call did not bring what it should."""


class ServiceUnavailable(RestError):
    """No answer, or not one of this API."""


class RateLimited(RestError):
    """Too many calls."""


class RequestRejected(RestError):
    """Understood and refused."""

    state = "refused"


class SessionError(BrokerError):
    """The dialogue on a connection cannot go on."""


class SessionExpired(SessionError):
    """Begin again with a new connection."""


class SessionRejected(SessionError):
    """The vendor refuses this session."""

    state = "refused"


def redact(text: str) -> str:
    """A vendor's words, with everything that could be a key or token hidden (KIS repeats the approval key in an error)."""
    return re.sub(r"[A-Za-z0-9_\-./+=]{20,}", "***", text)[:MAX_MESSAGE_CHARS]
