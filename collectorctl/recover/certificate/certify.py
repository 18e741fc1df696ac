"""The certificate of one instrument's day: what is proven, what is not, and why.

    ticks on disk ──lay──> do they tile (0, V]?       V, value: day chart       ─┐
          │  └──────sum──> is their value the day's?  minutes:  minute chart     ├─> PROVEN  RECONCILED  MINUTE_ONLY  INCOMPLETE
          ├────by minute─> are their minutes the bars?                           │
          ├────live──────> do value and number of trades between two live ticks? │
          └────books─────> does a book deny a recovered tick?  pages: whole? ────┘

PROVEN      all of it, of a day whose sessions are over.
RECONCILED  all of it, but for intervals that the broker's own lists leave out and nobody counts a trade in: volume off the book,
            listed with its place.
MINUTE_ONLY ticks cannot or shall not be had; the minute bars add up to the day.
INCOMPLETE  anything else; what is missing is listed by minute.

Promises: pure; the same files make the same certificate; one check that was not made is one that failed.
Leaves to others: files (day.py, ledger of a run: evidence.py), recovering (run.py).
"""

from __future__ import annotations

from datetime import date
from enum import StrEnum

import msgspec
import numpy as np

from collectorctl.recover.matching import trade_count
from collectorctl.recover.matching.gap_filling import stored
from collectorctl.recover.matching.trade_count import Verdict
from collectorctl.recover.plan import covered
from collectorctl.recover.store.evidence import Evidence
from conf.clock import SECOND_NS, korean
from conf.instrument import Instrument
from ringbuf.records import UNDEFINED
from writer.volume.coverage import Coverage

MILLION = 1_000_000
MINUTE_NS = 60_000_000_000
REASONS_MOST = 40


class Grade(StrEnum):
    """What a certificate says."""

    PROVEN = "PROVEN"
    RECONCILED = "RECONCILED"
    MINUTE_ONLY = "MINUTE_ONLY"
    INCOMPLETE = "INCOMPLETE"


class Certificate(msgspec.Struct):
    """One row of data/kr/completeness; in shares and won. `residuals` as "09:31 +120": shares that the minute lacks."""

    symbol: str
    venue: str
    certificate: str
    official_volume: int | None
    live_ticks: int
    live_shares: int
    recovered_ticks: int
    recovered_shares: int
    missing_shares: int
    doubled_shares: int
    off_book: list[str]
    residuals: list[str]
    value_difference: int | None
    value_agrees: bool
    anchors: int
    anchors_denied: int
    counts: int
    counts_denied: int
    books_denied: int
    minutes: int
    minutes_agree: bool
    pages: int
    pages_chain: bool
    reasons: list[str]
    made_at: str = ""

    def says(self) -> dict[str, object]:
        """Everything but when it was made."""
        told = msgspec.to_builtins(self)
        del told["made_at"]
        return told


