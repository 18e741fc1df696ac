"""Segments as the versions before wrote them: read once, when the journal is opened.

    000000000007.arrows   an Arrow IPC stream     ──batches──> .000000000007.journal.tmp ─fsync─> rename ─> 000000000007.journal
    000000000007.journal  entries of version 1                                                              (.arrows is removed)

Guarantees:
    * Every batch with the checksum that was written with it is in the new file, with the columns of today.
    * After a kill at any instruction it is done again, or was done; a file that is damaged is kept as a backup.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from loguru import logger

from writer import durable_io
from writer.journal.former_entries import convert_entries
from writer.journal.frame import FrameEncoder
from writer.journal.segment import SUFFIX, Damage, FormatError, JournalBatch, read_identity, scan_segment, segment_paths

FORMER_SUFFIX = ".arrows"
FORMER_VERSION = 1
"""Of entries that can be converted."""

BACKUP_SUFFIX = ".damaged"
_CONTINUATION = b"\xff\xff\xff\xff"
_UNREADABLE = (pa.ArrowException, OSError, EOFError, StopIteration, KeyError, ValueError)
_FORMER_NAMES = {"number": "value", "words": "message"}
"""Columns of events as earlier versions had them, and their names now."""


class FormerSegment(NamedTuple):
    """A segment of a former version; `lineage` and `schema_version` are None if its beginning is unreadable."""

    path: Path
    lineage: str | None
    schema_version: int | None


def find_former(directory: Path) -> list[FormerSegment]:
    """The segments of former versions of a journal, in order of their numbers."""
    found = [_read_identity(path) for path in directory.glob(f"[0-9]*{FORMER_SUFFIX}")]
    for path in segment_paths(directory):
        try:
            identity = read_identity(path)
        except (FormatError, FileNotFoundError):
            continue
        if identity is not None and identity.schema_version == FORMER_VERSION:
            found.append(FormerSegment(path, identity.lineage, identity.schema_version))
    return sorted(found, key=lambda former: former.path.stem)


def _read_identity(path: Path) -> FormerSegment:
    with path.open("rb") as file:
        beginning = file.read(1 << 20)
    try:
        metadata = pa.ipc.open_stream(pa.BufferReader(beginning)).schema.metadata
        return FormerSegment(path, metadata[b"lineage"].decode(), int(metadata[b"schema_version"]))
    except (*_UNREADABLE, TypeError):
        return FormerSegment(path, None, None)


def convert(path: Path, schema: pa.Schema, encoder: FrameEncoder) -> list[Damage]:
    """Replace a segment of a former version by one of today's; what is unreadable. OSError: nothing is lost, call again."""
    target = path.with_suffix(SUFFIX)
    if target == path:
        found = list(scan_segment(path))
        batches = [one for one in found if isinstance(one, JournalBatch)]
        damages = [one for one in found if isinstance(one, Damage) and not one.is_torn]
        if damages:
            durable_io.keep(path, path.with_name(path.name + BACKUP_SUFFIX))
        _replace(target, batches, schema, encoder)
        return damages
    if target.exists():  # the kill came between the two names
        durable_io.remove(path)
        return []
    batches, lost_bytes = _read_all(path.read_bytes(), schema)
    if batches:
        _replace(target, batches, schema, encoder)
    if lost_bytes:
        backup = path.with_name(path.name + BACKUP_SUFFIX)
        logger.error("{}: {} bytes are in no complete batch; the file is kept as {}", path, lost_bytes, backup)
        durable_io.rename(path, backup)
    else:
        durable_io.remove(path)
    return []


def _replace(target: Path, batches: list[JournalBatch], schema: pa.Schema, encoder: FrameEncoder) -> None:
    durable_io.replace(target, b"".join(_encode(batches, schema, encoder)))
    logger.info("{}: {} batches rewritten with entries of today", target, len(batches))


def read_former_batches(path: Path, schema: pa.Schema | None = None) -> list[JournalBatch]:
    """The complete batches of a segment of format 1."""
    return _read_all(path.read_bytes(), schema)[0]


def _encode(batches: list[JournalBatch], schema: pa.Schema, encoder: FrameEncoder) -> Iterator[bytes]:
    """The frames of a segment with these batches."""
    first, *rest = batches
    is_opening = not first.entries.num_rows
    row_before = first.last_row - first.entries.num_rows
    data = encoder.encode_opening(row_before, first.metadata if is_opening else {})
    yield data
    begin = len(data)
    for batch in rest if is_opening else batches:
        entries = convert_entries(batch.entries, schema)
        data = encoder.encode_batch(entries, begin, batch.last_row, batch.metadata)
        yield data
        begin += len(data)


def _read_all(data: bytes, schema: pa.Schema | None) -> tuple[list[JournalBatch], int]:
    """The complete batches, also those behind damage, and how many bytes are in none."""
    whole: list[JournalBatch] = []
    header, end = _encode_header(schema or pa.schema([])), 0
    for batch in _read_stream(data):
        if not whole:
            header = data[: batch.begin]
        whole.append(batch)
        end = batch.end
    at = data.find(_CONTINUATION, end)
    lost_bytes = len(data) - end
    while at >= 0:
        found = _read_batch_at(data, at, header) if at % 8 == 0 else None
        if found is not None:
            whole.append(found)
            lost_bytes -= found.end - found.begin
        at = data.find(_CONTINUATION, found.end if found else at + 1)
    return whole, lost_bytes


def _encode_header(schema: pa.Schema) -> bytes:
    """The schema message of a stream."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema):
        pass
    return sink.getvalue()[:-8]  # without the end mark


def _read_batch_at(data: bytes, at: int, header: bytes) -> JournalBatch | None:
    """The complete batch that begins exactly there, if any."""
    source = pa.BufferReader(pa.py_buffer(data).slice(at))
    try:
        message = pa.ipc.read_message(source)
    except _UNREADABLE:
        return None
    if message.type != "record batch":
        return None
    size = source.tell()
    found = next(_read_stream(header + data[at : at + size]), None)
    return found and found._replace(begin=at, end=at + size)


def _read_stream(data: bytes) -> Iterator[JournalBatch]:
    """Complete batches from the beginning up to the first that is not."""
    messages, source = pa.BufferReader(data), pa.BufferReader(data)
    try:
        stream = pa.ipc.open_stream(source)
        pa.ipc.read_message(messages)
    except _UNREADABLE:
        return
    while True:
        begin = messages.tell()
        try:
            body = pa.ipc.read_message(messages).body
            batch, encoded = stream.read_next_batch_with_custom_metadata()
            metadata = dict(encoded or {})
            checksum = int(metadata.pop(b"crc"))
            text = b"\n".join(b"%s=%s" % pair for pair in sorted(metadata.items()))
            if checksum != zlib.crc32(text, zlib.crc32(body)):
                return
            values = {key.decode(): json.loads(value) for key, value in metadata.items()}
            last_row = values.pop("last_row")
        except _UNREADABLE:
            return
        names = [_FORMER_NAMES.get(name, name) for name in batch.schema.names]
        yield JournalBatch(batch.rename_columns(names), values, begin, messages.tell(), last_row)
