"""The certificates of a day that is handed on, as its files bear them out.

Guarantees:
    * Every instrument with a row has its verdict; one without a certificate that holds is refused unless that is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from collectorctl.recover.certificate import store
from collectorctl.recover.store import day_ticks
from collectorctl.recover.verify import VerifiedCertificate, verify_day
from conf.home import Home
from conf.instrument import Instrument
from conf.market import KR


class NotHandedOn(Exception):
    """A day that is not exported or copied; the message has reason and remedy."""


def find_instruments(home: Home, day: date) -> list[Instrument]:
    """What has a certificate, a book or a tick. PartitionWriteError."""
    found = {Instrument(*key) for key in store.load(home.data, day)}
    for stream in ("orderbook", "tick"):
        found |= day_ticks.find_instruments(home.data / KR.name / stream, day)
    return sorted(found)


def refuse_unpublished(home: Home, day: date) -> None:
    """NotHandedOn while only the journal has rows of the day."""
    if unpublished := day_ticks.find_unpublished_hours(home, day):
        raise NotHandedOn(
            f"{day}: hours are still in the journal ({', '.join(unpublished)}): `collectorctl stop` publishes them, or wait "
            "until the writer has; then do this again"
        )


def verify_stored(home: Home, day: date) -> dict[Instrument, VerifiedCertificate]:
    """The certificates of a day's instruments. NotHandedOn: there are none, not all is published, or one does not hold."""
    refuse_unpublished(home, day)
    if not (instruments := find_instruments(home, day)):
        raise NotHandedOn(f"{day}: nothing is stored of that day")
    return verify_certified(home, day, instruments)


def verify_certified(
    home: Home, day: date, instruments: Sequence[Instrument], advice: str = "", allowed: bool = False
) -> dict[Instrument, VerifiedCertificate]:
    """The certificates by instrument. NotHandedOn: one is missing or does not hold; not if that is `allowed`."""
    verified = verify_day(home, day, KR, instruments)
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
    raise NotHandedOn(
        f"{day}: {'; '.join(what)}: nothing was written: run `collectorctl recover --date {day}`{advice and f', {advice}'}"
    )
