"""Ring file, open and mapped: its header, checked against the layout of the records, and its slots as bytes.

Guarantees:
    * A file of another version, record layout or size is refused.
    * What is read of a ring read-only disturbs neither its producer nor its consumer.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from zlib import crc32

from ringbuf import layout
from ringbuf.fields import MONO_NS_AT, RecordLayout
from ringbuf.machine import check_machine


class RingError(Exception):
    """A ring that cannot be used; the message says which, why, and what to do."""


class RingFile:
    """A ring file, open and mapped, by itself read-only."""

    _flags, _access = os.O_RDONLY, mmap.ACCESS_READ

    def __init__(self, path: Path, record: RecordLayout) -> None:
        """FileNotFoundError while no producer has made the ring; RingError if it is of another layout."""
        check_machine()
        self.path = path
        self._record = record
        self.fd = os.open(path, self._flags | os.O_CLOEXEC)
        self._directory = path.parent.resolve()  # behind `open`: a ring that is not there yet is looked for often
        try:
            self._map()
        except BaseException:
            os.close(self.fd)
            raise

    def _map(self) -> None:
        size, record_bytes = os.fstat(self.fd).st_size, self._record.record_bytes
        if size < layout.RING_HEADER_BYTES:
            raise RingError(f"{self.path}: {size} bytes are too few for a ring: stop everything and delete the file")
        self._mmap = mmap.mmap(self.fd, size, access=self._access)
        # a memoryview of "q" loads and stores a word whole; struct may do it byte by byte
        self._header = memoryview(self._mmap)[: layout.RING_HEADER_BYTES].cast("q")
        for word, expected, name in (
            (layout.MAGIC, layout.RING_MAGIC, "magic"),
            (layout.VERSION, layout.RING_VERSION, "layout version"),
            (layout.DTYPE, self._record.fingerprint, "record layout"),
            (layout.SLOT_BYTES, record_bytes + layout.CHECKSUM_BYTES, "slot size"),
        ):
            if self._header[word] != expected:
                raise RingError(
                    f"{self.path}: {name} is {self._header[word]}, this version has {expected}: let the version that made it "
                    "drain it (collectorctl stop), then delete the file"
                )
        self.capacity = self._header[layout.CAPACITY]
        self.ring_id = self._header[layout.RING_ID]
        """A number each newly created file gets: positions in another file mean nothing in this one."""
        if size != count_file_bytes(record_bytes, self.capacity):
            raise RingError(
                f"{self.path}: {size} bytes do not hold {self.capacity} records: stop everything and delete the file"
            )
        self._slot_bytes, self._record_bytes = record_bytes + layout.CHECKSUM_BYTES, record_bytes
        self._slot_packer = struct.Struct(f"<{record_bytes}sQ")
        self._seal_packer = struct.Struct(f"<q{record_bytes - 8}xQ")  # number and checksum

    @property
    def head(self) -> int:
        """Sequence number of the newest complete record; 0 if there is none yet."""
        words = self._head_words()
        while words[0] != words[1]:
            # between the two stores, which may be where the producer was killed, or one of the words was damaged
            newer, before = max(words), words
            if newer > 0 and self._holds(self._copy(newer, 1), newer):
                return newer
            words = self._head_words()
            if words == before:
                return min(words)
            # the producer went on, and may have overwritten the slot: the older word would be a step back
        return words[0]

    def _head_words(self) -> tuple[int, int]:
        return self._header[layout.HEAD], self._header[layout.HEAD_COPY]

    @property
    def _claim(self) -> int:
        """Sequence number up to which the producer may have begun to write."""
        return max(self.head, min(self._header[layout.CLAIM], self._header[layout.CLAIM_COPY]))

    def _copy(self, first: int, count: int) -> bytes:
        """The slots of `count` records from number `first` on."""
        begin = (first - 1) % self.capacity
        fits = min(count, self.capacity - begin)
        at = layout.RING_HEADER_BYTES + begin * self._slot_bytes
        copy = self._mmap[at : at + fits * self._slot_bytes]
        if fits == count:
            return copy
        at = layout.RING_HEADER_BYTES
        return copy + self._mmap[at : at + (count - fits) * self._slot_bytes]

    def _split(self, copy: bytes) -> list[bytes]:
        """The record of each slot."""
        size = self._record_bytes
        return [copy[at : at + size] for at in range(0, len(copy), self._slot_bytes)]

    def _holds(self, slot: bytes, seq: int) -> bool:
        """Whether a slot holds record `seq`, whole."""
        return self._seal_packer.unpack(slot) == (seq, crc32(slot[: self._record_bytes]))

    def read_mono_ns(self, seq: int) -> int | None:
        """When record `seq` was received (mono_ns); None if it is not there any more, or damaged."""
        slot = self._copy(seq, 1)
        return struct.unpack_from("<q", slot, MONO_NS_AT)[0] if self._holds(slot, seq) else None

    @property
    def tail(self) -> int:
        """The next number to read, as last committed by the consumer; 1 before the first commit."""
        return self._header[layout.TAIL]

    @property
    def is_moved(self) -> bool:
        """Whether its producer has gone on in a copy: what came since is not in here."""
        return self._header[layout.MOVED] != 0

    @property
    def is_replaced(self) -> bool:
        """Whether the path now leads to another file, or none."""
        try:
            at_path = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        return not os.path.samestat(at_path, os.fstat(self.fd))

    def close(self) -> None:
        """Unmap and close."""
        self._header.release()
        self._mmap.close()
        os.close(self.fd)


def count_file_bytes(record_bytes: int, capacity: int) -> int:
    """The size of a ring's file."""
    return layout.RING_HEADER_BYTES + capacity * (record_bytes + layout.CHECKSUM_BYTES)
