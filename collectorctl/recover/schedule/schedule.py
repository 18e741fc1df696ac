"""Schedule of recovery: when a run is due, and for which days (pure).

    Friday   ── sessions ── 20:00 ── after_close_minutes ── 20:10 due ── a run ──> nothing is due until
    Monday   ── sessions ── 20:00 ── after_close_minutes ── 20:10 due ...

A run is due if the last one ended before the newest such instant, or in the future (after a wrong clock), or never. It covers every
trading day that can still be fetched, back to the first day with data in this home. Korea has one schedule; the US market has
one for each table of its sessions, since the day market's bars can be had on their own day only.

Guarantees:
    * A run that has ended is not due again before the next trading day is over, whatever it found.
    * Days, and when they are over, are those of the venues' own zone, daylight saving included.
"""

from __future__ import annotations

from datetime import date, timedelta

from conf.calendar import SEARCH_DAYS, TradingCalendar
from conf.clock import KST, SECOND_NS
from conf.market import KR, US, Market, hours_of, to_local
from conf.settings import Settings


class Schedule:
    """The trading days of a market in a home, and when each is due. `table`: only of venues with these hours, "" for all."""

    def __init__(self, settings: Settings, calendar: TradingCalendar, market: Market = KR, table: str = "") -> None:
        source = settings.kiwoom if market is KR else settings.us
        self.enabled = settings.recover.automatic and source.enabled
        self.market = market
        self.name = (table or market.name).lower()
        self._table = table
        self.instruments = [one for one in settings.instruments(market.name) if self.covers(one.venue)]
        self._calendar = calendar
        self._venues = {instrument.venue for instrument in self.instruments}
        self._zone = hours_of(next(iter(self._venues))).zone if self._venues else market.zone
        self._delay_ns = round(settings.recover.after_close_minutes * 60) * SECOND_NS
        is_day_market = market is US and self._zone is KST
        self._days_back = 0 if is_day_market else settings.recover.tick_days

    def covers(self, venue: str) -> bool:
        """Whether days of a venue of the market belong to this schedule."""
        return self._table in ("", hours_of(venue).table)

    def compute_due_ns(self, day: date) -> int | None:
        """From when on a day is recovered, ns since 1970 UTC; None for a day without a session."""
        ends = [spans[-1].end_ns for venue in self._venues if (spans := self._calendar.phase_spans(venue, day))]
        return max(ends) + self._delay_ns if ends else None

    def find_due_days(self, now_ns: int, first: date | None) -> list[date]:
        """The days of a run, the newest first; `first`: the first day with data in the home, None for none."""
        found: list[date] = []
        day, back = to_local(now_ns, self._zone).date(), 0
        while first is not None and day >= first and back <= self._days_back:
            due_ns = self.compute_due_ns(day)
            if due_ns is not None and due_ns <= now_ns:
                found.append(day)
            back += due_ns is not None
            day -= timedelta(days=1)
        return found

    def find_due_day(self, now_ns: int, first: date | None, ended_ns: int | None) -> date | None:
        """The day for whose sake a round is due, None if none is; `ended_ns`: when the last round ended, None if there was none."""
        newest = next(iter(self.find_due_days(now_ns, first)), None) if self.enabled else None
        if newest is None:
            return None
        done = ended_ns is not None and (self.compute_due_ns(newest) or 0) <= ended_ns <= now_ns
        return None if done else newest

    def compute_next_due_ns(self, now_ns: int) -> int | None:
        """When a run will be due next, ns since 1970 UTC; None if there is no session within a month."""
        today = to_local(now_ns, self._zone).date()
        ahead = (self.compute_due_ns(today + timedelta(days=number)) for number in range(SEARCH_DAYS))
        return next((due_ns for due_ns in ahead if due_ns is not None and due_ns > now_ns), None)


def build_schedules(settings: Settings, calendar: TradingCalendar) -> list[Schedule]:
    """Every schedule of a home: Korea's, and one for each table of sessions of its US instruments."""
    tables = dict.fromkeys(hours_of(one.venue).table for one in settings.instruments(US.name))
    return [Schedule(settings, calendar), *(Schedule(settings, calendar, US, table) for table in tables)]
