"""Demo run: environment, process tree, scenario, stop, recovery, comparison.

    environment ─> start ─> trading day with the scenario's actions ─> close ─> stop ─> recover ─> compare

Guarantees:
    * Nothing is left running, whatever happens; the home is kept if it was named, or if something was wrong.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from rich.progress import BarColumn, Progress, TimeElapsedColumn

from brokers.simulator import ground_truth
from brokers.simulator.ground_truth import FeedId
from brokers.simulator.scenarios import SCENARIOS, TimedCommand
from collectorctl.demo.assertions import DemoData
from collectorctl.demo.environment import (
    REST_RATE_OPTIONS,
    SimulatorProcess,
    create_demo_home,
    set_addresses,
)
from collectorctl.demo.oracle import FEEDS, compare
from collectorctl.demo.recovery import recover_and_compare
from collectorctl.demo.report import DemoOutcome, measure, print_report
from collectorctl.demo.result import DemoResult
from collectorctl.demo.scenario_runner import ScenarioRunner
from collectorctl.demo.scenarios import DEMO_SCENARIOS, MORNING, DemoScenario
from collectorctl.demo.us.night import recover_and_compare_us
from collectorctl.supervision.readiness import final_states, wait_until_healthy
from collectorctl.supervision.status import Status, collect_status, enabled_feeds
from collectorctl.supervision.supervisor import SupervisorClient
from collectorctl.terminal import TextConsole, coloured, wide_console
from collectorctl.terminal_progress import PlainTextColumn
from conf.clock import SECOND_NS, to_kst
from conf.home import Home
from conf.market import KR

STOP_DELAY_S = 2.0
"""Between the last delivery and the stop: longer than oracle.MARGIN_NS, so that nothing is in flight at the end."""

PROGRESS_INTERVAL_S = 10.0
"""Interval of progress lines where no terminal shows progress."""


class DemoRun:
    """One run of the whole process tree against the simulator."""

    def __init__(
        self, root: Path, seconds: float, seed: int, console: TextConsole, scenario: DemoScenario = MORNING
    ) -> None:
        self.root = root
        self.seconds = seconds
        self.seed = seed
        self.console = console
        self.scenario = scenario
        self.market_day = scenario.market_day
        self.truth = root / "truth"

    def run(self) -> DemoOutcome:
        """Run it, recover its day, compare both. EnvironmentSetupError, SupervisorError, SettingsError, errors of a recovery."""
        create_demo_home(self.root, self.seconds, self.scenario.universe, self.scenario.real_time, self.market_day)
        options = ["--seed", str(self.seed), *REST_RATE_OPTIONS, *self.scenario.options]
        options += ["--scenario", self.scenario.simulator_scenario] if self.scenario.simulator_scenario else []
        with SimulatorProcess(self.root, self.truth, *options) as simulator:
            set_addresses(self.root, simulator.addresses)
            home = Home(self.root)
            home.create_directories()
            supervisor = SupervisorClient(home)
            runner = ScenarioRunner(self.scenario, supervisor, simulator)
            feeds = ", ".join(enabled_feeds(home.settings))
            try:
                self.console.print(f"home {self.root}: starting {feeds} and writer under supervisord")
                supervisor.start()
                for name, reason in wait_until_healthy(home, 30):
                    self.console.print(coloured(f"{name}: not healthy: {reason}", "red"))
                late_start = self._describe_late_start(home.load_clock().now_ns())
                status = self._run_market(home, runner)
                time.sleep(STOP_DELAY_S)
                stopping = time.monotonic()
            finally:
                for _ in supervisor.stop():
                    pass
            stop_s = time.monotonic() - stopping
            for name, state in final_states(home):
                self.console.print(f"{name:<9}{state}")
            truth = ground_truth.load(self.truth)
            collected = {(one.symbol.encode(), one.venue.encode()) for one in home.settings.instruments()}
            names = zip(truth.trades["symbol"].tolist(), truth.trades["venue"].tolist(), strict=True)
            trades = truth.trades[[name in collected for name in names]]
            recovery = recover_and_compare(
                home, self.market_day.day, trades, self.console, self.scenario.untrusted_feed
            )
            us = recover_and_compare_us(home, self.market_day.day, truth, self.console) if self.market_day.us else None
        books = _read_dataset(home, "orderbook")
        return DemoOutcome(
            description=self.scenario.description,
            skipped_actions=runner.remaining
            + [action.command for action in self._simulator_commands()[len(truth.commands) :]],
            result=self._compare(home, truth, books),
            assertion_failures=self.scenario.assertion(
                DemoData(books, _read_dataset(home, "event"), recovery.newly_proven)
            ),
            recovery=recovery,
            measurements=measure(home, status, stop_s),
            bounds=self.scenario.bounds,
            us=us,
            late_start=late_start,
        )

    def _describe_late_start(self, ready_ns: int) -> str:
        """That the tree was not ready when the market opened; empty if it was, or where the market was open before."""
        opens = self.market_day.regular.partition("-")[0]
        if self.scenario.real_time or ready_ns < self.market_day.parse(f"{opens}:00"):
            return ""
        return (
            f"the processes were ready at {to_kst(ready_ns):%H:%M}, after the opening at {opens}: this machine is too busy "
            f"for a day of {self.seconds:g} s: give it more --seconds"
        )

    def _run_market(self, home: Home, runner: ScenarioRunner) -> Status:
        """Show progress until the market has closed; the last status."""
        columns = (PlainTextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        clock, close_ns = home.load_clock(), self.market_day.parse(self.market_day.closes)

        def seconds_until(until_ns: int) -> float:
            """In real seconds."""
            return (until_ns - clock.now_ns()) / SECOND_NS / clock.anchor.speed

        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task("market", total=self.seconds)
            printed_s = time.monotonic()
            while (left := seconds_until(close_ns)) > 0:
                if command := runner.run_due(clock.now_ns()):
                    self.console.print(f"{to_kst(clock.now_ns()):%H:%M} KST  {command}")
                line = self._format_progress(clock.now_ns(), collect_status(home))
                progress.update(task, completed=self.seconds - left, description=line)
                if not self.console.is_terminal and time.monotonic() - printed_s > PROGRESS_INTERVAL_S:
                    printed_s = time.monotonic()
                    self.console.print(line)
                due_ns = runner.due_ns()
                time.sleep(
                    max(0.0, min(seconds_until(close_ns), 0.5, 0.5 if due_ns is None else seconds_until(due_ns)))
                )
        return collect_status(home)

    @staticmethod
    def _format_progress(now_ns: int, status: Status) -> str:
        counters = {process.name: Counter(process.counters) for process in status.processes}
        kis, kiwoom, writer = (counters.get(name, Counter[str]()) for name in ("kis", "kiwoom", "writer"))
        unhealthy = ", ".join(f"{p.name} {p.verdict}" for p in status.processes if not p.healthy)
        return (
            f"{to_kst(now_ns):%H:%M} KST  books kis {kis['books']} kiwoom {kiwoom['books']} "
            f"merged {writer['books_new']}  ticks {writer['ticks_in']}  "
            f"hours published {writer['hours_published']}  {unhealthy}"
        )

    def _simulator_commands(self) -> list[TimedCommand]:
        """What the simulator was to do by itself, in order."""
        return sorted(SCENARIOS[self.scenario.simulator_scenario].commands) if self.scenario.simulator_scenario else []

    def _compare(self, home: Home, truth: ground_truth.GroundTruth, books: pd.DataFrame) -> DemoResult:
        ticks, deliveries = _read_dataset(home, "tick"), truth.deliveries
        if untrusted := self.scenario.untrusted_feed:  # the other feed is compared as if it were alone
            deliveries = deliveries[deliveries["line"] != FeedId[untrusted.upper()]]
            books = books[
                books[[f"recv_time_{line}" for line in FEEDS.values() if line != untrusted]].notna().any(axis=1)
            ]
            books = books.copy()
            books[f"recv_time_{untrusted}"] = pd.NaT
            ticks = ticks[ticks["broker"] != untrusted]
        return compare(
            truth.books[np.isin(truth.books["venue"], [venue.encode() for venue in KR.venues])],
            truth.trades,
            deliveries,
            {(c["line"], c["connection"]): c["ended_mono_ns"] for c in truth.connections if c["ended_mono_ns"]},
            books,
            ticks[ticks["source"] == "live"],
            compare_stamps=self.scenario.compare_stamps,
            compare_midpoint=self.scenario.compare_midpoint,
        )


def _read_dataset(home: Home, stream: str) -> pd.DataFrame:
    return pd.read_parquet(home.data / "kr" / stream)


def run_demo(directory: Path | None, seconds: float, seed: int, name: str, as_json: bool) -> int:
    """Run, report, clean up; the exit status: 0 when there was no violation."""
    console = wide_console(stderr=as_json)
    root = directory.resolve() if directory else Path(tempfile.mkdtemp(prefix="collectorctl-demo-"))
    outcome = DemoRun(root, seconds, seed, console, DEMO_SCENARIOS[name]).run()
    print_report(console, root, outcome, as_json)
    home = Home(root)
    passed = not outcome.problems()
    if directory is None and passed:
        shutil.rmtree((home.run / "ring").resolve(), ignore_errors=True)
        shutil.rmtree(root)
        console.print("the temporary home is removed; `collectorctl demo --home DIR` keeps it")
    elif not passed:
        console.print(f"kept for inspection: {root}")
    return 0 if passed else 1
