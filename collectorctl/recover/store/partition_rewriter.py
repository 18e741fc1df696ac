"""One hour's file written anew: some rows put in, some taken out, the rest as it was.

    part-0.parquet ──row group by row group──> whole symbols ─┬─ less those that are gone ─┐
                                                              │                            ├─ in true order ─> row groups
    recovered rows ──────instrument by instrument─────────────┘                            ┘   ─> .part-0.parquet.tmp ─fsync,
                                                                                        made again and compared─> rename

Promises: holds a row group and a symbol's hour in memory, not the hour; killed at any instruction, the file is the old or the
new one; the same rows make the same bytes.
Leaves to others: which rows (publish.py).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ringbuf.records import UNDEFINED
from writer import durable_io
from writer.ingest.backfill_filter import carried
from writer.schema import PARQUET

SCHEMA = PARQUET["kr.tick"]

Added = Iterable[tuple[str, Callable[[], pa.Table]]]
"""(symbol, its rows), by symbol and venue."""


class PublishError(Exception):
    """A file that could not be read or was not read back as written; the message says which. The old one is still there."""


class Old:
    """A published file, of which a row group is read at a time; empty where there is none."""

    def __init__(self, path: Path) -> None:
        """PublishError when it is none of this version."""
        self._file = pq.ParquetFile(path, page_checksum_verification=True) if path.exists() else None
        schema = self._file.schema_arrow if self._file else SCHEMA
        self.metadata: dict[bytes, bytes] = dict(schema.metadata or {})
        if not schema.remove_metadata().equals(SCHEMA):
            raise PublishError(f"{path}: has columns of another version: upgrade it, or move it away and recover again")

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()

    def groups(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Its row groups."""
        for number in range(self._file.num_row_groups if self._file else 0):
            yield self._file.read_row_group(number, columns).replace_schema_metadata(None)  # type: ignore[union-attr]

    def staying(self, gone: np.ndarray, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Its row groups without the rows at the positions `gone` (ascending)."""
        begin = 0
        for group in self.groups(columns):
            mine = gone[np.searchsorted(gone, begin) : np.searchsorted(gone, begin + len(group))] - begin
            begin += len(group)
            yield _without(group, mine)

    def by_symbol(self, gone: np.ndarray) -> Iterator[pa.Table]:
        """What stays, in tables that hold whole symbols, one after the other."""
        if not self._sorted():
            yield _in_order(pa.concat_tables(self.staying(gone)))
            return
        waits = SCHEMA.empty_table()
        for group in self.staying(gone):
            waits = pa.concat_tables([waits, group])
            if not len(waits):
                continue
            cut = pc.index(waits.column("symbol"), waits.column("symbol")[-1]).as_py()
            if cut:
                yield waits.slice(0, cut)
                waits = waits.take(pa.array(np.arange(cut, len(waits))))  # lets the rest go
        if len(waits):
            yield waits

    def _sorted(self) -> bool:
        """Whether symbols come in order; they do in all that the writer published."""
        last = ""
        for group in self.groups(["symbol"]):
            for symbol in _heads(group.column("symbol")):
                if symbol is None or symbol < last:
                    return False
                last = symbol
        return True


def _heads(symbols: pa.ChunkedArray) -> list[str | None]:
    """The first of each run of the same symbol."""
    words = symbols.combine_chunks()
    codes = words.dictionary_encode()
    numbers = pc.fill_null(codes.indices, -1).to_numpy()
    at = np.flatnonzero(np.diff(numbers, prepend=-2)) if len(numbers) else np.zeros(0, np.int64)
    return words.take(pa.array(at)).to_pylist()


def _without(table: pa.Table, gone: np.ndarray) -> pa.Table:
    """All rows but those at these positions."""
    if not len(gone):
        return table
    stays = np.ones(len(table), bool)
    stays[gone] = False
    return table.filter(pa.array(stays))


def rewrite(path: Path, old: Old, gone: np.ndarray, added: Callable[[], Added], row_group_rows: int) -> None:
    """Put the file in the place of `path`. `gone`: positions of rows of the old one, ascending; `added` is asked more than once.
    PublishError, OSError."""

    def chunks() -> Iterator[pa.Table]:
        return _even(_merged(old.by_symbol(gone), added()), row_group_rows)

    count = sum(len(rows()) for _, rows in added())
    for group in old.staying(gone, ["source"]):
        count += pc.sum(pc.equal(group.column("source"), "recovered")).as_py() or 0
    schema = SCHEMA.with_metadata(old.metadata | {b"recovered_rows": str(count).encode()})
    write(path.with_name(f".{path.name}.tmp"), path, schema, chunks)


def _merged(old: Iterator[pa.Table], added: Added) -> Iterator[pa.Table]:
    """Both, symbol by symbol, each in true order."""
    waiting = iter(added)
    ahead = next(waiting, None)
    for table in old:
        last, mine = table.column("symbol")[-1].as_py() if len(table) else "", [table]
        while ahead is not None and ahead[0] <= last:
            mine.append(ahead[1]())
            ahead = next(waiting, None)
        yield _in_order(pa.concat_tables(mine))
    while ahead is not None:
        yield _in_order(ahead[1]())
        ahead = next(waiting, None)


def _even(tables: Iterator[pa.Table], rows_each: int) -> Iterator[pa.Table]:
    """The same rows in tables of `rows_each`, the last one shorter; one that is empty if there is no row."""
    waits, count, some = [], 0, False
    for table in tables:
        waits.append(table)
        count += len(table)
        while count >= rows_each:
            whole = pa.concat_tables(waits)
            yield whole.slice(0, rows_each).combine_chunks()
            some, count = True, count - rows_each
            waits = [whole.slice(rows_each).take(pa.array(np.arange(count)))]
    if count or not some:
        yield pa.concat_tables([SCHEMA.empty_table(), *waits]).combine_chunks()


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


def write(aside: Path, path: Path, schema: pa.Schema, chunks: Callable[[], Iterable[pa.Table]]) -> None:
    """Write each chunk as a row group, sync, read back, rename. PublishError, OSError: `path` is as it was.

    `chunks` is asked twice, so that none has to be kept until it is read back.
    """
    try:
        with os.fdopen(durable_io.write_aside(aside), "wb") as file:
            with pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
                for chunk in chunks():
                    told = chunk.replace_schema_metadata(schema.metadata)
                    writer.write_table(told, row_group_size=max(1, len(chunk)))
            file.flush()
            durable_io.sync(file.fileno())
        with pq.ParquetFile(aside, page_checksum_verification=True) as written:
            count = 0
            for number, chunk in enumerate(chunks()):
                count = number + 1
                if count > written.num_row_groups or not written.read_row_group(number).equals(chunk):
                    count = -1
                    break
            if count != written.num_row_groups:
                raise PublishError(
                    f"{path}: read back other rows than were written; the old file stays: check the disk"
                )
        durable_io.rename(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    finally:
        pa.default_memory_pool().release_unused()
