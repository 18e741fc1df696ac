"""The certificates of a day made again, from files alone.

Promises: asks nobody, changes nothing; a certificate that the files do not bear out is named, with what differs.
Leaves to others: what a certificate is (certify.py).
"""

from __future__ import annotations

from datetime import date

import msgspec

from collectorctl.recover import us_job
from collectorctl.recover.certificate import store
from collectorctl.recover.certificate.certify import Certificate, Grade
from collectorctl.recover.job import judge
from conf.home import Home
from conf.instrument import Instrument
from conf.market import KR, Market


class Verified(msgspec.Struct):
    """A certificate as the files bear it out now; `differs`: fields that the stored one has otherwise."""

    now: Certificate
    differs: list[str]

    @property
    def good(self) -> bool:
        """The stored certificate holds, and says that the day is whole."""
        return not self.differs and self.now.certificate in (Grade.PROVEN, Grade.RECONCILED)


def verify(home: Home, day: date, market: Market = KR) -> list[Verified]:
    """Every certificate of the day; empty when there is none. PublicationError, OSError."""
    found = []
    for (symbol, venue), stored in sorted(store.load(home.data, day, market).items()):
        one = Instrument(symbol, venue)
        now = judge(home, day, one) if market is KR else us_job.judge(home.data, day, one)
        said, says = stored.says(), now.says()
        now.made_at = stored.made_at
        found.append(Verified(now, [name for name in says if says[name] != said[name]]))
    return found
