"""Tap: the rings of a home read beside the writer, for any number of readers.

    kis.orderbook.ring     ──┐
    kiwoom.orderbook.ring  ──┼─ read-only ─> first arrival of each book ─> records in receive order of one look
    kis.tick.ring ...      ──┘

Guarantees:
    * Rings are opened and mapped read-only; nothing is locked, committed or created: producers and writer cannot notice a reader.
    * Each feed's records come in the order of its ring, each once; what was overwritten before it was read, or is damaged, is
      reported with its exact numbers.
    * Books and ticks are merged by the writer's own rules, in this process: a paused, restarted or absent writer changes nothing.
      Those of the WARM_UP_NS before the first look, or of the REMEMBERED_NS before the positions where it begins, are merged and
      left out, so that a twin of one of them is nothing new.
    * From positions on, no record is missing: what was overwritten behind a position has its numbers, and a ring that took the
      place of the one that a position is of is read from its first record, behind a loss whose end is unknown.
    * A ring that is absent is awaited. A copy by its producer under the same ring_id is read on at the same number; another ring
      follows from its first record on, once what the old one had then is read. The old one is read beside it until it has been
      silent for FORMER_NS: a producer whose path another process has taken goes on in its nameless file.

Not handled here:
    * Ticks fetched over REST by gapfill: they come minutes late, and are in the files.
    * The order between feeds is that in which records became visible: one that a slow thread published later stays later.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from collectorctl.reader.messages import Lost
from collectorctl.reader.stored import Instruments, Selection
from collectorctl.reader.tick_merge import TickMerge
from conf.clock import SECOND_NS
from ringbuf.records import RINGS, join_records, take_records
from ringbuf.ring import Observer, RingError
from writer.ingest.arbitration_result import NEW
from writer.ingest.book_arbiter import BookArbiter

WARM_UP_NS = 10 * SECOND_NS
REMEMBERED_NS = 60 * SECOND_NS
"""How long a book may wait for its twin; longer than any stall that the rule allows for."""
ATTACH_EVERY_NS = SECOND_NS // 5
FAILING_NS = SECOND_NS
MAX_RECORDS_PER_LOOK = 2048
FORMER_NS = 60 * SECOND_NS
"""How long a ring that has lost its path is read after its last record."""
_WARM_UP_STEP = 1024


class Taken(NamedTuple):
    """The result of a look: per stream the records in receive order, and what was lost before them.

    `has_more`: a ring had more than one look takes; `order`: the stamp by which the streams are in one order.
    """

    records: dict[str, np.ndarray]
    lost: list[Lost]
    has_more: bool = False
    order: str = "mono_ns"


class BookMerge:
    """First arrivals of the books of all feeds; the one place that knows the arbiter."""

    def __init__(self, window_ns: int, volume_venues: Collection[str], calendar_speed: float) -> None:
        self._arbiter = BookArbiter(window_ns, volume_venues, calendar_speed)
        self._next_row = 1
        self._remembered: deque[tuple[int, int]] = deque()

    def merge(self, books: np.ndarray) -> np.ndarray:
        """Those of `books` (ORDERBOOK, in receive order) that are no twin of an earlier one."""
        if not len(books):
            return books
        result = self._arbiter.arbitrate(books, np.zeros(len(books), np.int64), self._next_row)
        self._next_row += len(books)
        newest_ns = max(books["mono_ns"].tolist())
        self._remembered.append((newest_ns, self._next_row - 1))
        while self._remembered and self._remembered[0][0] < newest_ns - REMEMBERED_NS:
            self._arbiter.expire(self._remembered.popleft()[1])
        is_new = result.twin_of == NEW
        return books if np.count_nonzero(is_new) == len(books) else take_records(books, is_new)


@dataclass
class Cursor:
    """One ring: attached or not, and where to read on in each file that was at its path."""

    feed: str
    stream: str
    path: Path
    observer: Observer | None = None
    next_seq: int = 1
    last_ns: int = 0
    """When something was read, or the path was lost (monotonic)."""
    failing_ns: int = 0
    """Since when it cannot be read (monotonic); 0: it can."""
    end_seq: int = 0
    """What is read before the ring that is at the path now; 0: there is no other."""
    left_at: dict[int, int] = field(default_factory=dict)
    """ring_id -> the next number, of rings that were read before."""

    def close(self) -> None:
        """Unmap the ring, and note where to read on in a copy of it."""
        if self.observer is not None:
            self.left_at[self.observer.ring_id] = self.next_seq
            self.observer.close()
            self.observer = None


class Tap:
    """The rings of some feeds and streams. Not for several threads."""

    def __init__(
        self,
        rings: Mapping[tuple[str, str], Path],
        merge: BookMerge,
        instruments: Instruments,
        positions: Mapping[tuple[str, str], tuple[int, int]] | None = None,
    ) -> None:
        """Begin now, or at positions.

        Args:
            rings: (feed, stream) -> file.
            merge: of the books.
            instruments: (symbol, venue) wanted, venue 0 for all of them; None for all.
            positions: (feed, stream) -> (ring_id, number of the first record); a ring without one is read from its first record
                on. None: every ring is read from now on.
        """
        self._cursors = [Cursor(feed, stream, path) for (feed, stream), path in rings.items()]
        self._former: list[Cursor] = []
        self._has_positions = positions is not None
        for cursor in self._cursors:
            if positions is not None and (cursor.feed, cursor.stream) in positions:
                ring_id, next_seq = positions[cursor.feed, cursor.stream]
                cursor.left_at[ring_id] = next_seq
        self.gone: list[Lost] = []
        """Of rings that positions are of and that are gone: part of the next look."""
        self._merges = {"orderbook": merge.merge, "tick": TickMerge().merge}
        self._selection = Selection(instruments)
        self._attached_ns = 0
        self._attach(time.monotonic_ns(), is_first=True)

    def look(self) -> Taken:
        """What is new.

        RingError: a ring of another layout, or one that cannot be read for FAILING_NS; OSError: no permission.
        """
        now_ns = time.monotonic_ns()
        if now_ns - self._attached_ns >= ATTACH_EVERY_NS:
            self._attach(now_ns)
        parts: dict[str, list[np.ndarray]] = {}
        lost, self.gone, has_more = self.gone, [], False
        for cursor in (*self._former, *self._cursors):
            observer = cursor.observer
            if observer is None or not observer.has(cursor.next_seq):
                continue
            try:
                batch = observer.read(cursor.next_seq, MAX_RECORDS_PER_LOOK)
            except RingError:
                if cursor.failing_ns and now_ns - cursor.failing_ns > FAILING_NS:
                    raise
                cursor.failing_ns = cursor.failing_ns or now_ns  # its header was seen half written: look again
                continue
            cursor.failing_ns, cursor.last_ns = 0, now_ns
            if batch.loss is not None:
                loss = batch.loss
                lost.append(Lost(cursor.feed, cursor.stream, loss.first_seq, loss.last_seq, loss.is_damage))
            cursor.next_seq = batch.next_seq
            has_more |= batch.loss is not None or len(batch.records) == MAX_RECORDS_PER_LOOK
            if len(wanted := self._selection.choose(batch.records)):
                parts.setdefault(cursor.stream, []).append(wanted)
        return Taken({stream: self._order(stream, found) for stream, found in parts.items()}, lost, has_more)

    def close(self) -> None:
        """Unmap everything."""
        for cursor in (*self._former, *self._cursors):
            cursor.close()

    def _order(self, stream: str, parts: list[np.ndarray]) -> np.ndarray:
        records = join_records(parts)
        if len(parts) > 1:
            # stable, and by the highest so far within a feed: the order of a ring is kept
            keys = np.concatenate([np.maximum.accumulate(part["mono_ns"]) for part in parts])
            records = take_records(records, np.argsort(keys, kind="stable"))
        return self._merges[stream](records) if stream in self._merges else records

    def _attach(self, now_ns: int, is_first: bool = False) -> None:
        self._attached_ns = now_ns
        self._drop_former(lambda one: now_ns - one.last_ns > FORMER_NS)
        for cursor in self._cursors:
            if cursor.observer is None:
                self._open(cursor, is_first)
            elif cursor.observer.is_replaced:
                self._follow(cursor, cursor.observer, now_ns)
        if is_first:
            self._warm_up(now_ns)

    def _open(self, cursor: Cursor, is_first: bool) -> None:
        try:
            cursor.observer = Observer.open(cursor.path, RINGS[cursor.stream])
        except FileNotFoundError:
            return
        if is_first and not self._has_positions:
            cursor.next_seq = cursor.observer.head + 1
            return
        # a ring that appears while this runs is read from its first record on
        ring_id = cursor.observer.ring_id
        if cursor.left_at and ring_id not in cursor.left_at:
            self.gone.append(Lost(cursor.feed, cursor.stream, next(iter(cursor.left_at.values())), None))
        cursor.next_seq = min(cursor.left_at.get(ring_id, 1), cursor.observer.head + 1)

    def _follow(self, cursor: Cursor, observer: Observer, now_ns: int) -> None:
        """Go on in the ring that is at the path now, if there is one and what the old one has is read."""
        try:
            successor = Observer.open(cursor.path, observer.dtype)
        except FileNotFoundError:
            return  # deleted: the pages are still ours, and its producer, or the next one, makes it again
        if successor.ring_id != observer.ring_id:
            cursor.end_seq = cursor.end_seq or observer.head
            if cursor.next_seq <= cursor.end_seq:
                successor.close()  # first what is left in the old one
                return
            former = Cursor(cursor.feed, cursor.stream, cursor.path, observer, cursor.next_seq, now_ns)
            former.left_at = cursor.left_at
            self._former.append(former)
        else:
            cursor.close()
        self._drop_former(lambda one: one.observer is not None and one.observer.ring_id == successor.ring_id)
        cursor.next_seq = min(cursor.left_at.get(successor.ring_id, 1), successor.head + 1)
        cursor.observer, cursor.end_seq = successor, 0

    def _drop_former(self, is_over: Callable[[Cursor], bool]) -> None:
        for cursor in [one for one in self._former if is_over(one)]:
            cursor.close()
            self._former.remove(cursor)

    def _warm_up(self, now_ns: int) -> None:
        """Merge what was received shortly before, so that its twins are known as such."""
        begin_ns = now_ns - WARM_UP_NS
        if self._has_positions:
            seam = self.find_unread("mono_ns") or [max(self._find_records("mono_ns", -1), default=now_ns)]
            begin_ns = min(now_ns, *seam) - REMEMBERED_NS
        parts: dict[str, list[np.ndarray]] = {}
        for cursor in self._cursors:
            observer = cursor.observer
            if observer is None or cursor.stream not in self._merges:
                continue
            begin = cursor.next_seq
            while begin > observer.oldest:
                begin = max(observer.oldest, begin - _WARM_UP_STEP)
                found = observer.read(begin, 1).records
                if not len(found) or found["mono_ns"][0] < begin_ns:
                    break
            while begin < cursor.next_seq:
                batch = observer.read(begin, cursor.next_seq - begin)
                begin = batch.next_seq
                if begin > cursor.next_seq:
                    break  # overtaken meanwhile: the next look has the numbers
                mono_ns = batch.records["mono_ns"]
                recent = (begin_ns <= mono_ns) & (mono_ns <= now_ns)  # one from the future is of another boot
                parts.setdefault(cursor.stream, []).append(self._selection.choose(batch.records[recent]))
        for stream, recent_parts in parts.items():
            self._order(stream, recent_parts)

    def find_unread(self, name: str) -> list[int]:
        """The field `name` of the first record of each ring that is to be read."""
        return self._find_records(name, 0)

    def _find_records(self, name: str, offset: int) -> list[int]:
        """The field `name` of the record of each ring that is `offset` behind its position, where there is one."""
        return [
            value
            for cursor in self._cursors
            if cursor.observer is not None and 0 < cursor.next_seq + offset <= cursor.observer.head
            for value in cursor.observer.read(cursor.next_seq + offset, 1).records[name].tolist()
        ]
