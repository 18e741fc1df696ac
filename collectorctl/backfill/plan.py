"""Plan of a backfill: what a run would fetch, and what it takes.

    day chart ──shares back to a day──> trades ──> pages of ticks ─┐
    calendar ──minutes back to a day────────────> pages of bars ───┴─> requests of each day ─> seconds

Guarantees:
    * Nothing is written, no lock is taken, and pages that are stored are left as they are.
    * Of an instrument without a day to fetch ticks of, nothing is asked; of another its day chart alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date

import numpy as np

from brokers.history import open_history
from collectorctl.backfill.selection import (
    BARS,
    TICKS,
    DayOutcome,
    DayPlan,
    DaySelection,
    name_bars_folder,
    pages_folder,
)
from collectorctl.recover.download.daily_totals import DailyTotals, count_charts
from collectorctl.recover.download.page_store import count_stored_pages
from collectorctl.recover.download.pager import FetchError, NoAnswer, ThrottledClient
from collectorctl.recover.horizon import find_trading_days
from collectorctl.recover.job import BROKER, FAILURES, load_rates
from collectorctl.recover.plan import estimate_mean_shares
from collectorctl.recover.store import day_ticks
from conf.clock import MINUTE_NS, to_kst
from conf.home import Home
from conf.instrument import Instrument
from conf.market import KR

NEWEST_DAYS = 20
"""Stored days in which trades of an instrument are looked for, to measure their size."""


def plan_backfill(
    home: Home, instruments: Sequence[Instrument], days: Sequence[date], on_message: Callable[[str], None]
) -> Iterator[DayOutcome]:
    """The outcome of each day, all of them over, as far as it is known; planned, where a run would fetch it. SettingsError."""
    history = open_history(home, BROKER)
    try:
        client = ThrottledClient(history, home.settings.recover, on_message)
        failure = ""
        for instrument in instruments:
            selection = DaySelection(home, instrument, home.load_clock().now_ns())
            todo = []
            for day in sorted(days, reverse=True):
                outcome = selection.look_at(day)
                if outcome is None:
                    todo.append(day)
                else:
                    yield outcome
            try:
                if failure and todo:
                    raise NoAnswer(failure)
                found = _plan_days(home, client, instrument, selection, todo)
            except FAILURES as error:
                failure = str(error) if isinstance(error, NoAnswer) else failure
                found = [DayOutcome(instrument, day, "failed", str(error)) for day in todo]
            yield from found
    finally:
        history.close()


def _plan_days(
    home: Home, client: ThrottledClient, instrument: Instrument, selection: DaySelection, todo: Sequence[date]
) -> list[DayOutcome]:
    """The plans of days, the newest first. NoAnswer, PartitionWriteError, OSError."""
    today, calendar = to_kst(home.load_clock().now_ns()).date(), home.load_calendar()
    totals = DailyTotals(client, today, today)
    page_rows, rate = client.history.PAGE_ROWS, load_rates(home)[TICKS]
    mean = estimate_mean_shares(_load_sizes(home, instrument)) if todo else 0.0
    folder = pages_folder(home, today, instrument)
    stored = {
        kind: count_stored_pages(folder / name)
        for kind, name in ((TICKS, TICKS), (BARS, name_bars_folder(selection.availability or [today])))
    }
    found = []
    spent, pages = 0, {TICKS: 0, BARS: 0}
    for day in todo:
        reason, trades = selection.reasons.get(day, ""), 0
        shares: int | None = None
        if not reason:
            shares, later_shares = _get_shares(totals, client, day, instrument)
            trades = round((shares or 0) / mean)
            pages[TICKS] = max(pages[TICKS], int(((shares or 0) + later_shares) / mean) // page_rows[TICKS] + 1)
        days = find_trading_days(calendar, KR, day, max(selection.availability))
        spans = [span for one in days for span in calendar.phase_spans(instrument.venue, one)]
        pages[BARS] = sum(span.end_ns - span.begin_ns for span in spans) // MINUTE_NS // page_rows[BARS] + 1
        needed = count_charts(instrument) + sum(max(0, pages[kind] - stored[kind]) for kind in pages)
        plan = DayPlan(str(instrument), BARS if reason else TICKS, reason, shares, trades, needed - spent, 0.0)
        plan.eta_s = plan.requests / rate
        spent = needed
        found.append(DayOutcome(instrument, day, "planned", _describe(plan), plan=plan))
    return found


def _get_shares(
    totals: DailyTotals, client: ThrottledClient, day: date, instrument: Instrument
) -> tuple[int | None, int]:
    """The official volume of a day (None: the broker has none), and that of the days since. NoAnswer."""
    try:
        total, later_shares = totals.of_day(day).get(instrument)
    except NoAnswer:
        raise
    except FetchError as error:
        client.report(str(error))
        return None, 0
    return total.volume if total else None, later_shares


def _load_sizes(home: Home, instrument: Instrument) -> np.ndarray:
    """The sizes of the trades of an instrument on the newest stored day that has some. PartitionWriteError."""
    directory = home.data / KR.name / "tick"
    for path in sorted(directory.glob("date=*"), reverse=True)[:NEWEST_DAYS]:
        ticks = day_ticks.load_ticks(directory, date.fromisoformat(path.name[5:]), instrument)
        if len(ticks):
            return ticks["size"]
    return np.zeros(0, np.int64)


def _describe(plan: DayPlan) -> str:
    what = f"minute bars ({plan.reason})" if plan.reason else f"ticks, about {plan.trades:,} trades"
    if not plan.reason and plan.shares is None:
        what = "ticks, of which the broker has no figures"
    return f"{what}, {plan.requests} requests"
