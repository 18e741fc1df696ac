"""Writer, recover and reprocess at one hour: real processes, each stopped in the middle of its publication, continued or killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.day_fixture import DAY, FinishedDay, a_finished_day, lose_between, to_tick_records
from support.process_tree import wait_until

from brokers.feed.quarantine import Quarantine
from collectorctl.recover.store.day_ticks import find_unpublished_hours
from conf.clock import SECOND_NS, to_kst
from conf.home import Home
from ringbuf.records import TICK
from ringbuf.ring import Producer
from ringbuf.vitals import VitalsSnapshot, read_snapshot

SYMBOL = "005930"
HURRY = """
[ring]
orderbook_capacity = 4096
tick_capacity = 4096
[writer]
twin_window_s = 0.2
grace_s = 0.4
late_every_s = 1
fsync_every_s = 0.1
"""
STOPPED_AT = """
import sys, time
from pathlib import Path
from writer import durable_io
real = durable_io.{function}
def waiting(*given):
    if {within!r} in str(given[-1]):
        Path({reached!r}).touch()
        while not Path({go!r}).exists():
            time.sleep(0.005)
    return real(*given)
durable_io.{function} = waiting
"""
"""A process that waits at an effect on the disk until it may go on."""
COMMAND = """
from collectorctl.recover import job
from collectorctl.reprocess import job as other_job
other_job.LOCK_TIMEOUT_S = {timeout_s}
from collectorctl.cli import main
main({arguments!r})
"""
WRITER = """
from writer.publish import coordinator
coordinator.RETRY_S = 4.0
from conf.process import run_process
from writer.service import main
sys.exit(run_process("writer", main))
"""


class Child:
    """A process of the home that can be stopped at a point; `wait_there`, `go_on`, `kill`."""

    def __init__(self, root: Path, name: str, program: str, function: str = "", within: str = "") -> None:
        self.reached, self.go = (root / f"{name}.{word}" for word in ("reached", "go"))
        script = "import sys\n"
        if function:
            script = STOPPED_AT.format(function=function, within=within, reached=str(self.reached), go=str(self.go))
        env = os.environ | {"COLLECTOR_HOME": str(root)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", script + program], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def wait_there(self) -> None:
        """Until it is where it stops."""

        def is_there() -> bool:
            assert self.process.poll() is None, self.process.communicate()
            return self.reached.exists()

        wait_until("it stops at the point", is_there, 60)

    def go_on(self) -> None:
        """Let it go on."""
        self.go.touch()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        assert self.process.wait(10) == -signal.SIGKILL

    def finish(self) -> tuple[int, str]:
        """Let it go on to its end; exit status and what it printed."""
        self.go_on()
        output = "".join(self.process.communicate(timeout=90))
        return self.process.returncode, output


class Stage:
    """A finished day of one instrument of which an hour and a half is missing, and its children."""

    def __init__(self, day: FinishedDay) -> None:
        self.day, self.home, self.children = day, Home(day.root), list[Child]()
        self.lost = lose_between("10:00", "11:30")(day.true_trades(SYMBOL))
        self.missing = day.true_trades(SYMBOL)[self.lost]

    def start(self, name: str, program: str, function: str = "", within: str = "") -> Child:
        """A child."""
        self.children.append(Child(self.day.root, f"{name}{len(self.children)}", program, function, within))
        return self.children[-1]

    def recover(self, function: str = "", within: str = "") -> Child:
        """`collectorctl recover`."""
        return self._command("recover", 10.0, function, within)

    def reprocess(self, function: str = "", within: str = "", timeout_s: float = 10.0) -> Child:
        """`collectorctl reprocess`."""
        return self._command("reprocess", timeout_s, function, within)

    def _command(self, name: str, timeout_s: float, function: str, within: str) -> Child:
        arguments = ["--home", str(self.day.root), name, "--date", DAY]
        return self.start(name, COMMAND.format(arguments=arguments, timeout_s=timeout_s), function, within)

    def writer(self, function: str = "", within: str = "") -> Child:
        """The writer process."""
        return self.start("writer", WRITER, function, within)

    def deliver(self, trades: np.ndarray) -> None:
        """Hand trades to the writer, as KIS's collector does."""
        ticks = to_tick_records(trades)
        ring = Producer.open(self.home.ring_path("kis", "tick"), TICK, 4096)
        ticks["mono_ns"] = time.monotonic_ns()
        ring.publish(ticks)
        ring.close()

    def quarantine(self, trades: np.ndarray) -> None:
        """Put frames of trades aside, as KIS's collector does with those that it cannot decode."""
        store = Quarantine(self.home.quarantine_directory(), "kis", 1 << 22)
        for nth, trade in enumerate(trades):
            fields = ["0"] * 47
            fields[:3] = [SYMBOL, f"{to_kst(int(trade['exch_s']) * SECOND_NS):%H%M%S}", str(trade["price"])]
            fields[12:15] = [str(trade[name]) for name in ("size", "cum_volume", "cum_value")]
            text = f"0|H0STCNT0|001|{'^'.join(fields)}".encode()
            assert store.append(text, "r", int(trade["exch_s"]) * SECOND_NS + nth, nth) == ""

    def read_vitals(self, child: Child) -> VitalsSnapshot | None:
        """The vitals page of a writer."""
        try:
            found = read_snapshot(self.home.vitals_path("writer"))
        except FileNotFoundError:
            return None
        return found if found.pid == child.process.pid else None

    def wait_for_detail(self, writer: Child, words: str) -> VitalsSnapshot:
        """Until the writer says so."""

        def said() -> VitalsSnapshot | None:
            found = self.read_vitals(writer)
            return found if found is not None and words in found.detail else None

        return wait_until(f"the writer says {words!r}", said, 60)

    def stop(self, writer: Child) -> None:
        """Stop a writer in order: it drains and publishes."""
        wait_until("it runs", lambda: (found := self.read_vitals(writer)) and found.state != "starting", 60)
        writer.process.terminate()
        code, output = writer.finish()
        assert code == 0, output

    def stored(self) -> pd.DataFrame:
        """What is stored, in the order of the volume."""
        return self.day.load_stored(SYMBOL).sort_values("cum_volume")

    def assert_every_share_once(self) -> None:
        """The truth, each trade in one row; no lock and no temporary file is left."""
        stored, trades = self.stored(), self.day.true_trades(SYMBOL)
        assert trades["cum_volume"].tolist() == stored.cum_volume.tolist()
        assert trades["size"].tolist() == stored["size"].tolist()
        assert [] == [*(self.home.data / "kr").rglob("*.tmp"), *(self.home.run / "publish").glob("*")]


