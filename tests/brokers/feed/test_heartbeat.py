"""Several threads, one vitals page: nobody's trouble is hidden by the others, no count is lost."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from brokers.feed.heartbeat import HeartbeatAggregator
from ringbuf.vitals import ProcessState, Vitals, read_snapshot


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Vitals]:
    made = Vitals.create(tmp_path / "kis.vitals", "kis")
    yield made
    made.close()


def test_the_heart_beats_as_slowly_as_the_slowest(page: Vitals) -> None:
    """A thread that hangs is seen by the watchdog, however lively the others are; one that left in order is not missed."""
    pulses = HeartbeatAggregator(page)
    lively, hung = pulses.add_thread("key 1"), pulses.add_thread("key 2")
    hung_ns = hung.heartbeat_ns

    for _ in range(3):
        time.sleep(0.002)
        lively.heartbeat()
    seen = read_snapshot(page.path).heartbeat_mono_ns
    hung.unregister()
    lively.heartbeat()

    assert hung_ns == seen
    assert read_snapshot(page.path).heartbeat_mono_ns == lively.heartbeat_ns > hung_ns


def test_levels_are_sums_and_times_the_newest(page: Vitals) -> None:
    """Connected, requested, acknowledged, refused of all connections; the last data of any."""
    pulses = HeartbeatAggregator(page)
    one, two = pulses.add_thread("key 1"), pulses.add_thread("key 2")

    for pulse, connected, data_ns in ((one, 1, 70), (two, 1, 50), (one, 0, 70)):
        pulse.set("connected", connected)
        pulse.set("last_data_mono_ns", data_ns)

    assert (page.get("connected"), page.get("last_data_mono_ns")) == (1, 70)


def test_one_connection_speaks_for_itself(page: Vitals) -> None:
    """As if there were no threads."""
    pulses = HeartbeatAggregator(page)
    pulses.add_thread()
    pulses.add_thread("key 1").set_state(ProcessState.REFUSED, "OPSP8996 ALREADY IN USE appkey")

    assert (read_snapshot(page.path).state, read_snapshot(page.path).detail) == (
        "refused",
        "OPSP8996 ALREADY IN USE appkey",
    )


def test_what_all_connections_say_is_said_once(page: Vitals) -> None:
    """A closed market is closed for all."""
    pulses = HeartbeatAggregator(page)
    for number in (1, 2):
        pulses.add_thread(f"key {number}").set_state(ProcessState.CLOSED_MARKET, "closed until Monday")

    assert (read_snapshot(page.path).state, read_snapshot(page.path).detail) == ("closed_market", "closed until Monday")


def test_one_refused_while_others_stream_is_said_with_its_key(page: Vitals) -> None:
    """The state is the worst one's, the words name it; nothing needs saying when all stream."""
    pulses = HeartbeatAggregator(page)
    one, two, three = (pulses.add_thread(f"key {n}") for n in (1, 2, 3))
    one.set_state(ProcessState.STREAMING)
    three.set_state(ProcessState.CLOSED_MARKET)
    two.set_state(ProcessState.REFUSED, "OPSP8996 ALREADY IN USE appkey")
    worst = read_snapshot(page.path)
    two.set_state(ProcessState.STREAMING)
    fine = read_snapshot(page.path)

    assert worst.state == "refused"
    assert worst.detail == "2 of 3 connections stream; key 2: refused: OPSP8996 ALREADY IN USE appkey"
    assert (fine.state, fine.detail) == ("streaming", "")


def test_no_count_is_lost_between_threads(page: Vitals) -> None:
    """Ten threads that are switched as often as can be, each counting, measuring and speaking."""
    pulses = HeartbeatAggregator(page)
    mine = [pulses.add_thread(f"key {n}") for n in range(10)]
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work(pulse) -> None:
        for n in range(500):
            pulse.add("frames")
            page.record_latency(1000)
            pulse.set_state(ProcessState.STREAMING, f"{n}")

    threads = [threading.Thread(target=work, args=(pulse,)) for pulse in mine]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval_s)

    found = read_snapshot(page.path)
    assert (found.counters["frames"], found.latency_count) == (5000, 5000)
    assert found.state == "streaming"
