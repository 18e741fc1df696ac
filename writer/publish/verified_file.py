"""Parquet file that is verified before it appears: written, synced, read back, renamed.

    tables ─row groups─> .NAME.PID.tmp ─fsync, read back─┬─ link ───> NAME     a new file: no other can be lost
                                                         └─ rename ─> NAME     a replacement, by whoever may replace it

Guarantees:
    * The file at `path` is the old or the complete new one, whatever instruction is the last.
    * A new file replaces none, and no process writes into the temporary file of another; those of dead processes are removed.
    * Every value read back equals the one that was written; memory holds one row group.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ringbuf.pid import is_running
from writer import durable_io

ZSTD_LEVEL = 5
"""A twentieth smaller than with the library's level, at a tenth more CPU; from 7 on the CPU doubles for little."""

_REPEATING = re.compile(r"side|mid_price|(ask|bid)_price_([3-9]|10)")
_RISING = re.compile(
    r"seq|cum_value|value_change|trade_count|exch_time|recv_time(_kis|_kiwoom)?|flags|expected_(price|size)"
)


class PartitionWriteError(Exception):
    """A partition could not be written, read or verified; the message names file and remedy; what was there stays."""


class Cancelled(Exception):
    """The process has to end before the file is complete; nothing of it remains visible."""


def write_verified(
    path: Path,
    schema: pa.Schema,
    tables: Iterable[pa.Table],
    cancelled: Callable[[], bool] = lambda: False,
    replace: bool = True,
) -> int:
    """Write a file with one row group per table; its size in bytes.

    PartitionWriteError, OSError, Cancelled: `path` is unchanged and nothing else is left. `cancelled` is called before each table.
    `replace`: an existing file is replaced; otherwise one is a PartitionWriteError.
    """
    remove_leftovers(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    rows, checksums = 0, []
    try:
        with os.fdopen(durable_io.open_temporary(temporary), "wb") as file:
            with pq.ParquetWriter(
                file,
                schema,
                compression="zstd",
                compression_level=ZSTD_LEVEL,
                write_page_checksum=True,
                **choose_encodings(schema),
            ) as writer:
                for table in tables:
                    if cancelled():
                        raise Cancelled(str(temporary))
                    writer.write_table(table, row_group_size=max(1, table.num_rows))
                    rows += table.num_rows
                    checksums.append(_checksum(table))
            file.flush()
            durable_io.sync(file.fileno())
        _verify(temporary, rows, checksums)
        size = temporary.stat().st_size
        if replace:
            durable_io.rename(temporary, path)
        else:
            durable_io.link_new(temporary, path)
    except FileExistsError as error:
        temporary.unlink(missing_ok=True)
        raise PartitionWriteError(
            f"{path}: another process made this file meanwhile: nothing was replaced, it is tried again"
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return size


def choose_encodings(schema: pa.Schema) -> dict[str, Any]:
    """Encodings of books and ticks, as arguments of a Parquet writer; none for other files.

    A dictionary of values that hardly repeat costs bytes and time. Only encodings that readers have known for years: integers in
    BYTE_STREAM_SPLIT would be smaller still, and unreadable to some.
    """
    if not {"recv_time", "seq", "cum_volume"} <= set(schema.names):
        return {}
    rising = {name for name in schema.names if _RISING.fullmatch(name)}
    if "value_change" in schema.names:
        rising.add("cum_volume")  # that of ticks; books repeat theirs
    repeating = [field.name for field in schema if pa.types.is_string(field.type) or _REPEATING.fullmatch(field.name)]
    return {
        "use_dictionary": repeating,
        "column_encoding": {
            name: "DELTA_BINARY_PACKED" if name in rising else "PLAIN"
            for name in schema.names
            if name not in repeating and not pa.types.is_floating(schema.field(name).type)
        },
    }


def remove_leftovers(directory: Path) -> None:
    """Remove the temporary files of processes that are dead, of an earlier version, and of this process."""
    for path in directory.glob(".*.tmp"):
        pid = path.name.removesuffix(".tmp").rpartition(".")[2]
        if not pid.isdigit() or int(pid) == os.getpid() or not is_running(int(pid)):
            durable_io.remove(path)


def _verify(temporary: Path, rows: int, checksums: list[int]) -> None:
    """Read the file back, row group by row group; PartitionWriteError unless every value is what was written."""
    with pq.ParquetFile(temporary, page_checksum_verification=True) as file:
        found = [_checksum(file.read_row_group(group, use_threads=False)) for group in range(file.num_row_groups)]
        if file.metadata.num_rows != rows or found != checksums:
            raise PartitionWriteError(
                f"{temporary}: read back {file.metadata.num_rows} rows, {rows} were written, contents differ: nothing was "
                "replaced, it is tried again; check the disk if it happens twice"
            )


def _checksum(table: pa.Table) -> int:
    """A checksum of every value and null of a table, whatever its memory layout."""
    crc = 0
    for column in table.columns:
        column = column.combine_chunks()
        crc = zlib.crc32(np.packbits(column.is_null().to_numpy(zero_copy_only=False)).data, crc)
        if column.type == pa.string():
            lengths = pc.fill_null(pc.binary_length(column), 0).to_numpy()
            text = b"".join(pc.fill_null(column, "").cast(pa.binary()).to_pylist())
            crc = zlib.crc32(text, zlib.crc32(np.ascontiguousarray(lengths).data, crc))
            continue
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        elif pa.types.is_date32(column.type):
            column = column.cast(pa.int32())
        elif not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            crc = zlib.crc32(repr(column.to_pylist()).encode(), crc)
            continue
        crc = zlib.crc32(np.ascontiguousarray(pc.fill_null(column, 0).to_numpy()).data, crc)
    return crc
