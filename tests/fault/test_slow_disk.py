"""A disk that answers late: heartbeats go on, nothing is killed for it, nothing is lost or doubled."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.faulty_disk import FAULTY_WRITER, set_faults, start_faulty_writer
from support.process_tree import read_status, run_collectorctl, temporary_home, wait_until
from support.small_disk import RingFeeder
from support.writer_data import (
    make_home,
    read_counter,
    read_published,
    read_running_vitals,
    read_vitals,
    started_writers,
    stop_writer,
    wait_for,
)

from collectorctl.demo.environment import SimulatorProcess, set_addresses
from conf.home import Home
from conf.process import is_waiting_for_disk
from ringbuf.records import RINGS
from ringbuf.ring import Consumer

SETTINGS = """
[universe]
kr = ["005930", "000660"]
[clock]
start = "2026-11-20T10:00:00+09:00"
[kis]
subscribe_spacing_ms = 20
[writer]
fsync_every_s = 0.2
[watchdog]
stale_s = 3.0
start_s = 15.0
terminate_timeout_s = 30.0
disk_alarm_s = 10.0
"""


def is_durable(home: Home, stream: str) -> bool:
    """Whether everything of KIS's ring is behind the position that was committed to it."""
    ring = Consumer.open(home.ring_path("kis", stream), RINGS[stream])
    try:
        return ring.tail == ring.head + 1
    finally:
        ring.close()


def test_a_dataset_that_waits_for_the_disk_holds_up_neither_heartbeats_nor_the_others(place: Path) -> None:
    """Each fsync of the ticks takes 5 s: said in the state, the books become durable meanwhile; all is stored once."""
    home = make_home(place, grace_s=1000.0, late_every_s=1000.0)
    process, feed = start_faulty_writer(home), RingFeeder(home)
    wait_for(lambda: read_running_vitals(home, process))
    set_faults(home, "sync kr.tick 5")
    ages_s = []

    def is_reported() -> bool:
        feed.publish(100)
        ages_s.append((time.monotonic_ns() - read_vitals(home).heartbeat_mono_ns) / 1e9)
        return read_vitals(home).state == "disk_wait"

    wait_for(is_reported)
    assert read_vitals(home).detail.startswith("kr.tick: for ")
    for _ in range(3):
        feed.publish(100)
        wait_for(lambda: is_durable(home, "orderbook"))
        assert not is_durable(home, "tick"), "a ring is told of a position once it is durable"
    assert max(ages_s) < 4 and read_counter(home, "pauses") == 0

    set_faults(home)
    wait_for(lambda: is_durable(home, "tick"))
    wait_for(lambda: read_vitals(home).state == "running")
    feed.close()
    assert stop_writer(process) == 0
    feed.assert_stored_once(home)


def test_a_wait_that_lasts_is_an_alarm_and_ends_by_itself(place: Path) -> None:
    """Beyond disk_alarm_s: paused, by name, with the seconds, in log and events; a fsync that comes back ends it."""
    home = make_home(place, grace_s=1000.0, late_every_s=1000.0)
    with (place / "collector.toml").open("a") as settings:
        settings.write("[watchdog]\ndisk_alarm_s = 1.0\n")
    process, feed = start_faulty_writer(home), RingFeeder(home)
    wait_for(lambda: read_running_vitals(home, process))
    set_faults(home, "sync kr.tick 8 1")
    feed.publish(100)

    wait_for(lambda: read_vitals(home).state == "paused")
    assert read_vitals(home).detail.startswith("kr.tick: waiting for the disk for ")

    wait_for(lambda: read_vitals(home).state == "running")
    assert is_durable(home, "tick")
    feed.close()
    assert stop_writer(process) == 0
    feed.assert_stored_once(home)
    assert "kr.tick: waiting for the disk" in (home.log / "writer.log").read_text()
    assert {"paused", "resumed"} <= set(read_published(home, "event")["kind"])


def test_a_killed_writer_is_followed_by_one_that_stores_what_waited_for_the_disk(place: Path) -> None:
    """SIGKILL in the middle of a slow fsync: the next life has everything once."""
    home = make_home(place, grace_s=1000.0, late_every_s=1000.0)
    process, feed = start_faulty_writer(home), RingFeeder(home)
    wait_for(lambda: read_running_vitals(home, process))
    set_faults(home, "sync kr. 8")
    feed.publish(500)
    wait_for(lambda: read_vitals(home).state == "disk_wait")
    feed.publish(500)
    process.kill()
    process.wait()

    set_faults(home)
    process = start_faulty_writer(home)
    wait_for(lambda: read_running_vitals(home, process))
    feed.close()
    assert stop_writer(process) == 0
    feed.assert_stored_once(home)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fsync_s", [6, pytest.param(28, marks=pytest.mark.long)])
