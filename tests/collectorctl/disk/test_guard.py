"""Recovery on a disk whose last room is the writer's: it stops in words, keeps what it fetched, and goes on by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from support.day_fixture import DAY, SYMBOLS, FinishedDay, a_finished_day, lose_long_and_short
from support.process_tree import temporary_home, wait_until
from support.small_disk import small_disk

from collectorctl.disk.guard import DiskSpaceLow
from collectorctl.recover import us_job
from collectorctl.recover.certificate import store
from collectorctl.recover.job import ProgressListener, RecoveryRequest, recovery_job
from collectorctl.recover.plan import InstrumentPlan
from conf.home import Home
from ringbuf.vitals import read_snapshot


@pytest.fixture(scope="module")
def day() -> Iterator[FinishedDay]:
    """A day that lost ticks, on a disk of 64 MB of which the last 32 are the writer's."""
    with a_finished_day() as day, small_disk(day.root / "data", 64):
        with (day.root / "collector.toml").open("a") as settings:
            settings.write("[disk]\nmin_free_bytes = 32000000\n")
        day.publish_live(lose_long_and_short)
        yield day


def count_pages(root: Path) -> int:
    return len(list((root / "data/recover").glob(f"date={DAY}/*/*/*.json.gz")))


def leave_ten_megabytes(disk: Path) -> None:
    if not (ballast := disk / "ballast").exists():
        ballast.write_bytes(bytes(shutil.disk_usage(disk).free - 10_000_000))


class DiskFiller(ProgressListener):
    """Leaves 10 MB of the disk when the first page of ticks is there."""

    def __init__(self, disk: Path) -> None:
        self.disk = disk

    def on_page(self, plan: InstrumentPlan, pages: int, rate: float) -> None:
        leave_ten_megabytes(self.disk)


def test_recovery_stops_at_the_last_of_the_disk_and_goes_on_with_room(day: FinishedDay) -> None:
    """In the middle of a run, by hand, and unattended: nothing is published, pages stay, the day is proven in the end."""
    home, disk = Home(day.root), day.root / "data"
    ballast, published = disk / "ballast", day.read_published()
    request = RecoveryRequest(date.fromisoformat(DAY))
    with recovery_job(home, request, DiskFiller(disk)) as job, pytest.raises(DiskSpaceLow, match="MB free, less than"):
        job.recover(job.plan())
    pages = count_pages(day.root)

    by_hand = day.run("recover", "--date", DAY)
    environment = os.environ | {"COLLECTOR_HOME": str(day.root)}
    process = subprocess.Popen([sys.executable, "-m", "collectorctl.recover"], env=environment)
    try:
        page = home.vitals_path("recover")
        wait_until("it is paused", lambda: page.exists() and read_snapshot(page).state == "paused")
        detail = read_snapshot(page).detail
        state_when_low = (count_pages(day.root), day.read_published())
        ballast.unlink()
        wait_until("the round has ended", lambda: process.poll() is not None, 60)
    finally:
        process.kill()
        process.wait()

    assert pages >= 1 and state_when_low == (pages, published)
    assert by_hand.exit_code == 1 and "less than disk.min_free_bytes (32 MB)" in by_hand.output
    assert "less than disk.min_free_bytes (32 MB)" in detail
    assert process.returncode == 0
    certificates = store.load(home.data, request.day)
    assert len(certificates) == len(SYMBOLS)
    assert {one.certificate for one in certificates.values()} == {"PROVEN"}


def test_us_recovery_asks_for_nothing_while_the_last_room_is_the_writers() -> None:
    """Not one call, and the reason."""
    settings = """
        us = { enabled = true, rest_url = "http://127.0.0.1:9" }
        universe.us = ["NAS.AAPL"]
        clock = { start = "2026-11-21T12:00:00+09:00" }
        disk.min_free_bytes = 32000000
    """
    with temporary_home(settings) as root, small_disk(root / "data", 4):
        home, messages = Home(root), list[str]()
        with pytest.raises(DiskSpaceLow, match=r"less than disk\.min_free_bytes"):
            us_job.recover(home, date(2026, 11, 20), home.settings.instruments("us"), messages.append)

    assert messages == []
