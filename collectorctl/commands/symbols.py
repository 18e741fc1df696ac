"""Commands about the symbols of the Korean market: symbols update, search, show, select.

Guarantees:
    * `search`, `show` and `select` read the newest table, and connect to nobody.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.cells import cell_len, set_cell_size

from collectorctl.commands.options import as_json_option
from collectorctl.terminal import echo, echo_json, usage_error
from conf.clock import to_kst
from conf.home import Home
from conf.process import EXIT_BUG

if TYPE_CHECKING:
    from collectorctl.symbols.store import SymbolTable

MAX_SHOWN = 50
NAME_CELLS = 30
MARKS = ("halted", "managed", "liquidation")


@click.group()
def symbols() -> None:
    """Names, kinds and states of the Korean symbols: a table a day from the vendors' masters.

    Example: collectorctl symbols update
    """


@symbols.command()
@as_json_option
@click.pass_obj
def update(root: Path, as_json: bool) -> None:
    """Store today's table. Exit 1 if a vendor's list could not be read, or the table was not stored.

    KIS's files need no key, Kiwoom's list that of .env. Once a day, by cron, before the open: the exchanges change it overnight.

    Example: collectorctl symbols update
    """
    from collectorctl.symbols.store import SymbolTableError
    from collectorctl.symbols.update import update_symbols
    from writer.publish.verified_file import PartitionWriteError

    try:
        report = update_symbols(Home(root))
    except (OSError, PartitionWriteError, SymbolTableError) as error:
        echo(f"collectorctl: {error}", err=True)
        sys.exit(EXIT_BUG)
    if as_json:
        echo_json(msgspec.to_builtins(report))
        sys.exit(0 if report.is_complete else EXIT_BUG)
    for one in report.vendors:
        state = f"not asked: {one.error}" if one.skipped else f"failed: {one.error}" if one.error else ""
        echo(f"{one.vendor:<8} {state or f'{one.symbols} symbols'}")
    for column, count in Counter(difference.column for difference in report.differences).most_common():
        shown = [one for one in report.differences if one.column == column][:3]
        echo(f"differ   {column}: {count}: {'; '.join(f'{one.symbol} {_format_values(one.values)}' for one in shown)}")
    stored = f"stored   {report.symbols} symbols of {report.day}: {report.path}"
    echo(stored if report.path else f"not stored: {report.reason}")
    sys.exit(0 if report.is_complete else EXIT_BUG)


@symbols.command()
@click.argument("text")
@as_json_option
@click.pass_obj
def search(root: Path, text: str, as_json: bool) -> None:
    """Symbols whose code or name contains TEXT. Exit 1 if there is none.

    Example: collectorctl symbols search 삼성
    """
    wanted = "".join(text.split()).casefold()
    columns = ["symbol", "name", "market", "kind", *MARKS]
    newest = _load(root, columns)
    rows = [
        row for row in newest.table.to_pylist() if wanted in "".join((row["symbol"] + row["name"]).split()).casefold()
    ]
    if as_json:
        echo_json({"day": newest.day, "symbols": rows})
        sys.exit(0 if rows else EXIT_BUG)
    for row in rows[:MAX_SHOWN]:
        name = row["name"] if cell_len(row["name"]) > NAME_CELLS else set_cell_size(row["name"], NAME_CELLS)
        marks = " ".join(mark for mark in MARKS if row[mark])
        echo(f"{row['symbol']:<9} {name} {row['market']:<6} {row['kind'] or '?'} {marks}".rstrip())
    if len(rows) > MAX_SHOWN:
        echo(f"... and {len(rows) - MAX_SHOWN} more")
    echo(f"{len(rows)} of {newest.table.num_rows} symbols of {newest.day}")
    sys.exit(0 if rows else EXIT_BUG)


@symbols.command()
@click.argument("symbol")
@as_json_option
@click.pass_obj
def show(root: Path, symbol: str, as_json: bool) -> None:
    """All that the newest table has of SYMBOL (005930). Exit 1 if it is not in it.

    Example: collectorctl symbols show 005930
    """
    newest = _load(root, None)
    wanted = symbol.upper().removesuffix("_NX").removesuffix("_AL")
    row = next((row for row in newest.table.to_pylist() if row["symbol"] == wanted), None)
    if row is None:
        echo(f"collectorctl: {symbol}: not in the table of {newest.day}: `collectorctl symbols search NAME`", err=True)
        sys.exit(EXIT_BUG)
    if as_json:
        echo_json({"day": newest.day} | row)
        return
    echo(f"{'day':<15} {newest.day}")
    for name, value in row.items():
        if name != "differs":
            echo(f"{name:<15} {_format(value)}")
        elif value:
            echo(f"{name:<15} {', '.join(value)}: KIS's value is shown")


@symbols.command()
@click.argument("expression")
@as_json_option
@click.pass_obj
def select(root: Path, expression: str, as_json: bool) -> None:
    """The symbols of EXPRESSION over the newest table, as a line for [universe] of collector.toml. Exit 1 if there is none.

    @market_cap:100, @etf:50, @etn:20: the largest by market capitalisation; @KOSPI200, @KOSDAQ150: the members of an index, with
    :50 the largest of them.

    Example: collectorctl symbols select @market_cap:100
    """
    from collectorctl.symbols.selection import COLUMNS, SelectionError, select_symbols

    newest = _load(root, COLUMNS)
    try:
        found = select_symbols(expression, newest.table)
    except SelectionError as error:
        raise usage_error(str(error)) from None
    if as_json:
        echo_json({"day": newest.day, "expression": expression, "symbols": found})
    else:
        echo(f"kr = {msgspec.json.encode(found).decode().replace(',', ', ')}  # {expression} of {newest.day}")
    sys.exit(0 if found else EXIT_BUG)


def _load(root: Path, columns: list[str] | None) -> SymbolTable:
    from collectorctl.symbols.store import SymbolTableError, load_symbols

    home = Home(root)
    try:
        newest = load_symbols(home, to_kst(home.load_clock().now_ns()).date(), columns)
    except SymbolTableError as error:
        raise usage_error(str(error)) from None
    if newest is None:
        raise usage_error("there is no table of symbols yet: run `collectorctl symbols update`")
    return newest


def _format_values(values: dict[str, Any]) -> str:
    return " / ".join(f"{vendor} {_format(value)}" for vendor, value in values.items())


def _format(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    return f"{value:,}" if isinstance(value, int) else str(value)
