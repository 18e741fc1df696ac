"""Recovery horizon: which days can still be fetched, and how (pure)."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from conf.calendar import TradingCalendar
from conf.clock import DAY_NS, kst_midnight_ns, to_kst
from conf.market import KR, US, Market
from conf.settings import Settings

CALENDAR_VENUE = "KRX"
"""All Korean venues have the same days."""


class DayUnavailable(Exception):
    """A day without ticks, or whose ticks cannot be fetched any more; the message has the reason."""


class DayAvailability:
    """What can be had of `day` at `now_ns`. DayUnavailable for a holiday, a future day, one beyond every horizon."""

    def __init__(self, settings: Settings, calendar: TradingCalendar, now_ns: int, day: date) -> None:
        self.day = day
        self.today = to_kst(now_ns).date()
        self._settings = settings
        self._calendar = calendar
        self._now_ns = now_ns
        if day > self.today:
            raise DayUnavailable(f"{day}: is in the future; in Korea it is {self.today}")
        if reason := calendar.closed_reason(CALENDAR_VENUE, day):
            what = f"a {day:%A}" + ("" if reason == f"{day:%A}" else f" ({reason})")
            raise DayUnavailable(f"{day}: {what} without a session: name a trading day")
        self.days_back = self._count_days_back()
        self.skip_reason = ""

    def resolve_mode(self, requested: str) -> str:
        """ticks, minutes or auto, as far as the horizons allow. DayUnavailable."""
        table = self._settings.recover
        if self.days_back > table.minute_days:
            raise DayUnavailable(
                f"{self.day}: {self.days_back} trading days ago; minute bars are kept for {table.minute_days}"
            )
        if self.days_back <= table.tick_days:
            return requested
        if requested == "ticks":
            message = f"{self.days_back} trading days ago; ticks are kept for {table.tick_days}: use --mode minutes"
            raise DayUnavailable(f"{self.day}: {message}")
        self.skip_reason = f"beyond the {table.tick_days} days for which ticks are kept"
        return "minutes"

    @property
    def trades_available(self) -> bool:
        """Whether trades with side and cumulative volume can be asked for: today and the trading day before."""
        return self._is_trading_day(self.today) and self.days_back <= 1

    def is_session_over(self, venue: str) -> bool:
        """Whether the last session of the day has ended; without any, whether the day has."""
        spans = self._calendar.phase_spans(venue, self.day)
        return self._now_ns >= (spans[-1].end_ns if spans else kst_midnight_ns(self.day) + DAY_NS)

    def _is_trading_day(self, day: date) -> bool:
        return not self._calendar.closed_reason(CALENDAR_VENUE, day)

    def _count_days_back(self) -> int:
        back, day = 0, self.day
        while day < self.today:
            day += timedelta(days=1)
            back += self._is_trading_day(day)
        return back


def parse_day(text: str, now_ns: int, market: Market = KR) -> date:
    """2026-11-20, 20261120, today or yesterday (dates where the exchange is). ValueError."""
    if text in ("today", "yesterday"):
        return market.to_local(now_ns).date() - timedelta(days=text == "yesterday")
    for form in ("%Y-%m-%d", "%Y%m%d"):
        try:
            found = datetime.strptime(text, form).date()
        except ValueError:
            continue
        if len(text) == len(found.strftime(form)):
            return found
    raise ValueError(f"{text!r} is no day: write 2026-11-20, 20261120, today or yesterday")


def find_trading_days(calendar: TradingCalendar, market: Market, first: date, last: date) -> list[date]:
    """The trading days of a market from `first` to `last`, both included, ascending."""
    venue = "NASDAQ" if market is US else CALENDAR_VENUE
    days = (first + timedelta(days=number) for number in range((last - first).days + 1))
    return [day for day in days if not calendar.closed_reason(venue, day)]


def find_last_ended_day(calendar: TradingCalendar, market: Market, now_ns: int) -> date:
    """The newest day whose sessions, if it has any, are over on every venue of the market."""
    day = market.to_local(now_ns).date()
    ends = [spans[-1].end_ns for venue in market.venues if (spans := calendar.phase_spans(venue, day))]
    return day if all(end_ns <= now_ns for end_ns in ends) else day - timedelta(days=1)
