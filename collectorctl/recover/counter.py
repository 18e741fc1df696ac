"""The trade counter of live ticks, as a witness: how many trades lie between two of them.

    live      [ 17 ]                        [ 21 ]      so far counted, the tick's own trade included
    between          [ . ][ . ][ . ]                    three trades, neither two merged into one nor one cut in two

An auction's print is not counted (spec kis 3), and a tick chart does not say which row is one: a row without a side may be, when
nobody traded for AUCTION_NS before it. Some brokers deliver several trades as one tick (spec kiwoom 2.6): their counter is none.

Two trades that became one row are always noticed; one that was cut in two only where no such silence makes room for an auction.

Promises: pure; a counter that some pair of live neighbours denies is not believed: it counts something else than ticks on that day.
Leaves to others: which ticks carry such a counter (day.py), what follows (fill.py, certify.py).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ringbuf.records import UNDEFINED
from writer.volume import Coverage, gap_count

AUCTION_NS = 30_000_000_000
"""The shortest call auction, on NXT after a halt (spec kis 6)."""


class Range(NamedTuple):
    """What each of n ticks adds to the counter, int64 (n,): at least, and at most."""

    least: np.ndarray
    most: np.ndarray


def believed(ticks: np.ndarray, coverage: Coverage) -> np.ndarray:
    """The counter at each of the TICKS laid, int64 (n,); UNDEFINED throughout where live neighbours deny it."""
    kept = ticks[coverage.order]
    count, high = kept["trade_count"], kept["cum_volume"]
    each = _each(kept)
    pairs = (high[1:] - kept["size"][1:] == high[:-1]) & (count[1:] != UNDEFINED) & (count[:-1] != UNDEFINED)
    step = np.where(pairs, np.diff(np.where(count == UNDEFINED, 0, count)), 0)
    denied = pairs & ((step < each.least[1:]) | (step > each.most[1:]))
    return np.full(len(ticks), UNDEFINED) if denied.any() else ticks["trade_count"]


def doubts(ticks: np.ndarray, coverage: Coverage, rows: np.ndarray, gap: np.ndarray, silent: np.ndarray) -> list[str]:
    """Gaps that are filled, but not by as many trades as were counted, in words.

    `rows`: PRINTS, of which row i lies in gap[i]; `silent` bool: nobody traded for AUCTION_NS before it.
    """
    counts = gap_count(coverage, ticks["side"], believed(ticks, coverage))
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


def between_live(ticks: np.ndarray, coverage: Coverage) -> tuple[int, int]:
    """Stretches between live ticks that tell how many trades lie there, and how many of them deny what does."""
    kept, count = ticks[coverage.order], believed(ticks, coverage)[coverage.order]
    if not len(kept):
        return 0, 0
    each = _each(kept)
    joined = kept["cum_volume"] - kept["size"] == np.concatenate([[0], kept["cum_volume"][:-1]])
    # a stretch ends where shares are missing, and behind a tick that may be several trades
    broken = np.cumsum(~joined) + np.concatenate([[0], np.cumsum(kept["live"] & (count == UNDEFINED))[:-1]])
    least, most = np.cumsum(each.least), np.cumsum(each.most)
    at = np.flatnonzero(count != UNDEFINED)
    before = np.concatenate([[-1], at[:-1]]).astype(np.int64)
    start = before < 0  # the day begins with nothing

    def since(sums: np.ndarray) -> np.ndarray:
        return sums[at] - np.where(start, 0, sums[before])

    whole, said = since(broken) == 0, since(count)
    off = (said < since(least)) | (said > since(most))
    return int(whole.sum()), int((whole & off).sum())


def silent_before(exch_ns: np.ndarray) -> np.ndarray:
    """Which trades, in true order, may be the print of an auction; the first may."""
    silent = np.ones(len(exch_ns), bool)
    silent[1:] = np.diff(exch_ns) >= AUCTION_NS
    return silent


def _each(kept: np.ndarray) -> Range:
    """TICKS in true order: a live one without a side is an auction's print or says too little."""
    sided = kept["side"] != 0
    maybe = kept["live"] | silent_before(kept["exch_ns"])
    return Range((sided | ~maybe).astype(np.int64), np.ones(len(kept), np.int64))
