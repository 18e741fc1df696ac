"""Commands that act on the files of a day: recover, verify, reprocess, export.

Guarantees:
    * Each may be repeated.
"""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

import click
import msgspec

from collectorctl.commands.options import DayChoice, as_json_option, day_options, market_option
from collectorctl.terminal import echo, echo_json, usage_error
from conf.home import Home
from conf.market import MARKETS


@click.command()
@click.option("--date", "text", required=True, help="The trading day: 2026-11-20, 20261120, today, yesterday.")
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
    root: Path, text: str, market: str, symbols: str, mode: str, budget: str, dry_run: bool, as_json: bool
) -> None:
    """Fetch the ticks that are missing of a day, and certify it. Exit 1 unless every instrument has what was asked for.

    After the close; may be killed and repeated at any time. Certificates: PROVEN, RECONCILED, MINUTE_ONLY, INCOMPLETE.
    Of US days no trades can be had: --market us stores minute bars, and the certificate is MINUTE_ONLY.

    Example: collectorctl recover --date 2026-11-20 --budget 2h
    """
    from collectorctl.recover.command import recover as work
    from collectorctl.recover.command import recover_us

    if market == "us":
        if mode == "ticks" or budget:
            raise usage_error("the US market has no list of trades: minute bars only, without --budget")
        sys.exit(recover_us(Home(root), text, symbols, dry_run, as_json))
    sys.exit(work(Home(root), text, symbols, mode, budget, dry_run, as_json))


@click.command()
@click.option("--date", "text", required=True, help="The trading day: 2026-11-20, 20261120, today, yesterday.")
@market_option
@as_json_option
@click.pass_obj
def verify(root: Path, text: str, market: str, as_json: bool) -> None:
    """Make the certificates of a day again, from files alone. Exit 1 when one does not hold or does not say the day is whole.

    Example: collectorctl verify --date 2026-11-20
    """
    from collectorctl.recover.command import verify as work

    sys.exit(work(Home(root), text, as_json, MARKETS[market]))


@click.command()
@click.option(
    "--date", type=click.DateTime(["%Y-%m-%d"]), required=True, help="The Korean date the frames were received on."
)
@click.option("--dry-run", is_flag=True, help="Report what would be stored; change nothing.")
@as_json_option
@click.pass_obj
def reprocess(root: Path, date: datetime, dry_run: bool, as_json: bool) -> None:
    """Decode the quarantined frames of a date again, and store what decodes now as late rows, once.

    For after an upgrade, or after a forgotten instrument was added to the settings. What still does not decode stays quarantined.
    Exit 75 while a process may still write to that date.

    Example: collectorctl reprocess --date 2026-11-20 --dry-run
    """
    from collectorctl.reprocess.job import reprocess as again

    report = again(Home(root), date.date(), dry_run)
    if as_json:
        echo_json(msgspec.to_builtins(report))
        return
    if report.finished:
        echo(f"finished {report.finished} batches of an earlier run that had been interrupted")
    for name, count in report.frames.items():
        echo(f"{name:<8} {count} frames decode now")
    rows = ", ".join(f"{count} {stream} rows" for stream, count in report.rows.items()) or "no rows"
    echo(
        f"{'would be stored' if dry_run else 'stored'}: {rows}; {report.already_stored} books the other broker had delivered"
        f"{f', {report.ticks_covered} ticks whose shares are stored already' if report.ticks_covered else ''}"
    )
    for reason, count in report.remaining.items():
        echo(f"still quarantined: {count} x {reason}")


@click.command()
@day_options
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
    root: Path, days: DayChoice, symbols: str, form: str, directory: Path, uncertified: bool, as_json: bool
) -> None:
    """Write days of the Korean market in the format of another program, with their gaps and certificates.

    DIR/DATE appears as a whole and is never replaced; gaps.csv.gz and manifest.json in it say what is missing, how sure the day is,
    and the hash of each file. Exit 1 unless every day is exported and every instrument is PROVEN or RECONCILED.

    Example: collectorctl export --last 20d --format hftbacktest --out ~/backtest
    """
    from collectorctl.export.command import export as work
    from collectorctl.export.day import ExportRequest

    sys.exit(work(Home(root), days, symbols, ExportRequest(directory, form, (), uncertified), as_json))
