"""Sessions: which phase an instant is in, on the default tables and at their edges; which days have any; when the next begins."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf.calendar import NO_HOLIDAYS, PHASES, TradingCalendar
from conf.clock import SECOND_NS
from conf.holidays import compute_holidays
from conf.loader import SETTINGS_FILE, load_settings
from conf.market import MARKETS, hours_of

KOREA = {"KRX", "NXT", "UN"}


def at(text: str, zone: str = "+09:00") -> int:
    """ns since 1970 of a Korean time, or of another offset's."""
    return round(datetime.fromisoformat(text + zone).timestamp()) * SECOND_NS


@pytest.fixture(scope="module")
def almanac():
    return compute_holidays(2024, 2029)


@pytest.fixture
def calendar(tmp_path: Path, almanac) -> TradingCalendar:
    """The default settings."""
    return TradingCalendar(load_settings(tmp_path), almanac)


def of(tmp_path: Path, almanac, text: str) -> TradingCalendar:
    """The calendar of a home with these settings."""
    (tmp_path / SETTINGS_FILE).write_text(text)
    return TradingCalendar(load_settings(tmp_path), almanac)


def hours(calendar: TradingCalendar, venue: str, day: str) -> dict[str, str]:
    """The phases of a day as settings write them."""
    local = lambda ns: f"{datetime.fromtimestamp(ns // SECOND_NS, hours_of(venue).zone):%H:%M}"  # noqa: E731
    spans = calendar.phase_spans(venue, date.fromisoformat(day))
    return {span.phase: f"{local(span.begin_ns)}-{local(span.end_ns)}" for span in spans}


@pytest.mark.parametrize(
    ("time", "krx", "nxt", "unified"),
    [
        ("07:59:59", None, None, None),
        ("08:55:00", "opening_auction", "opening_auction", "opening_auction"),
        ("15:20:00", "closing_auction", "closing_auction", "closing_auction"),
        ("15:30:00", "closing_auction", "closing_auction", "after_market"),
        ("15:39:59", "closing_auction", "closing_auction", "after_market"),
        ("15:40:00", "closing_price", "after_market", "after_market"),
        ("20:00:00", None, None, None),
    ],
)
def test_a_record_between_two_phases_of_a_day_is_of_the_auction_that_lies_there(
    calendar: TradingCalendar, time: str, krx: str | None, nxt: str | None, unified: str | None
) -> None:
    """NXT has books between 15:20 and 15:40, KRX's closing prints come after 15:30; outside the day nothing is said."""
    assert [calendar.label(venue, at(f"2026-11-20T{time}")) for venue in ("KRX", "NXT", "UN")] == [krx, nxt, unified]


@pytest.mark.parametrize("venue", ["KRX", "NXT", "UN"])
def test_no_second_inside_a_trading_day_is_without_a_label(calendar: TradingCalendar, venue: str) -> None:
    """From its first phase to its last, on ordinary and special days."""
    for day in ("2026-11-20", "2026-11-19", "2026-01-02"):
        spans = calendar.phase_spans(venue, date.fromisoformat(day))
        for ns in range(spans[0].begin_ns, spans[-1].end_ns, 60 * SECOND_NS):
            label = calendar.label(venue, ns)
            assert label and label == (calendar.find_phase(venue, ns) or label)


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2026-11-20T08:29:59", False),
        ("2026-11-20T08:49:59", False),
        ("2026-11-20T08:50:00", True),
        ("2026-11-19T09:49:59", False),  # exam day
        ("2026-11-19T09:50:00", True),
        ("2026-01-02T09:49:59", False),  # first day
        ("2026-01-02T09:50:00", True),
        ("2026-11-20T15:25:00", True),
        ("2026-11-20T15:50:00", False),  # closing price
        ("2026-11-20T16:00:00", True),
    ],
)
def test_books_of_krx_are_expected_from_ten_minutes_before_the_open(
    calendar: TradingCalendar, time: str, expected: bool
) -> None:
    """Its auction begins at 08:30, its books at 08:50."""
    assert calendar.expects_data("KRX", at(time)) is expected


