"""Detection of a degraded feed that the other feed hides (pure).

    books ──> delivered, twinned, first by symbol, feed and five-second bucket ──window──> evaluate()

    silent        the other feed has books, this one none
    no twins      both have books, but far fewer than usual find twins: another venue, another depth, minutes behind
    thin          this feed has far fewer of all books than usual: it conflates, or loses

Only books that both feeds are subscribed to for the whole window count (visibility.py). Auctions do not count, whose books are few
and differ, nor the first window of a session or of the writer, nor windows with fewer than `min_books` books. "Thin" is relative to
the feed's own past, because brokers conflate by nature: a feed that had nine books in ten is thin below 90 % of that, another one
below half. Without a past, no feed is thin.

Guarantees:
    * The result depends on the arguments alone; times are mono_ns.
    * A degradation is reported once it has lasted two buckets, and its end once it has been away for a window.
    * Exchange stamps decide no degradation: twins are matched by content.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from ringbuf.records import UNDEFINED, Flag, Session, Venue
from writer.feeds.feed_report import Degradation, FeedShare
from writer.feeds.visibility import FeedVisibility, instrument_key
from writer.ingest.arbitration_result import NEW, ArbitrationResult

BUCKETS = 12
"""Of a window."""
MIN_CONSECUTIVE = 2
"""Consecutive evaluations before a degradation is reported."""

MIN_MATCH_SHARE = 0.05
"""Share of twins below which two feeds have nothing in common, whatever they used to have."""
MIN_EXPECTED_BOOKS = 12
"""A share is called too small only where even that would be so many books: chance does not halve a number beyond it."""
MATCH_SHARE_DROP = 0.5
STEADY_SHARE = 0.9
LOW_COVERAGE_STEADY, LOW_COVERAGE = 0.9, 0.5
BASELINE_WINDOWS = 10
"""How many windows the past fades over."""
MAX_LAGS = 4096
MIN_STAMPS = 12
"""Books in a bucket from which on their time after the exchange's second counts."""

_CONTINUOUS = [Session.PRE_MARKET, Session.REGULAR, Session.AFTER_MARKET, Session.DAY_MARKET, Session.NIGHT_MARKET]
_UNSURE_STAMP = Flag.SNAPSHOT | Flag.DATE_MISMATCH | Flag.CLOCK_STEP
_DELIVERED, _TWINNED, _PAIRED, _FIRST = range(4)
"""Books by when they came; those with a twin, likewise; the pairs and whose book was first, by when the pair's row came."""
_SPARE = 4


class Evaluation(NamedTuple):
    """The judgement of the last window.

    Shares of the feeds, lag of the second arrival behind the first (ms; None without twins), degradations that began, that
    ended, and all that hold now.
    """

    feeds: list[FeedShare]
    lag_p50_ms: float | None
    lag_p99_ms: float | None
    began: list[Degradation]
    ended: list[Degradation]
    degradations: list[Degradation]


