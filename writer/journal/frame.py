"""Frame of a journal: its header and checksums, written and read.

    | header (88 bytes: marker, lengths, row range, place, checksums) | metadata (JSON) | Arrow message |
    opening:  positions, last_row, ceilings, and the schema
    batch:    positions {"kis.orderbook": [ring_id, next_seq], ..}, and the rows

The checksum is BLAKE2b of 16 bytes, over every byte behind the header; the header, which carries it, has one of 8 bytes.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import zlib
from hashlib import blake2b
from typing import Any, NamedTuple

import pyarrow as pa

FORMAT = 2
"""Of the frames; 1 was an Arrow IPC stream (former_segment.py)."""

MAGIC = b"\xf1jrnl\r\n\x1a"
_FIELDS = struct.Struct("<8sBBHI16sQqIIQ16s")
_HEADER_CHECKSUM_BYTES = 8
_CHECKSUM_BYTES = 16
HEADER_BYTES = _FIELDS.size + _HEADER_CHECKSUM_BYTES
OPENING, BATCH = 1, 2
PAGE_BYTES = 4096


class Header(NamedTuple):
    """The header of a frame; `last_row`: the newest row up to and with this frame."""

    format: int
    kind: int
    schema_version: int
    rows: int
    lineage: str
    begin: int
    last_row: int
    metadata_bytes: int
    schema_checksum: int
    body_bytes: int
    checksum: bytes

    @property
    def end(self) -> int:
        """Where the next frame begins."""
        return self.begin + HEADER_BYTES + self.metadata_bytes + self.body_bytes


class UnreadableFrame(Exception):
    """No frame at this place; `header`: if at least its header is whole."""

    def __init__(self, reason: str, header: Header | None = None, is_torn: bool = False) -> None:
        super().__init__(reason)
        self.header = header
        self.is_torn = is_torn


def compute_schema_checksum(schema: pa.Schema) -> int:
    """A number for the columns of a journal."""
    return zlib.crc32(schema.serialize())


class FrameEncoder:
    """The frames of one journal: of these columns, lineage and version of its entries."""

    def __init__(self, schema: pa.Schema, lineage: str, schema_version: int) -> None:
        self._schema_bytes = schema.serialize().to_pybytes()
        self._schema_checksum = compute_schema_checksum(schema)
        self._lineage = bytes.fromhex(lineage)
        self._schema_version = schema_version

    def encode_opening(self, last_row: int, metadata: dict[str, Any]) -> bytes:
        """The beginning of a segment behind row `last_row`.

        It is there twice, in different pages: a journal may consist of nothing else.
        """
        first = self._encode(OPENING, 0, 0, last_row, metadata, self._schema_bytes, PAGE_BYTES)
        return first + self._encode(OPENING, len(first), 0, last_row, metadata, self._schema_bytes, PAGE_BYTES)

    def encode_batch(self, batch: pa.RecordBatch, begin: int, last_row: int, metadata: dict[str, Any]) -> bytes:
        """The frame of a batch whose last row is `last_row`, to be written at `begin`."""
        return self._encode(BATCH, begin, batch.num_rows, last_row, metadata, batch.serialize(), 8)

    def _encode(
        self,
        kind: int,
        begin: int,
        rows: int,
        last_row: int,
        metadata: dict[str, Any],
        body: bytes | pa.Buffer,
        multiple: int,
    ) -> bytes:
        """A frame that ends at a multiple of `multiple`: the metadata are padded, so that the body keeps its alignment."""
        text = json.dumps(metadata).encode()
        text += b" " * (-(HEADER_BYTES + len(text) + len(body)) % multiple)
        checksum = blake2b(text, digest_size=_CHECKSUM_BYTES)
        checksum.update(body)
        fields = _FIELDS.pack(
            MAGIC,
            FORMAT,
            kind,
            self._schema_version,
            rows,
            self._lineage,
            begin,
            last_row,
            len(text),
            self._schema_checksum,
            len(body),
            checksum.digest(),
        )
        return b"".join((fields, _compute_header_checksum(fields), text, body))


def compute_checksum(data: bytes) -> bytes:
    """The checksum of all that follows a header."""
    return blake2b(data, digest_size=_CHECKSUM_BYTES).digest()


def _compute_header_checksum(fields: bytes) -> bytes:
    return blake2b(fields, digest_size=_HEADER_CHECKSUM_BYTES).digest()


def decode_header(data: bytes, at: int) -> Header | None:
    """The header, if that is what the bytes are and it belongs at `at`."""
    magic, *fields = _FIELDS.unpack_from(data)
    if magic != MAGIC or data[_FIELDS.size : HEADER_BYTES] != _compute_header_checksum(data[: _FIELDS.size]):
        return None
    fields[4] = fields[4].hex()
    header = Header(*fields)
    return header if header.begin == at else None


def read_bytes(fd: int, at: int, count: int) -> bytes:
    """`count` bytes, fewer at the end of the file. UnreadableFrame for a sector that cannot be read, else OSError."""
    parts = []
    try:
        while count and (data := os.pread(fd, count, at)):
            parts.append(data)
            at, count = at + len(data), count - len(data)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise UnreadableFrame(f"the disk cannot be read ({error.strerror})") from error
    return parts[0] if len(parts) == 1 else b"".join(parts)
