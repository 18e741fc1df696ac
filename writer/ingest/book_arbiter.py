"""First-wins arbitration: the order books of two feeds merged into one stream, each book stored once (pure).

    kis     A  B  .  A  C            stored   A  B  A  C  D
    kiwoom  .  A  B  A  .  D         twins    A  B  A            each keeps both arrival times

A book waits for one of equal levels and cumulative volume from the other feed. What comes within the window is its twin: only
its arrival is stored. Any other book is a new row and waits itself. Two books that differ in a detail (total, expected trade,
midpoint) which both vendors state alike are two books; pair_evidence.py learns which details those are. Of several that wait the
likeliest is the twin: in order, near the usual lag, the newest where the feed sends the newest book from time to time.

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
    * The journal's books and `export_state` give back the state that `arbitrate` had left.
    * A detail that one vendor leaves empty, rounds or stamps late doubles no book, but for a few when it begins to.
    * A pair crosses no other one of its symbol, unless nothing else is left for a book that was overtaken.
    * Memory holds only rows that are not yet forgotten, and no more than MAX_ROWS.

Not handled here:
    * A feed that is later than STALL_WINDOWS windows: its books are rows of their own.
    * With a window below 2.25 s, a content that comes back while a feed is later than the window and not yet known to be late.
    * One of several connections of a feed that is late alone: `has_passed` judges the feed by the connection that is furthest.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from hashlib import blake2b
from math import log
from typing import NamedTuple

import numpy as np

from conf.clock import DAY_NS, SECOND_NS
from ringbuf.records import BOOK_KEY, BOOK_KEY_WITHOUT_VOLUME, INSTRUMENT_BYTES, UNDEFINED, Venue
from writer.ingest.arbitration_result import NEW, ArbitrationResult
from writer.ingest.feed_progress import FeedProgress, compute_made_ns
from writer.ingest.pair_evidence import MIN_LEFT_OUT, MIN_SHARE, PairEvidence, encode_details, find_differences

RULE = "first-wins/3"
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

MAX_GROUPS = 64
"""Groups of an instrument that are kept until the other feed has delivered them."""

IDENTITY_BYTES = 16
_KST_NS = 9 * 3600 * 1_000_000_000


class UnmatchedRow(NamedTuple):
    """A stored row whose twin may still come.

    `made_ns`: the exchange's stamp, see compute_made_ns; `is_late`: its feed was late with it; `details`: see pair_evidence.py;
    `instrument`: symbol and venue, 16 bytes.
    """

    row: int
    mono_ns: int
    feed: int
    hour_ns: int
    made_ns: int = UNDEFINED
    is_late: bool = False
    details: bytes = b""
    instrument: bytes = b""


_make_row = partial(tuple.__new__, UnmatchedRow)
"""A row out of a tuple of its fields."""


class _Group(NamedTuple):
    """Books of equal identity that one feed delivered in a row: the different details among them.

    `begin_ns` (mono_ns) of the first of them; `is_compared`: whether the other feed's group came before it.
    """

    identity: bytes
    feed: int
    begin_ns: int
    details: tuple[bytes, ...]
    is_compared: bool

    def is_counterpart(self, feed: int, oldest_ns: int) -> bool:
        """Whether it is the other feed's, and no older."""
        return self.feed != feed and self.begin_ns >= oldest_ns


_make_group = partial(tuple.__new__, _Group)


class _Instrument:
    """A symbol on a venue. Groups older than the longest stall have no part in anything."""

    __slots__ = ("closed", "compared", "day", "groups", "paired", "volume")

    def __init__(self) -> None:
        self.day = self.volume = UNDEFINED
        """The highest cumulative volume of a day."""
        self.paired: dict[int, int] = {}
        """By feed: entry number of its newest book that is one of a pair."""
        self.groups: dict[int, _Group] = {}
        """By feed: the one that its newest book belongs to."""
        self.closed: dict[bytes, _Group] = {}
        """By identity: those that have ended and that the other feed has not delivered yet."""
        self.compared: tuple[int, tuple[bytes, ...]] = (0, ())
        """When (mono_ns) a group of both feeds was compared, and the details in both."""

    def is_behind(self, day: int, volume: int) -> bool:
        """Whether `volume` is behind what is already stored of that day; the high-water mark rises with it otherwise."""
        if volume == UNDEFINED:
            return False
        if self.day == day and self.volume > volume:
            return True
        self.day, self.volume = day, volume
        return False


