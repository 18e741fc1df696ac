"""Disk, shared memory, descriptors and time run out: who says so, who goes on by himself, and that no row is missing or doubled."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from support.process_tree import read_status, run_collectorctl, temporary_home, wait_until
from support.small_disk import RingFeeder, fill_disk, find_problems, remount, small_disk
from support.writer_data import (
    ROOT,
    find_parts,
    make_home,
    read_counter,
    read_running_vitals,
    read_vitals,
    start_writer,
    started_writers,
    stop_writer,
    wait_for,
)

from collectorctl.demo.environment import SimulatorProcess, set_addresses
from conf import clock
from conf.home import Home
from conf.loader import load_settings
from ringbuf.records import Flag
from ringbuf.vitals import VitalsSnapshot, read_snapshot
from writer.journal.reader import read_rows

UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
PATIENT = {"grace_s": 1000.0, "late_every_s": 1000.0}
"""Hours are published by the stop alone."""

TREE = """
[universe]
kr = ["005930", "000660", "0074K0"]
[kis]
subscribe_spacing_ms = 20
cut_wait_s = 0.0
[feed]
backoff_first_s = 0.2
backoff_max_s = 0.5
[disk]
min_free_bytes = 0
"""
WARPED = '[clock]\nstart = "2026-11-20T10:00:00+09:00"\n'


def pids(root: Path) -> dict[str, int]:
    """The processes' ids by name."""
    return {name: process["pid"] for name, process in read_status(root)["processes"].items()}


def process_of(root: Path, name: str) -> dict[str, Any]:
    """One process as status shows it."""
    return read_status(root)["processes"][name]


def count_of(root: Path, name: str, counter: str) -> int:
    """One of a process's counters, out of its page."""
    return read_snapshot(root / "run" / "ring" / f"{name}.vitals").counters[counter]


def test_a_full_disk_pauses_the_writer_through_its_death_and_space_resumes_it(place: Path) -> None:
    """Not one byte left: paused and said so, before and after a SIGKILL; with room it resumes, all stored once."""
    with small_disk(place / "data", 16) as disk:
        home = make_home(place, **PATIENT)
        process, feed = start_writer(home), RingFeeder(home)
        feed.publish(500)
        wait_for(lambda: read_counter(home, "journal_rows") == feed.records)
        ballast = fill_disk(disk)
        feed.publish(3000)
        wait_for(lambda: read_vitals(home).state == "paused")
        assert "No space left" in read_vitals(home).detail and "writing resumes by itself" in read_vitals(home).detail
        process.kill()
        process.wait()
        process = start_writer(home)
        wait_for(lambda: (found := read_running_vitals(home, process)) and found.state == "paused")
        feed.publish(3000)
        time.sleep(0.5)
        assert read_vitals(home).state == "paused" and process.poll() is None

        ballast.unlink()

        wait_for(lambda: read_vitals(home).state == "running" and read_vitals(home).counters["backlog_records"] == 0)
        feed.close()
        assert stop_writer(process) == 0
        feed.assert_stored_once(home)
        assert read_counter(home, "lost_records") == 0


def test_a_read_only_disk_is_waited_out(place: Path) -> None:
    """Read-only from the start: paused in words; writable again: everything that came meanwhile is stored once."""
    with small_disk(place / "data", 16) as disk:
        home = make_home(place, **PATIENT)
        remount(disk, "ro")
        process, feed = start_writer(home), RingFeeder(home)
        feed.publish(1000)
        wait_for(lambda: (found := read_running_vitals(home, process)) and found.state == "paused")
        assert "Read-only file system" in read_vitals(home).detail

        remount(disk, "rw")

        wait_for(lambda: read_vitals(home).state == "running")
        feed.close()
        assert stop_writer(process) == 0
        feed.assert_stored_once(home)


