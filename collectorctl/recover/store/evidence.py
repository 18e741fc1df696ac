"""Evidence of a recovery run, stored so that the certificate can be computed again from files.

    data/recover/date=2026-11-20/005930/evidence.json
    data/recover/backfilled.json                            days of which `backfill` stored something

Guarantees:
    * A file is complete or absent, and not written when nothing changed; it contains no time of the run.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import msgspec

from conf.files.replacement import read_replaced
from writer import durable_io

FILE_NAME = "evidence.json"
BACKFILLED_FILE = "backfilled.json"


class Evidence(msgspec.Struct):
    """Official figures (None: not known), minute bars as BAR_ROW in plain numbers, and how placing went.

    `why`: reason why ticks were left out. `chains`: every sequence of pages is complete. `jumps`, `passed`: (low, high]
    that lie between two trades, between two rows of a tick chart. `backfilled`: of a day that this home did not collect.
    """

    volume: int | None = None
    value_m: int | None = None
    bars: list[list[int]] = []
    unreadable_bars: int = 0
    session_over: bool = False
    skip_reason: str = msgspec.field(name="why", default="")
    pages: int = 0
    pages_complete: bool = msgspec.field(name="chains", default=True)
    anchors_checked: int = 0
    anchors_failed: int = 0
    findings: list[str] = []
    omitted: list[tuple[int, int]] = msgspec.field(name="jumps", default_factory=list)
    rowless: list[tuple[int, int]] = msgspec.field(name="passed", default_factory=list)
    backfilled: bool = False


class BackfilledDays(msgspec.Struct):
    """Days that have rows which `backfill` stored, ascending."""

    days: list[date] = []


def load(folder: Path) -> Evidence | None:
    """The evidence of an earlier run; None without a readable file."""
    try:
        return msgspec.json.decode((folder / FILE_NAME).read_bytes(), type=Evidence)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def save(folder: Path, evidence: Evidence) -> None:
    """Store it, completely and durably."""
    durable_io.write_changed(folder / FILE_NAME, msgspec.json.format(msgspec.json.encode(evidence), indent=1))


def load_backfilled_days(data: Path) -> set[date]:
    """The days of which `backfill` stored something; ticks on such a day alone do not mean that this home collected it."""
    found = read_replaced(data / "recover" / BACKFILLED_FILE, BackfilledDays)
    return set(found.days) if found else set()


def add_backfilled_day(data: Path, day: date) -> None:
    """Name one more, durably."""
    days = sorted({*load_backfilled_days(data), day})
    durable_io.write_changed(data / "recover" / BACKFILLED_FILE, msgspec.json.encode(BackfilledDays(days)))
