"""Index of, and random access to, the journal rows of one hour.

    segments                           one entry per row                           gather: slab by slab
    +----+----+----+                   symbol  first mono_ns  batch  at            record = slab[batch's first record + at]
    | 17 | 18 | 19 |  ──index()──>     000660  ...            412    7     ──>
    +----+----+----+                   005930  ...            17     30

The records of a batch lie one behind the other in the file, so a row group is read by computing where each one lies instead of
walking thousands of batches once per row group.

Guarantees:
    * Every byte was checked when the index was built; what is damaged is left out and listed.
    * Files are read, not mapped: a sector that cannot be read is an error, and no signal.
    * Memory holds the index (some 80 bytes a row), one slab, and what is gathered, never the whole hour.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ringbuf.records import take_records
from writer.ingest.arbitration_result import NEW
from writer.journal.entries import RECORD, find_record_dtype, group_batches, instrument_column, read_records
from writer.journal.segment import Damage, JournalBatch, scan_segment
from writer.schema import name_instruments

NO_ROW = -1
SLAB_BYTES = 1 << 24
"""What is read at once of a segment."""

INDEXED_ROWS = 4096
"""Rows that are put into the index at once: a batch has some dozens."""


@dataclass
class RowLocation:
    """Where entries are: batch number and position in it, each shape (n,) int32; NO_ROW for none."""

    batch: np.ndarray
    at: np.ndarray

    def __getitem__(self, chosen: np.ndarray | slice) -> RowLocation:
        return RowLocation(self.batch[chosen], self.at[chosen])


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


class _Slab(NamedTuple):
    """Frames of a segment without a gap between them, to be read at once: bytes [begin, end)."""

    segment: int
    begin: int
    end: int


class JournalRows:
    """Journal entries in segments, by place."""

    def __init__(self, segments: Sequence[Path], schema: pa.Schema, by_symbol: bool = True) -> None:
        self.damages: list[Damage] = []
        self._segments = segments
        self._schema = schema
        self._by_symbol = by_symbol
        self._slabs: list[_Slab] = []
        self._slab_of = np.empty(0, np.int32)
        self._record_begin = np.empty(0, np.int64)
        """By batch: where its records begin in the file."""
        self._dtype = find_record_dtype(schema)

    def build_index(self, hour: int, row_from: int, row_to: int, max_rows: int) -> RowIndex:
        """Index the new rows of `hour` with row_from < row <= row_to, at most the first `max_rows`, and their twins.

        Sorted by symbol and venue (if `by_symbol`), then by arrival (the first arrival's mono_ns, then row).
        """
        names: dict[tuple[str, str], int] | None = {} if self._by_symbol else None
        rows = _GrowingColumns(np.int64, np.int64, np.int32, np.int32, np.int32)  # row, mono_ns, name, batch, at
        twins = _GrowingColumns(np.int64, np.int64, np.int32, np.int32)  # twin_of, mono_ns, batch, at
        slab_of: list[int] = []
        record_begin: list[int] = []
        has_more, begin = False, 0
        self._slabs, self.damages = [], []
        for batches in group_batches(self._scan(slab_of, record_begin), INDEXED_ROWS):
            last = _index_batches(batches, begin, hour, (row_from, row_to), max_rows - rows.count, names, rows, twins)
            begin += len(batches)
            if last is not None:
                has_more, row_to = True, last  # from here on only twins of what is already in
        self._slab_of = np.array(slab_of, np.int32)
        self._record_begin = np.array(record_begin, np.int64)
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

    def _scan(self, slab_of: list[int], record_begin: list[int]) -> Iterator[pa.RecordBatch]:
        """The entries of every batch that has some; its slab, and where its records begin, are added to the lists."""
        for segment, path in enumerate(self._segments):
            for found in scan_segment(path, self._schema):
                if isinstance(found, Damage):
                    self.damages.append(found)
                elif found.entries.num_rows:
                    slab_of.append(self._put_in_slab(segment, found.begin, found.end))
                    record_begin.append(_find_records(found))
                    yield found.entries

    def _put_in_slab(self, segment: int, begin: int, end: int) -> int:
        """The number of the slab that a frame is in: the last one as long as it is not full and nothing lies between."""
        if self._slabs:
            last = self._slabs[-1]
            if last.segment == segment and last.end == begin and end - last.begin <= SLAB_BYTES:
                self._slabs[-1] = last._replace(end=end)
                return len(self._slabs) - 1
        self._slabs.append(_Slab(segment, begin, end))
        return len(self._slabs) - 1

    def gather(self, locations: Sequence[RowLocation], names: Sequence[str] = ()) -> list[np.ndarray]:
        """Records at each of some locations, shape (n,), zeroed for NO_ROW, in one pass; of some fields, if named. OSError."""
        dtype = np.dtype([(name, self._dtype[name]) for name in names]) if names else self._dtype
        found = [np.zeros(len(location.at), dtype) for location in locations]
        places = [self._split_by_slab(location) for location in locations]
        buffer = np.empty(max((slab.end - slab.begin for slab in self._slabs), default=0) // 8, np.int64)
        words = self._dtype.itemsize // 8
        for number in sorted({number for place in places for number in place}):
            slab = self._slabs[number]
            self._read_slab(slab, buffer)
            windows = np.lib.stride_tricks.sliding_window_view(buffer, words)
            for records, location, place in zip(found, locations, places, strict=True):
                if (mine := place.get(number)) is None:
                    continue
                begin = self._record_begin[location.batch[mine]] - slab.begin
                taken = windows[begin // 8 + words * location.at[mine].astype(np.int64)]
                if names:
                    whole = taken.view(self._dtype)[:, 0]
                    for name in names:
                        records[name][mine] = whole[name]
                else:
                    records.view(np.int64).reshape(-1, words)[mine] = taken
        return found

    def _split_by_slab(self, location: RowLocation) -> dict[int, np.ndarray]:
        """Slab number -> which of the locations are in it."""
        present = np.flatnonzero(location.batch != NO_ROW)
        slabs = self._slab_of[location.batch[present]]
        order = np.argsort(slabs, kind="stable")
        numbers, begins = np.unique(slabs[order], return_index=True)
        return dict(zip(numbers.tolist(), np.split(present[order], begins[1:]), strict=True)) if len(present) else {}

    def _read_slab(self, slab: _Slab, buffer: np.ndarray) -> None:
        """Read a slab to the beginning of the buffer."""
        fd = os.open(self._segments[slab.segment], os.O_RDONLY | os.O_CLOEXEC)
        try:
            view, at = buffer.data.cast("B")[: slab.end - slab.begin], slab.begin
            while view:
                count = os.preadv(fd, [view], at)
                if not count:
                    raise OSError(errno.EIO, "the file has become shorter", str(self._segments[slab.segment]))
                view, at = view[count:], at + count
        finally:
            os.close(fd)


class _GrowingColumns:
    """Columns that grow, of which the first is the row. Few large arrays: many small ones would leave holes in the heap."""

    def __init__(self, *kinds: type) -> None:
        self.count = 0
        self._columns: list[np.ndarray] = [np.empty(0, kind) for kind in kinds]

    @property
    def last_row(self) -> int:
        return int(self._columns[0][self.count - 1]) if self.count else 0

    def add(self, *columns: np.ndarray) -> None:
        begin, self.count = self.count, self.count + len(columns[0])
        for number, column in enumerate(columns):
            if len(self._columns[number]) < self.count:
                grown = np.empty(2 * self.count, column.dtype)
                grown[:begin] = self._columns[number][:begin]
                self._columns[number] = grown
            self._columns[number][begin : self.count] = column

    def to_arrays(self) -> list[np.ndarray]:
        """The columns, once."""
        columns, self._columns = self._columns, []
        return [column[: self.count] for column in columns]


def _join_twins(row: np.ndarray, mono_ns: np.ndarray, twins: _GrowingColumns) -> tuple[RowLocation, np.ndarray]:
    """Where each row's twin is, and whether it was received first; `mono_ns` becomes the winner's."""
    location = RowLocation(np.full(len(row), NO_ROW, np.int32), np.zeros(len(row), np.int32))
    twin_is_first = np.zeros(len(row), bool)
    twin_of, twin_mono_ns, batch, at = twins.to_arrays()
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


def _index_batches(
    batches: list[pa.RecordBatch],
    begin: int,
    hour: int,
    span: tuple[int, int],
    room: int,
    names: dict[tuple[str, str], int] | None,
    rows: _GrowingColumns,
    twins: _GrowingColumns,
) -> int | None:
    """Put the entries of that hour and range into the index, `room` new rows at most; the first batch has the number `begin`.

    The last row included, if there was no room for all.
    """
    batch = pa.concat_batches(batches)
    counts = np.array([one.num_rows for one in batches])
    number = np.repeat(np.arange(begin, begin + len(batches), dtype=np.int32), counts)
    at = (np.arange(batch.num_rows) - np.repeat(np.cumsum(counts) - counts, counts)).astype(np.int32)
    twin_of = pc.fill_null(batch.column("twin_of"), NEW).to_numpy()
    row = np.where(twin_of == NEW, batch.column("row").to_numpy(), twin_of)
    mine = (batch.column("hour").to_numpy() == hour) & (row > span[0]) & (row <= span[1])
    new = np.flatnonzero(mine & (twin_of == NEW))
    last = None
    if len(new) > room:
        last = int(row[new[room - 1]]) if room else rows.last_row
        new, mine = new[:room], mine & (row <= last)
    twin = np.flatnonzero(mine & (twin_of != NEW))
    mono_ns = batch.column("mono_ns").to_numpy()
    if len(new):
        name = np.zeros(len(new), np.int32)
        if names is not None:
            name = _number_names(take_records(read_records(batch), new), names)
        rows.add(row[new], mono_ns[new], name, number[new], at[new])
    if len(twin):
        twins.add(row[twin], mono_ns[twin], number[twin], at[twin])
    return last


def _rank_names(names: dict[tuple[str, str], int]) -> np.ndarray:
    """The place of each name's number in alphabetical order."""
    rank = np.empty(len(names), np.int32)
    rank[[names[key] for key in sorted(names)]] = np.arange(len(names))
    return rank


def _number_names(records: np.ndarray, names: dict[tuple[str, str], int]) -> np.ndarray:
    """A number for each record's symbol and venue; new ones are added to `names`."""
    keys = instrument_column(records).dictionary_encode()
    which = keys.indices.to_numpy()
    first = np.zeros(len(keys.dictionary), np.int64)
    first[which[::-1]] = np.arange(len(which))[::-1]
    found = name_instruments(take_records(records, first))
    return np.array([names.setdefault(name, len(names)) for name in found], np.int32)[which]


def _find_records(batch: JournalBatch) -> int:
    """Where the records of a batch begin in the file."""
    begin = batch.entries.column(RECORD).buffers()[1].address - batch.origin
    if begin % 8:
        raise ValueError("a column of the journal does not begin at a multiple of 8 bytes: Arrow writes them so")
    return begin
