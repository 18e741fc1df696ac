"""Write-ahead log of accepted rows: append, recover, prune what is published.

    data/journal/kr.orderbook/000000000007.arrows  000000000008.arrows  ...     see segment.py

    the positions in a batch's metadata are the commit: rows and ring positions are written together or not at all

Guarantees:
    * After a kill at any instruction `open` finds every complete batch and truncates the torn one, logging the offset.
    * The newest segment alone holds positions, row numbers and volume high-water marks.
    * A write error leaves the log at the last complete batch; damage in the middle costs only the damaged batches, and the
      damaged file is kept as a backup.
    * After a failed fsync no page of that file counts which was not durable before: those batches are cut off, and written
      again into the next segment, with the same row numbers. Should the old ones be on the disk after all, `open` cuts them:
      a segment ends where the next one begins.
    * A segment is removed only when every row in it, and every row its twins belong to, is published.
"""

from __future__ import annotations

import errno
import io
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from loguru import logger

from writer import durable_io
from writer.journal.segment import (
    SUFFIX,
    JournalBatch,
    encode_metadata,
    map_file,
    map_segments,
    read_batches,
    read_lineage,
    salvage_batches,
    segment_paths,
)
from writer.schema import VERSION

RingPositions = dict[str, list[int]]
"""Ring name ("kis.orderbook") -> [ring_id, next_seq]."""


class JournalError(Exception):
    """A journal that cannot be continued; the message says which, why, and what to do."""


@dataclass
class Segment:
    """One file of the log: complete up to `size` bytes; `newest_rows` maps an hour to its newest row in the file."""

    path: Path
    size: int = 0
    newest_rows: dict[int, int] = field(default_factory=dict)

    def add_rows(self, newest_rows: Mapping[int, int]) -> None:
        """Note appended rows."""
        for hour, row in newest_rows.items():
            self.newest_rows[hour] = max(row, self.newest_rows.get(hour, 0))


class _Appended(NamedTuple):
    """A batch that is not durable yet, with the positions it brought and its last row."""

    batch: pa.RecordBatch
    positions: RingPositions
    last_row: int


class _Durable(NamedTuple):
    """How much of the newest segment is durable, and the positions and the last row there."""

    size: int
    positions: RingPositions
    last_row: int


class _Extent(NamedTuple):
    """The complete batches of a segment, `size` bytes: rows begin_row < row <= last_row."""

    path: Path
    size: int
    begin_row: int
    last_row: int


_DISTRUSTED: set[Path] = set()
"""Segments of which an fsync failed in this process before they could be written again."""


