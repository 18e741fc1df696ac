"""Recovered rows go into the hour's file, in true order; rows that say what others say go out of it.

    part-0.parquet ─┬─ live rows, less those that are superseded ─┐
                    └─ the part's own metadata                    ├─ by symbol, cumulative volume ─> .part-0.parquet.tmp
    recovered rows of the hour (no receive time, no sequence) ────┘      ─fsync, read back─> rename over part-0.parquet

An hour changes by one rename of one file: its recovered rows go into its first part. A further part (rows that came late, a
restart within the hour) keeps its name, its live rows and its place in the journal's lineage, so that the writer still knows how
far the hour is published.

Promises: killed at any instruction, a file is the old or the new one; a file that would not change is not written; the same
rows make the same bytes.
Leaves to others: which rows (fill.py, plan.py).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from brokers.quotes import PRINTS
from collectorctl.recover.day import parts
from conf.instrument import Instrument
from conf.market import HOUR_NS
from ringbuf.records import UNDEFINED
from writer import files
from writer.filled import carried
from writer.parquet import hour_directory
from writer.schema import KOREAN_TIME, PARQUET, VERSION

SCHEMA = PARQUET["kr.tick"]
Key = tuple[str, str, int, int, str]
"""Symbol, venue, cumulative volume, size, source."""
Superseded = Mapping[Key, int]
"""How many such rows stay: 1 of copies, 0 of a print whose parts are there."""


class PublishError(Exception):
    """A file that could not be read or was not read back as written; the message says which. The old one is still there."""


def publish(
    directory: Path,
    day: date,
    recovered: Mapping[Instrument, np.ndarray],
    superseded: Superseded,
    broker: str,
    row_group_rows: int,
) -> list[Path]:
    """Rewrite what changes of a day; the files that did. `recovered`: PRINTS by instrument. PublishError, OSError."""
    for leftover in (directory / f"date={day:%Y-%m-%d}").glob("hour=*/.part-*.tmp"):
        files.remove(leftover)
    new = _by_hour(recovered, broker)
    changed = []
    present = parts(directory, day)
    first_of = {path.parent: path for path in reversed(present)}
    for hour in new:
        home = hour_directory(directory, hour)
        if home not in first_of:
            home.mkdir(parents=True, exist_ok=True)
            files.sync_directory(home.parent)
            first_of[home] = home / "part-0.parquet"
            present.append(first_of[home])
    hour_of = {hour_directory(directory, hour): hour for hour in new}
    seen: Counter[Key] = Counter()
    for path in sorted(present, key=lambda path: (path.parent.name, len(path.name), path.name)):
        hour = hour_of.get(path.parent)
        more = new[hour] if hour is not None and first_of[path.parent] == path else None
        if more is None and not superseded:
            continue
        if _rewrite(path, more, superseded, seen, row_group_rows):
            changed.append(path)
    return changed


def rows(instrument: Instrument, prints: np.ndarray, broker: str) -> pa.Table:
    """PRINTS as published rows: no receive time, no sequence, `source` recovered."""
    count = len(prints)
    columns: dict[str, pa.Array] = {
        "symbol": pa.repeat(instrument.symbol, count),
        "venue": pa.repeat(instrument.venue, count),
        "exch_time": pa.array(prints["exch_ns"].copy()).cast(KOREAN_TIME),
        "side": pa.array(prints["side"].copy()),
        "source": pa.repeat("recovered", count),
        "broker": pa.repeat(broker, count),
        "session": pa.repeat("UNKNOWN", count),
        "flags": pa.array(np.zeros(count, np.int64)),
    }
    for name in ("price", "size", "cum_volume", "ask_price_1", "bid_price_1"):
        columns[name] = pa.array(prints[name].copy(), mask=prints[name] == UNDEFINED)
    arrays = [columns[field.name] if field.name in columns else pa.nulls(count, field.type) for field in SCHEMA]
    return pa.table(arrays, schema=SCHEMA)


def _by_hour(recovered: Mapping[Instrument, np.ndarray], broker: str) -> dict[int, pa.Table]:
    """The rows of each hour (start, ns), oldest hour first."""
    found: dict[int, list[pa.Table]] = {}
    for instrument, prints in sorted(recovered.items()):
        assert prints.dtype == PRINTS
        hours = prints["exch_ns"] // HOUR_NS * HOUR_NS
        for hour in np.unique(hours).tolist():
            found.setdefault(hour, []).append(rows(instrument, prints[hours == hour], broker))
    return {hour: pa.concat_tables(tables) for hour, tables in sorted(found.items())}


def _rewrite(
    path: Path,
    more: pa.Table | None,
    superseded: Superseded,
    seen: Counter[Key],
    row_group_rows: int,
) -> bool:
    """Put a new file in the place of `path` if its rows change; whether they did."""
    if path.exists():
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                old = file.read()
        except (pa.ArrowInvalid, OSError) as error:
            raise PublishError(f"{path}: unreadable ({error}): move it away and recover again") from error
        metadata = dict(old.schema.metadata or {})
        if not old.schema.remove_metadata().equals(SCHEMA):
            raise PublishError(f"{path}: has columns of another version: upgrade it, or move it away and recover again")
    else:
        old, metadata = SCHEMA.empty_table(), {b"schema_version": str(VERSION).encode()}
    stays = _staying(old, superseded, seen)
    if more is None and stays.all():
        return False
    kept = old.filter(pa.array(stays)).replace_schema_metadata(None)
    table = _in_order(pa.concat_tables([kept, more] if more is not None else [kept]))
    count = pc.sum(pc.equal(table.column("source"), "recovered")).as_py() or 0
    _replace(path, table.replace_schema_metadata(metadata | {b"recovered_rows": str(count).encode()}), row_group_rows)
    return True


def _staying(table: pa.Table, superseded: Superseded, seen: Counter[Key]) -> np.ndarray:
    """Which rows are not superseded, bool (n,); `seen` counts copies over all files of a day."""
    stays = np.ones(len(table), bool)
    named = {symbol for symbol, *_ in superseded}
    if not named:
        return stays
    at = np.flatnonzero(pc.is_in(table.column("symbol"), pa.array(sorted(named))).to_numpy())
    few = table.select(["symbol", "venue", "cum_volume", "size", "source"]).take(pa.array(at))
    for number, row in zip(at.tolist(), few.to_pylist(), strict=True):
        key = (row["symbol"], row["venue"], row["cum_volume"], row["size"], row["source"])
        if key in superseded:
            stays[number] = seen[key] < superseded[key]
            seen[key] += 1
    return stays


def _in_order(table: pa.Table) -> pa.Table:
    """By symbol, venue and cumulative volume; a row without one stays behind the row it followed."""
    names, venues = (table.column(name).combine_chunks() for name in ("symbol", "venue"))
    volume = pc.fill_null(table.column("cum_volume"), UNDEFINED).to_numpy()
    ranks = [_ranks(names), _ranks(venues)]
    same = np.ones(len(table), bool)
    if len(table):
        same[0] = False
        for rank in ranks:
            same[1:] &= rank[1:] == rank[:-1]
    volume = carried(volume, ~same)
    order = np.lexsort((np.arange(len(table)), volume, ranks[1], ranks[0]))
    return table.take(pa.array(order)).combine_chunks()


def _ranks(column: pa.Array) -> np.ndarray:
    """Numbers in the order of the words."""
    words = column.dictionary_encode()
    order = np.empty(len(words.dictionary), np.int64)
    order[np.argsort(np.array(words.dictionary.to_pylist(), object), kind="stable")] = np.arange(len(words.dictionary))
    return order[words.indices.to_numpy()] if len(words.dictionary) else np.zeros(0, np.int64)


def _replace(path: Path, table: pa.Table, row_group_rows: int) -> None:
    aside = path.with_name(f".{path.name}.tmp")
    write_table(aside, path, table, row_group_rows)


def write_table(aside: Path, path: Path, table: pa.Table, row_group_rows: int) -> None:
    """Write, sync, read back, rename. PublishError, OSError: `path` is as it was."""
    try:
        with os.fdopen(files.write_aside(aside), "wb") as file:
            with pq.ParquetWriter(file, table.schema, compression="zstd", write_page_checksum=True) as writer:
                for chunk in _groups(table, row_group_rows):
                    writer.write_table(chunk, row_group_size=max(1, chunk.num_rows))
            file.flush()
            files.sync(file.fileno())
        with pq.ParquetFile(aside, page_checksum_verification=True) as written:
            if not written.read().equals(table):
                raise PublishError(
                    f"{path}: read back other rows than were written; the old file stays: check the disk"
                )
        files.rename(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _groups(table: pa.Table, rows_each: int) -> Iterable[pa.Table]:
    for begin in range(0, max(1, len(table)), rows_each):
        yield table.slice(begin, rows_each)
