"""Commands that start, stop and change the process tree: start, stop, restart, reload.

Guarantees:
    * Each returns when its goal is reached, or reports what is missing and why.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from collectorctl.commands.options import as_json_option
from collectorctl.terminal import echo, echo_json
from conf.home import Home
from conf.instrument import parse_instrument
from conf.market import KR
from conf.process import EXIT_BUG


@click.command()
@click.option("--wait", "wait_s", default=60.0, show_default=True, help="Longest wait for health, seconds.")
@click.pass_obj
def start(root: Path, wait_s: float) -> None:
    """Start every process and return when all are healthy, or say which is not and why.

    If nothing runs yet, expressions in [universe] are resolved by the newest table of symbols, and stay so until `reload`.

    Example: collectorctl start
    """
    from collectorctl.check import reject_keys_in_use, require_startable
    from collectorctl.supervision.readiness import wait_until_healthy
    from collectorctl.supervision.supervisor import SupervisorClient
    from collectorctl.symbols.resolve import start_universe

    require_startable(root)
    home = Home(root)
    reject_keys_in_use(home)
    home.create_directories()
    new = SupervisorClient(home).start(lambda: start_universe(home))
    home = Home(root)  # with the list that is in force now
    echo("started" if new else "was running")
    _report_health(wait_until_healthy(home, wait_s))


@click.command()
@click.pass_obj
def stop(root: Path) -> None:
    """Stop every process: brokers first, then the writer, which drains to zero and publishes.

    Example: collectorctl stop
    """
    from collectorctl.supervision.readiness import final_states
    from collectorctl.supervision.supervisor import SupervisorClient

    home = Home(root)
    supervisor = SupervisorClient(home)
    if supervisor.find_pid() is None:
        echo("nothing runs here")
        return
    previous: list[str] = []
    for running in supervisor.stop():
        if running != previous and running:
            echo(f"waiting for {', '.join(running)}")
        previous = running
    for name, state in final_states(home):
        echo(f"{name:<9}{state}")
    echo("stopped")


@click.command()
@click.argument("name")
@click.option("--wait", "wait_s", default=60.0, show_default=True, help="Longest wait for health, seconds.")
@click.pass_obj
def restart(root: Path, name: str, wait_s: float) -> None:
    """Restart one process; the others do not notice.

    Example: collectorctl restart kis
    """
    from collectorctl.supervision.readiness import wait_until_healthy
    from collectorctl.supervision.supervisor import SupervisorClient

    home = Home(root)
    supervisor = SupervisorClient(home)
    supervisor.stop_program(name)
    supervisor.start_program(name)
    _report_health(wait_until_healthy(home, wait_s, [name]))


@click.command()
@click.option(
    "--wait", "wait_s", default=60.0, show_default=True, help="Longest wait until the feeds have it, seconds."
)
@as_json_option
@click.pass_obj
def reload(root: Path, wait_s: float, as_json: bool) -> None:
    """Take up a changed [universe], codes or expressions, without a restart; the books of what is kept go on.

    It is judged as by `check` first (exit 78, and nothing changes). Then the collectors subscribe to what is new and unsubscribe
    what went, on the connections that they have. Exit 1 if one has not in time. Other settings need a restart.

    Example: collectorctl reload
    """
    from collectorctl.backfill.candidates import find_candidates, format_offer
    from collectorctl.supervision.reload import reload_universe

    home = Home(root)
    report = reload_universe(home, wait_s)
    if as_json:
        echo_json(msgspec.to_builtins(report))
        sys.exit(EXIT_BUG if report.unhealthy else 0)
    for name, connections in (("before", report.before), ("after", report.after)):
        for one in connections:
            echo(
                f"{name:<8} {one.feed} key {one.key}: {one.books} books, {one.ticks} ticks: {one.slots} of {one.limit} slots"
            )
    for name, codes in (("added", report.added), ("removed", report.removed), ("moved", report.moved)):
        echo(f"{name:<8} {len(codes)}{': ' if codes else ''}{', '.join(codes)}")
    for shortfall in report.shortfalls:
        echo(f"short    {shortfall}")
    if new := find_candidates(home, [one for one in report.added if parse_instrument(one).market is KR]):
        echo(f"past     {format_offer(new)}")
    if not report.is_running:
        echo("nothing runs here: the next start takes it up")
        return
    _report_health(report.unhealthy)


def _report_health(unhealthy: list[tuple[str, str]]) -> None:
    for name, reason in unhealthy:
        echo(f"{name}: not healthy: {reason}", err=True)
    if unhealthy:
        sys.exit(EXIT_BUG)
    echo("healthy")
