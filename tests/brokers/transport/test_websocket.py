"""A Wire against servers that behave, and against a raw socket that does not."""

from __future__ import annotations

import base64
import hashlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import websocket
from support.process_tree import wait_until

from brokers.errors import ConnectError, ConnectionClosed, ConnectionClosedAbnormally, ProtocolError
from brokers.transport.websocket import WebSocketConnection, is_loopback


def serve(talk: Callable[[socket.socket], None], answer: Callable[[bytes], bytes] | None = None) -> str:
    """A server for one connection on a raw socket: handshake, then `talk`; its URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with listener, listener.accept()[0] as peer:
            request = b""
            while b"\r\n\r\n" not in request:
                request += peer.recv(4096)
            peer.sendall((answer or accept)(request))
            talk(peer)

    threading.Thread(target=run, daemon=True).start()
    return f"ws://127.0.0.1:{listener.getsockname()[1]}/"


def accept(request: bytes) -> bytes:
    """The server's half of the handshake."""
    key = next(line.split(b": ")[1] for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    proof = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + proof + b"\r\n\r\n"
    )


def text(payload: bytes) -> bytes:
    """A whole text frame, short form."""
    return bytes([0x81, len(payload)]) + payload


def collect(wire: WebSocketConnection, count: int) -> list[bytes]:
    """Poll until there are `count` messages."""
    found: list[bytes] = []

    def enough() -> bool:
        found.extend(payload for payload, _ in wire.poll(0.2))
        return len(found) >= count

    wait_until(f"{count} messages", enough, 10)
    return found


def test_a_frame_in_single_bytes_and_many_frames_in_one_segment_are_all_read():
    """Odd chunking on a real socket."""

    def talk(peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in text(b"slow"):
            peer.sendall(bytes([byte]))
            time.sleep(0.01)
        peer.sendall(b"".join(text(b"%d" % n) for n in range(1000)))
        peer.recv(100)

    wire = WebSocketConnection.connect(serve(talk), 1 << 20)

    assert collect(wire, 1001) == [b"slow", *(b"%d" % n for n in range(1000))]
    wire.close()


def test_everything_that_has_arrived_is_read_in_one_poll():
    """Reading is in bulk: one wake-up, not one per message."""
    ready = threading.Event()

    def talk(peer: socket.socket) -> None:
        peer.sendall(text(b"x" * 100) * 5000)
        ready.set()
        peer.recv(100)

    wire = WebSocketConnection.connect(serve(talk), 1 << 20)
    assert ready.wait(10)
    time.sleep(0.1)

    messages = wire.poll(1)

    assert len(messages) == 5000
    assert 0 <= time.monotonic_ns() - messages[0][1] < 5e9
    wire.close()


def test_a_ping_inside_fragments_is_answered_and_the_message_is_whole():
    """The pong carries the ping's payload, masked as clients must."""
    got: list[bytes] = []

    def talk(peer: socket.socket) -> None:
        peer.sendall(b"\x01\x03one" + b"\x89\x04ping" + b"\x80\x03two")
        got.append(peer.recv(100))

    wire = WebSocketConnection.connect(serve(talk), 1 << 20)

    assert collect(wire, 1) == [b"onetwo"]
    wait_until("the pong", lambda: got)
    head, mask, body = got[0][:2], got[0][2:6], got[0][6:]
    assert head == b"\x8a\x84"
    assert bytes(b ^ m for b, m in zip(body, mask, strict=True)) == b"ping"
    wire.close()


@pytest.mark.parametrize(
    ("end", "error", "words"),
    [
        (b"\x88\x05\x03\xe8Bye", ConnectionClosed, "1000 Bye"),
        (b"", ConnectionClosedAbnormally, "without a close frame"),
        (b"\x81\xfe", ProtocolError, "masks"),
        (b"\x81\x7f" + struct.pack("!Q", 1 << 40), ProtocolError, "frame_max_bytes"),
    ],
)
def test_messages_before_the_end_are_handed_out_first(end, error, words):
    """Whatever ends the connection, it is raised on the poll after; and again on every later one."""
    wire = WebSocketConnection.connect(serve(lambda peer: peer.sendall(text(b"last words") + end)), 1 << 20)

    found = collect(wire, 1)
    with pytest.raises(error, match=words):
        wait_until("the end", lambda: wire.poll(0.2), 5)
    with pytest.raises(error):
        wire.poll(0)

    assert found == [b"last words"]
    wire.close()


def test_a_broken_connection_is_closed_in_words():
    """RST instead of FIN."""

    def talk(peer: socket.socket) -> None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    wire = WebSocketConnection.connect(serve(talk), 1 << 20)

    with pytest.raises(ConnectionClosedAbnormally, match=r"broke|dropped"):
        wait_until("the end", lambda: wire.poll(0.2), 5)
    wire.close()


def test_what_the_server_said_before_it_left_is_heard_though_sending_fails():
    """The reason for leaving comes before the error (docs/wire/kis.md 2.6: the refusal, then a dropped connection)."""
    gone = threading.Event()

    def talk(peer: socket.socket) -> None:
        peer.sendall(text(b"ALREADY IN USE"))
        peer.recv(100)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        gone.set()

    wire = WebSocketConnection.connect(serve(talk), 1 << 20)
    wire.send_text(b"one")
    assert gone.wait(10)
    wire.send_text(b"two")
    wire.send_text(b"three")

    assert collect(wire, 1) == [b"ALREADY IN USE"]
    with pytest.raises(ConnectionClosed):
        wait_until("the end", lambda: wire.poll(0.2), 5)
    wire.close()


def test_closing_is_quick_though_the_peer_does_not_answer():
    """A stop is not held up by a server that ignores the close frame."""
    done = threading.Event()
    wire = WebSocketConnection.connect(serve(lambda peer: done.wait(10)), 1 << 20)

    begin = time.monotonic()
    wire.close()

    assert time.monotonic() - begin < 0.9
    done.set()


def test_poll_returns_when_its_time_is_up():
    """Silence is no error."""
    done = threading.Event()
    wire = WebSocketConnection.connect(serve(lambda peer: done.wait(10)), 1 << 20)

    begin = time.monotonic()

    assert wire.poll(0.1) == []
    assert 0.05 < time.monotonic() - begin < 1
    done.set()
    wire.close()


def connected_pair(is_tls: bool) -> tuple[WebSocketConnection, socket.socket]:
    """A connection after its handshake and the server's end; TLS without a certificate, which is another test's matter."""
    ours, theirs = socket.socketpair()
    if is_tls:
        contexts = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        for context in contexts:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers("aNULL:@SECLEVEL=0")
        contexts[0].check_hostname, contexts[0].verify_mode = False, ssl.CERT_NONE
        with ThreadPoolExecutor() as pool:
            server = pool.submit(contexts[1].wrap_socket, theirs, server_side=True)
            ours, theirs = contexts[0].wrap_socket(ours), server.result()
    link = websocket.WebSocket(enable_multithread=False, skip_utf8_validation=True)
    link.sock, link.connected = ours, True
    return WebSocketConnection(link, 1 << 20), theirs


@pytest.mark.parametrize("is_tls", [False, True])
def test_each_poll_waits_as_long_as_it_is_told_and_reads_all_there_is(is_tls: bool) -> None:
    """Times that change from poll to poll, also after messages; in TLS a message comes in records of 16 KiB."""
    wire, peer = connected_pair(is_tls)
    for timeout_s in (0.02, 0.2, 0, 0.1, 0):
        begin = time.monotonic()
        assert wire.poll(timeout_s) == []
        assert timeout_s * 0.9 <= time.monotonic() - begin < timeout_s + 1
        peer.sendall(b"".join(text(b"%d" % n) for n in range(9000)))

        assert [payload for payload, _ in wire.poll(5)] == [b"%d" % n for n in range(9000)]
    wire.send_text(b"still writable")

    assert peer.recv(6)[:2] == b"\x81\x8e"
    peer.close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "HTTP 404"),
        (b"nonsense\r\n\r\n", "no connection"),
    ],
)
def test_a_handshake_that_fails_is_a_refusal_in_words(answer, words):
    """The status where there is one, else what is wrong with the answer."""
    url = serve(lambda peer: None, lambda request: answer)

    with pytest.raises(ConnectError, match=words):
        WebSocketConnection.connect(url, 1 << 20)


