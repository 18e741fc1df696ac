"""Segments of a journal as versions before wrote them: Arrow IPC streams, and frames of entries of version 1."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from writer.journal.frame import FrameEncoder

Appended = tuple[pa.RecordBatch, dict[str, Any]]


def write_former_segment(
    path: Path, schema: pa.Schema, lineage: str, batches: Iterable[Appended], version: int = 1
) -> None:
    """Write a segment that holds `batches` with their metadata."""
    sink = pa.BufferOutputStream()
    stream = pa.ipc.new_stream(sink, schema.with_metadata({"lineage": lineage, "schema_version": str(version)}))
    for batch, values in batches:
        metadata = {key: json.dumps(value) for key, value in values.items()}
        text = b"\n".join(f"{key}={value}".encode() for key, value in sorted(metadata.items()))
        body = pa.ipc.read_message(batch.serialize()).body
        stream.write_batch(batch, custom_metadata=metadata | {"crc": str(zlib.crc32(text, zlib.crc32(body)))})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sink.getvalue().to_pybytes())


def write_segment_of_version_1(path: Path, schema: pa.Schema, lineage: str, batches: Iterable[Appended]) -> None:
    """Write a segment that holds `batches`, entries of version 1 (`schema`), with their metadata and `last_row`."""
    encoder, data = FrameEncoder(schema, lineage, 1), b""
    for entries, values in batches:
        metadata = dict(values)
        last_row = metadata.pop("last_row")
        if not data:
            data = encoder.encode_opening(last_row - entries.num_rows, {"positions": {}, "ceilings": []})
        data += encoder.encode_batch(entries, len(data), last_row, metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