def test_an_hour_that_finds_no_room_stays_in_the_journal(place: Path) -> None:
    """The place of the files is read-only, the journal's is not: collecting goes on, the trouble is said, nothing is let go of."""
    with small_disk(place / "data" / "kr", 8) as disk:
        home = make_home(place)
        remount(disk, "ro")
        process, feed = start_writer(home), RingFeeder(home)
        feed.publish(1000)
        wait_for(lambda: (found := read_running_vitals(home, process)) and "could not be published" in found.detail)
        feed.publish(1000)
        wait_for(lambda: read_counter(home, "journal_rows") == feed.records)
        assert read_vitals(home).state in ("running", "publishing") and read_counter(home, "pauses") == 0

        remount(disk, "rw")

        feed.close()
        assert stop_writer(process) == 0
        feed.assert_stored_once(home)
        assert [
            batch for name in ("kr.orderbook", "kr.tick") for batch in read_rows(home.journal_directory(name))
        ] == []


def test_a_stop_on_a_full_disk_hands_over_and_the_next_life_publishes(place: Path) -> None:
    """Files cannot grow when the stop comes: exit 0, said in words, all of it published once by the next life."""
    home = make_home(place, **PATIENT)
    process, feed = start_writer(home), RingFeeder(home)
    feed.publish(1000)
    wait_for(lambda: read_counter(home, "journal_rows") == feed.records)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    feed.close()

    assert stop_writer(process) == 0

    assert (
        read_vitals(home).state == "stopped"
        and "for the next start" in read_vitals(home).detail
        and find_parts(home) == []
    )
    process = start_writer(home)
    wait_for(lambda: read_running_vitals(home, process))
    assert stop_writer(process) == 0
    feed.assert_stored_once(home)


def test_a_writer_without_descriptors_pauses_and_goes_on(place: Path) -> None:
    """No file can be opened when the journal needs its next segment: paused in words, then all stored once."""
    home = make_home(place, segment_max_bytes=1_048_576, **PATIENT)
    process, feed = start_writer(home), RingFeeder(home)
    feed.publish(500)
    wait_for(lambda: read_counter(home, "journal_rows") == feed.records)
    limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for _ in range(10):
        feed.publish(500)
        time.sleep(0.05)
    wait_for(lambda: read_vitals(home).state == "paused")
    assert "Too many open files" in read_vitals(home).detail

    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)

    wait_for(lambda: read_vitals(home).state == "running")
    feed.close()
    assert stop_writer(process) == 0
    feed.assert_stored_once(home)


def test_a_collector_without_room_for_its_rings_says_so_and_waits(place: Path) -> None:
    """A ring is reserved whole or not at all, so nothing can end in SIGBUS; with room the collector writing resumes by itself.

    There is room for the ring of books (31 MB), none for that of ticks (88 MB).
    """
    home = make_home(place)
    settings = (place / "collector.toml").read_text().replace("tick_capacity = 65536", "tick_capacity = 524288")
    (place / "collector.toml").write_text(
        settings + '[kis]\nws_url = "ws://127.0.0.1:9"\nrest_url = "http://127.0.0.1:9"\n'
    )
    environment = os.environ | {"COLLECTOR_HOME": str(place), "PYTHONPATH": str(ROOT)}
    environment |= {"KIS_APP_KEY": "k", "KIS_APP_SECRET": "s"}
    process = subprocess.Popen(
        [sys.executable, "-m", "brokers", "kis"],
        env=environment,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 26, resource.RLIM_INFINITY)),
    )
    started_writers.append(process)

    def kis() -> VitalsSnapshot | None:
        try:
            return read_snapshot(home.vitals_path("kis"))
        except FileNotFoundError:
            return None

    wait_for(lambda: (found := kis()) and found.state == "waiting")
    assert "kis.tick.ring" in kis().detail and "room" in kis().detail
    beat = kis().heartbeat_mono_ns
    wait_for(lambda: kis().heartbeat_mono_ns > beat)

    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, UNLIMITED)

    wait_for(lambda: kis().state == "retrying")  # no vendor is there, but the rings are
    assert stop_writer(process) == 0


