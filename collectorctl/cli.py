"""Root of the command line: all commands, and the exit status of their errors.

    exit 0 done   1 failed   2 usage   75 busy   78 configuration

Guarantees:
    * Every command of a module in COMMAND_MODULES is a command of collectorctl.
    * An error is one line on stderr that says what, where, what to do; each fault of a home has its line, in the home's language.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from collectorctl.commands import capture, cleaning, inspect, lifecycle, recovery, setup, simulation, symbols
from collectorctl.supervision.errors import SupervisorError
from collectorctl.terminal import echo
from conf.files.lock import LockHeld
from conf.home import Home
from conf.loader import SETTINGS_FILE, choose_home_language
from conf.process import EXIT_ALREADY_RUNNING, EXIT_BUG, EXIT_CONFIG, AlreadyRunning
from conf.settings import SettingsError
from conf.text.language import Language

COMMAND_MODULES = {
    "Look": inspect,
    "Set up": setup,
    "Run": lifecycle,
    "Know the symbols": symbols,
    "Keep raw frames": capture,
    "Complete a day": recovery,
    "Free the disk": cleaning,
    "Try without keys": simulation,
}
"""Where the commands are, by task as the help lists them; adding one is a function in the module of its purpose,
in the order in which the help has them."""

_FIRST_STEPS = (
    "collectorctl demo        a day in a minute, without keys: what it collects, loses, recovers and proves",
    "collectorctl init DIR    a home for your symbols and keys; then `check` and `start` in it",
    "collectorctl --help      every command",
)

_EXIT_CODES: dict[type[Exception], int] = {
    AlreadyRunning: EXIT_ALREADY_RUNNING,
    LockHeld: EXIT_ALREADY_RUNNING,
    SupervisorError: EXIT_BUG,
}


def _find_commands(module: ModuleType) -> list[click.Command]:
    found = [one for one in vars(module).values() if isinstance(one, click.Command)]
    nested = {id(one) for group in found if isinstance(group, click.Group) for one in group.commands.values()}
    return [one for one in found if id(one) not in nested]


class _CommandGroup(click.Group):
    """Commands by task, whose foreseen errors become one line and an exit status that means something."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for task, module in COMMAND_MODULES.items():
            with formatter.section(task):
                formatter.write_dl(
                    [(one.name or "", one.get_short_help_str(limit=200)) for one in _find_commands(module)]
                )

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            language: Language = "en" if "--json" in sys.argv else choose_home_language(Path(ctx.params["root"]))
            for fault in error.faults:
                echo(f"collectorctl: {fault.format(language)}", err=True)
            ctx.exit(EXIT_CONFIG)
        except tuple(_EXIT_CODES) as error:
            echo(f"collectorctl: {error}", err=True)
            ctx.exit(_EXIT_CODES[type(error)])


@click.group(
    cls=_CommandGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog='Completion by Tab: eval "$(_COLLECTORCTL_COMPLETE=bash_source collectorctl)" in ~/.bashrc; zsh and fish: README.md.',
)
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
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # no command multiplies matrices; threads for it cost each start
    if ctx.invoked_subcommand is not None:
        return
    if not (root / SETTINGS_FILE).exists():
        for line in _FIRST_STEPS:
            echo(line)
        return
    status, verdict = inspect.judge_home(Home(root))
    echo(inspect.format_verdict_line(verdict, status.now))
    echo("collectorctl status      the findings, and what every process is doing")
    echo("collectorctl --help      every command")


for _module in COMMAND_MODULES.values():
    for _command in _find_commands(_module):
        main.add_command(_command)