def test_a_redirect_is_refused():
    """A vendor's address does not move; whoever says so is not asked where to."""
    done = threading.Event()
    elsewhere = serve(lambda peer: done.wait(10))
    url = serve(lambda peer: None, lambda request: f"HTTP/1.1 302 Found\r\nLocation: {elsewhere}\r\n\r\n".encode())

    with pytest.raises(ConnectError, match="no connection"):
        WebSocketConnection.connect(url, 1 << 20)
    done.set()


def test_nobody_listening_is_a_refusal_in_words():
    """The address is in the message."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]

    with pytest.raises(ConnectError, match=rf"127\.0\.0\.1:{port}.*refused"):
        WebSocketConnection.connect(f"ws://127.0.0.1:{port}/", 1 << 20)


def test_loopback_never_goes_through_a_proxy_and_the_rest_does(monkeypatch):
    """With a proxy in the environment that nobody answers at, loopback connects and another address does not get past it."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        proxy = f"http://127.0.0.1:{closed.getsockname()[1]}"
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, proxy)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    done = threading.Event()

    wire = WebSocketConnection.connect(serve(lambda peer: done.wait(10)), 1 << 20)
    with pytest.raises(ConnectError, match="refused"):
        WebSocketConnection.connect("ws://vendor.invalid:21000/", 1 << 20)

    done.set()
    wire.close()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://127.0.0.1:1/", True),
        ("ws://localhost/", True),
        ("wss://[::1]:5/", True),
        ("wss://api.kiwoom.com:10000/", False),
        ("ws://localhost.example.com/", False),
        ("http://10.0.0.1/", False),
    ],
)
def test_what_is_loopback(url, expected):
    """By name or by address."""
    assert is_loopback(url) is expected


def test_the_socket_notices_a_dead_peer():
    """TCP_NODELAY and TCP_USER_TIMEOUT are set, the receive buffer is large."""
    done = threading.Event()
    wire = WebSocketConnection.connect(serve(lambda peer: done.wait(10)), 1 << 20)

    assert wire._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
    assert wire._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    most = int(Path("/proc/sys/net/core/rmem_max").read_text())
    assert wire._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= min(2 * most, 4 << 20)
    done.set()
    wire.close()
