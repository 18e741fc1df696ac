"""When recovery is due by itself: once after each trading day, whatever the hour at which a box comes up."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectorctl.recover.schedule.schedule import Schedule, build_schedules
from collectorctl.recover.schedule.state import LastRun, find_first_day, format_last_run, last_run_path, load_last_run
from collectorctl.recover.store.evidence import add_backfilled_day
from conf.calendar import TradingCalendar
from conf.clock import SECOND_NS, kst_midnight_ns
from conf.loader import load_settings
from conf.market import NEW_YORK, US
from conf.settings import Settings

FRIDAY, MONDAY = date(2026, 11, 20), date(2026, 11, 23)
MINUTE_NS = 60 * SECOND_NS


def settings(tmp_path: Path, text: str = "") -> Settings:
    """Settings of a home that says `text`."""
    (tmp_path / "collector.toml").write_text(text)
    return load_settings(tmp_path)


@pytest.fixture(scope="module")
def schedule(tmp_path_factory: pytest.TempPathFactory) -> Schedule:
    """By the defaults: KRX ends at 20:00, ten minutes later a day is due."""
    made = settings(tmp_path_factory.mktemp("home"))
    return Schedule(made, TradingCalendar(made))


def at(day: date, time: str) -> int:
    """An instant, ns."""
    hour, minute = (int(part) for part in time.split(":"))
    return kst_midnight_ns(day) + (60 * hour + minute) * MINUTE_NS


def test_a_day_is_due_when_its_last_session_is_over_and_a_little_later(schedule: Schedule) -> None:
    """20:10 on a Friday; never on a Saturday; the next after it on Monday."""
    assert at(FRIDAY, "20:10") == schedule.compute_due_ns(FRIDAY)
    assert schedule.compute_due_ns(FRIDAY + timedelta(1)) is None
    assert None is schedule.find_due_day(at(FRIDAY, "20:09"), FRIDAY, None)
    assert FRIDAY == schedule.find_due_day(at(FRIDAY, "20:10"), FRIDAY, None)
    assert at(FRIDAY, "20:10") == schedule.compute_next_due_ns(at(FRIDAY, "20:09"))
    assert at(MONDAY, "20:10") == schedule.compute_next_due_ns(at(FRIDAY, "20:10"))


@pytest.mark.parametrize(
    ("now", "ended", "due"),
    [
        (at(FRIDAY, "21:00"), at(FRIDAY, "20:15"), None),  # done
        (at(MONDAY, "09:00"), at(FRIDAY, "20:15"), None),  # nothing since
        (at(MONDAY, "20:10"), at(FRIDAY, "20:15"), MONDAY),
        (at(FRIDAY + timedelta(1), "07:00"), at(FRIDAY, "12:00"), FRIDAY),  # the box was off in the evening
        (at(FRIDAY, "21:00"), at(MONDAY, "20:15"), FRIDAY),  # it ended in a future: the clock was wrong then
    ],
)
def test_a_round_that_ended_is_not_due_again_before_the_next_day_is_over(
    schedule: Schedule, now: int, ended: int, due: date | None
) -> None:
    """Whatever the hour, the one thing that counts is whether a round ended since the newest day was due."""
    assert due == schedule.find_due_day(now, FRIDAY, ended)


@given(minutes=st.lists(st.integers(0, 20 * 24 * 60), min_size=1, max_size=60))
def test_over_three_weeks_every_trading_day_is_seen_to_once(schedule: Schedule, minutes: list[int]) -> None:
    """However a box is looked at, and a round ends at once when it is due: no round without a new day, no day without a round."""
    ended, seen = None, []
    for minute in sorted(minutes):
        now = at(FRIDAY, "00:00") + minute * MINUTE_NS
        due = schedule.find_due_day(now, FRIDAY, ended)
        if due is not None:
            seen.append(due)
            ended = now
    last = at(FRIDAY, "00:00") + max(minutes) * MINUTE_NS
    trading = [FRIDAY + timedelta(n) for n in range(21) if (FRIDAY + timedelta(n)).weekday() < 5]
    over = [day for day in trading if (schedule.compute_due_ns(day) or last) <= last]

    assert seen == sorted(set(seen))
    assert seen[-1:] == over[-1:]


def test_a_round_looks_back_to_the_first_day_of_the_home_and_no_further_than_ticks_can_be_had(
    schedule: Schedule,
) -> None:
    """Newest first; no weekend; nothing from before the home; 20 trading days at most; nothing at all of a home without data."""
    now = at(MONDAY, "21:00")

    assert [MONDAY, FRIDAY, FRIDAY - timedelta(1)] == schedule.find_due_days(now, FRIDAY - timedelta(1))
    assert [FRIDAY] == schedule.find_due_days(at(MONDAY, "20:00"), FRIDAY)
    assert 21 == len(schedule.find_due_days(now, date(2020, 1, 1)))
    assert [] == schedule.find_due_days(now, None)
    assert None is schedule.find_due_day(now, None, None)


@pytest.mark.parametrize("off", ["[recover]\nautomatic = false\n", "[kiwoom]\nenabled = false\n"])
def test_switched_off_nothing_is_ever_due(tmp_path: Path, off: str) -> None:
    """By the setting, or for want of the broker that has the ticks."""
    made = settings(tmp_path, off)
    schedule = Schedule(made, TradingCalendar(made))

    assert not schedule.enabled
    assert None is schedule.find_due_day(at(FRIDAY, "21:00"), FRIDAY, None)


def test_a_holiday_and_the_latest_venue_count(tmp_path: Path) -> None:
    """A closed Friday is never due; of a stock on both exchanges the later close counts."""
    made = settings(
        tmp_path,
        '[universe]\nkr = ["005930", "005930_NX"]\n[calendar]\nclosed = ["2026-11-20"]\n[recover]\nafter_close_minutes = 0\n'
        '[sessions.KRX]\nclosing_price = ""\nafter_market = ""\n[sessions.NXT]\nafter_market = "15:40-18:30"\n',
    )
    schedule = Schedule(made, TradingCalendar(made))

    assert None is schedule.compute_due_ns(FRIDAY)
    assert at(MONDAY, "18:30") == schedule.compute_due_ns(MONDAY)


def test_what_is_kept_of_a_round_is_read_again_and_said(tmp_path: Path) -> None:
    """The newest day, and those that are still incomplete; damage counts as nothing kept."""
    kept = LastRun(
        at(FRIDAY, "20:14"),
        {
            FRIDAY: {"PROVEN": 19, "RECONCILED": 1},
            FRIDAY - timedelta(1): {"PROVEN": 20},
            FRIDAY - timedelta(2): {"INCOMPLETE": 1, "PROVEN": 19},
        },
    )
    file = last_run_path(tmp_path)
    file.parent.mkdir(parents=True)

    assert None is load_last_run(tmp_path)
    file.write_bytes(msgspec.json.encode(kept))
    assert kept == load_last_run(tmp_path)
    said = "2026-11-20 19 PROVEN, 1 RECONCILED; 2026-11-18 1 INCOMPLETE, 19 PROVEN (2026-11-20 20:14)"
    assert said == format_last_run(kept)
    file.write_bytes(b"{")
    assert None is load_last_run(tmp_path)


def test_the_first_day_is_that_of_any_dataset(tmp_path: Path) -> None:
    """None before anything was published; other names are passed over."""
    assert None is find_first_day(tmp_path)
    for name in ("tick/date=2026-11-19", "orderbook/date=2026-11-18", "tick/date=oops", "orderbook/.date=2026-01-01"):
        (tmp_path / "kr" / name).mkdir(parents=True)
    assert date(2026, 11, 18) == find_first_day(tmp_path)


def test_a_backfilled_day_is_no_day_of_this_home_unless_it_has_books(tmp_path: Path) -> None:
    """Scheduled recovery does not go back to a day of which somebody wanted one symbol."""
    for name in ("tick/date=2026-11-17", "tick/date=2026-11-19", "orderbook/date=2026-11-19"):
        (tmp_path / "kr" / name).mkdir(parents=True)
    for day in (19, 17):
        add_backfilled_day(tmp_path, date(2026, 11, day))

    assert date(2026, 11, 19) == find_first_day(tmp_path)


US_HOME = '[universe]\nus = ["NAS.AAPL", "NYS.BRK/B", "BAQ.AAPL"]\n[us]\nenabled = true\n'


def in_new_york(day: date, time: str) -> int:
    """An instant, ns."""
    return round(datetime.fromisoformat(f"{day}T{time}").replace(tzinfo=NEW_YORK).timestamp()) * SECOND_NS


def us_schedules(tmp_path: Path, text: str = US_HOME) -> dict[str, Schedule]:
    """By name."""
    made = settings(tmp_path, text)
    return {one.name: one for one in build_schedules(made, TradingCalendar(made))}


@pytest.mark.parametrize("day", [date(2026, 3, 6), date(2026, 3, 9), date(2026, 10, 30), date(2026, 11, 2)])
def test_a_us_day_is_due_by_new_yorks_clock_and_a_day_of_the_day_market_by_koreas(tmp_path: Path, day: date) -> None:
    """On both sides of both changes of the clock: the day after in Korea, an hour earlier or later."""
    found = us_schedules(tmp_path)

    assert list(found) == ["kr", "us", "us_day"]
    due_ns = in_new_york(day, "20:10")
    assert found["us"].compute_due_ns(day) == due_ns
    assert found["us"].find_due_days(due_ns - 1, day) == []
    assert found["us"].find_due_days(due_ns, day) == [day]
    assert found["us_day"].compute_due_ns(day) == at(day, "16:10")
    assert found["us_day"].find_due_days(at(day, "16:10"), day - timedelta(30)) == [day]  # bars of its own day only


def test_each_schedule_covers_its_own_instruments(tmp_path: Path) -> None:
    """New York's and the day market's certificates lie in one file."""
    found = us_schedules(tmp_path)

    assert [str(one) for one in found["us"].instruments] == ["NAS.AAPL", "NYS.BRK/B"]
    assert [str(one) for one in found["us_day"].instruments] == ["BAQ.AAPL"]
    assert found["us"].covers("NYSE") and not found["us"].covers("NASDAQ_DAY")
    assert found["us_day"].covers("AMEX_DAY") and not found["us_day"].covers("AMEX")


def test_a_market_that_is_not_collected_is_never_due(tmp_path: Path) -> None:
    """Neither needs the other."""
    off = us_schedules(tmp_path, '[universe]\nus = ["NAS.AAPL"]\n')
    assert (off["kr"].enabled, off["us"].enabled) == (True, False)
    alone = us_schedules(tmp_path, US_HOME + "[kiwoom]\nenabled = false\n")
    assert (alone["kr"].enabled, alone["us"].enabled, alone["us_day"].enabled) == (False, True, True)


def test_what_is_kept_and_what_is_stored_of_one_market_says_nothing_of_another(tmp_path: Path) -> None:
    """A US run that ended leaves Korea's day due."""
    (tmp_path / "us/tick/date=2026-11-19").mkdir(parents=True)
    (tmp_path / "recover").mkdir()
    last_run_path(tmp_path, "us").write_bytes(msgspec.json.encode(LastRun(at(FRIDAY, "20:14"), {})))

    assert (find_first_day(tmp_path), find_first_day(tmp_path, US)) == (None, date(2026, 11, 19))
    assert load_last_run(tmp_path) is None
    assert load_last_run(tmp_path, "us") is not None and load_last_run(tmp_path, "us_day") is None
