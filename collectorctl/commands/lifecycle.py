"""Commands that start and stop the process tree: start, stop, restart.

Guarantees:
    * Each returns when its goal is reached, or reports what is missing and why.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from collectorctl.terminal import echo
from conf.home import Home
from conf.process import EXIT_BUG


@click.command()
@click.option("--wait", "wait_s", default=60.0, show_default=True, help="Longest wait for health, seconds.")
@click.pass_obj
def start(root: Path, wait_s: float) -> None:
    """Start every process and return when all are healthy, or say which is not and why.

    Example: collectorctl start
    """
    from collectorctl.check import reject_keys_in_use, require_startable
    from collectorctl.supervision.readiness import wait_until_healthy
    from collectorctl.supervision.supervisor import SupervisorClient

    require_startable(root)
    home = Home(root)
    reject_keys_in_use(home)
    home.create_directories()
    new = SupervisorClient(home).start()
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


def _report_health(unhealthy: list[tuple[str, str]]) -> None:
    for name, reason in unhealthy:
        echo(f"{name}: not healthy: {reason}", err=True)
    if unhealthy:
        sys.exit(EXIT_BUG)
    echo("healthy")
