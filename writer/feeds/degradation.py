"""The latent-line alarm (design 6.2): a line that does not do its part while the other one hides it (pure).

    books ──> delivered, twinned, won by symbol, line and five-second bucket ──window──> judge()

    silent        the other line has books, this one none
    no twins      both have books, but of both far fewer find twins than used to: another venue, another depth, minutes behind
    thin          of all books this line has far fewer than it used to: it conflates, or loses

Judged are only books that both lines are known to see for the whole window (sight.py): a line that is down is no secret, and a book
that only one line has was planned so. Not judged: auctions, whose books are few and differ; the first window of a session or of
the writer; windows with fewer than `books_least` books. "Thin" is measured by the line's own past, because brokers conflate by
nature: one that used to have nine books in ten is thin below 90 % of that, another below half. Without a past there is no "thin".

Promises: a function of what it was given, times passed in as mono_ns; a trouble is told once when it has lasted two buckets, and
its end once when it has been away for a window; stamps do not matter, for twins are told by content.
Leaves to others: which books are twins (merge.py), telling people (lines.py), what it was by the minute (health.py).
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import msgspec
import numpy as np

from ringbuf.records import Session, Venue
from writer.feeds.visibility import Sight, name_of
from writer.ingest.book_arbiter import NEW, Taken

BUCKETS = 12
"""Of a window."""
PERSIST = 2
"""Judgements in a row before a trouble is told."""

HARDLY = 0.05
"""Share of twins below which two lines have nothing in common, whatever they used to have."""
ENOUGH = 12
"""A share is called too small only where even that would be so many books: chance does not halve a number beyond it."""
TWINS_DROP = 0.5
STEADY = 0.9
THIN_STEADY, THIN = 0.9, 0.5
PAST_WINDOWS = 10
"""How many windows the past fades over."""
LAGS_MOST = 4096

_CONTINUOUS = [Session.PRE_MARKET, Session.REGULAR, Session.AFTER_MARKET, Session.DAY_MARKET]
_DELIVERED, _TWINNED, _WON = range(3)
_SPARE = 4


class LineShare(msgspec.Struct):
    """One line over the last window: of its books which found twins, of the twins which it had first, of all books which it had."""

    line: str
    books: int
    twin_share: float | None
    win_share: float | None
    coverage: float | None


class Trouble(msgspec.Struct, frozen=True):
    """A line that is degraded; `symbol`, `venue` empty if it is so as a whole."""

    line: str
    symbol: str
    venue: str
    words: str


class Judgement(NamedTuple):
    """The last window: how the lines stand, lag of the second behind the first (ms; None without twins), what began and what ended
    to be wrong with this judgement, and all that is wrong now."""

    lines: list[LineShare]
    lag_p50_ms: float | None
    lag_p99_ms: float | None
    began: list[Trouble]
    ended: list[Trouble]
    troubles: list[Trouble]


class TwinWatch:
    """Two lines, `names` as people know them, by their codes."""

    def __init__(self, lines: dict[int, str], window_ns: int, settle_ns: int, books_least: int) -> None:
        """`settle_ns`: how long a book waits for its twin at most."""
        self._lines = list(lines.items())
        self._index = np.full(256, -1)
        self._index[[code for code, _ in self._lines]] = range(2)
        self._bucket_ns = window_ns // BUCKETS
        self._settle = -(-settle_ns // self._bucket_ns)
        self._least = books_least
        self._slots: dict[bytes, int] = {}
        self._ring = BUCKETS + self._settle + _SPARE
        self._counts = np.zeros((0, 2, 3, self._ring), np.int64)
        self._newest = 0
        self._since = 0
        self._lags: deque[tuple[int, np.ndarray]] = deque()
        self._past: dict[str, float] = {}
        self._twins: dict[str, float] = {}
        self._standing: dict[tuple[str, str, str], tuple[Trouble, int, int]] = {}

    def books(self, books: np.ndarray, taken: Taken) -> None:
        """Books (ORDERBOOK, in receive order) and what merge said of them."""
        index = self._index[books["line"]]
        chosen = np.flatnonzero((index >= 0) & np.isin(books["session"], _CONTINUOUS))
        if not len(chosen):
            return
        books, index = books[chosen], index[chosen]
        twin, lag_ns = taken.twin_of[chosen] != NEW, taken.lag_ns[chosen]
        names = zip(books["symbol"].tolist(), books["venue"].tolist(), strict=True)
        slot = np.array([self._slot(name_of(*name)) for name in names])
        bucket = books["mono_ns"] // self._bucket_ns
        self._advance(int(bucket.max()))
        self._add(slot, index, _DELIVERED, bucket)
        if not twin.any():
            return
        slot, index, bucket, lag_ns = slot[twin], index[twin], bucket[twin], lag_ns[twin]
        of_row = (books["mono_ns"][twin] - lag_ns) // self._bucket_ns
        self._add(slot, index, _TWINNED, bucket)
        self._add(slot, 1 - index, _TWINNED, of_row)
        self._add(slot, np.where(lag_ns < 0, index, 1 - index), _WON, of_row)
        behind = np.where(index == 1, lag_ns, -lag_ns)[:: max(1, len(lag_ns) // LAGS_MOST)]
        self._lags.append((int(bucket[-1]), behind))

    def judge(self, sight: Sight, through_ns: int) -> Judgement:
        """How it stands; every book received up to `through_ns` was given. Call once a bucket."""
        end = through_ns // self._bucket_ns - self._settle
        begin = end - BUCKETS
        while self._lags and self._lags[0][0] < begin:
            self._lags.popleft()
        lags = np.sort(np.concatenate([lag for _, lag in self._lags])) / 1e6 if self._lags else np.empty(0)
        held = range(max(begin, self._newest - self._ring + 1), min(end, self._newest + 1))
        within = [bucket % self._ring for bucket in held]
        sums = self._counts[:, :, :, within].sum(axis=3)
        found: list[Trouble] = []
        judged = begin >= self._since + BUCKETS
        if judged:
            found = self._troubles(sums, sight, begin * self._bucket_ns)
        began, ended = self._follow(found, judged, end)
        p50, p99 = (float(lags[int(np.ceil(len(lags) * p)) - 1]) if len(lags) else None for p in (0.5, 0.99))
        standing = [trouble for trouble, since, _ in self._standing.values() if since >= PERSIST]
        return Judgement(self._shares(sums.sum(axis=0)), p50, p99, began, ended, standing)

    def _troubles(self, sums: np.ndarray, sight: Sight, begin_ns: int) -> list[Trouble]:
        """What is wrong in this window."""
        both = []
        for name, slot in self._slots.items():
            since = [sight.since(code, name) for code, _ in self._lines]
            if all(since_ns is not None and since_ns <= begin_ns for since_ns in since):
                both.append((name, slot))
        if not both:
            return []
        total = sums[[slot for _, slot in both]].sum(axis=0)
        whole = self._whole(total, sight)
        if whole:
            return whole
        self._remember(total)
        found = []
        for name, slot in both:
            words = self._silent(sums[slot]) or self._apart(sums[slot], sight, [0.0, 0.0])
            symbol, venue = name[:15].rstrip(b"\0").decode(errors="backslashreplace"), Venue(name[15]).name
            found += [Trouble(self._lines[at][1], symbol, venue, said) for at, said in words.items()]
        return found

    def _whole(self, total: np.ndarray, sight: Sight) -> list[Trouble]:
        """What is wrong with a line as a whole."""
        usual = [self._twins.get(line, 0.0) for _, line in self._lines]
        words = self._silent(total) or self._apart(total, sight, usual) or self._thin(total)
        return [Trouble(self._lines[at][1], "", "", said) for at, said in words.items()]

    def _silent(self, sums: np.ndarray) -> dict[int, str]:
        """Line -> words, () where nothing is wrong."""
        return {
            at: f"silent: the other line has {sums[1 - at, _DELIVERED]} books in a window, this one none"
            for at in (0, 1)
            if sums[at, _DELIVERED] == 0 and sums[1 - at, _DELIVERED] >= self._least
        }

    def _apart(self, sums: np.ndarray, sight: Sight, usual: list[float]) -> dict[int, str]:
        """Both, unless one was given its registrations later than the other: that one. (If only one line's share of twins falls,
        the other one has become thin or silent.)"""
        least = np.maximum(HARDLY, TWINS_DROP * np.array(usual))
        if sums[:, _DELIVERED].min() < self._least or (least * sums[:, _DELIVERED] < ENOUGH).any():
            return {}
        shares = sums[:, _TWINNED] / sums[:, _DELIVERED]
        if (shares >= least).any():
            return {}
        said = f"no twins: {shares.max():.0%} of its books at most have one on the other line"
        newest = [sight.newest(code) for code, _ in self._lines]
        if abs(newest[0] - newest[1]) > BUCKETS * self._bucket_ns:
            return {int(np.argmax(newest)): said + "; registered anew after the other line"}
        return dict.fromkeys((0, 1), said + "; one of the two is wrong")

    def _thin(self, sums: np.ndarray) -> dict[int, str]:
        found, union = {}, self._union(sums)
        for at, (_, line) in enumerate(self._lines):
            past = self._past.get(line, 0.0)
            least, now = past * (THIN_STEADY if past >= STEADY else THIN), float(sums[at, _DELIVERED] / max(union, 1))
            if union >= 3 * self._least and least * union >= ENOUGH and now < least:
                found[at] = f"thin: it has {now:.0%} of all books, it used to have {past:.0%}"
        return found

    def _remember(self, sums: np.ndarray) -> None:
        """A window in which no line is in trouble: what is usual."""
        if self._union(sums) < 3 * self._least:
            return
        for at, (_, line) in enumerate(self._lines):
            delivered, twinned, _ = sums[at].tolist()
            for usual, now in ((self._past, delivered / self._union(sums)), (self._twins, twinned / max(delivered, 1))):
                past = usual.get(line, now)
                usual[line] = past + (now - past) / (PAST_WINDOWS * BUCKETS)

    def _follow(self, found: list[Trouble], judged: bool, end: int) -> tuple[list[Trouble], list[Trouble]]:
        """What became certain and what is over; `_standing`: trouble, how often in a row it was found, when last."""
        began, ended = [], []
        now = {(trouble.line, trouble.symbol, trouble.venue): trouble for trouble in found}
        for key, trouble in now.items():
            times = self._standing[key][1] + 1 if key in self._standing else 1
            self._standing[key] = trouble, times, end
            if times == PERSIST:
                began.append(trouble)
        for key, (trouble, times, last) in list(self._standing.items()):
            if key in now or not judged:
                continue
            if times < PERSIST:
                del self._standing[key]
            elif end - last >= BUCKETS:
                del self._standing[key]
                ended.append(trouble)
        return began, ended

    def _shares(self, total: np.ndarray) -> list[LineShare]:
        """How the lines stand over all that was counted."""
        twins, union = int(total[:, _TWINNED].min()), self._union(total)
        return [
            LineShare(
                line,
                int(total[at, _DELIVERED]),
                _share(total[at, _TWINNED], total[at, _DELIVERED]),
                _share(total[at, _WON], twins),
                _share(total[at, _DELIVERED], union),
            )
            for at, (_, line) in enumerate(self._lines)
        ]

    def _union(self, sums: np.ndarray) -> int:
        return int(sums[:, _DELIVERED].sum() - sums[:, _TWINNED].min())

    def _advance(self, bucket: int) -> None:
        """Make room up to `bucket`; after a window without any book it is as after a start."""
        if bucket <= self._newest:
            return
        if bucket - self._newest > BUCKETS:
            self._since = bucket
        for stale in range(max(self._newest + 1, bucket - self._ring + 1), bucket + 1):
            self._counts[:, :, :, stale % self._ring] = 0
        self._newest = bucket

    def _add(self, slot: np.ndarray, line: np.ndarray, what: int, bucket: np.ndarray) -> None:
        held = bucket > self._newest - self._ring
        np.add.at(self._counts, (slot[held], line[held], what, bucket[held] % self._ring), 1)

    def _slot(self, name: bytes) -> int:
        slot = self._slots.setdefault(name, len(self._slots))
        if slot >= len(self._counts):
            more = np.zeros((max(64, len(self._counts)), *self._counts.shape[1:]), np.int64)
            self._counts = np.concatenate([self._counts, more])
        return slot


def _share(part: int, whole: int) -> float | None:
    return round(int(part) / int(whole), 4) if whole else None
