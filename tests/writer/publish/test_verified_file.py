"""Encodings of published files: what they hold is what was written, and it takes fewer bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.writer_data import make_ticks

from benchmarks.pairing import KIS, deliver, generate_books
from ringbuf.records import FeedId
from writer import schema
from writer.publish.verified_file import choose_encodings, write_verified


@pytest.mark.parametrize("dataset", ["kr.orderbook", "kr.tick"])
def test_books_and_ticks_take_fewer_bytes_than_with_a_dictionary_for_each_column(dataset: str, tmp_path: Path) -> None:
    """Equal tables by both ways; only encodings that were in the format's first version."""
    if dataset == "kr.orderbook":
        records = deliver(generate_books(20.0, 20, 10.0, 1), FeedId.KIS, KIS, np.random.default_rng(1))
        records = records[np.argsort(records["symbol"], kind="stable")]  # as published
    else:
        records = make_ticks(range(5000))
    table = pa.table(schema.build_columns(dataset, records), schema.PARQUET[dataset])

    size = write_verified(tmp_path / "named", table.schema, [table])
    pq.write_table(table, tmp_path / "default", compression="zstd", write_page_checksum=True)

    assert pq.read_table(tmp_path / "named").equals(table)
    assert size < 0.9 * (tmp_path / "default").stat().st_size
    group = pq.read_metadata(tmp_path / "named").row_group(0)
    used = {one for at in range(group.num_columns) for one in group.column(at).encodings}
    assert used <= {"PLAIN", "RLE", "RLE_DICTIONARY", "PLAIN_DICTIONARY", "DELTA_BINARY_PACKED"}


def test_other_files_are_written_as_ever() -> None:
    assert choose_encodings(schema.PARQUET["kr.event"]) == {}
