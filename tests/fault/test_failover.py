"""A line that is down for long is stood in for: its ticks come from the other, each once, and go back when it is steady."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from support.process_tree import read_status, run_collectorctl, temporary_home, wait_until

from brokers.simulator import ground_truth
from collectorctl.demo.environment import SimulatorProcess, set_addresses
from collectorctl.demo.oracle import compare
from conf.home import Home
from ringbuf.vitals import read_snapshot

SYMBOLS = ["005930", "000660", "373220", "207940", "005380", "035420"]
OF = {"kis": SYMBOLS[0::2], "kiwoom": SYMBOLS[1::2]}
SPARE = 2
"""Slots that KIS has left beside its books and its own ticks: fewer than Kiwoom's ticks need."""
KIS_SLOTS = len(SYMBOLS) + len(OF["kis"]) + SPARE
SETTINGS = f"""
[universe]
kr = {SYMBOLS}
[clock]
start = "2026-11-20T10:00:00+09:00"
[shards]
takeover_after_s = 2.0
give_back_after_s = 3.0
[kis]
max_subscriptions = {KIS_SLOTS}
subscribe_spacing_ms = 20
cut_wait_s = 0.0
[kiwoom]
max_subscriptions = {len(SYMBOLS)}
[feed]
backoff_first_s = 0.3
backoff_max_s = 0.5
max_connects_per_hour = 100000
[ring]
orderbook_capacity = 65536
tick_capacity = 65536
""".replace("'", '"')
SECOND_NS = 1_000_000_000
DELAY_NS = 2 * SECOND_NS
"""From the decision on, a registration takes less than this even on a busy machine."""


@pytest.fixture
def root() -> Iterator[Path]:
    """A home in which the clock is real but for its beginning."""
    with temporary_home(SETTINGS) as path:
        yield path


@pytest.fixture
def simulator(root: Path) -> Iterator[SimulatorProcess]:
    """Brokers that hold exactly as many slots as the settings say."""
    slots = ["--kis-registrations", str(KIS_SLOTS), "--kiwoom-registrations", str(len(SYMBOLS))]
    with SimulatorProcess(root, root / "truth", *slots) as made:
        set_addresses(root, made.addresses)
        yield made


def take_down(root: Path, simulator: SimulatorProcess, down: str, up: str, count: int, seconds: int) -> None:
    """Let `down` be away until `up` has taken `count` of its ticks over, and wait until they are given back."""
    counters = lambda name: read_snapshot(Home(root).vitals_path(name)).counters  # noqa: E731 a word for a nested look-up
    before = counters(up)["acknowledged"]
    simulator.send_command(f"{down} outage {seconds}")
    wait_until(f"{up} stands in for {down}", lambda: counters(up)["taken_over"] == count, 60)
    wait_until("its new registrations stand", lambda: counters(up)["acknowledged"] == before + count, 30)

    def healthy() -> dict[str, object] | None:
        said = read_status(root)["processes"][up]
        return said if said["healthy"] else None  # while it registers it is not, for a moment

    said = wait_until(f"{up} streams", healthy, 30)
    assert f"collects {count} of {len(OF[down])} ticks in place of {down}" in said["verdict"]
    wait_until(f"{down} is back", lambda: counters(down)["up_keys"] == 1, 60)
    wait_until("and has its ticks again", lambda: counters(up)["taken_over"] == 0, 60)
    wait_until("the others are released", lambda: counters(up)["acknowledged"] == before, 30)
    assert {name: counters(name)["refused"] for name in OF} == {"kis": 0, "kiwoom": 0}


def first(events: pd.DataFrame, kind: str, line: str, after: pd.Timestamp, symbol: str = "") -> pd.Timestamp:
    """When something first happened to a line, or to a symbol's ticks on it, after an instant."""
    mine = events[(events.kind == kind) & (events.line == line) & (events.time > after)]
    return (mine[mine.symbol == symbol] if symbol else mine).time.min()


