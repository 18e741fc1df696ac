"""Trading date of a record, by its exchange time and the hours of its venue (pure).

Guarantees:
    * Every record has a date: a venue code that does not exist is treated as Korean.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from conf.clock import DAY_NS, HOUR_NS
from conf.market import KR, hours_of, utc_offset_ns
from ringbuf.records import Venue

_VENUE_NAMES = {int(venue): venue.name for venue in Venue}


def compute_exchange_ns(records: np.ndarray) -> np.ndarray:
    """The exchange time of each record, int64 ns; its receive time where that is undefined."""
    return np.where(records["exch_ns"] > 0, records["exch_ns"], records["recv_ns"])


def compute_session_days(records: np.ndarray) -> np.ndarray:
    """The day of the session each record belongs to, days since 1970: the date in the zone of its venue's hours (market.py)."""
    ns = compute_exchange_ns(records)
    ahead = map(_ahead_ns, records["venue"].tolist(), (ns - ns % HOUR_NS).tolist())
    return (ns + np.fromiter(ahead, np.int64, len(ns))) // DAY_NS


@lru_cache(maxsize=4096)
def _ahead_ns(venue: int, hour_ns: int) -> int:
    """What the session days of a venue are ahead of UTC; Korea's for a code that no venue has."""
    name = _VENUE_NAMES.get(venue)
    if name is None:
        return utc_offset_ns(KR.zone, hour_ns)
    hours = hours_of(name)
    return utc_offset_ns(hours.zone, hour_ns) + hours.evening_hours * HOUR_NS
