"""The clock: one straight line for all processes, times of day with a date, steps of the wall clock."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf import clock
from conf.clock import (
    DAY_NS,
    FUTURE_TOLERANCE_NS,
    KST,
    MIN_STEP_NS,
    SECOND_NS,
    Anchor,
    Clock,
    date_time_of_day,
    floor_to_hour,
    parse_time_of_day,
    to_kst,
)

START = "2026-11-20T08:55:00+09:00"
START_NS = int(datetime.fromisoformat(START).timestamp()) * SECOND_NS
NEAR_1970_TO_2100_NS = st.integers(0, 4_102_444_800 * SECOND_NS)


def test_the_real_clock_is_the_wall_clock() -> None:
    """Within 0.1 s of time.time(), never warped."""
    real = clock.real()

    assert abs(real.now_ns() - time.time_ns()) < SECOND_NS // 10
    assert abs(real.mono_ns() - time.monotonic_ns()) < SECOND_NS // 10
    assert not real.is_simulated


@given(st.integers(0, 2**53), st.integers(0, 10**12), st.sampled_from([0.5, 1.0, 150.0, 86_400.0]))
def test_a_warped_clock_is_a_straight_line_that_never_goes_back(mono_ns: int, passed_ns: int, speed: float) -> None:
    """`at` passes through the anchor with the slope `speed`, and later is never earlier."""
    line = Clock(Anchor(mono_ns, START_NS, speed, "boot"), is_simulated=True)

    assert line.to_calendar_ns(mono_ns) == START_NS
    assert line.to_calendar_ns(mono_ns + passed_ns) == START_NS + round(passed_ns * speed)
    assert line.to_calendar_ns(mono_ns + passed_ns + 1) >= line.to_calendar_ns(mono_ns + passed_ns)
    assert line.to_calendar_ns(mono_ns - passed_ns) == START_NS - round(passed_ns * speed)


def test_the_first_process_sets_the_anchor_and_the_next_follow_it(tmp_path: Path) -> None:
    """A restart goes on along the line that the home has, it does not begin the day again."""
    file = tmp_path / "run" / "clock.json"

    first = clock.simulated(START, 150.0, file)
    again = clock.simulated(START, 150.0, file)

    assert first.anchor == again.anchor
    assert (first.anchor.calendar_ns, first.anchor.speed, first.anchor.boot) == (START_NS, 150.0, clock.read_boot_id())
    assert abs(first.anchor.mono_ns - time.monotonic_ns()) < 5 * SECOND_NS
    assert first.is_simulated
    assert [p.name for p in file.parent.iterdir()] == ["clock.json"]


@pytest.mark.parametrize(("start", "speed"), [("2026-11-20T09:00:00+09:00", 150.0), (START, 10.0)])
def test_another_start_or_speed_begins_another_line(tmp_path: Path, start: str, speed: float) -> None:
    """Settings that changed count from now on."""
    file = tmp_path / "clock.json"
    before = clock.simulated(START, 150.0, file)

    after = clock.simulated(start, speed, file)

    assert after.anchor.mono_ns > before.anchor.mono_ns
    assert after.anchor.speed == speed
    assert clock.simulated(start, speed, file).anchor == after.anchor


def test_the_anchor_of_another_boot_is_replaced(tmp_path: Path) -> None:
    """Monotonic times of another boot mean nothing."""
    file = tmp_path / "clock.json"
    file.write_bytes(msgspec.json.encode(Anchor(5, START_NS, 150.0, "another boot")))

    found = clock.simulated(START, 150.0, file).anchor

    assert found.boot == clock.read_boot_id()
    assert found.mono_ns > 5


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"mono_ns": 1}', b"\xff"])
def test_an_anchor_that_a_power_cut_emptied_is_replaced(tmp_path: Path, content: bytes) -> None:
    """No process of the home would start again otherwise."""
    file = tmp_path / "clock.json"
    file.write_bytes(content)

    found = clock.simulated(START, 150.0, file).anchor

    assert clock.simulated(START, 150.0, file).anchor == found


SAY_ANCHOR = """
import sys, time
from pathlib import Path
from conf import clock
sys.stdin.readline()
print(clock.simulated(sys.argv[1], 150.0, Path(sys.argv[2])).anchor.mono_ns)
"""


@pytest.mark.parametrize("stale", [False, True], ids=["first start", "after another start"])
def test_processes_that_start_together_draw_the_same_line(tmp_path: Path, stale: bool) -> None:
    """Whoever comes first writes the anchor, also when an old one is in the way."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SAY_ANCHOR, START, tmp_path / "clock.json"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    if stale:
        clock.simulated("2020-01-01T00:00:00+09:00", 150.0, tmp_path / "clock.json")

    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = {process.communicate(timeout=60)[0] for process in processes}

    assert len(said) == 1
    assert said.pop().strip().isdigit()


