"""What the writer's tests feed it with, and how they look at what came out."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from conf.home import Home
from ringbuf import vitals
from ringbuf.records import ORDERBOOK, TICK, FeedId, Session, Side, Venue, empty_records
from ringbuf.vitals import VitalsSnapshot

ROOT = Path(__file__).parents[2]
NINE_NS = 1_795_132_800_000_000_000
"""2026-11-20 09:00:00 in Korea."""

SECOND_NS = 1_000_000_000

started_writers: list[subprocess.Popen[bytes]] = []
"""Writers of the test that runs; what a failure leaves of them is killed."""


def make_books(
    numbers: np.ndarray | range,
    feed: FeedId = FeedId.KIS,
    exch_ns: int = NINE_NS,
    mono_ns: int | None = None,
    symbols: int = 4,
) -> np.ndarray:
    """One book per number, the same content for the same number on either line; received 1 us apart."""
    numbers = np.asarray(numbers, np.int64)
    found = empty_records(ORDERBOOK, len(numbers))
    found["symbol"] = np.array([b"%06d" % (n * 10) for n in range(symbols)])[numbers % symbols]
    found["venue"] = Venue.KRX
    found["cum_volume"] = numbers
    for n in range(10):
        found["ask_price_e4"][:, n] = (70_000 + 100 * n + numbers % 7) * 10_000
        found["bid_price_e4"][:, n] = (69_900 - 100 * n + numbers % 7) * 10_000
        found["ask_size"][:, n] = numbers % 1000 + n
        found["bid_size"][:, n] = numbers % 999 + n
    found["total_ask_size"] = found["ask_size"].sum(axis=1)
    found["total_bid_size"] = found["bid_size"].sum(axis=1)
    return _stamp(found, feed, exch_ns, mono_ns)


def make_ticks(
    numbers: np.ndarray | range, feed: FeedId = FeedId.KIS, exch_ns: int = NINE_NS, mono_ns: int | None = None
) -> np.ndarray:
    """One tick of one share per number: the tape has no gap where the numbers have none."""
    numbers = np.asarray(numbers, np.int64)
    found = empty_records(TICK, len(numbers))
    found["symbol"] = b"005930"
    found["venue"] = Venue.KRX
    found["price_e4"] = (70_000 + numbers % 10) * 10_000
    found["size"] = 1
    found["cum_volume"] = numbers
    found["side"] = numbers % 3 - 1
    return _stamp(found, feed, exch_ns, mono_ns)


def _stamp(found: np.ndarray, feed: FeedId, exch_ns: int, mono_ns: int | None) -> np.ndarray:
    count = np.arange(len(found))
    found["line"] = feed
    found["session"] = Session.REGULAR
    found["exch_ns"] = exch_ns
    found["mono_ns"] = (time.monotonic_ns() if mono_ns is None else mono_ns) + count * 1000
    found["recv_ns"] = exch_ns + 50_000_000 + count * 1000
    return found


def make_home(root: Path, **writer: object) -> Home:
    """A home with a writer in a hurry; `writer` overrides its settings."""
    table = {"fsync_every_s": 0.2, "grace_s": 1.0, "twin_window_s": 0.5, "late_every_s": 1.0} | writer
    lines = "\n".join(f"{key} = {value}" for key, value in table.items())
    root.mkdir(parents=True, exist_ok=True)
    (root / "collector.toml").write_text(
        f'[paths]\nring = "run/rings"\n[ring]\norderbook_capacity = 65536\ntick_capacity = 65536\n[writer]\n{lines}\n'
    )
    home = Home(root)
    home.create_directories()
    return home


def start_writer(home: Home, script: str | None = None) -> subprocess.Popen[bytes]:
    """A real writer process; `script` runs instead of `-m writer` (to stop it at a chosen point)."""
    command = [sys.executable, "-m", "writer"] if script is None else [sys.executable, "-c", script]
    env = os.environ | {"COLLECTOR_HOME": str(home.root), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=env)
    started_writers.append(process)
    return process


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Until `what` is true; AssertionError after that many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def read_vitals(home: Home) -> VitalsSnapshot | None:
    """The writer's vitals; None before its first."""
    try:
        return vitals.read_snapshot(home.vitals_path("writer"))
    except FileNotFoundError:
        return None


def read_running_vitals(home: Home, process: subprocess.Popen[bytes]) -> VitalsSnapshot | None:
    """This process's vitals once it has recovered; None before."""
    found = read_vitals(home)
    return found if found and found.pid == process.pid and found.state != "starting" else None


def read_counter(home: Home, counter: str) -> int:
    """One of the writer's counters; 0 before its first page."""
    found = read_vitals(home)
    return found.counters[counter] if found else 0


def stop_writer(process: subprocess.Popen[bytes]) -> int:
    """SIGTERM and wait; the exit status."""
    process.terminate()
    return process.wait(600)


def read_published(home: Home, stream: str = "orderbook") -> pd.DataFrame:
    """Everything in Parquet, as a user reads it."""
    return pd.read_parquet(home.data / "kr" / stream)


def find_parts(home: Home, stream: str = "orderbook") -> list[Path]:
    """The part files."""
    return sorted((home.data / "kr" / stream).rglob("part-*.parquet"))


def volume_columns(ticks: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative volume and size of (low, size) pairs."""
    low, size = (np.array([tick[n] for tick in ticks], np.int64) for n in (0, 1))
    return low + size, size


def share_numbers(low: int, high: int) -> set[int]:
    """The shares of (low, high], each by its number."""
    return set(range(low + 1, high + 1))


def make_tick_records(ticks: list[tuple[int, int]], price: int = 100, exch_ns: int = NINE_NS) -> np.ndarray:
    """TICK records of one symbol from (low, size) pairs, with KIS's sums as if nothing were missing."""
    found = empty_records(TICK, len(ticks))
    found["symbol"], found["venue"], found["line"] = b"005930", Venue.KRX, FeedId.KIS
    found["cum_volume"], found["size"] = volume_columns(ticks)
    found["price_e4"] = price * 10_000
    found["cum_value"] = found["cum_volume"] * price
    found["trade_count"] = found["cum_volume"]
    found["side"] = Side.BUY
    found["exch_ns"], found["recv_ns"] = exch_ns, exch_ns
    return found


def make_book_at(volume: int, mono_ns: int, feed: FeedId = FeedId.KIWOOM) -> np.ndarray:
    """A book of the same symbol that carries this cumulative volume."""
    found = make_books([volume], feed, mono_ns=mono_ns, symbols=1)
    found["symbol"], found["cum_volume"] = b"005930", volume
    return found
