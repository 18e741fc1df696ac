"""Each scenario's own conditions: met by what should be, broken by a fault that did not happen or was not noticed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from support.process_tree import BIN, temporary_home

from brokers.simulator import ground_truth
from brokers.simulator.scenarios import SCENARIOS
from collectorctl.demo import assertions
from collectorctl.demo.oracle import BOOK, compare
from collectorctl.demo.run import DemoRun
from collectorctl.demo.scenarios import DEMO_SCENARIOS, MORNING, REAL_TIME, US_NIGHT, VENUES
from collectorctl.terminal import wide_console

DAY = "2026-11-20"


def at(clock: str) -> pd.Timestamp:
    """A time of the rehearsal's day."""
    return pd.Timestamp(f"{DAY} {clock}", tz="Asia/Seoul")


def books(*arrivals: tuple[str, bool, bool]) -> pd.DataFrame:
    """(time, by kis, by kiwoom) as stored books."""
    frame = pd.DataFrame({"exch_time": pd.DatetimeIndex([at(clock) for clock, _, _ in arrivals])})
    for place, line in ((1, "kis"), (2, "kiwoom")):
        frame[f"recv_time_{line}"] = pd.DatetimeIndex([at(one[0]) if one[place] else pd.NaT for one in arrivals])
    return frame


def events(*told: tuple[str, str, str]) -> pd.DataFrame:
    """(time, line, kind) as stored events."""
    frame = pd.DataFrame(told, columns=["time", "line", "kind"])
    frame["time"] = pd.DatetimeIndex([at(clock) for clock in frame["time"]], dtype="datetime64[ns, Asia/Seoul]")
    return frame.assign(message="kis.tick")


