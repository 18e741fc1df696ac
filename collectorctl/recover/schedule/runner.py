"""A round: every day that is not settled is recovered, until each was gone through once.

    days of the schedule ─> settled?  every certificate PROVEN, RECONCILED or MINUTE_ONLY ─> nothing is asked for
                               └─ no ─> Run, in a thread ─┬─ every call answered: gone through, whatever its certificates say
                                                          ├─ not yet: hours in the journal, another run: again in WAIT_S
                                                          └─ failed: said in words, again in retry_s

Promises: a day that is settled costs no call; whatever goes wrong is logged, said and tried again, never sooner than WAIT_S; the
heart beats as long as the run moves on, so that one that hangs is found by the watchdog; killed at any instruction, the next round
goes on from the pages that are kept.
Leaves to others: recovering a day (run.py), when a round is due (schedule.py), the process (__main__.py).
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
from collectorctl.recover.download.page_store import put
from collectorctl.recover.horizon import OutOfReach
from collectorctl.recover.job import FAILURES, NotNow, Request, Watcher, recovering
from collectorctl.recover.plan import Item
from collectorctl.recover.schedule.schedule import Schedule
from collectorctl.recover.schedule.state import Round, first_day, round_file
from collectorctl.recover.store.day_ticks import symbols
from conf.clock import korean
from conf.home import Home
from conf.instrument import Instrument
from conf.process import Busy, Stop
from conf.settings import SettingsError
from ringbuf.vitals import Vitals

SETTLED = (Grade.PROVEN, Grade.RECONCILED, Grade.MINUTE_ONLY)
WAIT_S = 5.0
BEAT_S = 0.2
LEAVE_S = 5.0
"""Longest wait for a run that was asked to stop; it is safe to kill."""
STUCK_S = 600.0
"""A run that has not moved for so long hangs: a page takes seconds, with all its attempts a minute or two."""


class Stopped(Exception):
    """The process was asked to stop."""


class Trouble(NamedTuple):
    """Why a day was not gone through; `failed`: not merely too early."""

    words: str
    failed: bool


class Told(Watcher):
    """Hears how a run moves on, in the run's own thread; a request to stop ends the run at its next word."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self.moved_s = time.monotonic()
        self.detail = "looking at what is there"

    def asking(self, instruments: int) -> None:
        """Official figures come first."""
        self._moved(f"official figures of {instruments} instruments")

    def asked(self) -> None:
        """One more."""
        self._moved(self.detail)

    def page(self, one: Item, pages: int, rate: float) -> None:
        """One more page."""
        self._moved(f"{one.instrument}: page {pages} of about {one.pages}")

    def done(self, one: Item) -> None:
        """One instrument is through."""
        self._moved(f"{one.instrument}: placed")

    def words(self, text: str) -> None:
        """Something a user should read."""
        logger.warning("{}", text)
        self._moved(text)

    def _moved(self, detail: str) -> None:
        if self._stop.requested:
            raise Stopped
        self.detail, self.moved_s = detail, time.monotonic()


