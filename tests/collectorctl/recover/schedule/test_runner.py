"""Nobody types a command: the tree recovers its day after the close, and days that it missed, and then rests."""

from __future__ import annotations

import os
import signal
import subprocess
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from support.day_fixture import SYMBOLS, a_finished_day, lose_long_and_short, publish_ticks, to_tick_records
from support.process_tree import BIN, read_status, run_collectorctl, temporary_home, wait_until

from brokers.simulator import ground_truth
from collectorctl.demo.environment import SimulatorProcess, set_addresses
from collectorctl.demo.oracle import compare
from collectorctl.demo.reconcile import reconcile
from collectorctl.supervision.supervisor import SupervisorClient
from conf.home import Home
from ringbuf.vitals import read_snapshot

FEED = """
[kis]
subscribe_spacing_ms = 20
[feed]
backoff_max_s = 1.0
[gapfill]
enabled = false
"""
KR = msgspec.json.encode(SYMBOLS).decode()
UNATTENDED = f"""
[universe]
kr = {KR}
[clock]
start = "2026-11-20T08:55:00+09:00"
speed = 60
[sessions.KRX]
opening_auction = "08:30-09:00"
regular = "09:00-09:40"
closing_auction = "09:40-09:50"
closing_price = ""
after_market = ""
[writer]
grace_s = 5.5
late_every_s = 5
{FEED}
"""
NEXT_MORNING = f"""
[universe]
kr = {KR}
[clock]
start = "2026-11-20T09:50:00+09:00"
speed = 60
[writer]
grace_s = 5.5
[recover]
calls_per_s_first = 4.5
attempts = 1
retry_s = 10
{FEED}
"""


def recover(root: Path) -> dict:
    """The program as `status` sees it."""
    return read_status(root)["processes"]["recover"]


def certificates(root: Path, day: str) -> dict[str, str]:
    """What is certified of a day by symbol; nothing yet while there is no file."""
    file = root / f"data/kr/completeness/date={day}/part-0.parquet"
    found = pd.read_parquet(file) if file.exists() else pd.DataFrame({"symbol": [], "certificate": []})
    return dict(zip(found.symbol, found.certificate, strict=True))


def begun(root: Path) -> int:
    """How often the program began."""
    log = root / "log/recover.log"
    return log.read_text().count("recover begins") if log.exists() else 0


def ended(root: Path) -> bool:
    """Whether the program has ended by itself, with a round."""
    return recover(root)["supervisor_state"] == "EXITED" and (root / "data/recover/round.json").exists()


def until_ended(root: Path, most_s: float) -> None:
    """Wait for that; what it said instead is told."""
    try:
        wait_until("recovery has ended", lambda: ended(root), most_s)
    except AssertionError as error:
        logs = [(root / f"log/{name}.log") for name in ("recover", "watchdog")]
        raise AssertionError(f"{recover(root)}\n{[log.read_text()[-3000:] for log in logs if log.exists()]}") from error


def assert_at_rest(root: Path, trades: np.ndarray) -> int:
    """The day is proven, every trade is there once, the program has ended and is not due before Monday; recovered rows."""
    seen = read_status(root)
    there = seen["processes"]["recover"]
    assert (True, "EXITED", "nothing is due") == (seen["healthy"], there["supervisor_state"], there["verdict"])
    assert "2026-11-20 3 PROVEN" in seen["recovery"]["last"]
    assert seen["recovery"]["next"].startswith("2026-11-23")
    assert dict.fromkeys(SYMBOLS, "PROVEN") == certificates(root, "2026-11-20")
    tilings = reconcile(trades, pd.read_parquet(root / "data/kr/tick"))
    assert [[], [], []] == [one.problems() for one in tilings]
    return sum(one.recovered for one in tilings)


def test_a_tree_left_alone_proves_its_day_though_recovery_is_killed() -> None:
    """Started in the evening: nobody asks for it, recovery begins, is killed, begins again, and ends; then it stays ended."""
    slowly = ("--kiwoom-burst", "1", "--kiwoom-calls-per-s", "1")
    with a_finished_day(*slowly, clock="2026-11-20T20:10:00+09:00") as finished:
        root = finished.root
        finished.publish_live(lose_long_and_short)
        run_collectorctl(root, "start")

        daemon, page = SupervisorClient(Home(root)), Home(root).vitals_path("recover")
        started = lambda: any((p.name, p.state) == ("recover", "RUNNING") for p in daemon.list_programs())  # noqa: E731
        wait_until(
            "recovery is at work", lambda: started() and page.exists() and read_snapshot(page).state == "recovering"
        )
        os.kill(read_snapshot(page).pid, signal.SIGKILL)
        until_ended(root, 100)
        assert (root / "data/report/2026-11-20.html").exists()

        assert assert_at_rest(root, finished.trades) > 0
        assert 0 == run_collectorctl(root, "verify", "--date", "2026-11-20").returncode
        assert 2 == begun(root)  # the watchdog's start, and supervisord's after the kill
        assert 1 == read_status(root)["processes"]["watchdog"]["counters"]["orders"]


