"""Quarantined ticks whose shares are stored already: backfilled since, or delivered by the other feed.

    quarantined          [ a ][ b ]
    stored        [ x ][ a ]                 a is dropped, b is new: one row for every share (writer/publish/overlap.py)

Guarantees:
    * The rule is the writer's; a tick that contradicts a stored one is stored as well.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from collectorctl.reprocess.stored_books import find_partitions_near
from conf.home import Home
from ringbuf.records import PRICE_SCALE, UNDEFINED, FeedId, Venue
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
    price = np.where(ticks["price_e4"] == UNDEFINED, UNDEFINED, ticks["price_e4"] // PRICE_SCALE)
    arrays = TickArrays(
        np.zeros(len(ticks), np.int64), ticks["cum_volume"], ticks["size"], price, ticks["line"].astype(np.int64)
    )
    return _find_covered(find_partitions_near(home, TICKS, ticks), keys, arrays)


def find_rows_covered(rows: pa.Table, paths: list[Path]) -> np.ndarray:
    """Which published `rows` the rows of `paths` cover; bool, shape (n,)."""
    keys = list(zip(rows.column("symbol").to_pylist(), rows.column("venue").to_pylist(), strict=True))
    volume, size, price = (
        pc.fill_null(rows.column(name), UNDEFINED).to_numpy() for name in ("cum_volume", "size", "price")
    )
    feed = np.array([FeedId[name.upper()] for name in rows.column("broker").to_pylist()], np.int64)
    return _find_covered(paths, keys, TickArrays(np.zeros(len(rows), np.int64), volume, size, price, feed))


def _find_covered(paths: list[Path], keys: list[tuple[str, str]], ticks: TickArrays) -> np.ndarray:
    """Which `ticks`, in order of receipt, are covered by rows of `paths` or by others of them. `keys`: symbol and venue of each."""
    names = {name: number for number, name in enumerate(sorted(set(keys)))}
    group = np.array([names[name] for name in keys], np.int64)
    order = np.argsort(group, kind="stable")
    ordered = ticks._replace(group=group).take(order)
    published = read_published_overlapping(paths, names, ordered)
    keep = np.ones(len(keys), bool)
    keep[order] = deduplicate_against(published, ordered)[0]
    return ~keep
