"""Markets: every venue in one of them, zones with their daylight saving, US instruments and sessions."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from zoneinfo import available_timezones

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.calendar import TABLES, TradingCalendar
from conf.clock import HOUR_NS, KST, SECOND_NS, parse_instant
from conf.instrument import VENUE_BY_EXCHANGE, Instrument, parse_instrument
from conf.loader import load_settings
from conf.market import KR, MARKETS, NEW_YORK, US, hours_of, market_of, utc_offset_ns
from conf.settings import Settings, SettingsError
from ringbuf.records import FeedId, Venue


def ns(text: str, zone: str = "America/New_York") -> int:
    """An instant, by pandas."""
    return int(pd.Timestamp(text, tz=zone).value)


def test_every_venue_and_line_has_its_market() -> None:
    """What a record can name is placed; nothing else is."""
    assert {venue.name for venue in Venue} == {venue for market in MARKETS.values() for venue in market.venues}
    assert {line for market in MARKETS.values() for line in market.feeds} <= {line.name.lower() for line in FeedId}
    assert all(market_of(venue) is market for market in MARKETS.values() for venue in market.venues)
    assert {market.zone_name for market in MARKETS.values()} <= available_timezones()
    assert {hours_of(venue.name).table for venue in Venue} == set(TABLES)


def test_only_the_us_has_sessions_of_another_day() -> None:
    """Its day market keeps Korean hours."""
    assert (False, True) == (KR.has_business_date, US.has_business_date)
    assert hours_of("NASDAQ_DAY").zone is KST and hours_of("NASDAQ").zone is NEW_YORK


@given(st.integers(ns("2020-01-01") // HOUR_NS, ns("2035-01-01") // HOUR_NS))
def test_an_hours_offset_holds_for_all_of_it(hour: int) -> None:
    """Daylight saving begins and ends with an hour: what is reckoned once an hour is right for its last second, too."""
    for zone, name in ((NEW_YORK, "America/New_York"), (KST, "Asia/Seoul")):
        for at in (hour * HOUR_NS, (hour + 1) * HOUR_NS - SECOND_NS):
            expected = pd.Timestamp(at, tz="UTC").tz_convert(name).utcoffset().total_seconds()
            assert expected * SECOND_NS == utc_offset_ns(zone, hour * HOUR_NS)


def test_a_day_of_the_exchange_begins_and_ends_at_its_midnight_also_when_clocks_change() -> None:
    """And a time that comes twice is the first of the two, or that of its fold."""
    day = dt.date(2026, 11, 1)

    assert US.day_bounds_ns(day) == (ns("2026-11-01 04:00", "UTC"), ns("2026-11-02 05:00", "UTC"))
    assert KR.day_bounds_ns(day) == (ns("2026-10-31 15:00", "UTC"), ns("2026-11-01 15:00", "UTC"))
    assert US.to_instant_ns(day, dt.time(1, 30, 0, 7)) == ns("2026-11-01 05:30:00.000007", "UTC")
    assert US.to_instant_ns(day, dt.time(1, 30, fold=1)) == ns("2026-11-01 06:30", "UTC")


def test_an_hour_that_comes_twice_is_told_apart_by_what_is_near() -> None:
    """And an hour that was left out is refused."""
    first, second = ns("2026-11-01 05:30", "UTC"), ns("2026-11-01 06:30", "UTC")

    assert first == parse_instant(NEW_YORK, "20261101", "013000", first + 600 * SECOND_NS)
    assert second == parse_instant(NEW_YORK, "20261101", "013000", second - 600 * SECOND_NS)
    with pytest.raises(ValueError, match="does not exist"):
        parse_instant(NEW_YORK, "20270314", "023000", 0)
    for day, digits in (("2026110", "013000"), ("20261301", "013000"), ("20261101", "480000"), ("", "")):
        with pytest.raises(ValueError):
            parse_instant(NEW_YORK, day, digits, 0)


def test_a_clock_that_runs_on_past_midnight_names_the_next_day() -> None:
    """As Korean systems print it: 25:30 of a date is 01:30 of the next, also over the end of a year and a change of clocks."""
    for day, digits, instant in (
        ("20261123", "253000", "2026-11-24 01:30"),
        ("20261231", "240000", "2027-01-01 00:00"),
        ("20270313", "270000", "2027-03-14 03:00"),
    ):
        assert parse_instant(NEW_YORK, day, digits, 0) == ns(instant, "America/New_York")


@pytest.mark.parametrize("text", ["NAS.AAPL", "NYS.BRK/B", "AMS.SPY", "BAQ.AAPL", "BAY.BF.B", "BAA.SPY", "NYS.F"])
def test_us_instruments_are_read_and_written_in_one_form(text: str) -> None:
    """Exchange and ticker; the day market is a venue of its own."""
    found = parse_instrument(text)

    assert Instrument(text[4:], VENUE_BY_EXCHANGE[text[:3]]) == found
    assert (text, US) == (str(found), found.market)


@pytest.mark.parametrize(
    "text", ["NAS.", "NAS.aapl", "NAS.1AAPL", "XXX.AAPL", "NASAAPL", "NAS.AAPL ", "NAS.ABCDEFGHIJKLMNOP"]
)
def test_another_us_form_is_refused(text: str) -> None:
    """ValueError names the exchanges."""
    with pytest.raises(ValueError, match="NAS, NYS, AMS, BAQ, BAY, BAA"):
        parse_instrument(text)


@pytest.fixture
def settings(tmp_path: Path) -> Callable[[str], Settings]:
    """The settings of a home with that text."""

    def made(text: str) -> Settings:
        (tmp_path / "collector.toml").write_text(text)
        return load_settings(tmp_path)

    return made


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[universe]\nkr = ["NAS.AAPL"]\n', "universe.kr[0]"),
        ('[universe]\nus = ["005930"]\n', "universe.us[0]"),
        ('[universe]\nus = ["NAS.AAPL", "NAS.AAPL"]\n', "universe.us[1]"),
        ('[universe]\nus = ["AAPL"]\n', "universe.us[0]"),
        ("[universe]\nus = []\n[us]\nenabled = true\n", "universe.us"),
        ('[us]\nws_url = "http://example.com"\n', "us.ws_url"),
        ("[us]\nmax_subscriptions = 0\n", "us.max_subscriptions"),
        ('[sessions.US]\nregular = "9:30-16:00"\n', "sessions.US.regular"),
    ],
)
def test_wrong_us_settings_are_named(settings: Callable[[str], Settings], text: str, key: str) -> None:
    """Before anything starts."""
    with pytest.raises(SettingsError) as error:
        settings(text)
    assert f": {key}: " in str(error.value)


def test_the_us_is_off_by_default_and_has_instruments_for_when_it_is_not(settings: Callable[[str], Settings]) -> None:
    """Most accounts have no permission for it."""
    assert settings("").us.enabled is False
    assert settings("[us]\nenabled = true\n").instruments("us")


@pytest.mark.parametrize(
    ("venue", "at", "zone", "phase"),
    [
        ("NASDAQ", "2026-11-20 09:29:59", "America/New_York", "pre_market"),
        ("NASDAQ", "2026-11-20 23:30:00", "Asia/Seoul", "regular"),  # winter
        ("NYSE", "2026-07-10 22:30:00", "Asia/Seoul", "regular"),  # summer
        ("NYSE", "2026-07-10 22:29:59", "Asia/Seoul", "pre_market"),
        ("AMEX", "2026-11-21 05:59:59", "Asia/Seoul", "regular"),  # Saturday in Korea, Friday there
        ("AMEX", "2026-11-20 16:00:00", "America/New_York", "after_market"),
        ("AMEX", "2026-11-20 20:00:00", "America/New_York", None),
        ("NASDAQ", "2026-11-22 12:00:00", "America/New_York", None),
        ("NASDAQ", "2026-11-23 10:00:00", "Asia/Seoul", None),
        ("NASDAQ_DAY", "2026-11-23 10:00:00", "Asia/Seoul", "day_market"),  # Sunday evening in New York
        ("NASDAQ_DAY", "2026-11-20 09:30:00", "America/New_York", None),
    ],
)
def test_us_sessions_follow_new_yorks_clock_and_the_day_market_koreas(
    settings: Callable[[str], Settings], venue: str, at: str, zone: str, phase: str | None
) -> None:
    """Daylight saving moves New York's hours in Korean time, and not the day market's."""
    assert phase == TradingCalendar(settings("")).find_phase(venue, ns(at, zone))
