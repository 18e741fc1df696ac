"""WebSocket client connection: websocket-client's handshake, then bulk reads of our own.

    create_connection --socket--> recv_into 256 KiB, again while there may be more --FrameParser--> messages
                                        `- receive time is taken here

websocket-client's own recv costs three system calls and 10 to 170 us a message; this costs about one.

Guarantees:
    * Everything that has arrived is read in one wake-up, within a bound of frames and bytes, so that no flood can hold the loop;
      protocol pings are answered.
    * Messages received before a close or a failed send are delivered before the error is raised.
    * TLS is verified, redirects are refused, and a handshake is bounded in time and bytes; a loopback address never goes
      through a proxy, any other follows the environment.
"""

from __future__ import annotations

import ipaddress
import select
import socket
import ssl
import struct
import time
from typing import Any
from urllib.parse import urlsplit

import websocket

from brokers.errors import MAX_MESSAGE_CHARS, ConnectError, ConnectionClosed, ConnectionClosedAbnormally
from brokers.transport.frame_parser import BINARY, PING, TEXT, FrameParser

HANDSHAKE_S = 10.0
SEND_S = 3.0
CLOSE_S = 0.5
READ_BYTES = 1 << 18
MAX_READS = 64
MAX_POLL_BYTES = 4 << 20
MAX_FRAMES = 20_000
"""Reads, bytes and frames of any kind (pongs, pings and fragments are work as well) per poll, at most one read more; then `poll`
returns."""
MAX_HANDSHAKE_BYTES = 1 << 16

_SOCKET_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000),  # sent data unanswered for 20 s: dead
    (socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20),
)


def is_loopback(url: str) -> bool:
    """Whether the address is this machine's own."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _BoundedSocket:
    """The socket during the handshake: bounded in time and bytes, which the library itself is not."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._deadline = time.monotonic() + HANDSHAKE_S
        self._left_bytes = MAX_HANDSHAKE_BYTES

    def recv(self, size: int) -> bytes:
        """As socket.recv. TimeoutError or OSError at a bound."""
        if not self._left_bytes:
            raise OSError(f"more than {MAX_HANDSHAKE_BYTES} bytes in answer to the handshake")
        self._socket.settimeout(max(0.001, self._deadline - time.monotonic()))
        data = self._socket.recv(min(size, self._left_bytes))
        if time.monotonic() > self._deadline:
            raise TimeoutError
        self._left_bytes -= len(data)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


class _HandshakeSocket(websocket.WebSocket):
    """The library's connection, which uses its socket through _BoundedSocket until the handshake is done."""

    _raw_socket: socket.socket | None = None
    _bounded_socket: _BoundedSocket | None = None

    @property
    def sock(self) -> Any:
        """The socket."""
        return self._raw_socket if self.connected else self._bounded_socket

    @sock.setter
    def sock(self, connected: socket.socket | None) -> None:
        self._raw_socket = connected
        self._bounded_socket = None if connected is None else _BoundedSocket(connected)