class Journal:
    """The log of one dataset; one process has it open."""

    def __init__(self, directory: Path, schema: pa.Schema) -> None:
        self.directory = directory
        self.lineage = uuid.uuid4().hex
        self.positions: RingPositions = {}
        self.last_row = 0
        self.volume_high_water: list[list] = []
        self.segments: list[Segment] = []
        self._schema = schema
        self._unsynced: list[_Appended] = []
        self._durable = _Durable(0, {}, 0)
        self._is_failed = False
        self._number = 0
        self._fd = -1
        self._sink = io.BytesIO()
        self._stream: pa.ipc.RecordBatchStreamWriter | None = None

    @classmethod
    def open(
        cls, directory: Path, schema: pa.Schema, on_batch: Callable[[JournalBatch], None] = lambda _: None
    ) -> Journal:
        """Recover the journal in `directory`; `on_batch` gets every complete batch in order. `roll` comes next.

        JournalError: segments of two lineages, or of another version.
        """
        journal = cls(directory, schema)
        directory.mkdir(parents=True, exist_ok=True)
        for leftover in directory.glob("*.tmp"):
            durable_io.remove(leftover)
        lineages = {path: read_lineage(map_file(path)) for path in segment_paths(directory)}
        known = sorted(set(filter(None, lineages.values())))
        if len(known) > 1:
            raise JournalError(
                f"{directory}: segments of several journals ({', '.join(known)}): move all but one elsewhere"
            )
        journal.lineage = known[0] if known else journal.lineage
        journal._number = max((int(path.stem) for path in lineages), default=0)
        found = [journal._mend(path) for path in lineages]
        end_row: int | None = None
        for segment in reversed(found):
            if segment is not None:
                journal._cut_superseded(segment, end_row)
                end_row = segment.begin_row if end_row is None else min(end_row, segment.begin_row)
        kept = [segment.path for segment in found if segment is not None]
        for path in kept:
            journal._recover(path, on_batch)
        if kept:
            journal._make_durable(kept[-1])
        return journal

    def _mend(self, path: Path) -> _Extent | None:
        """Cut or mend a segment where it is damaged; None if nothing is left of it."""
        buffer = map_file(path)
        size, extent = buffer.size, _find_extent(path, buffer)
        if extent.size == size and size:
            return extent
        repaired = self._repair(path, buffer, extent.size)
        return None if repaired is None else _find_extent(path, repaired)

    def _cut_superseded(self, segment: _Extent, end_row: int | None) -> None:
        """Cut batches behind `end_row`, where the next segment begins: they were written again there after a failed fsync."""
        if end_row is None or segment.last_row <= end_row:
            return
        size = next(
            batch.begin for batch in read_batches(map_file(segment.path)) if batch.metadata["last_row"] > end_row
        )
        logger.warning(
            "{}: rows {} to {} were written again into a later segment: cut at {}",
            segment.path,
            end_row + 1,
            segment.last_row,
            size,
        )
        durable_io.truncate(segment.path, size)

    def _make_durable(self, path: Path) -> None:
        """Make the newest segment durable before the next one claims its positions: a killed writer may not have done so.

        After a failed fsync another one proves nothing: the file is written again. OSError: it is, at the next `open`.
        """
        if path not in _DISTRUSTED:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                durable_io.sync(fd)
            except OSError as error:
                logger.error("{}: fsync: {}: written again", path, error)
                _DISTRUSTED.add(path)
            finally:
                os.close(fd)
        if path in _DISTRUSTED:
            self._replace(path, path.read_bytes())
            _DISTRUSTED.discard(path)

    def _replace(self, path: Path, data: bytes) -> None:
        """Put a new file of that content in place, durably."""
        temporary = path.with_name(path.name + ".tmp")
        fd = durable_io.open_temporary(temporary)
        try:
            durable_io.append(fd, 0, data)
            durable_io.sync(fd)
        finally:
            os.close(fd)
        durable_io.rename(temporary, path)

    def _recover(self, path: Path, on_batch: Callable[[JournalBatch], None]) -> None:
        """Read one segment."""
        buffer = map_file(path)
        metadata = pa.ipc.open_stream(pa.BufferReader(buffer)).schema.metadata or {}
        if metadata.get(b"schema_version") != str(VERSION).encode():
            raise JournalError(
                f"{path}: written by another version of collectorctl (entries {metadata.get(b'schema_version')}, here {VERSION}): "
                "let that version publish it (collectorctl stop), then start this one"
            )
        segment = Segment(path, buffer.size)
        for batch in read_batches(buffer):
            segment.add_rows(find_newest_rows(batch.entries))
            self.positions = batch.metadata["positions"]
            self.last_row = batch.metadata["last_row"]
            if "ceilings" in batch.metadata:
                self.volume_high_water = batch.metadata["ceilings"]
            on_batch(batch)
        self.segments.append(segment)

    def _repair(self, path: Path, buffer: pa.Buffer, end: int) -> pa.Buffer | None:
        """Truncate a torn tail, or copy the good batches of a damaged segment into a new file; None if nothing is left."""
        head = next(read_batches(buffer), None)
        header = bytes(memoryview(buffer)[: head.begin]) if head else self._encode_header()
        salvaged = list(salvage_batches(buffer, end, header))
        lost = buffer.size - end - sum(whole.end - whole.begin for whole in salvaged)
        if not salvaged and end == 0:
            logger.warning("{}: {} bytes, no complete batch: removed", path, buffer.size)
            durable_io.remove(path)
            return None
        if not salvaged:
            logger.warning("{}: torn tail: cut at {}, {} bytes of an unfinished batch", path, end, lost)
            del buffer
            durable_io.truncate(path, end)
            return map_file(path)
        backup = path.with_name(path.name + ".damaged")
        logger.error(
            "{}: damaged at {}, {} bytes unreadable; {} complete batches behind it are used; the damaged file is kept as {}",
            path,
            end,
            lost,
            len(salvaged),
            backup,
        )
        data = memoryview(buffer)
        good = [bytes(data[:end]) or header, *(bytes(data[whole.begin : whole.end]) for whole in salvaged)]
        durable_io.link_backup(path, backup)
        self._replace(path, b"".join(good))
        return map_file(path)

    def _encode_header(self) -> bytes:
        """The schema message of this journal's segments."""
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, self._schema_with_metadata()):
            pass
        return sink.getvalue()[:-8]  # without the end mark

    def _schema_with_metadata(self) -> pa.Schema:
        return self._schema.with_metadata({"lineage": self.lineage, "schema_version": str(VERSION)})

    def roll(self, volume_high_water: list[list]) -> None:
        """Close the open segment and begin the next, from which alone the log can be continued.

        OSError: nothing has changed. What was appended is durable before the new segment claims the positions it brought; after
        a failed fsync the new segment begins where the old one was durable, and holds what was appended since.
        """
        if self._is_failed:
            durable_io.append(self._fd, self._durable.size, b"")  # which cuts what is behind
        else:
            self.sync()
            self._durable = _Durable(self._durable.size, self.positions, self.last_row)
        path = self.directory / f"{self._number + 1:012d}{SUFFIX}"
        if path.exists():
            durable_io.remove(path)  # begun by an attempt that failed
        fd = durable_io.create(path)
        segment, sink = Segment(path), io.BytesIO()
        stream = pa.ipc.new_stream(sink, self._schema_with_metadata())
        nothing = pa.RecordBatch.from_pylist([], schema=self._schema)
        opening = self._metadata(self._durable.positions, self._durable.last_row) | {"ceilings": volume_high_water}
        try:
            data = _encode_batch(sink, stream, nothing, opening)
            for batch, positions, last_row in self._unsynced:
                data += _encode_batch(sink, stream, batch, self._metadata(positions, last_row))
                segment.add_rows(find_newest_rows(batch))
            durable_io.append(fd, 0, data)
            durable_io.sync(fd)
        except OSError:
            os.close(fd)
            durable_io.remove(path)
            raise
        self.close()
        if self._is_failed:
            logger.info(
                "{}: {} batches up to row {} that were not durable are written again",
                path,
                len(self._unsynced),
                self.last_row,
            )
        segment.size = len(data)
        self._durable = _Durable(segment.size, self.positions, self.last_row)
        self._unsynced.clear()
        self._is_failed = False
        self.segments.append(segment)
        self._number += 1
        self._fd, self._sink, self._stream = fd, sink, stream

    @property
    def current(self) -> Segment:
        """The segment that grows."""
        return self.segments[-1]

    def append(self, batch: pa.RecordBatch, positions: RingPositions) -> int:
        """Write `batch` (its rows are numbered from last_row + 1) and the ring positions it brings; the bytes it took.

        Not yet durable: see `sync`. OSError: the log is as it was before, and so are positions and last_row.
        """
        self._reject_failed()
        last_row = self.last_row + batch.num_rows
        data = _encode_batch(self._sink, self._stream, batch, self._metadata(positions, last_row))
        durable_io.append(self._fd, self.current.size, data)
        self.current.size += len(data)
        self.current.add_rows(find_newest_rows(batch))
        self.positions, self.last_row = positions, last_row
        self._unsynced.append(_Appended(batch, positions, last_row))
        return len(data)

    @property
    def has_unsynced(self) -> bool:
        """Whether something was appended that is not durable yet."""
        return bool(self._unsynced)

    def sync(self) -> None:
        """Make everything appended durable.

        OSError: the kernel may have dropped the pages, and would call the next fsync of this file a success. What was not
        durable is cut off the file, so that no reader and no later life takes it for stored, and `roll` writes it again.
        """
        if not self._unsynced:
            return
        self._reject_failed()
        try:
            durable_io.sync(self._fd)
        except OSError:
            self._is_failed = True
            with suppress(OSError):  # `roll` does it again
                durable_io.append(self._fd, self._durable.size, b"")
            raise
        self._durable = _Durable(self.current.size, self.positions, self.last_row)
        self._unsynced.clear()

    def _reject_failed(self) -> None:
        if self._is_failed:
            raise OSError(errno.EIO, "an fsync failed, and no new segment could be begun yet", str(self.current.path))

    def prune(self, published_to: Mapping[int, int]) -> list[Path]:
        """Delete closed segments of which every row is published (`published_to`: hour -> newest published row)."""
        published = [
            segment
            for segment in self.segments[:-1]
            if all(row <= published_to.get(hour, 0) for hour, row in segment.newest_rows.items())
        ]
        for segment in published:
            durable_io.remove(segment.path)
            self.segments.remove(segment)
        return [segment.path for segment in published]

    def close(self) -> None:
        """Close the file; what was appended and not synced is left to the kernel."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _metadata(self, positions: RingPositions, last_row: int) -> dict[str, Any]:
        return {"positions": positions, "last_row": last_row}


def _find_extent(path: Path, buffer: pa.Buffer) -> _Extent:
    """Where the complete batches of a segment begin and end."""
    extent = _Extent(path, 0, 0, 0)
    for batch in read_batches(buffer):
        last_row = batch.metadata["last_row"]
        begin_row = extent.begin_row if extent.size else last_row - batch.entries.num_rows
        extent = _Extent(path, batch.end, begin_row, last_row)
    return extent


def find_newest_rows(batch: pa.RecordBatch) -> dict[int, int]:
    """Hour -> newest row of that hour a batch holds or refers to."""
    if batch.num_rows == 0:
        return {}
    hours = batch.column("hour").to_numpy()
    rows = pc.coalesce(batch.column("twin_of"), batch.column("row")).to_numpy()
    return {int(hour): int(rows[hours == hour].max()) for hour in np.unique(hours)}


def read_rows(directory: Path) -> Iterator[pa.RecordBatch]:
    """Every complete batch of a journal in order, oldest first; safe beside a live writer (segments may grow or be removed)."""
    for buffer in map_segments(directory):
        for batch in read_batches(buffer):
            if batch.entries.num_rows:
                yield batch.entries


def _encode_batch(
    sink: io.BytesIO, stream: pa.ipc.RecordBatchStreamWriter, batch: pa.RecordBatch, metadata: dict[str, Any]
) -> bytes:
    """The bytes that add `batch` to a stream (before the first batch: the schema's too)."""
    stream.write_batch(batch, custom_metadata=encode_metadata(batch, metadata))
    data = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return data