@pytest.fixture(scope="module")
def the_day() -> Iterator[FinishedDay]:
    """A day, over; its simulator goes on answering."""
    with a_finished_day(trades="800", names=[SYMBOL]) as day:
        with (day.root / "collector.toml").open("a") as settings:
            settings.write(HURRY)
        yield day


@pytest.fixture
def stage(the_day: FinishedDay) -> Iterator[Stage]:
    """The same day, stored but for what was lost."""
    the_day.clear_data()
    for path in [*the_day.root.glob("*.reached"), *the_day.root.glob("*.go")]:
        path.unlink()
    found = Stage(the_day)
    found.home.create_directories()
    for ring in (found.home.run / "ring").glob("*.ring"):
        ring.unlink()
    the_day.publish_live(lambda trades: lose_between("10:00", "11:30")(trades), [SYMBOL])
    yield found
    for child in found.children:
        child.process.kill()
        child.process.communicate()


TICKS = "kr/tick/"
"""Of the partitions of ticks."""


def test_a_writer_beside_a_recovery_in_the_middle_of_an_hour_waits_says_so_and_doubles_nothing(stage: Stage) -> None:
    """The hour has no file yet when recover makes it and the writer has rows of it: neither replaces the other's."""
    recover = stage.recover("open_temporary", TICKS)
    recover.wait_there()
    writer = stage.writer()
    stage.deliver(stage.missing)

    vitals = stage.wait_for_detail(writer, f"recover, process {recover.process.pid} changes files of that date")
    assert "is postponed" in vitals.detail
    beat = vitals.heartbeat_mono_ns
    wait_until("its heart goes on", lambda: (found := stage.read_vitals(writer)) and found.heartbeat_mono_ns > beat)
    assert recover.finish()[0] == 0
    wait_until("it has published", lambda: _is_published(stage, "part-1.parquet"), 60)
    stage.stop(writer)

    stage.assert_every_share_once()


