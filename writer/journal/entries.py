"""Journal entries: records as their rings have them, and what the writer needs to continue (pure).

    row  twin_of  mono_ns  recv_ns  hour  identity  record
    17   null     ...      ...      09h   16 bytes  472 bytes, ORDERBOOK     ──expand_entries──> columns as they will be published
    18   17       ...      ...      09h   16 bytes  472 bytes

Guarantees:
    * Every record becomes an entry, whatever it holds, and comes back bit by bit, but for the flags LATE and TWIN_DIFFERS.
    * Expanded, a twin has its own arrival, its details and TWIN_DIFFERS if it differs in one, and no other content.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from ringbuf.records import INSTRUMENT_BYTES, RINGS, FeedId, Flag, encode_instruments
from writer.ingest.arbitration_result import NEW, ArbitrationResult
from writer.ingest.book_arbiter import IDENTITY_BYTES
from writer.schema import PARQUET, build_columns, compute_hours, is_merged, parse_dataset

VERSION = 2
"""Of journal entries; those of 1 are EXPANDED (former_entries.py)."""

RECORD = "record"
_NUMBERED = [
    ("row", pa.int64()),  # entry number, 1, 2, 3 ... over the whole lineage of the journal
    ("twin_of", pa.int64()),  # null: a new row; else this entry is the other arrival of that row
    ("mono_ns", pa.int64()),
]
_HOUR = ("hour", pa.int64())  # start of the exchange hour the row is stored in, ns since 1970 UTC
_RECV_NS = ("recv_ns", pa.int64())  # null: fetched, not received
_DTYPES = {dtype.itemsize: dtype for dtype in RINGS.values()}


def _identity(dataset: str) -> list[tuple[str, pa.DataType]]:
    return [("identity", pa.binary(IDENTITY_BYTES))] if is_merged(dataset) else []


JOURNAL: dict[str, pa.Schema] = {
    dataset: pa.schema(
        [
            *_NUMBERED,
            _RECV_NS,
            _HOUR,
            *_identity(dataset),
            (RECORD, pa.binary(RINGS[parse_dataset(dataset)[1]].itemsize)),
        ]
    )
    for dataset in PARQUET
}
"""Dataset ("kr.tick") -> the columns of a journal entry."""

EXPANDED: dict[str, pa.Schema] = {
    dataset: pa.schema([*_NUMBERED, _HOUR, *_identity(dataset), *columns]) for dataset, columns in PARQUET.items()
}
"""Dataset -> an entry with the columns of the row as it will be published."""


def build_entries(
    dataset: str, records: np.ndarray, first_row: int, arbitration: ArbitrationResult | None
) -> pa.RecordBatch:
    """Entries (JOURNAL) of `records` (dtype of the dataset's stream), numbered from `first_row`.

    `arbitration`: the arbiter's result, None where nothing is merged.
    """
    count, identity, twin_of = len(records), [], pa.nulls(len(records), pa.int64())
    hours = compute_hours(records) if arbitration is None else arbitration.hour_ns
    if arbitration is not None:
        records = _add_flags(records, arbitration)
        twin_of = pa.array(arbitration.twin_of, mask=arbitration.twin_of == NEW)
        identity = [pa.array(arbitration.identity, pa.binary(IDENTITY_BYTES))]
    recv_ns, fetched = records["recv_ns"], records["line"] == FeedId.GAPFILL
    columns = [
        _to_column(np.arange(first_row, first_row + count)),
        twin_of,
        _to_column(records["mono_ns"]),
        pa.array(np.ascontiguousarray(recv_ns), mask=fetched) if fetched.any() else _to_column(recv_ns),
        _to_column(hours),
        *identity,
        build_record_column(records),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=JOURNAL[dataset])


def _to_column(values: np.ndarray) -> pa.Array:
    """A column of int64 without a null."""
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def _add_flags(records: np.ndarray, arbitration: ArbitrationResult) -> np.ndarray:
    """The records with what arbitration found."""
    if arbitration.late.any() or arbitration.differs.any():
        records = records.copy()
        records["flags"] |= np.where(arbitration.late, int(Flag.LATE), 0).astype(np.uint32)
        records["flags"] |= np.where(arbitration.differs, int(Flag.TWIN_DIFFERS), 0).astype(np.uint32)
    return records


def build_record_column(records: np.ndarray) -> pa.Array:
    """Records (n,) as a column of their bytes."""
    return _to_binary(records.tobytes(), records.dtype.itemsize, len(records))


def _to_binary(data: bytes, width: int, count: int) -> pa.Array:
    """`count` values of `width` bytes."""
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), count, [None, pa.py_buffer(data)])


def find_record_dtype(schema: pa.Schema) -> np.dtype:
    """Of the records of entries with these columns (JOURNAL)."""
    return _DTYPES[schema.field(RECORD).type.byte_width]


def group_batches(batches: Iterable[pa.RecordBatch], min_rows: int) -> Iterator[list[pa.RecordBatch]]:
    """Batches by so many rows, or little more: a batch has some dozens, and takes as many calls as a large one."""
    group: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        group.append(batch)
        rows += batch.num_rows
        if rows >= min_rows:
            yield group
            group, rows = [], 0
    if group:
        yield group


def read_records(entries: pa.RecordBatch) -> np.ndarray:
    """The records of entries (JOURNAL), shape (n,), not to be written to."""
    column = entries.column(RECORD)
    dtype = find_record_dtype(entries.schema)
    if not len(column):
        return np.empty(0, dtype)
    return np.frombuffer(column.buffers()[1], dtype, len(column), column.offset * dtype.itemsize)


def instrument_column(records: np.ndarray) -> pa.Array:
    """Symbol and venue of each record, the 16 bytes that it has of them."""
    return _to_binary(encode_instruments(records), INSTRUMENT_BYTES, len(records))


def expand_entries(dataset: str, entries: pa.RecordBatch) -> pa.RecordBatch:
    """Entries (JOURNAL) with the columns of the rows as they will be published (EXPANDED)."""
    twin = entries.column("twin_of").is_valid().to_numpy(zero_copy_only=False)
    columns = build_columns(dataset, read_records(entries), twin)
    schema = EXPANDED[dataset]
    return pa.record_batch(
        [columns[name] if name in columns else entries.column(name) for name in schema.names], schema=schema
    )
