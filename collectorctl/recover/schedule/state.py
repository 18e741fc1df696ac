"""Recovery by itself as seen from outside: how the last round ended, whether one is due, when the next will be.

    data/recover/round.json ──┐
    data/kr/*/date=* ─────────┼─> Outlook ─> status, watchdog
    schedule, clock ──────────┘

Promises: reads a small file and a list of names, and nothing else: the watchdog asks every five seconds.
Leaves to others: when a round is due (schedule.py), doing it (rounds.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import msgspec

from collectorctl.recover.schedule.schedule import Schedule
from conf.clock import SECOND_NS, korean
from conf.home import Home

PROGRAM = "recover"
_DAY = re.compile(r"date=(\d{4}-\d{2}-\d{2})")


class Round(msgspec.Struct, frozen=True):
    """A round that ended: when, ns since 1970 UTC, and of each day it looked at how many certificates say what."""

    ended_ns: int
    days: dict[date, dict[str, int]]


class Outlook(msgspec.Struct, frozen=True):
    """`on`: it runs by itself; `last`: the last round in words; `due`: the day a round is due for, and since when in real
    seconds; `next`: when the next one will be."""

    on: bool
    last: str
    due: str
    due_s: float
    next: str

    def __str__(self) -> str:
        """In one line."""
        if not self.on:
            return "by hand only (recover.automatic or kiwoom.enabled is false)"
        now = f"due now for {self.due}" if self.due else f"next {self.next}"
        return f"{now}; last: {self.last or 'never'}"


def outlook(home: Home, schedule: Schedule) -> Outlook:
    """What there is to say now."""
    clock = home.clock()
    now_ns, last = clock.now_ns(), last_round(home.data)
    day = schedule.due(now_ns, first_day(home.data), last.ended_ns if last else None)
    waiting_ns = now_ns - (schedule.due_ns(day) or now_ns) if day else 0
    next_ns = schedule.next_ns(now_ns)
    return Outlook(
        on=schedule.on,
        last=in_words(last) if last else "",
        due=str(day or ""),
        due_s=waiting_ns / SECOND_NS / clock.anchor.speed,
        next=f"{korean(next_ns):%Y-%m-%d %H:%M}" if next_ns else "",
    )


def in_words(last: Round) -> str:
    """2026-11-20 20 PROVEN, 1 INCOMPLETE; 2026-11-19 1 INCOMPLETE (2026-11-20 20:14)."""
    newest = max(last.days, default=None)
    said = [
        f"{day} {_counted(counts)}"
        for day, counts in sorted(last.days.items(), reverse=True)
        if day == newest or "INCOMPLETE" in counts
    ]
    return f"{'; '.join(said) or 'nothing to do'} ({korean(last.ended_ns):%Y-%m-%d %H:%M})"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {word}" for word, count in counts.items()) or "without a certificate"


def round_file(data: Path) -> Path:
    """Where the last round is kept."""
    return data / "recover" / "round.json"


def last_round(data: Path) -> Round | None:
    """The last round that ended; None if there was none, or nothing readable is left of it."""
    try:
        return msgspec.json.decode(round_file(data).read_bytes(), type=Round)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def first_day(data: Path) -> date | None:
    """The first day of which this home has ticks or books, None if it has none yet."""
    names = (path.name for stream in ("orderbook", "tick") for path in (data / "kr" / stream).glob("date=*"))
    return min((date.fromisoformat(found[1]) for name in names if (found := _DAY.fullmatch(name))), default=None)
