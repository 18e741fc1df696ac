"""Tables of symbols in a home: one a day, written whole, read by column.

    data/kr/symbol/date=2026-11-20/part-0.parquet     run/symbol_names.json

Guarantees:
    * After a kill at any instruction a day's table is the old or the new one.
    * Only the columns that are asked for are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from collectorctl.symbols.names import write_names
from conf.home import Home
from writer import durable_io
from writer.publish.verified_file import write_verified


class SymbolTableError(Exception):
    """A table that cannot be read; the message names file and remedy."""


class SymbolTable(NamedTuple):
    """The columns that were asked for, of the table of a day; `path`: its file."""

    day: date
    path: Path
    table: pa.Table


def load_symbols(home: Home, day: date, columns: Sequence[str] | None = None) -> SymbolTable | None:
    """The newest table that is not after `day`, of all columns or of some; None without one. SymbolTableError."""
    return next(load_earlier(home, day, columns), None)


def load_earlier(home: Home, day: date, columns: Sequence[str] | None = None) -> Iterator[SymbolTable]:
    """The tables that are not after `day`, the newest first. SymbolTableError."""
    for found in sorted(list_days(home), reverse=True):
        path = home.symbol_path(found)
        if found > day or not path.exists():
            continue
        try:
            yield SymbolTable(found, path, pq.ParquetFile(path).read(columns=columns))
        except (OSError, pa.ArrowException) as error:
            raise SymbolTableError(
                f"{path}: cannot be read ({error}): remove it, then run `collectorctl symbols update`"
            ) from None


def load_names(home: Home, day: date) -> Mapping[str, str]:
    """The name of each symbol by that table; empty without one that can be read."""
    with suppress(SymbolTableError):
        if found := load_symbols(home, day, ["symbol", "name"]):
            return zip_names(found.table)
    return {}


def zip_names(table: pa.Table) -> dict[str, str]:
    """The name of each symbol of a table."""
    return dict(zip(table["symbol"].to_pylist(), table["name"].to_pylist(), strict=True))


def list_days(home: Home) -> list[date]:
    """The days that have a folder."""
    names = (path.name.removeprefix("date=") for path in home.symbol_path(date.min).parent.parent.glob("date=*"))
    return [date.fromisoformat(name) for name in names if len(name) == 10]


def store_symbols(home: Home, day: date, table: pa.Table) -> Path:
    """Put a table in place as that of its day. OSError, PartitionWriteError: the one that was there stays."""
    path = home.symbol_path(day)
    durable_io.create_directory(path.parent)
    write_verified(path, table.schema, [table])
    if day == max(list_days(home)):
        write_names(home, day, zip_names(table))
    return path