class WebSocketConnection:
    """An established connection; not thread-safe."""

    def __init__(self, link: websocket.WebSocket, frame_max_bytes: int) -> None:
        self._link = link
        self._socket: socket.socket = link.sock  # type: ignore[assignment]  # a link that is connected has one
        self._is_tls = isinstance(self._socket, ssl.SSLSocket)
        self._idle_timeout_s = 0.0 if self._is_tls else None  # of the socket between two sends
        self._socket.settimeout(self._idle_timeout_s)
        self._read_timeout_s = 0.0
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._parser = FrameParser(frame_max_bytes)
        self._buffer = bytearray(READ_BYTES)
        self._view = memoryview(self._buffer)
        # TLS hands out a record at a time; of TCP, less than was asked for is all there was
        self._drained_below = 0 if self._is_tls else READ_BYTES
        self._has_more = False
        self._pending_error: ConnectionClosed | None = None

    @classmethod
    def connect(cls, url: str, frame_max_bytes: int) -> WebSocketConnection:
        """Connect to `url`; blocks for up to HANDSHAKE_S per address. ConnectError."""
        options = {}
        if is_loopback(url):
            # the library reads http_no_proxy only where a proxy is named
            options = {"http_proxy_host": "none", "http_proxy_port": 1, "http_no_proxy": [urlsplit(url).hostname]}
        try:
            link = websocket.create_connection(
                url,
                timeout=HANDSHAKE_S,
                sockopt=_SOCKET_OPTIONS,
                skip_utf8_validation=True,
                enable_multithread=False,
                suppress_origin=True,
                redirect_limit=0,
                class_=_HandshakeSocket,
                **options,
            )
        except websocket.WebSocketBadStatusException as error:
            raise ConnectError(f"{url}: the server answers the handshake with HTTP {error.status_code}") from None
        except Exception as error:  # noqa: BLE001 the library parses a server's bytes: whatever it raises, there is no connection
            reason = str(error)[:MAX_MESSAGE_CHARS] or type(error).__name__
            raise ConnectError(f"{url}: no connection: {reason}") from None
        return cls(link, frame_max_bytes)

    def poll(self, timeout_s: float) -> list[tuple[bytes, int]]:
        """Messages that arrive within `timeout_s`, each with the mono_ns at which its last bytes left the socket.

        Returns as soon as there are some. ConnectionClosed or ProtocolError once the messages before it were delivered.
        """
        parser = self._parser
        if parser.error:
            raise parser.error
        data = self._read(0 if self._has_more or self._pending_error else timeout_s)
        if data is None and self._pending_error and not self._has_more:
            raise self._pending_error
        self._has_more = False
        messages: list[tuple[bytes, int]] = []
        ping: bytes | None = None
        frames_before, read_bytes, reads = parser.frame_count, 0, 0
        while data is not None:
            mono_ns = time.monotonic_ns()
            for opcode, payload in parser.feed(data):
                if opcode in (TEXT, BINARY):
                    messages.append((payload, mono_ns))
                elif opcode == PING:
                    ping = payload
            if parser.error:
                if not messages:
                    raise parser.error
                return messages
            size = len(data)
            if size < self._drained_below:
                break
            reads += 1
            read_bytes += size
            if reads == MAX_READS or read_bytes >= MAX_POLL_BYTES or parser.frame_count - frames_before >= MAX_FRAMES:
                self._has_more = True
                break
            data = self._read(0)
        if ping is not None:  # the latest answers them all (RFC 6455 5.5.3)
            self._send(ping, websocket.ABNF.OPCODE_PONG)
        return messages

    def _read(self, timeout_s: float) -> bytes | None:
        """What arrives within `timeout_s`, None for nothing. The end of the connection is set in the parser."""
        try:
            count = self._read_tls(timeout_s) if self._is_tls else self._read_plain(timeout_s)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError as error:
            self._parser.error = ConnectionClosedAbnormally(f"the connection broke: {error}")
            return b""
        if not count:
            self._parser.error = ConnectionClosedAbnormally("the server dropped the connection without a close frame")
        return bytes(self._view[:count])

    def _read_plain(self, timeout_s: float) -> int:
        """The kernel waits in the call that reads: one call a wake-up. BlockingIOError for nothing."""
        if not timeout_s:
            return self._socket.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
        if timeout_s != self._read_timeout_s:
            self._read_timeout_s = timeout_s
            seconds, us = divmod(max(1, round(timeout_s * 1_000_000)), 1_000_000)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", seconds, us))
        return self._socket.recv_into(self._buffer)

    def _read_tls(self, timeout_s: float) -> int:
        """A readable socket may hold less than a record. BlockingIOError or ssl.SSLWantReadError for nothing."""
        if timeout_s and not self._poll.poll(timeout_s * 1000):
            raise BlockingIOError
        return self._socket.recv_into(self._buffer)

    def send_text(self, text: bytes) -> None:
        """Send one text message.

        If the server does not accept it within SEND_S, no more is sent and `poll` raises ConnectionClosed, after delivering what
        the server had sent: the reason of the disconnect may be among it (docs/wire/kis.md 2.6).
        """
        self._send(text, websocket.ABNF.OPCODE_TEXT)

    def _send(self, payload: bytes, opcode: int) -> None:
        if self._pending_error:
            return
        try:
            self._socket.settimeout(SEND_S)
            self._link.send(payload, opcode)
        except (websocket.WebSocketException, OSError) as error:
            self._pending_error = ConnectionClosedAbnormally(f"sending failed: {str(error) or type(error).__name__}")
        finally:
            self._socket.settimeout(self._idle_timeout_s)

    def close(self) -> None:
        """Close handshake: wait up to CLOSE_S for the answer. Without it the vendor keeps the slot taken (docs/wire/kis.md 2.6)."""
        deadline = time.monotonic() + CLOSE_S
        try:
            self._socket.settimeout(CLOSE_S)
            self._link.send((1000).to_bytes(2), websocket.ABNF.OPCODE_CLOSE)
            self._socket.settimeout(self._idle_timeout_s)
            while not self._parser.error and (left := deadline - time.monotonic()) > 0:
                if data := self._read(left):
                    self._parser.feed(data)
        except (websocket.WebSocketException, OSError):
            pass  # closed already
        finally:
            self._link.shutdown()
