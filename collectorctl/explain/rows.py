"""Lookup of stored rows of one symbol around an instant, with their location.

    data/kr/orderbook/date=/hour=/*.parquet ─┐
                                             ├─> rows with `file` and `row` (from 0), in order of arrival
    data/journal/kr.orderbook/*.arrows      ─┘   of the open hour: the journal, and the row's number in it (from 1)

Guarantees:
    * Each row is found once, though a published row may still be in the journal.
    * A row of the journal has both arrivals if its twin is in the journal as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conf.home import Home
from conf.instrument import Instrument
from conf.market import HOUR_NS
from writer.journal.journal import read_rows
from writer.journal.segment import map_file, read_lineage, segment_paths
from writer.publish.partition import hour_directory, read_published_to
from writer.schema import PARQUET, parse_dataset

LATE_NS = HOUR_NS
"""Rows are searched in the hour of the instant and in hours that ended or began this close to it."""

JOURNAL = "journal"


def find_rows(home: Home, dataset: str, instrument: Instrument, begin_ns: int, end_ns: int) -> list[dict[str, Any]]:
    """Rows whose exchange time or arrival lies in begin_ns .. end_ns, as column -> value."""
    found = [
        {"file": str(path.relative_to(home.data)), "row": int(at)} | row
        for path, first, table in _read_row_groups(home, dataset, instrument, begin_ns, end_ns)
        for at, row in _select_rows(table, first, instrument, begin_ns, end_ns)
    ]
    found += _find_journal_rows(home, dataset, instrument, begin_ns, end_ns)
    return sorted(
        found, key=lambda row: min((row[name] for name in _time_columns(row) if row[name]), default=row["exch_time"])
    )


def read_ticks(home: Home, dataset: str, instrument: Instrument, begin_ns: int, end_ns: int) -> pd.DataFrame:
    """Every tick between two instants (a day): size, cum_volume, exch_time, recv_time."""
    columns = ["symbol", "venue", "exch_time", "recv_time", "size", "cum_volume"]
    tables = [
        table.select(columns).filter(_instrument_mask(table, instrument))
        for _, _, table in _read_row_groups(home, dataset, instrument, begin_ns, end_ns)
    ]
    for batch in _read_unpublished(home, dataset):
        table = pa.Table.from_batches([batch])
        tables.append(table.select(columns).filter(_instrument_mask(table, instrument)))
    return pa.concat_tables(tables).to_pandas() if tables else pd.DataFrame(columns=columns)


def read_events(home: Home, market: str, begin_ns: int, end_ns: int) -> pd.DataFrame:
    """Every event between two instants, in order."""
    dataset = f"{market}.event"
    schema = PARQUET[dataset]
    tables = [pq.ParquetFile(path).read() for path in _partition_files(home, dataset, begin_ns, end_ns)]
    tables += [pa.Table.from_batches([batch]).select(schema.names) for batch in _read_unpublished(home, dataset)]
    whole = pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in tables)]).to_pandas()
    times = whole.time.astype("int64")
    return whole[(times >= begin_ns) & (times <= end_ns)].sort_values("time", kind="stable").reset_index(drop=True)


def _partition_files(home: Home, dataset: str, begin_ns: int, end_ns: int) -> Iterator[Path]:
    market, stream = parse_dataset(dataset)
    for hour in range((begin_ns - LATE_NS) // HOUR_NS * HOUR_NS, end_ns + LATE_NS, HOUR_NS):
        yield from sorted(hour_directory(home.data / market.name / stream, hour, market).glob("*.parquet"))


def _read_row_groups(
    home: Home, dataset: str, instrument: Instrument, begin_ns: int, end_ns: int
) -> Iterator[tuple[Path, int, pa.Table]]:
    """File, number of its first row, and rows of each row group that may have the symbol."""
    for path in _partition_files(home, dataset, begin_ns, end_ns):
        with pq.ParquetFile(path) as file:
            at, column = 0, file.schema_arrow.names.index("symbol")
            for number in range(file.num_row_groups):
                group = file.metadata.row_group(number)
                statistics = group.column(column).statistics
                if (
                    statistics is None
                    or not statistics.has_min_max
                    or statistics.min <= instrument.symbol <= statistics.max
                ):
                    yield path, at, file.read_row_group(number)
                at += group.num_rows


def _select_rows(
    table: pa.Table, first: int, instrument: Instrument, begin_ns: int, end_ns: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    at = np.flatnonzero(
        _instrument_mask(table, instrument).to_numpy(zero_copy_only=False) & _time_mask(table, begin_ns, end_ns)
    )
    yield from zip((first + at).tolist(), table.take(pa.array(at)).to_pylist(), strict=True)


def _instrument_mask(table: pa.Table, instrument: Instrument) -> pa.Array:
    same = pc.and_(pc.equal(table["symbol"], instrument.symbol), pc.equal(table["venue"], instrument.venue))
    return pc.fill_null(same, False).combine_chunks()


def _time_mask(table: pa.Table, begin_ns: int, end_ns: int) -> np.ndarray:
    inside = np.zeros(table.num_rows, bool)
    for name in _time_columns(table.column_names):
        ns = pc.fill_null(table[name].cast(pa.int64()), -1).to_numpy()
        inside |= (ns >= begin_ns) & (ns <= end_ns)
    return inside


def _time_columns(names: Sequence[str] | dict[str, Any]) -> list[str]:
    return [name for name in names if name == "exch_time" or name.startswith("recv_time")]


def _find_journal_rows(
    home: Home, dataset: str, instrument: Instrument, begin_ns: int, end_ns: int
) -> list[dict[str, Any]]:
    """Unpublished rows; an arrival that came later than its row takes its place if it was earlier."""
    found: dict[int, dict[str, Any]] = {}
    for batch in _read_unpublished(home, dataset):
        table = pa.Table.from_batches([batch])
        for _, entry in _select_rows(table, 0, instrument, begin_ns, end_ns):
            found[entry["row"]] = {"file": JOURNAL} | entry
        if not found:
            continue
        twins = table.filter(pc.is_in(table["twin_of"], pa.array(list(found), pa.int64())))
        for twin in twins.to_pylist():
            row = found[twin["twin_of"]]
            row[f"recv_time_{twin['broker']}"] = twin["recv_time"]
            if twin["mono_ns"] < row["mono_ns"]:
                row |= {name: twin[name] for name in ("broker", "recv_time", "seq", "mono_ns")}
    return list(found.values())


def _read_unpublished(home: Home, dataset: str) -> Iterator[pa.RecordBatch]:
    """The journal's entries, without rows that a file already has (and their twins)."""
    directory = home.journal_directory(dataset)
    market, stream = parse_dataset(dataset)
    lineage = next(filter(None, (read_lineage(map_file(path)) for path in segment_paths(directory))), None)
    published_to: dict[int, int] = {}
    for batch in read_rows(directory):
        hours = batch.column("hour").to_numpy()
        number = pc.coalesce(batch.column("twin_of"), batch.column("row")).to_numpy()
        for hour in np.unique(hours).tolist():
            if hour not in published_to:
                published_to[hour] = read_published_to(home.data / market.name / stream, hour, lineage or "", market)
        is_unpublished = np.array(
            [row > published_to[hour] for hour, row in zip(hours.tolist(), number.tolist(), strict=True)], bool
        )
        if is_unpublished.any():
            yield batch.filter(pa.array(is_unpublished))
