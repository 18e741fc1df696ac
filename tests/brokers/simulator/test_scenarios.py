"""Scripts of faults by the time of day, and the lasting faults that they need."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from support.vendor_clients import WAIT_S, KisClient, KiwoomClient, SimulatorHandle, start_simulator

from brokers.simulator.ground_truth import BOOKS, DeliveryOutcome, load
from brokers.simulator.scenarios import SCENARIOS, to_real_seconds

Start = Callable[..., SimulatorHandle]
KOREA_S, DAY_S = 9 * 3600, 86_400


def test_spans_of_a_script_are_market_time() -> None:
    """Ten minutes at a speed of 192 are 3.125 s for a line; what is no span stays as it is."""
    assert to_real_seconds("kis outage 600", 192) == "kis outage 3.125"
    assert to_real_seconds("kiwoom conflate 1", 192) == "kiwoom conflate 1"
    assert to_real_seconds("market pace 10", 192) == "market pace 10"


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_every_act_of_a_scenario_is_a_command_and_happens_at_its_time(name: str) -> None:
    """The truth names each act; none is refused, none comes before its time of the (warped) day."""
    home = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    speed = 2000.0
    (home / "collector.toml").write_text(f'[clock]\nstart = "2026-11-20T08:58:00+09:00"\nspeed = {speed}\n')
    scenario = SCENARIOS[name]
    try:
        with start_simulator(
            home, "--symbols", "005930", "--truth", str(home / "truth"), "--scenario", name
        ) as running:
            deadline_s = time.monotonic() + WAIT_S
            while len(acts := load(home / "truth").commands) < len(scenario.commands):
                assert time.monotonic() < deadline_s, acts
                assert running.process.poll() is None
                time.sleep(0.05)
            clock = json.loads((home / "run" / "clock.json").read_text())
    finally:
        shutil.rmtree(home)

    assert [(act["at"], act["command"]) for act in acts] == sorted(scenario.commands)
    start_s = 8 * 3600 + 58 * 60
    for act in acts:
        hours, minutes, seconds = map(int, act["at"].split(":"))
        due_s = start_s + (act["mono_ns"] - clock["mono_ns"]) / 1e9 * speed
        assert due_s >= hours * 3600 + minutes * 60 + seconds - 1


def test_a_line_whose_clock_is_ahead_stamps_that_share_a_second_later(start: Start, tmp_path: Path) -> None:
    """40 % of the books, those of the other line none; nothing else of them differs."""
    running = start("--books-per-s", "60", "--truth", str(tmp_path / "truth"))
    assert running.send_command("kis skew 0.4")["ok"]
    kis, kiwoom = KisClient(running.ready, "skew"), KiwoomClient(running.ready, "skew")
    kis.subscribe("H0STASP0", "005930")
    kiwoom.request("REG", ["005930"], ["0D"])
    kis.read_for(3)
    kiwoom.read_for(0.2)
    kis.close()
    kiwoom.close()
    running.stop()
    told: dict[tuple[tuple[int, ...], int], set[int]] = {}
    for book in load(tmp_path / "truth").books:
        told.setdefault((_sizes_of(book), int(book["cum_volume"])), set()).add((int(book["exch_s"]) + KOREA_S) % DAY_S)
    late = Counter()
    for record in kis.collect_records("H0STASP0"):
        # fields 23 to 42 are the sizes, 53 the cumulative volume (docs/wire/kis.md 3)
        seconds = told[tuple(map(int, record[23:43])), int(record[53])]
        if len(seconds) == 1:  # a content that came back in another second says nothing
            late[_seconds(record[1]) - min(seconds)] += 1

    assert set(late) == {0, 1}
    assert 0.25 < late[1] / late.total() < 0.55
    assert {_seconds(entry["values"]["21"]) for entry in kiwoom.collect_entries("0D")} <= set().union(*told.values())


def _sizes_of(book: BOOKS) -> tuple[int, ...]:
    return (*book["ask_size"].tolist(), *book["bid_size"].tolist())


def _seconds(hhmmss: str) -> int:
    return (int(hhmmss[:2]) * 60 + int(hhmmss[2:4])) * 60 + int(hhmmss[4:])


def test_a_line_conflates_and_loses_from_the_command_on(start: Start, tmp_path: Path) -> None:
    """At most two books a second then; with a loss of 1 none at all; with 0 of both all of them again."""
    running = start("--books-per-s", "40", "--truth", str(tmp_path / "truth"))
    client = KiwoomClient(running.ready, "conflate")
    client.request("REG", ["005930"], ["0D"])
    client.await_trnm("REAL")
    counts = []
    for commands in (["conflate 2"], ["loss 1"], ["conflate 0", "loss 0"]):
        for command in commands:
            assert running.send_command(f"kiwoom {command}")["ok"]
        client.read_for(0.3)  # what was under way
        client.frames.clear()
        client.read_for(2)
        counts.append(len(client.collect_entries("0D")))
    client.close()
    outcomes = Counter(load(tmp_path / "truth").deliveries["outcome"].tolist())

    assert 2 <= counts[0] <= 6
    assert counts[1] == 0
    assert counts[2] > 30
    assert outcomes[DeliveryOutcome.CONFLATED] > 20
    assert outcomes[DeliveryOutcome.LOST] > 20


def test_the_market_can_be_made_to_move_faster(start: Start) -> None:
    """Ten times as many events."""
    running = start("--books-per-s", "5")
    seen = []
    for times in (1, 10):
        assert running.send_command(f"market pace {times}") == {"ok": True, "rate_factor": times}
        before = running.send_command("status")["books"]
        time.sleep(2)
        seen.append(running.send_command("status")["books"] - before)

    assert 5 < seen[1] / seen[0] < 15
    assert not running.send_command("market pace x")["ok"]
