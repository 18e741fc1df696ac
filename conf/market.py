"""Market definitions: time zone, venues, feeds and price unit of each market.

    venue  KRX  NXT  UN  |  NASDAQ  NYSE  AMEX  |  NASDAQ_DAY  NYSE_DAY  AMEX_DAY
    market        kr     |                   us                          hive dates and hours, time zones, currency
    hours  KRX  NXT  UN  |          US          |          US_DAY        the table under [sessions]; its zone dates a trading day

The US day market is a venue of its own: another book, another volume, and hours that are fixed in Korean time. The night session
that New York's exchanges plan begins at 21:00 and belongs to the next day.

Guarantees:
    * Every venue belongs to one market and has one table of sessions.
    * Zones come from the zone database, daylight saving included; their offset is whole hours at all times that have data.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from conf.clock import HOUR_NS, KST, SECOND_NS

NEW_YORK = ZoneInfo("America/New_York")


class VenueHours(NamedTuple):
    """The sessions of a venue: a table under [sessions], in the time of `zone`.

    `evening_hours`: how many hours before midnight the next day's sessions may begin.
    """

    table: str
    zone: tzinfo
    evening_hours: int = 0

    def session_day(self, ns: int) -> date:
        """The day of the session that an instant belongs to."""
        return to_local(ns + self.evening_hours * HOUR_NS, self.zone).date()


class Market(NamedTuple):
    """One market.

    `feeds`: its live feeds; the earlier one wins a tie. `integer_prices`: prices are whole units of the currency.
    `backfill_sources`: feeds of ticks fetched over REST. `has_trade_lists`: a broker lists a day's trades; if none does, minute
    bars are all that a day is certified by.
    """

    name: str
    zone: tzinfo
    venues: dict[str, VenueHours]
    feeds: tuple[str, ...]
    integer_prices: bool
    backfill_sources: tuple[str, ...] = ()
    has_trade_lists: bool = True

    @property
    def zone_name(self) -> str:
        """The zone's name in the zone database."""
        return str(self.zone)

    @property
    def has_business_date(self) -> bool:
        """Whether the trading day of a session may differ from the exchange's calendar day."""
        return any(hours.zone is not self.zone for hours in self.venues.values())

    def to_local(self, ns: int) -> datetime:
        """An instant in the exchange's time, to the microsecond."""
        return to_local(ns, self.zone)

    def to_instant_ns(self, day: date, at: time) -> int:
        """The exchange's time of day in ns since 1970 UTC; where clocks are set back, that of its `fold`."""
        whole = datetime.combine(day, at.replace(microsecond=0), self.zone)
        return round(whole.timestamp()) * SECOND_NS + at.microsecond * 1000

    def day_bounds_ns(self, day: date) -> tuple[int, int]:
        """The exchange's calendar day, [begin, end); 23 or 25 hours where clocks change."""
        return self.to_instant_ns(day, time()), self.to_instant_ns(day + timedelta(days=1), time())

    def dates_of_rows(self, day: date) -> list[date]:
        """The dates under which rows of a day's sessions lie: a session of another zone begins on the evening before."""
        return [day - timedelta(days=1), day] if self.has_business_date else [day]


class MarketDate(NamedTuple):
    """A date under which rows of a market lie, the exchange's own. As text Korea's stand alone: "2026-11-20", "us 2026-11-20"."""

    market: str
    day: date

    def __str__(self) -> str:
        return str(self.day) if self.market == KR.name else f"{self.market} {self.day}"


KR = Market(
    "kr",
    KST,
    {venue: VenueHours(venue, KST) for venue in ("KRX", "NXT", "UN")},
    ("kis", "kiwoom"),
    integer_prices=True,
    backfill_sources=("gapfill",),
)
US = Market(
    "us",
    NEW_YORK,
    {venue: VenueHours("US", NEW_YORK, evening_hours=3) for venue in ("NASDAQ", "NYSE", "AMEX")}
    | {venue: VenueHours("US_DAY", KST) for venue in ("NASDAQ_DAY", "NYSE_DAY", "AMEX_DAY")},
    ("us",),
    integer_prices=False,
    has_trade_lists=False,
)
MARKETS: dict[str, Market] = {market.name: market for market in (KR, US)}
_MARKET_BY_VENUE = {venue: market for market in MARKETS.values() for venue in market.venues}


def market_of(venue: str) -> Market:
    """The market of a venue. KeyError if there is none."""
    return _MARKET_BY_VENUE[venue]


def hours_of(venue: str) -> VenueHours:
    """The sessions of a venue. KeyError for an unknown venue."""
    return _MARKET_BY_VENUE[venue].venues[venue]


def to_local(ns: int, zone: tzinfo) -> datetime:
    """An instant (ns since 1970 UTC) as date and time of `zone`, to the microsecond."""
    return datetime.fromtimestamp(ns // SECOND_NS, UTC).astimezone(zone).replace(microsecond=ns % SECOND_NS // 1000)


@lru_cache(maxsize=4096)
def utc_offset_ns(zone: tzinfo, hour_ns: int) -> int:
    """UTC offset of `zone` in ns, in the hour that begins at `hour_ns`; daylight saving begins and ends with an hour."""
    return round(to_local(hour_ns, zone).utcoffset().total_seconds()) * SECOND_NS  # type: ignore[union-attr]
