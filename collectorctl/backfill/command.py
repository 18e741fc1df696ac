"""Implementation of the command backfill: arguments in, output and exit status out.

    exit 0 every day is stored, or is of this home   1 something is missing   2 no broker has a day   75 a recovery is at work

Guarantees:
    * A day that this home collected is named and left alone; a day that fails stops no other.
    * With `dry_run` nothing is written, and the exit status is that of what is known before a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from collectorctl.backfill.job import backfill as fill
from collectorctl.backfill.plan import plan_backfill
from collectorctl.backfill.selection import DayOutcome
from collectorctl.commands.options import DayChoice
from collectorctl.commands.ranges import DayProgress, DayResult, count_grades, finish_range
from collectorctl.recover.progress import format_duration
from collectorctl.report.store import write_report_after
from collectorctl.terminal import usage_error, wide_console
from conf.home import Home
from conf.instrument import Instrument, parse_instrument
from conf.market import KR
from conf.process import EXIT_BUG

EXIT_UNAVAILABLE = 2
_STATUS = {"unavailable": EXIT_UNAVAILABLE, "failed": EXIT_BUG}


def backfill(home: Home, symbols: Sequence[str], days: int, dry_run: bool, as_json: bool) -> int:
    """Backfill the newest trading days that are over, or plan it; the exit status. UsageError, SettingsError, AlreadyRunning."""
    try:
        instruments = list(dict.fromkeys(parse_instrument(one) for one in symbols))
    except ValueError as error:
        raise usage_error(str(error)) from None
    if foreign := [str(one) for one in instruments if one.market is not KR]:
        raise usage_error(
            f"{', '.join(foreign)}: no broker has a list of US trades: `collectorctl recover --market us`"
        )
    chosen = DayChoice("", "", "", f"{days}d").resolve(home)
    console = wide_console(stderr=as_json)
    found: dict[date, list[DayOutcome]] = {day: [] for day in chosen}
    with DayProgress(console, len(chosen) * len(instruments)) as progress:

        def on_page(instrument: Instrument, kind: str, count: int) -> None:
            progress.on_step(f"{instrument}: pages of {kind}", count, None)

        outcomes = (
            plan_backfill(home, instruments, chosen, console.print)
            if dry_run
            else fill(home, instruments, chosen, on_page, console.print)
        )
        for outcome in outcomes:
            found[outcome.day].append(outcome)
            progress.on_day()
    for day, stored in found.items():
        if any(one.outcome == "stored" for one in stored) and home.report_path(day).exists():
            write_report_after(home, day)
    status = finish_range(console, [_sum_day(day, one) for day, one in found.items()], as_json)
    if dry_run and not as_json:
        plans = [one.plan for day in found.values() for one in day if one.plan]
        requests, eta = sum(one.requests for one in plans), format_duration(sum(one.eta_s for one in plans))
        console.print(f"to fetch: about {requests} requests, {eta} at the rate last seen")
    return status


def _sum_day(day: date, outcomes: Sequence[DayOutcome]) -> DayResult:
    """The result of a day: its grades, and what there is to say of each instrument that is not stored."""
    certificates = [one.certificate for one in outcomes if one.certificate]
    grades = count_grades(one.certificate for one in certificates)
    remarks = [f"{one.instrument} {one.outcome}: {one.note}" for one in outcomes if not one.certificate]
    remarks += [f"{one.instrument}: {one.note}" for one in outcomes if one.certificate and not one.is_settled]
    words = list(dict.fromkeys(one.outcome for one in outcomes))
    note = "; ".join(filter(None, [grades, *remarks]))
    plans = [one.plan for one in outcomes if one.plan]
    return DayResult(day, max(map(_judge, outcomes), default=0), ", ".join(words), note, plans or certificates)


def _judge(one: DayOutcome) -> int:
    if one.certificate:
        return 0 if one.is_settled else EXIT_BUG
    return _STATUS.get(one.outcome, 0)
