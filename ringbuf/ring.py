"""Single-producer single-consumer ring of fixed slots in a memory-mapped file.

    producer                                            consumer
    claim = head + n        these slots are being written
    slots[..] = records, each with its checksum
    head = head + n         these slots are complete      read head, copy slots, read claim:
                                                          what lies at or before claim - capacity may be
                                                          half overwritten: it is reported as lost
                                                          every other slot must hold its number and checksum

The order in which stores become visible is not relied on (layout.py): on arm64 a head may be seen before the slots behind it, or a
slot before its claim. Such a slot fails its checksum, and is copied again for up to MAX_ATTEMPTS x RETRY_S; one that still fails
is damaged.

Guarantees:
    * The producer never blocks.
    * A record that is overwritten while it is read is not delivered; nor is one whose slot holds anything else than was
      published. The consumer reports the exact sequence numbers as a loss, and goes on with the next whole record.
    * A producer keeps the numbers itself: a header that was overwritten is right again after its next publish.
    * A ring whose path was deleted is copied to it again by its producer, with its ring_id, numbers and unread records: an
      attached consumer goes on in the copy, and so does one that attaches later.
    * A producer killed at any instruction leaves a ring that the next producer continues: no torn record becomes visible, and
      numbering goes on.
    * The last `capacity` records stay readable after they were consumed; a file of another layout is refused.
    * Any number of observers read beside the consumer: they map the file read-only, take no lock and commit nothing, so that
      neither producer nor consumer can notice them.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self
from zlib import crc32

import numpy as np

from ringbuf import layout
from ringbuf.access import create_file
from ringbuf.lost_path import restore_directory
from ringbuf.pid import is_running
from ringbuf.records import find_layout
from ringbuf.ring_file import RingError, RingFile, count_file_bytes

RESTORE_RETRY_S = 5.0
"""Pause between two attempts to copy a ring to its path: each takes what is left of the memory for an instant."""

MAX_ATTEMPTS, RETRY_S = 10, 0.001
"""Copies of a slot that does not hold its record before it is called damaged, and the pause between two."""

_SEQ = struct.Struct("<q")
"""Every record begins with its number (fields.py)."""

FEW = 64
"""Records that are checked one by one: numpy's calls cost more than they save up to here."""


class Loss(NamedTuple):
    """Records that cannot be read: sequence numbers `first_seq` to `last_seq`, both included.

    Overwritten before they were read, or damaged: their slots hold something else.
    """

    first_seq: int
    last_seq: int
    is_damage: bool = False

    @property
    def record_count(self) -> int:
        """How many records."""
        return self.last_seq - self.first_seq + 1


class Batch(NamedTuple):
    """Result of a read: `records` (a copy, in sequence), the next number to read, and what was lost before them."""

    records: np.ndarray
    next_seq: int
    loss: Loss | None


class _MappedRing(RingFile):
    """A ring file whose slots are arrays of records; for writing, where a class does not say otherwise."""

    _flags, _access = os.O_RDWR, mmap.ACCESS_WRITE

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        self.dtype = dtype
        super().__init__(path, find_layout(dtype))

    def _map(self) -> None:
        super()._map()
        # as bytes without fields: numpy copies records field by field otherwise, ten times slower
        self._slot = np.dtype([("record", (np.void, self.dtype.itemsize)), ("checksum", "<u8")])
        slots = np.frombuffer(
            self._mmap, [("record", self.dtype), ("checksum", "<u8")], self.capacity, layout.RING_HEADER_BYTES
        )
        self.slots = slots["record"]

    def _verify(self, copy: bytes, first: int) -> np.ndarray:
        """Which of these slots hold the records that belong there, numbered from `first`; shape (n,), bool."""
        slots = np.frombuffer(copy, self._slot)
        numbered = slots["record"].view(self.dtype)["seq"] == np.arange(first, first + len(slots))
        return numbered & (slots["checksum"] == [crc32(record) for record in self._split(copy)])

    def close(self) -> None:
        """Unmap and close; releases the lock of a producer."""
        self.slots = np.empty(0, np.void)
        super().close()


