"""Retention of market data: certified days go as a whole, are known as retired however it ends, and all others stay."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
from datetime import date
from pathlib import Path

import msgspec
import pytest
from support import kill_at_unlink
from support.certified_day import certify_day, run
from support.stored_day import DAY, make_stored_day
from support.us_day import NEXT, certify_us_days, journal_evening_trade, make_us_day
from support.writer_data import make_ticks

from collectorctl.disk import retired
from collectorctl.disk.clean import clean
from collectorctl.disk.market_days import find_obstacles
from conf.clock import HOUR_NS, kst_midnight_ns
from conf.home import Home
from conf.market import KR, US, MarketDate
from writer.journal.entries import JOURNAL, build_entries
from writer.journal.journal import Journal

THE_DAY = date.fromisoformat(DAY)
RULE = "\n[retention]\norderbook_days = 20\ntick_days = 20\n"


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stored day, every instrument PROVEN, a month ago."""
    root = make_stored_day(tmp_path_factory.mktemp("home"))
    settings = (root / "collector.toml").read_text().replace(f"{DAY}T21:00", "2026-12-21T21:00")
    (root / "collector.toml").write_text(settings + RULE)
    certify_day(root)
    for day in ("2026-12-16", "2026-12-17", "2026-12-18"):
        shutil.copytree(root / f"data/kr/event/date={DAY}", root / f"data/kr/event/date={day}")
    return root


@pytest.fixture
def home(certified: Path, tmp_path: Path) -> Path:
    """The same home, to be changed."""
    return Path(shutil.copytree(certified, tmp_path / "home"))


def stored(root: Path, *datasets: str) -> list[Path]:
    return [path for name in datasets for path in sorted((root / "data/kr" / name / f"date={DAY}").rglob("part-*"))]


def test_a_certified_day_goes_as_the_dry_run_says_and_is_retired_not_incomplete(home: Path) -> None:
    """`verify` has the certificates of before and exit 0; what would hand the day on, or repair it, refuses in words."""
    going = stored(home, "orderbook", "tick")
    size = sum(path.stat().st_size for path in going)
    dry = run(home, "clean", "--dry-run")
    planned = msgspec.json.decode(run(home, "clean", "--dry-run", "--json").stdout)
    assert stored(home, "orderbook", "tick") == going
    done = run(home, "clean")

    assert f"{DAY}: orderbook, tick would be removed" in dry.stdout
    assert f"would be removed: {len(going)} files, {size:,} bytes" in dry.stdout
    assert {one["path"] for one in planned["removed"]} == {str(path) for path in going}
    assert planned["days"] == {DAY: ["orderbook", "tick"]}
    assert (done.exit_code, stored(home, "orderbook", "tick")) == (0, [])
    assert not (home / f"data/kr/tick/date={DAY}").exists()
    assert len(stored(home, "event", "feed_health", "completeness")) >= 3
    record = retired.load(home / "data", THE_DAY)
    assert record is not None and record.datasets["tick"] == retired.RetiredDataset(
        "2026-12-21", 1, record.datasets["tick"].bytes
    )
    assert sum(one.bytes for one in record.datasets.values()) == size

    words = f"{DAY}: retired by retention on 2026-12-21: orderbook, tick"
    verified = run(home, "verify", "--date", DAY)
    assert (verified.exit_code, verified.stdout.count("PROVEN"), words in verified.stderr) == (0, 3, True)
    many = run(home, "verify", "--from", DAY, "--to", DAY, "--json")
    assert (many.exit_code, msgspec.json.decode(many.stdout)[0]["outcome"]) == (0, "retired")
    for command in (
        ("copy", "--to", str(home.parent / "copy")),
        ("compact",),
        ("export", "--format", "csv", "--uncertified", "--out", str(home.parent / "export")),
        ("recover",),
        ("report",),
    ):
        refused = run(home, *command, "--date", DAY)
        assert (refused.exit_code > 0, "retired by retention" in " ".join(refused.output.split())) == (True, True), (
            command
        )
    assert run(home, "clean").exit_code == 0
    assert retired.load(home / "data", THE_DAY) == record


