"""Console progress and tables of a recovery run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import date, timedelta

from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID
from rich.table import Table
from rich.text import Text

from collectorctl.recover.certificate.certify import Certificate
from collectorctl.recover.job import ProgressListener
from collectorctl.recover.plan import InstrumentPlan
from collectorctl.recover.us_job import DayState
from collectorctl.terminal import TextConsole, break_lines, coloured
from collectorctl.terminal_progress import PlainTextColumn
from conf.clock import to_kst

MAX_LISTED_GAPS = 5

ROOM_FOR_REMARKS = 118
"""A narrower terminal has the text of a row below the table."""

GRADE_COLOURS = {"PROVEN": "green", "RECONCILED": "green", "RECOVERED_ONLY": "yellow", "MINUTE_ONLY": "yellow"}


class ConsoleProgress(ProgressListener):
    """Progress on a terminal; elsewhere only messages that need attention."""

    def __init__(self, console: TextConsole) -> None:
        self._console = console
        columns = (
            PlainTextColumn("{task.description}"),
            BarColumn(20),
            MofNCompleteColumn(),
            PlainTextColumn("{task.fields[left]}"),
        )
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._total_task: TaskID | None = None
        self._instrument_task: TaskID | None = None
        self._day_task: TaskID | None = None

    def __enter__(self) -> ConsoleProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @property
    def console(self) -> TextConsole:
        """Where to print while it is shown."""
        return self._console

    def on_day(self, day: date | None, number: int, days: int) -> None:
        """Of several days so many are done, and this one begins."""
        if self._day_task is None:
            self._day_task = self._progress.add_task("days", total=days, left="")
        self._progress.update(self._day_task, completed=number, left=str(day or ""))

    def on_totals_started(self, instruments: int) -> None:
        """Count the instruments that are asked about."""
        for task in (self._total_task, self._instrument_task):  # of the day before
            if task is not None:
                self._progress.remove_task(task)
        self._instrument_task = None
        self._total_task = self._progress.add_task("official figures", total=instruments, left="")

    def on_total(self) -> None:
        """One more."""
        self._progress.advance(self._require_total_task(), 1)

    def on_planned(self, plans: list[InstrumentPlan]) -> None:
        """Begin to count pages, of everything and of one instrument."""
        self._progress.remove_task(self._require_total_task())
        self._plans = {one.instrument: one for one in plans}
        self._total_task = self._progress.add_task("pages", total=sum(one.pages for one in plans), left="")
        self._instrument_task = self._progress.add_task("", total=None, left="")

    def on_page(self, plan: InstrumentPlan, pages: int, rate: float) -> None:
        """Show the progress of one instrument, and the rest of all."""
        remaining_s = max(0, plan.pages - pages) / rate
        others_s = sum(other.eta_s for other in self._plans.values() if other is not plan)
        self._progress.update(
            self._instrument_task,  # type: ignore[arg-type]
            description=f"{plan.instrument} ({plan.method})",
            completed=pages,
            total=max(pages, plan.pages),
            left=f"{format_duration(remaining_s)} left",
        )
        self._progress.update(self._require_total_task(), left=f"{format_duration(remaining_s + others_s)} left")

    def on_instrument_done(self, plan: InstrumentPlan) -> None:
        """An instrument is through."""
        self._plans.pop(plan.instrument, None)
        self._progress.advance(self._require_total_task(), plan.pages)

    def on_message(self, text: str) -> None:
        """Print a message."""
        self._progress.console.print(f"{to_kst(time.time_ns()):%H:%M:%S} KST {text}")

    def _require_total_task(self) -> TaskID:
        assert self._total_task is not None
        return self._total_task


def show_plan(console: TextConsole, plans: list[InstrumentPlan]) -> None:
    """The missing ticks, by instrument and gap, and the cost of fetching them."""
    incomplete = [one for one in plans if one.gaps]
    console.print(f"{len(plans)} instruments, {len(plans) - len(incomplete)} without a gap")
    if not incomplete:
        return
    figures = ("symbol", "gaps", "shares", "trades", "million won", "by", "pages", "time")
    table = _RemarkTable(console, figures, ("symbol", "by"), "longest gaps")
    for one in incomplete:
        longest = sorted(one.gaps, key=lambda gap: -gap.shares)[:MAX_LISTED_GAPS]
        gap_texts = ", ".join(
            f"{_format_time(g.begin_ns)}-{_format_time(g.end_ns)} {g.shares}" for g in sorted(longest)
        )
        table.add_row(
            *(
                str(one.instrument),
                str(len(one.gaps)),
                f"{one.shares:,}",
                f"~{one.trades:,}",
                f"~{one.value / 1e6:,.0f}",
            ),
            *(
                one.method,
                f"~{one.pages}",
                format_duration(one.eta_s),
                gap_texts + (" ..." if len(one.gaps) > MAX_LISTED_GAPS else ""),
            ),
        )
    table.print()
    console.print(
        f"to fetch: about {sum(one.pages for one in plans)} pages, "
        f"{format_duration(sum(one.eta_s for one in plans))} at the rate last seen"
    )
    for one in incomplete:
        if one.skip_reason:
            console.print(coloured("minutes only:", "yellow"), f"{one.instrument}: {one.skip_reason}")


def show_day_states(console: TextConsole, states: list[DayState]) -> None:
    """The state of a day of minute bars."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("symbol", "live ticks", "minutes stored", "pages kept"):
        table.add_column(column, justify="left" if column == "symbol" else "right")
    for one in states:
        table.add_row(one.instrument, f"{one.live_ticks:,}", str(one.minutes), str(one.pages))
    console.print(table)


