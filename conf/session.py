"""Which phase of the trading day an instant lies in: a table lookup.

Promises: pure; sessions are data (settings), not code.
Leaves to others: halts, auctions inside the day and what else only the exchange knows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date

from conf.clock import korean


def phase(sessions: Mapping[str, Mapping[str, str]], closed: Collection[date], venue: str, ns: int) -> str | None:
    """The name of the phase ("regular", ...) of `venue` at `ns`; None outside every session, on weekends and closed days."""
    local = korean(ns)
    if local.weekday() >= 5 or local.date() in closed:
        return None
    now = f"{local:%H:%M}"
    for name, span in sessions.get(venue, {}).items():
        begin, end = span.split("-")
        if begin <= now < end:
            return name
    return None
