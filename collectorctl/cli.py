"""Root of the command line: all commands, and the exit status of their errors.

    exit 0 done   1 failed   2 usage   75 busy   78 configuration

Guarantees:
    * Every command of a module in COMMAND_MODULES is a command of collectorctl.
    * An error is one line on stderr that says what, where, what to do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from collectorctl.commands import capture, inspect, lifecycle, recovery, setup, simulation
from collectorctl.supervision.supervisor import SupervisorError
from collectorctl.terminal import echo
from conf.files.lock import LockHeld
from conf.process import EXIT_ALREADY_RUNNING, EXIT_BUG, EXIT_CONFIG, AlreadyRunning
from conf.settings import SettingsError

COMMAND_MODULES = (setup, lifecycle, inspect, capture, simulation, recovery)
"""Where the commands are; adding one is a function in the module of its purpose."""

_EXIT_CODES: dict[type[Exception], int] = {
    SettingsError: EXIT_CONFIG,
    AlreadyRunning: EXIT_ALREADY_RUNNING,
    LockHeld: EXIT_ALREADY_RUNNING,
    SupervisorError: EXIT_BUG,
}


class _CommandGroup(click.Group):
    """Commands whose foreseen errors become one line and an exit status that means something."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except tuple(_EXIT_CODES) as error:
            echo(f"collectorctl: {error}", err=True)
            ctx.exit(_EXIT_CODES[type(error)])


@click.group(cls=_CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
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
    """Collect Korean and US market data from several broker feeds, merge it, and certify that each day is complete."""
    ctx.obj = root


for _module in COMMAND_MODULES:
    for _command in vars(_module).values():
        if isinstance(_command, click.Command):
            main.add_command(_command)
