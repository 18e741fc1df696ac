"""Index of, and random access to, the journal rows of one hour.

    segments, memory-mapped            one entry per row                           gather: one numpy index per column
    +----+----+----+                   symbol  first mono_ns  batch  at            word = file[column's offset in batch + at]
    | 17 | 18 | 19 |  ──index()──>     000660  ...            412    7     ──>
    +----+----+----+                   005930  ...            17     30

A column of an Arrow batch is one run of values in the file, so a row group is read by computing where each value lies instead of
walking thousands of batches once per row group.

Guarantees:
    * Memory holds the index (some 80 bytes a row) and what is gathered, never the whole hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from writer.ingest.book_arbiter import NEW
from writer.journal.segment import map_file, read_batches

NO_ROW = -1
_VALID, _DATA, _TEXT = range(3)


@dataclass
class RowLocation:
    """Where entries are: batch number and position in it, each shape (n,) int32; NO_ROW for none."""

    batch: np.ndarray
    at: np.ndarray

    def __getitem__(self, chosen: np.ndarray | slice) -> RowLocation:
        return RowLocation(self.batch[chosen], self.at[chosen])

    def where(self, other: RowLocation, mask: np.ndarray) -> RowLocation:
        """This place where `first`, else the other."""
        return RowLocation(np.where(mask, self.batch, other.batch), np.where(mask, self.at, other.at))


@dataclass
class RowIndex:
    """Rows of one hour in the order of publication, shape (n,) each: where a row is, where its twin, whether the twin won."""

    row: np.ndarray
    location: RowLocation
    twin_location: RowLocation
    twin_is_first: np.ndarray
    group: np.ndarray
    """A number for each row's symbol and venue, ascending."""
    has_more: bool
    """Whether the range held more rows than requested; continue at `row.max()`."""

    def __len__(self) -> int:
        return len(self.row)

    def take(self, chosen: np.ndarray) -> RowIndex:
        """Some of the rows, in this order."""
        return RowIndex(
            self.row[chosen],
            self.location[chosen],
            self.twin_location[chosen],
            self.twin_is_first[chosen],
            self.group[chosen],
            self.has_more,
        )


class JournalRows:
    """Journal entries in memory-mapped segments, by place."""

    def __init__(self, segments: Sequence[Path], schema: pa.Schema, by_symbol: bool = True) -> None:
        self._segments = segments
        self._schema = schema
        self._by_symbol = by_symbol
        self._buffers: list[pa.Buffer] = []
        self._segment_of = np.empty(0, np.int32)
        self._table = np.empty((0, len(schema), 3), np.int64)

    def build_index(self, hour: int, row_from: int, row_to: int, max_rows: int) -> RowIndex:
        """Index the new rows of `hour` with row_from < row <= row_to, at most the first `max_rows`, and their twins.

        Sorted by symbol and venue (if `by_symbol`), then by arrival (the first arrival's mono_ns, then row).
        """
        self._buffers = [map_file(path) for path in self._segments]
        names: dict[tuple[str, str], int] | None = {} if self._by_symbol else None
        rows, twins = _GrowingColumns(), _GrowingColumns()
        segment_of: list[int] = []
        tables: list[np.ndarray] = []
        has_more = False
        for segment, buffer in enumerate(self._buffers):
            for journal_batch in read_batches(buffer):
                room = max_rows - rows.count
                found, last = _index_batch(
                    journal_batch.entries, len(tables), hour, (row_from, row_to), room, names, rows, twins
                )
                if last is not None:
                    has_more, row_to = True, last  # from here on only twins of what is already in
                if found:
                    segment_of.append(segment)
                    tables.append(_compute_offsets(journal_batch.entries, buffer.address))
        self._segment_of = np.array(segment_of, np.int32)
        self._table = np.array(tables).reshape(-1, len(self._schema), 3)
        row, mono_ns, name, batch, at = rows.to_arrays()
        twin_location, twin_is_first = _join_twins(row, mono_ns, twins)
        group = _rank_names(names)[name] if names else np.zeros(len(row), np.int32)
        order = np.lexsort((row, mono_ns, group))
        return RowIndex(
            row[order],
            RowLocation(batch, at)[order],
            twin_location[order],
            twin_is_first[order],
            group[order],
            has_more,
        )

    def gather(self, column: str, location: RowLocation) -> pa.Array:
        """Values of a journal column at `location`, shape (n,); null where that is NO_ROW."""
        number = self._schema.get_field_index(column)
        kind = self._schema.field(column).type
        present = location.batch != NO_ROW
        offsets = self._table[location.batch, number]
        segments = self._segment_of[location.batch]
        valid, parts = present.copy(), []
        width = 0 if kind == pa.string() else kind.bit_width // 8
        values = np.zeros(len(location.at), f"i{width}") if width else np.zeros((len(location.at), 2), np.int64)
        for segment, buffer in enumerate(self._buffers):
            mine = np.flatnonzero(present & (segments == segment))
            if not len(mine):
                continue
            offset, at = offsets[mine], location.at[mine].astype(np.int64)
            valid[mine] = _read_bits(buffer, offset[:, _VALID], at)
            if width:
                values[mine] = _read_values(buffer, offset[:, _DATA], at, f"i{width}")
                continue
            begin, end = (_read_values(buffer, offset[:, _DATA], at + n, "i4").astype(np.int64) for n in (0, 1))
            values[mine, 0], values[mine, 1] = offset[:, _TEXT] + begin, end - begin
            parts.append((buffer, mine))
        if pa.types.is_floating(kind):
            return pa.array(values.view(f"f{width}"), mask=~valid)
        if width:
            return pa.array(values, mask=~valid).cast(kind)
        return _build_strings(values, valid, parts)


