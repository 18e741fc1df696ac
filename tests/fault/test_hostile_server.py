"""The collector process against servers that mean harm: it lives, keeps its size and its heartbeat, and goes on collecting.

One process per broker lives through all attacks, one after another, in whatever order: what one leaves behind the next would find.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from support.hostile_server import HostileServer, accept_upgrade, build_frame, build_http_response
from support.process_tree import temporary_home, wait_until

from collectorctl.supervision.status import STALE_S, read_own_memory_mb
from conf.home import Home
from ringbuf.records import STREAMS
from ringbuf.ring import Consumer
from ringbuf.vitals import VitalsSnapshot, read_snapshot

MEMORY_MOST_MB = 60.0
BACKOFF_MOST_S = 0.3
QUARANTINE_MOST = 3_000_000
RECONNECT_S = 1.2 * BACKOFF_MOST_S + 0.5 + 3.0
"""The longest pause, the goodbye to a server that does not answer it, and a busy machine."""


class Collector:
    """`python -m brokers NAME` and its hostile server; a thread looks at its heartbeat and size all the time."""

    def __init__(self, name: str, root: Path, server: HostileServer, **environ: str) -> None:
        self.name = name
        self.server = server
        self.home = Home(root)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "brokers", name],
            env=os.environ | {"COLLECTOR_HOME": str(root)} | environ,
            stdout=(root / "out").open("wb"),
            stderr=subprocess.STDOUT,
        )
        self.sent = 0
        self.latest_beat_s = 0.0
        self.largest_mb = 0.0
        self._watching = True
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while self._watching and self.process.poll() is None:
            vitals = self.vitals()
            if vitals is not None:
                self.latest_beat_s = max(self.latest_beat_s, (time.monotonic_ns() - vitals.heartbeat_mono_ns) / 1e9)
            self.largest_mb = max(self.largest_mb, read_own_memory_mb(self.process.pid) or 0)
            time.sleep(0.05)

    def vitals(self) -> VitalsSnapshot | None:
        """Its vitals, None before there are some."""
        with suppress(FileNotFoundError):
            vitals = read_snapshot(self.home.vitals_path(self.name))
            return vitals if vitals.pid == self.process.pid else None

    def count(self, counter: str) -> int:
        """One of its counters."""
        return self.vitals().counters[counter]

    def threads(self) -> int:
        """How many it has."""
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))

    def streams(self) -> bool:
        """Whether every registration has its answer on the present connection.

        A feed of which a large share was rejected within a minute streams as well.
        """
        assert self.process.poll() is None, (self.home.root / "out").read_text()
        vitals = self.vitals()
        return vitals is not None and vitals.state in ("streaming", "degraded") and vitals.counters["connected"] == 1

    def until_connected(self, connection: int, most_s: float = RECONNECT_S) -> None:
        """Until the server's `connection`-th WebSocket connection streams."""
        wait_until(
            f"connection {connection}", lambda: len(self.server.opened_s) >= connection and self.streams(), most_s
        )

    def tick(self) -> bytes:
        """A frame with the next trade."""
        self.sent += 1
        return build_frame(tick(self.name, self.sent))

    def collect_one(self) -> None:
        """Send a trade; it and all before it are in the ring, once and in order."""
        assert self.server.send(self.tick())
        self.has_all()

    def has_all(self) -> None:
        """Every trade that was sent is in the ring, once, in order."""
        ring = Consumer.open(self.home.ring_path(self.name, "tick"), STREAMS["tick"])
        wait_until(f"{self.sent} trades are collected", lambda: ring.head >= self.sent, 20)
        found = ring.read(1, 1 << 16).records["cum_volume"].tolist()
        ring.close()

        assert list(range(1, self.sent + 1)) == found

    def judge(self) -> None:
        """Alive, no larger than allowed, never late with a heartbeat."""
        assert self.process.poll() is None, (self.home.root / "out").read_text()
        wait_until("it has given memory back", lambda: (read_own_memory_mb(self.process.pid) or 0) < MEMORY_MOST_MB, 3)
        assert self.latest_beat_s < STALE_S

    def end(self) -> None:
        """It still stops when asked."""
        self._watching = False
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        assert code == 0


