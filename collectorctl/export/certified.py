"""The certificates of a day that is handed on, as its files bear them out.

Guarantees:
    * Every instrument with a row has its verdict; one without a certificate that holds is refused unless that is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from collectorctl.disk import retired
from collectorctl.recover.certificate import store
from collectorctl.recover.store import day_ticks
from collectorctl.recover.verify import VerifiedCertificate, format_recovery_command, verify_day
from conf.clock import floor_to_hour
from conf.home import Home
from conf.instrument import Instrument
from conf.market import KR, Market


class NotHandedOn(Exception):
    """A day that is not exported or copied; the message has reason and remedy."""


def find_instruments(home: Home, day: date, market: Market = KR) -> list[Instrument]:
    """What has a certificate, a book or a tick of a session of the day. PartitionWriteError."""
    found = {Instrument(*key) for key in store.load(home.data, day, market)}
    for stream in ("orderbook", "tick"):
        for date_of_rows in market.dates_of_rows(day):
            found |= day_ticks.find_instruments(home.data / market.name / stream, date_of_rows, day)
    return sorted(found)


def find_sessions(home: Home, day: date, market: Market = KR) -> dict[date, list[Instrument]]:
    """What has a book or a tick under a date, by the day of its session, and what has a certificate of it. PartitionWriteError."""
    found = {day: {Instrument(*key) for key in store.load(home.data, day, market)}}
    for stream in ("orderbook", "tick"):
        for session, instruments in day_ticks.find_sessions(home.data / market.name / stream, day).items():
            found.setdefault(session, set()).update(instruments)
    return {session: sorted(found[session]) for session in sorted(found) if found[session]}


def refuse_missing_rows(home: Home, day: date, market: Market = KR) -> None:
    """NotHandedOn while only the journal has rows of the day's sessions, and where retention removed some. PartitionWriteError."""
    gone = retired.describe_sessions(home.data, day, (), market)
    _refuse_missing(home, day, market, gone, _find_hours(home, day, market))


def _refuse_missing(home: Home, day: date, market: Market, gone: str, hours: tuple[int, int]) -> None:
    """NotHandedOn: retention removed what `gone` names, or only the journal has rows of these hours. PartitionWriteError."""
    if gone:
        raise NotHandedOn(f"{gone}: what is left is not the day: take it from a copy")
    if unpublished := day_ticks.find_unpublished_between(home, market, *hours):
        raise NotHandedOn(
            f"{day}: hours are still in the journal ({', '.join(unpublished)}): `collectorctl stop` publishes them, or wait "
            "until the writer has; then do this again"
        )


def _find_hours(home: Home, day: date, market: Market) -> tuple[int, int]:
    """The hours in which rows of a day are stored, [begin, end).

    Where a venue's sessions are of another day than the exchange's they are what counts: its next one begins while this day lasts.
    """
    if not market.has_business_date:
        return market.day_bounds_ns(day)
    calendar = home.load_calendar()
    spans = [span for venue in market.venues for span in calendar.phase_spans(venue, day)]
    if not spans:
        return market.day_bounds_ns(day)
    return floor_to_hour(min(span.begin_ns for span in spans)), max(span.end_ns for span in spans)


def verify_stored(home: Home, day: date, market: Market = KR) -> dict[date, dict[Instrument, VerifiedCertificate]]:
    """The certificates of what is stored under a date, by the day of the session.

    NotHandedOn: nothing is, rows were removed or are in the journal, or a certificate is missing or does not hold.
    """
    _refuse_missing(home, day, market, retired.describe(home.data, day, (), market), market.day_bounds_ns(day))
    if not (sessions := find_sessions(home, day, market)):
        raise NotHandedOn(f"{day}: nothing is stored of that day")
    return {
        session: verify_certified(home, session, instruments, market=market)
        for session, instruments in sessions.items()
    }


def verify_certified(
    home: Home,
    day: date,
    instruments: Sequence[Instrument],
    advice: str = "",
    allowed: bool = False,
    market: Market = KR,
) -> dict[Instrument, VerifiedCertificate]:
    """The certificates by instrument. NotHandedOn: one is missing or does not hold; not if that is `allowed`."""
    verified = verify_day(home, day, market, instruments)
    if verified.failure:
        raise NotHandedOn(verified.failure)
    found = {Instrument(one.now.symbol, one.now.venue): one for one in verified.certificates}
    missing = [str(one) for one in instruments if one not in found]
    denied = [str(one) for one in instruments if one in found and found[one].differs]
    if allowed or not (missing or denied):
        return found
    what = [
        f"{text} {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for text, names in (("no certificate of", missing), ("files contradict the certificate of", denied))
        if names
    ]
    command = format_recovery_command(day, market)
    raise NotHandedOn(f"{day}: {'; '.join(what)}: nothing was written: run {command}{advice and f', {advice}'}")
