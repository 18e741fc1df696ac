"""A server of raw sockets that speaks both vendors' dialogue, until it is told to do something else.

    connection ─head─> WebSocket? ─ attacks.pop() or honest: handshake, answers to registrations
                            `─ no ─ rest_attacks.pop() or honest: a key, a token

It shares no code with the package: HTTP and RFC 6455 are spelled here by hand.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha1

Attack = Callable[[socket.socket, bytes], None]


def build_frame(payload: bytes | str, first: int = 0x81) -> bytes:
    """A server's frame."""
    data = payload.encode() if isinstance(payload, str) else payload
    size = len(data)
    if size < 126:
        return bytes([first, size]) + data
    if size < 65536:
        return struct.pack("!BBH", first, 126, size) + data
    return struct.pack("!BBQ", first, 127, size) + data


def build_http_response(status: str, body: bytes = b"", *headers: str) -> bytes:
    """A whole HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def accept_upgrade(peer: socket.socket, head: bytes) -> None:
    """The honest answer to an upgrade."""
    key = next(line[19:] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key: "))
    proof = b64encode(sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    peer.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % proof
    )


class HostileServer:
    """One port for REST and WebSocket of one vendor.

    With `contexts` each connection takes the next TLS context, and the last for ever. `credential` is what it issues; `refusal` the
    reason for which it refuses every registration, if it is set; `rest_answer` what it answers to every call of REST.
    """

    def __init__(self, kind: str, contexts: list[ssl.SSLContext] | None = None, credential: str = "") -> None:
        self.kind = kind
        self.credential = credential or {"kis": "approval", "kiwoom": "token"}[kind]
        self.refusal = ""
        self.rest_answer: bytes | None = None
        self.attacks: list[Attack] = []
        self.rest_attacks: list[Attack] = []
        self.opened_s: list[float] = []
        self.requests = 0
        self.tls_errors: list[str] = []
        self.texts: list[bytes] = []
        self.reading = threading.Event()
        self.reading.set()
        self._contexts = contexts
        self._peer: socket.socket | None = None
        self._sending = threading.Lock()  # an answer in the middle of a large frame would be no frame of anybody
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections; those that are open end."""
        self._listener.close()
        self.reading.set()
        self.drop()

    def drop(self) -> None:
        """Break the present connection."""
        if self._peer is not None:
            with suppress(OSError):
                self._peer.shutdown(socket.SHUT_RDWR)

    def send(self, data: bytes) -> bool:
        """Raw bytes on the present connection; False if the other side ended it first."""
        try:
            with self._sending:
                self._peer.sendall(data)  # type: ignore[union-attr]
        except OSError:
            return False
        return True

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with suppress(OSError), peer:
            if self._contexts is not None:
                context = self._contexts.pop(0) if len(self._contexts) > 1 else self._contexts[0]
                try:
                    peer = context.wrap_socket(peer, server_side=True)
                except OSError as error:
                    self.tls_errors.append(str(error))
                    return
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := peer.recv(4096)):
                    return
                head += data
            self.requests += 1
            if b"upgrade: websocket" in head.lower():
                if self.attacks:
                    self.attacks.pop(0)(peer, head)
                else:
                    self._message_loop(peer, head)
            elif self.rest_attacks:
                self.rest_attacks.pop(0)(peer, head)
            else:
                if self.rest_answer is not None:
                    peer.sendall(self.rest_answer)
                    return
                key = {"approval_key": self.credential, "access_token": self.credential}
                token = {"token": self.credential, "expires_dt": "20301231235959", "return_code": 0, "return_msg": ""}
                peer.sendall(build_http_response("200 OK", json.dumps(key if self.kind == "kis" else token).encode()))

    def _message_loop(self, peer: socket.socket, head: bytes) -> None:
        accept_upgrade(peer, head)
        self._peer = peer
        self.opened_s.append(time.monotonic())
        buffer = b""
        while True:
            self.reading.wait()
            data = peer.recv(1 << 16)
            if not data:
                return
            buffer += data
            while (parsed := _parse_client_frame(buffer)) is not None:
                opcode, text, buffer = parsed
                if opcode == 8:
                    return
                if opcode == 1:
                    self.texts.append(text)
                    if answer := self._build_answer(json.loads(text)):
                        with self._sending:
                            peer.sendall(build_frame(answer))

    def _build_answer(self, message: dict) -> str:
        if self.kind == "kiwoom":
            if message["trnm"] == "REG" and self.refusal:
                return json.dumps({"trnm": "REG", "return_code": 105115, "return_msg": self.refusal})
            if message["trnm"] in ("LOGIN", "REG", "REMOVE"):
                return json.dumps({"trnm": message["trnm"], "return_code": 0, "return_msg": ""})
        elif "body" in message:
            subscription = message["body"]["input"]
            if self.refusal:
                body = {"rt_cd": "1", "msg_cd": "OPSP0008", "msg1": self.refusal}
                return json.dumps({"header": subscription, "body": body})
            body = {"rt_cd": "0", "msg_cd": "OPSP0000", "msg1": "SUBSCRIBE SUCCESS", "output": {"iv": "i", "key": "k"}}
            return json.dumps({"header": {**subscription, "encrypt": "N"}, "body": body})
        return ""


def _parse_client_frame(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Opcode, unmasked payload and what follows, of the first frame if it is whole."""
    if len(data) < 6:
        return None
    size, begin = data[1] & 0x7F, 2
    if size == 126:
        size, begin = int.from_bytes(data[2:4]), 4
    elif size == 127:
        size, begin = int.from_bytes(data[2:10]), 10
    end = begin + 4 + size
    if len(data) < end:
        return None
    mask, body = data[begin : begin + 4], data[begin + 4 : end]
    return data[0] & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(body)), data[end:]
