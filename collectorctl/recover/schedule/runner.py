"""Runner of scheduled recovery: every unsettled day is recovered once.

    days of what is due  ─> settled?  every certificate PROVEN, RECONCILED or MINUTE_ONLY ─> nothing is fetched
                               └─ no ─> job, in a thread ─┬─ every call answered: done, whatever its certificates say
                                                          ├─ unpublished hours, another run: again in NOT_READY_RETRY_S
                                                          ├─ the last room on the disk is the writer's: paused until there is more
                                                          └─ failed: reason published, again in retry_s

Guarantees:
    * A settled day costs no call.
    * A day that was certified has its report before the run has ended.
    * Files whose days in [retention] are over are removed before a run, once a day.
    * With recover.compact certified dates are compacted after a run that was completed.
    * An error is logged, published as state and retried, never sooner than NOT_READY_RETRY_S.
    * The heartbeat follows the progress of the job, so that the watchdog finds one that hangs; a killed run is resumed from
      the stored pages.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from threading import Thread
from typing import NamedTuple

import msgspec
from loguru import logger

from collectorctl.disk.clean import clean
from collectorctl.disk.guard import DiskSpaceLow, find_low_space
from collectorctl.disk.retention import is_enabled
from collectorctl.recover import us_job
from collectorctl.recover.certificate import store
from collectorctl.recover.certificate.certify import FINAL_GRADES, NOT_COLLECTED, Certificate
from collectorctl.recover.horizon import DayUnavailable
from collectorctl.recover.job import FAILURES, DayNotReady, ProgressListener, RecoveryRequest, recovery_job
from collectorctl.recover.plan import InstrumentPlan
from collectorctl.recover.schedule.compaction import compact_date, find_uncompacted
from collectorctl.recover.schedule.schedule import Schedule
from collectorctl.recover.schedule.state import LastRun, find_first_day, is_due, last_run_path
from collectorctl.recover.store.day_ticks import find_instruments
from conf.clock import to_kst
from conf.home import Home
from conf.instrument import Instrument
from conf.market import KR, Market, MarketDate
from conf.process import AlreadyRunning, ShutdownSignal
from conf.settings import SettingsError
from ringbuf.vitals import ProcessState, Vitals
from writer import durable_io

NOT_READY_RETRY_S = 5.0
HEARTBEAT_INTERVAL_S = 0.2
JOIN_TIMEOUT_S = 5.0
"""Longest wait for a run that was asked to stop; it is safe to kill."""
STALL_TIMEOUT_S = 600.0
"""A job without progress for so long hangs: a page takes seconds, with all its attempts a minute or two."""


class ShutdownRequested(Exception):
    """The process was asked to stop."""


class RecoveryFailure(NamedTuple):
    """Why a day was not completed; `failed`: not merely too early."""

    message: str
    failed: bool


class StallDetector(ProgressListener):
    """Receives the progress of a job, in the job's thread; a requested stop ends the job at its next message."""

    def __init__(self, stop: ShutdownSignal) -> None:
        self._stop = stop
        self.last_progress_s = time.monotonic()
        self.detail = "looking at what is there"

    def on_totals_started(self, instruments: int) -> None:
        """Official figures come first."""
        self.record_progress(f"official figures of {instruments} instruments")

    def on_total(self) -> None:
        """One more."""
        self.record_progress(self.detail)

    def on_page(self, plan: InstrumentPlan, pages: int, rate: float) -> None:
        """One more page."""
        self.record_progress(f"{plan.instrument}: page {pages} of about {plan.pages}")

    def on_instrument_done(self, plan: InstrumentPlan) -> None:
        """One instrument is through."""
        self.record_progress(f"{plan.instrument}: placed")

    def on_message(self, text: str) -> None:
        """Something a user should read."""
        logger.warning("{}", text)
        self.record_progress(text)

    def record_progress(self, detail: str) -> None:
        """Something was done. ShutdownRequested."""
        if self._stop.requested:
            raise ShutdownRequested
        self.detail, self.last_progress_s = detail, time.monotonic()


