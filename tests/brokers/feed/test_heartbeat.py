"""Several threads, one vitals page: nobody's trouble is hidden by the others, no count is lost."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from brokers.feed.heartbeat import Pulses
from ringbuf.vitals import Vitals, read


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Vitals]:
    made = Vitals.create(tmp_path / "kis.vitals", "kis")
    yield made
    made.close()


def test_the_heart_beats_as_slowly_as_the_slowest(page: Vitals) -> None:
    """A thread that hangs is seen by the watchdog, however lively the others are; one that left in order is not missed."""
    pulses = Pulses(page)
    lively, hung = pulses.add("key 1"), pulses.add("key 2")
    hung_ns = hung.beat_ns

    for _ in range(3):
        time.sleep(0.002)
        lively.beat()
    seen = read(page.path).beat_mono_ns
    hung.leave()
    lively.beat()

    assert hung_ns == seen
    assert read(page.path).beat_mono_ns == lively.beat_ns > hung_ns


def test_levels_are_sums_and_times_the_newest(page: Vitals) -> None:
    """Connected, requested, acknowledged, refused of all connections; the last data of any."""
    pulses = Pulses(page)
    one, two = pulses.add("key 1"), pulses.add("key 2")

    for pulse, connected, data_ns in ((one, 1, 70), (two, 1, 50), (one, 0, 70)):
        pulse.set("connected", connected)
        pulse.set("last_data_mono_ns", data_ns)

    assert (page.get("connected"), page.get("last_data_mono_ns")) == (1, 70)


def test_one_connection_speaks_for_itself(page: Vitals) -> None:
    """As if there were no threads."""
    pulses = Pulses(page)
    pulses.add()
    pulses.add("key 1").say("refused", "OPSP8996 ALREADY IN USE appkey")

    assert (read(page.path).state, read(page.path).detail) == ("refused", "OPSP8996 ALREADY IN USE appkey")


def test_what_all_connections_say_is_said_once(page: Vitals) -> None:
    """A closed market is closed for all."""
    pulses = Pulses(page)
    for number in (1, 2):
        pulses.add(f"key {number}").say("closed_market", "closed until Monday")

    assert (read(page.path).state, read(page.path).detail) == ("closed_market", "closed until Monday")


def test_one_refused_while_others_stream_is_said_with_its_key(page: Vitals) -> None:
    """The state is the worst one's, the words name it; nothing needs saying when all stream."""
    pulses = Pulses(page)
    one, two, three = (pulses.add(f"key {n}") for n in (1, 2, 3))
    one.say("streaming")
    three.say("closed_market")
    two.say("refused", "OPSP8996 ALREADY IN USE appkey")
    worst = read(page.path)
    two.say("streaming")
    fine = read(page.path)

    assert worst.state == "refused"
    assert worst.detail == "2 of 3 connections stream; key 2: refused: OPSP8996 ALREADY IN USE appkey"
    assert (fine.state, fine.detail) == ("streaming", "")


def test_no_count_is_lost_between_threads(page: Vitals) -> None:
    """Ten threads that are switched as often as can be, each counting, measuring and speaking."""
    pulses = Pulses(page)
    mine = [pulses.add(f"key {n}") for n in range(10)]
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work(pulse) -> None:
        for n in range(500):
            pulse.add("frames")
            page.latency(1000)
            pulse.say("streaming", f"{n}")

    threads = [threading.Thread(target=work, args=(pulse,)) for pulse in mine]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval_s)

    found = read(page.path)
    assert (found.counters["frames"], found.latency_count) == (5000, 5000)
    assert found.state == "streaming"
