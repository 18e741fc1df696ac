"""Commands that act on the files of a day: recover, backfill, verify, reprocess, export, copy, join.

Guarantees:
    * Each may be repeated.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from collectorctl.commands.options import (
    MAX_RANGE_DAYS,
    DayChoice,
    as_json_option,
    choose_days,
    day_options,
    market_option,
)
from collectorctl.terminal import echo, echo_json, usage_error, wide_console
from conf.home import Home
from conf.market import MARKETS
from conf.process import EXIT_ALREADY_RUNNING, EXIT_BUG, AlreadyRunning

if TYPE_CHECKING:
    from collectorctl.reprocess.job import ReprocessReport


@click.command()
@day_options
@market_option
@click.option("--symbols", default="", help="Comma-separated [default: the universe and what has ticks on that day].")
@click.option("--mode", type=click.Choice(["ticks", "minutes", "auto"]), default="auto", show_default=True)
@click.option(
    "--budget", default="", help="Longest time for fetching ticks, e.g. 2h; what does not fit gets minute bars."
)
@click.option("--dry-run", is_flag=True, help="Show what is missing and what it takes; write nothing.")
@as_json_option
@click.pass_obj
def recover(
    root: Path, days: DayChoice, market: str, symbols: str, mode: str, budget: str, dry_run: bool, as_json: bool
) -> None:
    """Fetch the ticks that are missing of days, and certify them. Exit 1 unless every instrument has what was asked for.

    After the close; may be killed and repeated at any time: of a range, days that are settled are left alone.
    Certificates: PROVEN, RECONCILED, RECOVERED_ONLY (of `backfill`), MINUTE_ONLY, INCOMPLETE.
    Of US days no trades can be had: --market us stores minute bars, and the certificate is MINUTE_ONLY.

    Example: collectorctl recover --date 2026-11-20 --budget 2h
    """
    from collectorctl.recover.command import recover as work
    from collectorctl.recover.command import recover_us

    if market == "us":
        if mode == "ticks" or budget:
            raise usage_error("the US market has no list of trades: minute bars only, without --budget")
        sys.exit(recover_us(Home(root), days, symbols, dry_run, as_json))
    sys.exit(work(Home(root), days, symbols, mode, budget, dry_run, as_json))


@click.command()
@click.argument("symbols", nargs=-1, required=True, metavar="SYMBOL...")
@click.option(
    "--days",
    default=20,
    show_default=True,
    type=click.IntRange(1, MAX_RANGE_DAYS // 2),
    help="So many trading days that are over, the newest first.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be fetched and what it takes; write nothing.")
@as_json_option
@click.pass_obj
def backfill(root: Path, symbols: tuple[str, ...], days: int, dry_run: bool, as_json: bool) -> None:
    """Fetch past days of Korean symbols that this home did not collect: ticks as far as Kiwoom has them, minute bars before that.

    May be killed and repeated at any time: days that are certified for good are left alone, and so are those that this home
    collected, which are named. Certificates: RECOVERED_ONLY, or MINUTE_ONLY; of such days there are no books. Exit 1 unless every
    day has one of them; with --dry-run if it is known that one cannot.

    Example: collectorctl backfill 005930 000660 --days 20
    """
    from collectorctl.backfill.command import backfill as work

    sys.exit(work(Home(root), symbols, days, dry_run, as_json))


@click.command()
@day_options
@market_option
@click.option(
    "--jobs", default=1, show_default=True, type=click.IntRange(1, 256), help="Processes for the days of a range."
)
@click.option(
    "--cluster", default="", help="Instead: the workers of a Dask scheduler, tcp://HOST:8786, that see the same home."
)
@as_json_option
@click.pass_obj
def verify(root: Path, days: DayChoice, market: str, jobs: int, cluster: str, as_json: bool) -> None:
    """Make the certificates of days again, from files alone. Exit 1 when one does not hold or does not say the day is whole.

    Example: collectorctl verify --last 20d --jobs 2
    """
    from collectorctl.recover.command import verify as work

    if cluster and jobs > 1:
        raise usage_error("--jobs is of this host and --cluster of others: name one of them")
    sys.exit(work(Home(root), days, jobs, as_json, MARKETS[market], cluster))


@click.command()
@day_options
@click.option("--dry-run", is_flag=True, help="Report what would be stored; change nothing.")
@as_json_option
@click.pass_obj
def reprocess(root: Path, days: DayChoice, dry_run: bool, as_json: bool) -> None:
    """Decode the quarantined frames of dates again, and store what decodes now as late rows, once.

    Dates are Korean, when the frames were received; of a range every date, with a session or without. For after an upgrade, or
    after a forgotten instrument was added to the settings. What still does not decode stays quarantined. Exit 75 while a process
    may still write to such a date.

    Example: collectorctl reprocess --date 2026-11-20 --dry-run
    """
    from collectorctl.commands.ranges import DayProgress, DayResult, finish_range
    from collectorctl.reprocess.job import reprocess as again

    home = Home(root)
    chosen = days.resolve(home, closed_too=True)
    if not days.is_range:
        report = again(home, chosen[0], dry_run)
        if as_json:
            echo_json(msgspec.to_builtins(report))
        for line in () if as_json else _describe_reprocessing(report):
            echo(line)
        return
    results = []
    console = wide_console(stderr=as_json)
    with DayProgress(console, len(chosen)) as progress:
        for day in chosen:
            try:
                report = again(home, day, dry_run)
                results.append(DayResult(day, 0, "done", "; ".join(_describe_reprocessing(report)), report))
            except AlreadyRunning as error:
                results.append(DayResult(day, EXIT_ALREADY_RUNNING, "busy", str(error)))
            progress.on_day()
    sys.exit(finish_range(console, results, as_json))


def _describe_reprocessing(report: ReprocessReport) -> list[str]:
    lines = []
    if report.finished:
        lines.append(f"finished {report.finished} batches of an earlier run that had been interrupted")
    lines += [f"{name:<8} {count} frames decode now" for name, count in report.frames.items()]
    rows = ", ".join(f"{count} {stream} rows" for stream, count in report.rows.items()) or "no rows"
    covered = f", {report.ticks_covered} ticks whose shares are stored already" if report.ticks_covered else ""
    lines.append(
        f"{'would be stored' if report.dry_run else 'stored'}: {rows}; {report.already_stored} books the other broker had "
        f"delivered{covered}"
    )
    return lines + [f"still quarantined: {count} x {reason}" for reason, count in report.remaining.items()]


@click.command()
@day_options
@market_option
@click.option("--symbols", default="", help="Comma-separated [default: what has a certificate or a row on that day].")
@click.option("--format", "form", type=click.Choice(["csv", "hftbacktest", "nautilus"]), required=True)
@click.option(
    "--out",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Where a directory for each day is made.",
)
@click.option(
    "--uncertified", is_flag=True, help="Export also what has no certificate, or one that the files contradict."
)
@as_json_option
@click.pass_obj
def export(
    root: Path,
    days: DayChoice,
    market: str,
    symbols: str,
    form: str,
    directory: Path,
    uncertified: bool,
    as_json: bool,
) -> None:
    """Write days in the format of another program, with their gaps and certificates.

    DIR/DATE appears as a whole and is never replaced; gaps.csv.gz and manifest.json in it say what is missing, how sure the day is,
    and the hash of each file. Exit 1 unless every day is exported and every instrument is PROVEN or RECONCILED, which no US day is.

    Example: collectorctl export --last 20d --format hftbacktest --out ~/backtest
    """
    from collectorctl.export.command import export as work
    from collectorctl.export.day import ExportRequest

    sys.exit(work(Home(root), days, symbols, ExportRequest(directory, form, (), uncertified, MARKETS[market]), as_json))


@click.command()
@choose_days("--until")
@market_option
@click.option("--to", "url", required=True, help="A directory, or a URL that fsspec knows, such as s3://bucket/path.")
@click.option(
    "--check", is_flag=True, help="Copy nothing: read back every copied day, and compare it with its manifest."
)
@as_json_option
@click.pass_obj
def copy(root: Path, days: DayChoice, market: str, url: str, check: bool, as_json: bool) -> None:
    """Copy certified days to another place, read back and compared there, with a manifest of hashes.

    May be killed and repeated at any time: what is there is not sent again. The copy is a home by itself: `collectorctl --home DIR
    verify` works in it. Exit 1 unless every day is copied and every instrument is PROVEN or RECONCILED, which no US day is.

    Example: collectorctl copy --last 20d --to /mnt/archive
    """
    from collectorctl.copy.command import check as check_copies
    from collectorctl.copy.command import copy as work

    if check and any(days):
        raise usage_error("--check reads all copied days: name none")
    sys.exit(check_copies(url, as_json) if check else work(Home(root), days, MARKETS[market], url, as_json))


@click.command()
@click.option("--date", "date_text", required=True, help="The trading day: 2026-11-20, 20261120, yesterday.")
@click.option(
    "--from",
    "others",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    multiple=True,
    help="Another home, or the place of a copy; several times for several.",
)
@click.option(
    "--into", "target", type=click.Path(path_type=Path), required=True, help="The new directory with the joined day."
)
@as_json_option
@click.pass_obj
def join(root: Path, date_text: str, others: tuple[Path, ...], target: Path, as_json: bool) -> None:
    """Put a day together that this home and others collected, on several hosts, into a new directory.

    Books that several have are merged as the writer merges feeds, ticks by cumulative volume, other instruments are added. The
    day is certified again. DIR appears as a whole, nothing else is changed. Exit 1 unless every instrument is PROVEN or RECONCILED.

    Example: collectorctl join --date 2026-11-20 --from /mnt/host-b --into /mnt/joined/2026-11-20
    """
    import pyarrow as pa

    from collectorctl.commands.ranges import DayResult, count_grades, finish_range, work_on_days
    from collectorctl.export.certified import NotHandedOn
    from collectorctl.join.job import join_day
    from writer.publish.verified_file import PartitionWriteError

    home, console = Home(root), wide_console(stderr=as_json)
    roots = [home.root, *(one.resolve() for one in others)]
    if len(set(roots)) < len(roots):
        raise usage_error("--from: names a home twice, or this one: name each other home once")

    def work(day: date, on_step: Callable[[int, int], None]) -> DayResult:
        manifest, found = join_day(roots, day, target.absolute(), on_step)
        rows = ", ".join(
            f"{sum(one.joined[name] for one in found.instruments):,} {name}" for name in ("orderbook", "tick")
        )
        note = f"{count_grades(one.certificate for one in manifest.instruments)}; {rows} rows of {len(roots)} homes"
        return DayResult(
            day, 0 if manifest.is_whole else EXIT_BUG, "joined" if manifest.is_whole else "not whole", note, found
        )

    refusals = NotHandedOn, PartitionWriteError, OSError, pa.ArrowException
    days = DayChoice(date_text, "", "", "").resolve(home)
    sys.exit(finish_range(console, work_on_days(console, days, work, refusals, "not joined"), as_json))