class RecoveryRunner:
    """The work of one life of the process."""

    def __init__(self, home: Home, schedules: Sequence[Schedule], vitals: Vitals, stop: ShutdownSignal) -> None:
        self.home = home
        self._schedules = schedules
        self._vitals = vitals
        self._stop = stop
        self._finished_days: set[tuple[str, date]] = set()
        self._cleaned_day: date | None = None

    def run(self) -> bool:
        """One run of every schedule that is due (of all, if none is), however long it takes; whether it was completed."""
        chosen = self._find_due() or self._schedules
        while not self._stop.requested:
            self._clean_daily()
            if low_space := find_low_space(self.home):
                self._vitals.set_state(ProcessState.PAUSED, low_space)
                self.wait(NOT_READY_RETRY_S)
                continue
            failures = [one for schedule in chosen if (one := self._recover_days(schedule)) is not None]
            if self._stop.requested:
                break
            if not failures:
                self._compact(chosen)
                return True
            failure = max(failures, key=lambda one: one.failed)
            pause_s = self.home.settings.recover.retry_s if failure.failed else NOT_READY_RETRY_S
            retry_text = f"; again in {pause_s:.0f} s" if failure.failed else ""
            self._vitals.set_state(
                ProcessState.FAILING if failure.failed else ProcessState.RECOVERING, failure.message + retry_text
            )
            self.wait(pause_s)
            chosen = self._find_due() or chosen
        return False

    def _clean_daily(self) -> None:
        """Remove files whose days are over, at the start and on every later day; a failure is logged and ends nothing."""
        today = to_kst(self.home.load_clock().now_ns()).date()
        if self._cleaned_day == today or not is_enabled(self.home.settings.retention):
            return
        self._cleaned_day = today
        detector = StallDetector(self._stop)
        self._run_watched(partial(_clean, self.home, detector), detector)

    def _compact(self, schedules: Sequence[Schedule]) -> None:
        """Compact what can be of the markets of some schedules, if that is asked for; it is logged and ends nothing."""
        if not self.home.settings.recover.compact:
            return
        for schedule in {one.market.name: one for one in schedules}.values():
            for day in find_uncompacted(self.home, schedule):
                if self._stop.requested:
                    return
                detector = StallDetector(self._stop)
                work = partial(_compact_date, self.home, schedule.market, day, detector)
                self._run_watched(work, detector, str(MarketDate(schedule.market.name, day)))

    def _find_due(self) -> list[Schedule]:
        return [schedule for schedule in self._schedules if is_due(self.home, schedule)]

    def _recover_days(self, schedule: Schedule) -> RecoveryFailure | None:
        """All unsettled days of a schedule, and the end of the run is stored; the worst failure, if any."""
        unfinished = self._find_unfinished_days(schedule)
        failures = [self._recover_day(schedule, day, uncertified) for day, uncertified in unfinished]
        failure = max((one for one in failures if one is not None), key=lambda one: one.failed, default=None)
        return self._save_last_run(schedule) if failure is None and not self._stop.requested else failure

    def wait(self, seconds: float) -> None:
        """Wait, sending heartbeats; a requested stop ends it."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._stop.wait(min(left, HEARTBEAT_INTERVAL_S)):
            self._vitals.heartbeat()

    def _find_due_days(self, schedule: Schedule) -> list[date]:
        first = find_first_day(self.home.data, schedule.market)
        return schedule.find_due_days(self.home.load_clock().now_ns(), first)

    def _find_unfinished_days(self, schedule: Schedule) -> list[tuple[date, list[Instrument]]]:
        """Days that are not settled, with what they lack (nothing named: everything)."""
        found = []
        for day in self._find_due_days(schedule):
            self._vitals.heartbeat()
            is_finished = (schedule.name, day) in self._finished_days
            uncertified = None if is_finished else self._find_uncertified(schedule, day)
            if uncertified is not None:
                found.append((day, uncertified))
        return found

    def _find_uncertified(self, schedule: Schedule, day: date) -> list[Instrument] | None:
        """The instruments of a day without a certificate that settles it; None: settled; none named: all.

        All of them where no certificate is of what this home collects: `backfill` certifies single instruments.
        """
        certificates = self._load_certificates(schedule, day)
        certified = {Instrument(*key) for key, one in certificates.items() if one.certificate in FINAL_GRADES}
        expected = {Instrument(*key) for key in certificates}
        if schedule.market is not KR:
            return sorted({*expected, *schedule.instruments} - certified) or None
        collected = any(NOT_COLLECTED not in one.reasons for one in certificates.values())
        if not collected and not (certified and certified >= set(schedule.instruments)):
            return []
        expected |= find_instruments(self.home.data / "kr" / "tick", day)
        if day == to_kst(self.home.load_clock().now_ns()).date():
            expected |= set(self.home.instruments_of(day))
        return sorted(expected - certified) or None

    def _load_certificates(self, schedule: Schedule, day: date) -> dict[tuple[str, str], Certificate]:
        found = store.load(self.home.data, day, schedule.market)
        return {key: one for key, one in found.items() if schedule.covers(key[1])}

    def _recover_day(self, schedule: Schedule, day: date, instruments: list[Instrument]) -> RecoveryFailure | None:
        """Run the job of a day, with heartbeats as long as it progresses; the failure, if any."""
        failures: list[RecoveryFailure] = []
        detector = StallDetector(self._stop)
        request = RecoveryRequest(day, instruments)
        name = str(day) if schedule.market is KR else f"{schedule.name} {day}"
        self._run_watched(lambda: failures.extend(self._run_job(schedule, request, detector)), detector, name)
        if not failures and not self._stop.requested:
            self._finished_days.add((schedule.name, day))
        return failures[0] if failures else None

    def _run_watched(self, work: Callable[[], None], detector: StallDetector, name: str = "") -> None:
        """Run `work` in a thread, with heartbeats as long as it progresses; `name`: its detail is published under it."""
        thread = Thread(target=work, daemon=True)
        thread.start()
        published_detail = ""
        while thread.is_alive() and not self._stop.requested:
            thread.join(HEARTBEAT_INTERVAL_S)
            if name and published_detail != detector.detail:
                published_detail = detector.detail
                self._vitals.set_state(ProcessState.RECOVERING, f"{name}: {published_detail}")
            if time.monotonic() - detector.last_progress_s < STALL_TIMEOUT_S:
                self._vitals.heartbeat()
        thread.join(JOIN_TIMEOUT_S)

    def _run_job(self, schedule: Schedule, request: RecoveryRequest, detector: StallDetector) -> list[RecoveryFailure]:
        """One run, to its end; what went wrong, if anything."""
        no_answer = ""
        try:
            if schedule.market is KR:
                with recovery_job(self.home, request, detector) as job:
                    certificates = job.recover(job.plan())
                no_answer = job.client.no_answer_message
                _write_report(self.home, request.day)
            else:
                certificates = us_job.recover(
                    self.home,
                    request.day,
                    request.instruments,
                    detector.on_message,
                    lambda one: detector.record_progress(f"{one}: minute bars"),
                )
        except ShutdownRequested:
            return []
        except (DayNotReady, AlreadyRunning, DiskSpaceLow) as error:
            return [RecoveryFailure(str(error), failed=False)]
        except DayUnavailable as error:  # the calendar was changed meanwhile
            logger.warning("{}", error)
            return []
        except (*FAILURES, SettingsError) as error:
            logger.error("{}: {}", request.day, error)
            return [RecoveryFailure(str(error), failed=True)]
        except Exception as error:  # noqa: BLE001 logged, published, and tried again after a pause
            logger.exception("{}: a bug", request.day)
            return [
                RecoveryFailure(
                    f"{request.day}: {type(error).__name__}: {error} (the traceback is in the log)", failed=True
                )
            ]
        logger.info("{}: {}", request.day, dict(Counter(one.certificate for one in certificates)))
        is_open = any(one.certificate not in FINAL_GRADES for one in certificates)
        return [RecoveryFailure(no_answer, failed=True)] if no_answer and is_open else []

    def _save_last_run(self, schedule: Schedule) -> RecoveryFailure | None:
        """Remember that this round ended, and how."""
        days = {
            day: dict(
                sorted(Counter(one.certificate for one in self._load_certificates(schedule, day).values()).items())
            )
            for day in self._find_due_days(schedule)
        }
        last_run = LastRun(self.home.load_clock().now_ns(), days)
        try:
            durable_io.write_changed(
                last_run_path(self.home.data, schedule.name),
                msgspec.json.format(msgspec.json.encode(last_run), indent=1),
            )
        except OSError as error:
            logger.error("{}", error)
            return RecoveryFailure(str(error), failed=True)
        return None


def _clean(home: Home, detector: StallDetector) -> None:
    """Remove what is over; what was removed and what not is logged."""
    try:
        report = clean(home, lambda: detector.record_progress(detector.detail))
    except ShutdownRequested:
        return
    except Exception as error:  # noqa: BLE001 logged: recovery goes on without
        logger.opt(exception=error).error("retention: {}", error)
        return
    size = sum(one.bytes for one in report.removed)
    logger.info("retention: {} files, {} bytes removed", len(report.removed), size)
    for reason in report.skipped:
        logger.warning("retention: not removed: {}", reason)
    if report.kept:
        logger.warning("retention: {} days of market data stay: {}", len(report.kept), report.kept[0])


def _compact_date(home: Home, market: Market, day: date, detector: StallDetector) -> None:
    try:
        compact_date(home, market, day, lambda: detector.record_progress("compaction"))
    except ShutdownRequested:
        return
    except Exception as error:  # noqa: BLE001 logged: the day is certified, in whichever files
        logger.opt(exception=error).error("compaction: {}: {}", day, error)


def _write_report(home: Home, day: date) -> None:
    """Write the page of a certified day; loaded when there is one, since the process must be up soon after its start."""
    from collectorctl.report.store import write_report_after

    write_report_after(home, day)
