"""Trading calendar: session phases, closed and special days, the next session open.

    [sessions.KRX]          the phases of a day ──────────────┐
    [special_day.exam.KRX]  their changes on that day ────────┼─> TradingCalendar.find_phase("KRX", ns) -> "regular"
    HolidayTable            holidays of a library ────────────┤
    [calendar]              what overrides the library ───────┘

Guarantees:
    * The module is pure.
    * A phase includes its first minute and not its last: "09:00-15:20" ends as 15:20:00 begins. "21:00-04:00" begins on the evening
      before its day.
    * Hours are those of the venue's own zone, daylight saving included.
    * Every process that asks whether a market is open asks this calendar.

Not handled here:
    * Halts and auctions inside the day, which only the exchange knows.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta, tzinfo
from typing import NamedTuple

import msgspec

from conf.clock import KST, MINUTE_NS, SECOND_NS
from conf.market import KR, MARKETS, US, hours_of, market_of, to_local
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
    "night_market",
)
"""All phases; records name them by the same strings (ringbuf.records.Session)."""

TABLES = tuple(dict.fromkeys(hours.table for market in MARKETS.values() for hours in market.venues.values()))
"""All tables of [sessions]; several venues may share one."""

FIRST_DAY, EARLY_CLOSE, EXAM_DAY, CLOSED = "first_day", "early_close", "exam_day", "closed"
"""Kinds of special days. Two need no setting: Korea's first trading day of a year, and New York's early closes in the library."""

QUIET_PHASES = (None, "closing_price")
"""Phases in which silence is normal: trades at the closing price are few, and no book comes with them (docs/wire/kiwoom.md 3.2)."""
AUCTION_QUIET_NS = {"KRX": 20 * MINUTE_NS}
"""How long the opening auction of a venue has no books: KRX's begin at 08:50 (docs/wire/kiwoom.md 3.2)."""

SEARCH_DAYS = 31
"""How far ahead the next session is searched; the longest holiday lasts ten days."""

_LATEST_FIRST_DAY = 15
_MAX_CACHED_DAYS = 4000


class HolidayTable(msgspec.Struct, frozen=True):
    """Closed and shortened days from `first` to `last` with their names, by market; `source`: the library and its version."""

    source: str
    first: date
    last: date
    closed: dict[str, dict[date, str]]
    shortened: dict[str, dict[date, str]]


NO_HOLIDAYS = HolidayTable("", date.max, date.min, {}, {})
"""The empty table: only weekends and the settings count."""


class PhaseSpan(NamedTuple):
    """One phase of one day, ns since 1970 UTC; `end_ns` is not part of it."""

    begin_ns: int
    end_ns: int
    phase: str


class SessionOpen(NamedTuple):
    """The beginning of a phase of a venue; `ns` since 1970 UTC."""

    ns: int
    venue: str
    phase: str

    def __str__(self) -> str:
        """Readable form, such as "Monday 2026-11-23 08:00 KST (NXT pre-market)"."""
        at = to_local(self.ns, hours_of(self.venue).zone)
        zone = "KST" if at.tzinfo is KST else f"{at:%Z}"
        return f"{at:%A %Y-%m-%d %H:%M} {zone} ({self.venue} {self.phase.replace('_', '-')})"


