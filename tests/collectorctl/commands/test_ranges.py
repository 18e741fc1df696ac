"""Ranges of days: which they are, what is done again, verification by several processes."""

from __future__ import annotations

import datetime as dt
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

import click
import msgspec
import psutil
import pytest
from support.certified_day import make_certified_days, run
from support.stored_day import DAY

from collectorctl.commands.options import DayChoice
from collectorctl.recover.verify import verify_day, verify_days
from conf.home import Home
from conf.market import KR, US

DAYS = ["2026-11-18", "2026-11-19", "2026-11-20"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three certified days of equal trades, at nine in the evening of the last one."""
    return make_certified_days(tmp_path_factory.mktemp("home"), DAYS)


@pytest.fixture
def copied(home: Path, tmp_path: Path) -> Path:
    """The same home, to be changed."""
    return Path(shutil.copytree(home, tmp_path / "home"))


def resolve(root: Path, *options: str, market: str = "kr", closed_too: bool = False) -> list[str]:
    single, first, last, newest = options
    found = DayChoice(single, first, last, newest).resolve(Home(root), {"kr": KR, "us": US}[market], closed_too)
    return [str(day) for day in found]


def test_a_range_has_the_trading_days_of_the_calendar_up_to_the_newest_that_is_over(home: Path) -> None:
    assert resolve(home, "", "2026-11-13", "2026-11-17", "") == ["2026-11-13", "2026-11-16", "2026-11-17"]
    assert resolve(home, "", "", "", "3d") == DAYS
    assert resolve(home, "", "2026-11-19", "", "") == DAYS[1:]
    assert resolve(home, "", "", "", "2d", market="us") == DAYS[:-1]  # in New York it is Friday morning
    assert resolve(home, "", "2026-11-13", "2026-11-16", "", closed_too=True) == [
        f"2026-11-{day}" for day in (13, 14, 15, 16)
    ]
    assert resolve(home, "20261120", "", "", "") == [DAY]


@pytest.mark.parametrize(
    "options",
    [
        ("", "", "", ""),
        ("today", "", "", "3d"),
        ("", "", "2026-11-19", ""),
        ("", "2026-11-20", "2026-11-19", ""),
        ("", "2026-11-14", "2026-11-15", ""),
        ("", "2026-11-19", "2026-11-23", ""),
        ("", "", "", "-3d"),
    ],
)
def test_days_that_are_none_are_a_usage_error(home: Path, options: tuple[str, ...]) -> None:
    with pytest.raises(click.UsageError):
        resolve(home, *options)


def test_verify_says_each_day_and_its_exit_status_is_the_worst(copied: Path) -> None:
    whole = run(copied, "verify", "--last", "3d")
    shutil.rmtree(copied / f"data/kr/tick/date={DAYS[1]}")
    worse = run(copied, "verify", "--last", "3d", "--json")

    assert (whole.exit_code, whole.stdout.count("3 PROVEN")) == (0, 3), whole.output
    found = msgspec.json.decode(worse.stdout)
    assert worse.exit_code == 1
    assert [(one["day"], one["status"], one["outcome"]) for one in found] == [
        (DAYS[0], 0, "whole"),
        (DAYS[1], 1, "contradicted"),
        (DAYS[2], 0, "whole"),
    ]


def test_two_processes_print_the_bytes_that_one_does_and_both_name_a_damaged_file_with_its_day(copied: Path) -> None:
    damaged = next((copied / f"data/kr/tick/date={DAYS[0]}").rglob("part-0.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-20])

    one, two = (run(copied, "verify", "--last", "3d", "--json", "--jobs", jobs) for jobs in ("1", "2"))

    assert (one.exit_code, one.stdout_bytes) == (two.exit_code, two.stdout_bytes)
    assert one.exit_code == 1
    found = msgspec.json.decode(one.stdout)
    assert [each["outcome"] for each in found] == ["failed", "whole", "whole"]
    assert found[0]["note"].startswith(f"{DAYS[0]}: {damaged}: cannot be read")


def kill_a_worker(stop: threading.Event, killed: list[int]) -> None:
    """SIGKILL to the first process of a pool that is seen."""
    while not stop.is_set() and not killed:
        for child in psutil.Process().children():
            with suppress(psutil.Error):  # a child of the test before, which is ending
                if "spawn_main" in " ".join(child.cmdline()):
                    child.kill()
                    killed.append(child.pid)
                    return
        time.sleep(0.01)


def test_a_worker_that_is_killed_costs_no_day(home: Path) -> None:
    days = [dt.date.fromisoformat(day) for day in DAYS]
    expected = [verify_day(Home(home), day, KR) for day in days]
    stop, killed = threading.Event(), list[int]()
    killer = threading.Thread(target=kill_a_worker, args=(stop, killed))
    killer.start()
    try:
        found = verify_days(Home(home), days, KR, jobs=2)
    finally:
        stop.set()
        killer.join()

    assert len(killed) == 1
    assert found == expected


def test_of_a_range_settled_days_are_left_alone_and_one_that_cannot_be_had_stops_no_other(copied: Path) -> None:
    (copied / f"data/kr/completeness/date={DAYS[0]}/part-0.parquet").unlink()
    with (copied / "collector.toml").open("a") as settings:
        settings.write("[recover]\ntick_days = 1\n")

    result = run(copied, "recover", "--last", "3d", "--mode", "ticks", "--json")

    found = msgspec.json.decode(result.stdout)
    assert [one["outcome"] for one in found] == ["unavailable", "unchanged", "unchanged"], result.output
    assert result.exit_code == max(one["status"] for one in found) == 2


@pytest.mark.parametrize(
    ("command", "outcomes", "status"),
    [
        (["reprocess"], ["done"] * 3, 0),
        (["report"], None, 0),
        (["export", "--format", "csv", "--symbols", "005930", "--out", "{out}"], ["exported"] * 3, 0),
    ],
)
def test_the_other_commands_take_ranges_too(
    copied: Path, tmp_path: Path, command: list[str], outcomes: list[str] | None, status: int
) -> None:
    arguments = [part.replace("{out}", str(tmp_path / "out")) for part in command]
    result = run(copied, *arguments, "--last", "3d", "--json")

    found = msgspec.json.decode(result.stdout)
    assert [one["day"] for one in found] == DAYS, result.output
    assert outcomes is None or [one["outcome"] for one in found] == outcomes
    assert result.exit_code == status
