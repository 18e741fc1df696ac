"""A rehearsal from curtain to verdict.

    stage ─> start ─> the market's day, with the script's acts ─> the close ─> stop ─> recover ─> judge

Promises: whatever happens, nothing is left running; the home is kept when it was named, or when something was wrong.
Leaves to others: what is done on the way (script.py, prompter.py), the ending (recovery.py), the verdict (oracle.py), the table
(report.py).
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from brokers.simulator import ground_truth
from brokers.simulator.ground_truth import LineNumber
from brokers.simulator.scenarios import SCENARIOS, Act
from collectorctl.demo.assertions import Seen
from collectorctl.demo.environment import CLOSES, DAY, REST_CALLS, Simulator, connect_home, day_time, write_home
from collectorctl.demo.oracle import LINES, judge
from collectorctl.demo.recovery import recover
from collectorctl.demo.report import Outcome, measure, show
from collectorctl.demo.result import Verdict
from collectorctl.demo.scenario_runner import Prompter
from collectorctl.demo.scenarios import MORNING, SCRIPTS, Script
from collectorctl.supervision.readiness import last_words, wait_until_healthy
from collectorctl.supervision.status import Status, look
from collectorctl.supervision.status_table import wide_console
from collectorctl.supervision.supervisor import Daemon
from conf.clock import SECOND_NS, korean
from conf.home import Home

REST_S = 2.0
"""Between the last delivery and the stop: longer than oracle.MARGIN_NS, so that nothing is in flight at the end."""

TELL_EVERY_S = 10.0
"""Where no terminal can show progress, a line this often."""


class Rehearsal:
    """One run of the whole tree against the simulator."""

    def __init__(self, root: Path, seconds: float, seed: int, console: Console, script: Script = MORNING) -> None:
        self.root = root
        self.seconds = seconds
        self.seed = seed
        self.console = console
        self.script = script
        self.truth = root / "truth"

    def play(self) -> Outcome:
        """Run it, recover its day and judge both. StageError, DaemonError, SettingsError, or the errors of a recovery."""
        write_home(self.root, self.seconds, self.script.universe)
        options = ["--seed", str(self.seed), *REST_CALLS, *self.script.options]
        options += ["--scenario", self.script.scenario] if self.script.scenario else []
        with Simulator(self.root, self.truth, *options) as simulator:
            connect_home(self.root, simulator.addresses)
            home = Home(self.root)
            home.make()
            daemon = Daemon(home)
            prompter = Prompter(self.script, daemon, simulator)
            try:
                self.console.print(f"home {self.root}: starting kis, kiwoom and writer under supervisord")
                daemon.start()
                for name, complaint in wait_until_healthy(home, 30):
                    self.console.print(f"[red]{name}: not healthy: {complaint}[/]")
                seen = self._watch(home, prompter)
                time.sleep(REST_S)
                stopping = time.monotonic()
            finally:
                for _ in daemon.stop():
                    pass
            stop_s = time.monotonic() - stopping
            for name, words in last_words(home):
                self.console.print(f"{name:<9}{words}")
            told = ground_truth.load(self.truth)
            collected = {(one.symbol.encode(), one.venue.encode()) for one in home.settings.instruments()}
            names = zip(told.trades["symbol"].tolist(), told.trades["venue"].tolist(), strict=True)
            trades = told.trades[[name in collected for name in names]]
            recovery = recover(home, DAY, trades, self.console, self.script.misled)
        books = _dataset(home, "orderbook")
        return Outcome(
            about=self.script.about,
            undone=prompter.left + [act.command for act in self._scenario()[len(told.acts) :]],
            verdict=self._verdict(home, told, books),
            broken=self.script.holds(Seen(books, _dataset(home, "event"), recovery.regained)),
            recovery=recovery,
            figures=measure(home, seen, stop_s),
        )

    def _watch(self, home: Home, prompter: Prompter) -> Status:
        """Show progress until the market has closed; the last look."""
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        clock, close_ns = home.clock(), day_time(CLOSES)
        seconds = lambda until_ns: (until_ns - clock.now_ns()) / SECOND_NS / clock.anchor.speed  # noqa: E731 real ones
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task("market", total=self.seconds)
            told = time.monotonic()
            while (left := seconds(close_ns)) > 0:
                if done := prompter.play(clock.now_ns()):
                    self.console.print(f"{korean(clock.now_ns()):%H:%M} KST  {done}")
                line = self._line(clock.now_ns(), look(home))
                progress.update(task, completed=self.seconds - left, description=line)
                if not self.console.is_terminal and time.monotonic() - told > TELL_EVERY_S:
                    told = time.monotonic()
                    self.console.print(line)
                due_ns = prompter.due_ns()
                time.sleep(max(0.0, min(seconds(close_ns), 0.5, 0.5 if due_ns is None else seconds(due_ns))))
        return look(home)

    @staticmethod
    def _line(now_ns: int, seen: Status) -> str:
        counters = {process.name: process.counters for process in seen.processes}
        count = lambda name, counter: counters.get(name, {}).get(counter, 0)  # noqa: E731 a word for a nested look-up
        sick = ", ".join(f"{p.name} {p.verdict}" for p in seen.processes if not p.healthy)
        return (
            f"{korean(now_ns):%H:%M} KST  books kis {count('kis', 'books')} kiwoom {count('kiwoom', 'books')} "
            f"merged {count('writer', 'books_new')}  ticks {count('writer', 'ticks_in')}  "
            f"hours published {count('writer', 'hours_published')}  {sick}"
        )

    def _scenario(self) -> list[Act]:
        """What the simulator was to do by itself, in order."""
        return sorted(SCENARIOS[self.script.scenario].acts) if self.script.scenario else []

    def _verdict(self, home: Home, told: ground_truth.Run, books: pd.DataFrame) -> Verdict:
        ticks, sent = _dataset(home, "tick"), told.sent
        if misled := self.script.misled:  # the other line's promises hold as if it were alone
            sent = sent[sent["line"] != LineNumber[misled.upper()]]
            books = books[books[[f"recv_time_{line}" for line in LINES.values() if line != misled]].notna().any(axis=1)]
            books, ticks = books.assign(**{f"recv_time_{misled}": pd.NaT}), ticks[ticks["broker"] != misled]
        return judge(
            told.books,
            told.trades,
            sent,
            {(c["line"], c["connection"]): c["ended_mono_ns"] for c in told.connections if c["ended_mono_ns"]},
            books,
            ticks[ticks["source"] == "live"],
            stamps=self.script.stamps,
        )


def _dataset(home: Home, stream: str) -> pd.DataFrame:
    return pd.read_parquet(home.data / "kr" / stream)


def rehearse(where: Path | None, seconds: float, seed: int, name: str, as_json: bool) -> int:
    """Play, show, tidy up; the exit status: 0 when every promise held."""
    console = wide_console(stderr=as_json)
    root = where.resolve() if where else Path(tempfile.mkdtemp(prefix="collectorctl-demo-"))
    outcome = Rehearsal(root, seconds, seed, console, SCRIPTS[name]).play()
    show(console, root, outcome, as_json)
    home = Home(root)
    passed = not outcome.complaints()
    if where is None and passed:
        shutil.rmtree((home.run / "ring").resolve(), ignore_errors=True)
        shutil.rmtree(root)
        console.print("the temporary home is removed; `collectorctl demo --home DIR` keeps it")
    elif not passed:
        console.print(f"kept for inspection: {root}")
    return 0 if passed else 1
