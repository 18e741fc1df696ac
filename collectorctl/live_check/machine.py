"""Probes of the machine: disk, shared memory, logind.

Guarantees:
    * Nothing stays on the disk; no ring is made.
"""

from __future__ import annotations

import getpass
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator

from brokers.registry import BROKERS
from collectorctl.live_check.probe import FAILED, ODD, OK, Probe, judge_fsync, judge_room
from collectorctl.ring_directory import find_removal_risk
from collectorctl.supervision.status import enabled_feeds
from conf.home import MAX_BOOK_BYTES, MAX_TICK_BYTES, SHM, SYMBOL_DATASET, Home

FSYNCS, FSYNC_BYTES = 10, 1 << 16
INSTRUMENT_DAY_BYTES = 10e6
"""What an instrument takes a day, journal included, where nothing is stored yet: more than most do."""


def check_machine(home: Home) -> Iterator[Probe]:
    """Disk, /dev/shm, RemoveIPC."""
    yield _check_fsync(home)
    yield judge_room(shutil.disk_usage(home.data).free, *_measure_day(home))
    yield _check_rings(home)
    risk = find_removal_risk(home.ring_directory, getpass.getuser(), os.getuid())
    yield Probe("machine", "RemoveIPC", ODD if risk else OK, risk or "nothing deletes the rings at a logout")


def _check_fsync(home: Home) -> Probe:
    path, times_s = home.data / f".check.{os.getpid()}", []
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            for _ in range(FSYNCS):
                os.write(fd, bytes(FSYNC_BYTES))
                begin_s = time.monotonic()
                os.fsync(fd)
                times_s.append(time.monotonic() - begin_s)
        finally:
            os.close(fd)
            path.unlink()
    except OSError as error:
        return Probe(
            "disk", "fsync", FAILED, f"{home.data}: {error.strerror}", "make room, or name another disk in paths.data"
        )
    return judge_fsync(times_s, str(home.data))


def _measure_day(home: Home) -> tuple[float, str]:
    """Bytes a day, and where the number comes from: the largest stored day, else the universe."""
    sizes: Counter[str] = Counter()
    for path in home.data.glob("*/*/date=*/**/*.parquet"):
        if SYMBOL_DATASET in path.relative_to(home.data).parts:
            continue
        date = next(part for part in path.parts if part.startswith("date="))
        sizes[date.removeprefix("date=")] += path.stat().st_size
    if sizes:
        day, size = max(sizes.items(), key=lambda item: item[1])
        return 2.0 * size, f"twice the files of {day}, for the journal"
    markets = {BROKERS[name].market for name in enabled_feeds(home.settings)}
    instruments = sum(len(home.settings.instruments(market)) for market in markets)
    return instruments * INSTRUMENT_DAY_BYTES, "estimated: nothing is stored yet"


def _check_rings(home: Home) -> Probe:
    """Where the rings are; home.py puts them under run/ if /dev/shm has no room for three feeds."""
    place = home.ring_directory
    if home.settings.paths.ring or not place.is_relative_to(home.run):
        return Probe("machine", "rings", OK, f"in {place}, {shutil.disk_usage(place).free / 1e6:,.0f} MB free")
    needed = 3 * (
        home.settings.ring.orderbook_capacity * MAX_BOOK_BYTES + home.settings.ring.tick_capacity * MAX_TICK_BYTES
    )
    free = shutil.disk_usage(SHM).free if SHM.is_dir() else 0
    message = f"in {place}, on a disk: {SHM} has {free / 1e6:,.0f} MB free, three feeds take {needed / 1e6:,.0f} MB"
    remedy = "enlarge /dev/shm or make [ring] smaller, stop, delete run/ring, start"
    return Probe("machine", "rings", ODD, message, remedy)
