"""Commands that look: status, logs, tail, explain, report.

Guarantees:
    * They work whether or not the home is running.
"""

from __future__ import annotations

import atexit
import gc
import os
import subprocess
import sys
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import click
import msgspec

from collectorctl.commands.options import DayChoice, as_json_option, day_options, market_option
from collectorctl.terminal import clear_screen, echo, echo_json, usage_error, wide_console, wrapped_console
from conf.clock import to_kst
from conf.home import Home
from conf.loader import SETTINGS_FILE
from conf.text.language import LANGUAGES, Language, choose_language

if TYPE_CHECKING:  # loading them takes longer than most commands
    from collectorctl.supervision.status import Status
    from collectorctl.verdict import Verdict

STATUS_SCHEMA = 1
"""Version of the JSON of `status`: changed when a field changes its meaning or goes."""

EXIT_USAGE = 2
EXIT_NO_HOME = 4


@click.command()
@as_json_option
@click.option("--counters", is_flag=True, help="Show every counter.")
@click.option("--wide", is_flag=True, help="Show pids, heartbeats, memory and latencies as well.")
@click.option("--line", "as_line", is_flag=True, help="The verdict alone, in one line: for tmux, phones, log files.")
@click.option("--watch", "every_s", type=click.FloatRange(min=0.5), help="Show it again every so many seconds.")
@click.pass_obj
def status(root: Path, as_json: bool, counters: bool, wide: bool, as_line: bool, every_s: float | None) -> None:
    """Whether the day is safe, and how every process is doing.

    Exit 0: safe. 1: something is not healthy now and is repaired. 2: something was lost today, or a person is needed. 3: stopped
    on purpose. 4: there is no home here.

    Example: collectorctl status --json
    """
    from collectorctl.supervision.status_table import print_status, print_verdict
    from collectorctl.symbols.names import read_names

    if not (root / SETTINGS_FILE).exists():
        echo(f"{root}: no {SETTINGS_FILE}: no home is here: run `collectorctl init`, or name one with --home", err=True)
        sys.exit(EXIT_NO_HOME)
    atexit.register(gc.freeze)  # an eighth of its time went into a collection of what ends anyway
    home = Home(root)
    language = "en" if as_json else choose_language(home.settings.ui.language)
    while True:
        snapshot, verdict = judge_home(home, language)
        if every_s is not None:
            clear_screen()
        if as_json:
            echo_json({"schema": STATUS_SCHEMA, "verdict": verdict} | msgspec.to_builtins(snapshot))
        elif as_line:
            echo(format_verdict_line(verdict, snapshot.now))
        else:
            console = wrapped_console()
            names = read_names(home)
            print_verdict(verdict, console, language, names)
            print_status(snapshot, console, counters, wide, language, names)
        if every_s is None:
            sys.exit(verdict.level)
        time.sleep(every_s)


def judge_home(home: Home, language: Language = "en") -> tuple[Status, Verdict]:
    """The status of a home, and the verdict on its day with messages in `language`."""
    from collectorctl.supervision.status import collect_status
    from collectorctl.verdict import collect_evidence, judge

    snapshot = collect_status(home, language)
    return snapshot, judge(collect_evidence(home, snapshot), home.load_calendar(), language)


def format_verdict_line(verdict: Verdict, now: str) -> str:
    """The verdict in one line, for a status bar: its level, and the worst finding or the time."""
    if not verdict.findings:
        return f"{verdict.level.name} {now}"
    worst = verdict.findings[0]
    more = f" (+{len(verdict.findings) - 1})" if len(verdict.findings) > 1 else ""
    return f"{verdict.level.name} {worst.code} {worst.subject}{more}"


@click.command()
@click.option("--note", default="", help="Why they are no concern any more.")
@click.pass_obj
def acknowledge(root: Path, note: str) -> None:
    """Acknowledge the losses up to now: they no longer count in the verdict of `status`; later ones do.

    Example: collectorctl acknowledge --note "box was moved"
    """
    from collectorctl.verdict import acknowledge as acknowledge_losses

    home = Home(root)
    until_ns = acknowledge_losses(home, note).until_ns
    echo(f"acknowledged up to {to_kst(until_ns):%Y-%m-%d %H:%M:%S} KST")


