"""State of scheduled recovery: last run, whether one is due, when the next will be.

    data/recover/round.json ──┐
    data/kr/*/date=* ─────────┼─> ScheduleState ─> status, watchdog
    schedule, clock ──────────┘

Guarantees:
    * It reads a small file and a list of names only: the watchdog calls it every five seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import msgspec

from collectorctl.recover.schedule.schedule import Schedule
from conf.clock import SECOND_NS, to_kst
from conf.home import Home

PROGRAM = "recover"
_DATE_FOLDER = re.compile(r"date=(\d{4}-\d{2}-\d{2})")


class LastRun(msgspec.Struct, frozen=True):
    """A completed run: when, ns since 1970 UTC, and the number of certificates by grade for each of its days."""

    ended_ns: int
    days: dict[date, dict[str, int]]


class ScheduleState(msgspec.Struct, frozen=True):
    """Scheduled recovery as `status` shows it.

    `enabled`: it runs by itself. `last`: the last run. `due`: the day a run is due for, and since how many real seconds.
    `next`: when the next one will be.
    """

    enabled: bool
    last: str
    due: str
    due_s: float
    next: str

    def __str__(self) -> str:
        """In one line."""
        if not self.enabled:
            return "by hand only (recover.automatic or kiwoom.enabled is false)"
        now = f"due now for {self.due}" if self.due else f"next {self.next}"
        return f"{now}; last: {self.last or 'never'}"


def schedule_state(home: Home, schedule: Schedule) -> ScheduleState:
    """The present state."""
    clock = home.load_clock()
    now_ns, last = clock.now_ns(), load_last_run(home.data)
    day = schedule.find_due_day(now_ns, find_first_day(home.data), last.ended_ns if last else None)
    waiting_ns = now_ns - (schedule.compute_due_ns(day) or now_ns) if day else 0
    next_ns = schedule.compute_next_due_ns(now_ns)
    return ScheduleState(
        enabled=schedule.enabled,
        last=format_last_run(last) if last else "",
        due=str(day or ""),
        due_s=waiting_ns / SECOND_NS / clock.anchor.speed,
        next=f"{to_kst(next_ns):%Y-%m-%d %H:%M}" if next_ns else "",
    )


def format_last_run(last: LastRun) -> str:
    """2026-11-20 20 PROVEN, 1 INCOMPLETE; 2026-11-19 1 INCOMPLETE (2026-11-20 20:14)."""
    newest = max(last.days, default=None)
    day_texts = [
        f"{day} {_format_counts(counts)}"
        for day, counts in sorted(last.days.items(), reverse=True)
        if day == newest or "INCOMPLETE" in counts
    ]
    return f"{'; '.join(day_texts) or 'nothing to do'} ({to_kst(last.ended_ns):%Y-%m-%d %H:%M})"


def _format_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {grade}" for grade, count in counts.items()) or "without a certificate"


def last_run_path(data: Path) -> Path:
    """The file of the last run."""
    return data / "recover" / "round.json"


def load_last_run(data: Path) -> LastRun | None:
    """The last round that ended; None if there was none, or nothing readable is left of it."""
    try:
        return msgspec.json.decode(last_run_path(data).read_bytes(), type=LastRun)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def find_first_day(data: Path) -> date | None:
    """The first day of which this home has ticks or books, None if it has none yet."""
    names = (path.name for stream in ("orderbook", "tick") for path in (data / "kr" / stream).glob("date=*"))
    return min(
        (date.fromisoformat(found[1]) for name in names if (found := _DATE_FOLDER.fullmatch(name))), default=None
    )
