"""`collectorctl backfill` against the simulator: past days that nobody collected, each trade once, certified as what they are."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from support.day_fixture import publish_ticks, to_tick_records
from support.process_tree import BIN, temporary_home, wait_until

import collectorctl
from brokers.simulator import ground_truth
from collectorctl.backfill.job import backfill
from collectorctl.backfill.selection import find_own
from collectorctl.cli import main
from collectorctl.demo.environment import SimulatorProcess, set_addresses
from collectorctl.disk import retired
from collectorctl.recover.schedule.runner import RecoveryRunner
from collectorctl.recover.schedule.schedule import build_schedules
from collectorctl.recover.schedule.state import find_first_day
from conf.home import Home
from conf.instrument import parse_instrument
from conf.process import ShutdownSignal
from ringbuf.vitals import Vitals

TODAY = "2026-11-20"
TICK_DAYS = ["2026-11-20", "2026-11-18", "2026-11-17"]
"""What the simulator's tick chart has, the newest first: two past days; the 19th is closed here."""
MINUTE_DAYS = ["2026-11-16", "2026-11-13"]
SYMBOLS = ["005930", "000660"]
SETTINGS = f"""
[universe]
kr = {msgspec.json.encode(SYMBOLS).decode()}
[clock]
start = "{TODAY}T20:30:00+09:00"
[calendar]
closed = ["2026-11-19"]
[sessions.KRX]
regular = "09:00-10:40"
closing_auction = "10:40-10:50"
closing_price = ""
after_market = ""
[recover]
calls_per_s_first = 40
max_calls_per_s = 40
minute_days = 8
"""
SIMULATOR = (
    *("--history", "400", "--earlier-days", "6", "--earlier-trades", "400", "--kiwoom-horizon-days", "3"),
    *("--kiwoom-burst", "200", "--kiwoom-calls-per-s", "50"),
)


