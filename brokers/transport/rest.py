"""HTTPS client for JSON calls.

Guarantees:
    * No key, secret or token is in any message; redirects are refused (a body with a secret is not sent elsewhere).
    * A call ends within CALL_S and a response has at most MAX_ANSWER_BYTES, or as many as its caller allows, whatever the server
      does.
    * A loopback address never goes through a proxy.
    * A line break or another control character inside a text of a response costs neither the response nor the text: it
      becomes a blank.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any, NamedTuple, Self

import msgspec
import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from brokers.errors import MAX_MESSAGE_CHARS, RateLimited, ServiceUnavailable
from brokers.transport.websocket import is_loopback

CONNECT_S, ANSWER_S, CALL_S = 5.0, 10.0, 15.0
"""Timeouts: to connect, between two reads of the response, and of the whole call."""
MAX_ANSWER_BYTES = 1 << 20
LIMITED_WAIT_S = 10.0
_BLANKED_CONTROLS = bytes.maketrans(bytes(range(32)), b" " * 32)
JSON_CONTENT_TYPE = "application/json;charset=UTF-8"


class JsonResponse(NamedTuple):
    """A response that is a JSON object, with the bytes it was read from and its headers (names in any case)."""

    status: int
    body: dict[str, Any]
    content: bytes
    headers: Mapping[str, str]


class _AbortableAdapter(HTTPAdapter):
    """A transport that another thread can abort: a server that sends byte by byte never hits the other timeouts."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False
        self._sockets: list[socket.socket] = []

    def get_connection_with_tls_context(self, *arguments: Any, **options: Any) -> Any:
        """The library's pool, with connections that record their sockets."""
        pool: Any = super().get_connection_with_tls_context(*arguments, **options)
        if hasattr(pool.ConnectionCls, "tracks_socket"):
            return pool
        sockets = self._sockets
        connection_class: Any = pool.ConnectionCls

        class TrackedConnection(connection_class):
            tracks_socket = True

            def connect(self) -> None:
                super().connect()
                sockets.append(self.sock)

        pool.ConnectionCls = TrackedConnection
        return pool

    def abort(self) -> None:
        """Cut the connection."""
        self.aborted = True
        for connected in self._sockets:
            with suppress(OSError):  # closed already
                socket.socket.shutdown(connected, socket.SHUT_RDWR)


class _NoRedirectSession(requests.Session):
    """A session without redirects: the library reads the whole body of one even when it does not follow it."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None, whatever the response."""


