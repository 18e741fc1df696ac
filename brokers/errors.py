"""Errors between a collector and a broker.

BrokerError
├─ TransportError                  the connection
│  ├─ ConnectError                 no connection was established
│  ├─ ConnectionClosed             the server closed it
│  │  └─ ConnectionClosedAbnormally   without a close frame, or it broke
│  └─ ProtocolError                the bytes are not RFC 6455, or a frame is too large
├─ RestError                       a REST call
│  ├─ ServiceUnavailable           no response, or none of this API
│  ├─ RateLimited                  too many calls
│  └─ RequestRejected              rejected: keys, address, permission
└─ SessionError                    the session on a connection
   ├─ SessionExpired               a new connection is needed
   └─ SessionRejected              rejected by the vendor; retry_after_s applies
"""

from __future__ import annotations

import re

from conf.text.escape import escape_controls
from conf.text.secret_mask import hide_secrets
from ringbuf.vitals import ProcessState

MAX_MESSAGE_CHARS = 300
"""Characters of a vendor's message that are quoted."""

MAX_READ_CHARS = 10_000
"""Characters of a message that are looked at: a vendor may send megabytes."""


def to_safe_text(text: str) -> str:
    """Text that may quote the wire: on one line, its control characters escaped, without this process's secrets."""
    return escape_controls(hide_secrets(text[:MAX_READ_CHARS]))


def redact(text: str) -> str:
    """A vendor's message as `to_safe_text`, with all that could be another's key hidden as well (KIS repeats the approval key)."""
    hidden = re.sub(r"[A-Za-z0-9_\-./+=]{20,}", "***", hide_secrets(text[:MAX_READ_CHARS]))
    return escape_controls(hidden)[:MAX_MESSAGE_CHARS]


class BrokerError(Exception):
    """Failure of a broker, its message safe to log and to print.

    `retry_after_s`: earliest next attempt; `refresh_credential`: take a new key or token first.
    """

    state = ProcessState.RETRYING

    def __init__(self, message: str, retry_after_s: float = 0.0, refresh_credential: bool = False) -> None:
        super().__init__(to_safe_text(message))
        self.retry_after_s = retry_after_s
        self.refresh_credential = refresh_credential


class TransportError(BrokerError):
    """The connection failed."""


class ConnectError(TransportError):
    """No connection was established."""


class ConnectionClosed(TransportError):
    """The connection ended."""


class ConnectionClosedAbnormally(ConnectionClosed):
    """The connection ended without a close frame: the vendor may still count it as open."""


class ProtocolError(TransportError):
    """Bytes that are no WebSocket frames, or a frame over the limit."""


class KeyInUse(BrokerError):
    """Another home of this host has the session of the key."""

    state = ProcessState.REFUSED


class RestError(BrokerError):
    """A REST call failed."""


class ServiceUnavailable(RestError):
    """No response, or none of this API."""


class RateLimited(RestError):
    """Too many calls."""


class RequestRejected(RestError):
    """The request was understood and rejected."""

    state = ProcessState.REFUSED


class SessionError(BrokerError):
    """The session on a connection cannot go on."""


class SessionExpired(SessionError):
    """The session has to be restarted on a new connection."""


class SessionRejected(SessionError):
    """The vendor rejects this session."""

    state = ProcessState.REFUSED
