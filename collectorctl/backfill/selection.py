"""Selection of the days of a backfill: which are to be fetched, and what there is to say of the others.

Guarantees:
    * Files are read, nothing is fetched or changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import NamedTuple

import msgspec

from collectorctl.disk import retired
from collectorctl.recover.certificate import store
from collectorctl.recover.certificate.certify import FINAL_GRADES, Certificate
from collectorctl.recover.download.page_store import recovery_folder
from collectorctl.recover.horizon import DayAvailability, DayUnavailable
from collectorctl.recover.job import FAILURES, DayNotReady, compute_certificate
from collectorctl.recover.store import day_ticks, evidence
from conf.home import Home
from conf.instrument import Instrument

TICKS, BARS = "ticks", "bars"


class DayPlan(msgspec.Struct):
    """What an instrument's day takes. `requests`: those that it adds to the newer days; `shares` None: the broker has no figures.

    `kind`: ticks or bars; `reason`: why bars only.
    """

    instrument: str
    kind: str
    reason: str
    shares: int | None
    trades: int
    requests: int
    eta_s: float


class DayOutcome(NamedTuple):
    """What came of an instrument's day: stored, unchanged, collected, unavailable or failed, and why; its certificate, if any.

    Of a run that is only planned: planned, and what it takes.
    """

    instrument: Instrument
    day: date
    outcome: str
    note: str = ""
    certificate: Certificate | None = None
    plan: DayPlan | None = None

    @property
    def is_settled(self) -> bool:
        """Whether it needs no other run."""
        return self.certificate is not None and self.certificate.certificate in FINAL_GRADES


class DaySelection:
    """The days of one instrument, as its files and the broker's horizons have them."""

    def __init__(self, home: Home, instrument: Instrument, now_ns: int) -> None:
        self.availability: dict[date, DayAvailability] = {}
        """Of the days that a broker may have."""
        self.reasons: dict[date, str] = {}
        """Why a day gets minute bars only."""
        self._home, self._instrument, self._now_ns = home, instrument, now_ns
        self._calendar = home.load_calendar()

    def look_at(self, day: date) -> DayOutcome | None:
        """The outcome of a day for which nothing is to be fetched; None for one that is to be."""
        try:
            availability = DayAvailability(self._home.settings, self._calendar, self._now_ns, day)
            mode = availability.resolve_mode("auto")
            self.availability[day] = availability
            if own := find_own(self._home, day, self._instrument):
                return DayOutcome(self._instrument, day, "collected", own)
        except DayUnavailable as error:
            return DayOutcome(self._instrument, day, "unavailable", str(error))
        except FAILURES as error:
            return DayOutcome(self._instrument, day, "failed", str(error))
        if settled := find_settled(self._home, day, self._instrument):
            return DayOutcome(self._instrument, day, "unchanged", certificate=settled)
        if mode == "minutes":
            self.reasons[day] = availability.skip_reason
        return None


def pages_folder(home: Home, today: date, instrument: Instrument) -> Path:
    """Where the pages of a backfill lie that was begun on a day."""
    return home.data / "recover" / "backfill" / f"date={today}" / str(instrument)


def name_bars_folder(days: Iterable[date]) -> str:
    """The folder of the minute bars of days."""
    chosen = sorted(days)
    return f"{BARS}-{chosen[-1]}-{chosen[0]}"


def find_own(home: Home, day: date, instrument: Instrument) -> str:
    """What this home has, or had, of an instrument's day that backfill did not store, "" for nothing. FAILURES."""
    if unpublished := day_ticks.find_unpublished_hours(home, day):
        raise DayNotReady(
            f"{day}: hours are still in the journal ({', '.join(unpublished)}): `collectorctl stop` publishes them, or wait "
            "until the writer has; then backfill again"
        )
    if gone := retired.describe(home.data, day, ("tick", "orderbook")):
        return gone
    ticks = day_ticks.load_ticks(home.data / "kr" / "tick", day, instrument)
    books = day_ticks.load_book_volumes(home.data / "kr" / "orderbook", day, instrument)
    if ticks["live"].any() or len(books):
        return f"this home collected it ({int(ticks['live'].sum())} live ticks, {'' if len(books) else 'no '}books)"
    found = evidence.load(recovery_folder(home.data, str(day), instrument))
    if found is not None and found.backfilled:
        return ""
    certificate = store.load(home.data, day).get(instrument)
    if certificate is not None or len(ticks):
        return f"`recover` has it ({certificate.certificate if certificate else 'not certified yet'})"
    return ""


def find_settled(home: Home, day: date, instrument: Instrument) -> Certificate | None:
    """The certificate of a backfilled day that needs no other run: a final one, which the files bear out."""
    stored = store.load(home.data, day).get(instrument)
    if stored is None or stored.certificate not in FINAL_GRADES:
        return None
    return stored if compute_certificate(home, day, instrument).content() == stored.content() else None
