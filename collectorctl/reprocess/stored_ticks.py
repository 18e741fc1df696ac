"""Quarantined ticks whose shares are stored already: backfilled since, or delivered by the other feed.

    quarantined          [ a ][ b ]
    stored        [ x ][ a ]                 a is dropped, b is new: one row for every share (writer/publish/overlap.py)

Guarantees:
    * The rule is the writer's; a tick that contradicts a stored one is stored as well.
"""

from __future__ import annotations

import numpy as np

from collectorctl.reprocess.stored_books import find_partitions_near
from conf.home import Home
from ringbuf.records import PRICE_SCALE, UNDEFINED, Venue
from writer.catalog import read_published_overlapping
from writer.publish.overlap import TickArrays, deduplicate_against

TICKS = "kr.tick"


def find_covered_ticks(home: Home, ticks: np.ndarray) -> np.ndarray:
    """Which of `ticks` (TICK, in order of receipt) stored ones of their hours cover, or others of them; bool, shape (n,)."""
    venues = {int(venue): venue.name for venue in Venue}
    keys = [
        (symbol.decode(errors="backslashreplace"), venues.get(venue, ""))
        for symbol, venue in zip(ticks["symbol"].tolist(), ticks["venue"].tolist(), strict=True)
    ]
    names = {name: number for number, name in enumerate(sorted(set(keys)))}
    group = np.array([names[name] for name in keys], np.int64)
    order = np.argsort(group, kind="stable")
    price = np.where(ticks["price_e4"] == UNDEFINED, UNDEFINED, ticks["price_e4"] // PRICE_SCALE)
    tick_arrays = TickArrays(group, ticks["cum_volume"], ticks["size"], price, ticks["line"].astype(np.int64)).take(
        order
    )
    published = read_published_overlapping(find_partitions_near(home, TICKS, ticks), names, tick_arrays)
    keep = np.ones(len(ticks), bool)
    keep[order] = deduplicate_against(published, tick_arrays)[0]
    return ~keep
