"""Commands that start and stop the process tree: start, stop, restart.

Promises: each returns when what it asked for is so, or says what is not and why.
Leaves to others: supervisord (daemon.py), judging (health.py).
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from collectorctl.supervision.supervisor import Daemon
from conf.home import Home
from conf.process import EXIT_BUG


@click.command()
@click.option("--wait", "wait_s", default=60.0, show_default=True, help="Longest wait for health, seconds.")
@click.pass_obj
def start(root: Path, wait_s: float) -> None:
    """Start every process and return when all are healthy, or say which is not and why.

    Example: collectorctl start
    """
    from collectorctl.check import findings
    from collectorctl.supervision.readiness import wait_until_healthy

    home = Home(root)
    findings(home)
    home.make()
    new = Daemon(home).start()
    click.echo("started" if new else "was running")
    _report_health(wait_until_healthy(home, wait_s))


@click.command()
@click.pass_obj
def stop(root: Path) -> None:
    """Stop every process: brokers first, then the writer, which drains to zero and publishes.

    Example: collectorctl stop
    """
    from collectorctl.supervision.readiness import last_words

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


@click.command()
@click.argument("name")
@click.option("--wait", "wait_s", default=60.0, show_default=True, help="Longest wait for health, seconds.")
@click.pass_obj
def restart(root: Path, name: str, wait_s: float) -> None:
    """Restart one process; the others do not notice.

    Example: collectorctl restart kis
    """
    from collectorctl.supervision.readiness import wait_until_healthy

    home = Home(root)
    daemon = Daemon(home)
    daemon.stop_program(name)
    daemon.start_program(name)
    _report_health(wait_until_healthy(home, wait_s, [name]))


def _report_health(complaints: list[tuple[str, str]]) -> None:
    for name, complaint in complaints:
        click.echo(f"{name}: not healthy: {complaint}", err=True)
    if complaints:
        sys.exit(EXIT_BUG)
    click.echo("healthy")
