"""A day that is captured at one home and played to another: the second stores the same.

simulator ─> first home, capture on ─> data/capture/FEED/*.jsonl.gz ─> simulate --frames ─> second home ─> equal rows
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pandas as pd
import pytest
from support.process_tree import SECRETS, read_pids, run_collectorctl, temporary_home, wait_until

from brokers.simulator.captured import read_captured
from collectorctl.demo.environment import SimulatorProcess, set_addresses
from conf.home import Home
from ringbuf.vitals import read_snapshot

RECEIVED = ["recv_time", "recv_time_kis", "recv_time_kiwoom", "seq"]


def settings(feed: str) -> str:
    """A home with one feed."""
    other = "kiwoom" if feed == "kis" else "kis"
    return f"""
[universe]
kr = ["005930", "000660_NX", "0074K0"]
[clock]
start = "2026-11-20T10:00:00+09:00"
[capture]
min_free_bytes = 0
[gapfill]
enabled = false
[recover]
automatic = false
[{other}]
enabled = false
[{feed}]
subscribe_spacing_ms = 20
"""


def read_counters(root: Path, feed: str) -> tuple[int, int, int]:
    """Records of the collector, records that the writer has read of it, captured frames."""
    collector, writer = (read_snapshot(Home(root).vitals_path(name)).counters for name in (feed, "writer"))
    return collector["books"] + collector["ticks"], writer[f"rows_in_{feed}"], collector["capture_frames"]


def quiet_count(root: Path, feed: str) -> int:
    """Records, once the writer has read all and nothing more comes; else 0."""
    before = read_counters(root, feed)
    time.sleep(1.5)  # a block of a capture is a second old at most
    return before[0] if before == read_counters(root, feed) and before[0] == before[1] else 0


def stored(root: Path, dataset: str) -> list[tuple]:
    """All rows without what depends on the receipt."""
    rows = pd.read_parquet(root / "data" / "kr" / dataset)
    assert len(rows) > 30
    plain = rows.drop(columns=[name for name in RECEIVED if name in rows])
    return sorted((tuple(row) for row in plain.astype(str).itertuples(index=False)), key=repr)


@pytest.mark.long
@pytest.mark.parametrize("feed", ["kis", "kiwoom"])
def test_a_captured_day_played_to_another_home_is_stored_there_as_it_was(feed: str) -> None:
    """Equal but for the receipt; switched on and off by the command while the tree runs, which nobody notices."""
    loss = ["--kis-loss", "0", "--kiwoom-loss", "0", "--always-open", "--books-per-s", "20"]
    with temporary_home(settings(feed)) as first, temporary_home(settings(feed)) as second:
        run_collectorctl(first, "capture", "on")
        with SimulatorProcess(first, first / "truth", *loss) as simulator:
            set_addresses(first, simulator.addresses)
            run_collectorctl(first, "start")
            pids = read_pids(first)
            wait_until("there are records", lambda: read_counters(first, feed)[0] > 600, 60)
            assert simulator.send_command("market rest")["ok"]
            before = wait_until("all is received", lambda: quiet_count(first, feed))
            assert "on:" in next(
                x for x in run_collectorctl(first, "status", check=False).stdout.splitlines() if "capture" in x
            )
            run_collectorctl(first, "capture", "off", feed)
            wait_until(
                "the switch is seen", lambda: "no longer captured" in (first / "log" / f"{feed}.log").read_text()
            )
            (shown,) = msgspec.json.decode(run_collectorctl(first, "capture", "--json").stdout)
            assert read_pids(first) == pids
            run_collectorctl(first, "stop")
        counted = (shown["feed"], shown["is_on"], shown["dropped"])
        assert counted == (feed, False, 0) and shown["frames"] > 30

        files = shown["paths"]
        frames = [frame for file in files for frame in read_captured(Path(file), pytest.fail)]
        assert len(frames) == shown["frames"]
        assert not any(secret.encode() in frame.payload for frame in frames for secret in SECRETS.values())
        with SimulatorProcess(second, second / "truth", "--frames", *files, "--frames-speed", "2") as simulator:
            set_addresses(second, simulator.addresses)
            run_collectorctl(second, "start")
            while feed not in simulator.read_response(60)["frames_sent"]:
                pass
            wait_until("all is received", lambda: quiet_count(second, feed) == before)
            run_collectorctl(second, "stop")

        for dataset in ("orderbook", "tick"):
            assert stored(first, dataset) == stored(second, dataset)
