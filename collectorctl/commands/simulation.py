"""Commands that need no broker: simulate, demo.

Guarantees:
    * None of them connects to a real broker.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from collectorctl.commands.options import as_json_option
from collectorctl.terminal import echo, usage_error


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def simulate(root: Path, options: tuple[str, ...]) -> None:
    """Serve KIS and Kiwoom from one seeded market, or recorded frames; commands on stdin cause faults.

    Prints the addresses to put into collector.toml. `collectorctl simulate --help` lists all options.

    Example: collectorctl simulate --truth /tmp/truth --fault kis:drop@30
    """
    os.execv(sys.executable, [sys.executable, "-m", "brokers.simulator", "--home", str(root), *options])


@click.command()
@click.option("--seconds", default=60.0, show_default=True, help="How long the market's day lasts, real seconds.")
@click.option(
    "--home", "where", type=click.Path(path_type=Path), help="Use and keep this home [default: a temporary one]."
)
@click.option("--seed", default=1, show_default=True, help="The market's seed.")
@click.option(
    "--scenario", default="morning", show_default=True, help="Which faults occur; `--scenario list` lists them."
)
@as_json_option
def demo(seconds: float, where: Path | None, seed: int, scenario: str, as_json: bool) -> None:
    """Rehearse a short day without keys or network, recover what it missed, then compare the files with the simulator's truth.

    By default a collector is killed for ten minutes of market time; the day's certificates must go from INCOMPLETE to PROVEN.

    Example: collectorctl demo --seconds 60 --scenario kis-dies-at-open
    """
    from collectorctl.demo import DEMO_SCENARIOS, run_demo

    if scenario == "list":
        for name, entry in DEMO_SCENARIOS.items():
            echo(f"{name:<18}{entry.description}")
        return
    if scenario not in DEMO_SCENARIOS:
        raise usage_error(f"--scenario {scenario}: there is no such one: {', '.join(DEMO_SCENARIOS)}")
    sys.exit(run_demo(where, seconds, seed, scenario, as_json))