def test_the_night_session_is_off_until_it_is_set_and_then_belongs_to_the_next_day(tmp_path: Path, almanac) -> None:
    """From Sunday evening to Friday morning, in New York's time; a day market in Korea's is not touched."""
    evening, morning, friday = (
        at(text, "-05:00") for text in ("2026-11-22T21:30:00", "2026-11-23T03:59:59", "2026-11-20T21:30:00")
    )
    assert of(tmp_path, almanac, "").label("NASDAQ", evening) is None
    calendar = of(tmp_path, almanac, '[sessions.US]\nnight_market = "21:00-04:00"\n')

    assert [calendar.find_phase("NASDAQ", ns) for ns in (evening, morning, friday)] == ["night_market"] * 2 + [None]
    assert calendar.trading_day("NASDAQ", evening) == date(2026, 11, 23)
    assert calendar.trading_day("NASDAQ", evening - 3600 * SECOND_NS) == date(2026, 11, 22)
    assert [span.phase for span in calendar.phase_spans("NYSE", date(2026, 11, 23))] == [
        *("night_market", "pre_market", "regular", "after_market")
    ]
    assert calendar.is_open({"NASDAQ"}, evening, evening)
    opening = calendar.next_open("NASDAQ", friday)
    assert opening is not None and str(opening) == "Sunday 2026-11-22 21:00 EST (NASDAQ night-market)"


@pytest.mark.parametrize(("day", "utc"), [("2026-03-08", "2026-03-09T01:00:00"), ("2026-11-01", "2026-11-02T02:00:00")])
def test_the_night_session_follows_new_yorks_clocks(tmp_path: Path, almanac, day: str, utc: str) -> None:
    """On the evenings after they were set."""
    calendar = of(tmp_path, almanac, '[sessions.US]\nnight_market = "21:00-04:00"\n')

    (span, *_) = calendar.phase_spans("NASDAQ", date.fromisoformat(day) + timedelta(days=1))

    assert span.begin_ns == at(utc, "+00:00")


def test_a_closing_day_is_named_beside_the_others(tmp_path: Path, almanac) -> None:
    """A home's own entries are added to those of the project."""
    calendar = of(tmp_path, almanac, '[calendar.special]\n2026-12-24 = "closed"\n')

    assert calendar.closed_reason("KRX", date(2026, 12, 24)) == "closed by the settings"
    assert not calendar.closed_reason("NASDAQ", date(2026, 12, 23))
    assert calendar.special_day("KRX", date(2026, 11, 19)) == "exam_day"
    assert [calendar.has_exam_day(year) for year in (2025, 2026, 2031)] == [True, True, False]


@pytest.mark.parametrize(
    ("time", "krx", "nxt", "unified"),
    [
        ("07:59:59", None, None, None),
        ("08:00:00", None, "pre_market", "pre_market"),
        ("08:30:00", "opening_auction", "pre_market", "opening_auction"),
        ("08:50:00", "opening_auction", None, "opening_auction"),
        ("08:59:59", "opening_auction", None, "opening_auction"),
        ("09:00:00", "regular", "regular", "regular"),
        ("15:19:59", "regular", "regular", "regular"),
        ("15:20:00", "closing_auction", None, "closing_auction"),
        ("15:30:00", None, None, "after_market"),
        ("15:40:00", "closing_price", "after_market", "after_market"),
        ("16:00:00", "after_market", "after_market", "after_market"),
        ("19:59:59", "after_market", "after_market", "after_market"),
        ("20:00:00", None, None, None),
        ("23:59:59", None, None, None),
    ],
)
def test_the_default_day(
    calendar: TradingCalendar, time: str, krx: str | None, nxt: str | None, unified: str | None
) -> None:
    """Design 8: since 2026-09-14 the KRX day runs to 20:00. A phase has its first second and not its last."""
    ns = at(f"2026-11-20T{time}")

    assert [calendar.find_phase(venue, ns) for venue in ("KRX", "NXT", "UN")] == [krx, nxt, unified]
    assert calendar.find_phase("KRX", ns + SECOND_NS - 1) == krx


def test_a_year_of_korean_holidays_has_the_substitutes_and_the_elections(calendar: TradingCalendar) -> None:
    """KRX 2026, weekdays only: with substitute days, the local elections, Constitution Day and the year's last day."""
    days = [date(2026, 1, 1) + timedelta(days=number) for number in range(365)]
    closed = [f"{day:%m%d}" for day in days if day.weekday() < 5 and calendar.closed_reason("KRX", day)]

    first, second = "0101 0216 0217 0218 0302 0501 0505 0525 0603", "0717 0817 0924 0925 1005 1009 1225 1231"
    assert closed == [*first.split(), *second.split()]
    assert all(calendar.closed_reason("NXT", day) == calendar.closed_reason("KRX", day) for day in days)


