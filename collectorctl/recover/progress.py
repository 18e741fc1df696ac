"""A run of recovery as a person sees it: the plan, progress with the time that is left, the certificates.

Leaves to others: everything that is shown (plan.py, run.py, certify.py).
"""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import timedelta

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Table

from collectorctl.recover.certificate.certify import Certificate
from collectorctl.recover.job import Watcher
from collectorctl.recover.plan import Item
from collectorctl.recover.us_job import Standing
from conf.clock import korean

GAPS_MOST = 5
COLOURS = {"PROVEN": "green", "RECONCILED": "green", "MINUTE_ONLY": "yellow"}


class Shown(Watcher):
    """Progress on a terminal; elsewhere only what needs a word."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._all: TaskID | None = None
        self._one: TaskID | None = None
        self._left = 0.0

    def __enter__(self) -> Shown:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def asking(self, instruments: int) -> None:
        """Count the instruments that are asked about."""
        self._all = self._progress.add_task("official figures", total=instruments, left="")

    def asked(self) -> None:
        """One more."""
        self._progress.advance(self._task(), 1)

    def planned(self, items: list[Item]) -> None:
        """Begin to count pages, of everything and of one instrument."""
        self._progress.remove_task(self._task())
        self._items = {one.instrument: one for one in items}
        self._all = self._progress.add_task("pages", total=sum(one.pages for one in items), left="")
        self._one = self._progress.add_task("", total=None, left="")

    def page(self, one: Item, pages: int, rate: float) -> None:
        """Show how far one instrument is, and what is left of it and of all."""
        of_it = max(0, one.pages - pages) / rate
        behind = sum(other.eta_s for other in self._items.values() if other is not one)
        self._progress.update(
            self._one,  # type: ignore[arg-type]
            description=f"{one.instrument} ({one.by})",
            completed=pages,
            total=max(pages, one.pages),
            left=f"{_span(of_it)} left",
        )
        self._progress.update(self._task(), left=f"{_span(of_it + behind)} left")

    def done(self, one: Item) -> None:
        """An instrument is through."""
        self._items.pop(one.instrument, None)
        self._progress.advance(self._task(), one.pages)

    def words(self, text: str) -> None:
        """Say it."""
        self._progress.console.print(f"{time.strftime('%H:%M:%S')} {text}")

    def _task(self) -> TaskID:
        assert self._all is not None
        return self._all


def show_plan(console: Console, items: list[Item]) -> None:
    """What is missing, by instrument and gap, and what it takes."""
    lacking = [one for one in items if one.gaps]
    console.print(f"{len(items)} instruments, {len(items) - len(lacking)} without a gap")
    if not lacking:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("symbol", "gaps", "shares", "trades", "million won", "by", "pages", "time", "longest gaps"):
        table.add_column(column, justify="left" if column in ("symbol", "by", "longest gaps") else "right")
    for one in lacking:
        longest = sorted(one.gaps, key=lambda gap: -gap.shares)[:GAPS_MOST]
        said = ", ".join(f"{_clock(g.begin_ns)}-{_clock(g.end_ns)} {g.shares}" for g in sorted(longest))
        table.add_row(
            *(str(one.instrument), str(len(one.gaps)), f"{one.shares:,}", f"~{one.trades:,}", f"~{one.won / 1e6:,.0f}"),
            *(one.by, f"~{one.pages}", _span(one.eta_s), said + (" ..." if len(one.gaps) > GAPS_MOST else "")),
        )
    console.print(table)
    console.print(
        f"to fetch: about {sum(one.pages for one in items)} pages, {_span(sum(one.eta_s for one in items))} at the rate last seen"
    )
    for one in lacking:
        if one.why:
            console.print(f"[yellow]minutes only[/]: {one.instrument}: {one.why}")


def show_standing(console: Console, standing: list[Standing]) -> None:
    """What there is of a day of minute bars."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("symbol", "live ticks", "minutes stored", "pages kept"):
        table.add_column(column, justify="left" if column == "symbol" else "right")
    for one in standing:
        table.add_row(one.instrument, f"{one.live_ticks:,}", str(one.minutes), str(one.pages))
    console.print(table)


def show_certificates(console: Console, certificates: list[Certificate]) -> None:
    """What every instrument's day is worth."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("symbol", "venue", "certificate", "live", "recovered", "missing shares", "why not"):
        table.add_column(column, justify="right" if column in ("live", "recovered", "missing shares") else "left")
    for one in certificates:
        word = f"[{COLOURS.get(one.certificate, 'red')}]{one.certificate}[/]"
        table.add_row(
            one.symbol, one.venue, word, f"{one.live_ticks:,}", f"{one.recovered_ticks:,}", f"{one.missing_shares:,}",
            "; ".join(one.reasons[:3]),
        )  # fmt: skip
    console.print(table)


def _clock(ns: int | None) -> str:
    return "" if ns is None else f"{korean(ns):%H:%M:%S}"


def _span(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def parse_span(text: str) -> float:
    """Seconds of "2h", "90m", "45s" or "1h30m". ValueError."""
    left, seconds = text.strip().lower(), 0.0
    for unit, worth in (("h", 3600), ("m", 60), ("s", 1)):
        number, found, rest = left.partition(unit)
        if found:
            with suppress(ValueError):
                seconds += float(number) * worth
                left = rest
    if left or seconds <= 0:
        raise ValueError(f"{text!r} is no span of time: write 2h, 90m or 1h30m")
    return seconds