class Rounds:
    """The work of one life of the process."""

    def __init__(self, home: Home, schedule: Schedule, vitals: Vitals, stop: Stop) -> None:
        self.home = home
        self._schedule = schedule
        self._vitals = vitals
        self._stop = stop
        self._through: set[date] = set()

    def work(self) -> bool:
        """One round, however long it takes; whether it came to its end. OSError when that cannot be kept."""
        while not self._stop.requested:
            troubles = [self._recover(day, lacking) for day, lacking in self._left()]
            trouble = max((one for one in troubles if one is not None), key=lambda one: one.failed, default=None)
            if self._stop.requested:
                break
            if trouble is None:
                trouble = self._keep()
            if trouble is None:
                return True
            pause_s = self.home.settings.recover.retry_s if trouble.failed else WAIT_S
            again = f"; again in {pause_s:.0f} s" if trouble.failed else ""
            self._vitals.say("failing" if trouble.failed else "recovering", trouble.words + again)
            self.rest(pause_s)
        return False

    def rest(self, seconds: float) -> None:
        """Wait, with the heart beating; not past a request to stop."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._stop.wait(min(left, BEAT_S)):
            self._vitals.beat()

    def _days(self) -> list[date]:
        return self._schedule.days(self.home.clock().now_ns(), first_day(self.home.data))

    def _left(self) -> list[tuple[date, list[Instrument]]]:
        """Days that are not settled, with what they lack (nothing named: everything)."""
        found = []
        for day in self._days():
            self._vitals.beat()
            lacking = None if day in self._through else self._lacking(day)
            if lacking is not None:
                found.append((day, lacking))
        return found

    def _lacking(self, day: date) -> list[Instrument] | None:
        """The instruments of a day without a certificate that settles it; none named if it has no certificate; None: settled."""
        certificates = self._certificates(day)
        if not certificates:
            return []
        there = {Instrument(*key) for key, one in certificates.items() if one.certificate in SETTLED}
        wanted = symbols(self.home.data / "kr" / "tick", day) | {Instrument(*key) for key in certificates}
        if day == korean(self.home.clock().now_ns()).date():
            wanted |= set(self.home.settings.instruments())
        return sorted(wanted - there) or None

    def _certificates(self, day: date) -> dict[tuple[str, str], Certificate]:
        return store.load(self.home.data, day)

    def _recover(self, day: date, instruments: list[Instrument]) -> Trouble | None:
        """Let a run of that day go its way, the heart beating as long as it moves; what was in the way."""
        troubles: list[Trouble] = []
        told = Told(self._stop)
        thread = Thread(target=lambda: troubles.extend(self._run(Request(day, instruments), told)), daemon=True)
        thread.start()
        said = ""
        while thread.is_alive() and not self._stop.requested:
            thread.join(BEAT_S)
            if said != told.detail:
                said = told.detail
                self._vitals.say("recovering", f"{day}: {said}")
            if time.monotonic() - told.moved_s < STUCK_S:
                self._vitals.beat()
        thread.join(LEAVE_S)
        if not troubles and not self._stop.requested:
            self._through.add(day)
        return troubles[0] if troubles else None

    def _run(self, request: Request, told: Told) -> list[Trouble]:
        """One run, to its end; what went wrong, if anything."""
        try:
            with recovering(self.home, request, told) as run:
                certificates = run.recover(run.plan())
        except Stopped:
            return []
        except (NotNow, Busy) as error:
            return [Trouble(str(error), failed=False)]
        except OutOfReach as error:  # the calendar was changed meanwhile
            logger.warning("{}", error)
            return []
        except (*FAILURES, SettingsError) as error:
            logger.error("{}: {}", request.day, error)
            return [Trouble(str(error), failed=True)]
        except Exception as error:  # noqa: BLE001 logged, said, and tried again after a pause instead of at once
            logger.exception("{}: a bug", request.day)
            return [
                Trouble(f"{request.day}: {type(error).__name__}: {error} (the traceback is in the log)", failed=True)
            ]
        logger.info("{}: {}", request.day, dict(Counter(one.certificate for one in certificates)))
        missed = run.caller.unanswered if any(one.certificate not in SETTLED for one in certificates) else ""
        return [Trouble(missed, failed=True)] if missed else []

    def _keep(self) -> Trouble | None:
        """Remember that this round ended, and how."""
        days = {
            day: dict(sorted(Counter(one.certificate for one in self._certificates(day).values()).items()))
            for day in self._days()
        }
        made = Round(self.home.clock().now_ns(), days)
        try:
            put(round_file(self.home.data), msgspec.json.format(msgspec.json.encode(made), indent=1))
        except OSError as error:
            logger.error("{}", error)
            return Trouble(str(error), failed=True)
        return None