def test_a_collector_killed_on_a_full_disk_with_its_rings_under_run_comes_up_again(place: Path) -> None:
    """Rings, vitals page and locks are there already and need no room; the holiday table, which is gone, is done without."""
    with small_disk(place / "run", 4) as disk:
        disk.chmod(0o700)
        make_home(place)
        settings = (place / "collector.toml").read_text().replace("65536", "2048")
        (place / "collector.toml").write_text(
            settings + '[kis]\nws_url = "ws://127.0.0.1:9"\nrest_url = "http://127.0.0.1:9"\n'
        )
        home = Home(place)
        environment = os.environ | {"COLLECTOR_HOME": str(place), "PYTHONPATH": str(ROOT)}
        environment |= {"KIS_APP_KEY": "k", "KIS_APP_SECRET": "s"}

        def start() -> subprocess.Popen[bytes]:
            process = subprocess.Popen([sys.executable, "-m", "brokers", "kis"], env=environment)
            started_writers.append(process)
            return process

        def state(process: subprocess.Popen[bytes]) -> str:
            assert process.poll() is None, "it ended"
            try:
                found = read_snapshot(home.vitals_path("kis"))
            except FileNotFoundError:
                return ""
            return found.state if found.pid == process.pid else ""

        process = start()
        wait_for(lambda: state(process) == "retrying")  # no vendor is there, but the rings are
        (disk / "calendar.json").unlink()
        ballast = fill_disk(disk)
        process.kill()
        process.wait()

        process = start()
        wait_for(lambda: state(process) == "retrying")
        assert stop_writer(process) == 0

        home.ring_path("kis", "tick").unlink()
        with ballast.open("ab", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(4096))
        process = start()
        wait_for(lambda: state(process) == "waiting")
        assert "kis.tick.ring" in read_snapshot(home.vitals_path("kis")).detail
        ballast.unlink()
        wait_for(lambda: state(process) == "retrying")
        assert stop_writer(process) == 0
        assert (disk / "calendar.json").exists()


