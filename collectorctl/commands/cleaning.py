"""Commands that free room on the disk.

Guarantees:
    * No row of market data is removed but by [retention] of a certified day.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from collectorctl.commands.options import DayChoice, as_json_option, day_options, market_option
from collectorctl.terminal import echo, echo_json
from conf.home import Home
from conf.market import MARKETS
from conf.process import EXIT_BUG

if TYPE_CHECKING:
    from collectorctl.disk.retention import Removal


@click.command()
@click.option("--dry-run", is_flag=True, help="List what would go, with its bytes; remove nothing.")
@as_json_option
@click.pass_obj
def clean(root: Path, dry_run: bool, as_json: bool) -> None:
    """Remove old frames, fetched pages, rotated logs and days of market data, as [retention] says.

    Every kind (quarantined and captured frames, pages of certified and of other days, rotated logs, each dataset) is kept for ever
    by default. Of market data whole days go that are certified for good and, with retention.require_copy, copied; `verify` of
    such a day says so. Journal and certificates stay. Scheduled recovery does the same once a day. Exit 1 if something is in
    use, or cannot be removed.

    Example: collectorctl clean --dry-run
    """
    from collectorctl.disk.clean import CleanReport, locate, plan
    from collectorctl.disk.clean import clean as remove

    home = Home(root)
    try:
        planned = plan(home)
        report = CleanReport(planned.removals, [], planned.kept) if dry_run else remove(home)
    except OSError as error:
        echo(f"collectorctl: {error}", err=True)
        sys.exit(EXIT_BUG)
    removals, skipped = report.removed, report.skipped
    if as_json:
        files = [{"kind": one.kind, "path": str(locate(home, one)), "bytes": one.bytes} for one in removals]
        kinds = msgspec.to_builtins(planned.kinds)
        found = {"dry_run": dry_run, "removed": files, "kinds": kinds, "skipped": skipped}
        echo_json(found | {"days": _list_days(removals), "kept": report.kept})
    else:
        for one in removals:
            echo(f"{one.kind:<12} {one.bytes:>14,}  {locate(home, one)}")
        for total in planned.kinds:
            over = f"{total.removable_files} of them over {total.days} days"
            kept = f"kept for ever (retention.{total.kind}_days = 0)"
            echo(f"{total.kind:<12} {total.files} files, {total.bytes:,} bytes; {over if total.days else kept}")
        verb = "would be removed" if dry_run else "removed"
        for day, names in _list_days(removals).items():
            echo(f"{day}: {', '.join(names)} {verb}")
        for reason in report.kept:
            echo(f"kept: {reason}")
        echo(f"{verb}: {len(removals)} files, {sum(one.bytes for one in removals):,} bytes")
        for reason in skipped:
            echo(f"not removed: {reason}", err=True)
    sys.exit(EXIT_BUG if skipped else 0)


def _list_days(removals: list[Removal]) -> dict[str, list[str]]:
    """By day, the datasets of market data that go."""
    from collectorctl.disk.retention import MARKET_KINDS, parse_market_date

    found: dict[str, list[str]] = {}
    for one in removals:
        if day := parse_market_date(one):
            _, dataset = MARKET_KINDS[one.kind]
            datasets = found.setdefault(str(day), [])
            if dataset not in datasets:
                datasets.append(dataset)
    return found


@click.command()
@day_options
@market_option
@click.option("--dry-run", is_flag=True, help="Show what there is of the days; change nothing.")
@as_json_option
@click.pass_obj
def compact(root: Path, days: DayChoice, market: str, dry_run: bool, as_json: bool) -> None:
    """Make one file per dataset of each certified day out of its hours: smaller, and sorted by symbol and time.

    Only days of which every instrument is PROVEN or RECONCILED, of the US market MINUTE_ONLY; of a US date also those of the day
    market's session that begins in the evening. May be killed and repeated at any time. Readers find the same rows; a program that
    reads while the files are exchanged may have to read again. Exit 1 unless every day is compacted.

    Example: collectorctl compact --last 20d
    """
    import pyarrow as pa

    from collectorctl.commands.ranges import DayResult, finish_range, work_on_days
    from collectorctl.compact.job import compact_day
    from collectorctl.export.certified import NotHandedOn
    from collectorctl.terminal import wide_console
    from conf.files.lock import LockHeld
    from writer.publish.verified_file import PartitionWriteError

    home, console = Home(root), wide_console(stderr=as_json)

    def work(day: date, on_step: Callable[[int, int], None]) -> DayResult:
        one = compact_day(home, day, MARKETS[market], dry_run, on_step)
        note = f"{one.files_before} files, {one.bytes_before:,} bytes"
        if dry_run:
            return DayResult(day, 0, "can be compacted", note, one)
        return DayResult(day, 0, "compacted", f"{note} -> {one.files_after} files, {one.bytes_after:,} bytes", one)

    refusals = NotHandedOn, PartitionWriteError, LockHeld, OSError, pa.ArrowException
    chosen = days.resolve_dates(home, MARKETS[market])
    results = work_on_days(console, chosen, work, refusals, "not compacted")
    sys.exit(finish_range(console, results, as_json))