def certify(instrument: Instrument, day: date, ticks: np.ndarray, books: np.ndarray, evidence: Evidence) -> Certificate:
    """Judge. `ticks`: TICKS as on disk; `books`: every cumulative volume a stored book shows, ascending."""
    reasons: list[str] = []
    total = evidence.volume
    coverage = covered(ticks, total)
    kept = ticks[coverage.order]
    doubled = int(coverage.doubled["high"].sum() - coverage.doubled["low"].sum())
    missing = int(coverage.gaps["shares"].sum())
    if total is None:
        reasons.append("the official volume is not known")
    if not evidence.session_over:
        reasons.append("the day's sessions were not over")
    if missing:
        reasons.append(f"{missing} shares in {len(coverage.gaps)} gaps are missing")
    if doubled:
        reasons.append(f"{doubled} shares are covered twice")
    if coverage.beyond:
        reasons.append(f"ticks reach {coverage.beyond} shares beyond the official volume")
    if coverage.unlaid.any():
        reasons.append(f"{int(coverage.unlaid.sum())} ticks have no place on the volume line")
    difference, value_agrees = _value(kept, evidence)
    if not value_agrees:
        reasons.append("the value is not known" if difference is None else f"the value differs by {difference:+,} won")
    bars = stored(evidence.bars)
    off = _minutes(kept, bars)
    if len(bars) == 0 and (total or len(ticks)):
        reasons.append("there are no minute bars")
    elif off:
        reasons.append(f"{len(off)} minutes differ from the minute bars")
    checked, denied = _between_live(kept)
    if denied:
        reasons.append(f"{denied} stretches between live ticks have another value than those ticks say")
    counts, counts_denied = trade_count.between_live(ticks, coverage)
    if counts_denied:
        reasons.append(f"{counts_denied} stretches between live ticks have another number of trades than those count")
    books_denied = _denied_by_books(kept, books)
    if books_denied:
        reasons.append(f"{books_denied} recovered ticks reach over a volume that a book showed")
    if evidence.anchors_failed:
        reasons.append(f"{evidence.anchors_failed} live ticks have no row in the broker's list")
    if not evidence.chains:
        reasons.append("a list of pages is not whole")
    reasons += evidence.findings
    plain = not reasons
    off_book = _off_book(ticks, coverage, instrument.venue, off, evidence) if missing and len(bars) else []
    # missing shares, minutes and value are one matter; anything else is another
    matters = 1 + bool(off) + (not value_agrees)
    explained = bool(off_book) and _worth(kept, missing, difference) and len(reasons) == matters
    return Certificate(
        symbol=instrument.symbol,
        venue=instrument.venue,
        certificate=_grade(plain, explained, bars, evidence, missing),
        official_volume=total,
        live_ticks=int(ticks["live"].sum()),
        live_shares=int(ticks["size"][ticks["live"]].sum()),
        recovered_ticks=int((~ticks["live"]).sum()),
        recovered_shares=int(ticks["size"][~ticks["live"]].sum()),
        missing_shares=missing,
        doubled_shares=doubled,
        off_book=off_book if explained else [],
        residuals=[f"{korean(minute):%H:%M} {shares:+}" for minute, shares in sorted(off.items())],
        value_difference=difference,
        value_agrees=value_agrees,
        anchors=checked,
        anchors_denied=denied,
        counts=counts,
        counts_denied=counts_denied,
        books_denied=books_denied,
        minutes=len(bars),
        minutes_agree=len(bars) > 0 and not off,
        pages=evidence.pages,
        pages_chain=evidence.chains,
        reasons=[*([evidence.why] if evidence.why and missing else []), *reasons][:REASONS_MOST],
    )


def _grade(plain: bool, explained: bool, bars: np.ndarray, evidence: Evidence, missing: int) -> str:
    if plain:
        return Grade.PROVEN
    if explained:
        return Grade.RECONCILED
    if evidence.why and missing and evidence.session_over and int(bars["volume"].sum()) == evidence.volume:
        return Grade.MINUTE_ONLY
    return Grade.INCOMPLETE


def _value(kept: np.ndarray, evidence: Evidence) -> tuple[int | None, bool]:
    """Official value less that of the ticks, won, and whether that is the rounding of the official one."""
    if evidence.value_m is None:
        return None, False
    own = int((kept["price"] * kept["size"]).sum())
    rounded = int(kept["size"][kept["rounded"]].sum())  # a price half a won off
    difference = evidence.value_m * MILLION - own
    return difference, abs(difference) < MILLION + rounded


def _worth(kept: np.ndarray, shares: int, difference: int | None) -> bool:
    """Whether so many won may be the worth of so many shares off the book: within the price limits of a day with these prices."""
    if difference is None or not len(kept):
        return False
    least, most = shares * int(kept["price"].min()), shares * int(kept["price"].max())
    return least * 7 // 13 - MILLION < difference < most * 13 // 7 + MILLION


