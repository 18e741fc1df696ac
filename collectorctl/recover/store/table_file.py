"""Small Parquet table of a day with rows of several instruments, replaced as a whole.

Guarantees:
    * Rows of instruments that are not given stay; nothing is written when no row changes.
    * After a kill at any instruction the file is the old or the new one.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from writer import durable_io
from writer.publish.verified_file import PartitionWriteError, write_verified


def read(path: Path) -> pa.Table | None:
    """All rows; None if the file does not exist. PartitionWriteError, with its name, if it cannot be read."""
    try:
        return pq.ParquetFile(path).read() if path.exists() else None
    except pa.ArrowException as error:
        raise PartitionWriteError(f"{path}: cannot be read: {error}") from error


def merge(path: Path, table: pa.Table, order: list[str]) -> None:
    """Put `table` in the place of what the file has of its instruments (symbol, venue); sorted by `order`. OSError."""
    old = read(path)
    merged = table
    if old is not None:
        replaced = {(row["symbol"], row["venue"]) for row in table.select(["symbol", "venue"]).to_pylist()}
        keep = [(row["symbol"], row["venue"]) not in replaced for row in old.select(["symbol", "venue"]).to_pylist()]
        merged = pa.concat_tables([old.filter(pa.array(keep, pa.bool_())).cast(table.schema), table])
    merged = merged.take(pc.sort_indices(merged, [(name, "ascending") for name in order])).combine_chunks()
    if old is not None and old.equals(merged):
        return
    durable_io.create_directory(path.parent)
    write_verified(path, merged.schema, [merged])
