"""Evidence of how two feeds of one venue agree: their lag, and which details of a book both state alike (pure).

    kis      A1 A2 | B1 | C1        books of equal identity in a row: a group; its details 1, 2
    kiwoom   A2    | B1 | C9        group A: one in common, a sign for; C: none in common, a sign against

A feed that leaves books out has fewer of a group, but none that the other feed does not have. A vendor that stamps a detail late,
rounds it or makes it up has others. So a detail that both feeds change together tells two books of equal levels apart; one that
they state differently does not, and the signs that show it are counted for as long as the feeds run.

Guarantees:
    * The state depends on the books and their order alone, and is exported and restored exactly.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from conf.clock import SECOND_NS
from ringbuf.records import ORDERBOOK, PRICE_SCALE, UNDEFINED, field_offset

DETAILS = ("total_ask_size", "total_bid_size", "expected_price_e4", "expected_size", "mid_price_e4", "mid_size")
"""Fields of a record, in its order, that are compared beyond the identity where both feeds have them."""

_DETAIL_OFFSET, _DETAIL_BYTES = field_offset(ORDERBOOK, DETAILS[0]), 8 * len(DETAILS)
_unpack = struct.Struct(f"<{len(DETAILS)}q").unpack

_NONE = {UNDEFINED}

ONE = 1 << 20
"""The whole, of a share."""
MIN_SIGNS = 16
"""Signs after which a detail may tell books apart; twice as many each time it was unlearned."""
MAX_MIN_SIGNS = 1 << 20
MAX_AGAINST = ONE // 4
"""Share of the signs that may be against a detail that tells books apart: two feeds may leave out each other's books."""
MAX_RARE = ONE // 64
"""Share of the signs below which one is rare."""
CHANCE, MIN_SHARE = 2e-6, 0.003
"""So unlikely are signs against a detail in a row, at its share or this one, after which a vendor states something else."""
MEMORY = 256
"""Signs over which the share is smoothed."""
SAMPLE = 8
"""Of the groups in which all agrees one in so many is counted, as so many, while nothing is in doubt; and of the usual lags."""

MIN_PAIRS, MAX_PAIRS = 16, 64
"""Pairs after which the lag is known, and over which it is smoothed."""
SPREADS = 6
"""Mean deviations from the usual lag within which a twin is expected."""
JITTER_NS = SECOND_NS // 50
"""What is added to them: the lag of two steady feeds."""
MIN_LEFT_OUT = 0.2
"""Share of the books of one feed from which on the other is one that sends the newest book from time to time."""
MIN_DELIVERED, MAX_DELIVERED = 1024, 8192
"""Books after which the share is known, and over which it is smoothed."""
BURST_NS = SECOND_NS // 10
"""How long after one book that was held back others may come."""
LEARN_EVERY_NS = SECOND_NS // 20
"""What a pause held back and is received at once is one measurement."""


def encode_details(books: np.ndarray, raw: bytes) -> list[bytes]:
    """The details of each book (ORDERBOOK, (n,); `raw`: its bytes) as they are compared: prices as they are stored."""
    prices_e4 = {price for name in ("mid_price_e4", "expected_price_e4") for price in books[name].tolist()}
    if any(price % PRICE_SCALE for price in prices_e4 - _NONE):
        books = books.copy()
        for name in ("mid_price_e4", "expected_price_e4"):
            prices = books[name]
            books[name] = np.where(
                prices == UNDEFINED, UNDEFINED, np.rint(prices / PRICE_SCALE).astype(np.int64) * PRICE_SCALE
            )
        raw = books.tobytes()
    return [raw[at : at + _DETAIL_BYTES] for at in range(_DETAIL_OFFSET, len(raw), books.dtype.itemsize)]


def find_differences(left: bytes, right: bytes, among: Sequence[int] = range(len(DETAILS))) -> list[int]:
    """Which details of `among` (positions in `DETAILS`) both have, with different values."""
    if left == right:
        return []
    one, other = _unpack(left), _unpack(right)
    return [at for at in among if one[at] != other[at] and one[at] != UNDEFINED and other[at] != UNDEFINED]


