"""A vendor that answers what it likes, and a home whose writer has told of a gap.

The process under test is real, and so are its ring and the file it hears from; what the writer would do is done by hand.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
import numpy as np

from conf.home import Home
from ringbuf.records import TICK, FeedId, Side, Venue, empty_records
from ringbuf.ring import Consumer
from ringbuf.vitals import VitalsError, VitalsSnapshot, read_snapshot
from writer.volume.gap_tracker import GapTracker
from writer.volume.gaps import GapReport

ROOT = Path(__file__).parents[2]
TEN_NS = 1_795_136_400_000_000_000
"""2026-11-20 10:00:00 in Korea."""
SECOND_NS = 1_000_000_000
Rows = list[dict[str, str]]
Response = tuple[int, bytes]


def build_market(count: int = 120, each_second: int = 4) -> np.ndarray:
    """TICK records of one symbol from ten o'clock on, with KIS's sums."""
    random = np.random.default_rng(7)
    ticks = empty_records(TICK, count)
    ticks["symbol"], ticks["venue"], ticks["line"], ticks["side"] = b"005930", Venue.KRX, FeedId.KIS, Side.BUY
    ticks["size"] = random.integers(1, 20, count)
    ticks["price_e4"] = (70_000 + random.integers(0, 5, count) * 100) * 10_000
    ticks["cum_volume"] = np.cumsum(ticks["size"])
    ticks["cum_value"] = np.cumsum(ticks["size"] * ticks["price_e4"] // 10_000)
    ticks["trade_count"] = np.arange(1, count + 1)
    ticks["exch_ns"] = TEN_NS + np.arange(count) // each_second * SECOND_NS
    ticks["recv_ns"] = ticks["exch_ns"]
    return ticks


class FakeVendor:
    """The REST of a vendor that knows `market`; `lie` makes an answer of the rows that would be true."""

    def __init__(self, market: np.ndarray) -> None:
        self.market = market
        self.respond: Callable[[Rows], Response] = respond_correctly
        self.tokens_issued = 0
        self.call_times_s: list[float] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._build_handler())
        self.server.handle_error = lambda *_: None  # a client that was killed meanwhile
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server.server_port}"

    def build_rows(self, until: str) -> Rows:
        """Thirty trades at or before a second, newest first (docs/wire/kis.md 5)."""
        hours = [
            f"{at:%H%M%S}"
            for at in (self.market["exch_ns"] + 9 * 3600 * SECOND_NS).astype("M8[ns]").astype("M8[s]").tolist()
        ]
        end = sum(hour <= until for hour in hours)
        return [
            {
                "stck_cntg_hour": hours[n],
                "stck_prpr": str(self.market["price_e4"][n] // 10_000),
                "askp": "70500",
                "bidp": "70400",
                "acml_vol": str(self.market["cum_volume"][n]),
                "cnqn": str(self.market["size"][n]),
            }
            for n in range(end - 1, max(end - 31, -1), -1)
        ]

    def _build_handler(self) -> type[BaseHTTPRequestHandler]:
        vendor = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                vendor.tokens_issued += 1
                self._send(200, msgspec.json.encode({"access_token": "a-token", "expires_in": 86400}))

            def do_GET(self) -> None:
                vendor.call_times_s.append(time.monotonic())
                query = parse_qs(urlsplit(self.path).query)
                self._send(*vendor.respond(vendor.build_rows(query["FID_INPUT_HOUR_1"][0])))

            def _send(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

    def close(self) -> None:
        """No more answers."""
        self.server.shutdown()
        self.server.server_close()


def respond_correctly(rows: Rows) -> Response:
    """What happened."""
    return build_response(rows)


def build_response(rows: object) -> Response:
    """An answer of these rows."""
    return 200, msgspec.json.encode({"rt_cd": "0", "msg_cd": "MCA00000", "output1": {}, "output2": rows})


def build_refusal(status: int, code: str) -> Callable[[Rows], Response]:
    """The gateway's refusal."""
    return lambda rows: (status, msgspec.json.encode({"rt_cd": "1", "msg_cd": code, "msg1": "no"}))


def format_settings(url: str, clock: str = "2026-11-20T10:01:00+09:00", **gapfill: float) -> str:
    """Of a home whose KIS is there."""
    lines = "\n".join(f"{name} = {value}" for name, value in ({"settle_s": 0.5, "calls_per_s": 10.0} | gapfill).items())
    return f'[paths]\nring = "run/rings"\n[clock]\nstart = "{clock}"\n[kis]\nrest_url = "{url}"\n[gapfill]\n{lines}\n'


def write_gap_report(home: Home, *batches: np.ndarray) -> None:
    """What the writer writes after these ticks."""
    tracker = GapTracker()
    for ticks in batches:
        tracker.add_ticks(ticks)
    temporary = home.run / "volume.new"
    temporary.write_bytes(msgspec.json.encode(GapReport("", "", "a-journal", 1, tracker.export_symbols())))
    temporary.replace(home.run / "volume.json")


def start_gapfill(home: Home) -> subprocess.Popen[bytes]:
    """The process."""
    env = os.environ | {"COLLECTOR_HOME": str(home.root), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-m", "collectorctl.gapfill"], cwd=ROOT, env=env)


def read_vitals(home: Home) -> VitalsSnapshot | None:
    """Its vitals."""
    try:
        return read_snapshot(home.vitals_path("gapfill"))
    except (FileNotFoundError, VitalsError):
        return None


def read_counter(home: Home, name: str) -> int:
    """One of its counters."""
    found = read_vitals(home)
    return found.counters[name] if found else 0


def read_ring(home: Home) -> np.ndarray:
    """All TICK records in its ring."""
    try:
        ring = Consumer.open(home.ring_path("gapfill", "tick"), TICK)
    except FileNotFoundError:
        return np.zeros(0, TICK)
    try:
        return ring.read(1, 16_384).records
    finally:
        ring.close()
