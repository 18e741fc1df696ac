"""Source of one instrument's missing ticks: which lists are fetched, and what fills the gaps.

    plan says ticks  ─> chart back to before the first gap ──> chart rows ─┐ still open, trades in reach?
    plan says trades ─> trades of each gap ──────────────────> trade rows ─┴─> trades of what is open: volume off the book?
                                                                └─ contradictions, or open and unexplained: all again, once

Guarantees:
    * Stored pages are used before anything is fetched.
    * What contradicts is fetched once more, then left open and reported. So is a gap that stays open where the lists have rows
      that cannot be read: it is never volume off the book.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import numpy as np

from brokers.errors import RestError
from brokers.history import TRADE_ROW, PageRequest, format_rejects
from collectorctl.recover.download.page_store import PageSequence, recovery_folder
from collectorctl.recover.download.pager import FetchError, PageProgress, ThrottledClient, fetch_pages
from collectorctl.recover.horizon import DayAvailability
from collectorctl.recover.matching.day_coverage import DayCoverage
from collectorctl.recover.matching.gap_filling import FillResult, TradeList, fill_by_chart, fill_by_trades
from collectorctl.recover.plan import DailyTotal, InstrumentPlan, MissingRange, find_gaps
from collectorctl.recover.store.evidence import Evidence
from conf.clock import MINUTE_NS, kst_midnight_ns, to_kst
from conf.instrument import Instrument
from ringbuf.records import UNDEFINED

CHART_FOLDER = "chart"
LEAD_TICKS = 64
"""Live ticks before the first gap that are fetched with it, so that its place is certain."""


class TickSource:
    """The lists of one instrument and day."""

    def __init__(
        self,
        data: Path,
        client: ThrottledClient,
        availability: DayAvailability,
        plan: InstrumentPlan,
        load_books: Callable[[], np.ndarray],
        on_page: Callable[[int, float], None],
    ) -> None:
        """Stored book volumes (BOOK_VOLUME) serve as anchors; progress is reported as number of pages and rate."""
        self._folder = recovery_folder(data, str(availability.day), plan.instrument)
        self._client = client
        self._availability = availability
        self._plan = plan
        self._load_books = load_books
        self._on_page = on_page

    def fill(self, day: DayCoverage, evidence: Evidence, load_total: Callable[[], DailyTotal | None]) -> FillResult:
        """What fills the gaps of `day`, with the evidence; the day's totals may be fetched again on demand."""
        is_first_run = not any(self._folder.glob("*/end.json"))
        result = self._attempt(day, evidence)
        if not self._is_settled(result) and not is_first_run:
            result = self._refetch(day.ticks, evidence, load_total)
        if not self._is_settled(result) and (result.findings or result.anchors_failed):
            result = self._refetch(day.ticks, evidence, load_total)
        evidence.findings, evidence.omitted = [*result.findings, *result.mismatches], list(result.omitted)
        evidence.rowless = list(result.rowless)
        evidence.anchors_checked, evidence.anchors_failed = result.anchors_checked, result.anchors_failed
        return result

    def _refetch(
        self, ticks: np.ndarray, evidence: Evidence, load_total: Callable[[], DailyTotal | None]
    ) -> FillResult:
        for path in self._folder.glob("*/"):
            PageSequence(path).clear()
        try:
            total = load_total()
        except FetchError as error:
            return FillResult(np.zeros(0, TRADE_ROW), DayCoverage.of(ticks, evidence.volume), [str(error)])
        evidence.volume = total.volume if total else None
        evidence.value_m = total.value_m if total and total.value_m != UNDEFINED else None
        return self._attempt(DayCoverage.of(ticks, evidence.volume), evidence)

    def _attempt(self, day: DayCoverage, evidence: Evidence) -> FillResult:
        """Fetch and place; what cannot be had becomes a finding."""
        progress = PageProgress(self._client, self._plan.method, self._on_page)
        result = self._fill_by_plan(day, evidence, progress)
        if not progress.rejects:
            return result
        message = format_rejects(progress.rejects)
        self._client.report(f"{self._plan.instrument}: {message}")
        return result._replace(findings=[*result.findings, message]) if len(result.day.gaps) else result

    def _fill_by_plan(self, day: DayCoverage, evidence: Evidence, progress: PageProgress) -> FillResult:
        try:
            if self._plan.method == "trades":
                return self._fill_from_trades(day, progress)
            result = self._fill_from_chart(day, evidence, progress)
            if not len(result.day.gaps) or not self._availability.trades_available:
                return result
            from_trades = self._fill_from_trades(result.day, progress)
            trades = np.concatenate([result.trades, from_trades.trades])
            return result._replace(
                trades=trades[np.argsort(trades["cum_volume"], kind="stable")],
                day=from_trades.day,
                findings=result.findings + from_trades.findings,
                mismatches=[*result.mismatches, *from_trades.mismatches],
                omitted=from_trades.omitted,
            )
        except (FetchError, RestError) as error:
            return FillResult(np.zeros(0, TRADE_ROW), day, [str(error)])

    @staticmethod
    def _is_settled(result: FillResult) -> bool:
        """Whether nothing contradicts and every gap is filled or a jump."""
        if result.findings or result.mismatches or result.anchors_failed:
            return False
        known = {*result.omitted, *result.rowless}
        return all((int(gap["low"]), int(gap["high"])) in known for gap in result.day.gaps)

    def _fill_from_chart(self, day: DayCoverage, evidence: Evidence, progress: PageProgress) -> FillResult:
        sequence = PageSequence(self._folder / CHART_FOLDER)
        begin_ns = kst_midnight_ns(self._availability.day)
        at = int(np.searchsorted(day.placed["cum_volume"], day.gaps["low"][0], side="right")) - LEAD_TICKS
        bound_ns = int(day.placed["exch_ns"][at]) if at > 0 else begin_ns
        end = sequence.end_record or {}
        if end.get("older") and end.get("bound_ns", 0) > bound_ns:
            sequence.clear()  # an earlier run needed less
        rows = fetch_pages(
            self._client,
            sequence,
            PageRequest("ticks", self._plan.instrument, self._availability.day),
            progress.reporting(self._client.history.parse_ticks),
            ("exch_ns", bound_ns),
            bound_ns=bound_ns,
        )
        end_ns = kst_midnight_ns(self._availability.day + timedelta(days=1))
        from_start = not len(rows) or not sequence.end_record["older"] or bool(rows["exch_ns"].min() < begin_ns)  # type: ignore[index]
        rows = rows[(rows["exch_ns"] >= begin_ns) & (rows["exch_ns"] < end_ns)]
        arguments = day, rows, evidence.bars, from_start, self._plan.instrument.venue
        result = fill_by_chart(*arguments)
        return fill_by_chart(*arguments, self._load_books()) if result.needs_books else result

    def _fill_from_trades(self, day: DayCoverage, progress: PageProgress) -> FillResult:
        lists = [self._fetch_trades(gap, progress) for gap in find_gaps(day)]
        return fill_by_trades(day, lists, self._plan.instrument.venue)

    def _fetch_trades(self, gap: MissingRange, progress: PageProgress) -> TradeList:
        """The trades around one gap: from just behind it to one before it."""
        earlier_name = self._folder / f"prints-{gap.low}-{gap.high}"  # the name of "trades" in earlier runs
        folder = self._folder / f"trades-{gap.low}-{gap.high}"
        sequence = PageSequence(earlier_name if earlier_name.exists() else folder)
        end = None if gap.end_ns is None else to_kst(gap.end_ns + MINUTE_NS)
        until = f"{end:%H%M}" if end is not None and end.date() == self._availability.day else ""
        rows = fetch_pages(
            self._client,
            sequence,
            PageRequest(
                "trades", self._plan.instrument, self._availability.day, self._availability.days_back == 1, until
            ),
            progress.reporting(partial(self._client.history.parse_trades, day=self._availability.day)),
            ("cum_volume", gap.low + 1),
        )
        return TradeList(rows, reaches_day_end=not until, reaches_day_start=not sequence.end_record["older"])  # type: ignore[index]

    @staticmethod
    def count_stored_pages(data: Path, day: date, instrument: Instrument, is_complete: bool) -> tuple[int, bool]:
        """The number of stored pages, and whether every sequence is complete.

        Of a complete day, sequences that an earlier run left unfinished and that are not needed any more are removed.
        """
        sequences = [PageSequence(path) for path in sorted(recovery_folder(data, str(day), instrument).glob("*/"))]
        for chain in sequences:
            if is_complete and chain.end_record is None:
                chain.clear()
        return sum(chain.count for chain in sequences), all(
            chain.end_record is not None for chain in sequences if chain.count
        )