class BookArbiter:
    """The state: who waits, what was paired, how two feeds agree, how far each has come, and cumulative volumes."""

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
        second_ns = round(SECOND_NS / calendar_speed)  # from one stamp to the next: at most, at least
        self._stamp_ns, self._later_ns = second_ns + _ROUNDING_NS, max(second_ns - _ROUNDING_NS, _ROUNDING_NS)
        self._min_lateness_ns = 2 * self._stamp_ns + LATENCY_NS  # a feed may stamp some records in the next second
        self._progress: dict[int, FeedProgress] = {}
        self._delay_evidence = 0
        self._window_ns = window_ns
        self._levels_only = {int(venue) for venue in Venue if venue.name not in volume_venues}
        self._unmatched: dict[bytes, list[UnmatchedRow]] = {}
        self._in_order: deque[tuple[int, bytes]] = deque()
        self._instruments: defaultdict[bytes, _Instrument] = defaultdict(_Instrument)
        self.evidence: defaultdict[int, PairEvidence] = defaultdict(lambda: PairEvidence(window_ns))
        """By venue: how two feeds agree."""

    def arbitrate(self, books: np.ndarray, hour_ns: np.ndarray, first_row: int) -> ArbitrationResult:
        """Arbitrate `books` (ORDERBOOK, in receive order); book i gets entry number first_row + i."""
        count = len(books)
        differs = np.zeros(count, bool)
        raw, size = books.tobytes(), books.dtype.itemsize
        identity = self._compute_identities(raw, size, books["venue"].tolist())
        names = [raw[at : at + INSTRUMENT_BYTES] for at in range(BOOK_KEY.start, len(raw), size)]
        made = compute_made_ns(books["exch_ns"], self.calendar_speed).tolist()
        columns = (column.tolist() for column in (books["mono_ns"], books["line"], hour_ns))
        rows = zip(range(first_row, first_row + count), *columns, made, encode_details(books, raw), names, strict=True)
        progress, changes = self._progress, []
        paired_at, pairs, new_at = [], [], []
        for at, (row, mono_ns, feed, hour, made_ns, details, name) in enumerate(rows):
            instrument, key = self._instruments[name], identity[at]
            is_late = (progress.get(feed) or self._get_progress(feed)).advance(mono_ns, made_ns)
            book = _make_row((row, mono_ns, feed, hour, made_ns, is_late, details, name))
            evidence = self.evidence[name[-1]]
            evidence.count_book(feed)
            if (found := self._follow(instrument, evidence, key, book)) is not None:
                changes += [(name[-1], *change) for change in found]
            queue = self._unmatched.get(key)
            match = None if queue is None else self._pop_match(key, queue, book, instrument, evidence)
            if match is None:
                self._add_unmatched(key, book)
                new_at.append(at)
            else:
                paired_at.append(at)
                pairs.append(match)
                differs[at] = match.details != details
        twin_of, hours, lag_ns = np.full(count, NEW, np.int64), hour_ns.copy(), np.zeros(count, np.int64)
        if pairs:
            twin_of[paired_at], mono_ns, _, hours[paired_at], *_ = zip(*pairs, strict=True)
            lag_ns[paired_at] = books["mono_ns"][paired_at] - np.array(mono_ns)
        late = self._find_late(books, names, new_at)
        return ArbitrationResult(twin_of, hours, late, identity, lag_ns, differs, changes)

    def _find_late(self, books: np.ndarray, names: list[bytes], new_at: list[int]) -> np.ndarray:
        """Which of the books at `new_at` are behind what is stored of their day, bool (n,) for all books."""
        late, exch_ns, volumes = np.zeros(len(books), bool), books["exch_ns"].tolist(), books["cum_volume"].tolist()
        for at in new_at:
            if self._instruments[names[at]].is_behind((exch_ns[at] + _KST_NS) // DAY_NS, volumes[at]):
                late[at] = True
        return late

    def _follow(
        self, instrument: _Instrument, evidence: PairEvidence, identity: bytes, book: UnmatchedRow
    ) -> list[tuple[str, bool]] | None:
        """Add a book to its feed's group; groups of equal identity are compared once the first of the two has ended.

        Returns what changed, see learn_details.
        """
        mono_ns, feed, details = book.mono_ns, book.feed, book.details
        group, closed, oldest_ns = instrument.groups.get(feed), instrument.closed, mono_ns - self.stall_ns
        changes = None
        if group is not None and group.begin_ns >= oldest_ns:
            if group.identity == identity:
                if details not in group.details:
                    instrument.groups[feed] = group._replace(details=(*group.details, details))
                return None
            if not group.is_compared:
                other = closed.pop(group.identity, None)
                if other is not None and other.is_counterpart(feed, oldest_ns):
                    changes = self._compare(instrument, evidence, mono_ns, group.details, other.details)
                else:
                    closed[group.identity] = group
                    if len(closed) > MAX_GROUPS:
                        del closed[next(iter(closed))]
        stated = (details,)
        other = closed.get(identity)
        is_compared = other is not None and other.is_counterpart(feed, oldest_ns)
        if other is not None and is_compared:
            del closed[identity]
            changes = (changes or []) + (self._compare(instrument, evidence, mono_ns, stated, other.details) or [])
        instrument.groups[feed] = _make_group((identity, feed, mono_ns, stated, is_compared))
        return changes

    def _compare(
        self,
        instrument: _Instrument,
        evidence: PairEvidence,
        mono_ns: int,
        left: tuple[bytes, ...],
        right: tuple[bytes, ...],
    ) -> list[tuple[str, bool]] | None:
        """Count a group that both feeds have delivered."""
        compared_ns, before = instrument.compared
        stated = left if left == right else (*left, *right)
        instrument.compared = mono_ns, stated
        if stated is left and (left == before or evidence.skips_group()):
            return None
        return evidence.learn_details(left, right, before if compared_ns >= mono_ns - self.stall_ns else ())

    def advance(self, feed: int, mono_ns: int, made_ns: int) -> bool:
        """A feed delivered a book; whether it is late with it. Of a journalled book: before it is replayed."""
        return self._get_progress(feed).advance(mono_ns, made_ns)

    def replay(self, identity: bytes, book: UnmatchedRow, twin_of: int) -> None:
        """Repeat what `arbitrate` did with one journalled book: let it wait, or match it with its twin.

        A twin has the instrument of its row, and its details where it has none. What was learned is restored afterwards.
        """
        if twin_of == NEW:
            instrument = self._instruments[book.instrument]
            self._follow(instrument, self.evidence[book.instrument[-1]], identity, book)
            self._add_unmatched(identity, book)
            return
        queue = self._unmatched.get(identity, [])
        for row in queue:
            if row.row == twin_of:
                book = book._replace(instrument=row.instrument, details=book.details or row.details)
                instrument = self._instruments[row.instrument]
                self._follow(instrument, self.evidence[row.instrument[-1]], identity, book)
                self._pair(identity, queue, row, book, instrument)
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
        everything received up to then was arbitrated. A feed that stamps ahead of the other has come less far than it states.
        """
        return all(
            progress.reach_ns + min(0, self._compute_offset(feed, other)) >= made_ns + self._later_ns
            or through_ns - progress.received_ns > self.stall_ns
            for feed, progress in self._progress.items()
            for other, made_ns in reach_ns.items()
            if other != feed and progress.reach_ns != UNDEFINED
        )

    def export_volume_high_water(self) -> list[list]:
        """The largest cumulative volume stored per symbol, venue and day, fit for JSON."""
        return [
            [name[:-1].rstrip(b"\0").decode("latin-1"), name[-1], one.day, one.volume]
            for name, one in self._instruments.items()
            if one.volume != UNDEFINED
        ]

    def restore_volume_high_water(self, rows: Iterable[Iterable]) -> None:
        """Restore the saved volume high-water marks."""
        for symbol, venue, day, volume in rows:
            instrument = self._instruments[encode_instrument(symbol, venue)]
            instrument.day, instrument.volume = day, volume

    def raise_volume_high_water(self, symbol: str, venue: int, exch_ns: int, volume: int) -> None:
        """Count one journalled row's cumulative volume."""
        self._instruments[encode_instrument(symbol, venue)].is_behind((exch_ns + _KST_NS) // DAY_NS, volume)

    def export_state(self) -> dict:
        """What was learned, fit for JSON. The rest is rebuilt from the journalled books."""
        return {
            "evidence": {str(venue): evidence.export_state() for venue, evidence in self.evidence.items()},
            "progress": {str(feed): progress.export_state() for feed, progress in self._progress.items()},
            "delay": self._delay_evidence,
        }

    def restore_state(self, state: Mapping) -> None:
        """Restore what was learned."""
        self._delay_evidence = state["delay"]
        for venue, saved in state["evidence"].items():
            self.evidence[int(venue)].restore_state(saved)
        for feed, saved in state["progress"].items():
            self._get_progress(int(feed)).restore_state(saved)

    def _get_progress(self, feed: int) -> FeedProgress:
        if feed not in self._progress:
            self._progress[feed] = FeedProgress(self._min_lateness_ns, self._window_ns)
        return self._progress[feed]

    def _pop_match(
        self,
        identity: bytes,
        queue: list[UnmatchedRow],
        book: UnmatchedRow,
        instrument: _Instrument,
        evidence: PairEvidence,
    ) -> UnmatchedRow | None:
        """The row of `queue` that is the book's twin; it waits no longer."""
        paired = instrument.paired
        if len(queue) == 1 and not book.is_late:
            row = queue[0]
            number, row_ns, feed, _, _, is_late, details, _ = row
            lag_ns = book.mono_ns - row_ns if book.feed > feed else row_ns - book.mono_ns
            if (
                details == book.details
                and feed != book.feed
                and not is_late
                and number > paired.get(feed, NEW)
                and evidence.is_near(lag_ns)
            ):  # nearly every pair
                evidence.learn_lag(book.feed, book.mono_ns, lag_ns)
                self._pair(identity, queue, row, book, instrument)
                return row
        waiting = [
            row
            for row in queue
            if row.feed != book.feed
            and abs(book.mono_ns - row.mono_ns) <= self.stall_ns
            and (row.details == book.details or not find_differences(row.details, book.details, evidence.trusted))
        ]
        # no pair crosses another one, unless nothing else is left: the book was overtaken, or the other pair is wrong
        in_order = [row for row in waiting if row.row > paired.get(row.feed, NEW)]
        waiting = in_order or waiting
        if not waiting:
            return None
        if len(waiting) > 1:
            agreeing = [row for row in waiting if not find_differences(row.details, book.details, evidence.credible)]
            waiting = agreeing or waiting
        match = self._find_twin(book, waiting, evidence)
        if match is not None:
            if len(waiting) == 1 and not (match.is_late or book.is_late):
                evidence.learn_lag(book.feed, book.mono_ns, _compute_lag(book, match))
            self._pair(identity, queue, match, book, instrument)
        return match

    def _pair(
        self, identity: bytes, queue: list[UnmatchedRow], row: UnmatchedRow, book: UnmatchedRow, instrument: _Instrument
    ) -> None:
        paired = instrument.paired
        paired[row.feed], paired[book.feed] = max(row.row, paired.get(row.feed, NEW)), book.row
        self.evidence[book.instrument[-1]].paired += 1
        self._drop(identity, queue, row)

    def _find_twin(
        self, book: UnmatchedRow, waiting: list[UnmatchedRow], evidence: PairEvidence
    ) -> UnmatchedRow | None:
        """Of rows of equal content: the likeliest received within the window, unless late, else one made in the same second."""
        likeliest = self._find_likeliest(book, waiting, evidence)
        offset_ns = self._compute_offset(book.feed, waiting[0].feed)
        if abs(offset_ns) > max(self._window_ns, self._min_lateness_ns):
            simultaneous = self._find_nearest(book, waiting, 0)
            if simultaneous is not None:
                self._delay_evidence = min(self._delay_evidence + 1, MAX_EVIDENCE)
            elif likeliest is not None:
                self._delay_evidence = max(self._delay_evidence - 1, -MAX_EVIDENCE)
            return simultaneous if self._delay_evidence >= 0 else likeliest
        if any(row.is_late or book.is_late for row in waiting):
            by_receipt = [
                row for row in waiting if not (row.is_late or book.is_late) or UNDEFINED in (row.made_ns, book.made_ns)
            ]
            likeliest = self._find_likeliest(book, by_receipt, evidence)
        return likeliest or self._find_nearest(book, waiting, offset_ns)

    def _find_likeliest(
        self, book: UnmatchedRow, waiting: list[UnmatchedRow], evidence: PairEvidence
    ) -> UnmatchedRow | None:
        """Of rows received within the window: the one nearest to the usual lag, or the oldest if all are far from it.

        A feed that leaves out many books sends the newest.
        """
        near = [row for row in waiting if abs(book.mono_ns - row.mono_ns) <= self._window_ns]
        if len(near) < 2 or evidence.is_burst(book.feed, book.mono_ns):
            return near[0] if near else None
        if not evidence.is_known:
            return near[0]
        left_out = evidence.compute_left_out(near[0].feed)
        if left_out > MIN_LEFT_OUT:
            return next((row for row in reversed(near) if evidence.is_likely(_compute_lag(book, row))), near[0])
        skip_cost = -log(max(left_out, MIN_SHARE))
        costs = [
            skipped * skip_cost + evidence.compute_lag_cost(_compute_lag(book, row)) for skipped, row in enumerate(near)
        ]
        return near[costs.index(min(costs))]

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

    def _compute_identities(self, raw: bytes, size: int, venues: list[int]) -> list[bytes]:
        """The digest of each book's identity bytes: with or without the cumulative volume, by venue."""
        begin, with_volume, without = BOOK_KEY.start, BOOK_KEY.stop, BOOK_KEY_WITHOUT_VOLUME.stop
        return [
            blake2b(
                raw[at + begin : at + (without if venue in self._levels_only else with_volume)],
                digest_size=IDENTITY_BYTES,
            ).digest()
            for at, venue in zip(range(0, len(raw), size), venues, strict=True)
        ]


def encode_instrument(symbol: str, venue: int) -> bytes:
    """Symbol and venue as in a record."""
    return symbol.encode("latin-1").ljust(15, b"\0") + bytes([venue])


def _compute_lag(one: UnmatchedRow, other: UnmatchedRow) -> int:
    """How much later the feed of the larger number received it."""
    return one.mono_ns - other.mono_ns if one.feed > other.feed else other.mono_ns - one.mono_ns
