"""Both collectors against the simulator, as in a home: two lines of one market, and its faults."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.process_tree import wait_until

from ringbuf.records import Flag, Side

ROOT = Path(__file__).parents[2]
KR = ["005930", "000660", "005930_NX", "Q500001"]
SETTINGS = f"""
[universe]
kr = {json.dumps(KR)}
[clock]
start = "2026-11-20T10:00:00+09:00"
[ring]
orderbook_capacity = 65536
tick_capacity = 65536
[feed]
backoff_first_s = 0.2
backoff_max_s = 1.0
"""


@pytest.fixture
def market(make_market):
    """A simulator without loss and both collectors on it, streaming."""
    return make_market(SETTINGS)


def test_both_lines_carry_the_market_of_the_simulator(market):
    """Every symbol's book on both, every symbol's ticks on one; volumes chain, nothing is quarantined, no checksum fails."""
    _, processes = market
    counted = {name: process.records("orderbook", 150) for name, process in processes.items()}
    ticks = {name: process.records("tick", 40) for name, process in processes.items()}

    for process in processes.values():
        vitals = process.vitals()
        assert (vitals.counters["quarantined"], vitals.counters["checksum_failed"]) == (0, 0)
        assert vitals.counters["acknowledged"] == 6
    for books in counted.values():
        assert {(b"005930", 1), (b"000660", 1), (b"005930", 2), (b"Q500001", 1)} == set(
            zip(books["symbol"].tolist(), books["venue"].tolist(), strict=True)
        )
        assert (books["recv_ns"] > 0).all()
        assert (np.diff(books["recv_ns"]) >= 0).all()
    seen = {name: set(zip(t["symbol"].tolist(), t["venue"].tolist(), strict=True)) for name, t in ticks.items()}
    assert not seen["kis"] & seen["kiwoom"]
    for line in ticks.values():
        assert {Side.BUY, Side.SELL} <= set(line["side"].tolist())
        for of in np.unique(line[["symbol", "venue"]]):
            own = line[line[["symbol", "venue"]] == of]
            assert (np.diff(own["cum_volume"]) == own["size"][1:]).all()


@pytest.mark.parametrize("name", ["kis", "kiwoom"])
def test_a_dropped_line_comes_back_by_itself(market, name):
    """After `drop` everything is registered again, by the vendor's rules, and the other line never notices."""
    simulator, processes = market
    process, other = processes[name], processes["kiwoom" if name == "kis" else "kis"]
    process.records("orderbook", 50)

    simulator.stdin.write(f"{name} drop\n")
    simulator.stdin.flush()
    wait_until("a second connection", lambda: process.vitals().counters["connects"] == 2)
    vitals = process.until_state("streaming", 40)
    records = process.records("orderbook", int(vitals.counters["books"]) + 50)

    assert vitals.counters["acknowledged"] == 6
    assert (records["flags"] & Flag.SNAPSHOT > 0).sum() > 4
    assert other.vitals().counters["connects"] == 1


def test_garbled_frames_are_put_aside_and_collecting_goes_on(market):
    """What the fault spoils is in the quarantine; the connection stays."""
    simulator, processes = market
    for name in processes:
        simulator.stdin.write(f"{name} garble 1\n")
    simulator.stdin.flush()

    for process in processes.values():
        wait_until("something in the quarantine", lambda p=process: p.vitals().counters["quarantined"])
        before = process.vitals().counters["books"]
        wait_until("more books", lambda p=process, before=before: p.vitals().counters["books"] > before + 50)
        assert process.vitals().counters["connects"] == 1