def tick(kind: str, cum_volume: int) -> str:
    """A trade of one share."""
    if kind == "kis":
        fields = ["0"] * 47
        fields[:3] = ["005930", "100000", "72000"]
        fields[12:15] = ["1", str(cum_volume), str(72000 * cum_volume)]
        return f"0|H0STCNT0|001|{'^'.join(fields)}"
    values = {"20": "100000", "10": "-72000", "15": "-1", "13": str(cum_volume), "14": "7"}
    return json.dumps({"trnm": "REAL", "data": [{"type": "0B", "name": "x", "item": "005930", "values": values}]})


def settings(kind: str, url: str, rest: str) -> str:
    """A home for one broker that tries again fast."""
    other = "kiwoom" if kind == "kis" else "kis"
    return f"""
    universe.kr = ["005930"]
    clock = {{ start = "2026-11-20T10:00:00+09:00" }}
    ring = {{ orderbook_capacity = 4096, tick_capacity = 4096 }}
    quarantine.max_bytes = {QUARANTINE_MOST}
    feed = {{ backoff_first_s = 0.1, backoff_max_s = {BACKOFF_MOST_S}, max_connects_per_hour = 3000 }}
    {other}.enabled = false
    [{kind}]
    ws_url = "{url}"
    rest_url = "{rest}"
    subscribe_spacing_ms = 20
    cut_wait_s = 0.0
    """


@pytest.fixture(scope="module", params=["kis", "kiwoom"])
def collector(request: pytest.FixtureRequest) -> Iterator[Collector]:
    """The collector that lives through this module."""
    server = HostileServer(request.param)
    address = f"127.0.0.1:{server.port}"
    with temporary_home(settings(request.param, f"ws://{address}/", f"http://{address}")) as root:
        found = Collector(request.param, root, server)
        try:
            found.until_connected(1, 20)
            found.collect_one()
            yield found
            found.judge()
            found.end()
        finally:
            found.process.kill()
            found.process.wait()
            server.close()


@pytest.fixture
def kis(collector: Collector) -> Collector:
    """The same, for what both brokers share and that takes long."""
    if collector.name != "kis":
        pytest.skip("the code is shared by both brokers: seen with kis")
    return collector


