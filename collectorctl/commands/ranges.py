"""Work on several days: one progress display, one table at the end, the worst exit status of the days.

Guarantees:
    * A day that fails stops no other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from functools import partial
from typing import Any, NamedTuple

from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID
from rich.table import Table

from collectorctl.terminal import TextConsole, coloured, echo_json
from collectorctl.terminal_progress import PlainTextColumn
from conf.process import EXIT_BUG


class DayResult(NamedTuple):
    """What came of a day: exit status, a word for it, what there is to say, and what JSON has of it."""

    day: date
    status: int
    outcome: str
    note: str = ""
    result: Any = None


class DayProgress:
    """How many days are done, and how far the one at work is; shown on a terminal only."""

    def __init__(self, console: TextConsole, days: int) -> None:
        columns = PlainTextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._days = self._progress.add_task("days", total=days) if days > 1 else None
        self._task: TaskID | None = None

    def __enter__(self) -> DayProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def on_step(self, what: object, done: int, total: int | None) -> None:
        """Of a day so many of so many (None: nobody knows) steps are done."""
        if self._task is None:
            self._task = self._progress.add_task("", total=total)
        self._progress.update(self._task, description=str(what), completed=done, total=total)

    def on_day(self) -> None:
        """One more day is done."""
        if self._days is not None:
            self._progress.advance(self._days)


def work_on_days(
    console: TextConsole,
    days: Sequence[date],
    work: Callable[[date, Callable[[int, int], None]], DayResult],
    refusals: tuple[type[Exception], ...],
    outcome: str,
) -> list[DayResult]:
    """The result of each day.

    Args:
        console: where progress is shown.
        days: in order.
        work: what is done with a day; its second argument is called with how many steps of how many are done.
        refusals: errors of `work` that are a day's result, with their text.
        outcome: the word for such a day.
    """
    results = []
    with DayProgress(console, len(days)) as progress:
        for day in days:
            try:
                results.append(work(day, partial(progress.on_step, day)))
            except refusals as error:
                results.append(DayResult(day, EXIT_BUG, outcome, str(error)))
            progress.on_day()
    return results


def count_grades(grades: Iterable[str | None]) -> str:
    """How many of each: "19 PROVEN, 1 INCOMPLETE"."""
    return ", ".join(f"{count} {grade or 'uncertified'}" for grade, count in Counter(grades).most_common())


def finish_range(console: TextConsole, results: Iterable[DayResult], as_json: bool) -> int:
    """Print the table of all days, or JSON; the exit status: the worst of the days."""
    found = list(results)
    if as_json:
        echo_json([one._asdict() for one in found])
    else:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("day", "", "what"):
            table.add_column(column)
        for one in found:
            table.add_row(str(one.day), coloured(one.outcome, "red" if one.status else "green"), one.note)
        console.print(table)
    return max((one.status for one in found), default=0)
