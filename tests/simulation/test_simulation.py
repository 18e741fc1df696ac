"""A home in one process, with clock, disk, network and scheduler simulated: short days under faults drawn from a seed.

    pytest tests/simulation                             a few dozen dates, the same ones each time
    pytest -m long -s tests/simulation                  a thousand dates from a fresh seed; SIMULATION_FIRST=4711 repeats them
    SIMULATION_SEED=17 pytest tests/simulation -k short_days          one run, exactly as it was; see replay.py

A run plays seconds around hour edges and midnights of up to three dates. The parts inside are the product's own: decoders on
frames of the simulator's encoders, rings, arbitration, journal, publication, gap tracking, gap filling. In every fourth run the US
feed is collected beside Korea, by New York's dates.
"""

from __future__ import annotations

import gc
import os
import secrets
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import accumulate, count, takewhile
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import pytest
from simulation.oracle import judge
from simulation.plan import ENABLED, FEEDS, PROCESSES, SECOND_NS, US_FEED, US_REPEATS, Fault, draw_plan
from simulation.replay import assert_kept, chosen_plan, run
from simulation.world import Evidence, play

SHORT_RUNS = 6
LONG_DATES = 1000


def test_short_days_keep_every_promise_whatever_fails() -> None:
    """Each book stored, each share in one row, each loss told, each file readable; and the faults did happen."""
    seed = os.environ.get("SIMULATION_SEED")
    if seed is not None:
        assert_kept(chosen_plan(int(seed)))
        return
    results = [assert_kept(draw_plan(number)) for number in range(SHORT_RUNS)]
    lines = [line for result in results for line in result.history]
    assert sum(result.plan.dates for result in results) >= 14
    for text in ("disk killed at", " fails", "fault pause", "fault clock", "fault kill "):
        assert any(text in line for line in lines), text


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_thousand_short_days_keep_every_promise_whatever_fails() -> None:
    """The same from a fresh seed, on every core."""
    first = int(os.environ.get("SIMULATION_FIRST") or secrets.randbelow(1_000_000_000))
    print(f"SIMULATION_FIRST={first}")
    dates = accumulate(draw_plan(seed).dates for seed in count(first))
    seeds = range(first, first + 1 + sum(1 for _ in takewhile(LONG_DATES.__gt__, dates)))
    # gc.freeze: what was imported is not searched again after every run
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=gc.freeze) as pool:
        runs = [pool.submit(count_outcomes, seed) for seed in seeds]
        try:
            outcomes = sum((done.result() for done in as_completed(runs)), Counter[str]())
        finally:
            pool.shutdown(cancel_futures=True)
    print(f"{len(seeds)} runs: {dict(outcomes)}")


def count_outcomes(seed: int) -> Counter[str]:
    """The faults of a run that kept every promise, by kind; AssertionError of another."""
    history = assert_kept(draw_plan(seed)).history
    return Counter(" ".join(line.split()[1:4]) for line in history if " killed " in line or " fault " in line)


def test_a_power_cut_takes_nothing_that_was_called_durable() -> None:
    """Killed behind an append that was never synced, the writer comes back and goes on; then the machine goes off."""
    plan = draw_plan(1)
    begin_ns = plan.segments[0].begin_ns
    for skipped in range(4):
        kill = Fault(begin_ns + 3 * SECOND_NS, "kill after", "writer", skipped)
        cut = Fault(begin_ns + 6 * SECOND_NS, "power", "machine", 2.0)
        assert_kept(plan._replace(faults=(kill, cut)))


def test_a_power_cut_takes_what_was_not_durable_also_of_rings_that_have_no_name() -> None:
    """The ring directory is deleted, and a tenth of a second later the machine goes off."""
    plan = draw_plan(14_959_345)
    unlink = next(at for at, fault in enumerate(plan.faults) if fault.kind == "unlink")

    assert_kept(plan._replace(faults=plan.faults[unlink : unlink + 2]))


