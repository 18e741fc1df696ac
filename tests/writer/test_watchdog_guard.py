"""The writer's eye on the watchdog: a real process that has the watchdog's lock and page, time as it is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.writer_data import ROOT, make_home

from conf.home import Home
from ringbuf import layout
from ringbuf.vitals import Vitals, read_snapshot
from writer.watchdog_guard import LOOK_INTERVAL_NS, WatchdogGuard

S = 10**9
STANDIN = """
import sys
from conf.process import run_process
from ringbuf.vitals import ProcessState, Vitals

def body(home, stop):
    vitals = Vitals.create(home.vitals_path("watchdog"), "watchdog")
    print("ready", flush=True)
    while not stop.wait(0.05):
        vitals.heartbeat()

sys.exit(run_process("watchdog", body))
"""


@pytest.fixture
def home(place: Path) -> Home:
    return make_home(place)


@pytest.fixture
def guard(home: Home) -> WatchdogGuard:
    return WatchdogGuard(home, Vitals.create(home.vitals_path("writer"), "writer"))


@pytest.fixture
def watchdog(home: Home) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", STANDIN],
        env=os.environ | {"COLLECTOR_HOME": str(home.root), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def looks(guard: WatchdogGuard, count: int, from_ns: int | None = None) -> int:
    """So many looks, five seconds apart; the time of the last."""
    now_ns = time.monotonic_ns() if from_ns is None else from_ns
    for _ in range(count):
        now_ns += LOOK_INTERVAL_NS
        guard.poll(now_ns)
    return now_ns


def test_a_watchdog_that_works_is_left_alone(home: Home, guard: WatchdogGuard, watchdog: subprocess.Popen[str]) -> None:
    """However long; and one that is not there is no matter of the writer."""
    for _ in range(30):
        guard._looked_ns = 0
        guard.poll(time.monotonic_ns())
        time.sleep(0.01)
    assert watchdog.poll() is None

    watchdog.terminate()
    assert watchdog.wait(20) == 0
    looks(guard, 30)
    assert read_snapshot(home.vitals_path("writer")).counters["orders"] == 0


def test_one_late_heartbeat_is_no_reason(guard: WatchdogGuard, watchdog: subprocess.Popen[str]) -> None:
    """A machine that stood still makes it old once: the next look finds a fresh one."""
    for _ in range(4):
        guard._looked_ns = 0
        guard.poll(time.monotonic_ns() + 100 * S)
        guard._looked_ns = 0
        guard.poll(time.monotonic_ns())

    assert watchdog.poll() is None


def test_a_hung_one_is_aborted_and_one_that_is_stopped_is_killed(
    home: Home, guard: WatchdogGuard, watchdog: subprocess.Popen[str]
) -> None:
    """SIGABRT would be heard by one that hangs in its own code; a stopped one hears SIGKILL alone."""
    watchdog.send_signal(signal.SIGSTOP)

    now_ns, orders = time.monotonic_ns(), []
    for _ in range(6):  # 5 to 30 s; the limit is 15
        now_ns = looks(guard, 1, now_ns)
        orders.append(read_snapshot(home.vitals_path("writer")).counters["orders"])

    assert orders[:3] == [0, 0, 0] and {1, 2} <= set(orders)
    assert watchdog.wait(20) in (-signal.SIGKILL, -signal.SIGABRT)


def test_one_without_a_page_is_found_by_its_lock(
    home: Home, guard: WatchdogGuard, watchdog: subprocess.Popen[str]
) -> None:
    """After start_s; not while the writer's own page is missing too, because then the directory was deleted."""
    watchdog.send_signal(signal.SIGSTOP)
    home.vitals_path("watchdog").unlink()
    own = home.vitals_path("writer")
    own.rename(own.with_suffix(".kept"))
    now_ns = looks(guard, 50)
    assert watchdog.poll() is None

    own.with_suffix(".kept").rename(own)
    now_ns = looks(guard, 8, now_ns)
    assert watchdog.poll() is None
    looks(guard, 4, now_ns)

    assert watchdog.wait(20) in (-signal.SIGKILL, -signal.SIGABRT)


def test_one_of_another_version_is_left_alone_while_its_heart_beats(
    home: Home, guard: WatchdogGuard, watchdog: subprocess.Popen[str]
) -> None:
    """An upgrade restarts one process after the other; for a while their pages differ. One that hangs is ended all the same."""
    with home.vitals_path("watchdog").open("r+b", buffering=0) as page:
        page.seek(8 * layout.VERSION)
        page.write(bytes(8))
    for _ in range(30):
        guard._looked_ns = 0
        guard.poll(time.monotonic_ns())
    assert watchdog.poll() is None

    watchdog.send_signal(signal.SIGSTOP)
    looks(guard, 6)

    assert watchdog.wait(20) in (-signal.SIGKILL, -signal.SIGABRT)


def test_a_page_that_is_no_page_is_as_good_as_none(
    home: Home, guard: WatchdogGuard, watchdog: subprocess.Popen[str]
) -> None:
    """Of another process, cut off: the lock tells who it is."""
    watchdog.send_signal(signal.SIGSTOP)
    home.vitals_path("watchdog").write_bytes(b"")

    looks(guard, 14)

    assert watchdog.wait(20) in (-signal.SIGKILL, -signal.SIGABRT)