def a_flood(piece: bytes, max_bytes: int) -> Callable[[HostileServer], None]:
    """Send `piece` over and over, up to `max_bytes` or until the other side has had enough."""
    block = piece * max(1, (1 << 18) // len(piece))

    def attack(server: HostileServer) -> None:
        for _ in range(0, max_bytes, len(block)):
            if not server.send(block):
                return

    return attack


def several(*attacks: Callable[[HostileServer], object]) -> Callable[[HostileServer], None]:
    """One after another."""

    def attack(server: HostileServer) -> None:
        for each in attacks:
            each(server)

    return attack


def raw(data: bytes) -> Callable[[HostileServer], object]:
    """Send it once."""
    return lambda server: server.send(data)


FATAL = {
    "a frame of 100 MB, really sent": several(
        raw(b"\x81\x7f" + (100_000_000).to_bytes(8)), a_flood(b"x" * 1000, 100_000_000)
    ),
    "a frame of 2**64-1 bytes": raw(b"\x81\x7f" + b"\xff" * 8),
    "fragments without end": several(raw(b"\x01\x00"), a_flood(b"\x00\x7e\xff\xff" + b"x" * 65535, 100_000_000)),
    "a compressed frame": raw(build_frame(b"\xaa\x56\x4a\x01\x00", 0xC1)),
    "a masked frame": raw(b"\x81\x85abcdefghi"),
    "a long ping": raw(build_frame(b"x" * 126, 0x89)),
    "an unknown opcode": raw(build_frame(b"x", 0x83)),
    "a continuation of nothing": raw(build_frame(b"x", 0x80)),
    "no WebSocket at all": a_flood(b"HTTP/1.1 500 Internal Server Error\r\n\r\n", 1_000_000),
}


@pytest.mark.parametrize("name", FATAL)
def test_frames_that_break_the_protocol_cost_the_connection_and_nothing_else(collector: Collector, name: str) -> None:
    """A trade before and a trade after are collected; it is back within the backoff."""
    connection = len(collector.server.opened_s)
    before = collector.tick()

    assert collector.server.send(before)
    FATAL[name](collector.server)
    ended = time.monotonic()
    collector.until_connected(connection + 1)

    assert collector.server.opened_s[-1] - ended < RECONNECT_S
    collector.collect_one()
    collector.judge()


def bombs(kind: str) -> list[bytes]:
    """Messages that are expensive or impossible to understand, each below the size of a frame."""
    deep, long = 200_000, "9" * 100_000
    values = {str(n): "1" for n in range(100_000)}
    many_fields = json.dumps({"trnm": "REAL", "data": [{"type": "0B", "item": "005930", "values": values}]})
    texts = [
        b"[" * deep,
        b'{"a":' * deep,
        b'{"trnm":"REAL","data":' + b"[" * deep,
        b'{"trnm":"REAL","data":[{"type":"0B","values":' + b'{"20":' * deep,
        b'{"header":' * deep,
        b'{"header":{"tr_id":' + b"[" * deep + b"]" * deep + b"}}",
        json.dumps({"trnm": "SYSTEM", "code": "1", "message": "x" * 3_000_000}).encode(),
        json.dumps({str(n): n for n in range(100_000)}).encode(),
        many_fields.encode(),
        json.dumps({"trnm": "REAL", "data": [{}] * 100_000}).encode()[:200_000],
        b'{"trnm":"REG","return_code":1e999999}',
        b'{"trnm":"REG","return_code":%b}' % long.encode(),
        b'{"header":{"tr_id":"PINGPONG","datetime":"%b"}}' % (b"x" * 3_000_000),
        b'{"trnm":"PING","x":"%b"}' % (b"x" * 3_000_000),
        b'{"trnm":"SYSTEM","code":"\xff","message":"\xed\xa0\x80"}',
        b'{"header":{"tr_id":"\xff"},"body":{"msg1":"\xc2"}}',
        b'{"trnm":"\\ud800","header":{"tr_id":"\\udfff"}}',
        b"\0" * 100_000,
        b"",
        b"0|H0STCNT0|999|" + b"^" * 1_000_000,
        b"0|H0STCNT0|001|005930^100000^" + b"^".join([b"9" * 5000] * 45),
        b"0|H0STCNT0|001|005930^" + b"1" * 100_000 + b"^" * 45,
        b"|" * 1_000_000,
        b"\xef\xbb\xbf{}",
    ]  # fmt: skip
    return [*texts, tick(kind, 1).replace("72000", "9" * 30, 1).encode()]


def test_bombs_and_garbage_are_put_aside_on_a_connection_that_goes_on(collector: Collector) -> None:
    """Deep nesting, long numbers, a hundred thousand fields, bytes that are no text: the trades between them are all collected."""
    server = collector.server
    connection, put_aside = (
        len(server.opened_s),
        collector.count("quarantined") + collector.count("quarantine_overflow"),
    )
    hostile = bombs(collector.name)

    for text in hostile:
        assert server.send(build_frame(text))
        assert server.send(collector.tick())
    collector.has_all()

    assert len(server.opened_s) == connection
    assert collector.count("quarantined") + collector.count("quarantine_overflow") - put_aside >= 18
    collector.judge()


def test_answers_to_questions_that_were_never_asked_change_nothing(collector: Collector) -> None:
    """Acknowledgements, refusals and other people's keys: put aside, and the registrations stand as before."""
    server = collector.server
    connection, acknowledged = len(server.opened_s), collector.count("acknowledged")
    strangers = [
        {"header": {"tr_id": tr, "tr_key": key}, "body": {"rt_cd": rt, "msg_cd": code, "msg1": "x" * 5000}}
        for tr in ("H0STCNT0", "H0STCNI0", "x" * 100_000)
        for key in ("999999", "someone-else", "")
        for rt, code in (("0", "OPSP0000"), ("1", "OPSP0008"), ("1", "ZZZZ"))
    ]
    strangers += [
        {"trnm": trnm, "return_code": code, "return_msg": "x" * 5000}
        for trnm in ("REG", "REMOVE", "CNSRLST", "x" * 100_000)
        for code in (0, 5, 105115, 105110)
    ]

    for text in strangers:
        assert server.send(build_frame(json.dumps(text)))
    collector.collect_one()

    assert len(server.opened_s) == connection
    assert collector.count("acknowledged") == acknowledged == 2
    assert collector.count("refused") == 0
    collector.judge()


def test_a_frame_that_drips_byte_by_byte_is_read(collector: Collector) -> None:
    """Each byte in a packet of its own."""
    for byte in collector.tick():
        assert collector.server.send(bytes([byte]))

    collector.has_all()
    collector.judge()


def test_empty_fragments_without_end_hold_nobody_up(collector: Collector) -> None:
    """Half a million of them, pings between them, and then the end of the message: the connection goes on."""
    connection = len(collector.server.opened_s)

    assert collector.server.send(b"\x01\x00" + (b"\x00\x00" * 250 + b"\x89\x00") * 2000 + b"\x80\x00")
    collector.collect_one()

    assert len(collector.server.opened_s) == connection
    collector.judge()


@pytest.mark.parametrize(
    ("start", "piece", "end"),
    [(b"", b"\x8a\x00", b""), (b"", b"\x89\x00", b""), (b"\x01\x00", b"\x00\x00", b"\x80\x00")],
    ids=["pongs", "pings", "continuations"],
)
def test_frames_that_say_nothing_hold_no_heartbeat_up(
    collector: Collector, start: bytes, piece: bytes, end: bytes
) -> None:
    """Four million empty frames, faster than they can be read: the trade behind them is collected on the same connection."""
    connection = len(collector.server.opened_s)

    assert collector.server.send(start)
    a_flood(piece, 8 << 20)(collector.server)
    assert collector.server.send(end)
    collector.collect_one()

    assert len(collector.server.opened_s) == connection
    collector.judge()


def test_a_flood_of_unreadable_frames_fills_the_quarantine_to_its_limit_and_is_counted(collector: Collector) -> None:
    """60,000 messages nobody can read: those that find no room are counted, the trade behind them is collected."""
    overflow = collector.count("quarantine_overflow")

    a_flood(build_frame("no frame of anybody"), 60_000 * 21)(collector.server)
    collector.collect_one()

    file = collector.home.quarantine_directory() / "date=2026-11-20" / f"{collector.name}.jsonl"
    assert file.stat().st_size <= QUARANTINE_MOST
    assert all(json.loads(line) for line in file.read_bytes().splitlines())
    assert collector.count("quarantine_overflow") - overflow > 10_000
    collector.judge()


@pytest.mark.parametrize("first", [0x81, 0x89], ids=["heartbeats", "pings"])
def test_heartbeats_without_end_to_a_server_that_takes_no_answer(collector: Collector, first: int) -> None:
    """16 MB of them: when the answers stay in the socket the connection is given up, and a new one collects."""
    server, connection = collector.server, len(collector.server.opened_s)
    beat = {"kis": '{"header":{"tr_id":"PINGPONG","datetime":"20261120100000"}}', "kiwoom": '{"trnm":"PING"}'}
    piece = build_frame(beat[collector.name] if first == 0x81 else b"x" * 125, first)

    server.reading.clear()
    sender = threading.Thread(target=a_flood(piece, 16 << 20), args=(server,), daemon=True)
    sender.start()
    sender.join(20)
    server.reading.set()
    if len(server.opened_s) == connection:
        server.drop()
    collector.until_connected(connection + 1, 30)

    collector.collect_one()
    collector.judge()


def half(peer: socket.socket, head: bytes) -> None:
    """Half a handshake, then silence."""
    peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: webso")
    peer.settimeout(30)
    peer.recv(1)


def drip(peer: socket.socket, head: bytes) -> None:
    """A handshake of one byte a tenth of a second."""
    peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\nX: ")
    while True:
        peer.sendall(b"x")
        time.sleep(0.1)


def endless(start: bytes, piece: bytes) -> Callable[[socket.socket, bytes], None]:
    """Answer with something that does not end."""

    def attack(peer: socket.socket, head: bytes) -> None:
        peer.sendall(start)
        while True:
            peer.sendall(piece)

    return attack


def says(answer: bytes) -> Callable[[socket.socket, bytes], None]:
    """Answer with this and close."""
    return lambda peer, head: peer.sendall(answer)


def half_a_frame(peer: socket.socket, head: bytes) -> None:
    """A handshake, the beginning of a frame, the end."""
    accept_upgrade(peer, head)
    peer.sendall(b"\x81\x7e\xff\xff12345")


HANDSHAKES = {
    "headers without end": endless(b"HTTP/1.1 101 Switching Protocols\r\n", b"x: y\r\n" * 10_000),
    "a line without end": endless(b"HTTP/1.1 101 ", b"x" * 100_000),
    "a page without end": endless(b"HTTP/1.1 500 Oh\r\nContent-Length: 1000000000000000\r\n\r\n", b"<html>" * 10_000),
    "a page of negative length": says(b"HTTP/1.1 500 Oh\r\nContent-Length: -5\r\n\r\n<html>"),
    "a page": says(build_http_response("200 OK", b"<html>" * 1000)),
    "a page of errors": says(build_http_response("503 Service Unavailable", b"<html>" * 1000)),
    "no status": says(b"HTTP/1.1\r\n\r\n"),
    "no HTTP": says(bytes(range(256)) * 10 + b"\r\n\r\n"),
    "nothing": says(b""),
    "a wrong proof": says(
        b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: eA==\r\n\r\n"
    ),
    "half a frame": half_a_frame,
}


@pytest.mark.parametrize("name", HANDSHAKES)
def test_handshakes_that_are_none_are_given_up_and_tried_again(collector: Collector, name: str) -> None:
    """The attempt after it, within the backoff, collects."""
    server = collector.server
    connection = len(server.opened_s)
    server.attacks = [HANDSHAKES[name]] * 2

    server.drop()
    collector.until_connected(connection + 1, 2 * RECONNECT_S)

    assert server.attacks == []
    collector.collect_one()
    collector.judge()


def test_a_redirect_of_the_handshake_leads_nowhere(collector: Collector) -> None:
    """Nobody connects to where it points."""
    server, elsewhere = collector.server, HostileServer(collector.name)
    connection = len(server.opened_s)
    target = f"Location: ws://127.0.0.1:{elsewhere.port}/"
    server.attacks = [
        says(build_http_response(status, b"x", target)) for status in ("301 x", "302 x", "307 x", "308 x")
    ]

    server.drop()
    collector.until_connected(connection + 1, 4 * RECONNECT_S)

    assert elsewhere.requests == 0
    elsewhere.close()
    collector.collect_one()
    collector.judge()


def slowly(peer: socket.socket, head: bytes) -> None:
    """An answer of one byte every fifth of a second."""
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        peer.sendall(b" ")
        time.sleep(0.2)


BODIES = {
    "huge": endless(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", b" " * 100_000),
    "a redirect with a huge page": endless(
        b"HTTP/1.1 302 x\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 1000000000000\r\n\r\n", b" " * 100_000
    ),
    "chunks without end": endless(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 65536 + b"\r\n"
    ),
    "headers without end": endless(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 10_000),
    "a page": says(build_http_response("200 OK", b"<html>" * 1000)),
    "a bomb": says(build_http_response("200 OK", b'{"a":' * 100_000)),
    "a zipped bomb": says(
        build_http_response("200 OK", gzip.compress(b" " * 300_000_000, 1), "Content-Encoding: gzip")
    ),
    "half": says(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"approval_key":'),
    "no HTTP": says(b"\xff" * 1000 + b"\r\n\r\n"),
}


@pytest.mark.parametrize("name", BODIES)
def test_rest_answers_that_are_none_are_given_up_and_asked_for_again(kis: Collector, name: str) -> None:
    """The vendor refuses the key, the new one comes only after this answer: the attempt after it collects."""
    server = kis.server
    connection = len(server.opened_s)
    server.rest_attacks = [BODIES[name]]
    refused = {
        "header": {"tr_id": "H0STCNT0"},
        "body": {"rt_cd": "1", "msg_cd": "OPSP0011", "msg1": "invalid approval"},
    }

    assert server.send(build_frame(json.dumps(refused)))
    kis.until_connected(connection + 1, 2 * RECONNECT_S)

    assert server.rest_attacks == []
    kis.collect_one()
    kis.judge()


def test_what_would_take_for_ever_is_given_up_after_seconds(kis: Collector) -> None:
    """Half a handshake, a handshake and a REST answer that drip: the heart beats on, no thread stays, the next try collects.

    Three collectors at once, each meets one of them at its start.
    """
    servers = [HostileServer("kis") for _ in range(3)]
    servers[0].attacks, servers[1].attacks, servers[2].rest_attacks = [half], [drip], [slowly]
    with ExitStack() as stack:
        collectors, begin = [], time.monotonic()
        for server in servers:
            address = f"127.0.0.1:{server.port}"
            root = stack.enter_context(temporary_home(settings("kis", f"ws://{address}/", f"http://{address}")))
            collectors.append(Collector("kis", root, server))
            stack.callback(collectors[-1].process.kill)
        for collector, most_s in zip(collectors, (10, 10, 15), strict=True):
            collector.until_connected(1, 40)
            assert most_s - 1 < collector.server.opened_s[0] - begin < most_s + 2 * RECONNECT_S
            wait_until("the attempt that was given up is gone", lambda c=collector: c.threads() <= kis.threads(), 2)
            collector.collect_one()
            collector.judge()
            collector.end()


def test_it_never_grew_on_the_way(collector: Collector) -> None:
    """Its largest size in all of this, and its latest heartbeat."""
    assert collector.largest_mb < 2 * MEMORY_MOST_MB
    assert collector.latest_beat_s < STALE_S


def certificate(directory: Path, name: str, issuer: str | None, alternative: str) -> Path:
    """A key and certificate in one file, made by openssl: signed by `issuer`, else by itself."""
    file = directory / f"{name}.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += [
        "-subj",
        f"/CN={name}",
        "-keyout",
        str(directory / f"{name}.key"),
        "-out",
        str(directory / f"{name}.crt"),
    ]
    command += ["-addext", f"subjectAltName={alternative}"]
    if issuer:
        command += ["-CA", str(directory / f"{issuer}.crt"), "-CAkey", str(directory / f"{issuer}.key")]
        command += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run(command, check=True, capture_output=True)
    file.write_bytes((directory / f"{name}.key").read_bytes() + (directory / f"{name}.crt").read_bytes())
    return file


def context(file: Path) -> ssl.SSLContext:
    """A server's."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(file)
    return made


def test_tls_with_a_wrong_name_or_signed_by_itself_is_refused(tmp_path: Path) -> None:
    """No byte of ours goes to such a server; the right certificate of the same authority is accepted by the same process."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make certificates with")
    certificate(tmp_path, "authority", None, "DNS:authority")
    wrong = context(certificate(tmp_path, "wrong", "authority", "DNS:api.example.com,IP:127.0.0.2"))
    own = context(certificate(tmp_path, "own", None, "IP:127.0.0.1"))
    right = context(certificate(tmp_path, "right", "authority", "IP:127.0.0.1"))
    secure, plain = HostileServer("kiwoom", [wrong, wrong, own, own, right]), HostileServer("kiwoom")

    url, rest = f"wss://127.0.0.1:{secure.port}/", f"http://127.0.0.1:{plain.port}"
    with temporary_home(settings("kiwoom", url, rest)) as root:
        collector = Collector("kiwoom", root, secure, SSL_CERT_FILE=str(tmp_path / "authority.crt"))
        collector.until_connected(1, 30)
        collector.collect_one()
        log = (root / "log" / "kiwoom.log").read_text()
        collector.judge()
        collector.end()

    assert len(secure.tls_errors) == 4
    assert secure.requests == 1
    assert "IP address mismatch" in log
    assert "self-signed certificate" in log or "self signed certificate" in log
