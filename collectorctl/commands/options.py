"""Shared options and JSON output of commands.

Guarantees:
    * Every reporting command prints JSON with --json.
"""

from __future__ import annotations

import click
import msgspec

from conf.market import MARKETS

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
market_option = click.option(
    "--market", type=click.Choice(list(MARKETS)), default="kr", show_default=True, help="Which exchanges."
)


def json_text(value: object, indent: int = 2) -> str:
    """JSON; what it has no form for, as str() has it. `indent` 0: on one line."""
    encoded = msgspec.json.encode(value, enc_hook=str)
    return (msgspec.json.format(encoded, indent=indent) if indent else encoded).decode()