def show_certificates(console: TextConsole, certificates: list[Certificate]) -> None:
    """What every instrument's day is worth."""
    figures = ("symbol", "venue", "certificate", "live", "recovered", "missing shares")
    table = _RemarkTable(console, figures, ("symbol", "venue", "certificate"), "why not")
    for one in certificates:
        grade = coloured(one.certificate, GRADE_COLOURS.get(one.certificate, "red"))
        table.add_row(
            one.symbol, one.venue, grade, f"{one.live_ticks:,}", f"{one.recovered_ticks:,}", f"{one.missing_shares:,}",
            "; ".join(one.reasons[:3]),
        )  # fmt: skip
    table.print()


class _RemarkTable:
    """A table whose last column is text: beside the figures where there is room for it, else below the table."""

    def __init__(self, console: TextConsole, figures: Sequence[str], left: Sequence[str], remark: str) -> None:
        self._console = console
        self._is_wide = console.width >= ROOM_FOR_REMARKS
        self._table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1 if self._is_wide else 0, 0, 0))
        for name in figures:
            self._table.add_column(name, justify="left" if name in left else "right", no_wrap=True)
        if self._is_wide:
            self._table.add_column(remark, overflow="fold")
        self._remark, self._remarks = remark, list[str]()

    def add_row(self, *cells: str | Text) -> None:
        """Add a row; its first cell names it, its last is the text."""
        *figures, remark = cells
        self._table.add_row(*(cells if self._is_wide else figures))
        if remark and not self._is_wide:
            self._remarks.append(f"{figures[0]}: {self._remark}: {remark}")

    def print(self) -> None:
        """Print it."""
        self._console.print(self._table)
        for line in self._remarks:
            for part in break_lines(line, self._console.width):
                self._console.print(part)


def _format_time(ns: int | None) -> str:
    return "" if ns is None else f"{to_kst(ns):%H:%M:%S}"


def format_duration(seconds: float) -> str:
    """Hours, minutes and seconds: 0:01:30."""
    return str(timedelta(seconds=round(seconds)))


def parse_duration(text: str) -> float:
    """Seconds of "2h", "90m", "45s" or "1h30m". ValueError."""
    left, seconds = text.strip().lower(), 0.0
    for unit, unit_s in (("h", 3600), ("m", 60), ("s", 1)):
        number, found, rest = left.partition(unit)
        if found:
            with suppress(ValueError):
                seconds += float(number) * unit_s
                left = rest
    if left or seconds <= 0:
        raise ValueError(f"{text!r} is no span of time: write 2h, 90m or 1h30m")
    return seconds