class DetailEvidence:
    """Whether one detail tells two books of the venue apart, and the signs behind that."""

    def __init__(self) -> None:
        self.is_trusted = True  # a book too many is better than a book too few
        self.signs = MEMORY
        """Since the detail was trusted or unlearned; it begins like one that was confirmed so often."""
        self.against = ONE // 50
        """Smoothed share of the signs that are against it, of ONE."""
        self.in_row = 0
        """The newest signs, all against it."""
        self.usual = 0
        """The share before them."""
        self.min_signs = MIN_SIGNS

    def count(self, is_against: bool, weight: int) -> bool:
        """Count a sign; whether the detail is trusted from now on and was not, or the other way round."""
        if self.in_row == 0:
            self.usual = self.against
        self.in_row = self.in_row + 1 if is_against else 0
        self.signs += weight
        self.against += (ONE * is_against - self.against) * weight // max(weight, min(self.signs, MEMORY))
        if not self.is_trusted:
            if self.signs < self.min_signs or self.against > MAX_AGAINST:
                return False
        elif not is_against or (max(MIN_SHARE, self.usual / ONE) ** self.in_row > CHANCE and not self._is_refuted):
            return False
        else:
            self.min_signs = min(2 * self.min_signs, MAX_MIN_SIGNS)
        self.is_trusted = not self.is_trusted
        self.signs = self.against = self.in_row = 0
        return True

    @property
    def is_suspended(self) -> bool:
        """Whether the newest sign is against it, where hardly any was: the next one decides, and no book is doubled until then."""
        return self.in_row > 0 and self.against < MAX_RARE

    @property
    def _is_refuted(self) -> bool:
        return self.signs >= MIN_SIGNS and self.against > MAX_AGAINST

    def export_state(self) -> list[int]:
        """All of it, fit for JSON."""
        return [int(self.is_trusted), self.signs, self.against, self.in_row, self.usual, self.min_signs]

    def restore_state(self, state: Sequence[int]) -> None:
        """What `export_state` returned."""
        is_trusted, self.signs, self.against, self.in_row, self.usual, self.min_signs = state
        self.is_trusted = bool(is_trusted)


