"""The library's days as a file in the home: made once, read by all, never in the way."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path

import msgspec
import pytest
from loguru import logger
from support.small_disk import fill_disk, small_disk

from conf import holidays
from conf.calendar import NO_HOLIDAYS, HolidayTable
from conf.home import Home


@pytest.fixture
def file(tmp_path: Path) -> Path:
    holidays._compute_in_subprocess.cache_clear()
    return tmp_path / "calendar.json"


@pytest.fixture
def warnings() -> list[str]:
    said: list[str] = []
    sink = logger.add(lambda message: said.append(message.record["message"]), level="WARNING")
    yield said
    logger.remove(sink)


def test_a_missing_file_is_made_by_a_process_of_its_own(file: Path) -> None:
    """What is read back is what was returned; the library stays out of the process that asked."""
    script = (
        "import sys\nfrom pathlib import Path\nfrom conf.holidays import load_holidays\n"
        f"load_holidays(Path({str(file)!r}), 2026)\nprint('holidays' in sys.modules)"
    )

    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)

    assert ran.stdout == "False\n"
    made = msgspec.json.decode(file.read_bytes(), type=HolidayTable)
    assert made == holidays.compute_holidays(2024, 2029) == holidays.load_holidays(file, 2026)
    assert (made.first, made.last, made.source) == (date(2024, 1, 1), date(2029, 12, 31), holidays.library_version())


def test_a_file_is_good_until_a_year_before_its_end(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One written for 2026 serves 2025 to 2028; other years and another version of the library make it anew."""
    holidays.load_holidays(file, 2026)
    before = file.stat().st_mtime_ns

    for year in (2025, 2026, 2028):
        assert holidays.load_holidays(file, year).first == date(2024, 1, 1)
    assert file.stat().st_mtime_ns == before

    assert holidays.load_holidays(file, 2029).first == date(2027, 1, 1)
    file.write_bytes(
        msgspec.json.encode(msgspec.structs.replace(holidays.compute_holidays(2024, 2029), source="holidays 0.1"))
    )
    assert holidays.load_holidays(file, 2026).source == holidays.library_version()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"source":"x"}'])
def test_a_damaged_file_is_made_anew(file: Path, content: bytes) -> None:
    """A power cut, an older layout."""
    file.write_bytes(content)

    assert holidays.load_holidays(file, 2026) == msgspec.json.decode(file.read_bytes(), type=HolidayTable)


def test_without_the_library_the_old_days_or_none_are_used_and_said(
    file: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    """Nothing stops for want of a calendar."""
    old = msgspec.structs.replace(holidays.compute_holidays(2020, 2026), source="holidays 0.1")
    monkeypatch.setattr(sys, "executable", "/bin/false")

    assert holidays.load_holidays(file, 2026) == NO_HOLIDAYS
    file.write_bytes(msgspec.json.encode(old))
    assert holidays.load_holidays(file, 2026) == old
    assert ["cannot compute the holiday table" in message for message in warnings] == [True, True]


def test_a_home_without_a_run_directory_is_answered_and_left_as_it_is(tmp_path: Path) -> None:
    """`check` writes nothing."""
    calendar = Home(tmp_path).load_calendar()

    assert calendar.closed_reason("KRX", date(2026, 12, 25)) == "Christmas Day"
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_cannot_be_stored_is_used_all_the_same_and_said(tmp_path: Path, warnings: list[str]) -> None:
    """A full disk: the days are right, nothing half-written stays, and with room the file is made."""
    with small_disk(tmp_path / "disk", 1) as disk:
        ballast = fill_disk(disk)

        assert holidays.load_holidays(disk / "calendar.json", 2026).closed["kr"]
        assert [path.name for path in disk.iterdir()] == ["ballast"]
        ballast.unlink()
        holidays.load_holidays(disk / "calendar.json", 2026)

        assert (disk / "calendar.json").exists()
    assert len(warnings) == 1 and "No space left on device" in warnings[0]


def test_a_file_that_cannot_be_read_is_made_anew_and_said(file: Path, warnings: list[str]) -> None:
    """Whatever lies there, no process stops for it."""
    file.mkdir()

    assert holidays.load_holidays(file, 2026).closed["kr"]
    assert ["cannot be read" in warnings[0], "cannot be written" in warnings[1]] == [True, True]
