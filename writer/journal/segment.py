"""Segment file of a journal: frames, each with a length and checksums of its own over the raw bytes.

    000000000007.journal
    +---------+---------+-------+-------+--
    | opening | opening | batch | batch | bat      <- torn tail: the writer was killed here
    +---------+---------+-------+-------+--
    what a frame is: frame.py

Guarantees:
    * Arrow reads no byte that was not checked; a frame is returned only if it is complete, as it was written, at the place it was
      written to, and its rows follow those before it.
    * Files are read with pread: a sector that cannot be read costs the frame it is in, and no signal.
    * Reading goes on behind damage, at the next frame; the extent of the damage and the number of rows lost in it are told.
    * Nothing is changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from writer.journal.frame import (
    FORMAT,
    HEADER_BYTES,
    MAGIC,
    OPENING,
    PAGE_BYTES,
    Header,
    UnreadableFrame,
    compute_checksum,
    compute_schema_checksum,
    decode_header,
    read_bytes,
)

SUFFIX = ".journal"
_SEARCH_BYTES = 1 << 16
_UNREADABLE = (pa.ArrowException, OSError, EOFError, ValueError, KeyError)
"""What decoding raises in the several layers below; of bytes that were checked, so another version's, or a bug."""


class JournalBatch(NamedTuple):
    """A complete frame: its entries (an opening has none), its metadata, and its bytes [begin, end) in the file.

    `last_row`: the newest row up to and with it. `origin`: a buffer of the entries lies in the file at its address minus `origin`.
    """

    entries: pa.RecordBatch
    metadata: dict[str, Any]
    begin: int
    end: int
    last_row: int
    origin: int = 0


class Damage(NamedTuple):
    """Bytes [begin, end) of a segment that are no frame.

    `lost_rows`: how many rows were in them, None if it cannot be known. `after_row`: the newest row before them, None for none.
    `is_tail`: nothing readable follows. `is_torn`: an unfinished frame, as a kill leaves it. `is_newest`: the end of the newest
    segment, so that the positions are those before it, and its rows are read from the rings again. `after_ns`, `before_ns`: receive
    times of the last row before and of the first behind, 0 for unknown.
    """

    path: Path
    begin: int
    end: int
    reason: str
    lost_rows: int | None
    after_row: int | None = None
    is_tail: bool = False
    is_torn: bool = False
    is_newest: bool = False
    after_ns: int = 0
    before_ns: int = 0


class SegmentIdentity(NamedTuple):
    """Which journal a segment belongs to, the version of its entries, and the row behind which it begins."""

    lineage: str
    schema_version: int
    begin_row: int


class FormatError(Exception):
    """A segment of a format that this version does not know."""


def segment_paths(directory: Path) -> list[Path]:
    """The segments of a journal in order of their numbers."""
    return sorted(directory.glob(f"[0-9]*{SUFFIX}"))


def read_identity(path: Path) -> SegmentIdentity | None:
    """What the first readable header of a segment says; None if it has none. FormatError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        header = _find_header(fd, 0, os.fstat(fd).st_size)
    finally:
        os.close(fd)
    if header is None:
        return None
    if header.format != FORMAT:
        raise FormatError(f"{path}: frames of format {header.format}, this version has {FORMAT}")
    return SegmentIdentity(header.lineage, header.schema_version, header.last_row - header.rows)


def scan_segment(
    path: Path, schema: pa.Schema | None = None, after_row: int | None = None, begin: int = 0
) -> Iterator[JournalBatch | Damage]:
    """The frames of a segment in order, and the damage between and behind them. OSError, but for sectors that cannot be read.

    `schema`: the journal's, by which batches are read if both openings are unreadable. `after_row`: the newest row of the segment
    before, if it is known. `begin`: where a frame of an earlier scan ended; those before it are left out.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size, schemas = os.fstat(fd).st_size, _by_checksum(schema)
        if begin:
            with suppress(UnreadableFrame):  # the columns of this segment, if it is of another version
                _read_frame(fd, _read_header(fd, 0, size), size, schemas)
        yield from _scan(path, fd, begin, size, schemas, after_row)
    finally:
        os.close(fd)


def _by_checksum(schema: pa.Schema | None) -> dict[int, pa.Schema]:
    return {} if schema is None else {compute_schema_checksum(schema): schema}


def _scan(
    path: Path, fd: int, at: int, size: int, schemas: dict[int, pa.Schema], last_row: int | None
) -> Iterator[JournalBatch | Damage]:
    lineage = None
    previous: pa.RecordBatch | None = None
    damage: Damage | None = None
    while at < size:
        try:
            header = _read_header(fd, at, size)
            if header.format != FORMAT:
                raise FormatError(f"{path}: frames of format {header.format}, this version has {FORMAT}")
            if lineage not in (None, header.lineage):
                raise UnreadableFrame("a frame of another journal", header)
            if last_row is not None and header.last_row - header.rows < last_row:
                raise UnreadableFrame("rows that were there before", header)
            batch = _read_frame(fd, header, size, schemas)
        except UnreadableFrame as error:
            next_at = _find_next(fd, at, size, error)
            error.is_torn &= next_at == size
            damage = _extend_damage(damage, path, at, next_at, error, last_row)
            at = next_at
            continue
        if damage is not None:
            yield _close_damage(damage, header, previous, batch.entries)
            damage = None
        lineage, last_row, at = header.lineage, header.last_row, header.end
        previous = batch.entries if batch.entries.num_rows else previous
        yield batch
    if damage is not None:
        yield damage._replace(is_tail=True, after_ns=_receive_times(previous)[1])


