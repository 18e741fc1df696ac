"""Completeness certificate of one instrument's day (pure).

    ticks on disk ──────> do they tile (0, V]?       V, value: day chart       ─┐
          │  └──────sum──> is their value the day's?  minutes:  minute chart     ├─> PROVEN  RECONCILED  RECOVERED_ONLY
          ├────by minute─> are their minutes the bars?                           │   MINUTE_ONLY  INCOMPLETE
          ├────live──────> do value and number of trades between two live ticks? │
          └────books─────> does a book contradict a tick?      pages: whole? ────┘

PROVEN      every check passed, for a day whose sessions are over.
RECONCILED  every check passed but for intervals that the broker's own lists leave out and in which no feed counts a trade: volume
            traded off the book, listed with its place.
RECOVERED_ONLY  either of them, of a day that this home did not collect (`backfill`): no books, no live tick.
MINUTE_ONLY ticks are not available or not wanted; the minute bars add up to the day.
INCOMPLETE  anything else; what is missing is listed by minute.

Guarantees:
    * Equal files give an equal certificate.
    * A check that could not be made counts as failed.
"""

from __future__ import annotations

from datetime import date
from enum import StrEnum

import msgspec
import numpy as np

from collectorctl.recover.matching import trade_count
from collectorctl.recover.matching.day_coverage import DayCoverage
from collectorctl.recover.matching.gap_filling import to_bar_rows
from collectorctl.recover.matching.minutes import compute_minute_excess
from collectorctl.recover.matching.trade_count import Verdict
from collectorctl.recover.store.evidence import Evidence
from conf.clock import MINUTE_NS, to_kst
from conf.instrument import Instrument
from conf.market import Market
from ringbuf.records import UNDEFINED

MILLION = 1_000_000
MAX_REASONS = 40
NOT_COLLECTED = "this home did not collect it: no books, and no live ticks"


class Grade(StrEnum):
    """The grade of a certificate."""

    PROVEN = "PROVEN"
    RECONCILED = "RECONCILED"
    RECOVERED_ONLY = "RECOVERED_ONLY"
    MINUTE_ONLY = "MINUTE_ONLY"
    INCOMPLETE = "INCOMPLETE"


COMPLETE_GRADES = (Grade.PROVEN, Grade.RECONCILED)
"""Of a day that was collected, and of which every trade is stored."""

FINAL_GRADES = (*COMPLETE_GRADES, Grade.RECOVERED_ONLY, Grade.MINUTE_ONLY)
"""Of a day that scheduled recovery does not look at again."""


def best_grades(market: Market) -> tuple[Grade, ...]:
    """Of a day to which recovery has nothing to add: MINUTE_ONLY too, where no list of trades exists."""
    return COMPLETE_GRADES if market.has_trade_lists else (*COMPLETE_GRADES, Grade.MINUTE_ONLY)


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
    overlapping_shares: int = msgspec.field(name="doubled_shares")
    off_book: list[str]
    residuals: list[str]
    value_difference: int | None
    value_agrees: bool
    anchors: int
    anchor_conflicts: int = msgspec.field(name="anchors_denied")  # named as the column on disk
    counts: int
    count_conflicts: int = msgspec.field(name="counts_denied")
    book_conflicts: int = msgspec.field(name="books_denied")
    minutes: int
    minutes_agree: bool
    pages: int
    pages_complete: bool = msgspec.field(name="pages_chain")
    reasons: list[str]
    made_at: str = ""

    def content(self) -> dict[str, object]:
        """Everything but when it was made."""
        fields = msgspec.to_builtins(self)
        del fields["made_at"]
        return fields


