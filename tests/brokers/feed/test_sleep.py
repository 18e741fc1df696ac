"""Outside the sessions: what a collector says, and how it sleeps and wakes where the settings want that."""

from __future__ import annotations

import time

from support.process_tree import temporary_home

from conf.clock import SECOND_NS, to_kst
from ringbuf.vitals import read_snapshot

HOME = """
[universe]
kr = ["005930"]
[clock]
start = "2026-11-20T{start}:00+09:00"
speed = 120
[sessions.KRX]
opening_auction = ""
regular = "09:00-10:00"
closing_auction = ""
closing_price = ""
after_market = "10:20-24:00"
[ring]
orderbook_capacity = 4096
tick_capacity = 4096
[kiwoom]
enabled = false
[kis]
ws_url = "ws://127.0.0.1:{port}"
rest_url = "http://127.0.0.1:{port}"
subscribe_spacing_ms = 20
[feed]
sleep_outside_sessions = {sleep}
sleep_margin_s = 120.0
dead_after_s = 120.0
silent_after_s = 120.0
"""


def test_a_collector_sleeps_between_sessions_and_is_back_before_the_next(make_vendor, make_process) -> None:
    """Closed properly after the end and the margin, no connection meanwhile, connected and registered before the beginning."""
    vendor = make_vendor("kis")
    with temporary_home(HOME.format(port=vendor.port, sleep="true", start="09:44")) as root:
        process = make_process("kis", root)
        clock = process.home.load_clock()
        asleep = process.until_state("sleeping", 60)
        beats = []
        while vendor.opened[1:] == [] and len(beats) < 400:
            beats.append(time.monotonic_ns() - read_snapshot(process.home.vitals_path("kis")).heartbeat_mono_ns)
            time.sleep(0.1)
        woken = [f"{to_kst(clock.to_calendar_ns(round(at_s * SECOND_NS))):%H:%M}" for at_s in vendor.opened]
        process.until_state("streaming")
        events = [one for one in process.records("event", 4) if one["message"] == b"outside all sessions"]
        process.stop()

    assert asleep.detail == "closed until Friday 2026-11-20 10:20 KST (KRX after-market)"
    assert asleep.counters["connected"] == 0
    assert vendor.closed[0] == 1000
    assert max(beats) < 3 * SECOND_NS
    assert len(woken) == 2
    assert "10:18" <= woken[1] < "10:20"
    assert len(events) == 1


def test_without_the_setting_a_closed_market_is_said_and_the_connection_stays(make_vendor, make_process) -> None:
    """The default: connected through the night."""
    vendor = make_vendor("kis")
    with temporary_home(HOME.format(port=vendor.port, sleep="false", start="10:00")) as root:
        process = make_process("kis", root)
        closed = process.until_state("closed_market", 60)
        process.stop()

    assert closed.detail == "closed until Friday 2026-11-20 10:20 KST (KRX after-market)"
    assert len(vendor.opened) == 1
