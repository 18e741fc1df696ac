"""State of scheduled recovery: last run, whether one is due, when the next will be.

    data/recover/round*.json ─┐
    data/*/*/date=* ──────────┼─> ScheduleState ─> status, watchdog
    schedules, clock ─────────┘

Guarantees:
    * It reads small files and lists of names only: the watchdog calls it every five seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path

import msgspec

from collectorctl.recover.schedule.schedule import Schedule
from collectorctl.recover.store.evidence import load_backfilled_days
from collectorctl.supervision.messages import ENGLISH
from conf.clock import SECOND_NS, to_kst
from conf.files.replacement import read_replaced
from conf.home import Home
from conf.market import KR, Market
from conf.text.language import Texts

PROGRAM = "recover"
_DATE_FOLDER = re.compile(r"date=(\d{4}-\d{2}-\d{2})")


class LastRun(msgspec.Struct, frozen=True):
    """A completed run: when, ns since 1970 UTC, and the number of certificates by grade for each of its days."""

    ended_ns: int
    days: dict[date, dict[str, int]]


class ScheduleState(msgspec.Struct, frozen=True):
    """Scheduled recovery of all markets as `status` shows it.

    `enabled`: it runs by itself. `last`: the last runs. `due`: the day a run is due for, and since how many real seconds.
    `next`: when the next one will be. Days of another market than Korea's have its name in front.
    """

    enabled: bool
    last: str
    due: str
    due_s: float
    next: str


def format_recovery(recovery: ScheduleState, texts: Texts = ENGLISH) -> str:
    """Recovery by itself in one line."""
    if not recovery.enabled:
        return texts("recovery_by_hand")
    last = recovery.last or texts("never")
    if recovery.due:
        return texts("recovery_due", due=recovery.due, last=last)
    return texts("recovery_next", next=recovery.next, last=last)


def is_due(home: Home, schedule: Schedule) -> bool:
    """Whether a run of this schedule is due now."""
    return _find_due_day(home, schedule) is not None


def _find_due_day(home: Home, schedule: Schedule) -> date | None:
    last = load_last_run(home.data, schedule.name)
    first = find_first_day(home.data, schedule.market)
    return schedule.find_due_day(home.load_clock().now_ns(), first, last.ended_ns if last else None)


def schedule_state(home: Home, schedules: Iterable[Schedule]) -> ScheduleState:
    """The present state."""
    clock, enabled = home.load_clock(), [one for one in schedules if one.enabled]
    now_ns = clock.now_ns()
    lasts = {one.name: load_last_run(home.data, one.name) for one in enabled}
    due = [(one, day) for one in enabled if (day := _find_due_day(home, one))]
    waiting_ns = max((now_ns - (one.compute_due_ns(day) or now_ns) for one, day in due), default=0)
    next_ns = min((ns for one in enabled if (ns := one.compute_next_due_ns(now_ns))), default=None)
    return ScheduleState(
        enabled=bool(enabled),
        last="; ".join(_prefix(name) + format_last_run(last) for name, last in lasts.items() if last),
        due=", ".join(f"{_prefix(one.name)}{day}" for one, day in due),
        due_s=waiting_ns / SECOND_NS / clock.anchor.speed,
        next=f"{to_kst(next_ns):%Y-%m-%d %H:%M}" if next_ns else "",
    )


def _prefix(name: str) -> str:
    """What tells a schedule's days from Korea's, which stand alone."""
    return "" if name == KR.name else f"{name} "


def format_last_run(last: LastRun) -> str:
    """2026-11-20 20 PROVEN, 1 INCOMPLETE; 2026-11-19 1 INCOMPLETE (2026-11-20 20:14)."""
    return f"{_format_days(last) or 'nothing to do'} ({to_kst(last.ended_ns):%Y-%m-%d %H:%M})"


def _format_days(last: LastRun) -> str:
    newest = max(last.days, default=None)
    return "; ".join(
        f"{day} {_format_counts(counts)}"
        for day, counts in sorted(last.days.items(), reverse=True)
        if day == newest or "INCOMPLETE" in counts
    )


def format_certified_days(name: str, last: LastRun) -> str:
    """The days of a run without its time, "" if it had none: "us 2026-11-20 20 PROVEN"."""
    return _prefix(name) + _format_days(last) if last.days else ""


def _format_counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {grade}" for grade, count in counts.items()) or "without a certificate"


def last_run_path(data: Path, name: str = KR.name) -> Path:
    """The file of the last run of a schedule."""
    return data / "recover" / ("round.json" if name == KR.name else f"round-{name}.json")


def load_last_run(data: Path, name: str = KR.name) -> LastRun | None:
    """The last round that ended; None if there was none, or nothing readable is left of it."""
    return read_replaced(last_run_path(data, name), LastRun)


def find_first_day(data: Path, market: Market = KR) -> date | None:
    """The first day of which this home has ticks or books, None if it has none yet; ticks of a backfilled day do not count."""
    books, ticks = (find_stored_days(data, market, stream) for stream in ("orderbook", "tick"))
    return min(books | (ticks - load_backfilled_days(data) if market is KR else ticks), default=None)


def find_stored_days(data: Path, market: Market, stream: str) -> set[date]:
    """The days under which rows of a dataset lie."""
    found = (_DATE_FOLDER.fullmatch(path.name) for path in (data / market.name / stream).glob("date=*"))
    return {date.fromisoformat(match[1]) for match in found if match}