def certify(instrument: Instrument, day: date, ticks: np.ndarray, books: np.ndarray, evidence: Evidence) -> Certificate:
    """Certify a day. `ticks`: DAY_TICK as stored; `books`: every cumulative volume of a stored book, ascending."""
    total, covered = evidence.volume, DayCoverage.of(ticks, evidence.volume)
    coverage, placed = covered.coverage, covered.placed
    overlapping = int(coverage.overlaps["high"].sum() - coverage.overlaps["low"].sum())
    missing = int(coverage.gaps["shares"].sum())
    unplaced = int(coverage.unplaced.sum())
    difference, value_agrees = _check_value(placed, evidence)
    value = "is not known" if difference is None else f"differs by {difference:+,} won"
    bars = to_bar_rows(evidence.bars)
    minute_differences = _compare_minutes(placed, bars)
    no_bars = len(bars) == 0 and (total or len(ticks))
    checked, value_conflicts = _check_values(placed)
    counts, count_conflicts = trade_count.check_counts(covered, instrument.venue)
    book_conflicts = _count_book_conflicts(placed, books)
    checks = (
        (total is None, "the official volume is not known"),
        (not evidence.session_over, "the day's sessions were not over"),
        (missing, f"{missing} shares in {len(coverage.gaps)} gaps are missing"),
        (overlapping, f"{overlapping} shares are covered twice"),
        (coverage.excess_shares, f"ticks reach {coverage.excess_shares} shares beyond the official volume"),
        (unplaced, f"{unplaced} ticks have no place in the cumulative volume"),
        (not value_agrees, f"the value {value}"),
        (no_bars, "there are no minute bars"),
        (not no_bars and minute_differences, f"{len(minute_differences)} minutes differ from the minute bars"),
        (
            evidence.unreadable_bars and (missing or minute_differences),
            f"{evidence.unreadable_bars} minute bars cannot be read",
        ),
        (value_conflicts, f"{value_conflicts} stretches between live ticks have another value than the ticks show"),
        (
            count_conflicts,
            f"{count_conflicts} stretches between live ticks have another number of trades than those count",
        ),
        (book_conflicts, f"{book_conflicts} recovered ticks reach over a volume that a book showed"),
        (evidence.anchors_failed, f"{evidence.anchors_failed} live ticks have no row in the broker's list"),
        (not evidence.pages_complete, "a list of pages is incomplete"),
    )
    reasons = [text for failed, text in checks if failed] + evidence.findings
    is_clean = not reasons
    off_book = (
        _explain_off_book(covered, instrument.venue, minute_differences, evidence) if missing and len(bars) else []
    )
    # missing shares, minutes and value are one matter; anything else is another
    expected_reasons = 1 + bool(minute_differences) + (not value_agrees)
    explained = bool(off_book) and _is_plausible_value(placed, missing, difference) and len(reasons) == expected_reasons
    grade = _choose_grade(is_clean, explained, bars, evidence, missing)
    if evidence.backfilled and not len(books) and not ticks["live"].any():
        grade = Grade.RECOVERED_ONLY if grade in COMPLETE_GRADES else grade
        reasons.insert(0, NOT_COLLECTED)
    return Certificate(
        symbol=instrument.symbol,
        venue=instrument.venue,
        certificate=grade,
        official_volume=total,
        live_ticks=int(ticks["live"].sum()),
        live_shares=int(ticks["size"][ticks["live"]].sum()),
        recovered_ticks=int((~ticks["live"]).sum()),
        recovered_shares=int(ticks["size"][~ticks["live"]].sum()),
        missing_shares=missing,
        overlapping_shares=overlapping,
        off_book=off_book if explained else [],
        residuals=[f"{to_kst(minute):%H:%M} {shares:+}" for minute, shares in sorted(minute_differences.items())],
        value_difference=difference,
        value_agrees=value_agrees,
        anchors=checked,
        anchor_conflicts=value_conflicts,
        counts=counts,
        count_conflicts=count_conflicts,
        book_conflicts=book_conflicts,
        minutes=len(bars),
        minutes_agree=len(bars) > 0 and not minute_differences,
        pages=evidence.pages,
        pages_complete=evidence.pages_complete,
        reasons=[*([evidence.skip_reason] if evidence.skip_reason and missing else []), *reasons][:MAX_REASONS],
    )


def _choose_grade(is_clean: bool, explained: bool, bars: np.ndarray, evidence: Evidence, missing: int) -> Grade:
    if is_clean:
        return Grade.PROVEN
    if explained:
        return Grade.RECONCILED
    if evidence.skip_reason and missing and evidence.session_over and int(bars["volume"].sum()) == evidence.volume:
        return Grade.MINUTE_ONLY
    return Grade.INCOMPLETE


def _check_value(placed: np.ndarray, evidence: Evidence) -> tuple[int | None, bool]:
    """Official value less that of the ticks, won, and whether that is the rounding of the official one."""
    if evidence.value_m is None:
        return None, False
    own = int((placed["price"] * placed["size"]).sum())
    rounded = int(placed["size"][placed["rounded"]].sum())  # a price half a won off
    difference = evidence.value_m * MILLION - own
    return difference, abs(difference) < MILLION + rounded


