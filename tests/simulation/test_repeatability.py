"""A seed's run is a function of the seed: nothing of the process, the machine and its load shows in what is done."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import Event, Thread
from types import FrameType
from typing import Any

import pytest
from simulation import world
from simulation.plan import SECOND_NS, Fault, Plan, draw_plan
from simulation.replay import Result, run
from simulation.virtual_time import PRODUCT

from conf.files import lock
from writer import durable_io

ROOT = Path(__file__).parents[2]
LONGEST_PID = 4_194_303
REAL = {
    *(
        getattr(time, name)
        for name in ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")
    ),
    *(getattr(time, name) for name in ("sleep", "localtime", "gmtime", "clock_gettime", "process_time", "thread_time")),
    os.getpid,
    os.urandom,
    os.getrandom,
    os.kill,
}


def busy_plan() -> Plan:
    """Seconds around one edge in which every process dies and comes again, and the machine does."""
    plan = draw_plan(3)
    segment = plan.segments[0]
    at = (
        ("kill", "kis"),
        ("kill torn", "kiwoom"),
        ("kill", "us"),
        ("kill after", "writer"),
        ("unlink", "machine"),
        ("power", "machine"),
    )
    faults = tuple(
        Fault(segment.begin_ns + (3 * number + 2) * SECOND_NS // 2, kind, target, 1.0)
        for number, (kind, target) in enumerate(at)
    )
    return plan._replace(segments=(segment,), faults=faults, us=draw_plan(1).us)


@cache
def undisturbed() -> Result:
    """That run, with nothing beside it."""
    return run(busy_plan())


def first_difference(one: Result, other: Result) -> tuple[str, str] | None:
    """The first lines of two runs that differ."""
    pairs = zip([*one.history, "the end"], [*other.history, "the end"], strict=False)
    return next((pair for pair in pairs if pair[0] != pair[1]), None)


def with_another_process_number(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A suite counts on to numbers of more digits."""
    monkeypatch.setattr(os, "getpid", lambda: LONGEST_PID)


def with_delays_at_every_seam(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A loaded machine takes the processor away wherever something is done."""
    note = world.World.note

    def delayed(self: world.World, text: str) -> None:
        time.sleep(random.choice((0.0, 0.0, 0.001, 0.006)))
        note(self, text)

    monkeypatch.setattr(world.World, "note", delayed)


def with_the_home_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another path, longer, on another file system: other inodes, free space, coarser times, order of names."""
    place = tmp_path / ("elsewhere" * 8)
    place.mkdir()
    monkeypatch.setattr(world, "_memory", lambda: str(place))


def with_another_state_of_chance(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What earlier tests drew."""
    random.seed()


CIRCUMSTANCES = (
    with_another_process_number,
    with_delays_at_every_seam,
    with_the_home_elsewhere,
    with_another_state_of_chance,
)


@pytest.mark.parametrize("circumstance", CIRCUMSTANCES, ids=lambda value: value.__name__)
def test_a_run_is_the_same(
    circumstance: Callable[[pytest.MonkeyPatch, Path], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """To the byte; of runs that differ the first line that does is named."""
    expected = undisturbed()
    circumstance(monkeypatch, tmp_path)
    disturbed = run(busy_plan())

    assert first_difference(expected, disturbed) is None
    assert expected.trace == disturbed.trace


def test_a_thread_that_an_earlier_test_left_takes_no_part_in_a_run(tmp_path: Path) -> None:
    """It sleeps in real time and writes to the real disk."""
    expected, is_over, count, errors = undisturbed(), Event(), [0], []

    def work() -> None:
        try:
            while not is_over.is_set():
                lock.sleep(0.001)
                durable_io.replace(tmp_path / "file", b"content")
                count[0] += 1
        except BaseException as error:  # noqa: BLE001 the test tells it
            errors.append(error)

    thread = Thread(target=work)
    thread.start()
    try:
        disturbed = run(busy_plan())
    finally:
        is_over.set()
        thread.join()

    assert errors == []
    assert count[0] > 1
    assert first_difference(expected, disturbed) is None


def test_the_product_asks_nothing_of_the_real_world_in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """No clock, no sleep, no thread, no process number, no chance but the seed's."""
    found, play_all = set[str](), world.World.run

    def look(frame: FrameType, event: str, called: Any) -> None:
        if event != "c_call":
            return
        module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        is_thread = called.__name__ == "start_new_thread"
        is_now = module in PRODUCT and called.__name__ in ("now", "utcnow", "today")
        is_chance = getattr(called, "__self__", None) is random._inst  # type: ignore[attr-defined]
        is_real = module in PRODUCT and any(called is one for one in REAL)
        if is_thread or is_now or is_chance or is_real:
            found.add(f"{frame.f_code.co_filename}:{frame.f_lineno} calls {called.__name__}")

    def watched(self: world.World) -> world.Evidence:
        sys.setprofile(look)
        try:
            return play_all(self)
        finally:
            sys.setprofile(None)

    monkeypatch.setattr(world.World, "run", watched)
    assert run(busy_plan()).findings == []

    assert found == set()


def test_a_seed_plays_the_same_run_again() -> None:
    """The digest of all that was done; another seed's is another."""
    again, different = run(busy_plan()), run(busy_plan()._replace(seed=4))

    assert undisturbed().history == again.history
    assert undisturbed().trace == again.trace != different.trace


@pytest.mark.long
def test_a_seed_plays_the_same_run_in_every_process() -> None:
    """Also in a new one; of runs that differ the first line that does is named."""
    script = "from simulation.plan import draw_plan\nfrom simulation.replay import run\n"
    script += "result = run(draw_plan(3))\nprint(result.trace, *result.history, sep='\\n')"
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONHASHSEED": "17"}
    other = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    here = run(draw_plan(3))

    assert [] == [pair for pair in zip(here.history, other[1:], strict=False) if pair[0] != pair[1]][:1]
    assert here.trace == other[0]
