"""Evidence of a verdict, collected from the files and pages of a home.

Guarantees:
    * Nothing is changed, and no file with market data is opened.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from collectorctl.disk.guard import measure_free_bytes
from collectorctl.supervision.status import Status
from collectorctl.verdict.acknowledgement import load_acknowledgement
from collectorctl.verdict.rules import DiskRoom, Evidence, compute_usual_bytes
from conf.files.replacement import read_replaced
from conf.home import SYMBOL_DATASET, Home
from conf.loader import SETTINGS_FILE
from conf.market import MARKETS
from conf.universe.listing import UniverseList
from ringbuf.vitals import ProcessState, VitalsError, read_snapshot

RATE_DAYS = 3
"""The newest days of which the largest is the rate at which the disk fills."""

USUAL_DAYS = 8
"""The newest days of which the usual one is taken."""

RATE_S = 60
"""How long that rate is kept: it takes a list of every date folder, and hardly changes."""


def collect_evidence(home: Home, status: Status) -> Evidence:
    """What the verdict on this status is made of."""
    clock = home.load_clock()
    return Evidence(
        status=status,
        now_ns=clock.now_ns(),
        speed=clock.anchor.speed,
        disk=read_disk_room(home.data),
        stopped_in_order=status.supervisor_pid is None and _was_stopped_in_order(home, status),
        acknowledged_ns=load_acknowledgement(home).until_ns,
        settings_changed_s=_measure_settings(home),
        disk_warn_days=home.settings.disk.warn_days,
    )


def _measure_settings(home: Home) -> float:
    """Seconds since settings were changed that a process may lack; infinite if the list in force has all changes."""
    changed = (home.root / SETTINGS_FILE).stat()
    found = read_replaced(home.universe_path(), UniverseList)
    is_taken_up = found is not None and found.settings_ns == changed.st_mtime_ns
    return math.inf if is_taken_up else time.time() - changed.st_mtime


def read_disk_room(data: Path) -> DiskRoom:
    """The room for the data of a home: what is free now, and the rate of this minute."""
    newest = _measure_days(data, int(time.monotonic() // RATE_S))
    largest = max(newest[-RATE_DAYS:], default=0) or None
    return DiskRoom(measure_free_bytes(data), largest, compute_usual_bytes(newest))


@lru_cache(maxsize=1)
def _measure_days(data: Path, minute: int) -> tuple[int, ...]:
    """Bytes of each of the newest days, oldest first, measured once in each minute."""
    days: dict[str, list[Path]] = {}
    for market in MARKETS:
        for directory in (data / market).glob("*/date=*"):
            if directory.parent.name != SYMBOL_DATASET:
                days.setdefault(directory.name, []).append(directory)
    return tuple(sum(map(_measure, days[name])) for name in sorted(days)[-USUAL_DAYS:])


def _measure(directory: Path) -> int:
    total = 0
    for path in directory.rglob("part-*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _was_stopped_in_order(home: Home, status: Status) -> bool:
    """Whether no process of this home ended without a stop; one that never ran was not killed either."""
    for process in status.processes:
        with suppress(FileNotFoundError, VitalsError):
            state = read_snapshot(home.vitals_path(process.name)).state
            if state not in (ProcessState.STOPPED, ProcessState.DONE):
                return False
    return True
