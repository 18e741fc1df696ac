"""Recovery job of one day: plan, download, fill, publish, certify.

    plan ─> fetch ─> fill ─┐ for each instrument, most missing value first
                           └─> publish ─> certify ─> data/kr/completeness/date=D/part-0.parquet

Guarantees:
    * One run at a time in a home; nothing is written for a day that cannot be recovered.
    * While the room on the disk belongs to the writer nothing is fetched or published (DiskSpaceLow); what was fetched is kept.
    * Rows are published, and certified, under the lock of their date, and only if no other process changed the day's ticks since
      the plan was made.
    * A killed run is resumed by the next, which ends with equal files; a run that finds nothing to do changes no byte.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial

import msgspec
import numpy as np
import pyarrow as pa

from brokers.errors import BrokerError
from brokers.history import TRADE_ROW, HistoricalData, format_rejects, open_history
from collectorctl.disk import retired
from collectorctl.disk.guard import require_space
from collectorctl.recover.certificate import store
from collectorctl.recover.certificate.certify import Certificate, Grade, certify
from collectorctl.recover.download import minute_bars
from collectorctl.recover.download.daily_totals import DailyTotals
from collectorctl.recover.download.page_store import recovery_folder
from collectorctl.recover.download.pager import FetchError, NoAnswer, ThrottledClient
from collectorctl.recover.horizon import DayAvailability, DayUnavailable
from collectorctl.recover.matching.day_coverage import DayCoverage
from collectorctl.recover.matching.gap_filling import to_bar_rows
from collectorctl.recover.plan import InstrumentPlan, find_redundant_rows, fit_budget, plan_instrument
from collectorctl.recover.store import day_ticks, evidence
from collectorctl.recover.store.evidence import Evidence
from collectorctl.recover.store.publish import RowKey, publish
from collectorctl.recover.store.staging import StagingArea
from collectorctl.recover.tick_source import TickSource
from conf.clock import to_kst
from conf.files.lock import LockHeld, exclusive_lock
from conf.home import Home
from conf.instrument import Instrument
from conf.process import AlreadyRunning
from ringbuf.records import UNDEFINED
from writer import durable_io
from writer.catalog import FileState
from writer.publish.verified_file import PartitionWriteError

BROKER = "kiwoom"
EXPECTED_RATE_SHARE = 0.9
"""Share of the maximum rate that is assumed until a run has measured one."""


LOCK_TIMEOUT_S = 60.0
"""Longest wait for a process that changes files of the day."""


class DayNotReady(Exception):
    """The day cannot be recovered yet; the message has reason and remedy."""


FAILURES = (DayNotReady, FetchError, PartitionWriteError, BrokerError, OSError)
"""Errors of a run that are no bugs."""


@dataclass
class RecoveryRequest:
    """What is asked for. `instruments` empty: the universe of that day and whatever has ticks on that day."""

    day: date
    instruments: list[Instrument] = field(default_factory=list)
    mode: str = "auto"
    budget_s: float | None = None


class ProgressListener:
    """Receives the progress of a run; does nothing."""

    def on_totals_started(self, instruments: int) -> None:
        """The official figures of that many instruments are asked for."""

    def on_total(self) -> None:
        """One of them is known."""

    def on_planned(self, plans: list[InstrumentPlan]) -> None:
        """This is what will be fetched."""

    def on_page(self, plan: InstrumentPlan, pages: int, rate: float) -> None:
        """That many pages of an instrument are there; calls a second at present."""

    def on_instrument_done(self, plan: InstrumentPlan) -> None:
        """An instrument's ticks are placed."""

    def on_message(self, text: str) -> None:
        """Something happened that a user should see."""


