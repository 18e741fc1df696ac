"""Single-producer single-consumer ring of fixed slots in a memory-mapped file.

    producer                                            consumer
    claim = head + n        these slots are being written
    slots[..] = records
    head = head + n         these slots are complete      read head, copy slots, read claim:
                                                          what lies at or before claim - capacity may be
                                                          half overwritten: it is reported as lost

This relies on stores becoming visible in program order, as on x86-64. On a processor that reorders stores, the `seq` of each
record, which the consumer checks, detects most torn records, but not all.

Guarantees:
    * The producer never blocks.
    * A record that is overwritten while it is read is not delivered; the consumer reports its exact sequence numbers as an
      overrun.
    * A producer killed at any instruction leaves a ring that the next producer continues: no torn record becomes visible, and
      numbering goes on.
    * The last `capacity` records stay readable after they were consumed; a file of another layout is refused.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from ringbuf import layout
from ringbuf.records import dtype_hash


class RingError(Exception):
    """A ring that cannot be used; the message says which, why, and what to do."""


class Overrun(NamedTuple):
    """Records overwritten before they were read: sequence numbers `first_seq` to `last_seq`, both included."""

    first_seq: int
    last_seq: int


class Batch(NamedTuple):
    """Result of a read: `records` (a copy, in sequence), the next number to read, and what was lost before them."""

    records: np.ndarray
    next_seq: int
    overrun: Overrun | None


class _MappedRing:
    """A ring file, open and mapped."""

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        self.path = path
        self.dtype = dtype
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._map()
        except BaseException:
            os.close(self.fd)
            raise

    def _map(self) -> None:
        size = os.fstat(self.fd).st_size
        if size < layout.RING_HEADER_BYTES:
            raise RingError(f"{self.path}: {size} bytes are too few for a ring: stop everything and delete the file")
        self._mmap = mmap.mmap(self.fd, size)
        self._header = np.frombuffer(self._mmap, "<i8", layout.RING_HEADER_BYTES // 8)
        for word, expected, name in (
            (layout.MAGIC, layout.RING_MAGIC, "magic"),
            (layout.VERSION, layout.RING_VERSION, "layout version"),
            (layout.DTYPE, dtype_hash(self.dtype), "record layout"),
            (layout.SLOT_BYTES, self.dtype.itemsize, "record size"),
        ):
            if self._header[word] != expected:
                raise RingError(
                    f"{self.path}: {name} is {self._header[word]}, this version has {expected}: let the version that made it "
                    "drain it (collectorctl stop), then delete the file"
                )
        self.capacity = int(self._header[layout.CAPACITY])
        if size != layout.RING_HEADER_BYTES + self.capacity * self.dtype.itemsize:
            raise RingError(
                f"{self.path}: {size} bytes do not hold {self.capacity} records: stop everything and delete the file"
            )
        self.slots = np.frombuffer(self._mmap, self.dtype, self.capacity, layout.RING_HEADER_BYTES)
        # the slots as bytes without fields: numpy copies records field by field otherwise, ten times slower
        self._raw_dtype = np.dtype((np.void, self.dtype.itemsize))
        self._raw_slots = self.slots.view(self._raw_dtype)

    @property
    def head(self) -> int:
        """Sequence number of the newest complete record; 0 if there is none yet."""
        return int(self._header[layout.HEAD])

    @property
    def tail(self) -> int:
        """The next number to read, as last committed by the consumer; 1 before the first commit."""
        return int(self._header[layout.TAIL])

    @property
    def ring_id(self) -> int:
        """A number each newly created file gets: positions in another file mean nothing in this one."""
        return int(self._header[layout.RING_ID])

    @property
    def is_replaced(self) -> bool:
        """Whether the path now leads to another file, or none."""
        try:
            at_path = self.path.stat()
        except FileNotFoundError:
            return True
        opened = os.fstat(self.fd)
        return (at_path.st_dev, at_path.st_ino) != (opened.st_dev, opened.st_ino)

    def close(self) -> None:
        """Unmap and close; releases the lock of a producer."""
        self._header, self.slots, self._raw_slots = np.empty(0, "<i8"), np.empty(0, np.void), np.empty(0, np.void)
        self._mmap.close()
        os.close(self.fd)


class Producer(_MappedRing):
    """The one process that writes a ring."""

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
        except BaseException:
            ring.close()  # a lock that stays would keep this very process out at its next attempt
            raise
        ring._header[layout.PRODUCER_PID] = os.getpid()
        ring._header[layout.PRODUCER_START_NS] = time.time_ns()
        return ring

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
        for begin in range(0, len(records), self.capacity):
            self._publish(records[begin : begin + self.capacity])

    def _publish(self, records: np.ndarray) -> None:
        count = len(records)
        head = self.head
        records["seq"] = np.arange(head + 1, head + 1 + count)
        # a producer that died may have claimed further than this batch reaches
        self._header[layout.CLAIM] = max(self._header[layout.CLAIM], head + count)
        first = head % self.capacity
        fits = min(count, self.capacity - first)
        raw_records = records.view(self._raw_dtype)
        self._raw_slots[first : first + fits] = raw_records[:fits]
        self._raw_slots[: count - fits] = raw_records[fits:]
        self._header[layout.HEAD] = head + count


class Consumer(_MappedRing):
    """The one process that reads a ring; the position is passed in by the caller."""

    @classmethod
    def open(cls, path: Path, dtype: np.dtype) -> Self:
        """Attach. FileNotFoundError while no producer has made the ring; RingError if it is of another layout."""
        return cls(path, dtype)

    @property
    def oldest(self) -> int:
        """The lowest sequence number that can still be read; head + 1 when nothing can."""
        return max(1, int(self._header[layout.CLAIM]) - self.capacity + 1)

    def read(self, next_seq: int, max_records: int) -> Batch:
        """At most `max_records` records from number `next_seq` on; empty when there are none yet.

        RingError when `next_seq` is no position of this ring, or a slot holds another record than it must.
        """
        head = self.head
        if not 1 <= next_seq <= head + 1:
            raise RingError(
                f"{self.path}: record {next_seq} requested, the ring has 1 to {head}: the position is of another ring: "
                "compare ring_id, and begin at `oldest` if it differs"
            )
        first = max(next_seq, self.oldest)
        count = max(0, min(head - first + 1, max_records))
        records = self._copy(first, count)
        first_intact = max(first, self.oldest)  # what the producer claimed meanwhile may be torn in the copy
        records = records[first_intact - first :]
        end_seq = first_intact + len(records)
        if len(records) and not np.array_equal(records["seq"], np.arange(first_intact, end_seq)):
            raise RingError(
                f"{self.path}: slots of records {first_intact} to {end_seq - 1} hold others: the file is damaged; delete it"
            )
        return Batch(records, end_seq, Overrun(next_seq, first_intact - 1) if first_intact > next_seq else None)

    def _copy(self, first: int, count: int) -> np.ndarray:
        begin = (first - 1) % self.capacity
        fits = min(count, self.capacity - begin)
        if fits == count:
            return self._raw_slots[begin : begin + count].copy().view(self.dtype)
        return np.concatenate([self._raw_slots[begin:], self._raw_slots[: count - fits]]).view(self.dtype)

    def commit(self, next_seq: int) -> None:
        """Publish the next number to read: everything before it is stored. Used by status and to replace the ring."""
        self._header[layout.TAIL] = next_seq

    def is_producer_alive(self) -> bool:
        """Whether a process holds the ring for writing."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self.fd, fcntl.LOCK_UN)
        return False


def _create(path: Path, dtype: np.dtype, capacity: int, replace: bool = False) -> None:
    """Create a complete, empty ring at `path`; keep one that another process has just created, unless `replace`."""
    # never an existing file: one left by a creator killed after link() may be mapped by a process
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        # reserve every page now: writing to a hole of a full file system would be SIGBUS
        try:
            os.posix_fallocate(fd, 0, layout.RING_HEADER_BYTES + capacity * dtype.itemsize)
        except OSError as error:  # it names no file by itself
            raise OSError(error.errno, error.strerror, str(path)) from None
        header = np.zeros(layout.RING_HEADER_BYTES // 8, "<i8")
        header[layout.MAGIC] = layout.RING_MAGIC
        header[layout.VERSION] = layout.RING_VERSION
        header[layout.DTYPE] = dtype_hash(dtype)
        header[layout.SLOT_BYTES] = dtype.itemsize
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
