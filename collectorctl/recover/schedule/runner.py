"""Runner of scheduled recovery: every unsettled day is recovered once.

    days of the schedule ─> settled?  every certificate PROVEN, RECONCILED or MINUTE_ONLY ─> nothing is fetched
                               └─ no ─> job, in a thread ─┬─ every call answered: done, whatever its certificates say
                                                          ├─ unpublished hours, another run: again in WAIT_S
                                                          └─ failed: reason published, again in retry_s

Guarantees:
    * A settled day costs no call.
    * An error is logged, published as state and retried, never sooner than WAIT_S.
    * The heartbeat follows the progress of the job, so that the watchdog finds one that hangs; a killed run is resumed from
      the stored pages.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import date
from threading import Thread
from typing import NamedTuple

import msgspec
from loguru import logger

from collectorctl.recover.certificate import store
from collectorctl.recover.certificate.certify import Certificate, Grade
from collectorctl.recover.download.page_store import write_atomic
from collectorctl.recover.horizon import DayUnavailable
from collectorctl.recover.job import FAILURES, DayNotReady, ProgressListener, RecoveryRequest, recovery_job
from collectorctl.recover.plan import InstrumentPlan
from collectorctl.recover.schedule.schedule import Schedule
from collectorctl.recover.schedule.state import LastRun, find_first_day, last_run_path
from collectorctl.recover.store.day_ticks import find_instruments
from conf.clock import to_kst
from conf.home import Home
from conf.instrument import Instrument
from conf.process import AlreadyRunning, ShutdownSignal
from conf.settings import SettingsError
from ringbuf.vitals import ProcessState, Vitals

FINAL_GRADES = (Grade.PROVEN, Grade.RECONCILED, Grade.MINUTE_ONLY)
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
        self._record_progress(f"official figures of {instruments} instruments")

    def on_total(self) -> None:
        """One more."""
        self._record_progress(self.detail)

    def on_page(self, plan: InstrumentPlan, pages: int, rate: float) -> None:
        """One more page."""
        self._record_progress(f"{plan.instrument}: page {pages} of about {plan.pages}")

    def on_instrument_done(self, plan: InstrumentPlan) -> None:
        """One instrument is through."""
        self._record_progress(f"{plan.instrument}: placed")

    def on_message(self, text: str) -> None:
        """Something a user should read."""
        logger.warning("{}", text)
        self._record_progress(text)

    def _record_progress(self, detail: str) -> None:
        if self._stop.requested:
            raise ShutdownRequested
        self.detail, self.last_progress_s = detail, time.monotonic()


class RecoveryRunner:
    """The work of one life of the process."""

    def __init__(self, home: Home, schedule: Schedule, vitals: Vitals, stop: ShutdownSignal) -> None:
        self.home = home
        self._schedule = schedule
        self._vitals = vitals
        self._stop = stop
        self._finished_days: set[date] = set()

    def run(self) -> bool:
        """One run, however long it takes; whether it was completed. OSError when that cannot be stored."""
        while not self._stop.requested:
            failures = [self._recover_day(day, uncertified) for day, uncertified in self._find_unfinished_days()]
            failure = max((one for one in failures if one is not None), key=lambda one: one.failed, default=None)
            if self._stop.requested:
                break
            if failure is None:
                failure = self._save_last_run()
            if failure is None:
                return True
            pause_s = self.home.settings.recover.retry_s if failure.failed else NOT_READY_RETRY_S
            retry_text = f"; again in {pause_s:.0f} s" if failure.failed else ""
            self._vitals.set_state(
                ProcessState.FAILING if failure.failed else ProcessState.RECOVERING, failure.message + retry_text
            )
            self.wait(pause_s)
        return False

    def wait(self, seconds: float) -> None:
        """Wait, sending heartbeats; a requested stop ends it."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._stop.wait(min(left, HEARTBEAT_INTERVAL_S)):
            self._vitals.heartbeat()

    def _find_due_days(self) -> list[date]:
        return self._schedule.find_due_days(self.home.load_clock().now_ns(), find_first_day(self.home.data))

    def _find_unfinished_days(self) -> list[tuple[date, list[Instrument]]]:
        """Days that are not settled, with what they lack (nothing named: everything)."""
        found = []
        for day in self._find_due_days():
            self._vitals.heartbeat()
            uncertified = None if day in self._finished_days else self._find_uncertified(day)
            if uncertified is not None:
                found.append((day, uncertified))
        return found

    def _find_uncertified(self, day: date) -> list[Instrument] | None:
        """The instruments of a day without a certificate that settles it; none named if it has no certificate; None: settled."""
        certificates = self._load_certificates(day)
        if not certificates:
            return []
        certified = {Instrument(*key) for key, one in certificates.items() if one.certificate in FINAL_GRADES}
        expected = find_instruments(self.home.data / "kr" / "tick", day) | {Instrument(*key) for key in certificates}
        if day == to_kst(self.home.load_clock().now_ns()).date():
            expected |= set(self.home.settings.instruments())
        return sorted(expected - certified) or None

    def _load_certificates(self, day: date) -> dict[tuple[str, str], Certificate]:
        return store.load(self.home.data, day)

    def _recover_day(self, day: date, instruments: list[Instrument]) -> RecoveryFailure | None:
        """Run the job of a day, with heartbeats as long as it progresses; the failure, if any."""
        failures: list[RecoveryFailure] = []
        detector = StallDetector(self._stop)
        thread = Thread(
            target=lambda: failures.extend(self._run_job(RecoveryRequest(day, instruments), detector)), daemon=True
        )
        thread.start()
        published_detail = ""
        while thread.is_alive() and not self._stop.requested:
            thread.join(HEARTBEAT_INTERVAL_S)
            if published_detail != detector.detail:
                published_detail = detector.detail
                self._vitals.set_state(ProcessState.RECOVERING, f"{day}: {published_detail}")
            if time.monotonic() - detector.last_progress_s < STALL_TIMEOUT_S:
                self._vitals.heartbeat()
        thread.join(JOIN_TIMEOUT_S)
        if not failures and not self._stop.requested:
            self._finished_days.add(day)
        return failures[0] if failures else None

    def _run_job(self, request: RecoveryRequest, detector: StallDetector) -> list[RecoveryFailure]:
        """One run, to its end; what went wrong, if anything."""
        try:
            with recovery_job(self.home, request, detector) as job:
                certificates = job.recover(job.plan())
        except ShutdownRequested:
            return []
        except (DayNotReady, AlreadyRunning) as error:
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
        no_answer = (
            job.client.no_answer_message if any(one.certificate not in FINAL_GRADES for one in certificates) else ""
        )
        return [RecoveryFailure(no_answer, failed=True)] if no_answer else []

    def _save_last_run(self) -> RecoveryFailure | None:
        """Remember that this round ended, and how."""
        days = {
            day: dict(sorted(Counter(one.certificate for one in self._load_certificates(day).values()).items()))
            for day in self._find_due_days()
        }
        last_run = LastRun(self.home.load_clock().now_ns(), days)
        try:
            write_atomic(last_run_path(self.home.data), msgspec.json.format(msgspec.json.encode(last_run), indent=1))
        except OSError as error:
            logger.error("{}", error)
            return RecoveryFailure(str(error), failed=True)
        return None