class Producer(_MappedRing):
    """The one process that writes a ring."""

    _published = _claimed = 0  # the numbers in the header, by this process's own account
    _restore_failed_s = -RESTORE_RETRY_S

    @property
    def head(self) -> int:
        """Sequence number of the newest record that was published; 0 if there is none yet."""
        return self._published or super().head

    @classmethod
    def open(cls, path: Path, dtype: np.dtype, capacity: int) -> Self:
        """Continue the ring at `path`, or create it with room for `capacity` records.

        A ring of another capacity is replaced if everything in it was consumed and there is room for the new one, else
        continued as it is. RingError: another layout, or another producer holds it. OSError: no room (all of it is reserved
        here, so that publishing can never fail for want of memory); an existing ring needs none.
        """
        ring = cls._attach(path, dtype, capacity)
        try:
            if ring.capacity != capacity and ring.tail > ring.head:
                ring = ring._replace(capacity)
            for leftover in path.parent.glob(f".{path.name}.*"):  # by a producer that was killed while it made the ring
                leftover.unlink(missing_ok=True)
            ring._published = ring.head
            ring._claimed = ring._claim
        except BaseException:
            ring.close()  # a lock that stays would keep this very process out at its next attempt
            raise
        ring._header[layout.PRODUCER_PID] = os.getpid()
        ring._header[layout.PRODUCER_START_NS] = time.time_ns()
        return ring

    def restore_path(self) -> bool:
        """Copy the ring to its path if that was deleted or leads elsewhere; whether it did. Not while another thread publishes.

        Without room for the copy, the ring goes on in its nameless file, which an attached consumer reads, and a later call
        tries again.
        """
        if not self.is_replaced or time.monotonic() - self._restore_failed_s < RESTORE_RETRY_S:
            return False
        from loguru import logger  # on demand: readers of rings have no use for it

        try:
            restore_directory(self.path.parent, self._directory)
            if not self.is_replaced:
                return False
            self._copy_to_path()
        except OSError as error:
            self._restore_failed_s = time.monotonic()
            logger.error("{}: deleted while it is written, and cannot be made again: {}", self.path, error)
            return False
        logger.warning("{}: was deleted while it is written: made again, with its {} records", self.path, self.head)
        return True

    def _copy_to_path(self) -> None:
        temporary = _temporary_path(self.path)
        temporary.unlink(missing_ok=True)
        fd = create_file(temporary, os.O_EXCL)
        try:
            os.posix_fallocate(fd, 0, len(self._mmap))
            with memoryview(self._mmap) as pages:
                written = 0
                while written < len(pages):
                    written += os.pwrite(fd, pages[written:], written)
            copy = type(self)(temporary, self.dtype)
            copy._lock()
            temporary.replace(self.path)
            self._header[layout.MOVED] = 1  # whoever reads on here shall look for the copy
        finally:
            os.close(fd)
            temporary.unlink(missing_ok=True)
        mine, its = vars(self), vars(copy)
        for name in ("fd", "_mmap", "_header", "slots"):
            mine[name], its[name] = its[name], mine[name]
        copy.close()

    def _replace(self, capacity: int) -> Self:
        """The ring of another capacity in place of this one; this one still if there is no room beside it."""
        try:
            _create(self.path, self.dtype, capacity, replace=True)
        except OSError:
            return self
        self.close()
        return self._attach(self.path, self.dtype, capacity)

    @classmethod
    def _attach(cls, path: Path, dtype: np.dtype, capacity: int) -> Self:
        """The ring that is at `path` now, or a new one, locked."""
        if not path.exists():
            _create(path, dtype, capacity)
        ring = cls(path, dtype)
        ring._lock()
        try:
            is_replaced = ring.is_replaced  # its last producer put another in its place before the lock was ours
        except BaseException:
            ring.close()
            raise
        if is_replaced:
            ring.close()
            return cls._attach(path, dtype, capacity)
        return ring

    def _lock(self) -> None:
        """Lock the file for life. A consumer that tests for a producer holds the lock for an instant, hence the attempts."""
        for _ in range(100):
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(0.01)
        pid = self._header[layout.PRODUCER_PID]
        self.close()
        raise RingError(f"{self.path}: process {pid} is writing it: one producer per ring; stop the other one")

    def publish(self, records: np.ndarray) -> None:
        """Number `records` (their `seq` is written in place) and make them visible; shape (n,), any n. Never waits.

        RingError when they are not of the ring's dtype: numpy would convert them field by field, by position.
        """
        if records.dtype != self.dtype:
            raise RingError(f"{self.path}: records of another layout were to be published: give {self.dtype.names}")
        records["seq"] = np.arange(self._published + 1, self._published + 1 + len(records))
        size, data = self._record_bytes, records.tobytes()
        self._publish([data[at : at + size] for at in range(0, len(data), size)])

    def publish_rows(self, rows: Sequence[bytearray]) -> None:
        """As `publish`, records as packed bytes, each of the ring's dtype: a fifth of the cost for a single one."""
        size, pack, seq = self._record_bytes, _SEQ.pack_into, self._published
        for row in rows:
            if len(row) != size:
                raise RingError(f"{self.path}: {len(row)} bytes were to be published: a record has {size}")
            seq += 1
            pack(row, 0, seq)
        self._publish(rows)

    def _publish(self, rows: Sequence[bytes | bytearray]) -> None:
        """Make records visible that are numbered."""
        capacity, slot_bytes, number = self.capacity, self._slot_bytes, self._published
        header, pages, pack = self._header, self._mmap, self._slot_packer.pack_into
        for begin in range(0, len(rows), capacity):
            part = rows[begin : begin + capacity] if len(rows) > capacity else rows
            # a producer that died may have claimed further than this batch reaches
            self._claimed = max(self._claimed, number + len(part))
            header[layout.CLAIM] = header[layout.CLAIM_COPY] = self._claimed
            for row in part:
                pack(pages, layout.RING_HEADER_BYTES + number % capacity * slot_bytes, row, crc32(row))
                number += 1
            self._published = header[layout.HEAD] = header[layout.HEAD_COPY] = number


