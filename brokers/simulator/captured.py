"""Reader of captured frames: files that a collector wrote while its capture was on.

    TIME.jsonl.gz   gzip members, each some lines   {"recv_ns":...,"broker":"kis","text":"..."}, or "base64"; {"dropped":12}

Guarantees:
    * A file is read block by block, whatever its size.
    * A file of a killed process is read up to its last complete block; the rest is reported.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

SUFFIX = ".jsonl.gz"
READ_BYTES = 1 << 16
MAX_BLOCK_BYTES = 64 << 20
"""Longest block that is accepted, unpacked."""
GZIP_FORMAT = 31


class CapturedFrame(NamedTuple):
    """One frame as a collector received it."""

    feed: str
    recv_ns: int
    payload: bytes


def read_captured(file: Path, warn: Callable[[str], None]) -> Iterator[CapturedFrame]:
    """The frames of a file in the order in which they were received; `warn` gets what is missing. OSError."""
    for block in _read_blocks(file, warn):
        for text in block.splitlines():
            try:
                line = json.loads(text)
                if "dropped" in line:
                    warn(f"{file}: {line['dropped']} frames are missing here: the collector could not keep them")
                    continue
                payload = line["text"].encode() if "text" in line else b64decode(line["base64"])
                yield CapturedFrame(line["broker"], line["recv_ns"], payload)
            except (ValueError, KeyError, TypeError, AttributeError):
                warn(f"{file}: a line that is no captured frame, left out")


def _read_blocks(file: Path, warn: Callable[[str], None]) -> Iterator[bytes]:
    """The complete members of a gzip file."""
    unpacker, unpacked, size, begun = zlib.decompressobj(GZIP_FORMAT), list[bytes](), 0, False
    with file.open("rb") as stream:
        while data := stream.read(READ_BYTES):
            while data:
                begun = True
                try:
                    unpacked.append(unpacker.decompress(data, MAX_BLOCK_BYTES + 1 - size))
                except zlib.error as error:
                    warn(f"{file}: damaged, read up to there: {error}")
                    return
                size += len(unpacked[-1])
                if size > MAX_BLOCK_BYTES:
                    warn(f"{file}: a block of more than {MAX_BLOCK_BYTES} bytes, read up to there")
                    return
                data = unpacker.unused_data
                if unpacker.eof:
                    yield b"".join(unpacked)
                    unpacker, unpacked, size, begun = zlib.decompressobj(GZIP_FORMAT), [], 0, False
    if begun:
        warn(f"{file}: its last block is incomplete and left out")
