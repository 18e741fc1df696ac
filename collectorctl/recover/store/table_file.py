"""A small Parquet file of a day with rows of several instruments, replaced as a whole.

Promises: rows of instruments that are not given stay; nothing is written when no row changes; killed at any instruction the file is
the old or the new one.
Leaves to others: what the rows are (bars.py, completeness.py).
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from collectorctl.recover.store.partition_rewriter import write


def read(path: Path) -> pa.Table | None:
    """All rows; None while there is no such file."""
    return pq.ParquetFile(path).read() if path.exists() else None


def merge(path: Path, table: pa.Table, order: list[str]) -> None:
    """Put `table` in the place of what the file has of its instruments (symbol, venue); sorted by `order`. OSError."""
    old = read(path)
    whole = table
    if old is not None:
        mine = {(row["symbol"], row["venue"]) for row in table.select(["symbol", "venue"]).to_pylist()}
        stays = [(row["symbol"], row["venue"]) not in mine for row in old.select(["symbol", "venue"]).to_pylist()]
        whole = pa.concat_tables([old.filter(pa.array(stays, pa.bool_())).cast(table.schema), table])
    whole = whole.take(pc.sort_indices(whole, [(name, "ascending") for name in order])).combine_chunks()
    if old is not None and old.equals(whole):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path.with_name(f".{path.name}.tmp"), path, whole.schema, lambda: [whole])
