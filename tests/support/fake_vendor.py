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
from ringbuf.records import TICK, Line, Side, Venue, blank
from ringbuf.ring import Consumer
from ringbuf.vitals import Reading, VitalsError, read
from writer.volume.gap_tracker import Report, VolumeLine

ROOT = Path(__file__).parents[2]
TEN_NS = 1_795_136_400_000_000_000
"""2026-11-20 10:00:00 in Korea."""
SECOND_NS = 1_000_000_000
Rows = list[dict[str, str]]
Answer = tuple[int, bytes]


def a_market(count: int = 120, each_second: int = 4) -> np.ndarray:
    """TICK records of one symbol from ten o'clock on, with KIS's sums."""
    chance = np.random.default_rng(7)
    ticks = blank(TICK, count)
    ticks["symbol"], ticks["venue"], ticks["line"], ticks["side"] = b"005930", Venue.KRX, Line.KIS, Side.BUY
    ticks["size"] = chance.integers(1, 20, count)
    ticks["price_e4"] = (70_000 + chance.integers(0, 5, count) * 100) * 10_000
    ticks["cum_volume"] = np.cumsum(ticks["size"])
    ticks["cum_value"] = np.cumsum(ticks["size"] * ticks["price_e4"] // 10_000)
    ticks["trade_count"] = np.arange(1, count + 1)
    ticks["exch_ns"] = TEN_NS + np.arange(count) // each_second * SECOND_NS
    ticks["recv_ns"] = ticks["exch_ns"]
    return ticks


class Liar:
    """The REST of a vendor that knows `market`; `lie` makes an answer of the rows that would be true."""

    def __init__(self, market: np.ndarray) -> None:
        self.market = market
        self.lie: Callable[[Rows], Answer] = honest
        self.issued = 0
        self.called_s: list[float] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.handle_error = lambda *_: None  # a client that was killed meanwhile
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server.server_port}"

    def rows(self, until: str) -> Rows:
        """Thirty trades at or before a second, newest first (spec kis 5)."""
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

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        liar = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                liar.issued += 1
                self._say(200, msgspec.json.encode({"access_token": "a-token", "expires_in": 86400}))

            def do_GET(self) -> None:
                liar.called_s.append(time.monotonic())
                query = parse_qs(urlsplit(self.path).query)
                self._say(*liar.lie(liar.rows(query["FID_INPUT_HOUR_1"][0])))

            def _say(self, status: int, content: bytes) -> None:
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


def honest(rows: Rows) -> Answer:
    """What happened."""
    return told(rows)


def told(rows: object) -> Answer:
    """An answer of these rows."""
    return 200, msgspec.json.encode({"rt_cd": "0", "msg_cd": "MCA00000", "output1": {}, "output2": rows})


def refused(status: int, code: str) -> Callable[[Rows], Answer]:
    """The gateway's refusal."""
    return lambda rows: (status, msgspec.json.encode({"rt_cd": "1", "msg_cd": code, "msg1": "no"}))


def settings(url: str, clock: str = "2026-11-20T10:01:00+09:00", **fill: float) -> str:
    """Of a home whose KIS is there."""
    lines = "\n".join(f"{name} = {value}" for name, value in ({"settle_s": 0.5, "calls_per_s": 10.0} | fill).items())
    return f'[paths]\nring = "run/rings"\n[clock]\nstart = "{clock}"\n[kis]\nrest_url = "{url}"\n[fill]\n{lines}\n'


def tell(home: Home, *heard: np.ndarray) -> None:
    """What the writer writes after these ticks."""
    line = VolumeLine()
    for ticks in heard:
        line.ticks(ticks)
    aside = home.run / "volume.new"
    aside.write_bytes(msgspec.json.encode(Report("", "", "a-journal", 1, line.symbols())))
    aside.replace(home.run / "volume.json")


def start(home: Home) -> subprocess.Popen[bytes]:
    """The process."""
    env = os.environ | {"COLLECTOR_HOME": str(home.root), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-m", "collectorctl.gapfill"], cwd=ROOT, env=env)


def reading(home: Home) -> Reading | None:
    """Its vitals."""
    try:
        return read(home.vitals("fill"))
    except (FileNotFoundError, VitalsError):
        return None


def counted(home: Home, name: str) -> int:
    """One of its counters."""
    found = reading(home)
    return found.counters[name] if found else 0


def handed_over(home: Home) -> np.ndarray:
    """All TICK records in its ring."""
    try:
        ring = Consumer.open(home.ring("fill", "tick"), TICK)
    except FileNotFoundError:
        return np.zeros(0, TICK)
    try:
        return ring.read(1, 16_384).records
    finally:
        ring.close()
