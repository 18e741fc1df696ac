"""Which phase of the trading day an instant lies in: a table lookup.

Promises: pure; a phase has its first minute and not its last ("09:00-15:20" ends as 15:20:00 begins); sessions are data
(settings), not code.
Leaves to others: halts, auctions inside the day and what else only the exchange knows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date

from conf.market import KR, hours_of, local, market_of

PHASES = (
    "pre_market",
    "opening_auction",
    "regular",
    "closing_auction",
    "closing_price",
    "after_market",
    "intraday_auction",
    "day_market",
)
"""The phases there are; records name them by the same words (ringbuf.records.Session)."""


def phase(sessions: Mapping[str, Mapping[str, str]], closed: Collection[date], venue: str, ns: int) -> str | None:
    """The name of the phase ("regular", ...) of `venue` at `ns`; None outside every session, on weekends and closed days.

    `closed` are Korean days: they close Korean venues.
    """
    table, zone = hours_of(venue)
    now_there = local(ns, zone)
    if now_there.weekday() >= 5 or (market_of(venue) is KR and now_there.date() in closed):
        return None
    now = f"{now_there:%H:%M}"
    for name, span in sessions.get(table, {}).items():
        begin, _, end = span.partition("-")  # of "", a phase that does not take place, no minute is part
        if begin <= now < end:
            return name
    return None