class TradingCalendar:
    """Phases and closed days of every venue; the only source of session times."""

    def __init__(self, settings: Settings, holidays: HolidayTable = NO_HOLIDAYS) -> None:
        table = settings.calendar
        self.holidays = holidays
        self._sessions = settings.sessions
        special_days = {date.fromisoformat(day): kind for day, kind in table.special.items()}
        closed = [day for day, kind in special_days.items() if kind == CLOSED]
        self._closed = {KR.name: frozenset([*table.closed, *closed]), US.name: frozenset(table.us_closed)}
        self._open = {KR.name: frozenset(table.open), US.name: frozenset(table.us_open)}
        self._special_days = {day: kind for day, kind in special_days.items() if kind != CLOSED}
        self._special_day_phases = settings.special_day
        self._spans_by_day: dict[tuple[str, date], tuple[PhaseSpan, ...]] = {}

    def find_phase(self, venue: str, ns: int) -> str | None:
        """The name of the phase ("regular", ...) of `venue` at `ns`; None outside every session."""
        for span in self.phase_spans(venue, self.trading_day(venue, ns)):
            if span.begin_ns <= ns < span.end_ns:
                return span.phase
        return None

    def label(self, venue: str, ns: int) -> str | None:
        """The phase of a record: as `find_phase`, and between two phases of a day the auction that lies there.

        Books and late prints come in such pauses too: NXT's between 15:20 and 15:40, KRX's after 15:30.
        """
        spans = self.phase_spans(venue, self.trading_day(venue, ns))
        for number, span in enumerate(spans):
            if ns < span.end_ns:
                if ns >= span.begin_ns:
                    return span.phase
                if not number:
                    return None
                return "opening_auction" if span.phase == "regular" else "closing_auction"
        return None

    def expects_data(self, venue: str, ns: int) -> bool:
        """Whether silence of a feed at `venue` is a fault."""
        for span in self.phase_spans(venue, self.trading_day(venue, ns)):
            if span.begin_ns <= ns < span.end_ns:
                quiet_ns = AUCTION_QUIET_NS.get(venue, 0) if span.phase == "opening_auction" else 0
                return span.phase not in QUIET_PHASES and ns >= span.begin_ns + quiet_ns
        return False

    def trading_day(self, venue: str, ns: int) -> date:
        """The day of the session that an instant belongs to: the date in the zone of `venue`, from the evening on the next."""
        return hours_of(venue).session_day(ns)

    def has_exam_day(self, year: int) -> bool:
        """Whether a day of `year` is named as the one of the college entrance exam."""
        return any(day.year == year and kind == EXAM_DAY for day, kind in self._special_days.items())

    def phase_spans(self, venue: str, day: date) -> tuple[PhaseSpan, ...]:
        """The phases of one day in order; none on a closed day."""
        spans = self._spans_by_day.get((venue, day))
        if spans is None:
            if len(self._spans_by_day) > _MAX_CACHED_DAYS:
                self._spans_by_day.clear()
            spans = self._spans_by_day[venue, day] = (
                () if self.closed_reason(venue, day) else self._build_spans(venue, day)
            )
        return spans

    def special_day(self, venue: str, day: date) -> str:
        """Which special day it is at `venue`, "" for an ordinary day."""
        configured = self._special_days.get(day)
        if configured is not None and (not configured or hours_of(venue).table in self._special_day_phases[configured]):
            return configured
        if market_of(venue) is KR:
            return FIRST_DAY if self._is_first_trading_day(venue, day) else ""
        return EARLY_CLOSE if day in self.holidays.shortened.get(US.name, {}) else ""

    def closed_reason(self, venue: str, day: date) -> str:
        """Why a day has no session ("Saturday", "Chuseok", ...), "" if it has one. Settings take precedence over the library."""
        market = market_of(venue).name
        if day in self._closed[market]:
            return "closed by the settings"
        if day in self._open[market]:
            return ""
        return f"{day:%A}" if day.weekday() >= 5 else self.holidays.closed.get(market, {}).get(day, "")

    def next_open(self, venue: str, ns: int) -> SessionOpen | None:
        """The first phase of `venue` that begins after `ns`; None if there is none within 31 days."""
        today = self.trading_day(venue, ns)
        for ahead in range(SEARCH_DAYS):
            for span in self.phase_spans(venue, today + timedelta(days=ahead)):
                if span.begin_ns > ns:
                    return SessionOpen(span.begin_ns, venue, span.phase)
        return None

    def is_open(self, venues: set[str], from_ns: int, to_ns: int) -> bool:
        """Whether any of `venues` has a session at any instant from `from_ns` to `to_ns`."""
        return any(
            span.begin_ns <= to_ns and from_ns < span.end_ns
            for venue in venues
            for ahead in range((self.trading_day(venue, to_ns) - self.trading_day(venue, from_ns)).days + 1)
            for span in self.phase_spans(venue, self.trading_day(venue, from_ns) + timedelta(days=ahead))
        )

    def next_open_if_closed(self, venues: set[str], ns: int) -> SessionOpen | None:
        """The next opening of any of `venues`; None while one is open, or if none is found."""
        if self.is_open(venues, ns, ns):
            return None
        return min((found for venue in venues if (found := self.next_open(venue, ns))), default=None)

    def describe(self, venues: set[str], ns: int) -> str:
        """Readable form: "KRX regular, NXT regular", or "closed until Monday 2026-11-23 08:00 KST (NXT pre-market)"."""
        phases = {venue: self.find_phase(venue, ns) for venue in sorted(venues)}
        if any(phases.values()):
            return ", ".join(f"{venue} {phase.replace('_', '-')}" for venue, phase in phases.items() if phase)
        opening = self.next_open_if_closed(venues, ns)
        return f"closed until {opening}" if opening else f"closed; no session within {SEARCH_DAYS} days"

    def _is_first_trading_day(self, venue: str, day: date) -> bool:
        """Whether no day of the year before `day` has a session."""
        earlier = (date(day.year, 1, number) for number in range(1, day.day))
        return (
            day.month == 1
            and day.day <= _LATEST_FIRST_DAY
            and all(self.closed_reason(venue, other) for other in earlier)
        )

    def _build_spans(self, venue: str, day: date) -> tuple[PhaseSpan, ...]:
        kind = self.special_day(venue, day)
        table, zone, _ = hours_of(venue)
        phases = self._sessions[table] | (self._special_day_phases[kind].get(table, {}) if kind else {})
        # an override "" removes the phase of that day
        found = [(*span.split("-"), name) for name, span in phases.items() if span]
        spans = [
            PhaseSpan(_to_ns(zone, day - timedelta(days=a >= b), a), _to_ns(zone, day, b), name) for a, b, name in found
        ]
        return tuple(sorted(spans))


def _to_ns(zone: tzinfo, day: date, time: str) -> int:
    """Ns since 1970 UTC of "HH:MM" ("24:00" at most) on a day in `zone`."""
    hour, minute = int(time[:2]), int(time[3:])
    local_time = datetime(day.year, day.month, day.day, hour % 24, minute, tzinfo=zone) + timedelta(days=hour // 24)
    return round(local_time.timestamp()) * SECOND_NS
