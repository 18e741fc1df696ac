"""First-wins arbitration: the order books of two feeds merged into one stream, each book stored once (pure).

    kis     A  B  .  A  C            stored   A  B  A  C  D
    kiwoom  .  A  B  A  .  D         twins    A  B  A            each keeps both arrival times

A book waits for a book of equal content from the other feed. One that comes within the window is the twin of the oldest book
waiting: only its arrival is stored. Any other book is a new row and waits itself.

A feed may deliver late: its collector was stopped, or the network held its data back. A record is stamped when it is read, so its
books are received long after their twins, but both have the second of the exchange. While a feed is late (feed_progress.py), a book
is the twin of the row that was made in the same second, however far apart they were received, up to STALL_WINDOWS windows.

    exchange  10:00:01  A         kis     received 10:00:01.1   A        new row
                                  kiwoom  received 10:00:14.3   A        13.2 s apart, made in the same second: its twin

Two feeds that are further apart than the window, always: one stamps otherwise, or one is slow. What is found decides which.

Guarantees:
    * The result depends on the books and their order alone.
    * The stored multiset is never less than either feed's: a content that comes back (A, B, A) is stored again, and a feed
      that outlives the other is stored whole.
    * `replay` rebuilds from the journal exactly the state that `arbitrate` had left.
    * Memory holds only rows that are not yet forgotten, and no more than MAX_ROWS.

Not handled here:
    * A feed that is later than STALL_WINDOWS windows: its books are rows of their own.
    * One of several connections of a feed that is late alone: `has_passed` judges the feed by the connection that is furthest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from conf.clock import DAY_NS, SECOND_NS
from ringbuf.records import BOOK_KEY, BOOK_KEY_WITHOUT_VOLUME, UNDEFINED, Venue
from writer.ingest.feed_progress import FeedProgress, compute_made_ns

RULE = "first-wins/2"
NEW = -1
"""In `ArbitrationResult.twin_of`: a new row."""

STALL_WINDOWS = 6
"""Windows for which a late feed's books find their twins: 30 s by default, longer than the watchdog lets a collector hang."""

MAX_ROWS = 400_000
"""Rows and twins remembered at most: 40 s of both feeds at five times the market open. Beyond it the oldest are forgotten."""

LATENCY_NS = SECOND_NS // 4
"""What two feeds usually differ by in latency, and a feed from moment to moment."""

MAX_EVIDENCE = 8
"""Books after which it is certain whether a feed stamps otherwise or is slow."""

_ROUNDING_NS = 1_000_000
"""What `made_ns` of one stamp may differ by: a simulated calendar is rounded."""

IDENTITY_BYTES = 16
_INSTRUMENT = slice(BOOK_KEY.start, BOOK_KEY.start + 16)
"""Bytes of a book that hold symbol and venue."""
_KST_NS = 9 * 3600 * 1_000_000_000


class UnmatchedRow(NamedTuple):
    """A stored row whose twin may still come.

    `made_ns`: the exchange's stamp, see compute_made_ns; `is_late`: its feed was late with it.
    """

    row: int
    mono_ns: int
    feed: int
    hour_ns: int
    made_ns: int = UNDEFINED
    is_late: bool = False


class ArbitrationResult(NamedTuple):
    """The result for n books; each array has shape (n,).

    `twin_of` int64: NEW, or the row this book is the twin of; `hour_ns` int64: start of the hour it is stored in (a twin's is its
    row's); `late` bool; `identity`: 16 bytes each, the content's digest; `lag_ns` int64: how much later than that row it was
    received, 0 for a new row.
    """

    twin_of: np.ndarray
    hour_ns: np.ndarray
    late: np.ndarray
    identity: list[bytes]
    lag_ns: np.ndarray


