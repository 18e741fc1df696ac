"""Queue of open gaps for the gap filler (pure).

    volume.json ──update──> waiting ─settle_s─> next ──> fetched ─┬─ failed: again later, behind all others, `attempts` times
                             ^                                 └─ published: absent from the next report, or it waits again
                             └── absent from the report: filled, by gapfill or by late ticks

Guarantees:
    * Newest first, within a minute the most valuable first.
    * A gap out of reach, or one that failed too often, is not fetched; a gap whose rows were published is not fetched again
      before a later report lists it as open.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from conf.clock import MINUTE_NS
from conf.instrument import Instrument
from writer.volume.gaps import GapReport

CONFIRM_TIMEOUT_S = 15.0
"""The writer publishes its gaps every five seconds; a gap still open so long after publishing its rows was not accepted."""
RETRY_DELAY_S = 30.0
"""Pause after an attempt that brought no proof: the broker's list may lag behind its stream."""


class GapfillLimits(NamedTuple):
    """Settings: seconds a gap rests first, attempts, and how many trades the calls for one gap reach."""

    settle_s: float
    attempts: int
    max_trades: int


class FillableGap(NamedTuple):
    """(low, high] of an instrument's day; value and trades None where the ticks around it have none; times of those ticks."""

    instrument: Instrument
    day: str
    low: int
    high: int
    value: int | None
    trades: int | None
    begin_ns: int
    end_ns: int


@dataclass
class _GapState:
    since_s: float
    attempts: int = 0
    not_before_s: float = 0.0
    published_s: float | None = None


@dataclass
class QueueUpdate:
    """Changes by a report: published gaps that are filled now; gaps beyond reach, seen for the first time."""

    filled: list[FillableGap]
    too_large: list[FillableGap]


class GapQueue:
    """What is known of open gaps; times in monotonic seconds."""

    def __init__(self, limits: GapfillLimits) -> None:
        self._limits = limits
        self._states: dict[FillableGap, _GapState] = {}
        self._too_large: set[FillableGap] = set()

    def update(self, report: GapReport, day: str, now_s: float) -> QueueUpdate:
        """A new report; only gaps of `day` (YYYY-MM-DD) wait."""
        fillable = {gap for gap in _fillable_gaps(report) if gap.day == day}
        too_large = {gap for gap in fillable if (gap.trades or 0) > self._limits.max_trades}
        new_too_large = sorted(too_large - self._too_large)
        self._too_large = too_large
        filled = sorted(gap for gap, known in self._states.items() if gap not in fillable and known.published_s)
        self._states = {gap: self._states.get(gap) or _GapState(now_s) for gap in sorted(fillable - too_large)}
        for known in self._states.values():
            if known.published_s is not None and now_s > known.published_s + CONFIRM_TIMEOUT_S:
                known.published_s = None
        return QueueUpdate(filled, new_too_large)

    def next_gap(self, venues: Collection[str], now_s: float) -> FillableGap | None:
        """The gap to fetch now, of venues that are in session; None for none."""
        due = [
            (known.attempts, -(gap.end_ns // MINUTE_NS), -(gap.value or 0), gap)
            for gap, known in self._states.items()
            if gap.instrument.venue in venues and self._is_eligible(known) and now_s >= self._due_s(known)
        ]
        return min(due)[-1] if due else None

    def open_gaps_of(self, gap: FillableGap) -> list[FillableGap]:
        """This gap and the others of its instrument that its rows may fill, ascending."""
        return [
            other
            for other, known in self._states.items()
            if other.instrument == gap.instrument and self._is_eligible(known)
        ]

    def mark_published(self, gap: FillableGap, now_s: float) -> None:
        """Its rows are on their way to the writer."""
        state = self._states[gap]
        state.published_s = now_s
        state.attempts += 1

    def mark_failed(self, gap: FillableGap, now_s: float, permanently: bool = False) -> bool:
        """What came did not fill it; whether it is given up."""
        state = self._states[gap]
        state.attempts = self._limits.attempts if permanently else state.attempts + 1
        state.not_before_s = now_s + RETRY_DELAY_S
        return state.attempts >= self._limits.attempts

    def __len__(self) -> int:
        """How many may still be asked for."""
        return sum(self._is_eligible(known) for known in self._states.values())

    def _is_eligible(self, state: _GapState) -> bool:
        return state.published_s is None and state.attempts < self._limits.attempts

    def _due_s(self, state: _GapState) -> float:
        return max(state.since_s + self._limits.settle_s, state.not_before_s)


def _fillable_gaps(report: GapReport) -> list[FillableGap]:
    """The open gaps of the newest day that nothing but fetching can fill."""
    return [
        FillableGap(
            Instrument(symbol.symbol, symbol.venue),
            symbol.day,
            gap.low,
            gap.high,
            gap.value,
            gap.trades,
            gap.begin_ns,
            gap.end_ns,
        )
        for symbol in report.newest_day()
        for gap in symbol.open
        if gap.is_fillable(symbol.start) and gap.end_ns
    ]
