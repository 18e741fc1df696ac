"""Fetched rows become the ticks that were missing: the gaps of one instrument's day, filled as far as the rows prove it.

    gaps ─┬─ prints (cumulative volume is theirs) ─place_numbered─┬─> Filled: PRINTS in volume order
          └─ ticks (sizes only) ─place_chart, anchored on live ───┘           what stays open, and why

Promises: pure; a row whose place is not certain, or whose gap contradicts something, is not handed out: a wrong place would hide
the gap from the next run. Only a counter that denies the number of rows does not hold them back, since their shares and won are
right: the certificate will say it.
Leaves to others: placing itself (writer/place.py), fetching (fetch.py), the certificate (certify.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from brokers.history import BARS, PRINTS
from collectorctl.recover.matching.anchors import MINUTE, MINUTE_NS
from collectorctl.recover.matching.placement import (
    CHART,
    NUMBERED,
    Finding,
    PlaceError,
    Reason,
    place_chart,
    place_numbered,
)
from collectorctl.recover.matching.trade_count import doubts, silent_before
from ringbuf.records import PRICE_SCALE, UNDEFINED
from writer.volume.coverage import Coverage, gap_won

ANCHOR = np.dtype([*CHART.descr, ("cum_volume", "<i8")])


class Filled(NamedTuple):
    """What became of the gaps. `findings`: why a gap stays open; `doubts`: what is wrong with gaps that are filled, by volume
    and value rightly; `jumps`: (low, high] that the broker's own list of prints leaves out, off the book; `passed`: (low, high]
    for which a tick chart has no rows, between two that it has; `unclear`: volume without rows that more books could place."""

    prints: np.ndarray
    findings: list[str]
    jumps: list[tuple[int, int]]
    anchors_checked: int = 0
    anchors_failed: int = 0
    doubts: Sequence[str] = ()
    passed: Sequence[tuple[int, int]] = ()
    unclear: bool = False


class Prints(NamedTuple):
    """One list: PRINTS, oldest first. `newest`: it begins with the day's last print; `oldest`: it ends with its first."""

    rows: np.ndarray
    newest: bool
    oldest: bool


def by_prints(ticks: np.ndarray, coverage: Coverage, lists: list[Prints]) -> Filled:
    """Fill from lists of prints, one for each gap."""
    rows = np.concatenate([one.rows for one in lists]) if lists else np.zeros(0, PRINTS)
    placed = place_numbered(coverage.gaps, numbered(rows), _won(ticks, coverage))
    good = placed.accepted & ~np.isin(placed.gap, spoiled(coverage.gaps, rows, placed.gap, placed.errors))
    chosen = rows[good]
    silent = np.concatenate([silent_before(one.rows["exch_ns"]) for one in lists]) if lists else good
    return Filled(
        chosen[np.argsort(chosen["cum_volume"], kind="stable")],
        [words(error) for error in placed.errors],
        sorted({jump for one in lists for jump in _jumps(one, coverage.total)}),
        doubts=doubts(ticks, coverage, chosen, placed.gap[good], silent[good]),
    )


def by_ticks(
    ticks: np.ndarray,
    coverage: Coverage,
    prints: np.ndarray,
    bars: np.ndarray | None,
    from_start: bool,
    books: np.ndarray | None = None,
) -> Filled:
    """Fill from a tick chart of the day (PRINTS without cumulative volume, oldest first); arguments as of place_chart."""
    chart = np.zeros(len(prints), CHART)
    chart["size"], chart["price_e4"], chart["exch_ns"] = (
        prints["size"],
        prints["price"] * PRICE_SCALE,
        prints["exch_ns"],
    )
    anchors = np.zeros(len(ticks), ANCHOR)
    for name in ("size", "exch_ns", "cum_volume"):
        anchors[name] = ticks[name]
    anchors["price_e4"] = ticks["price"] * PRICE_SCALE
    minutes = None
    if bars is not None:
        minutes = np.zeros(len(bars), MINUTE)
        minutes["minute_ns"], minutes["shares"] = bars["exch_ns"], bars["volume"]
    try:
        placed = place_chart(coverage, anchors, chart, _won(ticks, coverage), minutes, from_start, books)
    except PlaceError as error:
        return Filled(np.zeros(0, PRINTS), [str(error)], [])
    exact = placed.rows[placed.rows["exact"]]
    found = prints[exact["row"]].copy()
    found["cum_volume"] = exact["cum_volume"]
    good = ~np.isin(exact["gap"], spoiled(coverage.gaps, found, exact["gap"], placed.findings))
    silent = silent_before(prints["exch_ns"])[exact["row"]]
    return Filled(
        found[good],
        [words(finding) for finding in placed.findings],
        [],
        placed.anchors_checked,
        placed.anchors_failed,
        doubts(ticks, coverage, found[good], exact["gap"][good], silent[good]),
        [(one.low, one.high) for one in placed.residuals if one.reason == Reason.PASSED],
        any(one.reason == Reason.NO_ROWS for one in placed.residuals) and len(prints) > 0,
    )


def _won(ticks: np.ndarray, coverage: Coverage) -> np.ndarray:
    return gap_won(coverage, ticks["price"] * PRICE_SCALE, ticks["size"], ticks["cum_value"], ticks["value_change"])


def numbered(prints: np.ndarray) -> np.ndarray:
    """PRINTS as NUMBERED rows."""
    rows = np.zeros(len(prints), NUMBERED)
    for name in ("size", "exch_ns", "cum_volume", "side"):
        rows[name] = prints[name]
    rows["price_e4"] = prints["price"] * PRICE_SCALE
    for name in ("ask_price_1", "bid_price_1"):
        known = prints[name] != UNDEFINED
        rows[f"{name}_e4"] = np.where(known, np.where(known, prints[name], 0) * PRICE_SCALE, UNDEFINED)
    return rows


def spoiled(gaps: np.ndarray, rows: np.ndarray, gap_of: np.ndarray, findings: list[Finding]) -> list[int]:
    """Indexes of gaps that a finding touches; all of them when one does not say where."""
    found: set[int] = set()
    for finding in findings:
        if finding.low is not None and finding.high is not None:
            touched = (gaps["low"] < finding.high) & (gaps["high"] > finding.low)
            found.update(np.flatnonzero(touched).tolist())
        elif finding.minute_ns is not None:
            minute = rows["exch_ns"] // MINUTE_NS * MINUTE_NS == finding.minute_ns
            found.update(np.unique(gap_of[minute]).tolist())
        else:
            return list(range(len(gaps)))
    return sorted(found)


def _jumps(one: Prints, total: int) -> list[tuple[int, int]]:
    """Where a list leaves volume out: between neighbours, behind the day's last print, before its first."""
    if not len(one.rows):
        return []
    ends, begins = one.rows["cum_volume"], one.rows["cum_volume"] - one.rows["size"]
    lows = np.concatenate([[0] if one.oldest else begins[:1], ends])
    highs = np.append(begins, total if one.newest else ends[-1])
    return [(int(lows[n]), int(highs[n])) for n in np.flatnonzero(highs > lows)]


def words(finding: Finding) -> str:
    """What was found, and where."""
    if finding.low is not None:
        return f"{finding.what} (volume {finding.low} to {finding.high})"
    return f"{finding.what} (minute {finding.minute_ns})" if finding.minute_ns is not None else finding.what


def stored(bars: list[list[int]]) -> np.ndarray:
    """BARS out of the plain numbers they are kept as."""
    return np.array([tuple(bar) for bar in bars], BARS)