def test_many_racing_starts_draw_the_same_line(tmp_path: Path) -> None:
    """The race itself, many times: eight at once find a stale anchor."""
    for round_number in range(60):
        file = tmp_path / f"{round_number}.json"
        file.write_bytes(msgspec.json.encode(Anchor(5, START_NS, 150.0, "another boot")))
        begin, found = threading.Barrier(8), []

        def start(file: Path = file, begin: threading.Barrier = begin, found: list[Anchor] = found) -> None:
            begin.wait()
            found.append(clock.simulated(START, 150.0, file).anchor)

        threads = [threading.Thread(target=start) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(found) == 8
        assert len(set(found)) == 1


@pytest.mark.parametrize("step_ns", [3600 * SECOND_NS, -3600 * SECOND_NS, SECOND_NS, -SECOND_NS])
def test_a_step_of_the_wall_clock_is_followed_and_told(step_ns: int) -> None:
    """The line is anchored anew where the wall clock is now; the step is returned and summed up."""
    real = clock.real()
    behind = Clock(Anchor(real.anchor.mono_ns, real.anchor.calendar_ns - step_ns, 1.0, ""))

    step = behind.detect_step()

    assert abs(step - step_ns) < SECOND_NS // 10
    assert behind.total_step_ns == step
    assert abs(behind.now_ns() - time.time_ns()) < SECOND_NS // 10
    assert behind.detect_step() == 0


def test_a_small_difference_is_no_step() -> None:
    """What two readings a moment apart differ by must not move the line."""
    real = clock.real()
    anchor = Anchor(real.anchor.mono_ns, real.anchor.calendar_ns + MIN_STEP_NS // 2, 1.0, "")
    near = Clock(anchor)

    assert near.detect_step() == 0
    assert near.anchor == anchor
    assert near.total_step_ns == 0


def test_a_warped_clock_does_not_follow_the_wall(tmp_path: Path) -> None:
    """It is years away from it on purpose."""
    warped = clock.simulated("2020-01-01T00:00:00+09:00", 2.0, tmp_path / "clock.json")

    assert warped.detect_step() == 0
    assert to_kst(warped.now_ns()).year == 2020


@given(st.integers(0, 86_399), NEAR_1970_TO_2100_NS)
def test_a_time_of_day_gets_the_nearest_date(second: int, near_ns: int) -> None:
    """The digits come back from the instant, and no other day would be closer to `near_ns`."""
    digits = f"{second // 3600:02}{second // 60 % 60:02}{second % 60:02}"

    found = parse_time_of_day(digits, near_ns)

    assert f"{to_kst(found):%H%M%S}" == digits
    assert found % SECOND_NS == 0
    assert abs(found - near_ns) <= min(abs(found - DAY_NS - near_ns), abs(found + DAY_NS - near_ns))
    assert parse_time_of_day(digits.encode(), near_ns) == found


@pytest.mark.parametrize(
    ("digits", "near", "expected"),
    [
        ("235959", "2026-11-21T00:00:01+09:00", "2026-11-20T23:59:59+09:00"),
        ("000000", "2026-11-20T23:59:58+09:00", "2026-11-21T00:00:00+09:00"),
        ("090000", "2026-11-20T09:00:03+09:00", "2026-11-20T09:00:00+09:00"),
        ("090000", "2026-11-20T08:59:57+09:00", "2026-11-20T09:00:00+09:00"),
        ("000000", "2026-12-31T23:59:59+09:00", "2027-01-01T00:00:00+09:00"),
    ],
)
def test_midnight_takes_the_day_that_is_meant(digits: str, near: str, expected: str) -> None:
    """A frame stamped just before midnight and received just after belongs to yesterday, and the other way round."""
    near_ns = int(datetime.fromisoformat(near).timestamp()) * SECOND_NS

    assert to_kst(parse_time_of_day(digits, near_ns)) == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    "digits",
    [
        "",
        "0900",
        "0900000",
        "240000",
        "096000",
        "090060",
        "09:00:",
        "-90000",
        "  9000",
        "０９００００",
        "²²²²²²",
        b"09 000",
    ],
)
def test_what_is_no_time_of_day_is_refused(digits: str | bytes) -> None:
    """ValueError, with the text in it: the frame goes to quarantine."""
    with pytest.raises(ValueError, match="is not a time of day: HHMMSS was expected"):
        parse_time_of_day(digits, START_NS)


@given(NEAR_1970_TO_2100_NS)
def test_korean_and_hour_start_agree_with_the_calendar(ns: int) -> None:
    """UTC plus nine hours, to the microsecond; the hour begins at minute 0 of the Korean time."""
    local = to_kst(ns)

    assert local.utcoffset() == timedelta(hours=9)
    assert local == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ns // 1000)
    assert to_kst(floor_to_hour(ns)) == local.replace(minute=0, second=0, microsecond=0)
    assert 0 <= ns - floor_to_hour(ns) < 3600 * SECOND_NS
    assert local.tzinfo is KST


@given(
    st.integers(0, 86_399),
    st.integers(-3, 3),
    st.integers(-50_000, 50_000),
    st.sampled_from([0, 1, 500_000_000, 999_999_999]),
)
def test_a_time_of_day_is_dated_by_the_second_of_its_receipt(second, near, apart, fraction):
    """What is kept for a second is right for each instant of it, at the edges of half a day and of the tolerance, too."""
    digits = f"{second // 3600:02}{second // 60 % 60:02}{second % 60:02}"
    edges = (0, 43_200, FUTURE_TOLERANCE_NS // SECOND_NS, apart)
    for edge in edges:
        recv_ns = (1_795_100_400 + second - edge + near) * SECOND_NS + fraction
        exch_ns = parse_time_of_day(digits, recv_ns)
        is_future = exch_ns - recv_ns > FUTURE_TOLERANCE_NS
        assert date_time_of_day(digits, recv_ns) == (exch_ns - DAY_NS * is_future, is_future)
        assert date_time_of_day(digits.encode(), recv_ns) == (exch_ns - DAY_NS * is_future, is_future)
