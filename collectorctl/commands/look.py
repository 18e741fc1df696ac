"""Commands that look at what runs and change nothing: status, logs, tail.

Promises: they work while everything runs, and when nothing does.
Leaves to others: what is seen (status.py, tail.py) and how it looks (table.py).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import msgspec

from collectorctl.commands.form import as_json_option, json_text, market_option
from conf.home import Home


@click.command()
@as_json_option
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
        click.echo(json_text(msgspec.to_builtins(seen)))
    else:
        show_status(seen, counters)
    sys.exit(0 if seen.healthy else 1)


@click.command()
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


@click.command()
@click.argument("stream", type=click.Choice(["orderbook", "tick", "event"]), default="tick")
@market_option
@click.option("-n", "--rows", default=10, show_default=True, help="How many of the last rows.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what arrives.")
@as_json_option
@click.pass_obj
def tail(root: Path, stream: str, market: str, rows: int, follow: bool, as_json: bool) -> None:
    """The newest rows of the current hour, out of the writer's journal.

    Example: collectorctl tail orderbook -n 5 --json
    """
    from collectorctl.tail import newest, render

    for row in newest(Home(root), f"{market}.{stream}", rows, follow):
        click.echo(json_text(row, indent=0) if as_json else render(stream, row))
