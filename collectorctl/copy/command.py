"""Implementation of the command copy: options in, output and exit status out.

exit 0 every day is copied and whole (with --check: as its manifest says)   1 a day is not   2 invalid day or option
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from collectorctl.commands.options import DayChoice
from collectorctl.commands.ranges import DayProgress, DayResult, count_grades, finish_range, work_on_days
from collectorctl.terminal import TextConsole, usage_error, wide_console
from conf.home import Home
from conf.market import MARKETS, Market
from conf.process import EXIT_BUG
from writer.publish.verified_file import PartitionWriteError

if TYPE_CHECKING:
    from collectorctl.copy.target import Target


def copy(home: Home, days: DayChoice, market: Market, url: str, as_json: bool) -> int:
    """Copy days; the exit status. UsageError."""
    from collectorctl.copy.job import copy_day
    from collectorctl.export.certified import NotHandedOn

    target, chosen, console = _open(url), days.resolve_dates(home, market), wide_console(stderr=as_json)
    if target.is_local and Path(target.name).resolve() == home.data.parent.resolve():
        raise usage_error(f"--to: {target.name} is this home: name another place")

    def work(day: date, on_file: Callable[[int, int], None]) -> DayResult:
        one = copy_day(home, day, target, on_file, market)
        grades = count_grades(verdict.certificate for verdict in one.manifest.instruments)
        note = f"{grades}; {len(one.manifest.files)} files, {one.sent} sent"
        outcome = "not whole" if not one.manifest.is_whole else "copied" if one.is_new else "unchanged"
        return DayResult(day, 0 if one.manifest.is_whole else EXIT_BUG, outcome, note, one.manifest)

    refusals = NotHandedOn, PartitionWriteError, OSError
    return finish_range(console, work_on_days(console, chosen, work, refusals, "not copied"), as_json)


def check(url: str, as_json: bool) -> int:
    """Read every copied day back; the exit status. UsageError."""
    from collectorctl.copy.job import check_copy, find_copied_dates
    from collectorctl.copy.manifest import name_manifest
    from collectorctl.export.certified import NotHandedOn

    target = _open(url)
    if not (days := find_copied_dates(target)):
        raise usage_error(f"{target.name}: no copied day is there")
    console: TextConsole = wide_console(stderr=as_json)
    results = []
    with DayProgress(console, len(days)) as progress:
        for one in days:
            market = MARKETS[one.market]
            try:
                faults = check_copy(target, one.day, market)
            except (NotHandedOn, OSError) as error:
                faults = [str(error)]
            outcome = "damaged" if faults else "as copied"
            note = _advise(name_manifest(one.day, market=market), faults)
            results.append(DayResult(one.day, EXIT_BUG if faults else 0, outcome, note))
            progress.on_day()
    return finish_range(console, results, as_json)


def _advise(manifest: str, faults: list[str]) -> str:
    more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
    return f"{'; '.join(faults[:5])}{more}: remove {manifest} there, and copy again" if faults else ""


def _open(url: str) -> Target:
    if find_spec("fsspec") is None:
        raise usage_error("fsspec is not installed: pip install -e '.[copy]'")
    from collectorctl.copy.target import Target

    try:
        return Target(url)
    except (ValueError, ImportError) as error:
        raise usage_error(f"--to: {error}") from None
