"""The health of the lines against the simulator's truth, and a line that fails behind the other, in a real tree."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.process_tree import read_status, run_collectorctl, temporary_home, wait_until

from brokers.simulator import ground_truth
from collectorctl.demo.environment import SimulatorProcess, set_addresses
from collectorctl.demo.oracle import BOOK, FEEDS, SENT
from collectorctl.supervision.status import collect_status
from conf.home import Home

SETTINGS = """
[universe]
kr = ["005930", "000660", "373220", "207940", "0074K0"]
[clock]
start = "2026-11-20T09:50:00+09:00"
speed = 60.0
[kis]
subscribe_spacing_ms = 20
[health]
window_s = 2.4
min_books = 20
[writer]
grace_s = 5.5
"""
MARKET = ("--books-per-s", "80", "--kiwoom-books-per-s", "8")
"""Of the books of a symbol Kiwoom leaves out half."""
WINDOW_S, SPEED = 2.4, 60
SETTLE_S = 6.0
"""Books younger than this may still find twins: the default twin window and a second for stragglers."""
WRONG_PAIRS = 0.005
"""Two books with equal levels within the twin window may be paired the other way round, and so count in another minute."""
LAG_MS = 12.0
"""How far a measured lag may be from the simulator's: what two loopback sockets and a busy machine add to one of them."""


@pytest.fixture(scope="module")
def day() -> Iterator[tuple[Path, list[dict]]]:
    """A home after a quarter of an hour in which kis delivered nothing for a while though connected, and what status said then."""
    with temporary_home(SETTINGS) as root, SimulatorProcess(root, root / "truth", *MARKET) as simulator:
        set_addresses(root, simulator.addresses)
        run_collectorctl(root, "start")
        home = Home(root)
        wait_until(
            "two lines are judged",
            lambda: (lines := collect_status(home).feed_health) and lines.lag_p50_ms is not None,
            60,
        )
        time.sleep(2 * WINDOW_S)
        seen = [read_status(root)]
        simulator.send_command(f"kis quiet {4 * WINDOW_S}")
        wait_until("kis is called degraded", lambda: collect_status(home).feed_health.degraded, 60)
        seen.append(read_status(root))
        seen.append({"text": run_collectorctl(root, "status", check=False).stdout})
        wait_until("kis is restored", lambda: not collect_status(home).feed_health.degraded, 60)
        seen.append(read_status(root))
        simulator.send_command("market rest")
        time.sleep(2)
        run_collectorctl(root, "stop")
        yield root, seen


def test_a_line_that_fails_behind_the_other_is_named_in_status_and_events(day: tuple[Path, list[dict]]) -> None:
    """Quiet before, named within two windows once twins are settled, then restored; both moments are events, the only ones."""
    root, (before, during, shown, after) = day

    assert (before["healthy"], before["feed_health"]["degraded"]) == (True, [])
    assert {trouble["feed"] for trouble in during["feed_health"]["degraded"]} == {"kis"}
    assert not during["healthy"] and during["processes"]["kis"]["healthy"]
    assert "DEGRADED kis" in shown["text"] and "event " in shown["text"]
    assert after["healthy"]
    counters = after["processes"]["writer"]["counters"]
    assert counters["degraded"] == 0 < counters["feeds_degraded"]
    assert counters["twin_share_kiwoom_e4"] > 8000
    events = pd.read_parquet(root / "data" / "kr" / "event")
    said = events[events.kind.isin(["degraded", "restored"])]
    assert said[["line", "kind"]].drop_duplicates().to_numpy().tolist() == [["kis", "degraded"], ["kis", "restored"]]
    first, last = said.iloc[0], said.iloc[-1]
    arrivals = pd.read_parquet(root / "data" / "kr" / "orderbook", columns=["recv_time_kis"]).recv_time_kis
    assert (first.time - arrivals[arrivals < first.time].max()).total_seconds() / SPEED < 2 * WINDOW_S + SETTLE_S
    assert first.time <= last.since + pd.Timedelta(seconds=1) < last.time


def test_books_twins_wins_and_lags_by_minute_are_what_the_truth_says(day: tuple[Path, list[dict]]) -> None:
    """Counts of each line exactly, but for the minute of a content that came back; lags within what the machine adds."""
    root, _ = day
    health = pd.read_parquet(root / "data" / "kr" / "feed_health")
    said = ground_truth.load(root / "truth")
    of_book = pd.DataFrame(
        {
            "symbol": [symbol.decode() for symbol in said.books["symbol"].tolist()],
            "minute": pd.to_datetime(said.books["exch_s"] // 60 * 60, unit="s", utc=True).tz_convert("Asia/Seoul"),
        },
        index=said.books["id"],
    )
    sent = said.deliveries[(said.deliveries["stream"] == BOOK) & (said.deliveries["outcome"] == SENT)]
    for code, line in FEEDS.items():
        own = sent[sent["line"] == code]
        of_book[line] = pd.Series(own["mono_ns"], index=own["first_id"]).groupby(level=0).first()
    lag_ms = (of_book.kiwoom - of_book.kis) / 1e6
    groups = of_book.assign(lag_ms=lag_ms, won=np.where(lag_ms.notna(), lag_ms > 0, False)).groupby(
        ["symbol", "minute"]
    )
    expected = groups.agg(
        books_kis=("kis", "count"),
        books_kiwoom=("kiwoom", "count"),
        twins=("lag_ms", "count"),
        first_kis=("won", "sum"),
    )
    expected["lag_p50_ms"] = groups.lag_ms.quantile(0.5, interpolation="lower")
    expected = expected[(expected.books_kis > 0) | (expected.books_kiwoom > 0)]

    found = health.set_index(["symbol", "minute"]).sort_index()
    assert found.index.tolist() == expected.index.tolist()
    for count in ("books_kis", "books_kiwoom"):
        assert found[count].sum() == expected[count].sum()
        assert abs(found[count] - expected[count]).sum() <= WRONG_PAIRS * expected[count].sum()
    assert abs(found.twins - expected.twins).sum() <= WRONG_PAIRS * expected.twins.sum()
    assert abs(found.first_kis - expected.first_kis).sum() <= 0.05 * expected.twins.sum()
    assert (found.first_kis + found.first_kiwoom == found.twins).all()
    many = expected.twins >= 5
    assert many.sum() > 20
    off_ms = abs(found.lag_p50_ms[many] - expected.lag_p50_ms[many])
    assert off_ms.median() < LAG_MS / 4 and off_ms.quantile(0.9) < LAG_MS, off_ms.describe()