def test_without_room_even_for_a_vitals_page_the_last_words_name_it(place: Path) -> None:
    """Exit 1 with the file and the reason; never SIGBUS."""
    make_home(place)
    ran = subprocess.run(
        [sys.executable, "-m", "writer"],
        env=os.environ | {"COLLECTOR_HOME": str(place), "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY)),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert ran.returncode == 1
    assert "writer.vitals" in ran.stderr.splitlines()[-1]


def test_a_full_disk_keeps_no_process_from_starting(place: Path) -> None:
    """No byte can be written: neither a log line nor the number in the lock; the process runs and ends all the same."""
    make_home(place)
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from conf.process import run_process; sys.exit(run_process('kis', lambda home, stop: None))",
        ],
        env=os.environ | {"COLLECTOR_HOME": str(place), "PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY)),
        stderr=subprocess.DEVNULL,
        check=False,
        timeout=30,
    )

    assert ran.returncode == 0


RINGS_ON_DISK = '[paths]\nring = "run/rings"\n[ring]\norderbook_capacity = 8192\ntick_capacity = 8192\n'


@pytest.mark.parametrize(
    ("rings", "disk_mb"),
    [
        pytest.param("", 12, id="shared memory"),
        pytest.param(RINGS_ON_DISK, 60, id="rings on disk", marks=pytest.mark.long),
    ],
)
def test_the_tree_lives_through_a_full_disk_and_the_lack_of_descriptors(rings: str, disk_mb: int) -> None:
    """The whole home full, rings included or not: every process killed comes back and collects, also without its holiday table.

    Then no descriptors: reconnecting waits in words. Afterwards each delivery is stored once.
    """
    with (
        temporary_home(TREE + WARPED + rings) as root,
        small_disk(root / "disk", disk_mb) as disk,
        ExitStack() as stack,
    ):
        for name in ("data", "run", "log"):
            (disk / name).mkdir(mode=0o700)
            (root / name).rmdir()
            (root / name).symlink_to(disk / name)
        # the link to the rings goes with the disk, so they are cleared away before it
        stack.callback(lambda: shutil.rmtree((root / "run" / "ring").resolve(), ignore_errors=True))
        stack.callback(lambda: run_collectorctl(root, "stop", check=False))
        simulator = stack.enter_context(SimulatorProcess(root, root / "truth", "--books-per-s", "20"))
        set_addresses(root, simulator.addresses)
        run_collectorctl(root, "start")
        (disk / "run" / "calendar.json").unlink()
        ballast = fill_disk(disk)
        old = pids(root)
        for name in ("kis", "kiwoom", "writer", "watchdog"):
            os.kill(old[name], signal.SIGKILL)
        wait_until("writer is paused", lambda: process_of(root, "writer")["state"] == "paused")
        for name in ("kis", "kiwoom", "watchdog"):
            wait_until(f"{name} works", lambda name=name: process_of(root, name)["healthy"])
            assert process_of(root, name)["pid"] != old[name]
        said = process_of(root, "writer")
        assert "No space left" in said["verdict"] and not said["healthy"]
        ballast.unlink()
        wait_until("all is well", lambda: read_status(root)["healthy"])

        limits = {}
        for name in ("kis", "kiwoom"):
            pid = pids(root)[name]
            limits[pid] = resource.prlimit(
                pid, resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
            )
            simulator.send_command(f"{name} drop")
        for name in ("kis", "kiwoom"):
            wait_until(f"{name} retries and says why", lambda name=name: _retries(root, name, "Too many open files"))
        for pid, limit in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
        wait_until("all is well again", lambda: read_status(root)["healthy"])
        assert set(limits) < set(pids(root).values())  # nobody had to die for it

        _let_it_be_quiet(simulator)
        assert "drained to zero" in run_collectorctl(root, "stop").stdout
        simulator.close()
        assert find_problems(root, root / "truth") == []


def _retries(root: Path, name: str, why: str) -> bool:
    """Whether it waits for its next attempt, because of `why`."""
    process = process_of(root, name)
    return process["state"] == "retrying" and why in process["detail"]


def _let_it_be_quiet(simulator: SimulatorProcess) -> None:
    """No more data, so that nothing is in flight at the stop."""
    for line in ("kis", "kiwoom"):
        simulator.send_command(f"{line} quiet 3600")
    time.sleep(2.0)


STEPPING = """
import runpy, signal, sys, time, types
from conf import clock

stepped_ns = 0

def step(by_ns):
    global stepped_ns
    stepped_ns += by_ns

# only the wall clock of this process, and only for what asks conf.clock
clock.time = types.SimpleNamespace(monotonic_ns=time.monotonic_ns, time_ns=lambda: time.time_ns() + stepped_ns)
signal.signal(signal.SIGUSR1, lambda *_: step(3_600_000_000_000))
signal.signal(signal.SIGUSR2, lambda *_: step(-3_600_000_000_000))
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=False)
"""


def test_an_hours_step_of_the_wall_clock_there_and_back_loses_and_doubles_nothing() -> None:
    """+1 h, -1 h, -1 h in both collectors and the writer, while hours are published.

    Said, counted and flagged in each; every row once, in the order of reception, in the hour the exchange gave it.
    """
    hurried = "[writer]\ntwin_window_s = 0.5\ngrace_s = 1.0\nlate_every_s = 1.0\n"
    with (
        temporary_home(TREE + hurried) as root,
        SimulatorProcess(root, root / "truth", "--always-open", "--books-per-s", "30") as simulator,
    ):
        (root / "stepping.py").write_text(STEPPING)
        conf = (root / "supervisord.conf").read_text()
        (root / "supervisord.conf").write_text(
            conf.replace("python -m brokers", "python stepping.py brokers").replace(
                "python -m writer", "python stepping.py writer"
            )
        )
        set_addresses(root, simulator.addresses)
        run_collectorctl(root, "start")
        stepping, pid = ("kis", "kiwoom", "writer"), pids(root)
        for count, number in enumerate((signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR2), 1):
            wait_until("rows flow", _growth(root))
            for name in stepping:
                os.kill(pid[name], number)
            wait_until(
                "all have noticed",
                lambda count=count: all(count_of(root, name, "clock_steps") == count for name in stepping),
            )
            wait_until("rows flow", _growth(root))
            if count == 1:  # the open hour looks over: it is published, and what comes of it now is late
                wait_until(
                    "a part is published", lambda: list((root / "data" / "kr" / "orderbook").rglob("part-*.parquet"))
                )
        _let_it_be_quiet(simulator)
        assert "drained to zero" in run_collectorctl(root, "stop").stdout
        simulator.close()

        assert find_problems(root, root / "truth") == []
        for name in stepping:
            log = (root / "log" / f"{name}.log").read_text()
            assert (1, 2) == (log.count("stepped by +3"), log.count("stepped by -3"))
        files = sorted((root / "data" / "kr" / "orderbook").rglob("part-*.parquet"))
        assert len(files) >= 2
        for file in files:
            rows = pd.read_parquet(file)
            assert (rows["exch_time"].dt.strftime("hour=%H") == file.parent.name).all()
            for _, mine in rows.groupby(["symbol", "broker"]):
                assert mine["seq"].is_monotonic_increasing
        everything = pd.concat(map(pd.read_parquet, files))
        assert (everything["flags"] & int(Flag.CLOCK_STEP) != 0).any()
        assert everything.groupby("broker")["seq"].nunique().sum() == len(everything)


def _growth(root: Path) -> Any:
    """Asks whether the journal has grown since the first asking."""
    begin = count_of(root, "writer", "journal_rows")
    return lambda: count_of(root, "writer", "journal_rows") > begin + 50


BOOKS_S, TICKS_S = 5 * 1000, 5 * 2000
"""Five times what default.toml says one line brings at the open."""


@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=pytest.mark.long)])
def test_a_stalled_writer_at_five_times_the_open_loses_nothing(place: Path, seconds: int) -> None:
    """SIGSTOP for that long with both lines at 5,000 books and 10,000 ticks a second and rings as by default; then caught up.

    The feeds end a second after it went on: how fast a writer catches up beside them is for the benchmarks.
    """
    home = make_home(place, **PATIENT)
    table = load_settings(ROOT).ring
    feed = RingFeeder(home, table.orderbook_capacity, table.tick_capacity)
    process = start_writer(home)
    wait_for(lambda: read_running_vitals(home, process))
    feed.run(1.0, BOOKS_S, TICKS_S)
    process.send_signal(signal.SIGSTOP)
    feed.run(seconds, BOOKS_S, TICKS_S)
    begin = time.monotonic()
    process.send_signal(signal.SIGCONT)
    feed.run(1.0, BOOKS_S, TICKS_S)
    feed.close()
    wait_for(lambda: read_counter(home, "journal_rows") == feed.records, 20 * seconds + 60)
    caught_up_s = time.monotonic() - begin
    rate = feed.records / (1 + seconds + caught_up_s)

    assert stop_writer(process) == 0
    assert read_counter(home, "lost_records") == 0
    feed.assert_stored_once(home)
    print(f"stalled {seconds} s, {rate:.0f} records/s throughout, caught up {caught_up_s:.1f} s after it went on")


