"""Commands that act on the files of a day: recover, verify, reprocess, export, copy.

Guarantees:
    * Each may be repeated.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from collectorctl.commands.options import DayChoice, as_json_option, choose_days, day_options, market_option
from collectorctl.terminal import echo, echo_json, usage_error, wide_console
from conf.home import Home
from conf.market import MARKETS
from conf.process import EXIT_ALREADY_RUNNING, AlreadyRunning

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
    Certificates: PROVEN, RECONCILED, MINUTE_ONLY, INCOMPLETE.
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
@day_options
@market_option
@click.option(
    "--jobs", default=1, show_default=True, type=click.IntRange(1, 256), help="Processes for the days of a range."
)
@as_json_option
@click.pass_obj
def verify(root: Path, days: DayChoice, market: str, jobs: int, as_json: bool) -> None:
    """Make the certificates of days again, from files alone. Exit 1 when one does not hold or does not say the day is whole.

    Example: collectorctl verify --last 20d --jobs 2
    """
    from collectorctl.recover.command import verify as work

    sys.exit(work(Home(root), days, jobs, as_json, MARKETS[market]))


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
@click.option("--to", "url", required=True, help="A directory, or a URL that fsspec knows, such as s3://bucket/path.")
@click.option(
    "--check", is_flag=True, help="Copy nothing: read back every copied day, and compare it with its manifest."
)
@as_json_option
@click.pass_obj
def copy(root: Path, days: DayChoice, url: str, check: bool, as_json: bool) -> None:
    """Copy certified days of the Korean market to another place, read back and compared there, with a manifest of hashes.

    May be killed and repeated at any time: what is there is not sent again. The copy is a home by itself: `collectorctl --home DIR
    verify` works in it. Exit 1 unless every day is copied and every instrument is PROVEN or RECONCILED.

    Example: collectorctl copy --last 20d --to /mnt/archive
    """
    from collectorctl.copy.command import check as check_copies
    from collectorctl.copy.command import copy as work

    if check and any(days):
        raise usage_error("--check reads all copied days: name none")
    sys.exit(check_copies(url, as_json) if check else work(Home(root), days, url, as_json))
