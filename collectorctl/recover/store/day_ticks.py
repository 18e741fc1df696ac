"""One instrument's ticks of one day, out of the published files, and which hours are not published yet.

    data/kr/tick/date=D/hour=*/part-*.parquet ──one symbol──> TICKS in true order

Promises: reads one instrument at a time (files are sorted by symbol, so few row groups are touched); changes nothing.
Leaves to others: what is missing (plan.py), changing files (publish.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from collectorctl.recover.matching.anchors import SHOWN
from conf.clock import SECOND_NS
from conf.home import Home
from conf.instrument import Instrument
from conf.market import KR, Market
from ringbuf.records import UNDEFINED, Flag, Line
from writer.journal.journal import held
from writer.journal.segment import lineage, mapped, paths, whole_batches
from writer.publish import partition

TICKS = np.dtype(
    [
        ("exch_ns", "<i8"),
        ("price", "<i8"),  # won
        ("size", "<i8"),
        ("side", "i1"),
        ("cum_volume", "<i8"),
        ("cum_value", "<i8"),  # won; UNDEFINED where it is rounded
        ("value_change", "<i8"),
        ("trade_count", "<i8"),
        ("line", "u1"),  # of ringbuf.records.Line; 0 for recovered ones
        ("live", "?"),
        ("rounded", "?"),  # the price was not whole won
    ]
)
_NUMBERS = ("price", "size", "side", "cum_volume", "cum_value", "value_change", "trade_count")

_WORDS = ("symbol", "venue", "source", "broker")


def parts(directory: Path, day: date) -> list[Path]:
    """The published files of a day, by hour and number."""
    found = (directory / f"date={day:%Y-%m-%d}").glob("hour=*/part-*.parquet")
    return sorted(found, key=lambda path: (path.parent.name, len(path.name), path.name))


def symbols(directory: Path, day: date) -> set[Instrument]:
    """Every instrument that has ticks on that day."""
    found: set[Instrument] = set()
    for path in parts(directory, day):
        with pq.ParquetFile(path, read_dictionary=["symbol", "venue"]) as file:
            for number in range(file.num_row_groups):
                group = file.read_row_group(number, ["symbol", "venue"])
                named = group.group_by(["symbol", "venue"]).aggregate([]).to_pylist()
                found |= {Instrument(row["symbol"], row["venue"]) for row in named if row["symbol"] and row["venue"]}
    return found


def ticks(directory: Path, day: date, instrument: Instrument) -> np.ndarray:
    """TICKS of an instrument, ordered by cumulative volume; rows without one (they cannot be placed) come first."""
    columns = ["exch_time", *_NUMBERS, "flags", "source", "broker"]
    pieces = [_ticks(table) for path in parts(directory, day) for table in _rows(path, instrument, columns)]
    return in_order(np.concatenate(pieces)) if pieces else np.zeros(0, TICKS)


def _ticks(table: pa.Table) -> np.ndarray:
    found = np.zeros(len(table), TICKS)
    found["exch_ns"] = _column(table, "exch_time")
    for name in _NUMBERS:
        found[name] = _column(table, name)
    flags = _column(table, "flags")
    found["cum_value"][(flags & Flag.VALUE_ROUNDED) != 0] = UNDEFINED
    found["rounded"] = (flags & Flag.PRICE_ROUNDED) != 0
    found["live"] = pc.equal(table.column("source"), "live").to_numpy()
    brokers = table.column("broker")
    for line in Line:
        found["line"][found["live"] & pc.equal(brokers, line.name.lower()).to_numpy()] = line
    return found


def _rows(path: Path, instrument: Instrument, columns: list[str]) -> Iterator[pa.Table]:
    """The rows of one instrument in a file, a row group at a time."""
    columns = ["symbol", "venue", *columns]
    with pq.ParquetFile(path, read_dictionary=[name for name in _WORDS if name in columns]) as file:
        at = file.schema_arrow.get_field_index("symbol")
        for number in range(file.num_row_groups):
            told = file.metadata.row_group(number).column(at).statistics
            if told is not None and told.has_min_max and not told.min <= instrument.symbol <= told.max:
                continue
            group = file.read_row_group(number, columns)
            mine = (
                pc.equal(group.column(name), word) for name, word in zip(("symbol", "venue"), instrument, strict=True)
            )
            found = group.filter(pc.and_(*mine))
            if len(found):
                yield found


def in_order(found: np.ndarray) -> np.ndarray:
    """TICKS by cumulative volume; of several that end there the live ones first."""
    return found[np.lexsort((found["exch_ns"], ~found["live"], found["cum_volume"]))]


def recovered(prints: np.ndarray) -> np.ndarray:
    """PRINTS as the TICKS they will be read as."""
    found = np.zeros(len(prints), TICKS)
    for name in ("exch_ns", "price", "size", "side", "cum_volume"):
        found[name] = prints[name]
    found["cum_value"] = found["value_change"] = found["trade_count"] = UNDEFINED
    return found


def books(directory: Path, day: date, instrument: Instrument) -> np.ndarray:
    """SHOWN: every cumulative volume that a stored book of the instrument shows, ascending."""
    columns = ("cum_volume", "exch_time")
    pieces = [
        [_column(table, name) for name in columns]
        for path in parts(directory, day)
        for table in _rows(path, instrument, list(columns))
    ]
    if not pieces:
        return np.zeros(0, SHOWN)
    volume, exch_ns = (np.concatenate(column) for column in zip(*pieces, strict=True))
    order = np.lexsort((exch_ns, volume))
    volume, exch_ns = volume[order], exch_ns[order]
    begins = np.flatnonzero(np.diff(volume, prepend=UNDEFINED))
    found = np.zeros(len(begins), SHOWN)
    found["cum_volume"], found["first_ns"] = volume[begins], exch_ns[begins]
    found["last_ns"] = exch_ns[np.append(begins[1:], len(volume)) - 1]
    return found


def span(market: Market, day: date) -> tuple[int, int]:
    """What belongs to a day of a market at most, [begin, end) in ns since 1970 UTC: the day in each zone its venues keep."""
    zones = {hours.zone for hours in market.venues.values()}
    begins, ends = (
        [round(datetime.combine(date, time(), zone).timestamp()) * SECOND_NS for zone in zones]
        for date in (day, day + timedelta(days=1))
    )
    return min(begins), max(ends)


def unpublished(home: Home, day: date, market: Market = KR) -> list[str]:
    """Hours of that day with ticks or books that are only in the journal, such as "kr.tick 15"; PublicationError."""
    begin_ns, end_ns = span(market, day)
    waiting = set()
    for stream in ("orderbook", "tick"):
        directory = home.data / market.name / stream
        newest: dict[tuple[str, int], int] = {}
        for path in paths(home.journal(f"{market.name}.{stream}")):
            try:
                buffer = mapped(path)
            except FileNotFoundError:
                continue  # all of it was published meanwhile
            name = lineage(buffer) or ""
            for whole in whole_batches(buffer):
                for hour, row in held(whole.batch).items() if whole.batch.num_rows else ():
                    if begin_ns <= hour < end_ns:
                        newest[name, hour] = max(row, newest.get((name, hour), 0))
        for (name, hour), row in newest.items():
            if row > partition.published_to(directory, hour, name, market):
                waiting.add(f"{market.name}.{stream} {market.local(hour):%H}")
    return sorted(waiting)


def _column(table: pa.Table, name: str) -> np.ndarray:
    column = table.column(name)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return pc.fill_null(column.cast(pa.int64()), UNDEFINED if name != "flags" else 0).to_numpy()
