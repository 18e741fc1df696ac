"""Partition rewriter: one file of an hour with rows added and removed.

    part-0.parquet ──row group by row group──> whole symbols ─┬─ less removed rows ───────┐
                                                              │                            ├─ in volume order ─> row groups
    recovered rows ──────instrument by instrument─────────────┘                            ┘   ─> .part-0.parquet.PID.tmp ─fsync,
                                                                            read back and compared─> rename, or link a new one

Guarantees:
    * Memory holds a row group and the hour of one symbol.
    * After a kill at any instruction the file is the old or the new one; equal rows give equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ringbuf.records import UNDEFINED
from writer.ingest.backfill_filter import forward_fill
from writer.publish.verified_file import PartitionWriteError, write_verified
from writer.schema import PARQUET

SCHEMA = PARQUET["kr.tick"]

AddedRows = Iterable[tuple[str, Callable[[], pa.Table]]]
"""(symbol, its rows), by symbol and venue."""


class ExistingPartition:
    """A published file, read a row group at a time; empty if the file does not exist."""

    def __init__(self, path: Path) -> None:
        """PartitionWriteError for a file of another version."""
        self._file = pq.ParquetFile(path, page_checksum_verification=True) if path.exists() else None
        self.exists = self._file is not None
        schema = self._file.schema_arrow if self._file else SCHEMA
        self.metadata: dict[bytes, bytes] = dict(schema.metadata or {})
        if not schema.remove_metadata().equals(SCHEMA):
            raise PartitionWriteError(
                f"{path}: has columns of another version: upgrade it, or move it away and recover again"
            )

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def read_groups(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Its row groups."""
        for number in range(self._file.num_row_groups if self._file else 0):
            yield self._file.read_row_group(number, columns).replace_schema_metadata(None)  # type: ignore[union-attr]

    def read_remaining(self, removed: np.ndarray, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Its row groups without the rows at the positions `removed` (ascending)."""
        begin = 0
        for group in self.read_groups(columns):
            mine = removed[np.searchsorted(removed, begin) : np.searchsorted(removed, begin + len(group))] - begin
            begin += len(group)
            yield _drop_rows(group, mine)

    def read_by_symbol(self, removed: np.ndarray) -> Iterator[pa.Table]:
        """The remaining rows, in tables of complete symbols, one after the other."""
        if not self._is_sorted():
            yield sort_ticks(pa.concat_tables(self.read_remaining(removed)))
            return
        pending = SCHEMA.empty_table()
        for group in self.read_remaining(removed):
            pending = pa.concat_tables([pending, group])
            if not len(pending):
                continue
            last_symbol_start = pc.index(pending.column("symbol"), pending.column("symbol")[-1]).as_py()
            if last_symbol_start:
                yield pending.slice(0, last_symbol_start)
                pending = pending.take(pa.array(np.arange(last_symbol_start, len(pending))))  # frees the rest
        if len(pending):
            yield pending

    def _is_sorted(self) -> bool:
        """Whether symbols come in order; they do in all that the writer published."""
        last = ""
        for group in self.read_groups(["symbol"]):
            for symbol in _run_starts(group.column("symbol")):
                if symbol is None or symbol < last:
                    return False
                last = symbol
        return True


def _run_starts(symbols: pa.ChunkedArray) -> list[str | None]:
    """The first of each run of equal symbols."""
    names = symbols.combine_chunks()
    codes = names.dictionary_encode()
    numbers = pc.fill_null(codes.indices, -1).to_numpy()
    at = np.flatnonzero(np.diff(numbers, prepend=-2)) if len(numbers) else np.zeros(0, np.int64)
    return names.take(pa.array(at)).to_pylist()


def _drop_rows(table: pa.Table, removed: np.ndarray) -> pa.Table:
    """All rows except those at the given positions."""
    if not len(removed):
        return table
    keep = np.ones(len(table), bool)
    keep[removed] = False
    return table.filter(pa.array(keep))


def rewrite(
    path: Path, old: ExistingPartition, removed: np.ndarray, added: Callable[[], AddedRows], row_group_rows: int
) -> None:
    """Replace `path` by a file with rows removed and added. PartitionWriteError, OSError.

    Args:
        path: the partition; created if it does not exist.
        old: the partition as it is.
        removed: positions of rows of the old one, ascending.
        added: called more than once.
        row_group_rows: rows of a row group.
    """
    count = sum(len(rows()) for _, rows in added())
    for group in old.read_remaining(removed, ["source"]):
        count += pc.sum(pc.equal(group.column("source"), "recovered")).as_py() or 0
    schema = SCHEMA.with_metadata(old.metadata | {b"recovered_rows": str(count).encode()})
    try:
        write_verified(
            path,
            schema,
            rechunk(_merge(old.read_by_symbol(removed), added()), row_group_rows, SCHEMA),
            replace=old.exists,
        )
    finally:
        pa.default_memory_pool().release_unused()


def _merge(old: Iterator[pa.Table], added: AddedRows) -> Iterator[pa.Table]:
    """Both, symbol by symbol, each in true order."""
    remaining_added = iter(added)
    next_added = next(remaining_added, None)
    for table in old:
        last, tables = table.column("symbol")[-1].as_py() if len(table) else "", [table]
        while next_added is not None and next_added[0] <= last:
            tables.append(next_added[1]())
            next_added = next(remaining_added, None)
        yield sort_ticks(pa.concat_tables(tables))
    while next_added is not None:
        yield sort_ticks(next_added[1]())
        next_added = next(remaining_added, None)


def rechunk(tables: Iterator[pa.Table], rows_each: int, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows in tables of `rows_each`, the last one shorter; one empty table for no rows."""
    pending, count, any_yielded = [], 0, False
    for table in tables:
        pending.append(table)
        count += len(table)
        while count >= rows_each:
            merged = pa.concat_tables(pending)
            yield merged.slice(0, rows_each).combine_chunks()
            any_yielded, count = True, count - rows_each
            pending = [merged.slice(rows_each).take(pa.array(np.arange(count)))]
    if count or not any_yielded:
        yield pa.concat_tables([schema.empty_table(), *pending]).combine_chunks()


def sort_ticks(table: pa.Table) -> pa.Table:
    """By symbol, venue and cumulative volume; a row without one stays behind the row it followed."""
    names, venues = (table.column(name).combine_chunks() for name in ("symbol", "venue"))
    volume = pc.fill_null(table.column("cum_volume"), UNDEFINED).to_numpy()
    ranks = [_compute_ranks(names), _compute_ranks(venues)]
    same = np.ones(len(table), bool)
    if len(table):
        same[0] = False
        for rank in ranks:
            same[1:] &= rank[1:] == rank[:-1]
    volume = forward_fill(volume, ~same)
    order = np.lexsort((np.arange(len(table)), volume, ranks[1], ranks[0]))
    return table.take(pa.array(order)).combine_chunks()


def _compute_ranks(column: pa.Array) -> np.ndarray:
    """Numbers in the order of the strings."""
    encoded = column.dictionary_encode()
    order = np.empty(len(encoded.dictionary), np.int64)
    order[np.argsort(np.array(encoded.dictionary.to_pylist(), object), kind="stable")] = np.arange(
        len(encoded.dictionary)
    )
    return order[encoded.indices.to_numpy()] if len(encoded.dictionary) else np.zeros(0, np.int64)
