"""A feed that delivers later than the twin window: its collector is stopped for seconds, or the network holds everything back.

pytest tests/kill/test_stalls.py                    about two minutes; KILL_SEED and KILL_KEEP as in test_kill_anywhere.py
"""

from __future__ import annotations

import time

import pytest
from kill.harness import KillHarness, kill_harness
from kill.test_kill_anywhere import choose_seed
from support.process_tree import wait_until

from ringbuf.vitals import read_snapshot

WINDOW_S = 5.0


def judge(harness: KillHarness) -> None:
    """Nothing missed, doubled or wrong beyond what first-wins may mistake, and nothing left behind."""
    try:
        result = harness.stop_and_compare()
        print(harness.report(result))
        assert [] == result.problems()
        assert [] == harness.find_leftovers()
    except BaseException as error:
        error.add_note("\n".join([f"KILL_SEED={harness.seed} repeats this.", *harness.history]))
        raise


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("feed", "seconds"),
    [
        ("kiwoom", 9.0),
        pytest.param("kis", 9.0, marks=pytest.mark.long),
        pytest.param("kis", 13.0, marks=pytest.mark.long),
        pytest.param("kiwoom", 13.0, marks=pytest.mark.long),
    ],
)
def test_books_of_a_stall_beyond_the_window_are_stored_once(feed: str, seconds: float) -> None:
    """SIGSTOP for that long, over the end of an hour: at most 0.05 % missed and 0.03 % doubled, as without it."""
    with kill_harness(choose_seed(), window_s=WINDOW_S, stale_s=30.0) as harness:
        time.sleep(2.0)
        harness.pause(feed, seconds)
        time.sleep(2.0)
        judge(harness)


@pytest.mark.timeout(240)
def test_books_of_a_network_that_is_slower_than_the_window_are_stored_once() -> None:
    """All that Kiwoom sends comes eight seconds late, for longer than an hour takes to be published.

    KIS begins with Kiwoom: nothing waits for the twins of a feed that has not delivered yet.
    """
    options = ("--kiwoom-latency-ms", "8000", "--fault", "kis:quiet 3600@0")
    with kill_harness(choose_seed(), *options, window_s=WINDOW_S, stale_s=30.0) as harness:
        page = harness.home.vitals_path("kiwoom")
        wait_until("Kiwoom delivers", lambda: read_snapshot(page).counters["last_data_mono_ns"], 60)
        harness.simulator.send_command("kis quiet 0")
        time.sleep(18.0)
        judge(harness)