def test_what_is_not_certified_or_still_in_the_journal_stays_and_is_named(home: Path) -> None:
    """Also where one of many instruments is missing, and where the certificates are gone."""
    the_day = MarketDate(KR.name, THE_DAY)
    assert find_obstacles(Home(home), [the_day]) == {the_day: ""}
    journal = Journal.open(Home(home).journal_directory("kr.tick"), JOURNAL["kr.tick"])
    journal.roll([])
    ticks = make_ticks([1], exch_ns=kst_midnight_ns(THE_DAY) + 9 * HOUR_NS)
    journal.append(build_entries("kr.tick", ticks, 1, None), {})
    journal.close()
    in_journal = run(home, "clean")
    shutil.rmtree(Home(home).journal_directory("kr.tick"))
    certify_day(home, lacking=("000660",))
    lacking = run(home, "clean")
    shutil.rmtree(home / "data/kr/completeness")
    without = run(home, "clean")

    assert f"kept: {DAY}: the journal has rows of it" in in_journal.stdout
    assert f"kept: {DAY}: is not certified for good (000660)" in lacking.stdout
    assert f"kept: {DAY}: is not certified for good (000660, 005930, 373220)" in without.stdout
    assert (len(stored(home, "orderbook", "tick")), retired.load(home / "data", THE_DAY)) == (5, None)


def test_with_require_copy_a_day_stays_until_its_copy_is_read_back_equal(home: Path, tmp_path: Path) -> None:
    """No copy, one with a changed byte, and one of other files are none."""
    copy = tmp_path / "copy"
    with (home / "collector.toml").open("a") as settings:
        settings.write(f'require_copy = "{copy}"\n')
    before = run(home, "clean")
    assert run(home, "copy", "--date", DAY, "--to", str(copy)).exit_code == 0
    damaged = stored(copy, "tick")[0]
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + b"x")
    changed = run(home, "clean")
    damaged.write_bytes(content)
    assert run(home, "compact", "--date", DAY).exit_code == 0
    other = run(home, "clean")
    assert run(home, "copy", "--date", DAY, "--to", str(copy)).exit_code == 0

    assert f"{copy} has no verified copy (no manifest)" in before.stdout
    assert "missing or changed" in changed.stdout
    assert "is another there" in other.stdout
    assert stored(home, "orderbook", "tick")
    assert run(home, "clean").exit_code == 0
    assert not stored(home, "orderbook", "tick")
    assert run(copy, "verify", "--date", DAY).stdout.count("PROVEN") == 3


def test_killed_at_any_file_the_day_is_retired_and_the_next_run_ends_it(certified: Path, tmp_path: Path) -> None:
    """From before the first file on: never a day with a hole."""
    fork = multiprocessing.get_context("forkserver")
    fork.set_forkserver_preload(["collectorctl.disk.clean"])
    count = len(stored(certified, "orderbook", "tick"))
    gone = []
    for kill_at in (2, 4):  # one call before the record, one after it
        home = Path(shutil.copytree(certified, tmp_path / str(kill_at)))
        child = fork.Process(target=kill_at_unlink.clean_and_kill, args=(home, kill_at))
        child.start()
        child.join(60)
        gone.append(count - len(stored(home, "orderbook", "tick")))
        verified = run(home, "verify", "--date", DAY)
        assert (child.exitcode, verified.exit_code) == (-signal.SIGKILL, 0)
        assert "retired by retention" in verified.stderr and "INCOMPLETE" not in verified.output
        assert clean(Home(home)).skipped == []
        assert not stored(home, "orderbook", "tick")
    assert gone[0] == 0 < gone[1] < count


US_RULE = "\n[retention]\nus_orderbook_days = 20\nus_tick_days = 20\n"