def _is_plausible_value(placed: np.ndarray, shares: int, difference: int | None) -> bool:
    """Whether so many won may be the worth of so many shares off the book: within the price limits of a day with these prices."""
    if difference is None or not len(placed):
        return False
    min_value, max_value = shares * int(placed["price"].min()), shares * int(placed["price"].max())
    return min_value * 7 // 13 - MILLION < difference < max_value * 13 // 7 + MILLION


def _compare_minutes(placed: np.ndarray, bars: np.ndarray) -> dict[int, int]:
    """Minute -> shares that its bar has more than the ticks, where they differ."""
    minutes, excess = compute_minute_excess(
        placed["exch_ns"], placed["size"], bars["exch_ns"], bars["volume"], settle_edges=True
    )
    return {minute: -shares for minute, shares in zip(minutes.tolist(), excess.tolist(), strict=True) if shares}


def _check_values(placed: np.ndarray) -> tuple[int, int]:
    """Live ticks whose value since the live tick before could be checked, and how many contradict what lies between."""
    checked = conflicts = 0
    discontinuities = np.concatenate(
        [[0], np.cumsum(placed["cum_volume"][1:] - placed["size"][1:] != placed["cum_volume"][:-1])]
    )[: len(placed)]
    worth = np.cumsum(placed["price"] * placed["size"])
    rounded = np.cumsum(np.where(placed["rounded"], placed["size"], 0))
    for name in ("cum_value", "value_change"):
        known = np.flatnonzero(placed["live"] & (placed[name] != UNDEFINED))
        left, right = known[:-1], known[1:]
        whole = discontinuities[left] == discontinuities[right]
        reported = placed[name][right] - placed[name][left]
        off = np.abs(reported - (worth[right] - worth[left])) > rounded[right] - rounded[left]
        if (
            name == "cum_value"
            and len(known)
            and discontinuities[known[0]] == 0
            and placed["cum_volume"][0] == placed["size"][0]
        ):
            checked += 1  # the day begins with nothing
            conflicts += int(abs(placed[name][known[0]] - worth[known[0]]) > rounded[known[0]])
        checked += int(whole.sum())
        conflicts += int((off & whole).sum())
    return checked, conflicts


def _count_book_conflicts(placed: np.ndarray, books: np.ndarray) -> int:
    """Recovered ticks with a book's cumulative volume inside them: at the time of a book every trade is complete."""
    recovered = placed[~placed["live"]]
    low, high = recovered["cum_volume"] - recovered["size"], recovered["cum_volume"]
    inside = np.searchsorted(books, high, side="left") - np.searchsorted(books, low, side="right")
    return int((inside > 0).sum())


def _explain_off_book(day: DayCoverage, venue: str, differences: dict[int, int], evidence: Evidence) -> list[str]:
    """The gaps, as messages, if every one is volume off the book and the minutes differ by nothing else; else nothing.

    A gap has no trade if the counter of the ticks around it shows none, or if minute bars with every row do not contain it.
    Without a counter, the broker's list of trades is used, which has their cumulative volume.
    """
    placed, unexplained = day.placed, dict(differences)
    verdicts = trade_count.compute_verdicts(day, venue).tolist()
    begins, ends = placed["cum_volume"] - placed["size"], placed["cum_volume"]
    descriptions = []
    for number, (low, high, shares) in enumerate(day.gaps[["low", "high", "shares"]].tolist()):
        before, behind = np.searchsorted(ends, low, "right") - 1, np.searchsorted(begins, high)
        since = int(placed["exch_ns"][before]) if before >= 0 else 0
        until = int(placed["exch_ns"][behind]) if behind < len(placed) else None
        bars_with_volume = [
            m
            for m, more in unexplained.items()
            if more >= shares and since - MINUTE_NS < m and (until is None or m <= until)
        ]
        if bars_with_volume:
            unexplained[bars_with_volume[0]] -= shares
        listed = (low, high) in {tuple(jump) for jump in evidence.omitted}
        rowless = (low, high) in {tuple(jump) for jump in evidence.rowless}
        has_no_trade = (
            verdicts[number] == Verdict.NO_TRADE
            or not bars_with_volume
            or (listed and verdicts[number] == Verdict.UNKNOWN)
        )
        if verdicts[number] == Verdict.TRADES or not (has_no_trade and (listed or rowless)):
            return []
        time_range = " to ".join(f"{to_kst(ns):%H:%M:%S}" if ns else "the edge of the day" for ns in (since, until))
        descriptions.append(f"{shares} shares (volume {low} to {high}), {time_range}")
    return [] if any(unexplained.values()) else descriptions