def test_ticks_of_a_line_that_is_down_come_from_the_other_once_and_go_back(
    root: Path, simulator: SimulatorProcess
) -> None:
    """KIS away, then Kiwoom: the other takes over what its slots allow. What is published equals the truth but for the delay and
    for what found no slot; nothing is doubled though both delivered for a while; every moment is an event."""
    run_collectorctl(root, "start", "--wait", "120")
    take_down(root, simulator, "kis", "kiwoom", len(OF["kis"]), 7)
    take_down(root, simulator, "kiwoom", "kis", SPARE, 7)
    for line in OF:
        simulator.send_command(f"{line} quiet 3600")
    run_collectorctl(root, "stop")
    simulator.close()

    told = ground_truth.load(root / "truth")
    data = Home(root).data / "kr"
    ticks, events = pd.read_parquet(data / "tick"), pd.read_parquet(data / "event")
    ended: dict[Any, Any] = {
        (c["line"], c["connection"]): c["ended_mono_ns"] for c in told.connections if c["ended_mono_ns"]
    }
    verdict = compare(told.books, told.trades, told.deliveries, ended, pd.read_parquet(data / "orderbook"), ticks)
    assert verdict.problems() == []
    assert {name: bool(side.stored) for name, side in verdict.ticks.feeds.items()} == {"kis": True, "kiwoom": True}
    went = sum(int(pq.read_metadata(path).metadata[b"ticks_doubled"]) for path in (data / "tick").rglob("*.parquet"))
    assert went > 0, "both lines delivered while one was taking its ticks back"
    assert went == read_snapshot(Home(root).vitals_path("writer")).counters["ticks_doubled"]

    log = (root / "log" / "kis.log").read_text()
    assert f"no slot for the ticks of {OF['kiwoom'][SPARE]}" in log
    spans = _spans(ticks)
    for down, up, count in (("kis", "kiwoom", len(OF["kis"])), ("kiwoom", "kis", SPARE)):
        gone = first(events, "disconnected", down, events.time.min())
        for symbol in OF[down][:count]:
            taken = first(events, "taken_over", up, gone, symbol)
            back = first(events, "given_back", up, taken, symbol)
            assert pd.Timedelta(seconds=2) <= taken - gone < pd.Timedelta(seconds=40)
            assert back - taken >= pd.Timedelta(seconds=3)
            assert back >= first(events, "connected", down, gone) + pd.Timedelta(seconds=3)
            missing = _missing(told, symbol, spans[symbol])
            if missing:
                earliest, latest = (_calendar(root, ns) for ns in (min(missing), max(missing)))
                assert earliest >= gone - pd.Timedelta(seconds=1)
                assert latest <= taken + pd.Timedelta(DELAY_NS)
        for symbol in OF[down][count:]:
            assert events[(events.kind == "taken_over") & (events.symbol == symbol)].empty


def _spans(ticks: pd.DataFrame) -> dict[str, list[tuple[int, int]]]:
    """The intervals of volume that stored ticks cover, by symbol."""
    return {
        symbol: list(zip((rows.cum_volume - rows["size"]).tolist(), rows.cum_volume.tolist(), strict=True))
        for symbol, rows in ticks.groupby("symbol")
    }


def _missing(told: ground_truth.GroundTruth, symbol: str, spans: list[tuple[int, int]]) -> list[int]:
    """When the trades of a symbol arose that no stored tick covers, from the first stored to the last, mono_ns."""
    low, high = np.array(spans).T
    trades = told.trades[told.trades["symbol"] == symbol.encode()]
    trades = trades[(trades["cum_volume"] >= high.min()) & (trades["cum_volume"] <= high.max())]
    return [
        int(trade["mono_ns"])
        for trade in trades
        if not ((low <= trade["cum_volume"] - trade["size"]) & (trade["cum_volume"] <= high)).any()
    ]


def _calendar(root: Path, mono_ns: int) -> pd.Timestamp:
    """The home's calendar time of an instant of the monotonic clock."""
    return pd.Timestamp(Home(root).load_clock().to_calendar_ns(mono_ns), tz="Asia/Seoul")