def test_new_york_has_its_own_holidays_and_early_closes(calendar: TradingCalendar) -> None:
    """NYSE 2026; the day after Thanksgiving and Christmas Eve end at 13:00."""
    days = [date(2026, 1, 1) + timedelta(days=number) for number in range(365)]
    closed = [f"{day:%m%d}" for day in days if day.weekday() < 5 and calendar.closed_reason("NYSE", day)]

    assert closed == ["0101", "0119", "0216", "0403", "0525", "0619", "0703", "0907", "1126", "1225"]
    assert [f"{day:%m%d}" for day in days if calendar.special_day("NYSE", day) == "early_close"] == ["1127", "1224"]
    assert hours(calendar, "NYSE", "2026-11-27")["regular"] == "09:30-13:00"
    assert hours(calendar, "NYSE", "2026-11-27")["after_market"] == "13:00-17:00"
    assert hours(calendar, "NASDAQ_DAY", "2026-11-26") == {}
    assert calendar.find_phase("KRX", at("2026-11-26T10:00:00")) == "regular"


@pytest.mark.parametrize(
    ("day", "utc"),
    [("2026-03-06", "14:30"), ("2026-03-09", "13:30"), ("2026-10-30", "13:30"), ("2026-11-02", "14:30")],
)
def test_new_york_opens_by_its_own_clocks(calendar: TradingCalendar, day: str, utc: str) -> None:
    """Daylight saving begins on 2026-03-08 and ends on 2026-11-01."""
    opens = at(f"{day}T{utc}:00", "+00:00")

    assert calendar.find_phase("NYSE", opens - 1) == "pre_market"
    assert calendar.find_phase("NYSE", opens) == "regular"
    assert calendar.find_phase("NYSE", opens + int(6.5 * 3600) * SECOND_NS) == "after_market"


def test_the_american_day_market_is_held_in_the_korean_daytime(calendar: TradingCalendar) -> None:
    """Korean hours, New York's trading days: Monday morning in Korea is Sunday evening there."""
    assert calendar.find_phase("NASDAQ_DAY", at("2026-11-23T10:00:00")) == "day_market"
    assert calendar.find_phase("NASDAQ_DAY", at("2026-11-23T16:00:00")) is None
    assert calendar.find_phase("NASDAQ_DAY", at("2026-11-21T10:00:00")) is None
    assert calendar.find_phase("NYSE", at("2026-11-23T10:00:00")) is None


def test_the_exam_day_begins_an_hour_later_and_ends_as_ever(calendar: TradingCalendar) -> None:
    """2026-11-19; as the exchanges announced it for 2025: no pre-market on NXT, the after-market begins an hour later."""
    assert hours(calendar, "KRX", "2026-11-19") == {
        "opening_auction": "09:30-10:00",
        "regular": "10:00-16:20",
        "closing_auction": "16:20-16:30",
        "closing_price": "16:40-17:00",
        "after_market": "17:00-20:00",
    }
    assert hours(calendar, "NXT", "2026-11-19") == {"regular": "10:00-16:20", "after_market": "16:40-20:00"}
    assert calendar.find_phase("KRX", at("2026-11-19T09:00:00")) is None
    assert calendar.find_phase("KRX", at("2026-11-18T09:00:00")) == "regular"
    assert hours(calendar, "NYSE", "2026-11-19")["regular"] == "09:30-16:00"


@pytest.mark.parametrize(("day", "first"), [("2026-01-02", True), ("2027-01-04", True), ("2027-01-05", False)])
def test_the_years_first_day_opens_at_ten_without_being_named(calendar: TradingCalendar, day: str, first: bool) -> None:
    """A Friday, and a Monday after a weekend; the close is as ever."""
    krx, nxt = hours(calendar, "KRX", day), hours(calendar, "NXT", day)

    assert krx["regular"] == ("10:00-15:20" if first else "09:00-15:20")
    assert ("pre_market" in nxt) is not first
    assert (krx["closing_auction"], nxt["after_market"]) == ("15:20-15:30", "15:40-20:00")