class _ReadableRing(_MappedRing):
    """A ring whose records are read from a position that the caller passes in."""

    @classmethod
    def open(cls, path: Path, dtype: np.dtype) -> Self:
        """Attach. FileNotFoundError while no producer has made the ring; RingError if it is of another layout."""
        return cls(path, dtype)

    @property
    def oldest(self) -> int:
        """The lowest sequence number that can still be read; head + 1 when nothing can."""
        claim, head = self._claim, self.head
        # a batch is never larger than the ring: what was claimed beyond that is no number of this ring
        return max(1, (claim if claim <= head + self.capacity else head) - self.capacity + 1)

    def read(self, next_seq: int, max_records: int) -> Batch:
        """At most `max_records` records from number `next_seq` on, up to the next damaged one; empty when there are none yet.

        RingError when `next_seq` is no position of this ring.
        """
        head = self.head
        if not 1 <= next_seq <= head + 1:
            raise RingError(
                f"{self.path}: record {next_seq} requested, the ring has 1 to {head}: the position is of another ring: "
                "compare ring_id, and begin at `oldest` if it differs"
            )
        count = min(head - next_seq + 1, max_records)
        if count <= FEW and (few := self._read_few(next_seq, count)) is not None:
            return Batch(few, next_seq + count, None)
        for attempt in range(MAX_ATTEMPTS):
            if attempt:
                time.sleep(RETRY_S)
            first = max(next_seq, self.oldest)
            copy = self._copy(first, max(0, min(head - first + 1, max_records)))
            first_intact = max(first, self.oldest)  # what the producer claimed meanwhile may be torn in the copy
            copy = copy[(first_intact - first) * self._slot_bytes :]
            intact = self._verify(copy, first_intact)
            if first_intact > next_seq or intact[:1].all():
                break
        loss = Loss(next_seq, first_intact - 1) if first_intact > next_seq else None
        if loss is None and not intact[:1].all():
            damaged = int(intact.argmax()) if intact.any() else len(intact)
            loss = Loss(next_seq, next_seq + damaged - 1, is_damage=True)
            first_intact, copy, intact = first_intact + damaged, copy[damaged * self._slot_bytes :], intact[damaged:]
        whole = len(intact) if intact.all() else int(intact.argmin())
        records = np.frombuffer(copy, self._slot)["record"][:whole].copy().view(self.dtype)
        return Batch(records, first_intact + whole, loss)

    def _read_few(self, first: int, count: int) -> np.ndarray | None:
        """`count` records from number `first` on; None if anything about them is unusual, which `read` then looks into."""
        copy = self._copy(first, count)
        header, overwriting = self._header, first + self.capacity
        if (
            header[layout.HEAD] >= overwriting
            or header[layout.HEAD_COPY] >= overwriting
            or header[layout.CLAIM] >= overwriting
            or header[layout.CLAIM_COPY] >= overwriting
        ):
            return None  # may be torn
        rows = self._split(copy)
        unpack, at = self._seal_packer.unpack_from, 0
        for seq, row in enumerate(rows, first):
            if unpack(copy, at) != (seq, crc32(row)):
                return None
            at += self._slot_bytes
        return np.frombuffer(bytearray().join(rows), self.dtype)