@pytest.mark.long
def test_an_unattended_tree_ends_the_day_it_collected_with_a_proof() -> None:
    """A whole (short) day: collected with loss and an outage, published by the writer, proven after the close, all by itself."""
    with temporary_home(UNATTENDED) as root, SimulatorProcess(
        root, root / "truth", "--kis-loss", "0.02", "--books-per-s", "20", "--kiwoom-burst", "1"
    ) as simulator:  # fmt: skip
        set_addresses(root, simulator.addresses)
        run_collectorctl(root, "start")
        wait_until("ticks are stored", lambda: read_status(root)["processes"]["writer"]["counters"]["ticks_in"] > 20)
        simulator.send_command("kis outage 2")

        until_ended(root, 120)

        assert assert_at_rest(root, ground_truth.load(root / "truth").trades) > 0


def files_of(root: Path, day: str) -> dict[str, tuple[int, int, str]]:
    """Every published file of a day but feed_health, which the writer makes anew: inode, last change, content."""
    return {
        str(path.relative_to(root)): (
            path.stat().st_ino,
            path.stat().st_mtime_ns,
            sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted((root / "data/kr").glob(f"*/date={day}/hour=*/part-*.parquet"))
        if "feed_health" not in path.parts
    }


@pytest.mark.long
def test_recovering_yesterday_disturbs_nothing_of_today() -> None:
    """The box was off at yesterday's close. This morning, in the session: refused at first, and said so; then PROVEN. Of today's
    deliveries nothing is missing or doubled, and no file of today was touched."""
    with temporary_home(NEXT_MORNING) as root, SimulatorProcess(
        root, root / "truth", "--earlier-trades", "1200", "--books-per-s", "20"
    ) as simulator:  # fmt: skip
        set_addresses(root, simulator.addresses)
        earlier = ground_truth.load(root / "truth").earlier_trades
        live = np.random.default_rng(1).random(len(earlier)) < 0.7
        publish_ticks(root, to_tick_records(earlier[live]))

        daemon = SupervisorClient(Home(root))
        start = subprocess.Popen([BIN / "collectorctl", "--home", root, "start"], stdout=subprocess.DEVNULL)
        wait_until(
            "recovery begins by itself", lambda: any(p.name == "recover" and p.pid for p in daemon.list_programs())
        )
        simulator.send_command("kiwoom error 3")
        seen = wait_until(
            "it fails", lambda: (now := read_status(root))["processes"]["recover"]["state"] == "failing" and now
        )
        started = start.wait(60)
        first: dict[str, tuple[int, int, str]] = {}

        def over() -> bool:
            for name, seen in files_of(root, "2026-11-20").items():
                first.setdefault(name, seen)
            return ended(root) and len(first) >= 2

        wait_until("yesterday is proven, and an hour of today published", over, 90)
        simulator.send_command("market rest")
        wait_until(
            "all is taken up", lambda: read_status(root)["processes"]["writer"]["counters"]["backlog_records"] == 0
        )
        again = files_of(root, "2026-11-20")
        run_collectorctl(root, "stop")

        failing = seen["processes"]["recover"]
        assert ("again in 10 s" in failing["verdict"], failing["healthy"], seen["healthy"]) == (True, False, False)
        assert 0 == started
        assert dict.fromkeys(SYMBOLS, "PROVEN") == certificates(root, "2026-11-19")
        assert first == {name: again[name] for name in first}
        ticks = pd.read_parquet(root / "data/kr/tick")
        yesterday = ticks.date.astype(str) == "2026-11-19"
        assert [[], [], []] == [one.problems() for one in reconcile(earlier, ticks[yesterday])]
        assert {"live"} == set(ticks[~yesterday].source)
        told = ground_truth.load(root / "truth")
        books = pd.read_parquet(root / "data/kr/orderbook")
        assert [] == compare(told.books, told.trades, told.deliveries, {}, books, ticks[~yesterday]).problems()
