"""Sessions as data: which phase of the trading day an instant lies in, which days have sessions, when the next one begins.

    [sessions.KRX]          the phases of a day ─────────────┐
    [special_day.exam.KRX]  what lies over them that day ────┼─> Calendar.phase("KRX", ns) -> "regular"
    Almanac                 holidays, as a library knows ────┤
    [calendar]              what overrides the library ──────┘

Promises: pure; a phase has its first minute and not its last ("09:00-15:20" ends as 15:20:00 begins); hours are those of the
venue's own zone, daylight saving included; everybody who asks whether a market is open asks here.
Leaves to others: where an Almanac comes from (almanac.py), halts, auctions inside the day and what else only the exchange knows.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta, tzinfo
from typing import NamedTuple

import msgspec

from conf.clock import KST, SECOND_NS
from conf.market import KR, MARKETS, US, hours_of, local, market_of
from conf.settings import Settings

PHASES = (
    "pre_market",
    "opening_auction",
    "regular",
    "closing_auction",
    "closing_price",
    "after_market",
    "intraday_auction",
    "day_market",
)
"""The phases there are; records name them by the same words (ringbuf.records.Session)."""

TABLES = tuple(dict.fromkeys(hours.table for market in MARKETS.values() for hours in market.venues.values()))
"""The tables of sessions there are; several venues may share one."""

FIRST_DAY, EARLY_CLOSE = "first_day", "early_close"
"""Special days that are found without being named: Korea's first trading day of a year, New York's as the library has them."""

SEARCH_DAYS = 31
"""The next session is sought this far ahead; the longest holidays take ten days."""

_FIRST_DAY_BY = 15
_DAYS_KEPT = 4000


class Almanac(msgspec.Struct, frozen=True):
    """What a library knows of the days from `first` to `last`: by market, closed and shortened days with their names."""

    source: str
    first: date
    last: date
    closed: dict[str, dict[date, str]]
    shortened: dict[str, dict[date, str]]


NO_ALMANAC = Almanac("", date.max, date.min, {}, {})
"""Nothing is known but weekends and what the settings say."""


class Span(NamedTuple):
    """One phase of one day, ns since 1970 UTC; `end_ns` is not part of it."""

    begin_ns: int
    end_ns: int
    phase: str


class Opening(NamedTuple):
    """The beginning of a phase of a venue, ns since 1970 UTC."""

    ns: int
    venue: str
    phase: str

    def __str__(self) -> str:
        """Monday 2026-11-23 08:00 KST (NXT pre-market)"""
        at = local(self.ns, hours_of(self.venue).zone)
        zone = "KST" if at.tzinfo is KST else f"{at:%Z}"
        return f"{at:%A %Y-%m-%d %H:%M} {zone} ({self.venue} {self.phase.replace('_', '-')})"


class Calendar:
    """All sessions of all days."""

    def __init__(self, settings: Settings, almanac: Almanac = NO_ALMANAC) -> None:
        table = settings.calendar
        self.almanac = almanac
        self._sessions = settings.sessions
        self._closed = {KR.name: frozenset(table.closed), US.name: frozenset(table.us_closed)}
        self._open = {KR.name: frozenset(table.open), US.name: frozenset(table.us_open)}
        self._special = {date.fromisoformat(day): kind for day, kind in table.special.items()}
        self._special_day = settings.special_day
        self._known: dict[tuple[str, date], tuple[Span, ...]] = {}

    def phase(self, venue: str, ns: int) -> str | None:
        """The name of the phase ("regular", ...) of `venue` at `ns`; None outside every session."""
        for span in self.spans(venue, self.day(venue, ns)):
            if span.begin_ns <= ns < span.end_ns:
                return span.phase
        return None

    def day(self, venue: str, ns: int) -> date:
        """The date of an instant by which `venue` counts its trading days."""
        return local(ns, hours_of(venue).zone).date()

    def spans(self, venue: str, day: date) -> tuple[Span, ...]:
        """The phases of one day in order; none on a closed day."""
        spans = self._known.get((venue, day))
        if spans is None:
            if len(self._known) > _DAYS_KEPT:
                self._known.clear()
            spans = self._known[venue, day] = () if self.why_closed(venue, day) else self._reckoned(venue, day)
        return spans

    def kind(self, venue: str, day: date) -> str:
        """Which special day it is at `venue`, "" for a day like any other."""
        named = self._special.get(day)
        if named is not None and (not named or hours_of(venue).table in self._special_day[named]):
            return named
        if market_of(venue) is KR:
            return FIRST_DAY if self._is_first(venue, day) else ""
        return EARLY_CLOSE if day in self.almanac.shortened.get(US.name, {}) else ""

    def why_closed(self, venue: str, day: date) -> str:
        """Why a day has no session ("Saturday", "Chuseok", ...), "" if it has. What the settings say goes before the library."""
        market = market_of(venue).name
        if day in self._closed[market]:
            return "closed by the settings"
        if day in self._open[market]:
            return ""
        return f"{day:%A}" if day.weekday() >= 5 else self.almanac.closed.get(market, {}).get(day, "")

    def opening(self, venue: str, ns: int) -> Opening | None:
        """The first phase of `venue` that begins after `ns`; None if there is none within 31 days."""
        today = self.day(venue, ns)
        for ahead in range(SEARCH_DAYS):
            for span in self.spans(venue, today + timedelta(days=ahead)):
                if span.begin_ns > ns:
                    return Opening(span.begin_ns, venue, span.phase)
        return None

    def is_open(self, venues: set[str], from_ns: int, to_ns: int) -> bool:
        """Whether any of `venues` has a session at any instant from `from_ns` to `to_ns`."""
        return any(
            span.begin_ns <= to_ns and from_ns < span.end_ns
            for venue in venues
            for ahead in range((self.day(venue, to_ns) - self.day(venue, from_ns)).days + 1)
            for span in self.spans(venue, self.day(venue, from_ns) + timedelta(days=ahead))
        )

    def closed_until(self, venues: set[str], ns: int) -> Opening | None:
        """The next opening of any of `venues`; None while one is open, or when nothing is to come."""
        if self.is_open(venues, ns, ns):
            return None
        return min((found for venue in venues if (found := self.opening(venue, ns))), default=None)

    def said(self, venues: set[str], ns: int) -> str:
        """ "KRX regular, NXT regular", or "closed until Monday 2026-11-23 08:00 KST (NXT pre-market)"."""
        phases = {venue: self.phase(venue, ns) for venue in sorted(venues)}
        if any(phases.values()):
            return ", ".join(f"{venue} {phase.replace('_', '-')}" for venue, phase in phases.items() if phase)
        opening = self.closed_until(venues, ns)
        return f"closed until {opening}" if opening else f"closed; no session within {SEARCH_DAYS} days"

    def _is_first(self, venue: str, day: date) -> bool:
        """Whether no day of the year before `day` has a session."""
        earlier = (date(day.year, 1, number) for number in range(1, day.day))
        return day.month == 1 and day.day <= _FIRST_DAY_BY and all(self.why_closed(venue, one) for one in earlier)

    def _reckoned(self, venue: str, day: date) -> tuple[Span, ...]:
        kind = self.kind(venue, day)
        table, zone = hours_of(venue)
        phases = self._sessions[table] | (self._special_day[kind].get(table, {}) if kind else {})
        # of "", a phase that does not take place, nothing is left
        found = [(*span.split("-"), name) for name, span in phases.items() if span]
        return tuple(sorted(Span(_instant(zone, day, a), _instant(zone, day, b), name) for a, b, name in found))


def _instant(zone: tzinfo, day: date, time: str) -> int:
    """ns since 1970 UTC of "HH:MM" ("24:00" at most) on a day in `zone`."""
    hour, minute = int(time[:2]), int(time[3:])
    there = datetime(day.year, day.month, day.day, hour % 24, minute, tzinfo=zone) + timedelta(days=hour // 24)
    return round(there.timestamp()) * SECOND_NS