class DegradationDetector:
    """Two lines, `names` as people know them, by their codes."""

    def __init__(self, feeds: dict[int, str], window_ns: int, settle_ns: int, min_books: int) -> None:
        """`settle_ns`: how long a book waits for its twin at most."""
        self._feeds = list(feeds.items())
        self._index = np.full(256, -1)
        self._index[[code for code, _ in self._feeds]] = range(2)
        self._bucket_ns = window_ns // BUCKETS
        self._settle_buckets = -(-settle_ns // self._bucket_ns)
        self._min_books = min_books
        self._slots: dict[bytes, int] = {}
        self._ring_size = BUCKETS + self._settle_buckets + _SPARE
        self._counts = np.zeros((0, 2, 4, self._ring_size), np.int64)
        self._newest = 0
        self._since = 0
        self._lags: deque[tuple[int, np.ndarray]] = deque()
        self._stamped: deque[np.ndarray] = deque()
        self._baseline_coverage: dict[str, float] = {}
        self._baseline_match_share: dict[str, float] = {}
        self._active: dict[tuple[str, str, str], tuple[Degradation, int, int]] = {}

    def add_books(self, books: np.ndarray, arbitration: ArbitrationResult) -> None:
        """Add books (ORDERBOOK, in receive order) and the arbiter's result."""
        index = self._index[books["line"]]
        chosen = np.flatnonzero((index >= 0) & np.isin(books["session"], _CONTINUOUS))
        if not len(chosen):
            return
        books, index = books[chosen], index[chosen]
        twin, lag_ns = arbitration.twin_of[chosen] != NEW, arbitration.lag_ns[chosen]
        names = zip(books["symbol"].tolist(), books["venue"].tolist(), strict=True)
        slot = np.array([self._ensure_slot(instrument_key(*name)) for name in names])
        bucket = books["mono_ns"] // self._bucket_ns
        self._advance(int(bucket.max()))
        self._add(slot, index, _DELIVERED, bucket)
        stamped = (books["exch_ns"] != UNDEFINED) & (books["flags"] & _UNSURE_STAMP == 0)
        lag = books["recv_ns"][stamped] - books["exch_ns"][stamped]
        self._stamped.append(
            np.stack([books["mono_ns"][stamped], index[stamped], lag])[:, :: max(1, len(lag) // MAX_LAGS)]
        )
        if not twin.any():
            return
        slot, index, bucket, lag_ns = slot[twin], index[twin], bucket[twin], lag_ns[twin]
        of_row = (books["mono_ns"][twin] - lag_ns) // self._bucket_ns
        self._add(slot, index, _TWINNED, bucket)
        self._add(slot, 1 - index, _TWINNED, of_row)
        self._add(slot, index, _PAIRED, of_row)
        self._add(slot, np.where(lag_ns < 0, index, 1 - index), _FIRST, of_row)
        behind = np.where(index == 1, lag_ns, -lag_ns)[:: max(1, len(lag_ns) // MAX_LAGS)]
        self._lags.append((int(bucket[-1]), behind))

    def evaluate(self, visibility: FeedVisibility, through_ns: int) -> Evaluation:
        """Evaluate; every book received up to `through_ns` was added. Call once a bucket."""
        end = through_ns // self._bucket_ns - self._settle_buckets
        begin = end - BUCKETS
        while self._lags and self._lags[0][0] < begin:
            self._lags.popleft()
        lags = np.sort(np.concatenate([lag for _, lag in self._lags])) / 1e6 if self._lags else np.empty(0)
        buckets = range(max(begin, self._newest - self._ring_size + 1), min(end, self._newest + 1))
        within = [bucket % self._ring_size for bucket in buckets]
        sums = self._counts[:, :, :, within].sum(axis=3)
        found: list[Degradation] = []
        is_judged = begin >= self._since + BUCKETS
        if is_judged:
            found = self._find_degradations(sums, visibility, begin * self._bucket_ns)
        began, ended = self._update_active(found, is_judged, end)
        p50, p99 = (float(lags[int(np.ceil(len(lags) * p)) - 1]) if len(lags) else None for p in (0.5, 0.99))
        active = [trouble for trouble, since, _ in self._active.values() if since >= MIN_CONSECUTIVE]
        shares = self._compute_shares(sums.sum(axis=0), self._compute_exchange_lags(through_ns))
        return Evaluation(shares, p50, p99, began, ended, active)

    def _find_degradations(self, sums: np.ndarray, visibility: FeedVisibility, begin_ns: int) -> list[Degradation]:
        """What is wrong in this window."""
        both = []
        for name, slot in self._slots.items():
            since = [visibility.visible_since_ns(code, name) for code, _ in self._feeds]
            if all(since_ns is not None and since_ns <= begin_ns for since_ns in since):
                both.append((name, slot))
        if not both:
            return []
        total = sums[[slot for _, slot in both]].sum(axis=0)
        whole = self._find_feed_wide(total, visibility)
        if whole:
            return whole
        self._update_baseline(total)
        found = []
        for name, slot in both:
            messages = self._find_silent(sums[slot]) or self._find_unmatched(sums[slot], visibility, [0.0, 0.0])
            symbol, venue = name[:15].rstrip(b"\0").decode(errors="backslashreplace"), Venue(name[15]).name
            found += [Degradation(self._feeds[at][1], symbol, venue, message) for at, message in messages.items()]
        return found

    def _find_feed_wide(self, total: np.ndarray, visibility: FeedVisibility) -> list[Degradation]:
        """The degradation of a feed as a whole."""
        usual = [self._baseline_match_share.get(line, 0.0) for _, line in self._feeds]
        messages = (
            self._find_silent(total) or self._find_unmatched(total, visibility, usual) or self._find_low_coverage(total)
        )
        return [Degradation(self._feeds[at][1], "", "", message) for at, message in messages.items()]

    def _find_silent(self, sums: np.ndarray) -> dict[int, str]:
        """Feed -> reasons, () for none."""
        return {
            at: f"silent: the other feed has {sums[1 - at, _DELIVERED]} books in a window, this one none"
            for at in (0, 1)
            if sums[at, _DELIVERED] == 0 and sums[1 - at, _DELIVERED] >= self._min_books
        }

    def _find_unmatched(self, sums: np.ndarray, visibility: FeedVisibility, usual: list[float]) -> dict[int, str]:
        """Both feeds, unless one was subscribed later than the other: then that one.

        If only one feed's share of twins falls, the other feed has become thin or silent.
        """
        min_share = np.maximum(MIN_MATCH_SHARE, MATCH_SHARE_DROP * np.array(usual))
        if sums[:, _DELIVERED].min() < self._min_books or (min_share * sums[:, _DELIVERED] < MIN_EXPECTED_BOOKS).any():
            return {}
        shares = sums[:, _TWINNED] / sums[:, _DELIVERED]
        if (shares >= min_share).any():
            return {}
        message = f"no twins: {shares.max():.0%} of its books at most have a twin on the other feed"
        newest = [visibility.newest_subscription_ns(code) for code, _ in self._feeds]
        if abs(newest[0] - newest[1]) > BUCKETS * self._bucket_ns:
            return {int(np.argmax(newest)): message + "; subscribed again after the other feed"}
        return dict.fromkeys((0, 1), message + "; one of the two is wrong")

    def _find_low_coverage(self, sums: np.ndarray) -> dict[int, str]:
        found, union = {}, self._count_union(sums)
        for at, (_, feed) in enumerate(self._feeds):
            baseline = self._baseline_coverage.get(feed, 0.0)
            min_share, now = (
                baseline * (LOW_COVERAGE_STEADY if baseline >= STEADY_SHARE else LOW_COVERAGE),
                float(sums[at, _DELIVERED] / max(union, 1)),
            )
            if union >= 3 * self._min_books and min_share * union >= MIN_EXPECTED_BOOKS and now < min_share:
                found[at] = f"thin: it has {now:.0%} of all books, it used to have {baseline:.0%}"
        return found

    def _update_baseline(self, sums: np.ndarray) -> None:
        """Learn the usual shares from a window without a degradation."""
        if self._count_union(sums) < 3 * self._min_books:
            return
        for at, (_, feed) in enumerate(self._feeds):
            delivered, twinned = sums[at, [_DELIVERED, _TWINNED]].tolist()
            for baselines, now in (
                (self._baseline_coverage, delivered / self._count_union(sums)),
                (self._baseline_match_share, twinned / max(delivered, 1)),
            ):
                baseline = baselines.get(feed, now)
                baselines[feed] = baseline + (now - baseline) / (BASELINE_WINDOWS * BUCKETS)

    def _update_active(
        self, found: list[Degradation], is_judged: bool, end: int
    ) -> tuple[list[Degradation], list[Degradation]]:
        """Degradations that became certain and those that ended; counts how often in a row each one was found."""
        began, ended = [], []
        now = {(trouble.feed, trouble.symbol, trouble.venue): trouble for trouble in found}
        for key, trouble in now.items():
            times = self._active[key][1] + 1 if key in self._active else 1
            self._active[key] = trouble, times, end
            if times == MIN_CONSECUTIVE:
                began.append(trouble)
        for key, (trouble, times, last) in list(self._active.items()):
            if key in now or not is_judged:
                continue
            if times < MIN_CONSECUTIVE:
                del self._active[key]
            elif end - last >= BUCKETS:
                del self._active[key]
                ended.append(trouble)
        return began, ended

    def _compute_exchange_lags(self, through_ns: int) -> list[float | None]:
        """From the exchange's second to receipt, the median of each feed over the last bucket, ms."""
        begin_ns = through_ns - self._bucket_ns
        while self._stamped and self._stamped[0][0].max(initial=0) <= begin_ns:
            self._stamped.popleft()
        if not self._stamped:
            return [None, None]
        mono_ns, index, lag_ns = np.concatenate(self._stamped, axis=1)
        of_feed = [lag_ns[(index == at) & (mono_ns > begin_ns)] for at in (0, 1)]
        return [float(np.median(lags)) / 1e6 if len(lags) >= MIN_STAMPS else None for lags in of_feed]

    def _compute_shares(self, total: np.ndarray, exchange_lags: list[float | None]) -> list[FeedShare]:
        """The shares of the feeds over the window."""
        pairs, union = total[:, _PAIRED].sum(), self._count_union(total)
        return [
            FeedShare(
                line,
                int(total[at, _DELIVERED]),
                # a row that came before the writer's start, or in an auction, does not count as delivered
                _ratio(min(total[at, _TWINNED], total[at, _DELIVERED]), total[at, _DELIVERED]),
                _ratio(total[at, _FIRST], pairs),
                _ratio(total[at, _DELIVERED], union),
                exchange_lags[at],
            )
            for at, (_, line) in enumerate(self._feeds)
        ]

    def _count_union(self, sums: np.ndarray) -> int:
        return int(sums[:, _DELIVERED].sum() - sums[:, [_DELIVERED, _TWINNED]].min())

    def _advance(self, bucket: int) -> None:
        """Make room up to `bucket`; after a window without any book it is as after a start."""
        if bucket <= self._newest:
            return
        if bucket - self._newest > BUCKETS:
            self._since = bucket
        for stale in range(max(self._newest + 1, bucket - self._ring_size + 1), bucket + 1):
            self._counts[:, :, :, stale % self._ring_size] = 0
        self._newest = bucket

    def _add(self, slot: np.ndarray, feed_index: np.ndarray, counter: int, bucket: np.ndarray) -> None:
        in_ring = bucket > self._newest - self._ring_size
        np.add.at(self._counts, (slot[in_ring], feed_index[in_ring], counter, bucket[in_ring] % self._ring_size), 1)  # type: ignore[arg-type]

    def _ensure_slot(self, name: bytes) -> int:
        slot = self._slots.setdefault(name, len(self._slots))
        if slot >= len(self._counts):
            more = np.zeros((max(64, len(self._counts)), *self._counts.shape[1:]), np.int64)
            self._counts = np.concatenate([self._counts, more])
        return slot


def _ratio(part: int, whole: int) -> float | None:
    return round(int(part) / int(whole), 4) if whole else None