class RecoveryJob:
    """One run on one home; use `recovering` to be alone."""

    def __init__(self, home: Home, request: RecoveryRequest, listener: ProgressListener) -> None:
        """SettingsError when keys are missing; DayUnavailable for a day that no broker has."""
        self.home = home
        self.day = request.day
        self.request = request
        self.listener = listener
        self._started_ns = home.load_clock().now_ns()
        self.availability = DayAvailability(home.settings, home.load_calendar(), self._started_ns, request.day)
        self.mode = self.availability.resolve_mode(request.mode)
        if gone := retired.describe(home.data, request.day, ("tick", "orderbook")):
            raise DayUnavailable(f"{gone}: there is nothing to recover: take the day from a copy")
        self.ticks_dir, self.books_dir = (home.data / "kr" / stream for stream in ("tick", "orderbook"))
        self.history: HistoricalData = open_history(home, BROKER)
        self.client = ThrottledClient(
            self.history, home.settings.recover, listener.on_message, partial(require_space, home)
        )
        self.daily_totals = DailyTotals(self.client, request.day, self.availability.today)
        self._evidence: dict[Instrument, Evidence] = {}
        self._planned_files: frozenset[FileState] = frozenset()

    def plan(self) -> list[InstrumentPlan]:
        """The plan; nothing is written. DayNotReady while hours of the day are unpublished; FetchError."""
        unpublished = day_ticks.find_unpublished_hours(self.home, self.day)
        if unpublished:
            raise DayNotReady(
                f"{self.day}: hours are still in the journal ({', '.join(unpublished)}): `collectorctl stop` publishes "
                "them, or wait until the writer has; then recover again"
            )
        self._planned_files = day_ticks.read_file_states(self.ticks_dir, self.day)
        chosen = self.request.instruments or sorted(
            {*self.home.instruments_of(self.day), *day_ticks.find_instruments(self.ticks_dir, self.day)}
        )
        self.listener.on_totals_started(len(chosen))
        rates = load_rates(self.home)
        plans = []
        for instrument in chosen:
            try:
                daily_total, later_shares = self.daily_totals.get(instrument)
            except NoAnswer:
                raise
            except FetchError as error:
                self.listener.on_message(str(error))
                daily_total, later_shares = None, 0
            ticks = day_ticks.load_ticks(self.ticks_dir, self.day, instrument)
            one = plan_instrument(
                instrument, ticks, daily_total, later_shares, self.history.PAGE_ROWS, self.availability.trades_available
            )
            if one.method and self.mode == "minutes":
                one.method, one.pages = "bars", 0
                one.skip_reason = self.availability.skip_reason or "minute bars were requested"
            plans.append(one)
            self.listener.on_total()
        return fit_budget(plans, rates, self.request.budget_s)

    def current_certificates(self, plans: list[InstrumentPlan]) -> list[Certificate]:
        """The certificates of the day as its files are now, before anything is fetched or written. FetchError."""
        return [compute_certificate(self.home, self.day, one.instrument, self._collect_evidence(one)) for one in plans]

    def recover(self, plans: list[InstrumentPlan]) -> list[Certificate]:
        """Do what was planned; a certificate for each instrument. FetchError, PartitionWriteError, OSError."""
        self.listener.on_planned(plans)
        staging = StagingArea(lambda instrument: recovery_folder(self.home.data, str(self.day), instrument))
        redundant: dict[RowKey, int] = {}
        for one in plans:
            require_space(self.home)
            trades, newly_redundant = self._fill_gaps(one)
            staging.add(one.instrument, trades)
            redundant |= newly_redundant
            self.listener.on_instrument_done(one)
        with lock_date(self.home, self.day, self.listener.on_message):
            if day_ticks.find_unpublished_hours(self.home, self.day):
                raise DayNotReady(
                    f"{self.day}: the writer took up rows of that day meanwhile: recover again when they are published"
                )
            if day_ticks.read_file_states(self.ticks_dir, self.day) != self._planned_files:
                raise DayNotReady(
                    f"{self.day}: the writer or reprocess published ticks of that day meanwhile, nothing was changed: recover "
                    "again, what was fetched is kept"
                )
            require_space(self.home)
            row_group_rows, label = self.home.settings.writer.row_group_rows, self.home.load_calendar().label
            publish(self.ticks_dir, self.day, staging, redundant, BROKER, row_group_rows, label)
            staging.clear()
            self._save_rates()
            return self._certify(plans)

    def _fill_gaps(self, plan: InstrumentPlan) -> tuple[np.ndarray, dict[RowKey, int]]:
        """The TRADE_ROW that fill an instrument's gaps, and rows that become redundant; the evidence is stored."""
        ticks = day_ticks.load_ticks(self.ticks_dir, self.day, plan.instrument)
        found = self._collect_evidence(plan)
        day = DayCoverage.of(ticks, found.volume)
        trades = np.zeros(0, TRADE_ROW)
        if plan.method in ("ticks", "trades"):
            on_page = partial(self.listener.on_page, plan)
            load_books = partial(day_ticks.load_book_volumes, self.books_dir, self.day, plan.instrument)
            source = TickSource(self.home.data, self.client, self.availability, plan, load_books, on_page)
            trades, day, *_ = source.fill(day, found, lambda: self.daily_totals.get(plan.instrument, refresh=True)[0])
        found.pages, found.pages_complete = TickSource.count_stored_pages(
            self.home.data, self.day, plan.instrument, not len(day.gaps)
        )
        evidence.save(recovery_folder(self.home.data, str(self.day), plan.instrument), found)
        del self._evidence[plan.instrument]
        return trades, find_redundant_rows(plan.instrument, day)

    def _certify(self, plans: list[InstrumentPlan]) -> list[Certificate]:
        made_at = f"{to_kst(self.home.load_clock().now_ns()):%Y-%m-%dT%H:%M:%S%z}"
        certificates = [
            compute_certificate(self.home, self.day, name) for name in sorted(one.instrument for one in plans)
        ]
        in_bars = {
            Instrument(c.symbol, c.venue)
            for c in certificates
            if c.certificate == Grade.MINUTE_ONLY or self.mode == "minutes"
        }
        bars = {name: to_bar_rows(self._load_evidence(name).bars) for name in sorted(in_bars)}
        minute_bars.save(self.home.data, self.day, bars, self._started_ns, BROKER)
        return store.save(self.home.data, self.day, certificates, made_at)

    def _collect_evidence(self, plan: InstrumentPlan) -> Evidence:
        """Official figures and minute bars of this run, what else is known from the run before."""
        if plan.instrument in self._evidence:
            return self._evidence[plan.instrument]
        found = self._load_evidence(plan.instrument)
        daily_total = plan.daily_total
        found.volume = daily_total.volume if daily_total else None
        found.value_m = daily_total.value_m if daily_total and daily_total.value_m != UNDEFINED else None
        found.session_over = self.availability.is_session_over(plan.instrument.venue)
        found.skip_reason = plan.skip_reason
        try:
            found.bars, found.unreadable_bars = [], 0
            if daily_total:  # bars that no official volume vouches for are not stored
                bars, rejects = minute_bars.fetch_bars(self.client, self.day, plan.instrument)
                found.bars, found.unreadable_bars = [list(row) for row in bars.tolist()], len(rejects)
                if rejects:
                    self.listener.on_message(f"minute bars of {plan.instrument}: {format_rejects(rejects)}")
        except FetchError as error:
            self.listener.on_message(str(error))
        self._evidence[plan.instrument] = found
        return found

    def _load_evidence(self, instrument: Instrument) -> Evidence:
        return evidence.load(recovery_folder(self.home.data, str(self.day), instrument)) or Evidence()

    def _save_rates(self) -> None:
        """Store the rate that the broker accepted, if enough calls were made to measure it."""
        rates = load_rates(self.home)
        learned = {
            kind: round(self.client.get_rate(kind), 1) for kind in rates if self.client.call_counts.get(kind, 0) >= 20
        }
        if learned:
            durable_io.write_changed(self.home.data / "recover" / "rates.json", msgspec.json.encode(rates | learned))