def test_a_process_stopped_between_two_readings_of_the_clocks_sees_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty seconds pass between the monotonic and the wall clock's reading: read again, not taken for a step of the wall."""
    still = clock.real()
    readings = iter([0, 30_000_000_000])

    def monotonic_ns() -> int:
        return time.monotonic_ns() + next(readings, 0)

    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic_ns=monotonic_ns, time_ns=time.time_ns))

    assert still.detect_step() == 0
    assert next(readings, None) is None


def test_a_writer_that_recovers_a_long_journal_beats_meanwhile(place: Path) -> None:
    """The watchdog must not take it for hung: the loop turns while the journal is read in the disk thread."""
    home = make_home(place, **PATIENT)
    process, feed = start_writer(home), RingFeeder(home)
    wait_for(lambda: read_running_vitals(home, process))
    for _ in range(40):
        feed.publish(3000)
        wait_for(lambda: read_counter(home, "journal_rows") == feed.records)
    process.kill()
    process.wait()

    process = start_writer(home)
    wait_for(lambda: (found := read_vitals(home)) and found.pid == process.pid)
    beats = set()
    while (found := read_vitals(home)).state == "starting":
        beats.add(found.heartbeat_mono_ns)

    assert len(beats) > 2
    feed.close()
    assert stop_writer(process) == 0
    feed.assert_stored_once(home)