def test_a_day_found_special_can_be_made_a_plain_one(tmp_path: Path, almanac) -> None:
    """The exchanges may do without the ceremony, or without the early close."""
    calendar = of(tmp_path, almanac, '[calendar.special]\n2027-01-04 = ""\n2026-11-27 = ""\n')

    assert hours(calendar, "KRX", "2027-01-04")["regular"] == "09:00-15:20"
    assert hours(calendar, "NYSE", "2026-11-27")["regular"] == "09:30-16:00"


def test_a_session_begins_with_its_first_nanosecond_and_ends_before_its_last(calendar: TradingCalendar) -> None:
    """To the nanosecond, for those who ask about an instant, a stretch, or what is to come."""
    begin, end = at("2026-11-20T09:00:00"), at("2026-11-20T15:30:00")

    assert calendar.next_open("KRX", begin - 1) == (begin, "KRX", "regular")
    assert calendar.next_open("KRX", begin).phase == "closing_auction"
    assert calendar.is_open({"KRX"}, begin - 3600 * SECOND_NS, at("2026-11-20T08:30:00"))
    assert not calendar.is_open({"KRX"}, begin - 3600 * SECOND_NS, at("2026-11-20T08:30:00") - 1)
    assert calendar.is_open({"KRX"}, end - 1, end)
    assert not calendar.is_open({"KRX"}, end, end)


def test_the_settings_go_before_the_library(tmp_path: Path, almanac) -> None:
    """Closed and open days, a special day taken back, a kind of one's own, for Korea and for New York."""
    calendar = of(
        tmp_path,
        almanac,
        "[calendar]\nclosed = [2026-11-23]\nopen = [2026-12-25, 2026-11-21]\nus_closed = [2026-11-24]\nus_open = [2026-11-26]\n"
        '[calendar.special]\n2026-11-19 = ""\n2026-11-24 = "half_day"\n2026-11-27 = "half_day"\n'
        '[special_day.half_day.KRX]\nregular = "09:00-12:00"\nclosing_auction = ""\n',
    )

    assert calendar.closed_reason("KRX", date(2026, 11, 23)) == "closed by the settings"
    assert calendar.find_phase("NXT", at("2026-12-25T10:00:00")) == "regular"
    assert calendar.find_phase("KRX", at("2026-11-21T10:00:00")) == "regular"
    assert calendar.find_phase("KRX", at("2026-11-19T09:00:00")) == "regular"
    assert hours(calendar, "KRX", "2026-11-24") == {
        "opening_auction": "08:30-09:00",
        "regular": "09:00-12:00",
        "closing_price": "15:40-16:00",
        "after_market": "16:00-20:00",
    }
    assert hours(calendar, "NXT", "2026-11-24")["regular"] == "09:00-15:20"
    assert (hours(calendar, "NYSE", "2026-11-24"), hours(calendar, "NYSE", "2026-11-26")["regular"]) == (
        {},
        "09:30-16:00",
    )
    assert calendar.special_day("NYSE", date(2026, 11, 27)) == "early_close"


def test_without_a_library_and_beyond_its_days_weekends_and_settings_count(tmp_path: Path, almanac) -> None:
    """A weekday nobody knows anything about is a trading day: a market taken for closed would be a hole."""
    known, unknown = (
        of(tmp_path, almanac, "[calendar]\nclosed = [2035-01-02]\n"),
        TradingCalendar(load_settings(tmp_path), NO_HOLIDAYS),
    )

    assert known.closed_reason("KRX", date(2026, 9, 24)) == "The day preceding Chuseok"
    assert unknown.closed_reason("KRX", date(2026, 9, 24)) == ""
    for calendar in (known, unknown):
        assert calendar.closed_reason("KRX", date(2035, 1, 1)) == ""
        assert calendar.closed_reason("KRX", date(2035, 1, 2)) == "closed by the settings"
        assert calendar.closed_reason("NYSE", date(2035, 1, 6)) == "Saturday"


