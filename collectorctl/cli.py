"""`collectorctl`: the one place that knows all commands, and what their errors become.

    exit 0 done   1 failed   2 usage   75 busy   78 configuration

Promises: every command of a module in MODULES is one of collectorctl; an error is one line on stderr that says what, where,
what to do.
Leaves to others: the commands (commands/, by purpose) and all their work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from collectorctl.commands import inspect, lifecycle, recovery, setup, simulation
from collectorctl.supervision.supervisor import DaemonError
from conf.process import EXIT_BUG, EXIT_BUSY, EXIT_CONFIG, Busy
from conf.settings import SettingsError

MODULES = (setup, lifecycle, inspect, simulation, recovery)
"""Where the commands are; adding one is a function in the module of its purpose."""

_EXIT = {SettingsError: EXIT_CONFIG, Busy: EXIT_BUSY, DaemonError: EXIT_BUG}


class _Commands(click.Group):
    """Commands whose foreseen errors become one line and an exit status that means something."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except tuple(_EXIT) as error:
            click.echo(f"collectorctl: {error}", err=True)
            ctx.exit(_EXIT[type(error)])


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


for _module in MODULES:
    for _found in vars(_module).values():
        if isinstance(_found, click.Command):
            main.add_command(_found)