def _find_next(fd: int, at: int, size: int, error: UnreadableFrame) -> int:
    """Where to read on behind a frame that is unreadable: where its header says if a frame is there, else at the next header."""
    header = error.header
    if header is not None and (header.end == size or _has_header(fd, header.end, size)):
        return header.end
    found = _find_header(fd, at + 8, size)
    return found.begin if found else size


def _has_header(fd: int, at: int, size: int) -> bool:
    try:
        return at < size and _read_header(fd, at, size).begin == at
    except UnreadableFrame:
        return False


def _extend_damage(
    damage: Damage | None, path: Path, begin: int, end: int, error: UnreadableFrame, last_row: int | None
) -> Damage:
    """Damage, with this frame in it."""
    rows = error.header.rows if error.header else None
    if damage is None:
        return Damage(path, begin, end, str(error), rows, last_row, is_torn=error.is_torn)
    known = damage.lost_rows is not None and rows is not None
    return damage._replace(end=end, lost_rows=damage.lost_rows + rows if known else None, is_torn=False)  # type: ignore[operator]


def _close_damage(damage: Damage, header: Header, before: pa.RecordBatch | None, behind: pa.RecordBatch) -> Damage:
    """Damage, now that the frame behind it is known."""
    rows = damage.lost_rows
    if header.kind == OPENING:
        rows = 0
    elif damage.after_row is not None:
        rows = header.last_row - header.rows - damage.after_row
    return damage._replace(lost_rows=rows, after_ns=_receive_times(before)[1], before_ns=_receive_times(behind)[0])


def _receive_times(entries: pa.RecordBatch | None) -> tuple[int, int]:
    """When the first and the last row were received, ns since 1970; 0 for unknown."""
    if entries is None or not entries.num_rows:
        return 0, 0
    name = next((name for name in ("recv_ns", "recv_time", "time") if name in entries.schema.names), None)
    times = entries.column(name).cast(pa.int64()).drop_null().to_numpy() if name else ()
    return (int(min(times)), int(max(times))) if len(times) else (0, 0)


def _read_header(fd: int, at: int, size: int) -> Header:
    """The header of the frame at `at`."""
    data = read_bytes(fd, at, min(HEADER_BYTES, size - at))
    if len(data) < HEADER_BYTES:
        raise UnreadableFrame("an unfinished frame", is_torn=True)
    header = decode_header(data, at)
    if header is None:
        raise UnreadableFrame("no frame begins here", is_torn=not any(data) and _is_zero(fd, at, size))
    return header


def _read_frame(fd: int, header: Header, size: int, schemas: dict[int, pa.Schema]) -> JournalBatch:
    if header.end > size:
        raise UnreadableFrame("an unfinished frame", header, is_torn=True)
    begin = header.begin + HEADER_BYTES
    try:
        data = read_bytes(fd, begin, header.end - begin)
    except UnreadableFrame as error:
        raise UnreadableFrame(str(error), header) from error
    if len(data) < header.end - begin:
        raise UnreadableFrame("an unfinished frame", header, is_torn=True)
    if compute_checksum(data) != header.checksum:
        raise UnreadableFrame("its checksum differs", header)
    body = pa.py_buffer(data).slice(header.metadata_bytes)
    try:
        metadata = json.loads(data[: header.metadata_bytes])
        if header.kind == OPENING:
            schema = pa.ipc.read_schema(body)
            schemas[header.schema_checksum] = schema
            entries = pa.RecordBatch.from_pylist([], schema=schema)
        elif header.schema_checksum not in schemas:
            raise UnreadableFrame("its columns are unknown, both openings are unreadable", header)
        else:
            entries = pa.ipc.read_record_batch(body, schemas[header.schema_checksum])
    except _UNREADABLE as error:
        raise UnreadableFrame(f"not decodable ({error})", header) from error
    origin = body.address - header.metadata_bytes - begin
    return JournalBatch(entries, metadata, header.begin, header.end, header.last_row, origin)


def _find_header(fd: int, at: int, size: int) -> Header | None:
    """The first whole header at or behind `at`."""
    for begin in range(at, size, _SEARCH_BYTES):
        data = _read_around(fd, begin, min(_SEARCH_BYTES + len(MAGIC) - 1, size - begin))
        found = data.find(MAGIC)
        while found >= 0:
            try:
                return _read_header(fd, begin + found, size)
            except UnreadableFrame:
                found = data.find(MAGIC, found + 1)
    return None


def _is_zero(fd: int, at: int, size: int) -> bool:
    return not any(
        any(_read_around(fd, begin, min(_SEARCH_BYTES, size - begin))) for begin in range(at, size, _SEARCH_BYTES)
    )


def _read_around(fd: int, at: int, count: int) -> bytes:
    """Bytes of a file; zeros in place of pages that cannot be read."""
    try:
        return read_bytes(fd, at, count)
    except UnreadableFrame:
        pages = []
        while count > 0:
            length = min(count, PAGE_BYTES - at % PAGE_BYTES)
            try:
                pages.append(read_bytes(fd, at, length).ljust(length, b"\0"))
            except UnreadableFrame:
                pages.append(bytes(length))
            at, count = at + length, count - length
        return b"".join(pages)
