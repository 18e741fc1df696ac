"""Journal entries of version 1, columns of a row as it will be published, as those of today (pure).

    row  twin_of  ..  symbol  ask_price_1  ..  broker  extra   ──convert_entries──>   row  twin_of  ..  record

Not handled here:
    * What version 1 did not keep: fractions of a won, the content of a twin, bytes that are no text.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ringbuf.records import PRICE_SCALE, UNDEFINED, FeedId, empty_records, fit_text
from writer.journal.entries import RECORD, build_record_column, find_record_dtype
from writer.schema import EVENT_STREAM_NAMES, EVENT_TYPE_NAMES, FEED_NAMES, SESSION_NAMES, VENUE_NAMES

_CODES = {
    "line": FEED_NAMES,
    "venue": VENUE_NAMES,
    "session": SESSION_NAMES,
    "kind": EVENT_TYPE_NAMES,
    "stream": EVENT_STREAM_NAMES,
}
"""Field -> the names of its codes."""
_COLUMNS = {
    "recv_ns": ("recv_time", "time"),
    "exch_ns": ("exch_time",),
    "since_ns": ("since",),
    "line": ("broker", "line"),
}
"""Field -> its column, of which the first that is there counts; the others have the field's name, prices without `_e4`."""


def convert_entries(entries: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Entries of version 1 with the columns of `schema` (JOURNAL); those of today as they are."""
    if RECORD in entries.schema.names or RECORD not in schema.names:
        return entries
    records = _to_records(entries, find_record_dtype(schema))
    columns = {name: entries.column(name) for name in schema.names if name in entries.schema.names}
    received = entries.column(_find_column(entries, "recv_ns"))
    columns |= {"recv_ns": received.cast(pa.int64()), RECORD: build_record_column(records)}
    return pa.record_batch([columns[name] for name in schema.names], schema=schema)


def _find_column(entries: pa.RecordBatch, field: str) -> str:
    names = _COLUMNS.get(field, (field.removesuffix("_e4"),))
    return next((name for name in names if name in entries.schema.names), "")


def _to_records(entries: pa.RecordBatch, dtype: np.dtype) -> np.ndarray:
    """The record of each entry; what is null, or had no column, is as in a record without it."""
    records = empty_records(dtype, entries.num_rows)
    for field in dtype.names or ():
        if dtype[field].shape:
            for level in range(dtype[field].shape[0]):
                name = f"{field.removesuffix('_e4')}_{level + 1}"
                _fill(records[field][:, level], entries.column(name), field.endswith("_e4"))
        elif name := _find_column(entries, field):
            column = entries.column(name)
            if field in _CODES:
                codes = pc.index_in(column, value_set=_CODES[field])
                records[field] = pc.fill_null(codes, 0).to_numpy()
            elif dtype[field].kind == "S":
                size = dtype[field].itemsize
                records[field] = [fit_text(text or "", size) for text in column.to_pylist()]
            else:
                _fill(records[field], column, field.endswith("_e4"))
    if "recv_time" in entries.schema.names:
        records["line"][entries.column("recv_time").is_null().to_numpy(zero_copy_only=False)] = FeedId.GAPFILL
    return records


def _fill(values: np.ndarray, column: pa.Array, is_price: bool) -> None:
    """Set what the column has; a null of an int64 is UNDEFINED."""
    given = column.is_valid().to_numpy(zero_copy_only=False)
    found = pc.fill_null(column if pa.types.is_floating(column.type) else column.cast(pa.int64()), 0)
    numbers = found.to_numpy(zero_copy_only=False)
    if is_price:
        numbers = np.rint(numbers * PRICE_SCALE).astype(np.int64)
    if values.dtype == np.int64:
        values[:] = np.where(given, numbers, UNDEFINED)
    else:
        values[given] = numbers[given]
