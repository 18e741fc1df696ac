"""Recovery plan of a day: gaps, cost of fetching them, what a budget leaves out (pure).

DAY_TICK ──> Gap (low, high] between two ticks, in shares, won, time        official volume ─┐
                 └─> pages of chart | of trades ─> the cheaper ─> seconds ─> plan <─────┘  most missing value first
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

import numpy as np

from collectorctl.recover.matching import trade_count
from collectorctl.recover.matching.day_coverage import DayCoverage
from collectorctl.recover.store.publish import RowKey
from conf.instrument import Instrument
from ringbuf.records import UNDEFINED
from writer.volume.coverage import OverlapKind

TYPICAL_SHARES = 50.0
"""Assumed size of a trade, where a day has too few ticks to measure it."""
MIN_TICKS_FOR_MEAN = 20
"""Ticks needed to measure the mean size of a trade."""


class DailyTotal(NamedTuple):
    """The exchange's totals of one instrument's day: shares, and won in millions (UNDEFINED if unknown)."""

    volume: int
    value_m: int


class MissingRange(NamedTuple):
    """(low, high] is missing. Times, ns, of the ticks around it (None: none there); won, trades None where untold."""

    low: int
    high: int
    begin_ns: int | None
    end_ns: int | None
    value: int | None
    trades: int | None

    @property
    def shares(self) -> int:
        """How much."""
        return self.high - self.low


@dataclass
class InstrumentPlan:
    """One instrument of a plan. `method`: "" nothing to fetch, "ticks", "trades", or "bars" (`skip_reason`)."""

    instrument: Instrument
    daily_total: DailyTotal | None
    gaps: list[MissingRange] = field(default_factory=list)
    trades: int = 0
    value: int = 0
    method: str = ""
    pages: int = 0
    eta_s: float = 0.0
    skip_reason: str = ""

    @property
    def shares(self) -> int:
        """Shares missing."""
        return sum(gap.shares for gap in self.gaps)


def find_redundant_rows(instrument: Instrument, day: DayCoverage) -> dict[RowKey, int]:
    """Stored ticks that are redundant, because others cover their volume; ticks that contradict each other stay."""
    ticks = day.ticks
    found: dict[RowKey, int] = {}
    for _, _, first, second, kind in day.coverage.overlaps.tolist():
        same_price = ticks["price"][first] == ticks["price"][second]  # the stamps of one trade may differ between feeds
        if kind == OverlapKind.CROSSED or (kind == OverlapKind.SAME and not same_price):
            continue
        found.setdefault(_row_key(instrument, ticks[second]), 0)
    for tick in day.placed if found else ():
        key = _row_key(instrument, tick)
        if key in found:
            found[key] += 1
    return found


def _row_key(instrument: Instrument, tick: np.void) -> RowKey:
    source = "live" if tick["live"] else "recovered"
    return (*instrument, int(tick["cum_volume"]), int(tick["size"]), source)


def find_gaps(day: DayCoverage) -> list[MissingRange]:
    """Every gap with value, trades and times from the ticks around it."""
    ticks, counts = day.ticks, trade_count.count_trades_per_gap(day).tolist()
    found = []
    for gap, *sums in zip(day.gaps, day.gap_values.tolist(), counts, strict=True):
        after, before = int(gap["after"]), int(gap["before"])
        begin_ns = int(ticks["exch_ns"][after]) if after >= 0 else None
        end_ns = int(ticks["exch_ns"][before]) if before < len(ticks) else None
        known = (None if value == UNDEFINED else value for value in sums)
        found.append(MissingRange(int(gap["low"]), int(gap["high"]), begin_ns, end_ns, *known))
    return found


def plan_instrument(
    instrument: Instrument,
    ticks: np.ndarray,
    daily_total: DailyTotal | None,
    later_shares: int,
    page_rows: Mapping[str, int],
    trades_available: bool,
) -> InstrumentPlan:
    """What one instrument lacks and the cheaper way to it.

    `later_shares`: traded on the days since, which a chart pages through. `trades_available`: trades of that day can be fetched.
    """
    plan = InstrumentPlan(instrument, daily_total)
    day = DayCoverage.of(ticks, daily_total.volume if daily_total else None)
    plan.gaps = find_gaps(day)
    if not plan.gaps:
        return plan
    mean = estimate_mean_shares(day.placed["size"])
    price = _typical_price(ticks, daily_total)
    trades = [max(1, round(gap.shares / mean)) if gap.trades is None else gap.trades for gap in plan.gaps]
    plan.trades = sum(trades)
    plan.value = sum(gap.value if gap.value is not None else gap.shares * price for gap in plan.gaps)
    shares_back = day.coverage.total - plan.gaps[0].low + later_shares
    ticks_pages = ceil(shares_back / mean / page_rows["ticks"]) + 1
    trade_pages = sum(ceil(count / page_rows["trades"]) + 1 for count in trades)
    plan.method, plan.pages = ("ticks", ticks_pages)
    if trades_available and trade_pages <= ticks_pages:
        plan.method, plan.pages = ("trades", trade_pages)
    return plan


def estimate_mean_shares(sizes: np.ndarray) -> float:
    """The mean size of a trade, from some of them; a typical one where they are too few."""
    if len(sizes) < MIN_TICKS_FOR_MEAN:
        return TYPICAL_SHARES
    # an auction is one trade of thousands of shares and would give too few trades
    return float(np.sort(sizes)[: -max(1, len(sizes) // 1000)].mean())


def _typical_price(ticks: np.ndarray, daily_total: DailyTotal | None) -> int:
    if len(ticks):
        return int(np.median(ticks["price"]))
    if daily_total is not None and daily_total.volume and daily_total.value_m != UNDEFINED:
        return daily_total.value_m * 1_000_000 // daily_total.volume
    return 0


def fit_budget(
    plans: Iterable[InstrumentPlan], rates: Mapping[str, float], budget_s: float | None
) -> list[InstrumentPlan]:
    """The items in the order of their missing value; those beyond a budget of seconds are left out, with the reason."""
    ordered = sorted(plans, key=lambda one: (-one.value, one.instrument))
    spent_s = 0.0
    for one in ordered:
        if one.method not in rates:
            continue
        one.eta_s = one.pages / rates[one.method]
        if budget_s is not None and spent_s + one.eta_s > budget_s:
            one.method, one.skip_reason = "bars", f"its {one.pages} pages do not fit the budget"
            one.pages, one.eta_s = 0, 0.0
        spent_s += one.eta_s
    return ordered
