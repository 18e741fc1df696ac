"""The instant at which a stream begins that has a past."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from conf.clock import SECOND_NS
from conf.home import Home
from conf.instrument import Instrument

Since = Literal["open"] | datetime | int
"""Today's first session of the instruments, an instant with a zone (datetime, pandas.Timestamp), or ns since 1970 UTC."""

_FORMS = 'name "open", an instant with a zone (datetime, pandas.Timestamp), or ns since 1970 UTC'


def parse_since(since: Since, home: Home, instruments: Sequence[Instrument]) -> int:
    """The instant in ns since 1970 UTC; ValueError: none, or one of the future.

    "open" is when the first session of `instruments` (all of the settings if there are none) began today; before that, and on
    a day without one, it is now.
    """
    now_ns = home.load_clock().now_ns()
    if since == "open":
        return _find_open(home, instruments, now_ns)
    if isinstance(since, bool) or not isinstance(since, datetime | int):
        raise ValueError(f"since={since!r}: {_FORMS}")
    since_ns = since if isinstance(since, int) else _to_ns(since)
    if since_ns > now_ns:
        raise ValueError(f"since={since}: in the future; leave it out to begin now")
    return since_ns


def _to_ns(at: datetime) -> int:
    if at.tzinfo is None:
        raise ValueError(f"since={at}: no zone: {_FORMS}")
    return (
        round(at.replace(microsecond=0).timestamp()) * SECOND_NS + at.microsecond * 1000 + getattr(at, "nanosecond", 0)
    )


def _find_open(home: Home, instruments: Sequence[Instrument], now_ns: int) -> int:
    calendar = home.load_calendar()
    wanted = instruments or home.settings.instruments()
    begins = [
        spans[0].begin_ns
        for venue in {instrument.venue for instrument in wanted}
        if (spans := calendar.phase_spans(venue, calendar.trading_day(venue, now_ns)))
    ]
    return min([*begins, now_ns])
