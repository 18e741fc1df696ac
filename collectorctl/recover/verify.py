"""Verification: the certificates of a day computed again from files alone.

Guarantees:
    * Nothing is fetched or changed; a certificate that the files contradict is named, with the difference.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date

import msgspec

from collectorctl.recover import us_job
from collectorctl.recover.certificate import store
from collectorctl.recover.certificate.certify import COMPLETE_GRADES, Certificate
from collectorctl.recover.job import compute_certificate
from conf.home import Home
from conf.instrument import Instrument
from conf.market import KR, Market


class VerifiedCertificate(msgspec.Struct):
    """A certificate as the files bear it out now; `differs`: fields that the stored one has otherwise."""

    now: Certificate
    differs: list[str]

    @property
    def passed(self) -> bool:
        """Whether the stored certificate holds and the day is complete."""
        return not self.differs and self.now.certificate in COMPLETE_GRADES


def verify(
    home: Home, day: date, market: Market = KR, instruments: Collection[Instrument] = ()
) -> list[VerifiedCertificate]:
    """Every certificate of the day, or those of `instruments`; empty for none. PartitionWriteError, OSError."""
    found = []
    for (symbol, venue), stored in sorted(store.load(home.data, day, market).items()):
        instrument = Instrument(symbol, venue)
        if instruments and instrument not in instruments:
            continue
        now = (
            compute_certificate(home, day, instrument)
            if market is KR
            else us_job.compute_certificate(home.data, day, instrument)
        )
        stored_content, content = stored.content(), now.content()
        now.made_at = stored.made_at
        found.append(VerifiedCertificate(now, [name for name in content if content[name] != stored_content[name]]))
    return found
