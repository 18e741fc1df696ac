"""The rings of one stream, read as one: records of all lines in receive order.

    kis.orderbook.ring     1 . 4 5 . . 9 |          taken: 1 2 4 5 6 9 (by mono_ns)     left: what is younger than
    kiwoom.orderbook.ring  . 2 . . 6 . . | 10             positions: kis 5, kiwoom 3          the watermark

A collector may have several connections, one thread each: what one of them received may stand in the ring behind what another
received a little later. The records of one instrument come from one thread, so their order is never in question.

Promises: the same rings give the same order on every run, but for what a collector was slower to publish than the watermark; `take`
changes nothing, so that what could not be journalled is taken again; a lapped ring's loss is told exactly, once; a ring that is
absent, replaced or refused is tried again for ever.
Leaves to others: remembering positions over a restart (journal.py), what the records mean (merge.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from loguru import logger

from ringbuf.ring import Batch, Consumer, Loss, RingError
from writer.journal.journal import Positions

ENDLESS_NS = 2**63 - 1
"""A limit in mono_ns that everything is older than."""


class Lost(NamedTuple):
    """A loss on one ring; the records before and after it were received at these times (ns since 1970 UTC, 0 unknown)."""

    ring: str
    loss: Loss
    after_ns: int
    before_ns: int


class Taken(NamedTuple):
    """Records in receive order, the positions behind them, and what was lost on the way.

    `through_ns`: every record received up to this mono_ns is in here or was in an earlier take; `more`: the rings hold more that
    is due already; `heard`: when each ring's last record in here was received.
    """

    records: np.ndarray
    positions: Positions
    lost: list[Lost]
    through_ns: int
    more: bool
    heard: dict[str, int]


@dataclass
class Source:
    """One ring: attached or not, and where to read on."""

    name: str
    path: Path
    consumer: Consumer | None = None
    next_seq: int = 1
    last_recv_ns: int = 0
    refusals: set[str] = field(default_factory=set)


class Intake:
    """The rings of one stream."""

    def __init__(self, rings: Mapping[str, Path], dtype: np.dtype, positions: Positions) -> None:
        """`rings`: name ("kis.orderbook") -> file, in the order that breaks ties; `positions`: where the journal left off."""
        self.positions = dict(positions)
        self._dtype = dtype
        self._sources = [Source(name, path) for name, path in rings.items()]

    def attach(self) -> None:
        """Open rings that have appeared, and those whose file was replaced once the old one is read to its end."""
        for source in self._sources:
            consumer = source.consumer
            if consumer is not None and consumer.replaced and source.next_seq > consumer.head:
                logger.info("{}: the ring's file was replaced", source.name)
                consumer.close()
                source.consumer = None
            if source.consumer is None:
                self._open(source)

    def _open(self, source: Source) -> None:
        try:
            source.consumer = Consumer.open(source.path, self._dtype)
        except FileNotFoundError:
            return
        except RingError as error:
            self._refuse(source, error)
            return
        consumer = source.consumer
        ring_id, next_seq = self.positions.get(source.name, [0, 1])
        if ring_id != consumer.ring_id:
            if ring_id:
                logger.warning("{}: not the ring the journal knows: reading from its oldest record", source.name)
            next_seq = 1  # what is no longer in it is reported as lost by the first read
        elif next_seq > consumer.head + 1:
            logger.error(
                "{}: {} was read, {} is its newest: reading on from there", source.name, next_seq - 1, consumer.head
            )
            next_seq = consumer.head + 1
        source.next_seq = next_seq
        self.positions[source.name] = [consumer.ring_id, next_seq]
        logger.info("{}: attached, reading from record {}, newest is {}", source.name, next_seq, consumer.head)

    def take(self, limit_ns: int, now_ns: int, most: int) -> Taken:
        """What was received up to `limit_ns` (mono_ns), at most `most` records of each ring.

        A record from the future (mono_ns beyond `now_ns`: a ring that outlived a reboot) is due at once.
        """
        found: list[tuple[Source, np.ndarray, int]] = []
        lost: list[Lost] = []
        more = False
        for source in self._sources:
            if source.consumer is None:
                continue
            batch = self._read(source, most)
            if batch is None:
                continue
            if batch.lost:
                before_ns = int(batch.records["recv_ns"][0]) if len(batch.records) else 0
                lost.append(Lost(source.name, batch.lost, source.last_recv_ns, before_ns))
            if len(batch.records) and batch.next_seq <= source.consumer.head:
                more = True
                # the newest, not the last: all that was read must be due, else nothing might be, for ever
                received = batch.records["mono_ns"]
                if (received <= now_ns).any():
                    limit_ns = min(limit_ns, int(received[received <= now_ns].max()))
            found.append((source, batch.records, batch.next_seq - len(batch.records)))
        positions, heard, parts = dict(self.positions), {}, []
        for source, records, first_seq in found:
            undue = (records["mono_ns"] > limit_ns) & (records["mono_ns"] <= now_ns)
            due = int(undue.argmax()) if undue.any() else len(records)
            parts.append(records[:due])
            positions[source.name] = [source.consumer.ring_id, first_seq + due]
            if due:
                heard[source.name] = int(records["recv_ns"][due - 1])
        records = np.concatenate(parts) if parts else np.empty(0, self._dtype)
        return Taken(records[np.argsort(records["mono_ns"], kind="stable")], positions, lost, limit_ns, more, heard)

    def _read(self, source: Source, most: int) -> Batch | None:
        """Read one ring; None if it is damaged, and then it is let go of, to be tried again."""
        try:
            return source.consumer.read(source.next_seq, most)
        except RingError as error:
            self._refuse(source, error)
            source.consumer.close()
            source.consumer = None
            return None

    def _refuse(self, source: Source, error: RingError) -> None:
        if str(error) not in source.refusals:
            logger.error("{}", error)
        source.refusals.add(str(error))

    def accept(self, taken: Taken) -> None:
        """Go on behind what was taken: it is journalled."""
        self.positions = taken.positions
        for source in self._sources:
            if source.consumer is not None:
                source.next_seq = taken.positions[source.name][1]
                source.last_recv_ns = taken.heard.get(source.name, source.last_recv_ns)

    def commit(self) -> None:
        """Tell the rings how far the reading is durable."""
        for source in self._sources:
            if source.consumer is not None:
                source.consumer.commit(source.next_seq)

    @property
    def backlog(self) -> int:
        """Records that wait in the rings."""
        return sum(source.consumer.head + 1 - source.next_seq for source in self._sources if source.consumer)

    def producers(self) -> list[str]:
        """Rings that a living process writes."""
        return [source.name for source in self._sources if source.consumer and source.consumer.producer_alive()]

    def close(self) -> None:
        """Detach."""
        for source in self._sources:
            if source.consumer is not None:
                source.consumer.close()
                source.consumer = None
