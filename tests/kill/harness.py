"""A home, its tree and a simulator under blows, judged afterwards by what is on disk.

    simulator (loss, conflation, hours of six seconds) ─> tree ─> data/
                                             blows ────────^        |
    truth, stops ──────────────────────────────────> oracle <───────┘

Guarantees:
    * Every injection and its instant is in the message of a failure, with the seed.
    * A stopped process is always continued or killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import msgspec
import pandas as pd
from kill.injections import COLLECTORS, PROCESSES, SUPERVISOR, TWIN_WINDOW_S, Injection
from support.process_tree import read_status, run_collectorctl, temporary_home, wait_until

from brokers.simulator import ground_truth
from collectorctl.demo.environment import SimulatorProcess, set_addresses
from collectorctl.demo.oracle import FEEDS, compare
from collectorctl.demo.result import DemoResult
from collectorctl.supervision.supervisor import SupervisorClient
from conf.home import Home
from ringbuf.vitals import VitalsError, read_snapshot
from writer.journal.reader import read_rows
from writer.journal.segment import segment_paths

SETTINGS = """
[universe]
kr = ["005930", "000660", "373220", "207940", "005380", "035420", "000270", "068270", "105560", "051910", "0074K0", "015760"]
[clock]
start = "2026-11-20T09:55:00+09:00"
speed = 600.0
[ring]
orderbook_capacity = 16384
tick_capacity = 16384
[kis]
subscribe_spacing_ms = 20
[feed]
backoff_first_s = 0.2
backoff_max_s = 1.0
max_connects_per_hour = 100000
[writer]
twin_window_s = {window_s}
grace_s = 5.5
late_every_s = 3.0
segment_max_bytes = 1048576
[watchdog]
stale_s = {stale_s}
[recover]
automatic = false
"""
DATASETS = ("orderbook", "tick")
QUIET_S = 2.5
SILENCE_NOTED_S = 0.5
HANG_TIMEOUT_S = 45.0
FORBIDDEN_LOG_TEXTS = (
    "ends by a bug",
    "were overwritten before they were read",
    "damaged at",
    "could not be published",
)
"""What no log may say after all this."""

KEEP_VARIABLE = "KILL_KEEP"
"""Environment: a directory into which the home of a failed siege is copied."""


class KillHarness:
    """One running tree and what was done to it."""

    def __init__(self, root: Path, simulator: SimulatorProcess, seed: int) -> None:
        self.root = root
        self.home = Home(root)
        self.simulator = simulator
        self.seed = seed
        self.history: list[str] = []
        self.kills: Counter[str] = Counter()
        self.signals: Counter[str] = Counter()
        self.stopped_ns: dict[int, list[tuple[int, int]]] = {number: [] for number in FEEDS}
        self._supervisor = SupervisorClient(self.home)
        self._random = Random(seed)
        self._began_ns = time.monotonic_ns()
        self._hung_process: tuple[str, int, int] | None = None

    def inject(self, injection: Injection) -> None:
        """Wait as long as the blow says, then do it."""
        time.sleep(injection.delay_s)
        if self._hung_process and {self._hung_process[0], SUPERVISOR, "watchdog"} & set(injection.targets):
            self.end_hang()  # the watchdog is at work: neither it nor its patient is disturbed
        match injection.kind:
            case "kill":
                for name, pid in [(name, self._pid(name)) for name in injection.targets]:
                    self._signal(signal.SIGKILL, name, pid)
            case "kill publishing":
                self._wait_for_publishing(injection.duration_s / 20)
                self._signal(signal.SIGKILL, "writer", self._pid("writer"))
            case "kill stopped":
                self._stop(injection.targets[0], injection.duration_s, signal.SIGKILL)
            case "pause":
                self.pause(injection.targets[0], injection.duration_s)
            case "terminate" if injection.targets == (SUPERVISOR,):
                pid = self._pid(SUPERVISOR)
                self._signal(signal.SIGTERM, SUPERVISOR, pid)
                wait_until("supervisord has ended", lambda: not Path(f"/proc/{pid}").exists(), 60)
                self._start()
            case "terminate":
                self._signal(signal.SIGTERM, injection.targets[0], self._pid(injection.targets[0]))
            case "hang":
                self.end_hang()
                self._hang(injection.targets[0])
            case "behead":
                self._signal(signal.SIGKILL, SUPERVISOR, self._pid(SUPERVISOR))
                time.sleep(injection.duration_s / 2)
                self._start()

    def _pid(self, name: str) -> int:
        """A process of that name, once there is one."""
        if name == SUPERVISOR:
            return wait_until("supervisord answers", self._supervisor.find_pid)
        return wait_until(
            f"{name} has a process",
            lambda: next((p.pid for p in self._supervisor.list_programs() if p.name == name), 0),
            60,
        )

    def _signal(self, number: signal.Signals, name: str, pid: int) -> bool:
        """Send it; whether the process was still there."""
        self._note(f"{number.name} {name} {pid}")
        if number in (signal.SIGKILL, signal.SIGTERM):
            for collector in COLLECTORS if name == SUPERVISOR else {name} & set(COLLECTORS):
                self._record_silence(collector)
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        self.signals[number.name] += 1
        if number == signal.SIGKILL:
            self.kills[name] += 1
        return True

    def pause(self, name: str, seconds: float) -> None:
        """Stop a process for so long."""
        self._stop(name, seconds, signal.SIGCONT)

    def _stop(self, name: str, seconds: float, then: signal.Signals) -> None:
        pid, begin_ns = self._pid(name), time.monotonic_ns()
        if self._signal(signal.SIGSTOP, name, pid):
            time.sleep(seconds)
            self._signal(then, name, pid)
        self._record_stop(name, begin_ns)

    def _record_stop(self, name: str, begin_ns: int) -> None:
        if name in COLLECTORS:
            number = next(number for number, feed in FEEDS.items() if feed == name)
            self.stopped_ns[number].append((begin_ns, time.monotonic_ns()))

    def _record_silence(self, name: str) -> None:
        """A machine short of CPU or memory stops a process as a signal does: since its last heartbeat it has read nothing."""
        with suppress(FileNotFoundError, VitalsError):
            beat_ns = read_snapshot(self.home.vitals_path(name)).heartbeat_mono_ns
            self._record_stop(name, beat_ns)
            if (silent_s := (time.monotonic_ns() - beat_ns) / 1e9) > SILENCE_NOTED_S:
                self._note(f"{name}: no heartbeat for {silent_s:.1f} s")

    def _hang(self, name: str) -> None:
        self.wait_until_healthy(name)  # a process that has just begun is allowed more time
        pid, begin_ns = self._pid(name), time.monotonic_ns()
        if self._signal(signal.SIGSTOP, name, pid):
            self._hung_process = (name, pid, begin_ns)

    def end_hang(self) -> None:
        """Wait until the watchdog has killed what hangs."""
        if self._hung_process is None:
            return
        (name, pid, begin_ns), self._hung_process = self._hung_process, None
        wait_until(f"the watchdog has killed {name}", lambda: self._pid(name) != pid, HANG_TIMEOUT_S)
        self._record_stop(name, begin_ns)
        self._note(f"the watchdog killed {name} {pid}")
        self.kills[f"{name} (by the watchdog)"] += 1

    def _wait_for_publishing(self, then_s: float) -> None:
        """Until the writer publishes an hour, and a moment longer."""

        def publishing() -> bool:
            try:
                return read_snapshot(self.home.vitals_path("writer")).state == "publishing"
            except (FileNotFoundError, VitalsError):
                return False

        deadline = time.monotonic() + 20
        while not publishing() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(then_s)

    def _start(self) -> None:
        """As a user does; every other time without waiting for health, so that the next blow hits a tree that rises."""
        wait_s = self._random.choice(("0", "60"))
        self._note(f"collectorctl start --wait {wait_s}")
        completed = run_collectorctl(self.root, "start", "--wait", wait_s, check=wait_s != "0")
        assert completed.stdout.startswith("started"), completed.stdout + completed.stderr

    def wait_until_healthy(self, *names: str) -> None:
        """Until these processes (default: all) are healthy."""
        expected = names or PROCESSES

        def healthy() -> bool:
            processes = read_status(self.root)["processes"]
            return all(processes[name]["healthy"] for name in expected)

        wait_until(f"{', '.join(expected)} are healthy", healthy, 90)

    def stop_and_compare(self) -> DemoResult:
        """Let the tree come to itself, stop it, judge."""
        self.end_hang()
        self.wait_until_healthy()
        time.sleep(1.0)
        for feed in FEEDS.values():
            self.simulator.send_command(f"{feed} quiet 3600")
        time.sleep(QUIET_S)
        output = run_collectorctl(self.root, "stop").stdout
        assert "drained to zero" in output, output
        self.simulator.close()
        truth = ground_truth.load(self.root / "truth")
        return compare(
            truth.books,
            truth.trades,
            truth.deliveries,
            {(c["line"], c["connection"]): c["ended_mono_ns"] for c in truth.connections if c["ended_mono_ns"]},
            self.read_dataset("orderbook"),
            self.read_dataset("tick"),
            self.stopped_ns,
        )

    def read_dataset(self, dataset: str) -> pd.DataFrame:
        """A whole dataset, as a user reads it."""
        return pd.read_parquet(self.home.data / "kr" / dataset)

    def find_leftovers(self) -> list[str]:
        """In words whatever a stopped tree must not leave: rows in a journal, half files, unreadable files, bad words in logs."""
        found = []
        for dataset in DATASETS:
            journal = self.home.journal_directory(f"kr.{dataset}")
            found += [f"{journal}: {batch.num_rows} rows" for batch in read_rows(journal)]
            if len(segment_paths(journal)) != 1:
                found.append(
                    f"{journal}: {[path.name for path in segment_paths(journal)]}, one empty segment was expected"
                )
        for path in sorted(self.home.data.rglob("*")):
            if path.suffix == ".parquet":
                try:
                    pd.read_parquet(path)
                except (OSError, ValueError) as error:
                    found.append(f"{path}: {error}")
            elif path.suffix in (".tmp", ".damaged"):
                found.append(f"{path} was left")
        for path in sorted(self.home.log.glob("*.log*")):
            lines = path.read_text(errors="replace").splitlines()
            for at, line in enumerate(lines):
                if any(text in line for text in FORBIDDEN_LOG_TEXTS):
                    found.append("\n".join([f"{path.name}: {line}", *lines[at + 1 : at + 40]]))
        return found

    def _note(self, text: str) -> None:
        self.history.append(f"{(time.monotonic_ns() - self._began_ns) / 1e9:8.3f}  {text}")

    def report(self, result: DemoResult) -> str:
        """What was done and what came of it, one line each."""
        counts = [f"{sum(self.kills.values())} SIGKILLs: {dict(self.kills)}; signals sent: {dict(self.signals)}"]
        for name in DATASETS:
            account = result.books if name == "orderbook" else result.ticks
            in_flight = {line: side.in_flight for line, side in account.feeds.items()}
            counts.append(
                f"{name}: {account.available} available, {account.stored} stored, {account.missed} missed, "
                f"{account.doubled} doubled ({account.missed_unexplained} and {account.doubled_unexplained} outright), "
                f"{account.wrong} wrong; in flight {in_flight}"
            )
        parts = sorted(self.home.data.glob("kr/*/date=*/hour=*/part-*.parquet"))
        counts.append(f"{len(parts)} files in {len({path.parent for path in parts})} hours")
        return "\n".join([f"seed {self.seed}", *counts])


@contextmanager
def kill_harness(
    seed: int, *options: str, window_s: float = TWIN_WINDOW_S, stale_s: float = 3.0
) -> Iterator[KillHarness]:
    """A healthy tree, ready to be beaten; the home of a failure is copied to KILL_KEEP if that is set.

    `options`: more of the simulator's; `window_s`: of twins; `stale_s`: from which age of its heartbeat a process hangs.
    """
    with (
        temporary_home(SETTINGS.format(window_s=window_s, stale_s=stale_s)) as root,
        SimulatorProcess(
            root,
            root / "truth",
            "--seed",
            str(seed),
            "--always-open",
            "--kis-slot-release-s",
            "0",
            "--kis-loss",
            "0.005",
            *options,
        ) as simulator,
    ):
        set_addresses(root, simulator.addresses)
        run_collectorctl(root, "start")
        try:
            yield (harness := KillHarness(root, simulator, seed))
        except BaseException:
            if keep := os.environ.get(KEEP_VARIABLE):
                shutil.copytree(root, Path(keep) / root.name, ignore=shutil.ignore_patterns("ring", "*.sock"))
                (Path(keep) / root.name / "history").write_text("\n".join(harness.history))
                (Path(keep) / root.name / "stopped.json").write_bytes(
                    msgspec.json.encode({str(feed): spans for feed, spans in harness.stopped_ns.items()})
                )
            raise
