"""Reader of one instrument's day: ticks and book volumes out of the published files.

    data/kr/tick/date=D/hour=*/part-*.parquet ──one symbol──> DAY_TICK in order of cumulative volume

Guarantees:
    * One instrument at a time is read (files are sorted by symbol, so few row groups are touched).
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from collectorctl.recover.matching.anchors import BOOK_VOLUME
from collectorctl.recover.matching.day_coverage import DAY_TICK, sort_ticks
from conf.clock import DAY_NS, kst_midnight_ns
from conf.home import Home
from conf.instrument import Instrument
from conf.market import KR, Market
from ringbuf.records import UNDEFINED, FeedId, Flag
from writer.catalog import Catalog, FileState, find_partitions, read_file_state, read_instrument
from writer.publish.verified_file import PartitionWriteError

_NUMERIC_COLUMNS = ("price", "size", "side", "cum_volume", "cum_value", "value_change", "trade_count")

_DICTIONARY_COLUMNS = ("symbol", "venue", "source", "broker")


def read_file_states(directory: Path, day: date) -> frozenset[FileState]:
    """The published files of a day; equal if no process changed one, added one or replaced one."""
    return frozenset(read_file_state(path, directory) for path in find_partitions(directory, day))


def find_instruments(directory: Path, day: date, business_date: date | None = None) -> set[Instrument]:
    """Every instrument that has rows on that day. PartitionWriteError, with its name, for a file that cannot be read.

    `business_date`: only rows of the session of that day, where files have the column.
    """
    sessions = find_sessions(directory, day).items()
    return {one for session, found in sessions if business_date in (None, session) for one in found}


def find_sessions(directory: Path, day: date) -> dict[date, set[Instrument]]:
    """Every instrument that has rows on that day, by the day of its session; that day, where files do not have it.

    PartitionWriteError, with its name, for a file that cannot be read.
    """
    found: dict[date, set[Instrument]] = {}
    for path in find_partitions(directory, day):
        try:
            with pq.ParquetFile(path, read_dictionary=["symbol", "venue"]) as file:
                names = [name for name in ("symbol", "venue", "business_date") if name in file.schema_arrow.names]
                for number in range(file.num_row_groups):
                    for row in file.read_row_group(number, names).group_by(names).aggregate([]).to_pylist():
                        if row["symbol"] and row["venue"]:
                            session = row.get("business_date", day)
                            found.setdefault(session, set()).add(Instrument(row["symbol"], row["venue"]))
        except pa.ArrowException as error:
            raise PartitionWriteError(f"{path}: cannot be read: {error}") from error
    return found


def load_ticks(directory: Path, day: date, instrument: Instrument) -> np.ndarray:
    """DAY_TICK of an instrument, ordered by cumulative volume; rows without one (they cannot be placed) come first."""
    columns = ["exch_time", *_NUMERIC_COLUMNS, "flags", "source", "broker"]
    pieces = [
        _ticks_from_table(table)
        for path in find_partitions(directory, day)
        for table in read_instrument(path, instrument, columns, _DICTIONARY_COLUMNS)
    ]
    return sort_ticks(np.concatenate(pieces)) if pieces else np.zeros(0, DAY_TICK)


def _ticks_from_table(table: pa.Table) -> np.ndarray:
    found = np.zeros(len(table), DAY_TICK)
    found["exch_ns"] = _to_int64(table, "exch_time")
    for name in _NUMERIC_COLUMNS:
        found[name] = _to_int64(table, name)
    flags = _to_int64(table, "flags")
    found["cum_value"][(flags & Flag.VALUE_ROUNDED) != 0] = UNDEFINED
    found["rounded"] = (flags & Flag.PRICE_ROUNDED) != 0
    found["live"] = pc.equal(table.column("source"), "live").to_numpy()
    brokers = table.column("broker")
    for feed in FeedId:
        found["line"][found["live"] & pc.equal(brokers, feed.name.lower()).to_numpy()] = feed
    return found


def load_book_volumes(directory: Path, day: date, instrument: Instrument) -> np.ndarray:
    """BOOK_VOLUME: every cumulative volume of a stored book of the instrument, ascending."""
    columns = ("cum_volume", "exch_time")
    pieces = [
        [_to_int64(table, name) for name in columns]
        for path in find_partitions(directory, day)
        for table in read_instrument(path, instrument, columns)
    ]
    if not pieces:
        return np.zeros(0, BOOK_VOLUME)
    volume, exch_ns = (np.concatenate(column) for column in zip(*pieces, strict=True))
    order = np.lexsort((exch_ns, volume))
    volume, exch_ns = volume[order], exch_ns[order]
    begins = np.flatnonzero(np.diff(volume, prepend=UNDEFINED))
    found = np.zeros(len(begins), BOOK_VOLUME)
    found["cum_volume"], found["first_ns"] = volume[begins], exch_ns[begins]
    found["last_ns"] = exch_ns[np.append(begins[1:], len(volume)) - 1]
    return found


def find_unpublished_hours(home: Home, day: date) -> list[str]:
    """Hours of that Korean day with ticks or books that are only in the journal, such as "kr.tick 15"; PartitionWriteError."""
    begin_ns = kst_midnight_ns(day)
    return find_unpublished_between(home, KR, begin_ns, begin_ns + DAY_NS)


def find_unpublished_between(home: Home, market: Market, begin_ns: int, end_ns: int) -> list[str]:
    """The same of the hours of a market that begin in [begin_ns, end_ns)."""
    catalog = Catalog(home)
    datasets = [f"{market.name}.{stream}" for stream in ("orderbook", "tick")]
    hours = {
        f"{dataset} {market.to_local(hour):%H}"
        for dataset in datasets
        for hour in catalog.journal_only(dataset, begin_ns, end_ns)
    }
    return sorted(hours)


def _to_int64(table: pa.Table, name: str) -> np.ndarray:
    column = table.column(name)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return pc.fill_null(column.cast(pa.int64()), UNDEFINED if name != "flags" else 0).to_numpy()
