"""The whole tree: a collector is killed in the session, and what it missed is in its place a moment later, once and in order."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
from support.process_tree import run_collectorctl, temporary_home, wait_until

from brokers.simulator import ground_truth
from collectorctl.demo.environment import SimulatorProcess, set_addresses
from collectorctl.demo.oracle import compare
from collectorctl.demo.reconcile import reconcile
from conf.home import Home
from ringbuf.vitals import VitalsError, VitalsSnapshot, read_snapshot
from writer.volume.gaps import decode_gap_report

SYMBOLS = ["005930", "000660", "0074K0", "373220"]
SETTINGS = """
[universe]
kr = ["005930", "000660", "0074K0", "373220"]
[shards]
kis = ["005930", "000660", "0074K0", "373220"]
[clock]
start = "2026-11-20T10:00:00+09:00"
[kis]
subscribe_spacing_ms = 20
cut_wait_s = 1.0
[feed]
backoff_max_s = 1.0
"""


def test_what_a_broken_line_missed_is_filled_within_seconds_exactly_once_and_in_order() -> None:
    """KIS is killed; its REST is out of order, refuses for the rate, ends the token, breaks lines inside texts, leaves a row out;
    the filling process is killed when it is at work. Every trade since the first is in exactly one row, the rows missed live are
    the recovered ones, the calls stay below their rate, and the live lines lack nothing that they delivered."""
    with (
        temporary_home(SETTINGS) as root,
        SimulatorProcess(root, root / "truth", "--kis-loss", "0", "--kiwoom-loss", "0") as simulator,
    ):
        set_addresses(root, simulator.addresses)
        run_collectorctl(root, "start")
        home = Home(root)
        wait_until("every symbol has ticks", lambda: heard_of(home) == len(SYMBOLS))
        for fault in ("expire", "limit 2", "error 1", "restbreak 3", "omitrow 1"):
            simulator.send_command(f"kis {fault}")
        os.kill(seen(home, "kis").pid, signal.SIGKILL)
        wait_until("it is refused", lambda: counted(home, "gapfill", "calls_limited"), 60)
        os.kill(seen(home, "gapfill").pid, signal.SIGKILL)
        born_ns = time.monotonic_ns()
        wait_until("the gaps are filled", lambda: filled(home), 60)
        last = seen(home, "gapfill")
        simulator.send_command("market rest")
        time.sleep(2.0)
        run_collectorctl(root, "stop")
        simulator.close()

        told = ground_truth.load(root / "truth")
        rows = pd.read_parquet(root / "data/kr/tick")
        assert (
            last.counters["calls"] <= home.settings.gapfill.calls_per_s * (last.heartbeat_mono_ns - born_ns) / 1e9 + 1
        )
        assert_every_trade_once_in_order(told.trades, root)
        ended = {(c["line"], c["connection"]): c["ended_mono_ns"] for c in told.connections if c["ended_mono_ns"]}
        books = pd.read_parquet(root / "data/kr/orderbook")
        assert [] == compare(told.books, told.trades, told.deliveries, ended, books, rows).problems()


def seen(home: Home, name: str) -> VitalsSnapshot | None:
    """The vitals of a process of the tree; None while it has none."""
    try:
        return read_snapshot(home.vitals_path(name))
    except (FileNotFoundError, VitalsError):
        return None


def counted(home: Home, name: str, counter: str) -> int:
    """What a process has counted in this life."""
    found = seen(home, name)
    return found.counters[counter] if found else 0


def heard_of(home: Home) -> int:
    """Symbols that the writer has told ticks of."""
    path = home.run / "volume.json"
    report = decode_gap_report(path.read_bytes()) if path.exists() else None
    return len(report.symbols) if report else 0


def filled(home: Home) -> bool:
    """Whether gaps were filled, and none is left."""
    return counted(home, "gapfill", "gaps_filled") > 0 and counted(home, "writer", "gap_count") == 0


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
        (told,) = reconcile(market, mine)
        assert [] == told.problems()
        assert told.equal == told.recovered == (mine.source == "recovered").sum()