class _GrowingColumns:
    """Five columns that grow by pieces: row, mono_ns, name, batch, at."""

    _TYPES = (np.int64, np.int64, np.int32, np.int32, np.int32)

    def __init__(self) -> None:
        self.count = 0
        self.last_row = 0
        self._pieces: list[list[np.ndarray]] = [[] for _ in self._TYPES]

    def add(self, *columns: np.ndarray) -> None:
        self.count += len(columns[0])
        self.last_row = int(columns[0][-1])
        for pieces, piece in zip(self._pieces, columns, strict=True):
            pieces.append(piece)

    def to_arrays(self) -> list[np.ndarray]:
        """The columns; memory of the pieces is freed column by column."""
        found = []
        for kind, pieces in zip(self._TYPES, self._pieces, strict=True):
            found.append(np.concatenate([np.empty(0, kind), *pieces]))
            pieces.clear()
        return found


def _join_twins(row: np.ndarray, mono_ns: np.ndarray, twins: _GrowingColumns) -> tuple[RowLocation, np.ndarray]:
    """Where each row's twin is, and whether it was received first; `mono_ns` becomes the winner's."""
    location = RowLocation(np.full(len(row), NO_ROW, np.int32), np.zeros(len(row), np.int32))
    twin_is_first = np.zeros(len(row), bool)
    twin_of, twin_mono_ns, _, batch, at = twins.to_arrays()
    if not len(row):
        return location, twin_is_first
    target = np.minimum(np.searchsorted(row, twin_of), len(row) - 1)
    own = row[target] == twin_of
    if not own.all():
        target, twin_mono_ns, batch, at = target[own], twin_mono_ns[own], batch[own], at[own]
    location.batch[target], location.at[target] = batch, at
    twin_is_first[target] = twin_mono_ns < mono_ns[target]
    mono_ns[target] = np.minimum(twin_mono_ns, mono_ns[target])
    return location, twin_is_first


