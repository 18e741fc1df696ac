"""Compaction by itself: which dates a run of recovery leaves to be compacted, and a line of the log for each.

    newest dates with books or ticks ──over, and not compacted yet──> compact_day ─> compacted, or why not

Guarantees:
    * A date to which rows of a session may still come is left to a later run: the writer has its lock to itself.
    * What keeps a date from being compacted is logged, and ends nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pyarrow as pa
from loguru import logger

from collectorctl.compact.job import compact_day, is_compacted
from collectorctl.disk.guard import require_space
from collectorctl.export.certified import NotHandedOn
from collectorctl.recover.schedule.schedule import Schedule
from collectorctl.recover.schedule.state import find_stored_days
from conf.files.lock import LockHeld
from conf.home import Home
from conf.market import Market, MarketDate
from writer.publish.verified_file import PartitionWriteError


def find_uncompacted(home: Home, schedule: Schedule) -> list[date]:
    """Of the newest recover.tick_days dates those that are over and not compacted, ascending."""
    market, now_ns = schedule.market, home.load_clock().now_ns()
    stored = sorted(find_stored_days(home.data, market, "orderbook") | find_stored_days(home.data, market, "tick"))
    newest = stored[-home.settings.recover.tick_days :]
    return [day for day in newest if _is_over(schedule, day, now_ns) and not is_compacted(home, day, market)]


def compact_date(home: Home, market: Market, day: date, on_step: Callable[[], None]) -> None:
    """Compact a date; what came of it is logged. `on_step`: called in between, and what it raises ends the compaction."""
    where = MarketDate(market.name, day)
    try:
        require_space(home)
        one = compact_day(home, day, market, on_step=lambda *_: on_step())
    except (NotHandedOn, PartitionWriteError, LockHeld, OSError, pa.ArrowException) as error:
        logger.info("compaction: {} stays in files of hours: {}", where, error)
        return
    logger.info("compaction: {}: {} files became {}", where, one.files_before, one.files_after)


def _is_over(schedule: Schedule, day: date, now_ns: int) -> bool:
    """Whether no row of a session comes to a date any more: recovery of its own sessions is due, and no other begins on it."""
    due_ns = None if schedule.market.has_business_date else schedule.compute_due_ns(day)
    return now_ns >= (schedule.market.day_bounds_ns(day)[1] if due_ns is None else due_ns)