@pytest.mark.parametrize(
    ("time", "venues", "said"),
    [
        ("2026-11-20T20:00:00", KOREA, "Monday 2026-11-23 08:00 KST (NXT pre-market)"),
        ("2026-11-20T20:00:00", {"KRX"}, "Monday 2026-11-23 08:30 KST (KRX opening-auction)"),
        ("2026-11-20T08:20:00", {"KRX"}, "Friday 2026-11-20 08:30 KST (KRX opening-auction)"),
        ("2026-09-23T21:00:00", {"NXT"}, "Monday 2026-09-28 08:00 KST (NXT pre-market)"),
        ("2026-12-30T20:00:00", KOREA, "Monday 2027-01-04 09:30 KST (KRX opening-auction)"),
        ("2026-11-20T15:35:00", {"KRX"}, "Friday 2026-11-20 15:40 KST (KRX closing-price)"),
        ("2026-11-21T12:00:00", {"NYSE"}, "Monday 2026-11-23 04:00 EST (NYSE pre-market)"),
        ("2026-11-20T10:00:00", KOREA, "None"),
        ("2026-11-20T15:35:00", KOREA, "None"),
    ],
)
def test_closed_until_names_the_next_beginning(
    calendar: TradingCalendar, time: str, venues: set[str], said: str
) -> None:
    """Over nights, weekends, Chuseok and the year's end; nothing while a venue is open."""
    assert str(calendar.next_open_if_closed(venues, at(time))) == said


@pytest.mark.parametrize(
    ("time", "said"),
    [
        ("2026-11-20T10:00:00", "KRX regular, NXT regular"),
        ("2026-11-20T08:40:00", "KRX opening-auction, NXT pre-market"),
        ("2026-11-20T15:25:00", "KRX closing-auction"),
        ("2026-11-21T10:00:00", "closed until Monday 2026-11-23 08:00 KST (NXT pre-market)"),
    ],
)
def test_a_market_is_said_in_words(calendar: TradingCalendar, time: str, said: str) -> None:
    """Which venues are open and in what phase, or until when none is."""
    assert calendar.describe({"KRX", "NXT"}, at(time)) == said


def test_a_market_that_never_opens_is_closed_without_an_end(tmp_path: Path) -> None:
    """Every phase taken out."""
    phases = "".join(f'{phase} = ""\n' for phase in PHASES)
    calendar = of(tmp_path, NO_HOLIDAYS, f"[sessions.KRX]\n{phases}[calendar.special]\n2026-11-19 = ''\n")

    assert calendar.next_open_if_closed({"KRX"}, at("2026-11-20T10:00:00")) is None
    assert calendar.describe({"KRX"}, at("2026-11-20T10:00:00")) == "closed; no session within 31 days"
    assert not calendar.is_open({"KRX"}, at("2026-11-20T00:00:00"), at("2026-11-23T00:00:00"))


def test_a_phase_until_midnight(tmp_path: Path) -> None:
    """24:00 is the day's end."""
    calendar = of(tmp_path, NO_HOLIDAYS, '[sessions.KRX]\nafter_market = "20:00-24:00"\n')

    assert calendar.find_phase("KRX", at("2026-11-20T23:59:59")) == "after_market"
    assert calendar.find_phase("KRX", at("2026-11-21T00:00:00")) is None


def test_the_day_is_koreas_not_utcs(calendar: TradingCalendar) -> None:
    """Monday 08:30 in Korea is still Sunday in UTC."""
    assert calendar.find_phase("KRX", at("2026-11-23T08:30:00")) == "opening_auction"
    assert calendar.trading_day("NYSE", at("2026-11-23T08:30:00")) == date(2026, 11, 22)


@given(
    minute=st.integers(0, 3 * 365 * 1440),
    venue=st.sampled_from([venue for market in MARKETS.values() for venue in market.venues]),
    length_s=st.integers(0, 5 * 86_400),
)
def test_open_closed_and_opening_agree(
    calendar_of_defaults: TradingCalendar, minute: int, venue: str, length_s: int
) -> None:
    """An instant is open, or before the next opening; there is a session up to then if and only if the opening has come."""
    calendar = calendar_of_defaults
    ns = round(datetime(2025, 1, 1, tzinfo=UTC).timestamp() + minute * 60) * SECOND_NS
    until_ns = ns + length_s * SECOND_NS
    phase, opening = calendar.find_phase(venue, ns), calendar.next_open(venue, ns)

    assert opening is not None and opening.ns > ns
    assert calendar.find_phase(venue, opening.ns) == opening.phase
    assert calendar.is_open({venue}, ns, ns) is (phase is not None)
    assert calendar.is_open({venue}, ns, until_ns) is (phase is not None or opening.ns <= until_ns)
    assert calendar.next_open_if_closed({venue}, ns) == (None if phase else opening)


@pytest.fixture(scope="module")
def calendar_of_defaults(tmp_path_factory: pytest.TempPathFactory, almanac) -> TradingCalendar:
    return TradingCalendar(load_settings(tmp_path_factory.mktemp("home")), almanac)