@click.command()
@click.argument("name")
@click.option("-n", "--lines", default=50, show_default=True, help="Number of last lines.")
@click.option("-f", "--follow", is_flag=True, help="Follow what is written.")
@click.pass_obj
def logs(root: Path, name: str, lines: int, follow: bool) -> None:
    """The log of a process.

    Example: collectorctl logs kis -f
    """
    home = Home(root)
    file = home.log / f"{name}.log"
    if not file.exists():
        known = sorted(path.stem for path in home.log.glob("*.log"))
        raise usage_error(f"{name}: there is no such log; there are: {', '.join(known) or 'none yet'}")
    command = ["tail", "-n", str(lines), *(["-F", f"--pid={os.getpid()}"] if follow else []), "--", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as reader, suppress(KeyboardInterrupt):
        for line in cast(IO[bytes], reader.stdout):  # opened with PIPE
            echo(line.removesuffix(b"\n").decode(errors="backslashreplace"))
    sys.exit(max(reader.returncode, 0))


@click.command()
@click.argument("stream", type=click.Choice(["orderbook", "tick", "event"]), default="tick")
@market_option
@click.option("-n", "--rows", default=10, show_default=True, help="Number of last rows.")
@click.option("-f", "--follow", is_flag=True, help="Follow what arrives.")
@as_json_option
@click.pass_obj
def tail(root: Path, stream: str, market: str, rows: int, follow: bool, as_json: bool) -> None:
    """The newest rows of the current hour, out of the writer's journal.

    Example: collectorctl tail orderbook -n 5 --json
    """
    from conf.arrow import load_arrow_without_pandas

    if not as_json:  # JSON has nanoseconds
        load_arrow_without_pandas()
    from collectorctl.tail import format_row, read_newest_rows

    for row in read_newest_rows(Home(root), f"{market}.{stream}", rows, follow, is_exact=as_json):
        echo_json(row, indent=0) if as_json else echo(format_row(stream, row))


@click.command()
@click.argument("symbol")
@click.argument("time")
@click.option("--window", "window_s", default=2.0, show_default=True, help="Seconds before and after, market time.")
@as_json_option
@click.pass_obj
def explain(root: Path, symbol: str, time: str, window_s: float, as_json: bool) -> None:
    """What each feed delivered of SYMBOL around TIME, which was first and why, and file and row.

    SYMBOL is written as in the settings (005930, 005930_NX, NAS.AAPL); TIME is exchange time, 09:31:05.5 of today or
    2026-11-20T09:31:05. Gaps, outages of each feed, events and the certificate of the day are shown as well.

    Example: collectorctl explain 005930 2026-11-20T09:31:05
    """
    from collectorctl.explain.render import format_timeline
    from collectorctl.explain.timeline import build_timeline as what_happened
    from conf.instrument import parse_instrument

    home = Home(root)
    try:
        instrument = parse_instrument(symbol)
        at = parse_time(time, instrument.market.to_local(home.load_clock().now_ns()))
    except ValueError as error:
        raise usage_error(str(error)) from None
    timeline = what_happened(home, instrument, at, window_s)
    if as_json:
        echo_json(timeline)
        return
    console = wrapped_console()
    for line in format_timeline(timeline):
        console.print(line)


@click.command()
@day_options
@click.option(
    "--symbol", default="", help="Whose price and depth are shown [default: with the largest number of books]."
)
@click.option("--language", type=click.Choice(LANGUAGES), help="[default: of the settings or the locale]")
@as_json_option
@click.pass_obj
def report(root: Path, days: DayChoice, symbol: str, language: Language | None, as_json: bool) -> None:
    """Write the page of a day, one HTML file: what came and what did not, by minute, and the certificates.

    It lies in data/report, with an index of all days, and is written by itself when the day is certified.

    Example: collectorctl report --date 2026-11-20
    """
    from collectorctl.commands.ranges import DayProgress, DayResult, finish_range
    from collectorctl.report.store import NothingToReport, write_report
    from conf.instrument import parse_instrument

    home = Home(root)
    chosen = days.resolve(home)
    try:
        shown = parse_instrument(symbol) if symbol else None
    except ValueError as error:
        raise usage_error(str(error)) from None
    results = []
    console = wide_console(stderr=as_json)
    with DayProgress(console, len(chosen)) as progress:
        for day in chosen:
            try:
                written = write_report(home, day, language, shown)
                found = written._asdict() | {"path": str(written.path)}
                results.append(DayResult(day, 0, written.outcome, str(written.path), found))
            except NothingToReport as error:
                results.append(DayResult(day, EXIT_USAGE, "nothing", str(error)))
            progress.on_day()
    if days.is_range:
        sys.exit(finish_range(console, results, as_json))
    one = results[0]
    if one.result is None:
        raise usage_error(one.note)
    if as_json:
        echo_json(one.result)
        return
    echo(f"{one.outcome} {one.day}: {one.note}")
    for finding in one.result["findings"]:
        echo(f"  {finding}")


def parse_time(text: str, now: datetime) -> datetime:
    """A time of the day of `now`, or a date and time, in the zone of `now`. ValueError."""
    for form in ("%H:%M:%S.%f", "%H:%M:%S", "%H:%M"):
        with suppress(ValueError):
            return datetime.combine(now.date(), datetime.strptime(text, form).time(), now.tzinfo)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time: write 09:31:05 or 2026-11-20T09:31:05") from None
    return at.astimezone(now.tzinfo) if at.tzinfo else at.replace(tzinfo=now.tzinfo)