def test_the_watchdog_kills_no_writer_whose_every_fsync_takes_longer_than_stale_s(fsync_s: int) -> None:
    """From the start on; rows become durable in that one life, and on a disk that answers again all is well."""
    with temporary_home(SETTINGS) as root, SimulatorProcess(root, root / "truth") as simulator:
        home = Home(root)
        set_faults(home, f"sync kr. {fsync_s}")
        (root / "faulty.py").write_text(FAULTY_WRITER)
        conf = (root / "supervisord.conf").read_text()
        (root / "supervisord.conf").write_text(conf.replace("python -m writer", "python faulty.py"))
        set_addresses(root, simulator.addresses)
        run_collectorctl(root, "start", check=False)
        pid = read_status(root)["processes"]["writer"]["pid"]

        def writer() -> dict:
            return read_status(root)["processes"]["writer"]

        wait_until("it waits for the disk", lambda: writer()["state"] in ("disk_wait", "paused"), 60 + 5 * fsync_s)
        wait_until("fsyncs end", lambda: writer()["counters"]["fsyncs"] >= 4, 60 + 8 * fsync_s)
        assert pid and pid == writer()["pid"] and writer()["counters"]["journal_rows"] > 0
        assert writer()["heartbeat_age_s"] < 3

        set_faults(home)
        wait_until("all is well", lambda: read_status(root)["healthy"], 60 + fsync_s)
        assert pid == writer()["pid"]
        assert " writer: " not in (root / "log" / "watchdog.log").read_text()
        if "drained to zero" not in run_collectorctl(root, "stop", check=False).stdout:
            # one fsync that had begun before was still asleep: the next life stores what it held back
            assert fsync_s > 10
            run_collectorctl(root, "start")
            wait_until("all is well", lambda: read_status(root)["healthy"])
            assert "drained to zero" in run_collectorctl(root, "stop").stdout


STUCK = """
import os, sys, threading, time
from conf.process import run_process
from ringbuf.vitals import ProcessState, Vitals

def body(home, stop):
    vitals = Vitals.create(home.vitals_path("writer"), "writer")
    vitals.set_state(ProcessState.RUNNING)
    fifo = str(home.root / "fifo")
    # the kernel lets the parent wait in state D until its child has opened the pipe, and this interpreter's lock is held
    os.posix_spawn("/bin/true", ["true"], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 9, fifo, os.O_RDONLY, 0)])
    while not stop.wait(0.2):
        vitals.heartbeat()

sys.exit(run_process("writer", body))
"""


@pytest.mark.long
def test_a_process_in_the_kernels_disk_sleep_is_not_killed_but_reported() -> None:
    """No heartbeat for three times stale_s, one alarm in log and status; it goes on when the kernel lets it."""
    with temporary_home(SETTINGS) as root:
        os.mkfifo(root / "fifo")
        (root / "stuck.py").write_text(STUCK)
        conf = (root / "supervisord.conf").read_text().replace("python -m writer", "python stuck.py")
        for name in ("kis", "kiwoom", "gapfill"):
            conf = conf.replace(f"[program:{name}]", f"[program:{name}]\nautostart = false", 1)
        (root / "supervisord.conf").write_text(_without_double_keys(conf))
        run_collectorctl(root, "start", check=False)
        log = root / "log" / "watchdog.log"
        release = None
        try:
            wait_until("it is reported", lambda: log.exists() and "it waits for the disk" in log.read_text(), 90)
            stuck = read_status(root)["processes"]["writer"]
            assert is_waiting_for_disk(stuck["pid"])
            assert "it waits for the disk" in stuck["verdict"] and not stuck["healthy"]
            assert "SIGABRT" not in log.read_text()
        finally:
            release = os.open(root / "fifo", os.O_RDWR)
        wait_until("it goes on", lambda: read_status(root)["processes"]["writer"]["heartbeat_age_s"] < 3)
        assert stuck["pid"] == read_status(root)["processes"]["writer"]["pid"]
        os.close(release)


def _without_double_keys(text: str) -> str:
    """The last of equal keys of a section goes."""
    lines: list[str] = []
    seen: set[str] = set()
    for line in text.splitlines():
        key = line.partition("=")[0].strip()
        if line.startswith("["):
            seen = set()
        elif line and not line.startswith(";") and key in seen:
            continue
        seen.add(key)
        lines.append(line)
    return "\n".join(lines) + "\n"


def test_a_thread_in_the_kernels_disk_sleep_is_seen_and_its_end_as_well(place: Path) -> None:
    """By the state of its threads, whatever the process's name is."""
    os.mkfifo(place / "fifo")
    script = STUCK.split("    fifo = ")[0].split("def body")[0].replace("from", "# from") + (
        f"time.sleep(0.1)\nos.posix_spawn('/bin/true', ['true'], {{}}, file_actions=[(os.POSIX_SPAWN_OPEN, 9, "
        f"{str(place / 'fifo')!r}, os.O_RDONLY, 0)])\ntime.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    started_writers.append(process)

    wait_for(lambda: is_waiting_for_disk(process.pid))
    release = os.open(place / "fifo", os.O_RDWR)
    wait_for(lambda: not is_waiting_for_disk(process.pid))
    os.close(release)
