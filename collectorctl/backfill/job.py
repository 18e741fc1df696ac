"""Backfill job: past days of instruments that this home did not collect, the newest first.

    tick chart, one list of pages an instrument ──split by day──> ticks of a day ─┐
    minute chart, likewise ─────────────────────────────────────> its minutes ────┼─> place ─> publish ─> certify ─> the next
    day chart ──────────────────────────────────────────────────> its figures ────┘

    the tick chart reaches the day?   yes: RECOVERED_ONLY      no: minute bars, MINUTE_ONLY

Guarantees:
    * One recovery or backfill at a time in a home; a day's files change under the lock of its date.
    * A day of which this home has a row or a certificate of an instrument that did not come from here is left alone, and named.
    * A killed run is resumed from the stored pages; a day that is certified for good costs no call, and no byte changes.
    * Ticks are stored only where their place is certain by the official volume; a day that lacks any is INCOMPLETE, and is asked
      for again by the next run. Pages are removed when no day needs them any more.
    * While the room on the disk belongs to the writer nothing is fetched or published.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import partial

import numpy as np

from brokers.errors import RestError
from brokers.history import TRADE_ROW, PageRequest, PageRows, format_rejects, open_history
from collectorctl.backfill.selection import (
    BARS,
    TICKS,
    DayOutcome,
    DaySelection,
    find_own,
    name_bars_folder,
    pages_folder,
)
from collectorctl.backfill.split import ChartDay, split_by_day
from collectorctl.disk.guard import DiskSpaceLow, require_space
from collectorctl.recover.certificate import store
from collectorctl.recover.certificate.certify import Certificate, Grade
from collectorctl.recover.download import minute_bars
from collectorctl.recover.download.daily_totals import DailyTotals
from collectorctl.recover.download.page_store import PageError, PageSequence, recovery_folder
from collectorctl.recover.download.pager import FetchError, NoAnswer, ThrottledClient, fetch_pages, walk_pages
from collectorctl.recover.job import BROKER, FAILURES, DayNotReady, compute_certificate, lock_date, recovery_lock
from collectorctl.recover.matching.day_coverage import DayCoverage
from collectorctl.recover.matching.gap_filling import FillResult, fill_by_chart, to_bar_rows
from collectorctl.recover.plan import DailyTotal, find_redundant_rows
from collectorctl.recover.store import day_ticks, evidence
from collectorctl.recover.store.evidence import Evidence
from collectorctl.recover.store.publish import publish
from collectorctl.recover.store.staging import StagingArea
from conf.clock import kst_midnight_ns, to_kst
from conf.home import Home
from conf.instrument import Instrument
from ringbuf.records import UNDEFINED
from writer.catalog import find_partitions

BEFORE_THE_LIST = "before the broker's list of ticks begins"


OnPage = Callable[[Instrument, str, int], None]
"""Called with an instrument, "ticks" or "bars", and how many pages of them are there."""


def backfill(
    home: Home,
    instruments: Sequence[Instrument],
    days: Sequence[date],
    on_page: OnPage,
    on_message: Callable[[str], None],
) -> Iterator[DayOutcome]:
    """Backfill days, all of them over; the outcome of each, as soon as it is known. AlreadyRunning, SettingsError."""
    fd = recovery_lock(home)
    try:
        history = open_history(home, BROKER)
        try:
            client = ThrottledClient(history, home.settings.recover, on_message, partial(require_space, home))
            failure = ""
            for instrument in instruments:
                one = _InstrumentBackfill(home, client, instrument, on_page)
                yield from one.run(sorted(days, reverse=True), failure)
                failure = one.fatal
        finally:
            history.close()
    finally:
        os.close(fd)


class _InstrumentBackfill:
    """One instrument of a run."""

    def __init__(self, home: Home, client: ThrottledClient, instrument: Instrument, on_page: OnPage) -> None:
        self.fatal = ""
        """Why the next instrument need not be tried."""
        self._home, self._client, self._instrument, self._on_page = home, client, instrument, on_page
        self._now_ns = home.load_clock().now_ns()
        self._calendar = home.load_calendar()
        self._selection = DaySelection(home, instrument, self._now_ns)
        self._availability, self._reasons = self._selection.availability, self._selection.reasons
        today = to_kst(self._now_ns).date()
        self._totals = DailyTotals(client, today, today)
        self._pages = pages_folder(home, today, instrument)
        self._bars: dict[date, PageRows] = {}

    def run(self, days: Sequence[date], failure: str) -> Iterator[DayOutcome]:
        """The outcome of each day; `failure`: why nothing can be fetched."""
        todo: list[date] = []
        for day in days:
            outcome = self._selection.look_at(day)
            if outcome is None:
                todo.append(day)
            else:
                yield outcome
        left, unsettled = list(todo), 0
        try:
            if failure:
                raise NoAnswer(failure)
            for outcome in self._fetch(list(self._availability), todo) if todo else ():
                left.remove(outcome.day)
                unsettled += not outcome.is_settled
                yield outcome
        except FAILURES as error:
            if isinstance(error, NoAnswer | DiskSpaceLow):
                self.fatal = str(error)
            for day in left:
                yield self._make_outcome(day, "failed", str(error))
            return
        if todo and not unsettled:
            shutil.rmtree(self._pages, ignore_errors=True)

    def _make_outcome(
        self, day: date, outcome: str, note: str = "", certificate: Certificate | None = None
    ) -> DayOutcome:
        return DayOutcome(self._instrument, day, outcome, note, certificate)

    def _fetch(self, days: Sequence[date], todo: Sequence[date]) -> Iterator[DayOutcome]:
        """The outcomes of `todo` out of `days`. FAILURES."""
        sequences = PageSequence(self._pages / TICKS), PageSequence(self._pages / name_bars_folder(days))
        is_resumed = any(one.count for one in sequences)
        left, unsettled = list(todo), list[DayOutcome]()
        failure: FetchError | None = None
        try:
            for outcome in self._attempt(days, todo, *sequences):
                if outcome.certificate and not outcome.is_settled:
                    unsettled.append(outcome)
                else:
                    left.remove(outcome.day)
                    yield outcome
        except NoAnswer:
            raise
        except FetchError as error:
            failure = error
        if is_resumed and (failure or unsettled):
            for one in sequences:
                one.clear()  # what an earlier run stored may be what is wrong
            yield from self._attempt(days, left, *sequences)
            return
        yield from unsettled
        if failure:
            raise failure

    def _attempt(
        self, days: Sequence[date], todo: Sequence[date], ticks: PageSequence, bars: PageSequence
    ) -> Iterator[DayOutcome]:
        """Ticks as far as their chart goes back, minute bars of what is before it. FAILURES."""
        self._fetch_bars(days, bars)
        in_reach = {day for day in todo if day not in self._reasons}
        seen: set[date] = set()
        try:
            for one in split_by_day(self._walk_ticks(ticks, min(in_reach))) if in_reach else ():
                if one.day in in_reach and (one.is_whole or self._adds_up(one)):
                    seen.add(one.day)
                    yield self._store(one.day, one)
        except (PageError, RestError) as error:
            raise FetchError(str(error)) from error
        for day in todo:
            if day not in seen:
                self._reasons.setdefault(day, BEFORE_THE_LIST)
                yield self._store(day, None)

    def _walk_ticks(self, sequence: PageSequence, oldest: date) -> Iterator[np.ndarray]:
        """The rows of each page back to before a day. FetchError, PageError, RestError."""
        begin = ("exch_ns", kst_midnight_ns(oldest))
        request = PageRequest(TICKS, self._instrument, self._availability[oldest].today)
        rejects: list[str] = []
        pages = walk_pages(self._client, sequence, request, self._client.history.parse_ticks, begin)
        for number, page in enumerate(pages, 1):
            self._on_page(self._instrument, TICKS, number)
            rejects += page.rejects
            yield page.rows
        if rejects:
            self._client.report(f"ticks of {self._instrument}: {format_rejects(rejects)}")

    def _adds_up(self, one: ChartDay) -> bool:
        """Whether the last day of a list is whole all the same."""
        try:
            total = self._get_total(one.day)
        except NoAnswer:
            raise
        except FetchError:
            return False
        return total is not None and int(one.rows["size"].sum()) == total.volume

    def _fetch_bars(self, days: Sequence[date], sequence: PageSequence) -> None:
        """The minutes of all days; without them a day is INCOMPLETE. NoAnswer."""
        self._bars.clear()
        rejects: list[str] = []
        count = 0

        def parse_and_report(content: bytes) -> PageRows:
            nonlocal count
            count += 1
            self._on_page(self._instrument, BARS, count)
            page = self._client.history.parse_bars(content)
            rejects.extend(page.rejects)
            return page

        request = PageRequest(BARS, self._instrument, max(days))
        begin = ("exch_ns", kst_midnight_ns(min(days)))
        try:
            rows = fetch_pages(self._client, sequence, request, parse_and_report, begin)
        except NoAnswer:
            raise
        except FetchError as error:
            self._client.report(str(error))
            return
        if rejects:
            self._client.report(f"minute bars of {self._instrument}: {format_rejects(rejects)}")
        for one in split_by_day([rows[::-1]]):
            if (np.diff(one.rows["exch_ns"]) <= 0).any():
                self._client.report(f"minute bars of {self._instrument}: the minutes of {one.day} are not in order")
                continue
            self._bars[one.day] = PageRows(one.rows, rejects)

    def _get_total(self, day: date) -> DailyTotal | None:
        """The official figures of a day, None if the broker has none. FetchError."""
        return self._totals.of_day(day).get(self._instrument)[0]

    def _store(self, day: date, chart: ChartDay | None) -> DayOutcome:
        """Place, publish and certify a day's ticks, or its minutes alone. NoAnswer, DiskSpaceLow."""
        try:
            found = self._collect_evidence(day)
            found.pages = chart.pages if chart else 0
            if found.volume is None and chart is None and day not in self._bars:
                return self._make_outcome(
                    day, "unavailable", f"the broker has nothing of {self._instrument} on that day"
                )
            certificate = self._publish(day, found, chart.rows if chart else None)
        except (NoAnswer, DiskSpaceLow):
            raise
        except FAILURES as error:
            return self._make_outcome(day, "failed", str(error))
        return self._make_outcome(day, "stored", "; ".join(certificate.reasons), certificate)

    def _collect_evidence(self, day: date) -> Evidence:
        """Official figures and minutes of a day. FetchError."""
        total, bars = self._get_total(day), self._bars.get(day)
        found = Evidence(
            backfilled=True,
            skip_reason=self._reasons.get(day, ""),
        )
        found.session_over = self._availability[day].is_session_over(self._instrument.venue)
        if total is not None:
            found.volume, found.value_m = total.volume, total.value_m if total.value_m != UNDEFINED else None
            if bars is not None:
                found.bars, found.unreadable_bars = [list(row) for row in bars.rows.tolist()], len(bars.rejects)
        return found

    def _publish(self, day: date, found: Evidence, rows: np.ndarray | None) -> Certificate:
        home, instrument = self._home, self._instrument
        folder, ticks_dir = recovery_folder(home.data, str(day), instrument), home.data / "kr" / "tick"
        with lock_date(home, day, self._client.report):
            require_space(home)
            if own := find_own(home, day, instrument):
                raise DayNotReady(f"{day}: {instrument}: {own} meanwhile: nothing was changed")
            coverage = DayCoverage.of(day_ticks.load_ticks(ticks_dir, day, instrument), found.volume)
            result = place(coverage, rows, found, instrument.venue)
            evidence.save(folder, found)
            if len(result.trades) and not find_partitions(ticks_dir, day):
                evidence.add_backfilled_day(home.data, day)
            staging = StagingArea(lambda one: recovery_folder(home.data, str(day), one))
            staging.add(instrument, result.trades)
            redundant = find_redundant_rows(instrument, result.day)
            row_group_rows, label = home.settings.writer.row_group_rows, self._calendar.label
            publish(ticks_dir, day, staging, redundant, BROKER, row_group_rows, label)
            staging.clear()
            certificate = compute_certificate(home, day, instrument)
            if certificate.certificate == Grade.MINUTE_ONLY:
                bars = {instrument: to_bar_rows(found.bars)}
                minute_bars.save(home.data, day, bars, self._now_ns, BROKER)
            made_at = f"{to_kst(home.load_clock().now_ns()):%Y-%m-%dT%H:%M:%S%z}"
            return store.save(home.data, day, [certificate], made_at)[0]


def place(day: DayCoverage, rows: np.ndarray | None, found: Evidence, venue: str) -> FillResult:
    """What fills a day out of its whole chart (TRADE_ROW, oldest first; None: nothing is); `found` gets what contradicts it."""
    if rows is None or not len(day.gaps):
        return FillResult(np.zeros(0, TRADE_ROW), day, [])
    result = fill_by_chart(day, rows, found.bars, from_start=True, venue=venue)
    found.findings, found.rowless = [*result.findings, *result.mismatches], list(result.rowless)
    found.anchors_checked, found.anchors_failed = result.anchors_checked, result.anchors_failed
    return result