def _is_published(stage: Stage, name: str) -> bool:
    return any((stage.home.data / TICKS).rglob(name))


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_recovery_beside_a_writer_in_the_middle_of_an_hour_changes_nothing_and_says_why(
    stage: Stage, is_killed: bool
) -> None:
    """Also when the writer is killed there: its lock ends with it. The next recovery proves the day."""
    recover = stage.recover("rename", "evidence.json")
    recover.wait_there()
    writer = stage.writer("link_new", TICKS)
    stage.deliver(stage.missing[::2])
    writer.wait_there()
    recover.go_on()
    if is_killed:
        writer.kill()
    else:
        writer.go_on()
    code, output = recover.finish()

    assert code == 1
    assert "recover again" in " ".join(output.split())
    assert stage.stored().source.eq("live").all()
    if is_killed:
        writer = stage.writer()
    stage.stop(writer)
    code, output = stage.recover().finish()
    assert code == 0, output
    stage.assert_every_share_once()
    assert stage.stored().source.value_counts()["recovered"] == len(stage.missing) - len(stage.missing[::2])


def test_reprocess_beside_a_recovery_in_the_middle_of_an_hour_refuses_in_words_and_later_doubles_nothing(
    stage: Stage,
) -> None:
    """The frames of the very trades that are being recovered were put aside."""
    stage.quarantine(stage.missing[:40])
    recover = stage.recover("open_temporary", TICKS)
    recover.wait_there()
    code, output = stage.reprocess(timeout_s=0.2).finish()

    assert code == 75
    assert f"recover, process {recover.process.pid} changes files of that date" in output
    assert recover.finish()[0] == 0
    code, output = stage.reprocess().finish()
    assert (code, True) == (0, "40 ticks whose shares are stored already" in output), output
    stage.assert_every_share_once()


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_recovery_beside_reprocess_in_the_middle_of_an_hour_waits_and_doubles_nothing(
    stage: Stage, is_killed: bool
) -> None:
    """Reprocess has committed its rows, not placed them. Killed, it locks nobody out; its next run drops what was recovered."""
    stage.quarantine(stage.missing[:40])
    reprocess = stage.reprocess("link_new", TICKS)
    reprocess.wait_there()
    recover = stage.recover("rename", "evidence.json")
    recover.wait_there()
    recover.go_on()
    if is_killed:
        reprocess.kill()
        code, output = recover.finish()
        assert code == 0, output
        code, output = stage.reprocess().finish()
        assert code == 0, output
        assert stage.stored().source.value_counts()["recovered"] == len(stage.missing)
    else:
        assert reprocess.finish()[0] == 0
        code, output = recover.finish()
        assert (code, True) == (1, "recover again" in " ".join(output.split())), output
        code, output = stage.recover().finish()
        assert code == 0, output
    stage.assert_every_share_once()


@contextmanager
def _the_next_day(stage: Stage) -> Iterator[None]:
    """The home's clock stands on the day after, so that reprocess works beside a writer."""
    file = stage.day.root / "collector.toml"
    text, anchor = file.read_text(), stage.home.run / "clock.json"
    file.write_text(text.replace(f'start = "{DAY}T20:30', 'start = "2026-11-21T10:00'))
    anchor.rename(anchor.with_suffix(".kept"))
    stage.home = Home(stage.day.root)
    try:
        yield
    finally:
        file.write_text(text)
        anchor.with_suffix(".kept").rename(anchor)


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_writer_beside_reprocess_in_the_middle_of_an_hour_waits_and_doubles_nothing(
    stage: Stage, is_killed: bool
) -> None:
    """The same trades come late by a ring and out of the quarantine. A killed reprocess does not hold the writer up."""
    with _the_next_day(stage):
        stage.quarantine(stage.missing)
        reprocess = stage.reprocess("link_new", TICKS)
        reprocess.wait_there()
        writer = stage.writer()
        stage.deliver(stage.missing)
        stage.wait_for_detail(writer, f"reprocess, process {reprocess.process.pid} changes files of that date")
        if is_killed:
            reprocess.kill()
        else:
            code, output = reprocess.finish()
            assert code == 0, output
        wait_until("it has published", lambda: _is_published(stage, "part-0.parquet") and not _journalled(stage), 60)
        code, output = stage.reprocess().finish()
        assert code == 0, output
        stage.stop(writer)

        stage.assert_every_share_once()


def _journalled(stage: Stage) -> bool:
    return bool(find_unpublished_hours(stage.home, date.fromisoformat(DAY)))
