"""Source of one instrument's missing ticks: which lists are fetched, and what fills the gaps.

    plan says ticks  ─> chart back to before the first gap ──> chart rows ─┐ still open, trades in reach?
    plan says trades ─> trades of each gap ──────────────────> trade rows ─┴─> trades of what is open: volume off the book?
                                                                └─ contradictions, or open and unexplained: all again, once

Guarantees:
    * Stored pages are used before anything is fetched.
    * What contradicts is fetched once more, then left open and reported.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from brokers.errors import RestError
from brokers.history import TRADE_ROW, PageRequest
from collectorctl.recover.download.page_store import PageSequence, recovery_folder
from collectorctl.recover.download.pager import FetchError, ThrottledClient, fetch_pages
from collectorctl.recover.horizon import DayAvailability
from collectorctl.recover.matching.gap_filling import FillResult, TradeList, fill_by_chart, fill_by_trades, to_bar_rows
from collectorctl.recover.plan import DailyTotal, InstrumentPlan, MissingRange, compute_day_coverage, find_gaps
from collectorctl.recover.store import day_ticks
from collectorctl.recover.store.evidence import Evidence
from conf.clock import MINUTE_NS, kst_midnight_ns, to_kst
from conf.instrument import Instrument
from ringbuf.records import UNDEFINED
from writer.volume.coverage import Coverage

CHART_FOLDER = "chart"
LEAD_TICKS = 64
"""Live ticks before the first gap that are fetched with it, so that its place is certain."""

PageCallback = Callable[[int, float], None]


class TickSource:
    """The lists of one instrument and day."""

    def __init__(
        self,
        data: Path,
        client: ThrottledClient,
        availability: DayAvailability,
        plan: InstrumentPlan,
        load_books: Callable[[], np.ndarray],
        on_page: PageCallback,
    ) -> None:
        """Stored book volumes (BOOK_VOLUME) serve as anchors; progress is reported as number of pages and rate."""
        self._folder = recovery_folder(data, str(availability.day), plan.instrument)
        self._client = client
        self._history = client.history
        self._availability = availability
        self._plan = plan
        self._load_books = load_books
        self._on_page = on_page
        self._page_count = 0

    def fill(self, ticks: np.ndarray, evidence: Evidence, load_total: Callable[[], DailyTotal | None]) -> np.ndarray:
        """TRADE_ROW that fill the gaps of `ticks`, with the evidence; the day's totals may be fetched again on demand."""
        is_first_run = not any(self._folder.glob("*/end.json"))
        result = self._attempt(ticks, evidence)
        if not self._is_settled(ticks, evidence, result) and not is_first_run:
            result = self._refetch(ticks, evidence, load_total)
        if not self._is_settled(ticks, evidence, result) and (result.findings or result.anchors_failed):
            result = self._refetch(ticks, evidence, load_total)
        evidence.findings, evidence.omitted = [*result.findings, *result.mismatches], result.omitted
        evidence.rowless = list(result.rowless)
        evidence.anchors_checked, evidence.anchors_failed = result.anchors_checked, result.anchors_failed
        return result.trades

    def _refetch(
        self, ticks: np.ndarray, evidence: Evidence, load_total: Callable[[], DailyTotal | None]
    ) -> FillResult:
        for path in self._folder.glob("*/"):
            PageSequence(path).clear()
        try:
            total = load_total()
        except FetchError as error:
            return FillResult(np.zeros(0, TRADE_ROW), [str(error)], [])
        evidence.volume = total.volume if total else None
        evidence.value_m = total.value_m if total and total.value_m != UNDEFINED else None
        return self._attempt(ticks, evidence)

    def _attempt(self, ticks: np.ndarray, evidence: Evidence) -> FillResult:
        """Fetch and place; what cannot be had becomes a finding."""
        coverage = compute_day_coverage(ticks, evidence.volume)
        self._page_count = 0
        try:
            if self._plan.method == "prints":
                return self._fill_from_trades(ticks, coverage)
            result = self._fill_from_chart(ticks, coverage, evidence)
            merged = day_ticks.sort_ticks(np.concatenate([ticks, day_ticks.ticks_from_trades(result.trades)]))
            remaining = compute_day_coverage(merged, evidence.volume)
            if len(remaining.gaps) and self._availability.trades_available:
                from_trades = self._fill_from_trades(merged, remaining)
                trades = np.concatenate([result.trades, from_trades.trades])
                return result._replace(
                    trades=trades[np.argsort(trades["cum_volume"], kind="stable")],
                    findings=result.findings + from_trades.findings,
                    mismatches=[*result.mismatches, *from_trades.mismatches],
                    omitted=from_trades.omitted,
                )
            return result
        except (FetchError, RestError) as error:
            return FillResult(np.zeros(0, TRADE_ROW), [str(error)], [])

    @staticmethod
    def _is_settled(ticks: np.ndarray, evidence: Evidence, result: FillResult) -> bool:
        """Whether nothing contradicts and every gap is filled or a jump."""
        if result.findings or result.mismatches or result.anchors_failed:
            return False
        merged = day_ticks.sort_ticks(np.concatenate([ticks, day_ticks.ticks_from_trades(result.trades)]))
        open_gaps = compute_day_coverage(merged, evidence.volume).gaps
        return all((int(gap["low"]), int(gap["high"])) in {*result.omitted, *result.rowless} for gap in open_gaps)

    def _fill_from_chart(self, ticks: np.ndarray, coverage: Coverage, evidence: Evidence) -> FillResult:
        sequence = PageSequence(self._folder / CHART_FOLDER)
        begin_ns = kst_midnight_ns(self._availability.day)
        at = (
            int(np.searchsorted(ticks["cum_volume"][coverage.order], coverage.gaps["low"][0], side="right"))
            - LEAD_TICKS
        )
        bound_ns = int(ticks["exch_ns"][coverage.order[at]]) if at > 0 else begin_ns
        if (
            sequence.end_record is not None
            and sequence.end_record.get("older")
            and sequence.end_record.get("bound_ns", 0) > bound_ns
        ):
            sequence.clear()  # an earlier run needed less
        rows = fetch_pages(
            self._client,
            sequence,
            PageRequest("ticks", self._plan.instrument, self._availability.day),
            self._count_pages_of(lambda content: self._history.parse_ticks(content)),
            lambda rows: bool(rows["exch_ns"].min() < bound_ns),
            bound_ns=bound_ns,
        )
        end_ns = kst_midnight_ns(self._availability.day + timedelta(days=1))
        from_start = not len(rows) or not sequence.end_record["older"] or bool(rows["exch_ns"].min() < begin_ns)  # type: ignore[index]
        rows = rows[(rows["exch_ns"] >= begin_ns) & (rows["exch_ns"] < end_ns)]
        arguments = ticks, coverage, rows, to_bar_rows(evidence.bars) if evidence.bars else None, from_start
        result = fill_by_chart(*arguments)
        return fill_by_chart(*arguments, self._load_books()) if result.needs_books else result

    def _fill_from_trades(self, ticks: np.ndarray, coverage: Coverage) -> FillResult:
        return fill_by_trades(ticks, coverage, [self._fetch_trades(gap) for gap in find_gaps(ticks, coverage)])

    def _fetch_trades(self, gap: MissingRange) -> TradeList:
        """The trades around one gap: from just behind it to one before it."""
        sequence = PageSequence(self._folder / f"prints-{gap.low}-{gap.high}")
        until = "" if gap.end_ns is None else f"{to_kst(gap.end_ns + MINUTE_NS):%H%M}"
        if gap.end_ns is not None and to_kst(gap.end_ns + MINUTE_NS).date() != self._availability.day:
            until = ""
        rows = fetch_pages(
            self._client,
            sequence,
            PageRequest(
                "prints", self._plan.instrument, self._availability.day, self._availability.days_back == 1, until
            ),
            self._count_pages_of(lambda content: self._history.parse_trades(content, self._availability.day)),
            lambda rows: bool(rows["cum_volume"].min() <= gap.low),
        )
        return TradeList(rows, reaches_day_end=not until, reaches_day_start=not sequence.end_record["older"])  # type: ignore[index]

    def _count_pages_of(self, parse: Callable[[bytes], np.ndarray]) -> Callable[[bytes], np.ndarray]:
        """Parse a page, and report it as progress."""

        def parse_and_count(content: bytes) -> np.ndarray:
            self._page_count += 1
            self._on_page(self._page_count, self._client.get_rate(self._plan.method))
            return parse(content)

        return parse_and_count

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
