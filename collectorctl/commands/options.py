"""Shared options of commands.

Guarantees:
    * Every reporting command prints JSON with --json.
"""

from __future__ import annotations

import click

from conf.market import MARKETS

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
market_option = click.option(
    "--market", type=click.Choice(list(MARKETS)), default="kr", show_default=True, help="Which exchanges."
)
