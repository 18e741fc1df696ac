"""First-wins arbitration: the order books of two feeds merged into one stream, each book stored once (pure).

    kis     A  B  .  A  C            stored   A  B  A  C  D
    kiwoom  .  A  B  A  .  D         twins    A  B  A            each keeps both arrival times

A book waits for a book of equal content from the other feed. One that comes within the window is the twin of the oldest book
waiting: only its arrival is stored. Any other book is a new row and waits itself.

Guarantees:
    * The result depends on the books and their order alone.
    * The stored multiset is never less than either feed's: a content that comes back (A, B, A) is stored again, and a feed
      that outlives the other is stored whole.
    * `replay` rebuilds from the journal exactly the state that `arbitrate` had left.
    * Memory holds only rows that are not yet forgotten.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from hashlib import blake2b
from typing import NamedTuple

import numpy as np

from conf.clock import DAY_NS
from ringbuf.records import BOOK_KEY, BOOK_KEY_WITHOUT_VOLUME, UNDEFINED, Venue

RULE = "first-wins/1"
NEW = -1
"""In `ArbitrationResult.twin_of`: a new row."""

IDENTITY_BYTES = 16
_INSTRUMENT = slice(BOOK_KEY.start, BOOK_KEY.start + 16)
"""Bytes of a book that hold symbol and venue."""
_KST_NS = 9 * 3600 * 1_000_000_000


class UnmatchedRow(NamedTuple):
    """A stored row whose twin may still come."""

    row: int
    mono_ns: int
    feed: int
    hour_ns: int


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
    """The state: who waits, and how far each symbol's cumulative volume has come."""

    def __init__(self, window_ns: int, volume_venues: Collection[str]) -> None:
        """`window_ns`: how far apart twins may be received; and the venues whose books are also compared by cumulative volume."""
        self.unmatched_count = 0
        """How many rows wait for a twin."""
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
        stamps = zip(books["mono_ns"].tolist(), books["line"].tolist(), hour_ns.tolist(), strict=True)
        volumes, days = books["cum_volume"].tolist(), days.tolist()
        for at, (mono_ns, feed, hour) in enumerate(stamps):
            match = self._pop_match(identity[at], feed, mono_ns)
            if match is not None:
                twin_of[at], hours[at], lag_ns[at] = match.row, match.hour_ns, mono_ns - match.mono_ns
                continue
            self._add_unmatched(identity[at], UnmatchedRow(first_row + at, mono_ns, feed, hour))
            late[at] = self._is_late(names[at], days[at], volumes[at])
        return ArbitrationResult(twin_of, hours, late, identity, lag_ns)

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
            number, identity = self._in_order.popleft()
            queue = self._unmatched.get(identity)
            if queue and queue[0].row == number:
                self._drop(identity, queue, queue[0])

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

    def _pop_match(self, identity: bytes, feed: int, mono_ns: int) -> UnmatchedRow | None:
        """The oldest row of the other feed waiting for this content, within the window; it waits no longer."""
        queue = self._unmatched.get(identity)
        if queue is None:
            return None
        for candidate in queue:
            if candidate.feed != feed and abs(mono_ns - candidate.mono_ns) <= self._window_ns:
                self._drop(identity, queue, candidate)
                return candidate
        return None

    def _add_unmatched(self, identity: bytes, row: UnmatchedRow) -> None:
        self._unmatched.setdefault(identity, []).append(row)
        self._in_order.append((row.row, identity))
        self.unmatched_count += 1

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
