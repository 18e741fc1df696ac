"""Publication of recovered rows: merged into the partitions of a day, superseded rows removed.

    part-0.parquet ─┬─ live rows, less those that are superseded ─┐
                    └─ the part's own metadata                    ├─ rewrite ────> part-0.parquet
    recovered rows of the hour (no receive time, no sequence) ────┘

An hour changes by one rename of one file: its recovered rows go into its first part. A further part (rows that came late, a
restart within the hour) keeps its name, its live rows and its place in the journal's lineage, from which the writer reads how far
the hour is published.

Guarantees:
    * A file without changes is not written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from collectorctl.recover.store.partition_rewriter import (
    SCHEMA,
    AddedRows,
    ExistingPartition,
    rewrite,
)
from collectorctl.recover.store.staging import StagingArea
from conf.instrument import Instrument
from ringbuf.records import UNDEFINED
from writer import durable_io
from writer.catalog import find_partitions, hour_directory
from writer.publish.verified_file import PartitionWriteError, remove_leftovers
from writer.schema import FILE_VERSION, KOREAN_TIME, clear_zero_prices

RowKey = tuple[str, str, int, int, str]
"""Symbol, venue, cumulative volume, size, source."""
RedundantRows = Mapping[RowKey, int]
"""How many such rows are kept: 1 of copies, 0 of a merged trade whose parts are stored."""
Label = Callable[[str, int], str | None]
"""The phase of a venue at an instant, ns since 1970 UTC, or None: TradingCalendar.label."""
_KEY_COLUMNS = ["symbol", "venue", "cum_volume", "size", "source"]


def publish(
    directory: Path,
    day: date,
    staging: StagingArea,
    redundant: RedundantRows,
    broker: str,
    row_group_rows: int,
    label: Label,
) -> list[Path]:
    """Rewrite what changes of a day; the files that did. The caller holds the date's lock. PartitionWriteError, OSError."""
    for hour_dir in (directory / f"date={day:%Y-%m-%d}").glob("hour=*"):
        remove_leftovers(hour_dir)
    changed = []
    present = find_partitions(directory, day)
    first_of = {path.parent: path for path in reversed(present)}
    for hour in staging.hours():
        hour_dir = hour_directory(directory, hour)
        if hour_dir not in first_of:
            durable_io.create_directory(hour_dir)
            first_of[hour_dir] = hour_dir / "part-0.parquet"
            present.append(first_of[hour_dir])
    hour_of = {hour_directory(directory, hour): hour for hour in staging.hours()}
    seen: Counter[RowKey] = Counter()
    for path in sorted(present, key=lambda path: (path.parent.name, len(path.name), path.name)):
        added_hour = hour_of.get(path.parent) if first_of[path.parent] == path else None
        if added_hour is None and not redundant:
            continue
        old = _open_partition(path)
        try:
            removed = _find_removed(old, redundant, seen)
            if added_hour is not None or len(removed):
                rewrite(path, old, removed, partial(_read_added, staging, added_hour, broker, label), row_group_rows)
                changed.append(path)
        except pa.ArrowInvalid as error:
            raise _unreadable_error(path, error) from error
        finally:
            old.close()
    return changed


def _open_partition(path: Path) -> ExistingPartition:
    try:
        old = ExistingPartition(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable_error(path, error) from error
    old.metadata.setdefault(b"schema_version", str(FILE_VERSION).encode())
    return old


def _unreadable_error(path: Path, error: Exception) -> PartitionWriteError:
    return PartitionWriteError(f"{path}: unreadable ({error}): move it away and recover again")


def _read_added(staging: StagingArea, hour: int | None, broker: str, label: Label) -> AddedRows:
    """The recovered rows of an hour."""
    if hour is None:
        return
    for instrument in staging.instruments(hour):
        yield instrument.symbol, partial(_load_rows, staging, hour, instrument, broker, label)


def _load_rows(staging: StagingArea, hour: int, instrument: Instrument, broker: str, label: Label) -> pa.Table:
    return to_published_rows(instrument, staging.load_rows(hour, instrument), broker, label)


def to_published_rows(instrument: Instrument, trades: np.ndarray, broker: str, label: Label) -> pa.Table:
    """TRADE_ROW as published rows: no receive time, no sequence, `source` recovered; the session is that of the exchange's time."""
    count = len(trades)
    seconds, which = np.unique(trades["exch_ns"], return_inverse=True)
    sessions = [label(instrument.venue, second) or "unknown" for second in seconds.tolist()]
    columns: dict[str, pa.Array] = {
        "symbol": pa.repeat(instrument.symbol, count),
        "venue": pa.repeat(instrument.venue, count),
        "exch_time": pa.array(trades["exch_ns"].copy()).cast(KOREAN_TIME),
        "side": pa.array(trades["side"].copy()),
        "source": pa.repeat("recovered", count),
        "broker": pa.repeat(broker, count),
        "session": pa.array(sessions, pa.string()).take(pa.array(which)),
        "flags": pa.array(np.zeros(count, np.int64)),
    }
    for name in ("price", "size", "cum_volume", "ask_price_1", "bid_price_1"):
        columns[name] = pa.array(trades[name].copy(), mask=trades[name] == UNDEFINED)
    arrays = [columns[field.name] if field.name in columns else pa.nulls(count, field.type) for field in SCHEMA]
    return clear_zero_prices(pa.table(arrays, schema=SCHEMA))


def _find_removed(old: ExistingPartition, redundant: RedundantRows, seen: Counter[RowKey]) -> np.ndarray:
    """Positions of the superseded rows of a file, ascending; `seen` counts copies over all files of a day."""
    symbols, found, begin = pa.array(sorted({symbol for symbol, *_ in redundant}), pa.string()), [], 0
    for group in old.read_groups(_KEY_COLUMNS) if redundant else ():
        at = np.flatnonzero(pc.is_in(group.column("symbol"), symbols).to_numpy())
        for number, row in zip(at.tolist(), group.take(pa.array(at)).to_pylist(), strict=True):
            key = tuple(row[name] for name in _KEY_COLUMNS)
            if key in redundant:
                if seen[key] >= redundant[key]:
                    found.append(begin + number)
                seen[key] += 1
        begin += len(group)
    return np.array(found, np.int64)
