"""A US day recovered: minute bars of the simulated market, page by page, through kills and refusals, and their certificate."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.process_tree import BIN, run_collectorctl, temporary_home, wait_until

from brokers.simulator import ground_truth
from collectorctl.demo.environment import SimulatorProcess, set_addresses
from collectorctl.recover.schedule.schedule import build_schedules
from collectorctl.recover.schedule.state import schedule_state
from conf.home import Home
from conf.market import US
from ringbuf.records import TICK, FeedId, Session, Venue, empty_records
from writer import schema
from writer.publish.partition import hour_directory

DAY = "2026-11-19"
SYMBOLS = {"AAPL": "NASDAQ", "BRK/B": "NYSE"}
SETTINGS = """
[universe]
us = ["NAS.AAPL", "NYS.BRK/B"]
[clock]
start = "2026-11-20T12:00:00-05:00"
speed = 1.5
[us]
enabled = true
[recover]
calls_per_s_first = 10.0
max_calls_per_s = 10.0
"""


@pytest.fixture(scope="module")
def told() -> Iterator[dict[str, Any]]:
    """What the commands said and left, in the order in which a user would give them."""
    with temporary_home(SETTINGS) as root, SimulatorProcess(
        root, root / "truth", "--earlier-days", "2", "--earlier-trades", "900"
    ) as simulator:  # fmt: skip
        set_addresses(root, simulator.addresses)
        run = ground_truth.load(root / "truth")
        live = live_half(root, run.earlier_trades)
        before = run_collectorctl(root, "recover", "--market", "us", "--date", DAY, "--dry-run", "--json")
        kill_after(root, 3)
        kept = pages(root)
        simulator.send_command("us limit 1")
        simulator.send_command("us error 1")
        ran = run_collectorctl(root, "recover", "--market", "us", "--date", DAY, "--json")
        found = files(root)
        again = run_collectorctl(root, "recover", "--market", "us", "--date", DAY, "--json")
        yield {
            "truth": run.earlier_trades,
            "live": live,
            "before": msgspec.json.decode(before.stdout),
            "kept": kept,
            "certificates": {one["symbol"]: one for one in msgspec.json.decode(ran.stdout)},
            "again": ran.stdout == again.stdout and found == files(root),
            "pages": pages(root),
            "bars": pd.read_parquet(root / "data" / "us" / "bar_1m"),
            "completeness": pd.read_parquet(root / "data" / "us" / "completeness"),
            "verified": run_collectorctl(root, "verify", "--market", "us", "--date", DAY, "--json", check=False),
            "refused": {
                words: run_collectorctl(root, "recover", "--market", "us", *words.split(), check=False)
                for words in (
                    "--date 2026-11-20",
                    "--date 2026-11-21",
                    "--date 2026-11-15",
                    f"--date {DAY} --symbols 005930",
                )
            },
        }


def pages(root: Path) -> int:
    """How many pages are kept."""
    return len(list((root / "data" / "recover").rglob("0*.json.gz")))


def files(root: Path) -> dict[Path, bytes]:
    """Everything below data/."""
    return {path: path.read_bytes() for path in (root / "data").rglob("*") if path.is_file()}


def kill_after(root: Path, most: int) -> None:
    """Begin a run and kill it when that many pages are there."""
    process = subprocess.Popen(
        [BIN / "collectorctl", "--home", root, "recover", "--market", "us", "--date", DAY], stdout=subprocess.DEVNULL
    )
    wait_until("some pages are kept", lambda: pages(root) >= most, 60)
    process.send_signal(signal.SIGKILL)
    process.wait(30)


def of_day(trades: np.ndarray, symbol: str) -> np.ndarray:
    """The market's trades of a symbol on DAY."""
    mine = trades[trades["symbol"] == symbol.encode()]
    dates = pd.to_datetime(mine["exch_s"], unit="s", utc=True).tz_convert("America/New_York").strftime("%Y-%m-%d")
    return mine[dates == DAY]


def live_half(root: Path, trades: np.ndarray) -> np.ndarray:
    """Every trade of AAPL before noon, as the writer would have published the live ticks; the trades."""
    mine = of_day(trades, "AAPL")
    noon = int(pd.Timestamp(f"{DAY} 12:00", tz="America/New_York").timestamp())
    mine = mine[mine["exch_s"] < noon]
    ticks = empty_records(TICK, len(mine))
    ticks["symbol"], ticks["venue"], ticks["line"], ticks["session"] = b"AAPL", Venue.NASDAQ, FeedId.US, Session.REGULAR
    ticks["exch_ns"] = ticks["recv_ns"] = mine["exch_s"] * 10**9
    ticks["price_e4"], ticks["size"], ticks["cum_volume"] = mine["price"], mine["size"], mine["cum_volume"]
    hours = schema.compute_hours(ticks)
    for hour in np.unique(hours).tolist():
        columns = schema.build_columns("us.tick", ticks[hours == hour])
        directory = hour_directory(root / "data" / "us" / "tick", hour, US)
        directory.mkdir(parents=True)
        pq.write_table(pa.table(columns, schema.PARQUET["us.tick"]), directory / "part-0.parquet")
    return mine


