"""Silence that is no fault, and records of the pauses between two phases, through the collector process."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from support.process_tree import SAMPLES, temporary_home, wait_until

from brokers.feed.publisher import SessionResolver
from brokers.kis.decode import decode
from brokers.subscription import Subscription
from conf.clock import SECOND_NS, parse_seconds_of_day
from conf.home import Home
from conf.instrument import Instrument
from ringbuf.records import Session

HOME = """
[universe]
kr = ["005930{suffix}"]
[clock]
start = "2026-11-20T{start}+09:00"
[ring]
orderbook_capacity = 4096
tick_capacity = 4096
[kis]
enabled = false
[kiwoom]
ws_url = "ws://127.0.0.1:{port}"
rest_url = "http://127.0.0.1:{port}"
subscribe_spacing_ms = 20
cut_wait_s = 0.0
[feed]
silent_after_s = 1.0
backoff_first_s = 0.1
"""


@pytest.mark.parametrize(("start", "renewed"), [("08:48:30", False), ("08:50:00", True)])
def test_kiwoom_is_not_renewed_for_silence_before_the_books_of_krx_begin(
    make_vendor, make_process, start: str, renewed: bool
) -> None:
    """They begin at 08:50, though the auction does at 08:30; heartbeats come all the time."""
    vendor = make_vendor("kiwoom")
    with temporary_home(HOME.format(port=vendor.port, start=start, suffix="")) as root:
        process = make_process("kiwoom", root)
        wait_until("a subscription", lambda: (v := process.vitals()) and v.counters["acknowledged"] == 2)
        until_s = time.monotonic() + (30 if renewed else 5)
        while time.monotonic() < until_s and len(vendor.opened) == 1:
            vendor.send('{"trnm":"PING"}', 0)
            time.sleep(0.2)
        vitals = process.vitals()
        process.stop()

    assert renewed == (len(vendor.opened) > 1)
    if not renewed:
        assert vitals.detail == "KRX opening-auction"


def test_books_of_nxt_between_its_sessions_have_one(make_vendor, make_process) -> None:
    """Between 15:20 and 15:40, and before 09:00."""
    vendor = make_vendor("kiwoom")
    with temporary_home(HOME.format(port=vendor.port, start="15:41:00", suffix="_NX")) as root:
        process = make_process("kiwoom", root)
        process.until_state("streaming")
        levels = {str(number): "0" for number in (*range(41, 81), 121, 125)}
        for stamp in ("085500", "152500", "153000", "153959", "154000"):
            values = {"21": stamp} | levels | {"41": "-100", "61": "5", "121": "5"}
            entry = {"type": "0D", "name": "x", "item": "005930_NX", "values": values}
            vendor.send(json.dumps({"trnm": "REAL", "data": [entry]}))
        sessions = process.records("orderbook", 5)["session"].tolist()
        process.stop()

    assert sessions == [Session.OPENING_AUCTION, *[Session.CLOSING_AUCTION] * 3, Session.AFTER_MARKET]


def test_the_recorded_unified_trade_without_a_market_code_is_an_after_market_trade(tmp_path: Path) -> None:
    """17:14:05, 46 fields, NEW_MKOP_CLS_CODE 20."""
    file = SAMPLES / "2026-11" / "kis_H0UNCNT0_live_20260427.txt"
    if not file.exists():
        pytest.skip(f"recordings are not beside the checkout: {file}")
    frame = file.read_bytes().splitlines()[0]
    known = {"H0UNCNT0|005930": Subscription(Instrument("005930", "UN"), "tick")}
    midnight_ns = 1_777_215_600 * SECOND_NS  # 2026-04-27 in Korea
    stamp = frame.split(b"^")[1]

    ticks = decode(frame, known, midnight_ns + parse_seconds_of_day(stamp) * SECOND_NS).ticks
    SessionResolver(Home(tmp_path)).resolve(ticks)

    assert stamp == b"171405"
    assert ticks["session"].tolist() == [Session.AFTER_MARKET]
    assert not ticks["flags"].any()