class PairEvidence:
    """Two feeds of one venue. A lag is what the feed of the larger number is behind the other."""

    def __init__(self, window_ns: int) -> None:
        """`window_ns`: the most that a twin is expected before or after the usual lag."""
        self.lag_ns = 0
        self.min_lag_ns = 0
        """The smallest of late."""
        self.spread_ns = 0
        """Mean deviation from the usual lag."""
        self.limit_ns = window_ns
        """How far from the usual lag a twin is expected."""
        self.details = [DetailEvidence() for _ in DETAILS]
        self.burst_ns: dict[int, int] = {}
        """By feed: when it last delivered a book that something had held back."""
        self.delivered: defaultdict[int, int] = defaultdict(int)
        """By feed: its books, halved from time to time together with `paired`."""
        self.paired = 0
        self._pairs = 0
        self._groups = 0
        self._unusual_ns = 0
        self._window_ns = window_ns
        self._update()

    def export_state(self) -> list:
        """All of it, fit for JSON."""
        lag = [self.lag_ns, self.min_lag_ns, self.spread_ns, self.limit_ns, self._pairs, self._groups, self._unusual_ns]
        by_feed = [sorted(counts.items()) for counts in (self.burst_ns, self.delivered)]
        return [lag, self.paired, by_feed, [detail.export_state() for detail in self.details]]

    def restore_state(self, state: Sequence) -> None:
        """What `export_state` returned."""
        lag, self.paired, by_feed, details = state
        self.lag_ns, self.min_lag_ns, self.spread_ns, self.limit_ns, self._pairs, self._groups, self._unusual_ns = lag
        self.burst_ns = dict(by_feed[0])
        self.delivered.update(by_feed[1])
        for detail, saved in zip(self.details, details, strict=True):
            detail.restore_state(saved)
        self._update()

    def _update(self) -> None:
        """Derive from the details: positions of those that tell two books apart, of those that nothing speaks against, and doubt.

        In doubt every group is counted.
        """
        self.trusted = [at for at, detail in enumerate(self.details) if detail.is_trusted and not detail.is_suspended]
        self.credible = [
            at for at, detail in enumerate(self.details) if detail.is_trusted or detail.against <= MAX_AGAINST
        ]
        self._has_doubt = any(
            detail.in_row or detail.signs < 4 * MIN_SIGNS if detail.is_trusted else detail.signs
            for detail in self.details
        )

    def learn_lag(self, feed: int, at_ns: int, lag_ns: int) -> None:
        """Count a pair that could not have been another one, completed by `feed` at `at_ns`."""
        if self._pairs == 0:
            self.lag_ns = self.min_lag_ns = lag_ns
            self.spread_ns = JITTER_NS
        elif abs(lag_ns - self.lag_ns) > self.limit_ns:
            self.burst_ns[feed] = at_ns
            if 0 <= at_ns - self._unusual_ns < LEARN_EVERY_NS:
                return
            self._unusual_ns = at_ns
        elif self.is_known and self.paired % SAMPLE and lag_ns >= self.min_lag_ns:
            return
        self._pairs += 1
        count, max_step_ns = min(self._pairs, MAX_PAIRS), 4 * self.spread_ns + JITTER_NS
        self.lag_ns += max(-max_step_ns, min(lag_ns - self.lag_ns, max_step_ns)) // count
        self.spread_ns += (min(abs(lag_ns - self.lag_ns), max_step_ns) - self.spread_ns) // count
        self.min_lag_ns = min(lag_ns, self.min_lag_ns + (self.lag_ns - self.min_lag_ns) // MEMORY)
        if self.is_known:
            self.limit_ns = min(SPREADS * self.spread_ns + JITTER_NS, self._window_ns)

    @property
    def is_known(self) -> bool:
        """Whether the lag is known."""
        return self._pairs >= MIN_PAIRS

    def count_book(self, feed: int) -> None:
        """Count a book of `feed`."""
        count = self.delivered[feed] = self.delivered[feed] + 1
        if count > MAX_DELIVERED:
            for one in self.delivered:
                self.delivered[one] //= 2
            self.paired //= 2

    def skips_group(self) -> bool:
        """Whether a group in which all agrees is one of those that are not counted."""
        self._groups += 1
        return not self._has_doubt and self._groups % SAMPLE > 0

    def compute_left_out(self, feed: int) -> float:
        """Share of the books of `feed` that the other feed leaves out."""
        count = self.delivered[feed]
        return max(0.0, 1.0 - self.paired / count) if count >= MIN_DELIVERED else 0.0

    def compute_lag_cost(self, lag_ns: int) -> float:
        """How unlikely a lag is: its distance from the usual one, in spreads."""
        return abs(lag_ns - self.lag_ns) / (self.spread_ns + JITTER_NS // 4)

    def is_near(self, lag_ns: int) -> bool:
        """Whether a lag is near the usual one."""
        return self.is_known and abs(lag_ns - self.lag_ns) <= self.limit_ns

    def is_likely(self, lag_ns: int) -> bool:
        """Whether a lag is a usual one."""
        return self.min_lag_ns - JITTER_NS // 4 <= lag_ns <= self.lag_ns + self.limit_ns

    def is_burst(self, feed: int, at_ns: int) -> bool:
        """Whether `feed` delivers at once what something had held back: in order, with any lag."""
        return 0 <= at_ns - self.burst_ns.get(feed, -BURST_NS - 1) <= BURST_NS

    def learn_details(
        self, left: tuple[bytes, ...], right: tuple[bytes, ...], before: tuple[bytes, ...]
    ) -> list[tuple[str, bool]]:
        """Count a group: the details that each feed stated in it, and those of the group before; what changed.

        A sign for a detail is that one feed has all values of the other and they are not those of `before`; one against it that
        each has one that the other lacks. Returns (detail, whether it tells two books apart from now on).
        """
        weight = SAMPLE if left == right and not self._has_doubt else 1
        changes = []
        one_side, other_side, known = ([_unpack(details) for details in side] for side in (left, right, before or left))
        for at, detail in enumerate(self.details):
            one = {values[at] for values in one_side} - _NONE
            other = one if left == right else {values[at] for values in other_side} - _NONE
            if not one or not other:
                continue
            is_against = not (one <= other or other <= one)
            if not is_against and one & other <= {values[at] for values in known}:
                continue
            if detail.count(is_against, 1 if is_against else weight):
                changes.append((DETAILS[at], detail.is_trusted))
        self._update()
        return changes