def bars_of(trades: np.ndarray) -> list[tuple]:
    """This test's own minutes: beginning, open, high, low, close in 1/10,000, shares."""
    rows = pd.DataFrame({name: trades[name] for name in ("exch_s", "price", "size")})
    grouped = rows.groupby(rows["exch_s"] // 60 * 60)
    made = grouped.agg(
        open=("price", "first"),
        high=("price", "max"),
        low=("price", "min"),
        close=("price", "last"),
        size=("size", "sum"),
    )
    return list(made.itertuples(name=None))


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_every_minute_of_the_day_is_there_once_as_the_market_had_it(told: dict[str, Any], symbol: str) -> None:
    """Open, high, low, close and volume out of the market's own trades; dollars, in New York's time; after a kill."""
    bars = told["bars"][told["bars"]["symbol"] == symbol].sort_values("time")
    found = zip(
        (bars["time"].astype("int64") // 10**9).tolist(),
        *((bars[name] * 10_000).round().astype(int).tolist() for name in ("open", "high", "low", "close")),
        bars["volume"].tolist(),
        strict=True,
    )

    assert len(bars) > 300
    assert bars_of(of_day(told["truth"], symbol)) == list(found)
    assert str(bars["time"].dtype) == "datetime64[ns, America/New_York]"
    assert {(SYMBOLS[symbol], "us", DAY)} == set(
        zip(bars["venue"], bars["broker"], bars["date"].astype(str), strict=True)
    )


def test_the_certificate_is_minute_only_and_says_what_the_live_ticks_lack(told: dict[str, Any]) -> None:
    """AAPL's morning was collected: what is missing is its afternoon, to the share; nothing of the other was."""
    whole = {symbol: int(of_day(told["truth"], symbol)["size"].sum()) for symbol in SYMBOLS}
    apple, other = (told["certificates"][symbol] for symbol in SYMBOLS)

    assert {"MINUTE_ONLY"} == {one["certificate"] for one in told["certificates"].values()}
    assert len(told["live"]) == apple["live_ticks"] > 100
    assert whole["AAPL"] - int(told["live"]["size"].sum()) == apple["missing_shares"]
    assert whole["BRK/B"] == other["missing_shares"]
    assert all(residual >= "12:00" for residual in apple["residuals"])
    assert "no list of trades exists" in apple["reasons"][0]
    assert set(SYMBOLS) == set(told["completeness"]["symbol"])


def test_a_killed_run_goes_on_and_another_changes_nothing(told: dict[str, Any]) -> None:
    """Pages that were kept are not asked for again; the second run changes no byte."""
    assert told["before"] == [
        {"instrument": "NAS.AAPL", "live_ticks": len(told["live"]), "minutes": 0, "pages": 0},
        {"instrument": "NYS.BRK/B", "live_ticks": 0, "minutes": 0, "pages": 0},
    ]
    assert 3 <= told["kept"] < told["pages"]
    assert told["again"]


def test_verify_makes_the_same_certificates_from_files_alone(told: dict[str, Any]) -> None:
    """And says by its exit that the day is not whole: no trades are."""
    found = msgspec.json.decode(told["verified"].stdout)

    assert told["verified"].returncode == 1
    assert [] == [difference for one in found for difference in one["differs"]]
    assert told["certificates"] == {one["now"]["symbol"]: one["now"] for one in found}


def test_a_day_that_cannot_be_is_refused_in_words(told: dict[str, Any]) -> None:
    """Still going on, in the future, a Sunday; what is asked for does not exist."""
    said = {words: (ran.returncode, ran.stderr) for words, ran in told["refused"].items()}

    for words, (code, reason) in {
        "--date 2026-11-20": (1, "is over at 2026-11-20 20:00 EST"),
        "--date 2026-11-21": (2, "is in the future"),
        "--date 2026-11-15": (2, "Sunday"),
        f"--date {DAY} --symbols 005930": (2, "not of the US market"),
    }.items():
        assert code == said[words][0], words
        assert reason in said[words][1]


def test_the_day_asked_for_is_new_yorks() -> None:
    """`yesterday` in New York while it is already the next day in Korea."""
    from collectorctl.recover.horizon import parse_day

    evening = int(pd.Timestamp("2026-11-20 21:00", tz="America/New_York").value)

    assert date(2026, 11, 19) == parse_day("yesterday", evening, US)
    assert date(2026, 11, 20) == parse_day("yesterday", evening)


def test_us_days_are_recovered_by_themselves_after_the_close_and_then_rest() -> None:
    """After New York's evening the program takes up the day that ended and the one before; then nothing is due."""
    late = (
        SETTINGS.replace("T12:00:00-05:00", "T20:12:00-05:00") + "[kis]\nenabled = false\n[kiwoom]\nenabled = false\n"
    )
    with temporary_home(late) as root, SimulatorProcess(
        root, root / "truth", "--symbols", "NAS.AAPL,NYS.BRK/B", "--earlier-days", "1", "--history", "300"
    ) as simulator:  # fmt: skip
        set_addresses(root, simulator.addresses)
        live_half(root, ground_truth.load(root / "truth").earlier_trades)
        home = Home(root)
        schedules = build_schedules(home.settings, home.load_calendar())
        before = schedule_state(home, schedules)
        ran = subprocess.run(
            [sys.executable, "-m", "collectorctl.recover"],
            env=os.environ | {"COLLECTOR_HOME": str(root)},
            cwd=root,
            timeout=150,
            check=False,
        )
        after = schedule_state(home, schedules)
        found = pd.read_parquet(root / "data" / "us" / "completeness")

    assert (before.due, before.last) == ("us 2026-11-20", "")
    assert ran.returncode == 0
    assert after.due == "" and after.last.startswith("us 2026-11-20 2 MINUTE_ONLY")
    assert after.next.startswith("2026-11-24 10:10")
    assert {
        (str(day), symbol, grade) for day, symbol, grade in found[["date", "symbol", "certificate"]].to_numpy()
    } == {(day, symbol, "MINUTE_ONLY") for day in (DAY, "2026-11-20") for symbol in SYMBOLS}
