"""The trade counter of live ticks, as a witness: how many trades lie between two of them.

    live      [ 17 ]                        [ 21 ]      so far counted, the tick's own trade included
    between          [ . ][ . ][ . ]                    three trades, neither two merged into one nor one cut in two
    or               [ . ]( 900 )[ . ][ . ]             three trades, so that the 900 shares are none: volume off the book

A tick of KIS is one trade (spec kis 3), one of Kiwoom may be several (spec kiwoom 2.6), and their counters are not compared with
each other. An auction's print is not counted, and a tick chart does not say which row is one: a row without a side may be, when
nobody traded for AUCTION_NS before it. Between ticks of KIS two trades that became one row are always noticed; one that was cut in
two only where no such silence makes room for an auction.

Promises: pure; a counter that some pair of live neighbours denies is not believed: it counts something else than ticks on that day.
Leaves to others: what follows (fill.py, certify.py).
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from ringbuf.records import UNDEFINED, Line
from writer.volume.coverage import Coverage, gap_count

AUCTION_NS = 30_000_000_000
"""The shortest call auction, on NXT after a halt (spec kis 6)."""

SINGLE = Line.KIS
"""The line whose ticks are single trades."""

MANY = 1 << 40


GATHERED_NS = 9 * 60_000_000_000
"""The auctions at the open and at the close gather longer than this."""

INTERRUPTED_NS = {"KRX": 120_000_000_000}
"""How long an auction gathers that interrupts trading, by venue; else AUCTION_NS."""

MOVED = 100
"""Such an auction follows a leap of the price; what is taken for one leaves a price that differs by 1 in MOVED or more."""


class Verdict(IntEnum):
    """What the counters around a gap tell; of two that differ the one further from 0 counts."""

    UNTOLD = 0
    UNCLEAR = 1  # trades may be missing
    NO_TRADE = 2  # all that were counted are there: what is missing is no trade
    TRADES = -3  # some that were counted are not there


class _Stretch(NamedTuple):
    """From one live tick to the next of its line, in true order; int64 (m,).

    `left`, `right`: positions of the two, -1 the day's beginning; `said`: trades counted on the way, the right tick's own
    included; `least`, `most`: that there can be by what is there; `likely`: at least, if no auction interrupted trading and
    ended at the price it began with.
    """

    left: np.ndarray
    right: np.ndarray
    said: np.ndarray
    least: np.ndarray
    most: np.ndarray
    likely: np.ndarray


def doubts(ticks: np.ndarray, coverage: Coverage, rows: np.ndarray, gap: np.ndarray, silent: np.ndarray) -> list[str]:
    """Gaps that are filled, but not by as many trades as were counted, in words.

    `rows`: PRINTS, of which row i lies in gap[i]; `silent` bool: nobody traded for AUCTION_NS before it.
    """
    counts = told(ticks, coverage)
    shares, least, most = (np.zeros(len(counts), np.int64) for _ in range(3))
    np.add.at(shares, gap, rows["size"])
    np.add.at(least, gap, (rows["side"] != 0) | ~silent)
    np.add.at(most, gap, 1)
    known = (counts != UNDEFINED) & (shares == coverage.gaps["shares"])
    off = known & ((counts < least) | (counts > most))
    return [
        f"{most[n]} rows stand for {counts[n]} trades (volume {coverage.gaps['low'][n]} to {coverage.gaps['high'][n]})"
        for n in np.flatnonzero(off)
    ]


def told(ticks: np.ndarray, coverage: Coverage) -> np.ndarray:
    """How many trades each gap holds, int64; UNDEFINED where the ticks beside it do not tell."""
    kept = ticks[coverage.order]
    single = ticks["live"] & (ticks["line"] == SINGLE) & _believed(kept, SINGLE)
    return gap_count(coverage, ticks["side"], np.where(single, ticks["trade_count"], UNDEFINED))


def between_live(ticks: np.ndarray, coverage: Coverage) -> tuple[int, int]:
    """Stretches without a gap between live ticks that count, and how many of them deny what lies there."""
    kept = ticks[coverage.order]
    holes = np.cumsum(_holes(kept))
    checked = denied = 0
    for stretch in _stretches(kept):
        whole = _since(holes, stretch.left, stretch.right) == 0
        off = (stretch.said < stretch.least) | (stretch.said > stretch.most)
        checked += int(whole.sum())
        denied += int((whole & off).sum())
    return checked, denied


def verdicts(ticks: np.ndarray, coverage: Coverage, venue: str) -> np.ndarray:
    """Of each gap a Verdict, int64 (gaps,)."""
    kept = ticks[coverage.order]
    low = kept["cum_volume"] - kept["size"]
    behind = np.searchsorted(low, coverage.gaps["high"])  # the first tick behind each gap
    found = np.zeros(len(behind), np.int64)
    for stretch in _stretches(kept, INTERRUPTED_NS.get(venue, AUCTION_NS)):
        at = np.searchsorted(stretch.right, behind)
        there = at < len(stretch.right)
        at = np.where(there, at, 0)
        some, none = stretch.said > stretch.most, stretch.said <= stretch.likely
        said = np.where(some, Verdict.TRADES, np.where(none, Verdict.NO_TRADE, Verdict.UNCLEAR))[at]
        found = np.where(there & (abs(said) > abs(found)), said, found)
    return found


def silent_before(exch_ns: np.ndarray, least_ns: int = AUCTION_NS) -> np.ndarray:
    """Before which trades, in true order, nobody traded for so long, as before an auction's print; the first is one of them."""
    silent = np.ones(len(exch_ns), bool)
    silent[1:] = np.diff(exch_ns) >= least_ns
    return silent


