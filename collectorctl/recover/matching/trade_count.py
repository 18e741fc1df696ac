"""Consistency check by the trade counter of live ticks (pure).

    live      [ 17 ]                        [ 21 ]      trades so far, the tick's own included
    between          [ . ][ . ][ . ]                    three trades, none merged, none split
    or               [ . ]( 900 )[ . ][ . ]             three trades, so the 900 shares are volume off the book

A tick of KIS is one trade (docs/wire/kis.md 3), one of Kiwoom may be several (docs/wire/kiwoom.md 2.6), so their counters are
not compared. Auction trades are not counted, and a tick chart does not mark them: a row without a side may be one if there was
no trade for AUCTION_NS before it, and on a consolidated venue always, since one exchange trades while the other holds its
auction. Between ticks of KIS two trades merged into one row are always detected; a trade split in two only where no such pause
leaves room for an auction.

Guarantees:
    * A counter that some pair of live neighbours contradicts is not used: it counts something else on that day.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from collectorctl.recover.matching.day_coverage import DayCoverage
from ringbuf.records import UNDEFINED, FeedId
from writer.volume.coverage import compute_gap_trades

AUCTION_NS = 30_000_000_000
"""The shortest call auction, on NXT after a halt (docs/wire/kis.md 6)."""

SINGLE_TRADE_SOURCE = FeedId.KIS
"""The line whose ticks are single trades."""

UNBOUNDED = 1 << 40

CONSOLIDATED = "UN"
"""The opening trade of KRX comes seconds to minutes late, when NXT trades already (docs/wire/kis.md 6)."""


LONG_AUCTION_NS = 9 * 60_000_000_000
"""The auctions at the open and at the close gather longer than this."""

INTERRUPTION_AUCTION_NS = {"KRX": 120_000_000_000}
"""How long an auction gathers that interrupts trading, by venue; else AUCTION_NS."""

PRICE_MOVE_RATIO = 100
"""Such an auction follows a leap of the price: the price changes by 1 in MOVED or more."""


class Verdict(IntEnum):
    """The verdict of the counters around a gap; of two different ones the one further from 0 counts."""

    UNKNOWN = 0
    UNCLEAR = 1  # trades may be missing
    NO_TRADE = 2  # all that were counted are there: what is missing is no trade
    TRADES = -3  # some that were counted are not there


class _LiveInterval(NamedTuple):
    """From one live tick to the next of its feed, in true order; int64 (m,).

    `left`, `right`: positions of the two, -1 the day's beginning. `counted`: trades by the counter, the right tick's own included.
    `min_trades`, `max_trades`: possible by the stored ticks. `likely_min_trades`: unless an auction interrupted trading and ended
    at the price it began with.
    """

    left: np.ndarray
    right: np.ndarray
    counted: np.ndarray
    min_trades: np.ndarray
    max_trades: np.ndarray
    likely_min_trades: np.ndarray


def find_count_mismatches(day: DayCoverage, rows: np.ndarray, gap: np.ndarray, auction: np.ndarray) -> list[str]:
    """Gaps that are filled by another number of trades than was counted, as messages.

    `rows`: TRADE_ROW, of which row i lies in gap[i]; `auction`: a bool per row, see can_be_auction.
    """
    counts = count_trades_per_gap(day)
    shares, min_trades, max_trades = (np.zeros(len(counts), np.int64) for _ in range(3))
    np.add.at(shares, gap, rows["size"])
    np.add.at(min_trades, gap, (rows["side"] != 0) | ~auction)
    np.add.at(max_trades, gap, 1)
    known = (counts != UNDEFINED) & (shares == day.gaps["shares"])
    off = known & ((counts < min_trades) | (counts > max_trades))
    return [
        f"{max_trades[n]} rows stand for {counts[n]} trades (volume {day.gaps['low'][n]} to {day.gaps['high'][n]})"
        for n in np.flatnonzero(off)
    ]


def count_trades_per_gap(day: DayCoverage) -> np.ndarray:
    """How many trades each gap has, int64; UNDEFINED where the ticks around it have no counter."""
    ticks = day.ticks
    single = ticks["live"] & (ticks["line"] == SINGLE_TRADE_SOURCE) & _is_consistent(day.placed, SINGLE_TRADE_SOURCE)
    return compute_gap_trades(day.coverage, ticks["side"], np.where(single, ticks["trade_count"], UNDEFINED))


def check_counts(day: DayCoverage, venue: str) -> tuple[int, int]:
    """Stretches without a gap between live ticks that have a counter, and how many of them contradict it."""
    discontinuities = np.cumsum(_find_discontinuities(day.placed))
    checked = conflicts = 0
    for interval in _build_intervals(day.placed, venue):
        whole = _difference(discontinuities, interval.left, interval.right) == 0
        off = (interval.counted < interval.min_trades) | (interval.counted > interval.max_trades)
        checked += int(whole.sum())
        conflicts += int((whole & off).sum())
    return checked, conflicts


def compute_verdicts(day: DayCoverage, venue: str) -> np.ndarray:
    """Of each gap a Verdict, int64 (gaps,)."""
    placed = day.placed
    low = placed["cum_volume"] - placed["size"]
    behind = np.searchsorted(low, day.gaps["high"])  # the first tick behind each gap
    found = np.zeros(len(behind), np.int64)
    for interval in _build_intervals(placed, venue):
        at = np.searchsorted(interval.right, behind)
        there = at < len(interval.right)
        at = np.where(there, at, 0)
        some, none = interval.counted > interval.max_trades, interval.counted <= interval.likely_min_trades
        verdict = np.where(some, Verdict.TRADES, np.where(none, Verdict.NO_TRADE, Verdict.UNCLEAR))[at]
        found = np.where(there & (abs(verdict) > abs(found)), verdict, found)
    return found


def can_be_auction(exch_ns: np.ndarray, venue: str, min_ns: int = AUCTION_NS) -> np.ndarray:
    """Which trades, in volume order, may be an auction's if they have no side: there was none for so long before; bool (n,)."""
    found = np.ones(len(exch_ns), bool)
    if venue != CONSOLIDATED:
        found[1:] = np.diff(exch_ns) >= min_ns
    return found


