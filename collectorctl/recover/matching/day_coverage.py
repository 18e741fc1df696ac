"""Coverage of one instrument's day, and what recovered rows add to it (pure).

    DAY_TICK ─of─> DayCoverage: ticks, coverage, gaps ──with_fills(TRADE_ROW)──> DayCoverage of both, as if read from disk

Guarantees:
    * A DayCoverage never changes; one with fills equals one computed from all ticks.
    * Live ticks take precedence over recovered ones, even finer ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ringbuf.records import PRICE_SCALE, UNDEFINED
from writer.ingest import backfill_filter
from writer.volume.coverage import OVERLAP, Coverage, OverlapKind, compute_coverage, compute_gap_values

DAY_TICK = np.dtype(
    [
        ("exch_ns", "<i8"),
        ("price", "<i8"),  # won
        ("size", "<i8"),
        ("side", "i1"),
        ("cum_volume", "<i8"),
        ("cum_value", "<i8"),  # won; UNDEFINED where it is rounded
        ("value_change", "<i8"),
        ("trade_count", "<i8"),
        ("line", "u1"),  # of ringbuf.records.FeedId; 0 for recovered ones
        ("live", "?"),
        ("rounded", "?"),  # the price was fractional
    ]
)


@dataclass(frozen=True, eq=False)
class DayCoverage:
    """`ticks`: DAY_TICK, read-only, and what they cover of the day."""

    ticks: np.ndarray
    coverage: Coverage

    @classmethod
    def of(cls, ticks: np.ndarray, total: int | None) -> DayCoverage:
        """The coverage by these ticks of the official volume (None: as far as they reach)."""
        ticks = ticks.view()
        ticks.flags.writeable = False
        return cls(ticks, _compute_coverage(ticks, total))

    def with_fills(self, rows: np.ndarray) -> DayCoverage:
        """The same day with recovered rows (TRADE_ROW) merged."""
        if not len(rows):
            return self
        merged = sort_ticks(np.concatenate([self.ticks, _ticks_from_trades(rows)]))
        return DayCoverage.of(merged, self.coverage.total if self.coverage.official else None)

    @property
    def gaps(self) -> np.ndarray:
        """GAP rows: what no tick covers."""
        return self.coverage.gaps

    @cached_property
    def placed(self) -> np.ndarray:
        """The kept ticks in volume order."""
        return self.ticks[self.coverage.order]

    @cached_property
    def gap_values(self) -> np.ndarray:
        """Won traded in each gap, UNDEFINED where the ticks around it have none."""
        ticks = self.ticks
        return compute_gap_values(
            self.coverage, ticks["price"] * PRICE_SCALE, ticks["size"], ticks["cum_value"], ticks["value_change"]
        )


def sort_ticks(found: np.ndarray) -> np.ndarray:
    """DAY_TICK by cumulative volume; of several that end there the live ones first."""
    return found[np.lexsort((found["exch_ns"], ~found["live"], found["cum_volume"]))]


def _ticks_from_trades(trades: np.ndarray) -> np.ndarray:
    """TRADE_ROW as the DAY_TICK they will be read as."""
    found = np.zeros(len(trades), DAY_TICK)
    for name in ("exch_ns", "price", "size", "side", "cum_volume"):
        found[name] = trades[name]
    found["cum_value"] = found["value_change"] = found["trade_count"] = UNDEFINED
    return found


def _compute_coverage(ticks: np.ndarray, total: int | None) -> Coverage:
    """A recovered tick that live ones cover wholly does not count."""
    coverage = compute_coverage(ticks["cum_volume"], ticks["size"], total)
    hidden = ~ticks["live"] & backfill_filter.find_covered(ticks["cum_volume"], ticks["size"], ticks["live"])
    copies = coverage.overlaps["second"][coverage.overlaps["why"] == OverlapKind.SAME]
    hidden[copies] = False  # they are dropped, or contradict
    if not hidden.any():
        return coverage
    low = ticks["cum_volume"] - ticks["size"]
    live = np.flatnonzero(ticks["live"] & ~coverage.unplaced)
    live = live[np.argsort(low[live], kind="stable")]
    covering = live[np.searchsorted(low[live], low[hidden], "right") - 1]
    coverage = compute_coverage(ticks["cum_volume"], np.where(hidden, 0, ticks["size"]), total)
    columns = low[hidden], ticks["cum_volume"][hidden], covering, np.flatnonzero(hidden)
    inside = [(*row, OverlapKind.INSIDE) for row in zip(*columns, strict=True)]
    overlaps = np.sort(np.concatenate([coverage.overlaps, np.array(inside, OVERLAP)]))
    return coverage._replace(overlaps=overlaps, unplaced=coverage.unplaced & ~hidden)
