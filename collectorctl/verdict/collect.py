"""Evidence of a verdict, collected from the files and pages of a home.

Guarantees:
    * Nothing is changed, and no file with market data is opened.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from collectorctl.disk.guard import measure_free_bytes
from collectorctl.supervision.status import Status
from collectorctl.verdict.acknowledgement import load_acknowledgement
from collectorctl.verdict.rules import DiskRoom, Evidence
from conf.home import SYMBOL_DATASET, Home
from conf.loader import SETTINGS_FILE
from conf.market import MARKETS
from ringbuf.vitals import ProcessState, VitalsError, read_snapshot

RATE_DAYS = 3
"""The newest days of which the largest is the rate at which the disk fills."""

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
        settings_changed_s=time.time() - (home.root / SETTINGS_FILE).stat().st_mtime,
    )


def read_disk_room(data: Path) -> DiskRoom:
    """The room for the data of a home: what is free now, and the rate of this minute."""
    return DiskRoom(measure_free_bytes(data), _measure_day(data, int(time.monotonic() // RATE_S)))


@lru_cache(maxsize=1)
def _measure_day(data: Path, minute: int) -> int | None:
    """Bytes of the largest of the newest days, measured once in each minute; None: no day yet."""
    days: dict[str, int] = {}
    for market in MARKETS:
        directories = (path for path in (data / market).glob("*/date=*") if path.parent.name != SYMBOL_DATASET)
        for directory in sorted(directories, key=lambda path: path.name)[-4 * RATE_DAYS :]:
            days[directory.name] = days.get(directory.name, 0) + _measure(directory)
    newest = sorted(days)[-RATE_DAYS:]
    return max((days[name] for name in newest), default=0) or None


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
