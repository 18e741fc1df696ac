"""Files of an instrument's day in each format.

    csv          orderbook/NAME.csv.gz, tick/NAME.csv.gz     the stored columns, null for what was absent
    hftbacktest  NAME.npz                                    depth_events.EVENT under "data"
    nautilus     catalog/                                    OrderBookDepth10, TradeTick, Equity, by its own catalog

Guarantees:
    * Equal tables give equal bytes, with one release of the libraries.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from collectorctl.export.depth_events import build_events
from collectorctl.export.gaps import Hole
from collectorctl.export.sequence import build_sequence, read_books, read_ticks
from conf.instrument import Instrument
from conf.text.escape import escape_controls

TIME_FORMAT = "%Y-%m-%dT%H:%M:%S%z"
"""%S has nine digits behind the point."""


class Written(NamedTuple):
    """A file and its rows."""

    path: Path
    rows: int


class InstrumentDay(NamedTuple):
    """What is exported of an instrument."""

    instrument: Instrument
    books: pa.Table
    ticks: pa.Table
    holes: list[Hole]


def make_file_name(instrument: Instrument) -> str:
    """005930, NAS.NVDA, NYS.BRK_B: the ticker's bar would be a directory."""
    return str(instrument).replace("/", "_")


def write_csv_file(path: Path, table: pa.Table) -> Written:
    """A table as gzipped CSV; times as ISO 8601 in the exchange's zone, to the nanosecond."""
    for number, field in enumerate(table.schema):
        column = table[field.name]
        if pa.types.is_timestamp(field.type):
            table = table.set_column(number, field.name, pc.strftime(column, TIME_FORMAT))
        elif pa.types.is_string(field.type):
            texts = column.combine_chunks().dictionary_encode()
            plain = pa.array([text and escape_controls(text) for text in texts.dictionary.to_pylist()], pa.string())
            table = table.set_column(number, field.name, plain.take(texts.indices))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
        pa.csv.write_csv(table, packed)
    return Written(path, len(table))


def write_csv(directory: Path, day: InstrumentDay) -> list[Written]:
    """Books and ticks as they are stored."""
    return [
        write_csv_file(directory / stream / f"{make_file_name(day.instrument)}.csv.gz", table)
        for stream, table in (("orderbook", day.books), ("tick", day.ticks))
    ]


def write_hftbacktest(directory: Path, day: InstrumentDay) -> list[Written]:
    """Events of books and trades."""
    books, ticks = read_books(day.books), read_ticks(day.ticks)
    events = build_events(books, ticks, build_sequence(books, ticks, [hole.begin_ns for hole in day.holes]))
    path = directory / f"{make_file_name(day.instrument)}.npz"
    np.savez_compressed(path, data=events)
    return [Written(path, len(events))]


def write_nautilus(directory: Path, day: InstrumentDay) -> list[Written]:
    """Books of ten levels, trades and the instrument."""
    from collectorctl.export.nautilus import write_catalog

    return [
        Written(*one) for one in write_catalog(directory / "catalog", day.instrument, day.books, day.ticks, day.holes)
    ]


FORMATS: dict[str, Callable[[Path, InstrumentDay], list[Written]]] = {
    "csv": write_csv,
    "hftbacktest": write_hftbacktest,
    "nautilus": write_nautilus,
}
