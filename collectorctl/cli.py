"""The commands: what each is called, takes and returns; the work is done in the module of the same name.

    exit 0 done   1 failed   2 usage   75 busy   78 configuration

Promises: every reporting command speaks JSON with --json; an error is one line on stderr that says what, where, what to do.
Leaves to others: all work.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from brokers.broker import PlanError
from collectorctl.daemon import Daemon, DaemonError
from conf.home import Home
from conf.process import EXIT_BUG, EXIT_BUSY, EXIT_CONFIG, Busy
from conf.settings import SettingsError

_EXIT = {SettingsError: EXIT_CONFIG, PlanError: EXIT_CONFIG, Busy: EXIT_BUSY, DaemonError: EXIT_BUG}


class _Commands(click.Group):
    """Commands whose foreseen errors become one line and an exit status that means something."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except tuple(_EXIT) as error:
            click.echo(f"collectorctl: {error}", err=True)
            ctx.exit(_EXIT[type(error)])


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--home",
    "root",
    type=click.Path(path_type=Path),
    envvar="COLLECTOR_HOME",
    default=".",
    help="The installation to act on [COLLECTOR_HOME; default: the current directory].",
)
@click.version_option(package_name="collectorctl")
@click.pass_context
def main(ctx: click.Context, root: Path) -> None:
    """Collect Korean market data from two brokers at once, and never have to apologise for it."""
    ctx.obj = root


@main.command()
@click.argument("directory", type=click.Path(path_type=Path), required=False)
@click.pass_obj
def init(root: Path, directory: Path | None) -> None:
    """Lay out a home: collector.toml, supervisord.conf, .env.example. Nothing that exists is touched.

    Example: collectorctl init ~/collector
    """
    from collectorctl.init import lay_out

    for path, made in lay_out(directory or root):
        click.echo(f"{'made' if made else 'kept'}  {path}")
    click.echo("Next: edit collector.toml, copy .env.example to .env (mode 0600), then `collectorctl check`.")


@main.command()
@_as_json
@click.pass_obj
def check(root: Path, as_json: bool) -> None:
    """Check settings, secrets and registrations without starting anything.

    Example: collectorctl check
    """
    from collectorctl.check import findings

    found = findings(Home(root))
    if as_json:
        click.echo(_json(found))
    else:
        for line in found["lines"]:
            click.echo(f"{line['name']:<8} {line['books']} books, {line['ticks']} ticks: "
                       f"{line['registrations']} of {line['limit']} registrations")  # fmt: skip
        click.echo("ok: settings, secrets and registrations are in order")


@main.command()
@click.option("--wait", "wait_s", default=60.0, show_default=True, help="Longest wait for health, seconds.")
@click.pass_obj
def start(root: Path, wait_s: float) -> None:
    """Start every process and return when all are healthy, or say which is not and why.

    Example: collectorctl start
    """
    from collectorctl.check import findings
    from collectorctl.health import wait_until_healthy

    home = Home(root)
    findings(home)
    home.make()
    new = Daemon(home).start()
    click.echo("started" if new else "was running")
    _report_health(wait_until_healthy(home, wait_s))


@main.command()
@click.pass_obj
def stop(root: Path) -> None:
    """Stop every process: brokers first, then the writer, which drains to zero and publishes.

    Example: collectorctl stop
    """
    from collectorctl.health import last_words

    home = Home(root)
    daemon = Daemon(home)
    if daemon.pid() is None:
        click.echo("nothing runs here")
        return
    before: list[str] = []
    for left in daemon.stop():
        if left != before and left:
            click.echo(f"waiting for {', '.join(left)}")
        before = left
    for name, words in last_words(home):
        click.echo(f"{name:<9}{words}")
    click.echo("stopped")


@main.command()
@click.argument("name")
@click.option("--wait", "wait_s", default=60.0, show_default=True, help="Longest wait for health, seconds.")
@click.pass_obj
def restart(root: Path, name: str, wait_s: float) -> None:
    """Restart one process; the others do not notice.

    Example: collectorctl restart kis
    """
    from collectorctl.health import wait_until_healthy

    home = Home(root)
    daemon = Daemon(home)
    daemon.stop_program(name)
    daemon.start_program(name)
    _report_health(wait_until_healthy(home, wait_s, [name]))


@main.command()
@_as_json
@click.option("--counters", is_flag=True, help="Show every counter.")
@click.pass_obj
def status(root: Path, as_json: bool, counters: bool) -> None:
    """How every process is doing, judged by its vitals. Exit 1 when one is not healthy.

    Example: collectorctl status --json
    """
    from collectorctl.status import look
    from collectorctl.table import show_status

    seen = look(Home(root))
    if as_json:
        click.echo(_json(msgspec.to_builtins(seen)))
    else:
        show_status(seen, counters)
    sys.exit(0 if seen.healthy else 1)


@main.command()
@click.argument("name")
@click.option("-n", "--lines", default=50, show_default=True, help="How many of the last lines.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written.")
@click.pass_obj
def logs(root: Path, name: str, lines: int, follow: bool) -> None:
    """The log of a process.

    Example: collectorctl logs kis -f
    """
    home = Home(root)
    file = home.log / f"{name}.log"
    if not file.exists():
        known = sorted(path.stem for path in home.log.glob("*.log"))
        raise click.UsageError(f"{name}: there is no such log; there are: {', '.join(known) or 'none yet'}")
    os.execvp("tail", ["tail", "-n", str(lines), *(["-F"] if follow else []), str(file)])