class BookArbiter:
    """The state: who waits, how far each feed has come, and each symbol's cumulative volume."""

    def __init__(self, window_ns: int, volume_venues: Collection[str], calendar_speed: float = 1.0) -> None:
        """Initialise.

        Args:
            window_ns: how far apart twins may be received.
            volume_venues: the venues whose books are also compared by cumulative volume.
            calendar_speed: how much faster the calendar of the stamps is than `mono_ns`.
        """
        self.unmatched_count = 0
        """How many rows wait for a twin."""
        self.stall_ns = STALL_WINDOWS * window_ns
        """How far apart twins may be received if one of them is late."""
        self.calendar_speed = calendar_speed
        """How much faster the calendar of the stamps is than `mono_ns`."""
        self._stamp_ns = round(SECOND_NS / calendar_speed) + _ROUNDING_NS
        self._min_lateness_ns = 2 * self._stamp_ns + LATENCY_NS  # a feed may stamp some records in the next second
        self._progress: dict[int, FeedProgress] = {}
        self._delay_evidence = 0
        self._window_ns = window_ns
        self._levels_only = {int(venue) for venue in Venue if venue.name not in volume_venues}
        self._unmatched: dict[bytes, list[UnmatchedRow]] = {}
        self._in_order: deque[tuple[int, bytes]] = deque()
        self._volume_high_water: dict[bytes, tuple[int, int]] = {}

    def arbitrate(self, books: np.ndarray, hour_ns: np.ndarray, first_row: int) -> ArbitrationResult:
        """Arbitrate `books` (ORDERBOOK, in receive order); book i gets entry number first_row + i."""
        count = len(books)
        twin_of = np.full(count, NEW, np.int64)
        hours = hour_ns.copy()
        late = np.zeros(count, bool)
        lag_ns = np.zeros(count, np.int64)
        identity = self._compute_identities(books)
        days = (books["exch_ns"] + _KST_NS) // DAY_NS
        names = _slice_bytes(books, _INSTRUMENT)
        made = compute_made_ns(books["exch_ns"], self.calendar_speed)
        stamps = zip(books["mono_ns"].tolist(), books["line"].tolist(), hour_ns.tolist(), made.tolist(), strict=True)
        volumes, days = books["cum_volume"].tolist(), days.tolist()
        for at, (mono_ns, feed, hour, made_ns) in enumerate(stamps):
            is_late = self.advance(feed, mono_ns, made_ns)
            book = UnmatchedRow(first_row + at, mono_ns, feed, hour, made_ns, is_late)
            match = self._pop_match(identity[at], book)
            if match is not None:
                twin_of[at], hours[at], lag_ns[at] = match.row, match.hour_ns, mono_ns - match.mono_ns
                continue
            self._add_unmatched(identity[at], book)
            late[at] = self._is_late(names[at], days[at], volumes[at])
        return ArbitrationResult(twin_of, hours, late, identity, lag_ns)

    def advance(self, feed: int, mono_ns: int, made_ns: int) -> bool:
        """A feed delivered a book; whether it is late with it. Of a journalled book: before it is replayed."""
        if feed not in self._progress:
            self._progress[feed] = FeedProgress(self._min_lateness_ns, self._window_ns)
        return self._progress[feed].advance(mono_ns, made_ns)

    def replay(self, identity: bytes, row: UnmatchedRow, twin_of: int) -> None:
        """Repeat what `arbitrate` did with one journalled book: let it wait, or match it with its twin."""
        if twin_of == NEW:
            self._add_unmatched(identity, row)
            return
        queue = self._unmatched.get(identity, [])
        for candidate in queue:
            if candidate.row == twin_of:
                self._drop(identity, queue, candidate)
                return

    def expire(self, row: int) -> None:
        """Forget rows up to `row`: no twin of them can come any more."""
        while self._in_order and self._in_order[0][0] <= row:
            self._forget_oldest()

    def forget(self, hour_ns: int, row: int) -> None:
        """Forget the rows of an hour up to `row`: they are published, and what comes now is a row of its own."""
        for identity, queue in list(self._unmatched.items()):
            for published in [waiting for waiting in queue if waiting.hour_ns == hour_ns and waiting.row <= row]:
                self._drop(identity, queue, published)

    @property
    def reach_ns(self) -> dict[int, int]:
        """How far each feed has come: its newest `made_ns`."""
        return {feed: progress.reach_ns for feed, progress in self._progress.items()}

    def has_passed(self, reach_ns: Mapping[int, int], through_ns: int) -> bool:
        """Whether no feed is known to owe twins of rows that others had delivered when they had come to `reach_ns`.

        A feed owes them until it delivers what the exchange made later, or delivered nothing for `stall_ns`; `through_ns`:
        everything received up to then was arbitrated.
        """
        return all(
            progress.reach_ns > made_ns + _ROUNDING_NS or through_ns - progress.received_ns > self.stall_ns
            for feed, progress in self._progress.items()
            for other, made_ns in reach_ns.items()
            if other != feed and progress.reach_ns != UNDEFINED
        )

    def export_volume_high_water(self) -> list[list]:
        """The largest cumulative volume stored per symbol, venue and day, fit for JSON."""
        return [
            [name[:-1].rstrip(b"\0").decode("latin-1"), name[-1], day, volume]
            for name, (day, volume) in self._volume_high_water.items()
        ]

    def restore_volume_high_water(self, rows: Iterable[Iterable]) -> None:
        """Restore the saved volume high-water marks."""
        for symbol, venue, day, volume in rows:
            self._volume_high_water[symbol.encode("latin-1").ljust(15, b"\0") + bytes([venue])] = (day, volume)

    def raise_volume_high_water(self, symbol: str, venue: int, exch_ns: int, volume: int) -> None:
        """Count one journalled row's cumulative volume."""
        self._is_late(symbol.encode("latin-1").ljust(15, b"\0") + bytes([venue]), (exch_ns + _KST_NS) // DAY_NS, volume)

    def _pop_match(self, identity: bytes, book: UnmatchedRow) -> UnmatchedRow | None:
        """The row of the other feed that has this content and is the book's twin; it waits no longer."""
        queue = self._unmatched.get(identity)
        if queue is None:
            return None
        waiting = [row for row in queue if row.feed != book.feed and abs(book.mono_ns - row.mono_ns) <= self.stall_ns]
        if not waiting:
            return None
        match = self._find_twin(book, waiting)
        if match is not None:
            self._drop(identity, queue, match)
        return match

    def _find_twin(self, book: UnmatchedRow, waiting: list[UnmatchedRow]) -> UnmatchedRow | None:
        """Of rows of equal content: the oldest received within the window, unless late, else the one made in the same second."""
        oldest = next((row for row in waiting if abs(book.mono_ns - row.mono_ns) <= self._window_ns), None)
        offset_ns = self._compute_offset(book.feed, waiting[0].feed)
        if abs(offset_ns) > max(self._window_ns, self._min_lateness_ns):
            simultaneous = self._find_nearest(book, waiting, 0)
            if simultaneous is not None:
                self._delay_evidence = min(self._delay_evidence + 1, MAX_EVIDENCE)
            elif oldest is not None:
                self._delay_evidence = max(self._delay_evidence - 1, -MAX_EVIDENCE)
            return simultaneous if self._delay_evidence >= 0 else oldest
        if any(row.is_late or book.is_late for row in waiting):
            by_receipt = (
                row for row in waiting if not (row.is_late or book.is_late) or UNDEFINED in (row.made_ns, book.made_ns)
            )
            oldest = next((row for row in by_receipt if abs(book.mono_ns - row.mono_ns) <= self._window_ns), None)
        return oldest or self._find_nearest(book, waiting, offset_ns)

    def _find_nearest(self, book: UnmatchedRow, waiting: list[UnmatchedRow], offset_ns: int) -> UnmatchedRow | None:
        """The row that was made in the book's second or a neighbouring one, if the stamps of the feeds are `offset_ns` apart."""
        if abs(offset_ns) < self._min_lateness_ns:  # the stamps are equal; the difference is latency
            offset_ns, within_ns = 0, self._stamp_ns
        else:
            within_ns = self._stamp_ns + LATENCY_NS
        stamped = [row for row in waiting if UNDEFINED not in (row.made_ns, book.made_ns)]
        apart_ns = [abs(book.made_ns + offset_ns - row.made_ns) for row in stamped]
        nearest = min(range(len(stamped)), key=apart_ns.__getitem__, default=None)
        return stamped[nearest] if nearest is not None and apart_ns[nearest] <= within_ns else None

    def _compute_offset(self, feed: int, other: int) -> int:
        """How much longer ago what `feed` delivers was stamped than what `other` does, as is usual; 0 where that is not known."""
        usual_ns = [self._progress[code].usual_delay_ns for code in (feed, other) if code in self._progress]
        known = [delay_ns for delay_ns in usual_ns if delay_ns is not None]
        return known[0] - known[1] if len(known) == 2 else 0

    def _add_unmatched(self, identity: bytes, row: UnmatchedRow) -> None:
        self._unmatched.setdefault(identity, []).append(row)
        self._in_order.append((row.row, identity))
        self.unmatched_count += 1
        if len(self._in_order) > MAX_ROWS:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        number, identity = self._in_order.popleft()
        queue = self._unmatched.get(identity)
        if queue and queue[0].row == number:
            self._drop(identity, queue, queue[0])

    def _drop(self, identity: bytes, queue: list[UnmatchedRow], row: UnmatchedRow) -> None:
        queue.remove(row)
        self.unmatched_count -= 1
        if not queue:
            del self._unmatched[identity]

    def _is_late(self, name: bytes, day: int, volume: int) -> bool:
        """Whether `volume` is behind what is already stored of that day; the ceiling rises with it otherwise."""
        if volume == UNDEFINED:
            return False
        known = self._volume_high_water.get(name)
        if known is not None and known[0] == day and known[1] > volume:
            return True
        self._volume_high_water[name] = (day, volume)
        return False

    def _compute_identities(self, books: np.ndarray) -> list[bytes]:
        """The digest of each book's identity bytes: with or without the cumulative volume, by venue."""
        content = _slice_bytes(books, BOOK_KEY)
        levels = BOOK_KEY_WITHOUT_VOLUME.stop - BOOK_KEY_WITHOUT_VOLUME.start
        return [
            blake2b(book[:levels] if venue in self._levels_only else book, digest_size=IDENTITY_BYTES).digest()
            for book, venue in zip(content, books["venue"].tolist(), strict=True)
        ]


def _slice_bytes(books: np.ndarray, part: slice) -> list[bytes]:
    """The compared bytes of every book."""
    raw = np.ascontiguousarray(books).view(np.uint8).reshape(len(books), books.dtype.itemsize)
    block = raw[:, part].tobytes()
    size = part.stop - part.start
    return [block[at : at + size] for at in range(0, len(block), size)]
