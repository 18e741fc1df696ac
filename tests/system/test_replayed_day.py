"""A day that one home collected, replayed to another as KIS and Kiwoom: the second stores the same books and ticks.

simulator ─> first home ─> data ─> collectorctl replay ─┬─ KIS's form ────> kis ─┐
                                                        └─ Kiwoom's form ─> kiwoom ─> second home ─> equal rows
"""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from support.process_tree import BIN, QUICK, count_received, run_collectorctl, temporary_home, wait_until
from support.ring_program import free_ports

import collectorctl
from collectorctl.demo.environment import SimulatorProcess, set_addresses

DAY = "2026-11-20"
SYMBOLS = ("005930", "000660", "0074K0_NX")
SETTINGS = f"""
[universe]
kr = {list(SYMBOLS)}
[gapfill]
enabled = false
[recover]
automatic = false
{QUICK}"""
ITS_OWN = ["recv_time", "recv_time_kis", "recv_time_kiwoom", "broker", "seq", "flags"]
NOT_HANDED_ON = ["mid_size", "trade_count", "value_change", "cum_value"]
"""Columns that docs/relay.md names, with `session`, which is one throughout here."""


def read_rows(root: Path, stream: str, symbol: str) -> pd.DataFrame:
    """An instrument's rows in their order, without what a replay does not hand on."""
    rows = collectorctl.open(root).table(stream, symbol, DAY).to_pandas()
    return rows.drop(columns=[name for name in (*ITS_OWN, *NOT_HANDED_ON) if name in rows])


@pytest.mark.long
def test_a_day_that_is_replayed_to_another_home_is_stored_there_row_for_row(tmp_path: Path) -> None:
    losses = ["--kis-loss", "0.01", "--kiwoom-loss", "0.01", "--always-open", "--books-per-s", "20"]
    with temporary_home(SETTINGS) as first, temporary_home(SETTINGS) as second:
        with SimulatorProcess(first, tmp_path / "truth", *losses) as simulator:
            set_addresses(first, simulator.addresses)
            run_collectorctl(first, "start")
            wait_until("there are records", lambda: count_received(first) > 3000, 60)
            run_collectorctl(first, "stop")

        kis, kiwoom = free_ports(2)
        ports = ["--kis-port", str(kis), "--kiwoom-port", str(kiwoom)]
        replay = subprocess.Popen(
            [BIN / "collectorctl", "--home", first, "replay", "--date", DAY, "--clients", "2", *ports],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        addresses = {
            "kis": {"ws_url": f"ws://127.0.0.1:{kis}", "rest_url": f"http://127.0.0.1:{kis}"},
            "kiwoom": {
                "ws_url": f"ws://127.0.0.1:{kiwoom}/api/dostk/websocket",
                "rest_url": f"http://127.0.0.1:{kiwoom}",
            },
        }
        set_addresses(second, addresses)
        run_collectorctl(second, "start")
        report, _ = replay.communicate(timeout=200)
        assert replay.returncode == 0, report
        time.sleep(0.5)  # what the kernel still holds
        run_collectorctl(second, "stop")

        assert "waited for clients that ended" not in report
        played = re.search(r"played (\d+) books and (\d+) ticks", report)
        assert played is not None
        rows = {(stream, one): read_rows(first, stream, one) for stream in ("orderbook", "tick") for one in SYMBOLS}
        totals = [
            sum(len(found) for (name, _), found in rows.items() if name == stream) for stream in ("orderbook", "tick")
        ]
        assert [int(number) for number in played.groups()] == totals
        for (stream, one), expected in rows.items():
            assert len(expected) > 30
            pd.testing.assert_frame_equal(read_rows(second, stream, one), expected)