def _minutes(kept: np.ndarray, bars: np.ndarray) -> dict[int, int]:
    """Minute -> shares that its bar has more than the ticks, where they differ.

    Brokers need not stamp alike: ticks of the second before or behind the edge of two minutes may count for either, as far as the
    bars say so to the share.
    """
    minutes, where = np.unique(kept["exch_ns"] // MINUTE_NS * MINUTE_NS, return_inverse=True)
    shares = np.zeros(len(minutes), np.int64)
    np.add.at(shares, where, kept["size"])
    off = dict(zip(minutes.tolist(), (-shares).tolist(), strict=True))
    for begin_ns, volume in zip(bars["exch_ns"].tolist(), bars["volume"].tolist(), strict=True):
        off[begin_ns] = off.get(begin_ns, 0) + volume
    for minute in sorted(off):
        edge = minute + MINUTE_NS
        if off[minute] and abs(off[minute]) in _at_edge(kept, edge, behind=off[minute] > 0):
            off[edge], off[minute] = off.get(edge, 0) + off[minute], 0
    return {minute: shares for minute, shares in off.items() if shares}


def _at_edge(kept: np.ndarray, edge: int, behind: bool) -> np.ndarray:
    """Shares of the one, two, three ... ticks next to the edge of two minutes that are stamped within a second of it, where the
    ticks around them are not stamped otherwise."""
    stamps = kept["exch_ns"]
    earliest_after = np.minimum.accumulate(stamps[::-1])[::-1]
    latest_before = np.maximum.accumulate(stamps)
    near = (earliest_after >= edge - SECOND_NS) & (latest_before <= edge)
    sizes = kept["size"][near & (stamps == (edge if behind else edge - SECOND_NS))]
    return np.cumsum(sizes if behind else sizes[::-1])


def _between_live(kept: np.ndarray) -> tuple[int, int]:
    """Live ticks whose value since the live tick before could be checked, and how many of those deny what lies between."""
    checked = denied = 0
    tiled = np.concatenate([[0], np.cumsum(kept["cum_volume"][1:] - kept["size"][1:] != kept["cum_volume"][:-1])])[
        : len(kept)
    ]
    worth = np.cumsum(kept["price"] * kept["size"])
    rounded = np.cumsum(np.where(kept["rounded"], kept["size"], 0))
    for name in ("cum_value", "value_change"):
        known = np.flatnonzero(kept["live"] & (kept[name] != UNDEFINED))
        left, right = known[:-1], known[1:]
        whole = tiled[left] == tiled[right]
        said = kept[name][right] - kept[name][left]
        off = np.abs(said - (worth[right] - worth[left])) > rounded[right] - rounded[left]
        if name == "cum_value" and len(known) and tiled[known[0]] == 0 and kept["cum_volume"][0] == kept["size"][0]:
            checked += 1  # the day begins with nothing
            denied += int(abs(kept[name][known[0]] - worth[known[0]]) > rounded[known[0]])
        checked += int(whole.sum())
        denied += int((off & whole).sum())
    return checked, denied


def _denied_by_books(kept: np.ndarray, books: np.ndarray) -> int:
    """Recovered ticks with a book's cumulative volume inside them: at a book's moment every trade is whole."""
    recovered = kept[~kept["live"]]
    low, high = recovered["cum_volume"] - recovered["size"], recovered["cum_volume"]
    inside = np.searchsorted(books, high, side="left") - np.searchsorted(books, low, side="right")
    return int((inside > 0).sum())


def _off_book(ticks: np.ndarray, coverage: Coverage, venue: str, off: dict[int, int], evidence: Evidence) -> list[str]:
    """The gaps, in words, if every one is volume off the book and the minutes differ by nothing else; else nothing.

    No trade lies in one if the counter of the ticks around it says so, or minute bars that do not hold it and yet hold every row.
    Where no counter tells anything, the broker's list of prints is believed, which carries their cumulative volume.
    """
    kept, gaps, left = ticks[coverage.order], coverage.gaps, dict(off)
    verdicts = trade_count.verdicts(ticks, coverage, venue).tolist()
    begins, ends = kept["cum_volume"] - kept["size"], kept["cum_volume"]
    words = []
    for number, (low, high, shares) in enumerate(gaps[["low", "high", "shares"]].tolist()):
        before, behind = np.searchsorted(ends, low, "right") - 1, np.searchsorted(begins, high)
        since = int(kept["exch_ns"][before]) if before >= 0 else 0
        until = int(kept["exch_ns"][behind]) if behind < len(kept) else None
        held = [
            m for m, more in left.items() if more >= shares and since - MINUTE_NS < m and (until is None or m <= until)
        ]
        if held:
            left[held[0]] -= shares
        listed = (low, high) in {tuple(jump) for jump in evidence.jumps}
        passed = (low, high) in {tuple(jump) for jump in evidence.passed}
        told = verdicts[number] == Verdict.NO_TRADE or not held or (listed and verdicts[number] == Verdict.UNTOLD)
        if verdicts[number] == Verdict.TRADES or not (told and (listed or passed)):
            return []
        clock = " to ".join(f"{korean(ns):%H:%M:%S}" if ns else "the edge of the day" for ns in (since, until))
        words.append(f"{shares} shares (volume {low} to {high}), {clock}")
    return [] if any(left.values()) else words