@main.command()
@click.argument("stream", type=click.Choice(["orderbook", "tick"]), default="tick")
@click.option("-n", "--rows", default=10, show_default=True, help="How many of the last rows.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what arrives.")
@_as_json
@click.pass_obj
def tail(root: Path, stream: str, rows: int, follow: bool, as_json: bool) -> None:
    """The newest rows of the current hour, out of the writer's journal.

    Example: collectorctl tail orderbook -n 5 --json
    """
    from collectorctl.tail import newest, render

    for row in newest(Home(root), stream, rows, follow):
        click.echo(_json(row, indent=0) if as_json else render(stream, row))


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def simulate(root: Path, options: tuple[str, ...]) -> None:
    """Serve KIS and Kiwoom from one seeded market, or recorded frames; commands on stdin cause faults.

    Prints the addresses to put into collector.toml. `collectorctl simulate --help` lists all options.

    Example: collectorctl simulate --truth /tmp/truth --fault kis:drop@30
    """
    os.execv(sys.executable, [sys.executable, "-m", "brokers.simulator", "--home", str(root), *options])


@main.command()
@click.option("--seconds", default=60.0, show_default=True, help="How long the market runs, real seconds.")
@click.option(
    "--home", "where", type=click.Path(path_type=Path), help="Use and keep this home [default: a temporary one]."
)
@click.option("--seed", default=1, show_default=True, help="The market's seed.")
@_as_json
def demo(seconds: float, where: Path | None, seed: int, as_json: bool) -> None:
    """Rehearse a morning without keys or network, then compare the files with the simulator's truth.

    Example: collectorctl demo --seconds 60
    """
    from collectorctl.demo import rehearse

    sys.exit(rehearse(where, seconds, seed, as_json))


@main.command()
@click.option("--date", "text", required=True, help="The Korean trading day: 2026-11-20, 20261120, today, yesterday.")
@click.option("--symbols", default="", help="Comma-separated [default: the universe and what has ticks on that day].")
@click.option("--mode", type=click.Choice(["ticks", "minutes", "auto"]), default="auto", show_default=True)
@click.option(
    "--budget", default="", help="Longest time for fetching ticks, e.g. 2h; what does not fit gets minute bars."
)
@click.option("--dry-run", is_flag=True, help="Show what is missing and what it takes; write nothing.")
@_as_json
@click.pass_obj
def recover(root: Path, text: str, symbols: str, mode: str, budget: str, dry_run: bool, as_json: bool) -> None:
    """Fetch the ticks that are missing of a day, and certify it. Exit 1 unless every instrument has what was asked for.

    After the close; may be killed and repeated at any time. Certificates: PROVEN, RECONCILED, MINUTE_ONLY, INCOMPLETE.

    Example: collectorctl recover --date 2026-11-20 --budget 2h
    """
    from collectorctl.recover.command import recover as work

    sys.exit(work(Home(root), text, symbols, mode, budget, dry_run, as_json))


@main.command()
@click.option("--date", "text", required=True, help="The Korean trading day: 2026-11-20, 20261120, today, yesterday.")
@_as_json
@click.pass_obj
def verify(root: Path, text: str, as_json: bool) -> None:
    """Make the certificates of a day again, from files alone. Exit 1 when one does not hold or does not say the day is whole.

    Example: collectorctl verify --date 2026-11-20
    """
    from collectorctl.recover.command import verify as work

    sys.exit(work(Home(root), text, as_json))


@main.command()
@click.option(
    "--date", type=click.DateTime(["%Y-%m-%d"]), required=True, help="The Korean date the frames were received on."
)
@click.option("--dry-run", is_flag=True, help="Say what would be placed; change nothing.")
@_as_json
@click.pass_obj
def requarantine(root: Path, date: datetime, dry_run: bool, as_json: bool) -> None:
    """Decode the frames that were put aside on a date again, and place what is understood now as late rows, once.

    For after an upgrade, or after a forgotten instrument was added to the settings. What still is not understood stays where it is.
    Exit 75 while a process may still write to that date.

    Example: collectorctl requarantine --date 2026-11-20 --dry-run
    """
    from collectorctl.requarantine.again import requarantine as again

    report = again(Home(root), date.date(), dry_run)
    if as_json:
        click.echo(_json(msgspec.to_builtins(report)))
        return
    if report.finished:
        click.echo(f"finished {report.finished} batches of an earlier run that had been interrupted")
    for name, count in report.frames.items():
        click.echo(f"{name:<8} {count} frames are understood now")
    rows = ", ".join(f"{count} {stream} rows" for stream, count in report.rows.items()) or "no rows"
    click.echo(
        f"{'would be placed' if dry_run else 'placed'}: {rows}; {report.already_stored} books the other broker had delivered"
    )
    for reason, count in report.remaining.items():
        click.echo(f"still put aside: {count} x {reason}")


def _report_health(complaints: list[tuple[str, str]]) -> None:
    for name, complaint in complaints:
        click.echo(f"{name}: not healthy: {complaint}", err=True)
    if complaints:
        sys.exit(EXIT_BUG)
    click.echo("healthy")


def _json(value: object, indent: int = 2) -> str:
    encoded = msgspec.json.encode(value, enc_hook=str)
    return (msgspec.json.format(encoded, indent=indent) if indent else encoded).decode()
