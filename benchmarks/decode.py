"""Messages a second, from a loopback socket to packed records, against websocket-client's own recv in the same run.

    python -m benchmarks.decode [--messages 100000]

A server process floods one connection; the client reads with Wire or with websocket-client, and decodes or does not.
Ratios travel between machines, absolute figures do not.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import socket
import statistics
import struct
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha1

import websocket

from brokers.decoded import DecodedBatch
from brokers.protocol import Broker
from brokers.registry import load_broker
from brokers.subscription import Subscription
from brokers.transport.websocket import WebSocketConnection
from conf.instrument import Instrument

REPEATS = 3
SUBSCRIPTIONS = [Subscription(Instrument("005930", "KRX"), stream) for stream in ("orderbook", "tick")]


def build_kis_tick_frame(records: int) -> bytes:
    """A trade frame of the present width."""
    fields = ["005930", "100000", "72000", "2", "100", "0.14", "71900.50", "71500", "72300", "71400", "72100", "72000"]
    fields += [
        "3",
        "1000003",
        "72000216000",
        "10000",
        "12000",
        "2000",
        "120.00",
        "400000",
        "500000",
        "1",
        "0.55",
        "80.0",
    ]
    fields += ["090014", "2", "500", "093000", "5", "-300", "090100", "2", "600", "20261120", "20", "N", "900", "800"]
    fields += ["10000", "9000", "0.14", "900000", "111.11", "0", "", "71000", "2"]
    return f"0|H0STCNT0|{records:03}|{'^'.join(fields * records)}".encode()


def build_kis_book_frame() -> bytes:
    """A book frame of the present width."""
    fields = ["005930", "100000", "0"]
    fields += [str(72100 + 100 * level) for level in range(10)] + [str(72000 - 100 * level) for level in range(10)]
    fields += ["12345"] * 20 + ["123450", "123450", "0", "0", "0", "0", "457236", "-71900", "5", "-100.00"]
    fields += ["1000003", "13", "5", "0", "0", "0", "72050", "4831", "2", "2"]
    return f"0|H0STASP0|001|{'^'.join(fields)}".encode()


def build_kiwoom_book_message() -> bytes:
    """A 0D with the FIDs of docs/wire/kiwoom.md 3.2, about 170 of them."""
    values = {"21": "100000"} | {str(fid): "-72000" for fid in range(41, 61)}
    values |= {str(fid): "12345" for fid in range(61, 81)} | {str(fid): "-17" for fid in range(81, 101)}
    values |= {"121": "123450", "125": "123450", "13": "1000003"}
    values |= {str(fid): "0" for fid in (*range(621, 641), *range(6044, 6116), 291, 292, 23, 24)}
    return _build_real_message("0D", values)


def build_kiwoom_tick_message() -> bytes:
    """A 0B with 43 FIDs."""
    values = {"20": "100000", "10": "-72000", "27": "-72100", "28": "-72000", "15": "-19", "13": "7198927"}
    values |= {"14": "1860588", "29": "-4167722708811", "290": "2", "1071": "63318", "1072": "96320"}
    values |= {str(fid): "-257000" for fid in range(1400, 1432)}
    return _build_real_message("0B", values)


def _build_real_message(kind: str, values: dict[str, str]) -> bytes:
    entry = {"values": values, "type": kind, "name": "주식", "item": "005930"}
    return json.dumps({"data": [entry], "trnm": "REAL"}, ensure_ascii=False, separators=(",", ":")).encode()


def accept_client(listener: socket.socket) -> socket.socket:
    """The next client, after the WebSocket handshake."""
    peer, _ = listener.accept()
    request = b""
    while b"\r\n\r\n" not in request:
        request += peer.recv(4096)
    key = next(line[19:] for line in request.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key: "))
    accept_key = b64encode(sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    peer.sendall(
        b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n" % accept_key
    )
    return peer


def build_text_frame(payload: bytes) -> bytes:
    """An unmasked text frame of less than 64 KiB."""
    size = len(payload)
    return (bytes([0x81, size]) if size < 126 else struct.pack("!BBH", 0x81, 126, size)) + payload


def flood(port_queue: multiprocessing.Queue, payload: bytes, count: int) -> None:
    """Serve one connection after another, `count` times the payload each, 200 frames a write."""
    frames = build_text_frame(payload) * 200
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port_queue.put(listener.getsockname()[1])
        while True:
            peer = accept_client(listener)
            with suppress(ConnectionError), peer:  # the slow readers leave early
                for _ in range(count // 200):
                    peer.sendall(frames)
                peer.recv(10)


def time_connection(url: str, broker: Broker | None, count: int) -> float:
    """Seconds for all messages by Wire, decoded by `vendor` if one is given."""
    subscriptions = broker.subscriptions_by_code(SUBSCRIPTIONS) if broker else {}
    connection = WebSocketConnection.connect(url, 1 << 22)
    begin, remaining = time.perf_counter(), count
    while remaining:
        messages = connection.poll(1)
        remaining -= len(messages)
        if broker:
            batch, now_ns = DecodedBatch(), time.time_ns()
            for payload, mono_ns in messages:
                batch.extend(broker.decode(payload, subscriptions, now_ns, mono_ns))
            assert batch.books is not None
            assert batch.ticks is not None
    elapsed_s = time.perf_counter() - begin
    connection.close()
    return elapsed_s


def time_library(url: str, count: int, **options: bool) -> float:
    """Seconds for a fifth of the messages by websocket-client's recv, times five."""
    link = websocket.create_connection(
        url, http_proxy_host="none", http_proxy_port=1, http_no_proxy=["127.0.0.1"], **options
    )
    begin = time.perf_counter()
    for _ in range(count // 5):
        link.recv()
    elapsed_s = (time.perf_counter() - begin) * 5
    link.shutdown()
    return elapsed_s


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=100_000, help="of each measurement, in steps of 1,000")
    count = parser.parse_args().messages
    print(
        f"{'frame':<20}{'bytes':>6} {'library':>10} {'skip utf8':>10} {'wire':>10} {'wire+decode':>12}   ratio to library, skip"
    )
    for name, payload in (
        ("kis tick x 1", build_kis_tick_frame(1)),
        ("kis tick x 5", build_kis_tick_frame(5)),
        ("kis book", build_kis_book_frame()),
        ("kiwoom 0B", build_kiwoom_tick_message()),
        ("kiwoom 0D", build_kiwoom_book_message()),
    ):
        broker = load_broker(name.split()[0])
        port_queue: multiprocessing.Queue = multiprocessing.Queue()
        server = multiprocessing.Process(target=flood, args=(port_queue, payload, count), daemon=True)
        server.start()
        url = f"ws://127.0.0.1:{port_queue.get()}/"

        def rate(measure: Callable[[], float]) -> float:
            return count / statistics.median(measure() for _ in range(REPEATS))

        plain = rate(lambda url=url: time_library(url, count))
        skip = rate(lambda url=url: time_library(url, count, skip_utf8_validation=True))
        wire = rate(lambda url=url: time_connection(url, None, count))
        decoded = rate(lambda url=url, vendor=broker: time_connection(url, vendor, count))
        server.terminate()
        print(
            f"{name:<20}{len(payload):>6} {plain:>8,.0f}/s {skip:>8,.0f}/s {wire:>8,.0f}/s {decoded:>10,.0f}/s"
            f"   wire {wire / plain:.0f}x {wire / skip:.1f}x, with decode {decoded / plain:.1f}x {decoded / skip:.1f}x"
        )


if __name__ == "__main__":
    main()
