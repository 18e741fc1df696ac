"""Candidates of a backfill: instruments of the universe whose past nobody has fetched.

Guarantees:
    * Only files of certificates are read, the newest first, and no more than are needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from collectorctl.recover.certificate import store
from conf.home import Home
from conf.instrument import Instrument

NEWEST_DAYS = 20
"""Certified days in which an instrument is looked for."""


def find_candidates(home: Home, instruments: Iterable[str]) -> list[str]:
    """Those that no certificate of the newest days names, in their order; none while no day is certified.

    `instruments`: Korean ones as in the settings. OSError, pa.ArrowException: an unreadable file.
    """
    left = dict.fromkeys(instruments)
    days = sorted((home.data / "kr" / "completeness").glob("date=*"), reverse=True)[:NEWEST_DAYS]
    for directory in days:
        if not left:
            break
        for symbol, venue in store.load(home.data, date.fromisoformat(directory.name[5:])):
            left.pop(str(Instrument(symbol, venue)), None)
    return list(left) if days else []


def format_offer(candidates: Iterable[str]) -> str:
    """The command that fetches their past."""
    return f"collectorctl backfill {' '.join(candidates)} --days {NEWEST_DAYS}"
