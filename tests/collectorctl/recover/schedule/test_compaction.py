"""Compaction by itself: after a run, where it is switched on, of dates to which nothing comes any more."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from loguru import logger
from support.certified_day import certify_day, make_certified_days
from support.stored_day import DAY
from support.us_day import certify_us_days, make_us_day

from collectorctl.recover.schedule.compaction import compact_date, find_uncompacted
from collectorctl.recover.schedule.runner import RecoveryRunner
from collectorctl.recover.schedule.schedule import Schedule, build_schedules
from conf.home import Home
from conf.market import KR
from conf.process import ShutdownSignal
from ringbuf.vitals import Vitals

THE_DAY = date.fromisoformat(DAY)


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stored day, every instrument PROVEN, in the evening."""
    return make_certified_days(tmp_path_factory.mktemp("home"), [DAY])


@pytest.fixture
def root(certified: Path, tmp_path: Path) -> Path:
    """The same home, to be changed."""
    return Path(shutil.copytree(certified, tmp_path / "home"))


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged."""
    found: list[str] = []
    sink = logger.add(lambda message: found.append(str(message)), format="{message}")
    yield found
    logger.remove(sink)


def run_round(root: Path) -> None:
    """What the process does in one life."""
    home = Home(root)
    home.create_directories()
    vitals = Vitals.create(home.vitals_path("recover"), "recover")
    try:
        schedules = build_schedules(home.settings, home.load_calendar())
        assert RecoveryRunner(home, schedules, vitals, ShutdownSignal()).run()
    finally:
        vitals.close()


def list_hours(root: Path) -> set[str]:
    return {path.name for path in (root / "data").glob(f"*/*/date={DAY}/hour=*")}


def test_a_certified_day_is_compacted_after_a_run_where_that_is_switched_on(root: Path, lines: list[str]) -> None:
    run_round(root)
    by_hour = list_hours(root)
    with (root / "collector.toml").open("a") as settings:
        settings.write("[recover]\ncompact = true\n")
    run_round(root)

    assert len(by_hour) > 1 and "hour=all" not in by_hour
    assert list_hours(root) == {"hour=all"}
    assert [line for line in lines if line.startswith(f"compaction: {DAY}: ")] == [
        f"compaction: {DAY}: 10 files became 4\n"
    ]
    run_round(root)
    assert len([line for line in lines if line.startswith("compaction")]) == 1


def test_what_a_killed_run_left_is_not_yet_compacted(root: Path) -> None:
    home = Home(root)
    schedule = build_schedules(home.settings, home.load_calendar())[0]
    compact_date(home, KR, THE_DAY, lambda: None)
    assert find_uncompacted(home, schedule) == []
    (home.data / f"kr/tick/.date={DAY}.compacting/hour=09").mkdir(parents=True)
    assert find_uncompacted(home, schedule) == [THE_DAY]
    compact_date(home, KR, THE_DAY, lambda: None)
    assert find_uncompacted(home, schedule) == []


def test_a_day_that_is_not_whole_stays_and_the_log_says_why(root: Path, lines: list[str]) -> None:
    certify_day(root, lacking=("000660",))
    compact_date(Home(root), KR, THE_DAY, lambda: None)

    assert "hour=all" not in list_hours(root)
    assert [line for line in lines if f"compaction: {DAY} stays in files of hours: " in line and "000660" in line]


def test_a_date_is_left_alone_while_rows_of_a_session_may_come_to_it(root: Path, tmp_path: Path) -> None:
    """In Korea until recovery is due after the close; under New York's date until midnight there: the day market's evening."""

    def find(root: Path, number: int, old: str, now: str) -> list[str]:
        settings = root / "collector.toml"
        settings.write_text(settings.read_text().replace(old, now))
        home = Home(root)
        schedule: Schedule = build_schedules(home.settings, home.load_calendar())[number]
        (home.run / "clock.json").unlink(missing_ok=True)
        return [str(day) for day in find_uncompacted(home, schedule)]

    us_home = make_us_day(tmp_path / "us_home")
    certify_us_days(us_home)
    assert find(root, 0, f"{DAY}T21:00", f"{DAY}T11:00") == []
    assert find(root, 0, f"{DAY}T11:00", f"{DAY}T20:30") == [DAY]
    assert find(us_home.root, 1, "2026-11-23T12:00:00", f"{DAY}T23:50:00") == ["2026-11-19"]
    assert find(us_home.root, 1, f"{DAY}T23:50:00", "2026-11-21T00:10:00") == ["2026-11-19", DAY]