class RestClient:
    """A connection that is kept for the next call: a new one costs up to 3 s (docs/wire/kiwoom.md 1.1)."""

    def __init__(self, max_bytes: int = MAX_ANSWER_BYTES) -> None:
        """`max_bytes`: the longest response."""
        self._max_bytes = max_bytes
        self._adapter = _AbortableAdapter()
        self._session: _NoRedirectSession | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def post(self, url: str, body: Mapping[str, str], headers: Mapping[str, str] | None = None) -> JsonResponse:
        """POST a JSON body. ServiceUnavailable without a JSON object in answer, RateLimited on HTTP 429."""
        return self._call("POST", url, headers or {}, data=msgspec.json.encode(body))

    def get(self, url: str, query: Mapping[str, str], headers: Mapping[str, str] | None = None) -> JsonResponse:
        """GET with a query. ServiceUnavailable without a JSON object in answer, RateLimited on HTTP 429."""
        return self._call("GET", url, headers or {}, params=query)

    def download(self, url: str, max_bytes: int) -> bytes:
        """The file at a URL. ServiceUnavailable unless it comes whole, with at most `max_bytes`."""
        self._max_bytes = max_bytes
        status, content, headers = self._request("GET", url, {}, {})
        if status != 200:
            raise ServiceUnavailable(f"{url}: HTTP {status}")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) != len(content):
            raise ServiceUnavailable(f"{url}: {len(content)} of {length} bytes came")
        return content

    def _request(
        self, method: str, url: str, headers: Mapping[str, str], request_options: Mapping[str, Any]
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """One call on the open connection, or on a new one; it is closed after a failure."""
        if self._session is None:
            self._open(url)
        try:
            return self._exchange(method, url, headers, request_options)
        except ServiceUnavailable:
            self.close()
            raise

    def _call(self, method: str, url: str, headers: Mapping[str, str], **request_options: Any) -> JsonResponse:
        status, content, response_headers = self._request(method, url, headers, request_options)
        if status == 429:
            raise RateLimited(f"{url}: too many requests (HTTP 429)", retry_after_s=LIMITED_WAIT_S)
        try:
            try:
                found = msgspec.json.decode(content, type=dict[str, Any])
            except msgspec.DecodeError:
                content = content.translate(_BLANKED_CONTROLS)
                found = msgspec.json.decode(content, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise ServiceUnavailable(f"{url}: HTTP {status} without a JSON object") from None
        if status >= 500 and not found:
            raise ServiceUnavailable(f"{url}: HTTP {status}")
        return JsonResponse(status, found, content, response_headers)

    def _open(self, url: str) -> None:
        self._adapter = _AbortableAdapter()
        self._session = _NoRedirectSession()
        self._session.trust_env = not is_loopback(url)
        self._session.mount("http://", self._adapter)
        self._session.mount("https://", self._adapter)

    def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], request_options: Mapping[str, Any]
    ) -> tuple[int, bytes, Mapping[str, str]]:
        """One call within CALL_S: status, content, headers."""
        adapter = self._adapter
        give_up = threading.Timer(CALL_S, adapter.abort)
        give_up.daemon = True
        give_up.start()
        try:
            answer = self._session.request(  # type: ignore[union-attr]
                method,
                url,
                **request_options,
                headers={
                    "content-type": JSON_CONTENT_TYPE,
                    "user-agent": "collectorctl",
                    "accept-encoding": "identity",
                    **headers,
                },
                timeout=(CONNECT_S, ANSWER_S),
                allow_redirects=False,
                stream=True,
            )
            content = answer.raw.read(self._max_bytes + 1)
        except (OSError, ValueError, HTTPError, HTTPException) as error:
            reason = f"incomplete after {CALL_S:g} s" if adapter.aborted else _innermost_reason(error)
            raise ServiceUnavailable(f"{url}: no answer: {reason}") from None
        finally:
            give_up.cancel()
        if len(content) > self._max_bytes:
            raise ServiceUnavailable(f"{url}: HTTP {answer.status_code} with more than {self._max_bytes} bytes")
        return answer.status_code, content, answer.headers


def post(url: str, body: dict[str, str], content_type: str = JSON_CONTENT_TYPE) -> JsonResponse:
    """POST a JSON body on a connection of its own. ServiceUnavailable without a JSON object in answer, RateLimited on HTTP 429."""
    with RestClient() as client:
        return client.post(url, body, {"content-type": content_type})


def read_server_time(url: str) -> float | None:
    """The time of a server's clock by a header of its response, seconds since 1970 UTC; None without one. ServiceUnavailable."""
    try:
        with requests.Session() as session:
            session.trust_env = not is_loopback(url)
            answer = session.head(url, timeout=(CONNECT_S, ANSWER_S), allow_redirects=False)
    except (OSError, ValueError, HTTPError, HTTPException) as error:
        raise ServiceUnavailable(f"{url}: no answer: {_innermost_reason(error)}") from None
    try:
        return parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except ValueError:
        return None


def _innermost_reason(error: Exception) -> str:
    """The innermost reason: requests wraps it three deep."""
    inner: BaseException = error
    while (deeper := inner.__cause__ or inner.__context__) is not None:
        inner = deeper
    return str(inner)[:MAX_MESSAGE_CHARS] or type(inner).__name__