@pytest.fixture(scope="module")
def certified_us(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stored US day and the session of its evening, certified, a month ago."""
    home = make_us_day(tmp_path_factory.mktemp("us_home"))
    certify_us_days(home)
    settings = home.root / "collector.toml"
    settings.write_text(settings.read_text().replace("2026-11-23T12:00", "2026-12-21T12:00") + US_RULE)
    for day in ("2026-12-16", "2026-12-17", "2026-12-18"):
        shutil.copytree(home.data / f"us/event/date={DAY}", home.data / f"us/event/date={day}")
    return home.root


@pytest.fixture
def us_home(certified_us: Path, tmp_path: Path) -> Path:
    """The same home, to be changed."""
    return Path(shutil.copytree(certified_us, tmp_path / "us_home"))


def stored_us(root: Path, *datasets: str) -> list[Path]:
    return [path for name in datasets for path in sorted((root / "data/us" / name / f"date={DAY}").rglob("part-*"))]


def test_a_certified_us_day_goes_as_the_dry_run_says_and_is_retired_not_incomplete(us_home: Path) -> None:
    """Its events, bars, certificates and the pages that they are verified by stay; so does what the day is not."""
    going = stored_us(us_home, "orderbook", "tick")
    certificates = run(us_home, "verify", "--market", "us", "--date", DAY, "--json").stdout
    dry = run(us_home, "clean", "--dry-run")
    assert stored_us(us_home, "orderbook", "tick") == going
    done = run(us_home, "clean")

    assert f"us {DAY}: orderbook, tick would be removed" in dry.stdout, dry.output
    assert len(going) > 3 and all(str(path) in dry.stdout for path in going)
    assert (done.exit_code, stored_us(us_home, "orderbook", "tick")) == (0, [])
    assert len(stored_us(us_home, "event", "completeness", "bar_1m")) >= 3
    record = retired.load(us_home / "data", THE_DAY, US)
    assert record is not None and set(record.datasets) == {"orderbook", "tick"}
    assert retired.load(us_home / "data", THE_DAY) is None

    words = f"us {DAY}: retired by retention on 2026-12-22: orderbook, tick"
    verified = run(us_home, "verify", "--market", "us", "--date", DAY, "--json")
    assert (verified.exit_code, verified.stdout, words in verified.stderr) == (0, certificates, True), verified.stderr
    for command in (
        ("copy", "--to", str(us_home.parent / "copy")),
        ("compact",),
        ("export", "--format", "csv", "--uncertified", "--out", str(us_home.parent / "export")),
        ("recover",),
    ):
        refused = run(us_home, *command, "--market", "us", "--date", DAY)
        assert (refused.exit_code > 0, "retired by retention" in " ".join(refused.output.split())) == (True, True), (
            command
        )
    assert "retired by retention" in run(us_home, "verify", "--market", "us", "--date", NEXT).stderr


def test_a_us_day_stays_while_a_session_of_its_rows_is_not_certified_in_the_journal_or_not_copied(
    us_home: Path, tmp_path: Path
) -> None:
    """Also that of its evening."""
    home, copy = Home(us_home), tmp_path / "copy"
    journal_evening_trade(home)
    in_journal = run(us_home, "clean")
    shutil.rmtree(home.journal_directory("us.tick"))
    certify_us_days(home, lacking=NEXT)
    lacking = run(us_home, "clean")
    certify_us_days(home)
    with (us_home / "collector.toml").open("a") as settings:
        settings.write(f'require_copy = "{copy}"\n')
    uncopied = run(us_home, "clean")
    assert run(us_home, "copy", "--market", "us", "--date", DAY, "--to", str(copy)).exit_code == 1
    assert stored_us(us_home, "tick")
    done = run(us_home, "clean")

    assert f"kept: us {DAY}: the journal has rows of it" in in_journal.stdout
    assert (
        f"kept: us {DAY}: is not certified for good (BAQ.NVDA): `collectorctl recover --date {NEXT}" in lacking.stdout
    )
    assert f"kept: us {DAY}: {copy} has no verified copy (no manifest)" in uncopied.stdout
    assert f"copy --date {DAY} --market us --to" in uncopied.stdout
    assert (done.exit_code, stored_us(us_home, "orderbook", "tick")) == (0, []), done.output