def _stretches(kept: np.ndarray, interrupted_ns: int = AUCTION_NS) -> list[_Stretch]:
    """Of every line whose counter is believed."""
    sided = kept["side"] != 0
    silent = silent_before(kept["exch_ns"])
    least = np.cumsum(sided | ~(kept["live"] | silent))  # a live tick without a side is a print or says too little
    long = silent_before(kept["exch_ns"], GATHERED_NS)
    moved = abs(np.diff(kept["price"], prepend=kept["price"][:1])) * MOVED >= kept["price"]
    interrupted = silent_before(kept["exch_ns"], interrupted_ns) & moved
    likely = np.cumsum(sided | ~(kept["live"] | long | interrupted))
    most = np.cumsum(np.where(kept["live"] & (kept["line"] != SINGLE), MANY, 1))
    found = []
    for line in np.unique(kept["line"][kept["live"]]).tolist():
        right = np.flatnonzero(kept["live"] & (kept["line"] == line) & (kept["trade_count"] != UNDEFINED))
        if not len(right) or not _believed(kept, line):
            continue
        left = np.concatenate([[-1], right[:-1]])
        sums = (_since(column, left, right) for column in (kept["trade_count"], least, most, likely))
        found.append(_Stretch(left, right, *sums))
    return found


def _since(sums: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """How far running sums grew from one position to another; the day begins with nothing."""
    return sums[right] - np.where(left < 0, 0, sums[left])


def _holes(kept: np.ndarray) -> np.ndarray:
    """Which ticks do not begin where the one before ends, int64."""
    ends = np.concatenate([[0], kept["cum_volume"][:-1]]) if len(kept) else kept["cum_volume"]
    return (kept["cum_volume"] - kept["size"] != ends).astype(np.int64)


def _believed(kept: np.ndarray, line: int) -> bool:
    """Whether no two neighbours of a line deny that its counter counts their trades."""
    count, sided = kept["trade_count"], kept["side"][1:] != 0
    counts = kept["live"] & (kept["line"] == line) & (count != UNDEFINED)
    pairs = (_holes(kept)[1:] == 0) & counts[1:] & counts[:-1]
    step = np.diff(np.where(counts, count, 0))
    return not (pairs & ((step < sided) | (step > (1 if line == SINGLE else MANY)))).any()
