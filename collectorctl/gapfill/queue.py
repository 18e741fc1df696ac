"""The gaps that wait to be asked for, and which comes next.

    volume.json ──hear──> waiting ──settle_s──> next ──> asked ─┬─ failed: again later, behind all others; `attempts` times at most
                             ^                                  └─ handed over: gone from the next report, or it waits again
                             └── gone from the report: filled, by us or by ticks that came late

Promises: pure; newest first, of those of one minute the most valuable; what cannot be reached or failed too often is not asked
for; what was handed over is not asked for again before a later report says that it is still open.
Leaves to others: asking (filler.py), whether rows fill a gap (proof.py).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from conf.instrument import Instrument
from writer.volume.gap_tracker import Report

CONFIRM_S = 15.0
"""The writer tells its gaps every five seconds; one that is still there so long after it was handed over was not taken."""
AGAIN_S = 30.0
"""Pause after an attempt that brought no proof: the broker's list may lag behind its stream."""
MINUTE_NS = 60_000_000_000


class Limits(NamedTuple):
    """Settings: seconds a gap rests first, attempts, and how many trades the calls for one gap reach."""

    settle_s: float
    attempts: int
    trades_most: int


class Gap(NamedTuple):
    """(low, high] of an instrument's day; `won`, `trades` None where the ticks around it do not tell; times: of those ticks."""

    instrument: Instrument
    day: str
    low: int
    high: int
    won: int | None
    trades: int | None
    begin_ns: int
    end_ns: int


@dataclass
class _Known:
    since_s: float
    attempts: int = 0
    not_before_s: float = 0.0
    handed_over_s: float | None = None


@dataclass
class Heard:
    """What a report changed: gaps that are filled now and were handed over; gaps that are beyond reach, seen for the first time."""

    filled: list[Gap]
    beyond: list[Gap]


class Waiting:
    """What is known of open gaps; times in monotonic seconds."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._known: dict[Gap, _Known] = {}
        self._beyond: set[Gap] = set()

    def hear(self, report: Report, day: str, now_s: float) -> Heard:
        """A new report; only gaps of `day` (YYYY-MM-DD) wait."""
        fillable = {gap for gap in _gaps(report) if gap.day == day}
        beyond = {gap for gap in fillable if (gap.trades or 0) > self._limits.trades_most}
        new_beyond = sorted(beyond - self._beyond)
        self._beyond = beyond
        filled = sorted(gap for gap, known in self._known.items() if gap not in fillable and known.handed_over_s)
        self._known = {gap: self._known.get(gap) or _Known(now_s) for gap in sorted(fillable - beyond)}
        for known in self._known.values():
            if known.handed_over_s is not None and now_s > known.handed_over_s + CONFIRM_S:
                known.handed_over_s = None
        return Heard(filled, new_beyond)

    def next(self, venues: Collection[str], now_s: float) -> Gap | None:
        """The gap to ask for now, of venues that are in session; None if there is none."""
        ripe = [
            (known.attempts, -(gap.end_ns // MINUTE_NS), -(gap.won or 0), gap)
            for gap, known in self._known.items()
            if gap.instrument.venue in venues and self._may(known) and now_s >= self._ripe_s(known)
        ]
        return min(ripe)[-1] if ripe else None

    def beside(self, gap: Gap) -> list[Gap]:
        """This gap and the others of its instrument that the same rows may fill, ascending."""
        return [
            other for other, known in self._known.items() if other.instrument == gap.instrument and self._may(known)
        ]

    def handed_over(self, gap: Gap, now_s: float) -> None:
        """Its rows are on their way to the writer."""
        known = self._known[gap]
        known.handed_over_s = now_s
        known.attempts += 1

    def failed(self, gap: Gap, now_s: float, for_good: bool = False) -> bool:
        """What came did not fill it; whether it is given up."""
        known = self._known[gap]
        known.attempts = self._limits.attempts if for_good else known.attempts + 1
        known.not_before_s = now_s + AGAIN_S
        return known.attempts >= self._limits.attempts

    def __len__(self) -> int:
        """How many may still be asked for."""
        return sum(self._may(known) for known in self._known.values())

    def _may(self, known: _Known) -> bool:
        return known.handed_over_s is None and known.attempts < self._limits.attempts

    def _ripe_s(self, known: _Known) -> float:
        return max(known.since_s + self._limits.settle_s, known.not_before_s)


def _gaps(report: Report) -> list[Gap]:
    """The open gaps of the newest day that nothing but fetching can fill."""
    return [
        Gap(
            Instrument(symbol.symbol, symbol.venue),
            symbol.day,
            gap.low,
            gap.high,
            gap.won,
            gap.trades,
            gap.begin_ns,
            gap.end_ns,
        )
        for symbol in report.newest()
        for gap in symbol.open
        if gap.fillable(symbol.start) and gap.end_ns
    ]