class Observer(_ReadableRing):
    """One of any number of processes that only look: the file is opened and mapped read-only."""

    _flags, _access = os.O_RDONLY, mmap.ACCESS_READ

    def has(self, seq: int) -> bool:
        """Whether record `seq` is likely to be there; a look at one word, for those who poll."""
        return bool(self._header[layout.HEAD] >= seq)


class Consumer(_ReadableRing):
    """The one process that reads a ring and commits its position."""

    def commit(self, next_seq: int) -> None:
        """Publish the next number to read: everything before it is stored. Used by status and to replace the ring."""
        self._header[layout.TAIL] = next_seq

    def delete(self) -> bool:
        """Delete the ring's file, so that its memory is free once nobody maps it.

        False, and nothing, if a process writes it, or went on in a copy of it.
        """
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            if self.is_moved:
                return False
            if not self.is_replaced:  # a producer that waits for the lock makes a new ring
                self.path.unlink()
        finally:
            fcntl.flock(self.fd, fcntl.LOCK_UN)
        return True

    def is_producer_alive(self) -> bool:
        """Whether a process holds the ring for writing."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self.fd, fcntl.LOCK_UN)
        return False

    @property
    def has_gone_on(self) -> bool:
        """Whether the process that wrote this file lives and writes a copy; if that is deleted, too, it makes another one."""
        return self.is_moved and is_running(self._header[layout.PRODUCER_PID])


def _temporary_path(path: Path) -> Path:
    """Where this process makes a ring before it takes its name."""
    return path.with_name(f".{path.name}.{os.getpid()}")


def _create(path: Path, dtype: np.dtype, capacity: int, replace: bool = False) -> None:
    """Create a complete, empty ring at `path`; keep one that another process has just created, unless `replace`."""
    # never an existing file: one left by a creator killed after link() may be mapped by a process
    temporary = _temporary_path(path)
    temporary.unlink(missing_ok=True)
    fd = create_file(temporary, os.O_EXCL)
    try:
        # reserve every page now: writing to a hole of a full file system would be SIGBUS
        try:
            os.posix_fallocate(fd, 0, count_file_bytes(dtype.itemsize, capacity))
        except OSError as error:  # it names no file by itself
            raise OSError(error.errno, error.strerror, str(path)) from None
        header = np.zeros(layout.RING_HEADER_BYTES // 8, "<i8")
        header[layout.MAGIC] = layout.RING_MAGIC
        header[layout.VERSION] = layout.RING_VERSION
        header[layout.DTYPE] = find_layout(dtype).fingerprint
        header[layout.SLOT_BYTES] = dtype.itemsize + layout.CHECKSUM_BYTES
        header[layout.CAPACITY] = capacity
        header[layout.RING_ID] = time.time_ns()
        header[layout.TAIL] = 1
        os.pwrite(fd, header.tobytes(), 0)
        if replace:
            temporary.replace(path)
        else:
            os.link(temporary, path)
    except (FileExistsError, FileNotFoundError):
        pass  # another process was faster (and may have removed our file): its file is opened, and its lock decides
    finally:
        os.close(fd)
        temporary.unlink(missing_ok=True)