@dataclass
class PastDays:
    """A home in the evening, and the simulator that had trades on that day and before."""

    root: Path
    simulator: SimulatorProcess
    trades: np.ndarray

    def true_trades(self, name: str, day: str) -> np.ndarray:
        """The truth of an instrument's day, in true order; TRADES."""
        symbol, venue = (word.encode() for word in parse_instrument(name))
        begin_s = pd.Timestamp(day, tz="Asia/Seoul").timestamp()
        mine = self.trades[(self.trades["symbol"] == symbol) & (self.trades["venue"] == venue)]
        mine = mine[(mine["exch_s"] >= begin_s) & (mine["exch_s"] < begin_s + 86_400)]
        return mine[np.argsort(mine["cum_volume"], kind="stable")]

    def run(self, *arguments: str) -> Result:
        """The command on this home, within this process."""
        result = CliRunner().invoke(main, ["--home", str(self.root), *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    def backfill(self, *arguments: str) -> dict[str, dict]:
        """Backfill; the result by day."""
        return {one["day"]: one for one in msgspec.json.decode(self.run("backfill", *arguments, "--json").stdout)}

    def grades(self, day: str) -> dict[str, str]:
        """The stored certificates of a day."""
        found = collectorctl.open(self.root).certificate(day)
        return dict(zip(found.symbol, found.certificate, strict=True))

    def read_published(self) -> dict[str, bytes]:
        """Every published file and its bytes."""
        data = self.root / "data"
        return {str(path.relative_to(data)): path.read_bytes() for path in data.glob("kr/**/*") if path.is_file()}

    def assert_stored(self, name: str, day: str) -> None:
        """What the reader has of a day is the truth, trade by trade."""
        stored, trades = collectorctl.open(self.root).ticks(name, day), self.true_trades(name, day)
        assert len(trades) == 400
        for column in ("cum_volume", "price", "size"):
            assert trades[column].tolist() == stored[column].tolist()
        assert (trades["exch_s"] * 10**9).tolist() == stored.exch_time.astype("int64").tolist()
        assert {"recovered"} == set(stored.source)


@pytest.fixture(scope="module")
def the_days() -> Iterator[PastDays]:
    with temporary_home(SETTINGS) as root, SimulatorProcess(root, root / "truth", *SIMULATOR) as simulator:
        set_addresses(root, simulator.addresses)

        def read() -> np.ndarray:
            run = ground_truth.load(root / "truth")
            return np.concatenate([run.earlier_trades, run.trades])

        wait_until("the truth is on disk", lambda: len(read()) >= 7 * 400 * len(SYMBOLS))
        yield PastDays(root, simulator, read())


@pytest.fixture
def past(the_days: PastDays) -> PastDays:
    """The same, of which nothing is stored."""
    shutil.rmtree(the_days.root / "data", ignore_errors=True)
    (the_days.root / "data").mkdir()
    return the_days


def test_ticks_of_past_days_are_the_truth_and_minutes_come_before_them_and_a_collected_day_is_left_alone(
    past: PastDays,
) -> None:
    """The 20th was collected of one of two symbols. Once more, it changes nothing and asks for nothing."""
    publish_ticks(past.root, to_tick_records(past.true_trades("005930", TODAY)[::2]))
    collected = past.read_published()

    first = past.backfill(*SYMBOLS, "--days", "5")

    assert sorted(first) == sorted([*TICK_DAYS, *MINUTE_DAYS])
    assert "005930 collected: this home collected it (200 live ticks, no books)" in first[TODAY]["note"]
    assert past.grades(TODAY) == {"000660": "RECOVERED_ONLY"}
    past.assert_stored("000660", TODAY)
    for day in TICK_DAYS[1:]:
        assert past.grades(day) == dict.fromkeys(SYMBOLS, "RECOVERED_ONLY")
        for name in SYMBOLS:
            past.assert_stored(name, day)
    for day in MINUTE_DAYS:
        assert past.grades(day) == dict.fromkeys(SYMBOLS, "MINUTE_ONLY")
        bars = pd.read_parquet(past.root / f"data/kr/bar_1m/date={day}/part-0.parquet")
        for name in SYMBOLS:
            trades = past.true_trades(name, day)
            minutes = pd.Series(trades["size"]).groupby(trades["exch_s"] // 60).sum()
            assert minutes.tolist() == bars[bars.symbol == name].volume.tolist()
    assert {one["status"] for one in first.values()} == {0}
    live = collectorctl.open(past.root).ticks("005930", TODAY)
    assert (len(live), set(live.source)) == (200, {"live"})
    assert find_first_day(past.root / "data") == date.fromisoformat(
        TODAY
    )  # days that were backfilled are not this home's
    assert not list((past.root / "data/recover/backfill").rglob("*.gz"))

    stored = past.read_published()
    again = past.backfill(*SYMBOLS, "--days", "5")

    assert {one["outcome"] for day, one in again.items() if day != TODAY} == {"unchanged"}
    assert past.read_published() == stored
    assert set(collected) < set(stored)
    assert not (past.root / "data/recover/backfill").exists() or not list(
        (past.root / "data/recover/backfill").rglob("*.gz")
    )


def test_verify_report_and_export_take_a_backfilled_day_for_what_it_is(past: PastDays) -> None:
    """It holds, and is no whole day: there are no books."""
    day = TICK_DAYS[1]
    past.backfill("000660", "--days", "2")

    verified = msgspec.json.decode(past.run("verify", "--date", day, "--json").stdout)
    exported = past.run("export", "--date", day, "--format", "csv", "--out", str(past.root / "out"))
    reported = past.run("report", "--date", day)

    assert [(one["now"]["certificate"], one["differs"]) for one in verified] == [("RECOVERED_ONLY", [])]
    assert verified[0]["now"]["reasons"] == ["this home did not collect it: no books, and no live ticks"]
    manifest = msgspec.json.decode((past.root / "out" / day / "manifest.json").read_bytes())
    assert (exported.exit_code, manifest["is_whole"]) == (1, False), exported.output
    assert [(one["certificate"], one["holds"], one["ticks"]) for one in manifest["instruments"]] == [
        ("RECOVERED_ONLY", True, 400)
    ]
    assert reported.exit_code != 0 or "RECOVERED_ONLY" in reported.output
    assert "RECOVERED_ONLY" in (past.root / f"data/report/{day}.html").read_text()


def test_recovery_of_a_backfilled_day_keeps_its_grade_and_one_that_recovery_has_is_not_backfilled(
    past: PastDays,
) -> None:
    past.backfill("000660", "--days", "2")
    before = past.read_published()

    recovered = past.run("recover", "--date", TICK_DAYS[1], "--symbols", "000660,005930", "--json")
    refused = past.backfill("005930", "--days", "2")

    grades = {one["symbol"]: one["certificate"] for one in msgspec.json.decode(recovered.stdout)}
    assert grades == {"000660": "RECOVERED_ONLY", "005930": "PROVEN"}
    assert "005930 collected: `recover` has it (PROVEN)" in refused[TICK_DAYS[1]]["note"]
    past.assert_stored("000660", TICK_DAYS[1])
    assert set(before) <= set(past.read_published())


def test_a_day_whose_rows_retention_removed_is_not_fetched_again(past: PastDays) -> None:
    day = date.fromisoformat(TICK_DAYS[1])
    retired.record(past.root / "data", day, {"tick": retired.FileTotals(8, 1)}, date.fromisoformat(TODAY))

    assert "retired by retention" in find_own(Home(past.root), day, parse_instrument("005930"))
    assert find_own(Home(past.root), date.fromisoformat(TICK_DAYS[2]), parse_instrument("005930")) == ""


def test_scheduled_recovery_takes_a_certificate_of_backfill_for_no_sign_that_the_day_was_recovered(
    past: PastDays,
) -> None:
    """One of two symbols was backfilled: the day lacks the other as if nobody had looked at it. With both it is settled."""
    home = Home(past.root)
    schedule, *_ = build_schedules(home.settings, home.load_calendar())
    home.create_directories()
    vitals = Vitals.create(home.vitals_path("recover"), "recover")
    runner = RecoveryRunner(home, [schedule], vitals, ShutdownSignal())
    past.backfill("000660", "--days", "2")

    one = runner._find_uncertified(schedule, date.fromisoformat(TICK_DAYS[1]))
    past.backfill("005930", "--days", "2")
    both = runner._find_uncertified(schedule, date.fromisoformat(TICK_DAYS[1]))
    vitals.close()

    assert (one, both) == ([], None)


def test_a_run_that_is_left_goes_on_from_its_pages(past: PastDays) -> None:
    """After a page, and after a day: no trade is stored twice, and no page is fetched twice."""
    days = [date.fromisoformat(day) for day in TICK_DAYS]
    home, instruments = Home(past.root), [parse_instrument("005930")]

    class Left(Exception):
        pass

    def leave(_: object, kind: str, count: int) -> None:
        if kind == "ticks":
            raise Left

    with pytest.raises(Left):
        list(backfill(home, instruments, days, leave, print))
    pages = {path: path.stat().st_mtime_ns for path in (past.root / "data/recover/backfill").rglob("*.gz")}
    run = backfill(home, instruments, days, lambda *_: None, print)
    first = next(run)
    run.close()  # as if it ended here
    kept = {path: path.stat().st_mtime_ns for path in (past.root / "data/recover/backfill").rglob("*.gz")}
    past.backfill("005930", "--days", "3")

    assert (str(first.day), first.outcome) == (TODAY, "stored")
    assert pages and pages.items() <= kept.items()
    for day in TICK_DAYS:
        assert past.grades(day) == {"005930": "RECOVERED_ONLY"}
        past.assert_stored("005930", day)


def test_what_cannot_be_backfilled_is_refused_or_named(past: PastDays) -> None:
    """A US symbol, nonsense, a symbol that the broker does not know, days before its lists and beyond every horizon."""
    us, nonsense = past.run("backfill", "NAS.AAPL"), past.run("backfill", "59")
    unknown = past.run("backfill", "999999", "--days", "1")
    beyond = past.backfill("005930", "--days", "10")

    assert (us.exit_code, "no broker has a list of US trades" in us.output) == (2, True)
    assert (nonsense.exit_code, "is not an instrument" in nonsense.output) == (2, True)
    assert (unknown.exit_code, "the broker has nothing of 999999 on that day" in unknown.stdout) == (2, True)
    oldest, *_, newest = (beyond[day] for day in sorted(beyond))
    assert (oldest["status"], oldest["outcome"], newest["outcome"]) == (2, "unavailable", "stored")
    assert "trading days ago" in oldest["note"]
    assert "the broker has nothing of 005930 on that day" in beyond[sorted(beyond)[1]]["note"]


def test_a_dry_run_says_what_a_run_takes_and_changes_nothing_and_asks_only_what_it_needs(past: PastDays) -> None:
    """Against the pages that a run fetches then; with a vendor that is gone it knows what files and calendar tell."""
    settings = (past.root / "collector.toml").read_text().replace("[recover]", "[recover]\ntick_days = 2\nattempts = 1")
    names, counts = [*map(parse_instrument, SYMBOLS)], dict[tuple[str, str], int]()
    with temporary_home(settings) as root:
        other = PastDays(root, past.simulator, past.trades)
        publish_ticks(root, to_tick_records(other.true_trades("005930", TODAY)[::2]))
        before = read_tree(root)
        planned = other.backfill(*SYMBOLS, "--days", "5", "--dry-run")
        beyond = other.run("backfill", "005930", "--days", "10", "--dry-run")
        unchanged = read_tree(root) == before

        run = backfill(
            Home(root), names, [*map(date.fromisoformat, planned)],
            lambda name, kind, count: counts.update({(str(name), kind): count}), print,
        )  # fmt: skip
        stored = {(str(one.day), str(one.instrument)): one.outcome for one in run}
        (root / "collector.toml").write_text(re.sub(r'(rest_url = "http://127.0.0.1):\d+', r"\1:9", settings))
        settled = other.backfill(*SYMBOLS, "--days", "5", "--dry-run")
        shutil.rmtree(root / f"data/kr/completeness/date={MINUTE_DAYS[1]}")
        bars_only = other.run("backfill", *SYMBOLS, "--days", "5", "--dry-run")
        shutil.rmtree(root / "data/kr")
        failed = other.run("backfill", "000660", "--days", "1", "--dry-run")

    plans = {(day, one["instrument"]): one for day, result in planned.items() for one in result["result"]}
    assert unchanged
    assert {key: one["kind"] for key, one in plans.items()} == {
        (day, name): "ticks" if day in TICK_DAYS else "bars"
        for day in [*TICK_DAYS, *MINUTE_DAYS]
        for name in SYMBOLS
        if (day, name) != (TODAY, "005930")
    }
    assert {key for key, outcome in stored.items() if outcome == "stored"} == set(plans)
    assert (planned[TODAY]["outcome"], {one["status"] for one in planned.values()}) == ("collected, planned", {0})
    fetched = 1 + sum(count for (name, _), count in counts.items() if name == "005930")
    assert sum(one["requests"] for (_, name), one in plans.items() if name == "005930") == fetched
    assert plans[TICK_DAYS[1], "005930"]["trades"] == pytest.approx(400, rel=0.25)
    assert (beyond.exit_code, "trading days ago" in beyond.stdout) == (2, True)
    assert {one["outcome"] for day, one in settled.items() if day != TODAY} == {"unchanged"}
    assert (bars_only.exit_code, "to fetch: about 4 requests" in bars_only.stdout) == (0, True), bars_only.output
    assert (failed.exit_code, "given up after 1 attempts" in failed.stdout) == (1, True), failed.output


def read_tree(root: Path) -> dict[str, int]:
    """Every file of a home but for what a process leaves in `run`, with its last change."""
    files = (path for path in root.rglob("*") if path.is_file() and path.relative_to(root).parts[0] != "run")
    return {str(path): path.stat().st_mtime_ns for path in files}


@pytest.mark.long
@pytest.mark.parametrize("what", ["pages", "published", "certified"])
def test_killed_at_any_point_and_run_again_every_trade_is_there_once(past: PastDays, what: str) -> None:
    """SIGKILL after a page, while a day is published, after the first certificate, each a few times."""
    past.backfill(*SYMBOLS, "--days", "5")
    whole = past.read_published()
    shutil.rmtree(past.root / "data")
    (past.root / "data").mkdir()

    killed = [_kill_when(past.root, what) for _ in range(3)]
    past.backfill(*SYMBOLS, "--days", "5")

    assert any(killed)
    for name in SYMBOLS:
        for day in TICK_DAYS:
            past.assert_stored(name, day)
    stored = past.read_published()
    assert set(stored) == set(whole)
    assert {name: whole[name] for name in whole if "completeness" not in name} == {
        name: stored[name] for name in stored if "completeness" not in name
    }


def _kill_when(root: Path, what: str) -> bool:
    """Start a backfill and kill it as soon as there is one more of `what`; whether it was still there."""
    folder, pattern = {
        "pages": ("data/recover/backfill", "*.json.gz"),
        "published": ("data/kr/tick", "*part-*"),
        "certified": ("data/kr/completeness", "part-0.parquet"),
    }[what]
    before = len(list((root / folder).rglob(pattern)))
    process = subprocess.Popen(
        [BIN / "collectorctl", "--home", root, "backfill", *SYMBOLS, "--days", "5"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and len(list((root / folder).rglob(pattern))) <= before:
        time.sleep(0.001)
    process.kill()
    return process.wait() == -signal.SIGKILL
