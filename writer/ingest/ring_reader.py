"""Ring reader: several rings of one stream read as one stream in receive order.

    kis.orderbook.ring     1 . 4 5 . . 9 |          read: 1 2 4 5 6 9 (by mono_ns)     left: younger than
    kiwoom.orderbook.ring  . 2 . . 6 . . | 10             positions: kis 5, kiwoom 3          the watermark

A collector may have several connections, one thread each, so a record may follow one that another thread received a little later.
The records of one instrument come from one thread, in order.

Guarantees:
    * Equal rings give an equal order on every run, but for what a collector publishes later than the watermark.
    * `peek` changes nothing, so that what could not be journalled is read again.
    * Records that a ring overwrote before they were read, and records whose slots are damaged, are reported exactly, once;
      reading goes on behind them.
    * A ring that is absent, replaced or refused is tried again for ever; `unreadable` says which and why.
    * A ring whose path vanished is read on as long as it is mapped. One that takes its place under the same ring_id is a copy by
      its producer and read on at the same number; any other one follows when the old one is read to its end and has no producer.
    * Where the ring that the journal knows is gone, or the copy that a deleted one went on in, this is reported as a loss whose end
      is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from loguru import logger

from ringbuf.records import MAX_INT64, join_records, take_records
from ringbuf.ring import Batch, Consumer, Loss, RingError
from writer.journal.journal import RingPositions

NO_LIMIT_NS = MAX_INT64
"""A limit in mono_ns that everything is older than."""

MAX_RECORDS_PER_READ = 8192
"""Records of one ring in one turn: bounds the memory of a backlog."""

MIN_RECORDS_PER_READ = 512
READ_TARGET_S = 0.1
"""What a turn may take for the records that it reads: between two turns there is a heartbeat, whatever the machine is busy with."""


def compute_read_limit(limit: int, took_s: float, has_more: bool) -> int:
    """Records of one ring that the next turn reads at most, after one with this limit that took so long; 0: there was none."""
    if took_s > READ_TARGET_S:
        limit = int(limit * READ_TARGET_S / took_s)
    elif has_more and took_s < READ_TARGET_S / 2:
        limit *= 2
    return min(max(limit, MIN_RECORDS_PER_READ), MAX_RECORDS_PER_READ)


class LossReport(NamedTuple):
    """A loss on one ring; the records before and after it were received at these times (ns since 1970 UTC, 0 unknown)."""

    ring: str
    loss: Loss
    after_ns: int
    before_ns: int


class OrderedBatch(NamedTuple):
    """Records in receive order, the positions behind them, and what was lost on the way.

    `through_ns`: every record received up to this mono_ns is in this or an earlier batch; `has_more`: more is due already in the
    rings; `last_recv_ns`: when the last record of each ring in here was received.
    """

    records: np.ndarray
    positions: RingPositions
    losses: list[LossReport]
    through_ns: int
    has_more: bool
    last_recv_ns: dict[str, int]


@dataclass
class RingCursor:
    """One ring: attached or not, and where to read on."""

    name: str
    path: Path
    consumer: Consumer | None = None
    next_seq: int = 1
    last_recv_ns: int = 0
    gone_seq: int = 0
    """The first unread record of a ring that is gone; 0 if there is none to be reported."""
    error: str = ""
    logged_errors: set[str] = field(default_factory=set)


UNKNOWN_SEQ = MAX_INT64
"""The `last_seq` of a loss of which the end is not known."""


class RingReader:
    """The rings of one stream."""

    def __init__(self, rings: Mapping[str, Path], dtype: np.dtype, positions: RingPositions) -> None:
        """`rings`: name ("kis.orderbook") -> file, in the order that breaks ties; `positions`: where the journal left off."""
        self.positions = dict(positions)
        self._dtype = dtype
        self._cursors = [RingCursor(name, path) for name, path in rings.items()]

    def attach(self) -> None:
        """Open rings that have appeared, and replaced ones once the old file is read to its end.

        OSError: a ring cannot be opened (no descriptors, no permission); every other one was tried.
        """
        failure: OSError | None = None
        for cursor in self._cursors:
            try:
                self._attach(cursor)
            except OSError as error:
                failure = error
        if failure is not None:
            raise failure

    def _attach(self, cursor: RingCursor) -> None:
        if cursor.consumer is not None and cursor.consumer.is_replaced:
            self._follow(cursor, cursor.consumer)
        if cursor.consumer is None:
            self._open(cursor)

    def _follow(self, cursor: RingCursor, consumer: Consumer) -> None:
        """Go on in the ring that is at the path now, if there is one."""
        try:
            successor = Consumer.open(cursor.path, self._dtype)
        except FileNotFoundError:
            return  # deleted: the pages are still ours, and its producer, or the next one, makes it again
        except RingError as error:
            self._note_error(cursor, error)
            return
        if successor.ring_id == consumer.ring_id and successor.head >= cursor.next_seq - 1:
            logger.info(
                "{}: the ring was made again by its producer: read on at record {}", cursor.name, cursor.next_seq
            )
            cursor.consumer, cursor.error = successor, ""
            consumer.close()
            return
        successor.close()
        if cursor.next_seq > consumer.head and not consumer.is_producer_alive():
            if consumer.is_moved:
                logger.error("{}: the copy that the ring went on in is gone", cursor.name)
                cursor.gone_seq = cursor.next_seq
            logger.info("{}: the ring's file was replaced", cursor.name)
            consumer.close()
            cursor.consumer = None
            self.positions.pop(cursor.name, None)  # read to its end: what follows is no loss

    def _open(self, cursor: RingCursor) -> None:
        cursor.error = ""
        try:
            cursor.consumer = Consumer.open(cursor.path, self._dtype)
        except FileNotFoundError:
            return
        except RingError as error:
            self._note_error(cursor, error)
            return
        consumer = cursor.consumer
        ring_id, next_seq = self.positions.get(cursor.name, [0, 1])
        if ring_id != consumer.ring_id:
            if ring_id:
                logger.warning("{}: not the ring the journal knows: reading from its oldest record", cursor.name)
                cursor.gone_seq = next_seq
            next_seq = 1  # what is no longer in it is reported as lost by the first read
        elif next_seq > consumer.head + 1:
            logger.error(
                "{}: {} was read, {} is its newest: reading on from there", cursor.name, next_seq - 1, consumer.head
            )
            next_seq = consumer.head + 1
        cursor.next_seq = next_seq
        self.positions[cursor.name] = [consumer.ring_id, next_seq]
        logger.info("{}: attached, reading from record {}, newest is {}", cursor.name, next_seq, consumer.head)

    def peek(self, limit_ns: int, now_ns: int, max_records: int) -> OrderedBatch:
        """Records received up to `limit_ns` (mono_ns), at most `max_records` of each ring.

        A record from the future (mono_ns beyond `now_ns`: a ring that outlived a reboot) is due at once.
        """
        found: list[tuple[RingCursor, int, np.ndarray, int]] = []
        losses: list[LossReport] = []
        has_more = False
        for cursor in self._cursors:
            consumer = cursor.consumer
            if consumer is None or (consumer.head + 1 == cursor.next_seq and not cursor.gone_seq):
                continue
            batch = self._read(cursor, consumer, max_records)
            if batch is None:
                continue
            before_ns = int(batch.records["recv_ns"][0]) if len(batch.records) else 0
            if cursor.gone_seq:
                loss = Loss(cursor.gone_seq, UNKNOWN_SEQ)
                losses.append(LossReport(cursor.name, loss, cursor.last_recv_ns, before_ns))
            if batch.loss:
                losses.append(LossReport(cursor.name, batch.loss, cursor.last_recv_ns, before_ns))
            if len(batch.records) and batch.next_seq <= consumer.head:
                has_more = True
                # the newest, not the last: all that was read must be due, else nothing might be, for ever
                received = batch.records["mono_ns"]
                if (received <= now_ns).any():
                    limit_ns = min(limit_ns, int(received[received <= now_ns].max()))
            found.append((cursor, consumer.ring_id, batch.records, batch.next_seq - len(batch.records)))
        positions, last_recv_ns, parts = dict(self.positions), {}, []
        for cursor, ring_id, records, first_seq in found:
            undue = (records["mono_ns"] > limit_ns) & (records["mono_ns"] <= now_ns)
            due = int(undue.argmax()) if undue.any() else len(records)
            parts.append(records[:due])
            positions[cursor.name] = [ring_id, first_seq + due]
            if due:
                last_recv_ns[cursor.name] = int(records["recv_ns"][due - 1])
        records = join_records(parts) if parts else np.empty(0, self._dtype)
        return OrderedBatch(
            take_records(records, np.argsort(records["mono_ns"], kind="stable")) if parts else records,
            positions,
            losses,
            limit_ns,
            has_more,
            last_recv_ns,
        )

    def _read(self, cursor: RingCursor, consumer: Consumer, max_records: int) -> Batch | None:
        """Read one ring; None if the position is none of it: it is closed, and opened again later."""
        try:
            return consumer.read(cursor.next_seq, max_records)
        except RingError as error:
            self._note_error(cursor, error)
            consumer.close()
            cursor.consumer = None
            return None

    def _note_error(self, cursor: RingCursor, error: RingError) -> None:
        cursor.error = str(error)
        if str(error) not in cursor.logged_errors:
            logger.error("{}", error)
        cursor.logged_errors.add(str(error))

    def advance(self, batch: OrderedBatch) -> None:
        """Advance behind the batch: it is journalled."""
        reported = {report.ring for report in batch.losses if report.loss.last_seq == UNKNOWN_SEQ}
        for cursor in self._cursors:
            ring_id, next_seq = batch.positions.get(cursor.name, [0, 1])
            if cursor.consumer is None or cursor.consumer.ring_id != ring_id:
                continue  # attached since the batch was read
            self.positions[cursor.name] = [ring_id, next_seq]
            cursor.next_seq = next_seq
            cursor.last_recv_ns = batch.last_recv_ns.get(cursor.name, cursor.last_recv_ns)
            if cursor.name in reported:
                cursor.gone_seq = 0

    def commit(self) -> None:
        """Publish the durable positions to the rings."""
        for cursor in self._cursors:
            if cursor.consumer is not None:
                cursor.consumer.commit(cursor.next_seq)

    @property
    def unreadable(self) -> list[str]:
        """Rings that exist and cannot be read, with the reason: what waits in them is unknown."""
        return [f"{cursor.name}: {cursor.error}" for cursor in self._cursors if cursor.error]

    @property
    def backlog(self) -> int:
        """Records that wait in the rings."""
        return sum(source.consumer.head + 1 - source.next_seq for source in self._cursors if source.consumer)

    def live_producers(self) -> list[str]:
        """Rings that a living process writes, this file or a copy that the reader has not found yet."""
        consumers = [(cursor.name, cursor.consumer) for cursor in self._cursors if cursor.consumer is not None]
        return [name for name, consumer in consumers if consumer.is_producer_alive() or consumer.has_gone_on]

    def delete_drained(self) -> bool:
        """Delete the rings that are read to their end and have no producer, and forget their positions; whether there was one.

        The position in one that went on in a copy stays: who reads the copy goes on from there.
        """
        is_any = False
        for cursor in self._cursors:
            consumer = cursor.consumer
            if consumer is None or cursor.next_seq <= consumer.head or not consumer.delete():
                continue
            consumer.close()
            cursor.consumer = None
            self.positions.pop(cursor.name, None)
            is_any = True
        return is_any

    def close(self) -> None:
        """Detach."""
        for cursor in self._cursors:
            if cursor.consumer is not None:
                cursor.consumer.close()
                cursor.consumer = None
