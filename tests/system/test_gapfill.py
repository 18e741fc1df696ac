"""The whole tree: a collector is killed in the session, and what it missed is in its place a moment later, once and in order."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
from support.process_tree import a_home, collectorctl, until

from brokers.simulator import ground_truth
from collectorctl.demo.environment import Simulator, connect_home
from collectorctl.demo.oracle import judge
from collectorctl.demo.reconcile import tile
from conf.home import Home
from ringbuf.vitals import Reading, VitalsError, read
from writer.volume.gap_tracker import report_of

SYMBOLS = ["005930", "000660", "0074K0", "373220"]
SETTINGS = """
[universe]
kr = ["005930", "000660", "0074K0", "373220"]
[shards]
A = ["005930", "000660", "0074K0", "373220"]
[clock]
start = "2026-11-20T10:00:00+09:00"
[kis]
register_spacing_ms = 20
cut_wait_s = 1.0
[feed]
backoff_most_s = 1.0
"""


def test_what_a_broken_line_missed_is_filled_within_seconds_exactly_once_and_in_order() -> None:
    """KIS is killed; its REST is out of order, refuses for the rate and ends the token; the filling process is killed when it is
    at work. Every trade since the first is in exactly one row, the rows missed live are the recovered ones, the
    calls stay below their rate, and the live lines lack nothing that they delivered."""
    with (
        a_home(SETTINGS) as root,
        Simulator(root, root / "truth", "--kis-loss", "0", "--kiwoom-loss", "0") as simulator,
    ):
        connect_home(root, simulator.addresses)
        collectorctl(root, "start")
        home = Home(root)
        until("every symbol has ticks", lambda: heard_of(home) == len(SYMBOLS))
        for fault in ("expire", "limit 2", "error 1"):
            simulator.tell(f"kis {fault}")
        os.kill(seen(home, "kis").pid, signal.SIGKILL)
        until("it is refused", lambda: counted(home, "fill", "calls_limited"), 60)
        os.kill(seen(home, "fill").pid, signal.SIGKILL)
        born_ns = time.monotonic_ns()
        until("the gaps are filled", lambda: filled(home), 60)
        last = seen(home, "fill")
        simulator.tell("market rest")
        time.sleep(2.0)
        collectorctl(root, "stop")
        simulator.close()

        told = ground_truth.load(root / "truth")
        rows = pd.read_parquet(root / "data/kr/tick")
        assert last.counters["calls"] <= home.settings.fill.calls_per_s * (last.beat_mono_ns - born_ns) / 1e9 + 1
        assert_every_trade_once_in_order(told.trades, root)
        ended = {(c["line"], c["connection"]): c["ended_mono_ns"] for c in told.connections if c["ended_mono_ns"]}
        books = pd.read_parquet(root / "data/kr/orderbook")
        assert [] == judge(told.books, told.trades, told.sent, ended, books, rows).complaints()


def seen(home: Home, name: str) -> Reading | None:
    """The vitals of a process of the tree; None while it has none."""
    try:
        return read(home.vitals(name))
    except (FileNotFoundError, VitalsError):
        return None


def counted(home: Home, name: str, counter: str) -> int:
    """What a process has counted in this life."""
    found = seen(home, name)
    return found.counters[counter] if found else 0


def heard_of(home: Home) -> int:
    """Symbols that the writer has told ticks of."""
    path = home.run / "volume.json"
    report = report_of(path.read_bytes()) if path.exists() else None
    return len(report.symbols) if report else 0


def filled(home: Home) -> bool:
    """Whether gaps were filled, and none is left."""
    return counted(home, "fill", "gaps_filled") > 0 and counted(home, "writer", "gap_count") == 0


def assert_every_trade_once_in_order(trades: np.ndarray, root: Path) -> None:
    """From each symbol's first tick on."""
    paths = sorted((root / "data/kr/tick").rglob("part-*.parquet"))
    rows = pd.concat([pd.read_parquet(path, partitioning=None) for path in paths], ignore_index=True)
    assert {"live", "recovered"} == set(rows.source)
    assert (rows.recv_time.isna() == (rows.source == "recovered")).all()
    for symbol in SYMBOLS:
        mine = rows[rows.symbol == symbol]
        begin = mine.cum_volume.iloc[0] - mine["size"].iloc[0]
        market = trades[(trades["symbol"] == symbol.encode()) & (trades["cum_volume"] > begin)]
        for name in ("cum_volume", "size", "price"):
            assert market[name].tolist() == mine[name].tolist(), (symbol, name)
        (told,) = tile(market, mine)
        assert [] == told.complaints()
        assert told.equal == told.recovered == (mine.source == "recovered").sum()
