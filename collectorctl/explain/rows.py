"""Lookup of stored rows of one symbol around an instant, with their location.

    data/kr/orderbook/date=/hour=/*.parquet ─┐
                                             ├─> rows with `file` and `row` (from 0), in order of arrival
    data/journal/kr.orderbook/*.journal     ─┘   of the open hour: the journal, and the row's number in it (from 1)

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

from conf.clock import HOUR_NS
from conf.home import Home
from conf.instrument import Instrument
from writer.catalog import Catalog, instrument_mask, read_row_groups
from writer.schema import PARQUET

LATE_NS = HOUR_NS
"""Rows are searched in the hour of the instant and in hours that ended or began this close to it."""

JOURNAL = "journal"


def find_rows(home: Home, dataset: str, instrument: Instrument, begin_ns: int, end_ns: int) -> list[dict[str, Any]]:
    """Rows whose exchange time or arrival lies in begin_ns .. end_ns, as column -> value."""

    def find(paths: list[Path]) -> list[dict[str, Any]]:
        published = [
            {"file": str(path.relative_to(home.data)), "row": int(at)} | row
            for path in paths
            for first, table in read_row_groups(path, instrument.symbol)
            for at, row in _select_rows(table, first, instrument, begin_ns, end_ns)
        ]
        return published + _find_journal_rows(home, dataset, instrument, begin_ns, end_ns)

    found = Catalog(home).read_beside_writer(dataset, begin_ns - LATE_NS, end_ns + LATE_NS, find)
    return sorted(
        found, key=lambda row: min((row[name] for name in _time_columns(row) if row[name]), default=row["exch_time"])
    )


def is_within(row: dict[str, Any], begin_ns: int, end_ns: int) -> bool:
    """Whether a found row's exchange time or arrival lies between two instants."""
    times = (row[name] for name in _time_columns(row) if row[name])
    return any(begin_ns <= pd.Timestamp(time).value <= end_ns for time in times)


def read_ticks(home: Home, dataset: str, instrument: Instrument, begin_ns: int, end_ns: int) -> pd.DataFrame:
    """Every tick between two instants (a day): size, cum_volume, exch_time, recv_time."""
    columns = ["symbol", "venue", "exch_time", "recv_time", "size", "cum_volume"]
    return Catalog(home).read(dataset, instrument, begin_ns - LATE_NS, end_ns + LATE_NS, columns).to_pandas()


def read_events(home: Home, market: str, begin_ns: int, end_ns: int) -> pd.DataFrame:
    """Every event between two instants, in order."""
    dataset = f"{market}.event"
    schema = PARQUET[dataset]
    tables = Catalog(home).read_between(dataset, begin_ns - LATE_NS, end_ns + LATE_NS, schema.names)
    whole = pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in tables)]).to_pandas()
    times = whole.time.astype("int64")
    return whole[(times >= begin_ns) & (times <= end_ns)].sort_values("time", kind="stable").reset_index(drop=True)


def _select_rows(
    table: pa.Table, first: int, instrument: Instrument, begin_ns: int, end_ns: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    at = np.flatnonzero(
        instrument_mask(table, instrument).to_numpy(zero_copy_only=False) & _time_mask(table, begin_ns, end_ns)
    )
    yield from zip((first + at).tolist(), table.take(pa.array(at)).to_pylist(), strict=True)


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
    for batch in Catalog(home).unpublished(dataset, [instrument]):
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
