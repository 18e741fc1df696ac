"""Compaction of a certified day: each dataset's hour files become one, sorted by instrument and time.

    date=D/hour=08/part-0.parquet ─┐
    date=D/hour=09/part-0.parquet ─┼─> .date=D.compacting/hour=all/part-0.parquet     read back, compared with all rows of the old
    date=D/hour=09/part-1.parquet ─┘         │
                                   date=D <──┴── exchanged in one call, then the old directory is removed

Guarantees:
    * Every row of the old files is in the new one, once: the rows of both are counted and hashed, in whatever order, before.
    * `date=D` leads to the old files or to the new one at every instant, whatever instruction is the last.
    * Only a day whose certificates hold is compacted, and none of which rows are in the journal.
    * The new file has the lineage of the old ones: what the writer still has of the day in its journal is published once.
    * A date is the exchange's own, as in the names of directories; every session of which rows lie there is certified.

Not handled here:
    * Certificates and minute bars, which have one file a day already.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from collectorctl.export.certified import NotHandedOn, verify_stored
from collectorctl.recover.certificate.certify import best_grades
from collectorctl.recover.store.partition_rewriter import rechunk, sort_ticks
from collectorctl.recover.verify import format_recovery_command
from conf.files.exchange import exchange_directories
from conf.files.lock import exclusive_lock
from conf.home import Home
from conf.instrument import Instrument
from conf.market import KR, Market
from writer import durable_io
from writer.catalog import COMPACTED, encode_spans, find_partitions, read_instrument, read_row_groups, read_spans
from writer.publish.feed_stats_file import refresh
from writer.publish.verified_file import PartitionWriteError, write_verified
from writer.schema import FILE_VERSION

LOCK_TIMEOUT_S = 60.0
DATASETS = ("orderbook", "tick", "event", "feed_health")
_TIME = {"orderbook": "recv_time", "event": "time", "feed_health": "minute"}
"""What the rows of an instrument are sorted by; those of `tick` by the order of the trades."""


class DayCompaction(msgspec.Struct):
    """What became, or would become, of a day: files and bytes before and after (0: not known yet)."""

    files_before: int = 0
    bytes_before: int = 0
    files_after: int = 0
    bytes_after: int = 0


class _RowsDigest(NamedTuple):
    """A number for rows in any order."""

    rows: int
    total: int


def compact_day(
    home: Home,
    day: date,
    market: Market = KR,
    dry_run: bool = False,
    on_step: Callable[[int, int], None] = lambda *_: None,
) -> DayCompaction:
    """Compact what has more than one file. NotHandedOn, PartitionWriteError, OSError, LockHeld: that dataset is as it was.

    `on_step`: called with how many datasets of how many are done, also within one; what it raises ends the compaction.
    """
    found = DayCompaction()
    with exclusive_lock(home.date_lock_path(str(day)), "compact", LOCK_TIMEOUT_S):
        _refuse_unfinished(home, day, market)
        if not dry_run and len(market.feeds) > 1:
            refresh(home.data / market.name, market, str(day), home.load_clock().anchor.speed)
        for done, name in enumerate(DATASETS):
            on_step(done, len(DATASETS))
            directory = home.data / market.name / name
            if not (paths := find_partitions(directory, day)):
                continue
            found.files_before += len(paths)
            found.bytes_before += _sum_bytes(paths)
            if dry_run:
                continue
            _remove_leftover(directory, day)
            if len(paths) > 1 or paths[0].parent.name != COMPACTED:
                on_rows = partial(on_step, done, len(DATASETS))
                _compact_dataset(directory, day, name, paths, home.settings.writer.row_group_rows, on_rows)
            paths = find_partitions(directory, day)
            found.files_after += len(paths)
            found.bytes_after += _sum_bytes(paths)
    return found


def is_compacted(home: Home, day: date, market: Market) -> bool:
    """Whether nothing of a date is left to do, not even what a killed run left."""
    directories = [home.data / market.name / name for name in DATASETS]
    paths = (path for directory in directories for path in find_partitions(directory, day))
    is_left = any(_name_leftover(directory, day).exists() for directory in directories)
    return not is_left and all(path.parent.name == COMPACTED for path in paths)


def _refuse_unfinished(home: Home, day: date, market: Market) -> None:
    """NotHandedOn: a session of which rows lie there is not certified as well as can be, or not all is published."""
    grades = best_grades(market)
    for session, verified in verify_stored(home, day, market).items():
        if open_ones := [str(name) for name, one in sorted(verified.items()) if one.now.certificate not in grades]:
            names = ", ".join(open_ones[:5])
            raise NotHandedOn(
                f"{session}: not {' or '.join(grades)}: {names}{' ...' if len(open_ones) > 5 else ''}: run "
                f"{format_recovery_command(session, market)} first"
            )


def _compact_dataset(
    directory: Path, day: date, name: str, paths: Sequence[Path], row_group_rows: int, on_rows: Callable[[], None]
) -> None:
    date_dir = paths[0].parent.parent
    if others := sorted(set(date_dir.rglob("*")) - set(paths) - {path.parent for path in date_dir.glob("hour=*/*")}):
        raise NotHandedOn(f"{others[0]}: is no published file: move it away, then compact {day} again")
    schema = _read_schema(paths)
    new_dir = _name_leftover(directory, day)
    target = new_dir / COMPACTED / "part-0.parquet"
    durable_io.create_directory(target.parent)
    spans = [span for path in paths for span in read_spans(path)]
    metadata = {"schema_version": str(FILE_VERSION), "compacted": encode_spans(spans)}
    tables = rechunk(_read_sorted(paths, name, schema, on_rows), row_group_rows, schema)
    write_verified(target, schema.with_metadata(metadata), tables)
    before, after = (_compute_digest(files, schema, on_rows) for files in (paths, [target]))
    if before != after:
        shutil.rmtree(new_dir)
        raise PartitionWriteError(
            f"{date_dir}: {before.rows} rows became {after.rows}, or others: nothing was replaced: report this"
        )
    exchange_directories(date_dir, new_dir)
    shutil.rmtree(new_dir)


def _name_leftover(directory: Path, day: date) -> Path:
    """Where the new files are made, and where the old ones are after the exchange: never anything that is needed."""
    return directory / f".date={day}.compacting"


def _remove_leftover(directory: Path, day: date) -> None:
    if (leftover := _name_leftover(directory, day)).exists():
        shutil.rmtree(leftover)


def _read_schema(paths: Sequence[Path]) -> pa.Schema:
    """The columns of the files. PartitionWriteError if they differ: of two versions."""
    schemas = [pq.read_schema(path).remove_metadata() for path in paths]
    for path, schema in zip(paths, schemas, strict=True):
        if not schema.equals(schemas[0]):
            raise PartitionWriteError(f"{path}: has other columns than {paths[0]}: these files cannot become one")
    return schemas[0]


def _read_sorted(
    paths: Sequence[Path], name: str, schema: pa.Schema, on_rows: Callable[[], None]
) -> Iterator[pa.Table]:
    """The rows, an instrument at a time; of events all at once."""
    if name == "event":
        yield _read_all(paths).sort_by(_TIME[name])
        return
    for instrument in _find_instruments(paths):
        on_rows()
        tables = [table for path in paths for table in read_instrument(path, instrument, schema.names)]
        table = pa.concat_tables(tables).combine_chunks()
        yield _sort_trades(table) if name == "tick" else table.sort_by(_TIME[name])


def _sort_trades(ticks: pa.Table) -> pa.Table:
    """Ticks of an instrument in the order of the trades; the cumulative volume begins anew with a session."""
    if "business_date" not in ticks.column_names:
        return sort_ticks(ticks)
    sessions = sorted(ticks["business_date"].unique().to_pylist())
    return pa.concat_tables([sort_ticks(ticks.filter(pc.field("business_date") == one)) for one in sessions])


def _find_instruments(paths: Sequence[Path]) -> list[Instrument]:
    keys = {
        (row["symbol"], row["venue"])
        for path in paths
        for _, table in read_row_groups(path, None, ["symbol", "venue"])
        for row in table.group_by(["symbol", "venue"]).aggregate([]).to_pylist()
    }
    return [Instrument(*key) for key in sorted(keys)]


def _read_all(paths: Sequence[Path]) -> pa.Table:
    return pa.concat_tables([table for path in paths for _, table in read_row_groups(path, None)])


def _compute_digest(paths: Sequence[Path], schema: pa.Schema, on_rows: Callable[[], None]) -> _RowsDigest:
    """Of all rows of some files."""
    rows, total = 0, 0
    for path in paths:
        for _, table in read_row_groups(path, None):
            on_rows()
            rows += len(table)
            total += hash_rows(table.select(schema.names))
    return _RowsDigest(rows, total % 2**64)


def hash_rows(table: pa.Table) -> int:
    """A sum of one hash a row, over the values and nulls of all columns."""
    from pandas.util import hash_array

    hashes = np.zeros(len(table), np.uint64)
    for column in table.columns:
        values = column.combine_chunks()
        if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
            values = values.cast(pa.int64() if values.type.bit_width == 64 else pa.int32())
        is_text = pa.types.is_string(values.type)
        filled = pc.fill_null(values, "" if is_text else 0).to_numpy(zero_copy_only=False)
        for part in (values.is_null().to_numpy(zero_copy_only=False).astype(np.int8), filled):
            # mixed, so that two rows that exchange a value have another sum
            hashes = (hashes ^ hash_array(part)) * np.uint64(0x9E3779B97F4A7C15)
            hashes ^= hashes >> np.uint64(32)
    return int(hashes.sum(dtype=np.uint64))


def _sum_bytes(paths: Sequence[Path]) -> int:
    return sum(path.stat().st_size for path in paths)