def _build_intervals(placed: np.ndarray, venue: str) -> list[_LiveInterval]:
    """Of every feed whose counter is accepted."""
    sided = placed["side"] != 0
    short, long, interruption = (
        can_be_auction(placed["exch_ns"], venue, min_ns)
        for min_ns in (AUCTION_NS, LONG_AUCTION_NS, INTERRUPTION_AUCTION_NS.get(venue, AUCTION_NS))
    )
    min_trades = np.cumsum(
        sided | ~(placed["live"] | short)
    )  # a live tick without a side is a trade or says too little
    moved = abs(np.diff(placed["price"], prepend=placed["price"][:1])) * PRICE_MOVE_RATIO >= placed["price"]
    likely_min_trades = np.cumsum(sided | ~(placed["live"] | long | (interruption & moved)))
    max_trades = np.cumsum(np.where(placed["live"] & (placed["line"] != SINGLE_TRADE_SOURCE), UNBOUNDED, 1))
    found = []
    for feed in np.unique(placed["line"][placed["live"]]).tolist():
        right = np.flatnonzero(placed["live"] & (placed["line"] == feed) & (placed["trade_count"] != UNDEFINED))
        if not len(right) or not _is_consistent(placed, feed):
            continue
        left = np.concatenate([[-1], right[:-1]])
        sums = (
            _difference(column, left, right)
            for column in (placed["trade_count"], min_trades, max_trades, likely_min_trades)
        )
        found.append(_LiveInterval(left, right, *sums))
    return found


def _difference(sums: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """How far running sums grew from one position to another; the day begins with nothing."""
    return sums[right] - np.where(left < 0, 0, sums[left])


def _find_discontinuities(placed: np.ndarray) -> np.ndarray:
    """Which ticks do not begin where the one before ends, int64."""
    ends = np.concatenate([[0], placed["cum_volume"][:-1]]) if len(placed) else placed["cum_volume"]
    return (placed["cum_volume"] - placed["size"] != ends).astype(np.int64)


def _is_consistent(placed: np.ndarray, feed: int) -> bool:
    """Whether no two neighbours of a line deny that its counter counts their trades."""
    count, sided = placed["trade_count"], placed["side"][1:] != 0
    counts = placed["live"] & (placed["line"] == feed) & (count != UNDEFINED)
    pairs = (_find_discontinuities(placed)[1:] == 0) & counts[1:] & counts[:-1]
    step = np.diff(np.where(counts, count, 0))
    return not (pairs & ((step < sided) | (step > (1 if feed == SINGLE_TRADE_SOURCE else UNBOUNDED)))).any()
