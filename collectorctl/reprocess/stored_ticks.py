"""Ticks of a quarantine whose shares are stored already: fetched since, or delivered by the other broker as well.

    quarantined          [ a ][ b ]
    stored        [ x ][ a ]                 a goes, b is new: one row for every share, as the writer keeps it (writer/overlap.py)

Promises: the rule is the writer's; what contradicts a stored tick is placed beside it.
Leaves to others: recording the receipt of what goes (a published file is never changed: the frame keeps it), books (stored.py).
"""

from __future__ import annotations

import numpy as np

from collectorctl.reprocess.stored_books import files_near
from conf.home import Home
from ringbuf.records import PRICE_SCALE, UNDEFINED, Venue
from writer.publish.dedup import published
from writer.publish.overlap import Received, once_beside

TICKS = "kr.tick"


def ticks_covered(home: Home, ticks: np.ndarray) -> np.ndarray:
    """Which of `ticks` (TICK, in order of receipt) stored ones of their hours cover, or others of them; bool, shape (n,)."""
    venues = {int(venue): venue.name for venue in Venue}
    whose = [
        (symbol.decode(errors="backslashreplace"), venues.get(venue, ""))
        for symbol, venue in zip(ticks["symbol"].tolist(), ticks["venue"].tolist(), strict=True)
    ]
    names = {name: number for number, name in enumerate(sorted(set(whose)))}
    group = np.array([names[name] for name in whose], np.int64)
    order = np.argsort(group, kind="stable")
    price = np.where(ticks["price_e4"] == UNDEFINED, UNDEFINED, ticks["price_e4"] // PRICE_SCALE)
    mine = Received(group, ticks["cum_volume"], ticks["size"], price, ticks["line"].astype(np.int64)).take(order)
    there = published(list(files_near(home.data / "kr" / "tick", ticks)), names, mine)
    stays = np.ones(len(ticks), bool)
    stays[order] = once_beside(there, mine)[0]
    return ~stays
