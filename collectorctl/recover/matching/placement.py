"""Placement of fetched rows into gaps of cumulative volume (pure).

    live          [ t0 ][ t1 ]                    [ t2 ][ t3 ]      one symbol, venue, day; intervals of cumulative volume
    gaps          .           (gap 0             ]                  what no tick covers
    rows                      [ 7 ][ 7 ][ 2 ][ 9 ]                  a gap is filled by the rows whose sizes are exactly its shares

Guarantees:
    * Rows are never identified by (time, price, size): equal trades in one second each get their place.
    * A row is in at most one gap. A contradiction is an inconsistency, and what stays uncovered is reported.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from collectorctl.recover.matching import alignment
from collectorctl.recover.matching.anchors import BOOK_VOLUME, Anchor, anchors_from_bars
from collectorctl.recover.matching.anchors import anchors_between as steps_between
from collectorctl.recover.matching.minutes import compute_minute_excess
from conf.clock import MINUTE_NS, SECOND_NS
from ringbuf.records import UNDEFINED
from writer.volume.coverage import Coverage, OverlapKind, compute_coverage

_CHART_FIELDS = ("size", "price", "exch_ns")

PLACED_ROW = np.dtype([*((name, "<i8") for name in (*_CHART_FIELDS, "cum_volume", "row", "gap")), ("exact", "?")])
"""A chart row with its place: `row` its index in the given rows, `gap` the index of its gap. Not `exact`: it belongs to the gap,
but volume without rows passed before, between or behind its rows, and is placed behind them. Exact assumes that the rows lack no
trade that was received live; otherwise some live tick fails, or a range stays uncovered."""


STAMP_TOLERANCE_NS = SECOND_NS
"""How far apart the stamps of one trade by two brokers may be. Tolerated only where ticks have no rows of their own second."""


class PlacementError(ValueError):
    """Rows that are no trades; the message names them."""


class Reason(StrEnum):
    """Why an interval stays uncovered."""

    ROWLESS_BETWEEN_ROWS = "volume without rows, between two rows: off-book, or just these rows are missing"
    NO_ROWS = "volume without rows: off-book, or rows are missing"
    NOT_ANCHORED = "a neighbouring live tick has no rows"
    AMBIGUOUS = "volume without rows lies here or in another gap"
    NOT_FETCHED = "outside the time the rows cover"


class UncoveredRange(NamedTuple):
    """(low, high] that stays uncovered."""

    low: int
    high: int
    reason: Reason


class Inconsistency(NamedTuple):
    """A contradiction, with the interval (low, high] or the minute where it was found, if any."""

    message: str
    low: int | None = None
    high: int | None = None
    minute_ns: int | None = None


class VolumePlacement(NamedTuple):
    """Of m rows, shape (m,): `accepted`, `covered` bool, `gap` int64, -1 for none; the other rows are in `inconsistencies`."""

    accepted: np.ndarray
    covered: np.ndarray
    gap: np.ndarray
    inconsistencies: list[Inconsistency]


class Placement(NamedTuple):
    """The result for chart rows: PLACED_ROW in volume order; uncovered ranges, ascending; live ticks checked, and failed."""

    rows: np.ndarray
    uncovered: list[UncoveredRange]
    inconsistencies: list[Inconsistency]
    anchors_checked: int
    anchors_failed: int

    @property
    def is_clean(self) -> bool:
        """Every gap is filled, every row is where it is, nothing contradicts."""
        return (
            not self.uncovered
            and not self.inconsistencies
            and not self.anchors_failed
            and bool(self.rows["exact"].all())
        )


def place_by_volume(gaps: np.ndarray, rows: np.ndarray, values: np.ndarray | None = None) -> VolumePlacement:
    """Accept rows (TRADE_ROW, any order) that lie wholly in a gap (GAP, ascending), each interval once and the finest.

    Rows that lie wholly in covered volume are `covered`, as are copies; a row over the edge of a gap, two different rows for one
    interval and rows that cross are errors. `values`: what each gap is worth in won (int64, UNDEFINED unknown): a gap that the
    accepted rows fill must be worth it.
    """
    high = rows["cum_volume"]
    coverage = compute_coverage(high, rows["size"], None)
    low = high - rows["size"]
    at = np.searchsorted(gaps["high"], low, side="right") if len(gaps) else np.zeros(len(rows), np.int64)
    some = at < len(gaps)
    gap_low = np.where(some, gaps["low"][np.where(some, at, 0)], high) if len(gaps) else high
    gap_high = np.where(some, gaps["high"][np.where(some, at, 0)], high) if len(gaps) else high
    touches = some & (high > gap_low)
    inside = touches & (low >= gap_low) & (high <= gap_high)
    accepted = inside & coverage.keep
    covered = ~accepted & ~coverage.unplaced & (~touches | inside)
    inconsistencies = [
        Inconsistency("a row reaches over the edge of a gap", int(low[n]), int(high[n]))
        for n in np.flatnonzero(touches & ~inside & coverage.keep)
    ]
    inconsistencies += [
        Inconsistency(f"row {n} has no interval: size or cumulative volume") for n in np.flatnonzero(coverage.unplaced)
    ]
    inconsistencies += _find_conflicts(rows, coverage)
    if values is not None and len(gaps):
        inconsistencies += _find_wrong_values(gaps, at[accepted], rows[accepted], values)
    return VolumePlacement(accepted, covered, np.where(accepted, at, -1), inconsistencies)


def place_by_alignment(
    coverage: Coverage,
    live: np.ndarray,
    rows: np.ndarray,
    values: np.ndarray | None = None,
    minute_volume: np.ndarray | None = None,
    from_start: bool = True,
    book_volumes: np.ndarray | None = None,
) -> Placement:
    """Give chart rows of one day (TRADE_ROW, oldest first) their cumulative volume and put them into the gaps of `coverage`.

    Args:
        coverage: of the day.
        live: its n ticks, any structured array with cum_volume, size, price, exch_ns.
        rows: TRADE_ROW; side, quotes and cumulative volume are not used.
        values: won per gap (coverage.compute_gap_values).
        minute_volume: MINUTE bars of the whole day; live and placed ticks must agree with each, but for volume without rows. If
            they sum to the official volume they also bound the minute in which such volume passed.
        from_start: whether the first row is the day's first trade (a row of an older day precedes it).
        book_volumes: BOOK_VOLUME of stored books, ascending; closer bounds for volume without rows.

    Raises:
        PlacementError: a row is no trade.
    """
    if len(rows) and rows["size"].min() <= 0:
        raise PlacementError(f"row {int(rows['size'].argmin())} of {len(rows)} has no size: not a trade")
    chart = alignment.build_chart_rows(rows["size"], rows["price"], rows["exch_ns"])
    ticks = _build_live_ticks(coverage, live)
    rest = coverage.total - int(chart.edges[-1])
    ended = coverage.official and rest >= 0 and not coverage.excess_shares
    found = alignment.align(chart, ticks, 0, rest if ended else alignment.NO_BOUND, from_start, ended)
    stamps_differ = False
    if (found.checked & ~found.matches).any():
        arguments = chart, ticks, 0, rest if ended else alignment.NO_BOUND, from_start, ended
        tolerant = alignment.align(*arguments, tolerance_ns=STAMP_TOLERANCE_NS)
        stamps_differ = not (tolerant.checked & ~tolerant.matches).any()
        found = tolerant if stamps_differ else found
    anchors = _collect_anchors(ticks, found, coverage.total, from_start, rest if ended else None)
    inconsistencies = _find_out_of_order(rows, rest if coverage.official else 0) + _find_missing_rows(
        coverage.gaps, ticks, anchors
    )
    bars = anchors_from_bars(chart, minute_volume, coverage) if minute_volume is not None else []
    known_book_volumes = np.zeros(0, BOOK_VOLUME) if book_volumes is None else book_volumes
    placed, uncovered, spans = _fill_gaps(coverage.gaps, ticks, chart, rows, anchors, found, (bars, known_book_volumes))
    if values is not None:
        inconsistencies += _find_wrong_values(coverage.gaps, placed["gap"], placed, values)
    if minute_volume is not None:
        high, exch_ns, size = (
            np.concatenate([live[name][coverage.order], placed[name]]) for name in ("cum_volume", "exch_ns", "size")
        )
        order = np.argsort(high, kind="stable")
        excess = compute_minute_excess(
            exch_ns[order], size[order], minute_volume["minute_ns"], minute_volume["shares"], stamps_differ
        )
        inconsistencies += _find_minute_inconsistencies(*excess, spans)
    return Placement(
        placed, uncovered, inconsistencies, int(found.checked.sum()), int((found.checked & ~found.matches).sum())
    )


def _find_minute_inconsistencies(
    minutes: np.ndarray, excess: np.ndarray, spans: list[_RowlessSpan]
) -> list[Inconsistency]:
    """Minutes that disagree, but for the volume without rows that passed in a span of time."""
    for span in spans:
        left = span.shares
        begin, end = np.searchsorted(minutes, [span.begin_ns // MINUTE_NS * MINUTE_NS, span.end_ns + 1])
        for at in begin + np.flatnonzero(excess[begin:end] < 0):
            deducted = min(left, -int(excess[at]))
            excess[at] += deducted
            left -= deducted
    wrong = np.flatnonzero(excess)
    return [Inconsistency(f"{excess[n]:+} shares against the minute bar", minute_ns=int(minutes[n])) for n in wrong]


class _RowlessSpan(NamedTuple):
    """Volume without rows: how much, and when it passed, ns since 1970 UTC."""

    shares: int
    begin_ns: int
    end_ns: int


class _Anchors(NamedTuple):
    """Places that are certain: position in the ticks (-1 the day's beginning, n its end), its interval, its offset."""

    position: np.ndarray
    low: np.ndarray
    high: np.ndarray
    offset: np.ndarray


def _build_live_ticks(coverage: Coverage, live: np.ndarray) -> alignment.LiveTicks:
    high, size, price, exch_ns = (live[name][coverage.order] for name in ("cum_volume", "size", "price", "exch_ns"))
    low = high - size
    joined = np.zeros(len(high), bool)
    joined[1:] = low[1:] == high[:-1]
    return alignment.LiveTicks(low, high, price, exch_ns, joined)


def _collect_anchors(
    ticks: alignment.LiveTicks, found: alignment.Alignment, total: int, from_start: bool, end_offset: int | None
) -> _Anchors:
    at = np.flatnonzero(found.certain)
    table = np.stack([at, ticks.low[at], ticks.high[at], found.offset[at]])
    first = np.array([[-1, 0, 0, 0]]).T if from_start else np.zeros((4, 0), np.int64)
    last = np.zeros((4, 0), np.int64)
    if end_offset is not None:
        last = np.array([[len(ticks.low), total, total, end_offset]]).T
    return _Anchors(*np.concatenate([first, table, last], axis=1))


def _find_out_of_order(rows: np.ndarray, rest: int) -> list[Inconsistency]:
    """Rows that cannot be of one day, judged by themselves."""
    found = []
    if rest < 0:
        found.append(Inconsistency(f"the rows sum to {-rest} shares more than the day's volume"))
    back = np.flatnonzero(np.diff(rows["exch_ns"]) < 0)
    if len(back):
        found.append(Inconsistency(f"row {int(back[0]) + 1} is earlier than the one before it; {len(back)} such rows"))
    return found


def _find_missing_rows(gaps: np.ndarray, ticks: alignment.LiveTicks, anchors: _Anchors) -> list[Inconsistency]:
    """Neighbouring anchors between which more volume has no rows than the gaps between them hold: live ticks without rows."""
    shares = np.concatenate([[0], np.cumsum(gaps["shares"])])
    through = shares[np.searchsorted(np.searchsorted(ticks.low, gaps["high"]), anchors.position, "right")]
    step = np.diff(anchors.offset)
    return [
        Inconsistency(
            f"the rows lack {step[n]} shares of the live ticks", int(anchors.high[n]), int(anchors.low[n + 1])
        )
        for n in np.flatnonzero(step > np.diff(through))
    ]


def _fill_gaps(
    gaps: np.ndarray,
    ticks: alignment.LiveTicks,
    chart: alignment.ChartRows,
    rows: np.ndarray,
    anchors: _Anchors,
    found: alignment.Alignment,
    extra_anchors: tuple[list[Anchor], np.ndarray],
) -> tuple[np.ndarray, list[UncoveredRange], list[_RowlessSpan]]:
    """The rows of every gap between two anchors; what stays uncovered; volume without rows."""
    next_ = np.searchsorted(ticks.low, gaps["high"])
    left = np.searchsorted(anchors.position, next_ - 1)
    anchored = (left + 1 < len(anchors.position)) & (len(rows) > 0)
    left = np.where(anchored, left, 0)
    if anchored.any():
        right = np.where(anchored, left + 1, 0)
        anchored &= anchors.position[right] == next_  # then `left` is the tick before it
        anchored &= anchors.offset[right] - anchors.offset[left] <= gaps["shares"]
    chosen = np.flatnonzero(anchored)
    left = left[chosen]
    offset, jump = anchors.offset[left], anchors.offset[left + 1] - anchors.offset[left]
    begin = np.searchsorted(chart.edges, gaps["low"][chosen] - offset)
    end = np.searchsorted(chart.edges, gaps["high"][chosen] - offset - jump)
    uncovered, spans, pieces = [], [], []
    for at in np.flatnonzero(jump).tolist():
        ends = (int(begin[at]), int(offset[at])), (int(end[at]), int(offset[at] + jump[at]))
        anchor_points = steps_between(chart, *ends, *extra_anchors)
        for (first, before), (last, after) in pairwise(anchor_points):
            pieces.append((first, last, before, chosen[at], before == after))
            if before < after:
                high = int(chart.edges[last]) + after
                reason = Reason.ROWLESS_BETWEEN_ROWS if first == last else Reason.NO_ROWS
                uncovered.append(UncoveredRange(high - (after - before), high, reason))
                spans.append(_RowlessSpan(after - before, *_time_between(chart, first, last)))
    whole = jump == 0
    table = np.array([begin[whole], end[whole], offset[whole], chosen[whole], np.ones(int(whole.sum()), np.int64)])
    table = np.concatenate([table, np.array(pieces, np.int64).reshape(-1, 5).T], axis=1)
    placed = _build_placed_rows(chart, rows, table[:, np.argsort(table[0], kind="stable")])
    for number in np.flatnonzero(~anchored).tolist():
        low, high = gaps[number][["low", "high"]].tolist()
        uncovered.append(UncoveredRange(low, high, _find_reason(int(next_[number]), found, len(rows))))
    return placed, sorted(uncovered), spans


def _time_between(chart: alignment.ChartRows, first: int, last: int) -> tuple[int, int]:
    """The seconds of the rows around rows first .. last (exclusive)."""
    begin_ns = int(chart.second[first - 1]) if first else 0
    return begin_ns, int(chart.second[last]) if last < len(chart.second) else alignment.NO_BOUND


def _build_placed_rows(chart: alignment.ChartRows, rows: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """PLACED_ROW rows of the ranges begin[i] .. end[i] (exclusive), which lie in gap[i] at offset[i]."""
    begin, end, offset, gap, exact = ranges
    lengths = end - begin
    number = np.repeat(np.arange(len(begin)), lengths)
    at = np.arange(len(number)) + np.repeat(begin - (np.cumsum(lengths) - lengths), lengths)
    placed = np.zeros(len(at), PLACED_ROW)
    for name in _CHART_FIELDS:
        placed[name] = rows[name][at]
    placed["cum_volume"] = chart.edges[at + 1] + offset[number]
    placed["row"], placed["gap"], placed["exact"] = at, gap[number], exact[number]
    return placed


def _find_reason(next_: int, found: alignment.Alignment, rows: int) -> Reason:
    """Why the gap before tick `next_` could not be filled."""
    neighbours = [n for n in (next_ - 1, next_) if 0 <= n < len(found.certain)]
    if not rows:
        return Reason.NO_ROWS
    if any(not found.checked[n] for n in neighbours):
        return Reason.NOT_FETCHED
    if neighbours and all(found.matches[n] for n in neighbours):
        return Reason.AMBIGUOUS
    return Reason.NOT_ANCHORED


def _find_conflicts(rows: np.ndarray, coverage: Coverage) -> list[Inconsistency]:
    """Two rows for one interval that are not copies, and rows that cross."""
    found = []
    for low, high, first, second, kind in coverage.overlaps.tolist():
        same = all(rows[name][first] == rows[name][second] for name in ("price", "exch_ns", "side"))
        if kind == OverlapKind.CROSSED or (kind == OverlapKind.SAME and not same):
            found.append(Inconsistency("two different rows for the same volume", low, high))
    return found


def _find_wrong_values(gaps: np.ndarray, gap: np.ndarray, rows: np.ndarray, values: np.ndarray) -> list[Inconsistency]:
    """Gaps filled by `rows` (row i lies in gap[i]) with another value than the rows, to the won."""
    shares, value = (np.zeros(len(gaps), np.int64) for _ in range(2))
    np.add.at(shares, gap, rows["size"])
    np.add.at(value, gap, rows["size"] * rows["price"])
    known = (values != UNDEFINED) & (shares == gaps["shares"])
    excess = np.where(known, value - np.where(known, values, 0), 0)
    return [
        Inconsistency(
            f"rows are worth {excess[n]:+,} won against the ticks around them",
            *gaps[n][["low", "high"]].tolist(),
        )
        for n in np.flatnonzero(excess)
    ]
