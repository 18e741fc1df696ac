"""What is missing of a day, what fetching it takes, and what a budget leaves out.

    TICKS ─lay─> Gap (low, high] between two ticks, in shares, won, time        official volume ─┐
                     └─> pages as tick chart | as prints ─> the cheaper ─> seconds ─> Plan <─────┘  most missing value first

Promises: pure.
Leaves to others: the ticks (day.py), the official volume and the fetching (fetch.py), placing (fill.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

import numpy as np

from collectorctl.recover.matching import trade_count
from collectorctl.recover.store.publish import Key
from conf.instrument import Instrument
from ringbuf.records import PRICE_SCALE, UNDEFINED
from writer.ingest import backfill_filter
from writer.volume.coverage import Coverage, Why, gap_won, lay

TYPICAL_SHARES = 50.0
"""Of a trade, where a day has too few ticks to tell."""
TELLING = 20
"""Ticks that tell the mean size of a trade."""


class Official(NamedTuple):
    """What the exchange counted of one instrument's day: shares, and won in millions (UNDEFINED where not told)."""

    volume: int
    value_m: int


class Gap(NamedTuple):
    """(low, high] is missing. Times, ns, of the ticks around it (None: none there); won, trades None where untold."""

    low: int
    high: int
    begin_ns: int | None
    end_ns: int | None
    won: int | None
    trades: int | None

    @property
    def shares(self) -> int:
        """How much."""
        return self.high - self.low


@dataclass
class Item:
    """One instrument of a plan. `by`: "" nothing to fetch, "ticks", "prints", or "bars" where ticks are left out, for `why`."""

    instrument: Instrument
    official: Official | None
    gaps: list[Gap] = field(default_factory=list)
    trades: int = 0
    won: int = 0
    by: str = ""
    pages: int = 0
    eta_s: float = 0.0
    why: str = ""

    @property
    def shares(self) -> int:
        """Shares missing."""
        return sum(gap.shares for gap in self.gaps)


def covered(ticks: np.ndarray, total: int | None) -> Coverage:
    """The TICKS of an instrument's day on the volume line. What was received stands before what was fetched, even if that is finer:
    a recovered tick that live ones cover wholly is not kept."""
    laid = lay(ticks["cum_volume"], ticks["size"], total)
    hidden = ~ticks["live"] & backfill_filter.covered(ticks["cum_volume"], ticks["size"], ticks["live"])
    copies = laid.doubled["second"][laid.doubled["why"] == Why.SAME]
    hidden[copies] = False  # they go, or contradict: `superseded` looks
    if not hidden.any():
        return laid
    low = ticks["cum_volume"] - ticks["size"]
    live = np.flatnonzero(ticks["live"] & ~laid.unlaid)
    live = live[np.argsort(low[live], kind="stable")]
    over = live[np.searchsorted(low[live], low[hidden], "right") - 1]
    laid = lay(ticks["cum_volume"], np.where(hidden, 0, ticks["size"]), total)
    more = np.zeros(int(hidden.sum()), laid.doubled.dtype)
    more["low"], more["high"] = low[hidden], ticks["cum_volume"][hidden]
    more["first"], more["second"], more["why"] = over, np.flatnonzero(hidden), Why.INSIDE
    return laid._replace(doubled=np.sort(np.concatenate([laid.doubled, more])), unlaid=laid.unlaid & ~hidden)


def superseded(instrument: Instrument, ticks: np.ndarray, coverage: Coverage) -> dict[Key, int]:
    """Stored ticks that go, because others say the same of the same volume (design 6.3); ticks that contradict each other stay."""
    found: dict[Key, int] = {}
    for _, _, first, second, why in coverage.doubled.tolist():
        same = all(ticks[name][first] == ticks[name][second] for name in ("price", "exch_ns"))
        if why == Why.CROSSED or (why == Why.SAME and not same):
            continue
        found.setdefault(_key(instrument, ticks[second]), 0)
    for tick in ticks[coverage.order] if found else ():
        key = _key(instrument, tick)
        if key in found:
            found[key] += 1
    return found


def _key(instrument: Instrument, tick: np.void) -> Key:
    source = "live" if tick["live"] else "recovered"
    return (*instrument, int(tick["cum_volume"]), int(tick["size"]), source)


def gaps(ticks: np.ndarray, coverage: Coverage) -> list[Gap]:
    """Every gap with what the ticks around it tell."""
    won = gap_won(
        coverage, ticks["price"] * PRICE_SCALE, ticks["size"], ticks["cum_value"], ticks["value_change"]
    ).tolist()
    counts = trade_count.told(ticks, coverage).tolist()
    found = []
    for gap, *sums in zip(coverage.gaps, won, counts, strict=True):
        after, before = int(gap["after"]), int(gap["before"])
        begin_ns = int(ticks["exch_ns"][after]) if after >= 0 else None
        end_ns = int(ticks["exch_ns"][before]) if before < len(ticks) else None
        known = (None if value == UNDEFINED else value for value in sums)
        found.append(Gap(int(gap["low"]), int(gap["high"]), begin_ns, end_ns, *known))
    return found


def item(
    instrument: Instrument,
    ticks: np.ndarray,
    official: Official | None,
    later_shares: int,
    page_rows: Mapping[str, int],
    prints_reach: bool,
) -> Item:
    """What one instrument lacks and the cheaper way to it.

    `later_shares`: traded on the days since, which a chart pages through. `prints_reach`: prints of that day can be had.
    """
    made = Item(instrument, official)
    coverage = covered(ticks, official.volume if official else None)
    made.gaps = gaps(ticks, coverage)
    if not made.gaps:
        return made
    # an auction is one print of thousands of shares and would tell too few trades
    telling = np.sort(ticks["size"][coverage.keep])
    mean = float(telling[: -max(1, len(telling) // 1000)].mean()) if len(telling) >= TELLING else TYPICAL_SHARES
    price = _price(ticks, official)
    trades = [max(1, round(gap.shares / mean)) if gap.trades is None else gap.trades for gap in made.gaps]
    made.trades = sum(trades)
    made.won = sum(gap.won if gap.won is not None else gap.shares * price for gap in made.gaps)
    behind = coverage.total - made.gaps[0].low + later_shares
    ticks_pages = ceil(behind / mean / page_rows["ticks"]) + 1
    prints_pages = sum(ceil(count / page_rows["prints"]) + 1 for count in trades)
    made.by, made.pages = ("ticks", ticks_pages)
    if prints_reach and prints_pages <= ticks_pages:
        made.by, made.pages = ("prints", prints_pages)
    return made


def _price(ticks: np.ndarray, official: Official | None) -> int:
    if len(ticks):
        return int(np.median(ticks["price"]))
    if official is not None and official.volume and official.value_m != UNDEFINED:
        return official.value_m * 1_000_000 // official.volume
    return 0


def within(items: Iterable[Item], rates: Mapping[str, float], budget_s: float | None) -> list[Item]:
    """The items in the order of their missing value, those that a budget of seconds has no room for left out, `why` said."""
    ordered = sorted(items, key=lambda one: (-one.won, one.instrument))
    spent_s = 0.0
    for one in ordered:
        if one.by not in rates:
            continue
        one.eta_s = one.pages / rates[one.by]
        if budget_s is not None and spent_s + one.eta_s > budget_s:
            one.by, one.why = "bars", f"its {one.pages} pages do not fit the budget"
            one.pages, one.eta_s = 0, 0.0
        spent_s += one.eta_s
    return ordered
