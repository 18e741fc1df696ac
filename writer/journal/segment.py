"""Segment file of a journal: an Arrow IPC stream with a checksum per batch.

    000000000007.arrows     an Arrow IPC stream, readable by pyarrow alone
    +--------+---------+---------+---------+--
    | schema | opening | batch   | batch   | bat      <- torn tail: the writer was killed here
    +--------+---------+---------+---------+--
               each batch's custom_metadata: positions {"kis.orderbook": [ring_id, next_seq], ..}, last_row, crc of its body

Guarantees:
    * A batch is returned only if it is complete and its body has the checksum written with it.
    * The offset of damage, and complete batches behind it, are found; nothing is changed.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

SUFFIX = ".arrows"
_CONTINUATION = b"\xff\xff\xff\xff"
_UNREADABLE = (pa.ArrowInvalid, OSError, EOFError, StopIteration, KeyError, ValueError)
"""What reading damaged bytes raises, in the several layers it may reach."""


class JournalBatch(NamedTuple):
    """A complete batch: its entries, its custom_metadata, and its bytes [begin, end) in the file."""

    entries: pa.RecordBatch
    metadata: dict[str, Any]
    begin: int
    end: int


def segment_paths(directory: Path) -> list[Path]:
    """The segments of a journal in order of their numbers."""
    return sorted(directory.glob(f"[0-9]*{SUFFIX}"))


def map_file(path: Path) -> pa.Buffer:
    """The file's bytes, mapped into memory; empty if it is."""
    if path.stat().st_size == 0:
        return pa.py_buffer(b"")
    with pa.memory_map(str(path)) as file:
        return file.read_buffer()


def map_segments(directory: Path) -> Iterator[pa.Buffer]:
    """The bytes of each segment of a journal in order; one that is removed meanwhile, because it was published, is skipped."""
    for path in segment_paths(directory):
        with suppress(FileNotFoundError):
            yield map_file(path)


def read_lineage(buffer: pa.Buffer) -> str | None:
    """Which journal a segment belongs to; None if its beginning is unreadable."""
    try:
        metadata = pa.ipc.open_stream(pa.BufferReader(buffer)).schema.metadata
        return metadata[b"lineage"].decode()
    except (*_UNREADABLE, TypeError):
        return None


def encode_metadata(batch: pa.RecordBatch, values: dict[str, Any]) -> dict[str, str]:
    """The custom_metadata to write `batch` with: `values`, and a checksum over them and the body."""
    metadata = {key: json.dumps(value) for key, value in values.items()}
    body = pa.ipc.read_message(batch.serialize()).body
    return metadata | {"crc": str(_checksum(body, {key.encode(): value.encode() for key, value in metadata.items()}))}


def _checksum(body: pa.Buffer, metadata: dict[bytes, bytes]) -> int:
    text = b"\n".join(b"%s=%s" % pair for pair in sorted(metadata.items()))
    return zlib.crc32(text, zlib.crc32(body))


def read_batches(buffer: pa.Buffer) -> Iterator[JournalBatch]:
    """Complete batches from the beginning up to the first that is not."""
    messages, source = pa.BufferReader(buffer), pa.BufferReader(buffer)
    try:
        stream = pa.ipc.open_stream(source)
        pa.ipc.read_message(messages)
    except _UNREADABLE:
        return
    while True:
        begin = messages.tell()
        try:
            body = pa.ipc.read_message(messages).body
            batch, metadata = stream.read_next_batch_with_custom_metadata()
            encoded = dict(metadata or {})
            if int(encoded.pop(b"crc")) != _checksum(body, encoded):
                return
            values = {key.decode(): json.loads(value) for key, value in encoded.items()}
        except _UNREADABLE:
            return
        yield JournalBatch(_with_current_names(batch), values, begin, messages.tell())


_FORMER_NAMES = {"number": "value", "words": "message"}
"""Columns of events as segments written before had them, and their names now."""


def _with_current_names(batch: pa.RecordBatch) -> pa.RecordBatch:
    names = batch.schema.names
    return batch.rename_columns([_FORMER_NAMES.get(name, name) for name in names]) if "words" in names else batch


def salvage_batches(buffer: pa.Buffer, begin: int, header: bytes) -> Iterator[JournalBatch]:
    """Complete batches anywhere at or behind `begin`, past damage; `header` is the schema message of the stream."""
    data = memoryview(buffer)
    raw = bytes(data[begin:])
    at = raw.find(_CONTINUATION)
    while at >= 0:
        found = _read_batch_at(raw, at, header) if (begin + at) % 8 == 0 else None
        if found is None:
            at = raw.find(_CONTINUATION, at + 1)
            continue
        size = found.end - found.begin
        yield found._replace(begin=begin + at, end=begin + at + size)
        at = raw.find(_CONTINUATION, at + size)


def _read_batch_at(raw: bytes, at: int, header: bytes) -> JournalBatch | None:
    """The complete batch that begins exactly there, if any."""
    source = pa.BufferReader(pa.py_buffer(raw).slice(at))
    try:
        message = pa.ipc.read_message(source)
    except _UNREADABLE:
        return None
    if message.type != "record batch":
        return None
    return next(read_batches(pa.py_buffer(header + raw[at : at + source.tell()])), None)