def _index_batch(
    batch: pa.RecordBatch,
    number: int,
    hour: int,
    span: tuple[int, int],
    room: int,
    names: dict[tuple[str, str], int] | None,
    rows: _GrowingColumns,
    twins: _GrowingColumns,
) -> tuple[bool, int | None]:
    """Put a batch's entries of that hour and range into the index, `room` new rows at most.

    Whether there were any, and the last row included if there was no room for all.
    """
    if batch.num_rows == 0:
        return False, None
    twin_of = pc.fill_null(batch.column("twin_of"), NEW).to_numpy()
    row = np.where(twin_of == NEW, batch.column("row").to_numpy(), twin_of)
    mine = (batch.column("hour").to_numpy() == hour) & (row > span[0]) & (row <= span[1])
    new = np.flatnonzero(mine & (twin_of == NEW)).astype(np.int32)
    last = None
    if len(new) > room:
        last = int(row[new[room - 1]]) if room else rows.last_row
        new, mine = new[:room], mine & (row <= last)
    twin = np.flatnonzero(mine & (twin_of != NEW)).astype(np.int32)
    mono_ns = batch.column("mono_ns").to_numpy()
    if len(new):
        name = np.zeros(len(new), np.int32)
        if names is not None:
            name = _number_names(batch.select(["symbol", "venue"]).take(pa.array(new)), names)
        rows.add(row[new], mono_ns[new], name, np.full(len(new), number, np.int32), new)
    if len(twin):
        twins.add(row[twin], mono_ns[twin], np.empty(0, np.int32), np.full(len(twin), number, np.int32), twin)
    return bool(len(new) or len(twin)), last


def _rank_names(names: dict[tuple[str, str], int]) -> np.ndarray:
    """The place of each name's number in alphabetical order."""
    rank = np.empty(len(names), np.int32)
    rank[[names[key] for key in sorted(names)]] = np.arange(len(names))
    return rank


def _number_names(batch: pa.RecordBatch, names: dict[tuple[str, str], int]) -> np.ndarray:
    """A number for each row's symbol and venue; new ones are added to `names`."""
    symbol, venue = (batch.column(name).dictionary_encode() for name in ("symbol", "venue"))
    pair = symbol.indices.to_numpy().astype(np.int64) * len(venue.dictionary) + venue.indices.to_numpy()
    found, which = np.unique(pair, return_inverse=True)
    symbols, venues = symbol.dictionary.to_pylist(), venue.dictionary.to_pylist()
    keys = [(symbols[code // len(venues)], venues[code % len(venues)]) for code in found.tolist()]
    return np.array([names.setdefault(key, len(names)) for key in keys], np.int32)[which]


def _compute_offsets(batch: pa.RecordBatch, base: int) -> np.ndarray:
    """Byte offsets of a batch's columns in the file, shape (columns, 3) as _VALID, _DATA, _TEXT; NO_ROW for none."""
    table = np.full((batch.num_columns, 3), NO_ROW, np.int64)
    for number, column in enumerate(batch.columns):
        for kind, buffer in enumerate(column.buffers()):
            if buffer is not None and buffer.size:
                table[number, kind] = buffer.address - base
    if (table[table != NO_ROW] % 8).any():
        raise ValueError("a column of the journal does not begin at a multiple of 8 bytes: Arrow writes them so")
    return table


def _read_values(buffer: pa.Buffer, offset: np.ndarray, at: np.ndarray, kind: str) -> np.ndarray:
    """Value number `at` of the run of values that begins at byte `offset`."""
    width = np.dtype(kind).itemsize
    values = np.frombuffer(buffer, kind, buffer.size // width)
    return values[offset // width + at]


def _read_bits(buffer: pa.Buffer, offset: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Bit number `at` of the bitmap that begins at byte `offset`; set where there is no bitmap."""
    some = offset != NO_ROW
    octets = np.frombuffer(buffer, np.uint8)[np.where(some, offset + at // 8, 0)]
    return ~some | (octets >> (at % 8).astype(np.uint8) & 1).astype(bool)


def _build_strings(spans: np.ndarray, valid: np.ndarray, parts: list[tuple[pa.Buffer, np.ndarray]]) -> pa.Array:
    """Strings from (file offset, length) pairs, shape (n, 2)."""
    lengths = np.where(valid, spans[:, 1], 0)
    ends = np.cumsum(lengths)
    text = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
    for buffer, mine in parts:
        size = lengths[mine]
        within = np.arange(int(size.sum())) - np.repeat(np.cumsum(size) - size, size)
        source = np.repeat(spans[mine, 0], size) + within
        text[np.repeat(ends[mine] - size, size) + within] = np.frombuffer(buffer, np.uint8)[source]
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    bitmap = np.packbits(valid, bitorder="little")
    return pa.StringArray.from_buffers(len(valid), pa.py_buffer(offsets), pa.py_buffer(text), pa.py_buffer(bitmap))
