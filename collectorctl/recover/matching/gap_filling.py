"""Fetched rows turned into the missing ticks of one instrument's day (pure).

    gaps ─┬─ trades (with cumulative volume) ───────place_numbered─┬─> FillResult: rows in volume order
          └─ chart rows (sizes only) ─place_chart, anchored on live ┘               what stays open, and why

Guarantees:
    * A row whose place is not certain, or whose gap contradicts something, is not used: a wrong place would hide the gap from
      the next run.
    * Only a trade count that contradicts the number of rows does not exclude them, since their shares and value are right;
      the certificate reports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from brokers.history import BAR_ROW, TRADE_ROW
from collectorctl.recover.matching.anchors import MINUTE
from collectorctl.recover.matching.day_coverage import DayCoverage
from collectorctl.recover.matching.placement import (
    Inconsistency,
    PlacementError,
    Reason,
    place_by_alignment,
    place_by_volume,
)
from collectorctl.recover.matching.trade_count import can_be_auction, find_count_mismatches
from conf.clock import MINUTE_NS


class FillResult(NamedTuple):
    """The outcome for an instrument's gaps.

    Attributes:
        trades: rows that fill gaps.
        day: the day with them.
        findings: why gaps stay open.
        omitted: (low, high] that the broker's own list of trades leaves out: traded off the book.
        anchors_checked: anchors that could be compared with a live tick; `anchors_failed`: those that differ.
        mismatches: what is wrong with gaps whose volume and value are filled exactly.
        rowless: (low, high] between two rows of a tick chart that has no row for them.
        needs_books: more stored books could place volume that has no rows.
    """

    trades: np.ndarray
    day: DayCoverage
    findings: list[str]
    omitted: Sequence[tuple[int, int]] = ()
    anchors_checked: int = 0
    anchors_failed: int = 0
    mismatches: Sequence[str] = ()
    rowless: Sequence[tuple[int, int]] = ()
    needs_books: bool = False


class TradeList(NamedTuple):
    """One list: TRADE_ROW, oldest first; whether it begins with the day's last trade, and ends with its first."""

    rows: np.ndarray
    reaches_day_end: bool
    reaches_day_start: bool


def fill_by_trades(day: DayCoverage, trade_lists: list[TradeList], venue: str) -> FillResult:
    """Fill from lists of trades of `venue`, one for each gap."""
    rows = np.concatenate([one.rows for one in trade_lists]) if trade_lists else np.zeros(0, TRADE_ROW)
    placed = place_by_volume(day.gaps, rows, day.gap_values)
    good = placed.accepted & ~np.isin(
        placed.gap, find_inconsistent_gaps(day.gaps, rows, placed.gap, placed.inconsistencies)
    )
    chosen = rows[good]
    auction = (
        np.concatenate([can_be_auction(one.rows["exch_ns"], venue) for one in trade_lists]) if trade_lists else good
    )
    return FillResult(
        chosen[np.argsort(chosen["cum_volume"], kind="stable")],
        day.with_fills(chosen),
        [format_inconsistency(error) for error in placed.inconsistencies],
        sorted({interval for one in trade_lists for interval in _find_omitted(one, day.coverage.total)}),
        mismatches=find_count_mismatches(day, chosen, placed.gap[good], auction[good]),
    )


def fill_by_chart(
    day: DayCoverage,
    chart_rows: np.ndarray,
    stored_bars: list[list[int]],
    from_start: bool,
    venue: str,
    books: np.ndarray | None = None,
) -> FillResult:
    """Fill from a tick chart of the day on `venue` (TRADE_ROW without cumulative volume, oldest first), as place_chart does."""
    minutes = None
    if stored_bars:
        bars = to_bar_rows(stored_bars)
        minutes = np.zeros(len(bars), MINUTE)
        minutes["minute_ns"], minutes["shares"] = bars["exch_ns"], bars["volume"]
    try:
        placed = place_by_alignment(day.coverage, day.ticks, chart_rows, day.gap_values, minutes, from_start, books)
    except PlacementError as error:
        return FillResult(np.zeros(0, TRADE_ROW), day, [str(error)])
    exact = placed.rows[placed.rows["exact"]]
    found = chart_rows[exact["row"]]
    found["cum_volume"] = exact["cum_volume"]
    good = ~np.isin(exact["gap"], find_inconsistent_gaps(day.gaps, found, exact["gap"], placed.inconsistencies))
    auction = can_be_auction(chart_rows["exch_ns"], venue)[exact["row"]]
    return FillResult(
        found[good],
        day.with_fills(found[good]),
        [format_inconsistency(inconsistency) for inconsistency in placed.inconsistencies],
        [],
        placed.anchors_checked,
        placed.anchors_failed,
        find_count_mismatches(day, found[good], exact["gap"][good], auction[good]),
        [(one.low, one.high) for one in placed.uncovered if one.reason == Reason.ROWLESS_BETWEEN_ROWS],
        any(one.reason == Reason.NO_ROWS for one in placed.uncovered) and len(chart_rows) > 0,
    )


def find_inconsistent_gaps(
    gaps: np.ndarray, rows: np.ndarray, gap_of: np.ndarray, inconsistencies: list[Inconsistency]
) -> list[int]:
    """Indexes of gaps that a finding concerns; all of them when it names none."""
    found: set[int] = set()
    for inconsistency in inconsistencies:
        if inconsistency.low is not None and inconsistency.high is not None:
            touched = (gaps["low"] < inconsistency.high) & (gaps["high"] > inconsistency.low)
            found.update(np.flatnonzero(touched).tolist())
        elif inconsistency.minute_ns is not None:
            minute = rows["exch_ns"] // MINUTE_NS * MINUTE_NS == inconsistency.minute_ns
            found.update(np.unique(gap_of[minute]).tolist())
        else:
            return list(range(len(gaps)))
    return sorted(found)


def _find_omitted(trade_list: TradeList, total: int) -> list[tuple[int, int]]:
    """Where a list leaves volume out: between neighbours, behind the day's last trade, before its first."""
    if not len(trade_list.rows):
        return []
    ends, begins = trade_list.rows["cum_volume"], trade_list.rows["cum_volume"] - trade_list.rows["size"]
    lows = np.concatenate([[0] if trade_list.reaches_day_start else begins[:1], ends])
    highs = np.append(begins, total if trade_list.reaches_day_end else ends[-1])
    return [(int(lows[n]), int(highs[n])) for n in np.flatnonzero(highs > lows)]


def format_inconsistency(inconsistency: Inconsistency) -> str:
    """What was found, and where."""
    if inconsistency.low is not None:
        return f"{inconsistency.message} (volume {inconsistency.low} to {inconsistency.high})"
    return (
        f"{inconsistency.message} (minute {inconsistency.minute_ns})"
        if inconsistency.minute_ns is not None
        else inconsistency.message
    )


def to_bar_rows(bars: list[list[int]]) -> np.ndarray:
    """BAR_ROW from the stored plain numbers."""
    return np.array([tuple(bar) for bar in bars], BAR_ROW)