def rehearse(name: str, seconds: int, *options: str | Path) -> tuple[int, dict[str, Any]]:
    """`demo --scenario NAME`: its exit status, and what it printed."""
    ran = subprocess.run(
        [BIN / "collectorctl", "demo", "--scenario", name, "--seconds", str(seconds), "--json", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=200 + 2 * seconds,
    )
    assert ran.stdout, ran.stderr
    return ran.returncode, msgspec.json.decode(ran.stdout)


def test_there_is_a_rehearsal_for_each_scenario() -> None:
    """And the ordinary ones; every scenario has conditions of its own."""
    assert set(DEMO_SCENARIOS) == {
        MORNING.name,
        VENUES.name,
        US_NIGHT.name,
        *SCENARIOS,
        *(one.name for one in REAL_TIME),
    }
    for name in SCENARIOS:
        assert DEMO_SCENARIOS[name].assertion is not MORNING.assertion
        assert DEMO_SCENARIOS[name].simulator_scenario == name


def test_the_ordinary_rehearsal_needs_something_to_recover() -> None:
    """A day that was PROVEN as it stood shows nothing."""
    assert assertions.check_morning(assertions.DemoData(books(), events(), newly_proven=1)) == []
    assert assertions.check_morning(assertions.DemoData(books(), events()))


def test_an_outage_is_told_and_the_survivor_is_never_silent() -> None:
    """Disconnected, connected ten minutes later, and a book of the other line in each whole minute between."""
    served = [(f"09:{minute:02}:30", False, True) for minute in range(12)]
    told = [("09:00:05", "kis", "disconnected"), ("09:11:00", "kis", "connected")]

    assert assertions.check_kis_dies_at_open(assertions.DemoData(books(*served), events(*told))) == []
    for lacking in range(1, 11):
        left = books(*(one for minute, one in enumerate(served) if minute != lacking))
        (words,) = assertions.check_kis_dies_at_open(assertions.DemoData(left, events(*told)))
        assert f"09:{lacking:02}" in words
    kis_only = books(*((clock, True, False) for clock, _, _ in served))
    assert assertions.check_kis_dies_at_open(assertions.DemoData(kis_only, events(*told)))
    assert assertions.check_kis_dies_at_open(assertions.DemoData(books(*served), events(told[0])))
    assert assertions.check_kis_dies_at_open(
        assertions.DemoData(books(*served), events(("08:40:00", "kis", "disconnected"), told[1]))
    )
    assert assertions.check_kis_dies_at_open(
        assertions.DemoData(books(*served), events(told[0], ("09:05:00", "kis", "connected")))
    )


@pytest.mark.parametrize(
    ("condition", "lines"),
    [
        (assertions.check_kiwoom_conflates, ("kiwoom",)),
        (assertions.check_wrong_venue, ("kis", "kiwoom")),
        (assertions.check_stamp_skew, ()),
    ],
    ids=["conflates", "venue", "skew"],
)
def test_an_alarm_names_the_line_that_hides_something_and_no_other(
    condition: assertions.Assertion, lines: tuple[str, ...]
) -> None:
    """Neither a missing alarm nor one too many passes."""
    for called in ((), ("kis",), ("kiwoom",), ("kis", "kiwoom")):
        seen = assertions.DemoData(books(), events(*(("09:30:00", line, "degraded") for line in called)))
        assert (condition(seen) == []) is (called == lines)


def test_losses_of_both_lines_show_in_the_arrivals() -> None:
    """About 2 % of the hour's books lack either line; none or far more is another scenario; before a line came it lost nothing."""

    def of(every: int) -> list[str]:
        early = [("09:00:30", False, True)] * 100
        rows = [*early, *(("09:30:00", n % every != 0, n % every != every // 2) for n in range(1000))]
        later = [*[("09:31:00", False, True)] * 100, ("09:31:01", True, True)]  # KIS subscribes one after the other
        found = pd.concat([books(*rows).assign(symbol="005930"), books(*later).assign(symbol="000660")])
        return assertions.check_both_lose(assertions.DemoData(found, events()))

    assert of(50) == []
    assert len(of(2000)) == 2
    assert len(of(10)) == 2


def test_a_burst_that_did_not_come_or_overran_a_ring_does_not_pass() -> None:
    """More books a minute than usual, and no event of a loss."""
    usual = [(f"{10 + n // 60:02}:{n % 60:02}:00", True, True) for n in range(90)]
    burst = [(f"09:{n % 8 + 1:02}:00", True, True) for n in range(80)]

    assert assertions.check_open_burst(assertions.DemoData(books(*usual, *burst), events())) == []
    assert assertions.check_open_burst(assertions.DemoData(books(*usual), events()))
    assert assertions.check_open_burst(
        assertions.DemoData(books(*usual, *burst), events(("09:05:00", "writer", "ring_loss")))
    )


def test_each_venue_must_have_twins_of_every_stock_and_nothing_outside_its_hours() -> None:
    """KRX has no book before its auction nor after its close, NXT none while it pauses at 08:50."""
    times = [(clock, True, True) for clock in ("08:40:00", "09:30:00")]
    whole = pd.concat([books(*times).assign(venue=venue, symbol="005930") for venue in ("KRX", "NXT", "UN")])
    seen = lambda *more: assertions.DemoData(pd.concat([whole, *more]), events())  # noqa: E731

    assert assertions.check_venues(seen()) == []
    for clock, venue in (("08:29:59", "KRX"), ("08:55:00", "NXT"), ("11:55:00", "NXT"), ("12:04:01", "UN")):
        late = books((clock, True, False)).assign(venue=venue, symbol="005930")
        assert assertions.check_venues(seen(late)) == [f"1 books of {venue} outside its hours"]
    alone = books(("09:00:00", True, False)).assign(venue="KRX", symbol="000660")
    assert len(assertions.check_venues(seen(alone))) == 3


@pytest.mark.parametrize(
    ("condition", "kis", "kiwoom", "lag_s"),
    [
        (assertions.check_real_time, 0.0, 0.5, 0.08),
        (assertions.check_both_conflate, 0.5, 0.5, 0.1),
        (assertions.check_lossy_feed, 0.1, 0.6, 0.08),
        (assertions.check_late_feed, 0.0, 0.5, 0.9),
    ],
    ids=["usual", "conflate", "lossy", "late"],
)
def test_what_lines_at_a_speed_of_one_lack_must_show_in_the_arrivals(
    condition: assertions.Assertion, kis: float, kiwoom: float, lag_s: float
) -> None:
    """Shares of books that lack a line, and the lag: those of the scenario pass, those of no fault do not."""

    def of(kis: float, kiwoom: float, lag_s: float) -> list[str]:
        chance = [n * 619 % 1000 / 1000 for n in range(1000)]
        rows = [(f"09:{30 + n // 60}:{n % 60:02}", x >= kis, x < 1 - kiwoom) for n, x in enumerate(chance)]
        frame = books(*rows)
        frame["recv_time_kiwoom"] += pd.Timedelta(seconds=lag_s)
        return condition(assertions.DemoData(frame, events()))

    assert of(kis, kiwoom / 2, lag_s) == []
    assert of(0.001, 0.001, -0.5)


def test_a_tree_that_is_ready_after_the_opening_is_named_with_what_to_do(tmp_path: Path) -> None:
    """Before the opening, or where the market was open all along, it explains nothing."""
    console = wide_console(stderr=True)
    late, early = at("09:00:01").value, at("08:59:59").value
    usual = DemoRun(tmp_path, 70, 1, console, MORNING)
    real_time = DemoRun(tmp_path, 70, 1, console, REAL_TIME[0])

    assert "ready at 09:00, after the opening at 09:00" in usual._describe_late_start(late)
    assert "--seconds" in usual._describe_late_start(late)
    assert usual._describe_late_start(early) == real_time._describe_late_start(late) == ""


def test_what_one_line_had_before_the_other_came_is_no_loss() -> None:
    """A line that is subscribed later lacks nothing until then."""
    rows = [(f"09:{n // 60:02}:{n % 60:02}", n >= 900 and n % 10 > 0, True) for n in range(1800)]

    assert assertions.check_lossy_feed(assertions.DemoData(books(*rows), events())) == []


def test_a_line_without_a_midpoint_must_have_none() -> None:
    """The rows of one line alone tell."""
    alone = books(("09:30:00", True, False), ("09:30:00", False, True))

    for sizes, passes in (((None, 7), True), ((7, 7), False), ((None, None), False)):
        seen = assertions.DemoData(alone.assign(mid_size=pd.array(sizes, "Int64")), events())
        assert (assertions.check_no_midpoint(seen) == []) is passes


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", ["lossy-feed"])  # the others: the rehearsals above, which are long
def test_lines_that_lack_or_are_late_are_paired_at_a_speed_of_one(name: str) -> None:
    """Conflating both, one losing a tenth, one 0.9 s behind, one without a midpoint: a short run is within the bounds."""
    _, outcome = rehearse(name, 20, "--seed", "7")

    assert outcome["complaints"] == []
    assert outcome["result"]["books"]["pairs"] > 100


@pytest.mark.timeout(240)
def test_a_day_of_one_stock_on_every_venue_is_right_on_each() -> None:
    """KRX, NXT and both unified, an outage, recovery: the oracle judges each venue as if it were alone; all are PROVEN."""
    with temporary_home("") as root:
        _, outcome = rehearse("venues", 24, "--home", root)
        told = ground_truth.load(root / "truth")
        stored = {name: pd.read_parquet(root / "data/kr" / name) for name in ("orderbook", "tick")}
    live = stored["tick"][stored["tick"]["source"] == "live"]
    ended = {(c["line"], c["connection"]): c["ended_mono_ns"] for c in told.connections if c["ended_mono_ns"]}

    assert outcome["complaints"] == []
    for venue in ("KRX", "NXT", "UN"):
        events_of = [table[table["venue"] == venue.encode()] for table in (told.books, told.trades)]
        ids = [np.isin(told.deliveries["first_id"], table["id"]) for table in events_of]
        sent = told.deliveries[np.where(told.deliveries["stream"] == BOOK, *ids)]
        rows = [table[table["venue"] == venue] for table in (stored["orderbook"], live)]
        verdict = compare(*events_of, sent, ended, *rows)
        assert verdict.strict_problems() == []
        assert verdict.books.available > 50
    certificates = {(one["ticks"]["venue"], one["after"]) for one in outcome["recovery"]["instruments"]}
    assert certificates == {("KRX", "PROVEN"), ("NXT", "PROVEN"), ("UN", "PROVEN")}
    volumes = {
        venue: sum(
            one["ticks"]["trades"] for one in outcome["recovery"]["instruments"] if one["ticks"]["venue"] == venue
        )
        for venue in ("KRX", "NXT", "UN")
    }
    assert volumes["KRX"] + volumes["NXT"] == volumes["UN"]


@pytest.mark.long
@pytest.mark.parametrize("name", sorted({US_NIGHT.name, *SCENARIOS, *(one.name for one in REAL_TIME)}))
def test_the_rehearsal_of_a_scenario_passes(name: str) -> None:
    """`demo --scenario NAME`, judged against the truth; given more time where it says that the machine is too busy."""
    for seconds in (70, 140, 280):
        status, told = rehearse(name, seconds)
        if not told["complaints"] or not told["late_start"]:
            break
    assert told["complaints"] == [], told
    assert status == 0