def load_rates(home: Home) -> dict[str, float]:
    """Calls a second by kind: those that the broker accepted of an earlier run, else what is expected."""
    expected = home.settings.recover.max_calls_per_s * EXPECTED_RATE_SHARE
    path = home.data / "recover" / "rates.json"
    try:
        learned = msgspec.json.decode(path.read_bytes(), type=dict[str, float])
    except (FileNotFoundError, msgspec.MsgspecError):
        learned = {}
    if "prints" in learned:  # the name of "trades" in earlier files
        learned.setdefault("trades", learned.pop("prints"))
    return {kind: max(0.1, learned.get(kind, expected)) for kind in ("ticks", "trades")}


def compute_certificate(
    home: Home, day: date, instrument: Instrument, given_evidence: Evidence | None = None
) -> Certificate:
    """The certificate of an instrument's day, from files alone; evidence of this run replaces the stored one."""
    given_evidence = given_evidence or evidence.load(recovery_folder(home.data, str(day), instrument)) or Evidence()
    ticks = day_ticks.load_ticks(home.data / "kr" / "tick", day, instrument)
    books = day_ticks.load_book_volumes(home.data / "kr" / "orderbook", day, instrument)["cum_volume"]
    return certify(instrument, day, ticks, books, given_evidence)


@contextmanager
def recovery_job(
    home: Home, request: RecoveryRequest, listener: ProgressListener, writes: bool = True
) -> Iterator[RecoveryJob]:
    """A run, exclusive in its home if it writes. AlreadyRunning when another one is active."""
    fd = recovery_lock(home) if writes else -1
    pa.set_memory_pool(pa.system_memory_pool())  # gives back what was read of one instrument before the next
    try:
        job = RecoveryJob(home, request, listener)
        try:
            yield job
        finally:
            job.history.close()
    finally:
        if fd >= 0:
            os.close(fd)


@contextmanager
def lock_date(home: Home, day: date, on_message: Callable[[str], None]) -> Iterator[None]:
    """Nobody else changes partitions of the day inside the block. DayNotReady."""

    def on_wait(holder: str) -> None:
        on_message(f"{day}: waits for {holder}, which changes files of that day")

    lock = exclusive_lock(home.date_lock_path(str(day)), "recover", LOCK_TIMEOUT_S, on_wait=on_wait)
    try:
        with lock:
            yield
    except LockHeld as error:
        raise DayNotReady(
            f"{day}: {error.holder} changes files of that day for longer than {LOCK_TIMEOUT_S:.0f} s: wait for it or "
            "stop it, then recover again; what was fetched is kept"
        ) from None


def recovery_lock(home: Home) -> int:
    """A descriptor that excludes other runs of this home until it is closed. AlreadyRunning."""
    home.create_directories()
    path = home.lock_path("recovering")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise AlreadyRunning(f"{path}: another recovery is at work in this home: wait for it, or stop it") from None
    return fd
