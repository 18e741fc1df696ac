"""One instrument's missing ticks, from the broker: which lists are asked for, and what is made of them.

    plan says ticks  ─> chart back to before the first gap ─> by_ticks ──┐ still open, prints in reach?
    plan says prints ─> prints of each gap ──────────────────> by_prints ┴─> prints of what is open: a jump off the book?
                                                                └─ contradictions, or open and unexplained: all anew, once

Promises: pages that are kept are used before anything is asked; what contradicts is fetched once more, then left open and said.
Leaves to others: pages (fetch.py, pages.py), placing (fill.py).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from brokers.errors import RestError
from brokers.history import PRINTS, Asked
from collectorctl.recover.download.page_store import Chain, folder
from collectorctl.recover.download.pager import Caller, FetchError, fetch
from collectorctl.recover.horizon import Reach
from collectorctl.recover.matching.gap_filling import Filled, Prints, by_prints, by_ticks, stored
from collectorctl.recover.plan import Gap, Item, Official, covered, gaps
from collectorctl.recover.store import day_ticks
from collectorctl.recover.store.evidence import Evidence
from conf.clock import day_start, korean
from conf.instrument import Instrument
from ringbuf.records import UNDEFINED
from writer.volume.coverage import Coverage

CHART = "chart"
LEAD_TICKS = 64
"""Live ticks before the first gap that are fetched with it, so that its place is certain."""
MINUTE_NS = 60_000_000_000

Progress = Callable[[int, float], None]


class Source:
    """The lists of one instrument and day."""

    def __init__(
        self, data: Path, caller: Caller, reach: Reach, one: Item, books: Callable[[], np.ndarray], progress: Progress
    ) -> None:
        """`books`: what stored books showed (SHOWN); `progress` hears how many pages are there, and the rate."""
        self._folder = folder(data, str(reach.day), one.instrument)
        self._caller = caller
        self._quotes = caller.quotes
        self._reach = reach
        self._item = one
        self._books = books
        self._progress = progress
        self._pages = 0

    def fill(self, ticks: np.ndarray, found: Evidence, official: Callable[[], Official | None]) -> np.ndarray:
        """PRINTS that belong into the gaps of `ticks`; `found` learns how it went. `official` asks for the day's figures again."""
        first = not any(self._folder.glob("*/end.json"))
        filled = self._once(ticks, found)
        if not self._settled(ticks, found, filled) and not first:
            filled = self._anew(ticks, found, official)
        if not self._settled(ticks, found, filled) and (filled.findings or filled.anchors_failed):
            filled = self._anew(ticks, found, official)
        found.findings, found.jumps = [*filled.findings, *filled.doubts], filled.jumps
        found.passed = list(filled.passed)
        found.anchors_checked, found.anchors_failed = filled.anchors_checked, filled.anchors_failed
        return filled.prints

    def _anew(self, ticks: np.ndarray, found: Evidence, official: Callable[[], Official | None]) -> Filled:
        for path in self._folder.glob("*/"):
            Chain(path).clear()
        try:
            told = official()
        except FetchError as error:
            return Filled(np.zeros(0, PRINTS), [str(error)], [])
        found.volume = told.volume if told else None
        found.value_m = told.value_m if told and told.value_m != UNDEFINED else None
        return self._once(ticks, found)

    def _once(self, ticks: np.ndarray, found: Evidence) -> Filled:
        """Fetch and place; what cannot be had becomes a finding."""
        coverage = covered(ticks, found.volume)
        self._pages = 0
        try:
            if self._item.by == "prints":
                return self._prints(ticks, coverage)
            filled = self._ticks(ticks, coverage, found)
            still = day_ticks.in_order(np.concatenate([ticks, day_ticks.recovered(filled.prints)]))
            rest = covered(still, found.volume)
            if len(rest.gaps) and self._reach.prints:
                more = self._prints(still, rest)
                prints = np.concatenate([filled.prints, more.prints])
                return filled._replace(
                    prints=prints[np.argsort(prints["cum_volume"], kind="stable")],
                    findings=filled.findings + more.findings,
                    doubts=[*filled.doubts, *more.doubts],
                    jumps=more.jumps,
                )
            return filled
        except (FetchError, RestError) as error:
            return Filled(np.zeros(0, PRINTS), [str(error)], [])

    @staticmethod
    def _settled(ticks: np.ndarray, found: Evidence, filled: Filled) -> bool:
        """Whether nothing contradicts and every gap is filled or a jump."""
        if filled.findings or filled.doubts or filled.anchors_failed:
            return False
        whole = day_ticks.in_order(np.concatenate([ticks, day_ticks.recovered(filled.prints)]))
        open_ = covered(whole, found.volume).gaps
        return all((int(gap["low"]), int(gap["high"])) in {*filled.jumps, *filled.passed} for gap in open_)

    def _ticks(self, ticks: np.ndarray, coverage: Coverage, found: Evidence) -> Filled:
        chain = Chain(self._folder / CHART)
        begin_ns = day_start(self._reach.day)
        at = (
            int(np.searchsorted(ticks["cum_volume"][coverage.order], coverage.gaps["low"][0], side="right"))
            - LEAD_TICKS
        )
        bound_ns = int(ticks["exch_ns"][coverage.order[at]]) if at > 0 else begin_ns
        if chain.ended is not None and chain.ended.get("older") and chain.ended.get("bound_ns", 0) > bound_ns:
            chain.clear()  # an earlier run needed less
        rows = fetch(
            self._caller,
            chain,
            Asked("ticks", self._item.instrument, self._reach.day),
            self._read(lambda content: self._quotes.ticks(content)),
            lambda rows: bool(rows["exch_ns"].min() < bound_ns),
            bound_ns=bound_ns,
        )
        end_ns = day_start(self._reach.day + timedelta(days=1))
        from_start = not len(rows) or not chain.ended["older"] or bool(rows["exch_ns"].min() < begin_ns)  # type: ignore[index]
        rows = rows[(rows["exch_ns"] >= begin_ns) & (rows["exch_ns"] < end_ns)]
        told = ticks, coverage, rows, stored(found.bars) if found.bars else None, from_start
        filled = by_ticks(*told)
        return by_ticks(*told, self._books()) if filled.unclear else filled

    def _prints(self, ticks: np.ndarray, coverage: Coverage) -> Filled:
        return by_prints(ticks, coverage, [self._prints_of(gap) for gap in gaps(ticks, coverage)])

    def _prints_of(self, gap: Gap) -> Prints:
        """The prints around one gap: from just behind it to one that lies before it."""
        chain = Chain(self._folder / f"prints-{gap.low}-{gap.high}")
        until = "" if gap.end_ns is None else f"{korean(gap.end_ns + MINUTE_NS):%H%M}"
        if gap.end_ns is not None and korean(gap.end_ns + MINUTE_NS).date() != self._reach.day:
            until = ""
        rows = fetch(
            self._caller,
            chain,
            Asked("prints", self._item.instrument, self._reach.day, self._reach.days_back == 1, until),
            self._read(lambda content: self._quotes.prints(content, self._reach.day)),
            lambda rows: bool(rows["cum_volume"].min() <= gap.low),
        )
        return Prints(rows, newest=not until, oldest=not chain.ended["older"])  # type: ignore[index]

    def _read(self, read: Callable[[bytes], np.ndarray]) -> Callable[[bytes], np.ndarray]:
        """`read`, and say that another page is there."""

        def counted(content: bytes) -> np.ndarray:
            self._pages += 1
            self._progress(self._pages, self._caller.rate(self._item.by))
            return read(content)

        return counted

    @staticmethod
    def kept(data: Path, of: date, instrument: Instrument, whole: bool) -> tuple[int, bool]:
        """How many pages are kept, and whether every chain is whole. Of a day that is `whole` no chain is left unfinished: those
        that an earlier run began and nobody needs any more go."""
        chains = [Chain(path) for path in sorted(folder(data, str(of), instrument).glob("*/"))]
        for chain in chains:
            if whole and chain.ended is None:
                chain.clear()
        return sum(chain.count for chain in chains), all(chain.ended is not None for chain in chains if chain.count)