def test_a_step_of_the_wall_clock_doubles_nothing_though_each_process_finds_it_at_another_instant() -> None:
    """Two seconds back and forth, amid busy trading."""
    for seed in (2, 6, 10):
        plan = draw_plan(seed)
        segment = plan.segments[0]
        fault = Fault(segment.begin_ns + 5 * SECOND_NS // 2, "clock", "wall", 2.0)
        faults = (fault, fault._replace(at_ns=fault.at_ns + 3 * SECOND_NS, amount=-2.0))
        assert_kept(plan._replace(segments=(segment,), faults=faults, events_per_s=30.0, stop_kill=None))


def test_what_the_us_feed_sends_twice_is_stored_twice_and_nothing_is_lost_by_it() -> None:
    """A known limit: publication compares no ticks of a market with one feed."""
    findings = run(draw_plan(7, ENABLED | {US_REPEATS})._replace(faults=(), stop_kill=None)).findings

    assert findings
    assert [] == [finding for finding in findings if not finding.startswith("shares in two rows")]
    assert all("NASDAQ" in finding or "NYSE" in finding for finding in findings)


def test_plans_draw_every_fault_at_every_process() -> None:
    """Nothing that the simulation can do is left out by chance."""
    faults = [fault for seed in range(300) for fault in draw_plan(seed).faults]

    assert {("kill", name) for name in PROCESSES} | {("pause", name) for name in (*FEEDS, "writer")} <= {
        (fault.kind, fault.target) for fault in faults
    }
    assert {plan.dates for plan in map(draw_plan, range(300))} == {1, 2, 3}
    assert {("kill", US_FEED), ("pause", US_FEED)} <= {(fault.kind, fault.target) for fault in faults}


def parts(evidence: Evidence, stream: str) -> list[Path]:
    return sorted((evidence.home.data / "kr" / stream).rglob("part-*.parquet"))


def rewrite(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    change(pd.read_parquet(path, partitioning=None)).to_parquet(path)


def without_a_book(evidence: Evidence) -> None:
    rewrite(parts(evidence, "orderbook")[0], lambda rows: rows.iloc[1:])


def with_a_book_twice(evidence: Evidence) -> None:
    rewrite(parts(evidence, "orderbook")[0], lambda rows: pd.concat([rows, rows.iloc[:1]]))


def with_another_size(evidence: Evidence) -> None:
    rewrite(parts(evidence, "orderbook")[0], lambda rows: rows.assign(ask_size_3=rows["ask_size_3"] + 1))


def without_a_tick(evidence: Evidence) -> None:
    rewrite(parts(evidence, "tick")[0], lambda rows: rows.iloc[1:])


def with_a_tick_twice(evidence: Evidence) -> None:
    rewrite(parts(evidence, "tick")[0], lambda rows: pd.concat([rows, rows.iloc[:1]]))


def with_another_price(evidence: Evidence) -> None:
    rewrite(parts(evidence, "tick")[0], lambda rows: rows.assign(price=rows["price"] + 1))


def in_another_hour(evidence: Evidence) -> None:
    path = parts(evidence, "tick")[0]
    moved = path.parent.with_name("hour=03")
    moved.mkdir()
    path.rename(moved / path.name)


def us_parts(evidence: Evidence, stream: str) -> list[Path]:
    return sorted((evidence.home.data / "us" / stream).rglob("part-*.parquet"))


def without_a_us_book(evidence: Evidence) -> None:
    rewrite(us_parts(evidence, "orderbook")[0], lambda rows: rows.iloc[1:])


def with_a_us_tick_twice(evidence: Evidence) -> None:
    rewrite(us_parts(evidence, "tick")[0], lambda rows: pd.concat([rows, rows.iloc[:1]]))


def without_a_us_tick(evidence: Evidence) -> None:
    rewrite(us_parts(evidence, "tick")[0], lambda rows: rows.iloc[1:])


def with_another_us_price(evidence: Evidence) -> None:
    rewrite(us_parts(evidence, "tick")[0], lambda rows: rows.assign(price=rows["price"] + 0.0001))


def with_a_us_book_in_another_hour(evidence: Evidence) -> None:
    path = us_parts(evidence, "orderbook")[0]
    moved = path.parent.with_name("hour=03")
    moved.mkdir()
    path.rename(moved / path.name)


def torn(evidence: Evidence) -> None:
    path = parts(evidence, "tick")[0]
    path.write_bytes(path.read_bytes()[:-20])


def with_half_a_file(evidence: Evidence) -> None:
    parts(evidence, "orderbook")[0].with_name(".part-7.parquet.tmp").write_bytes(b"PAR1")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without_a_book, "book arrivals not stored"),
        (with_a_book_twice, "book doubled"),
        (with_another_size, "a book that nobody delivered"),
        (without_a_tick, "delivered shares in no row"),
        (with_a_tick_twice, "shares in two rows"),
        (with_another_price, "a tick that nobody delivered"),
        (in_another_hour, "in 2026-11-2"),
        (without_a_us_book, "us book arrivals not stored"),
        (with_a_us_book_in_another_hour, "us book arrivals stored and never delivered"),
        (without_a_us_tick, "delivered shares in no row"),
        (with_a_us_tick_twice, "shares in two rows"),
        (with_another_us_price, "a tick that nobody delivered"),
        (torn, "unreadable"),
        (with_half_a_file, "was left"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_judge_finds_each_damage(damage: Callable[[Evidence], None], words: str) -> None:
    """A run without faults, then one thing wrong on disk."""
    plan = draw_plan(1)._replace(faults=())
    assert plan.us is not None
    with play(plan) as evidence:
        assert [] == judge(evidence)
        damage(evidence)
        assert any(words in finding for finding in judge(evidence)), judge(evidence)
