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
from writer.publish.overlap import VALUES_AT_END, SelectedRows, TickArrays, mark_rows, select

TICKS = "kr.tick"


def drop_stored(home: Home, ticks: np.ndarray) -> np.ndarray:
    """`ticks` (TICK, in order of receipt) without those, and the shares, that stored ones or others of them cover."""
    venues = {int(venue): venue.name for venue in Venue}
    keys = [
        (symbol.decode(errors="backslashreplace"), venues.get(venue, ""))
        for symbol, venue in zip(ticks["symbol"].tolist(), ticks["venue"].tolist(), strict=True)
    ]
    price = np.where(ticks["price_e4"] == UNDEFINED, UNDEFINED, ticks["price_e4"] // PRICE_SCALE)
    feed = ticks["line"].astype(np.int64)
    arrays = TickArrays(np.zeros(len(ticks), np.int64), ticks["cum_volume"], ticks["size"], price, feed)
    rows = _select(find_partitions_near(home, TICKS, ticks), keys, arrays)
    left = ticks[rows.tick]
    before_end = left["cum_volume"] != rows.cum_volume
    for name in VALUES_AT_END:
        left[name][before_end] = UNDEFINED
    left["cum_volume"], left["size"] = rows.cum_volume, rows.size
    left["flags"] |= rows.flags.astype(np.uint32)
    return left


def drop_rows_stored(rows: pa.Table, paths: list[Path]) -> pa.Table:
    """Published `rows` without those, and the shares, that the rows of `paths` cover."""
    keys = list(zip(rows.column("symbol").to_pylist(), rows.column("venue").to_pylist(), strict=True))
    volume, size, price = (
        pc.fill_null(rows.column(name), UNDEFINED).to_numpy() for name in ("cum_volume", "size", "price")
    )
    feed = np.array([FeedId[name.upper()] for name in rows.column("broker").to_pylist()], np.int64)
    found = _select(paths, keys, TickArrays(np.zeros(len(rows), np.int64), volume, size, price, feed))
    return mark_rows(rows.take(pa.array(found.tick)), found.cum_volume, found.size, found.flags)


def _select(paths: list[Path], keys: list[tuple[str, str]], ticks: TickArrays) -> SelectedRows:
    """The rows that `ticks`, in order of receipt, add to those of `paths`. `keys`: symbol and venue of each."""
    names = {name: number for number, name in enumerate(sorted(set(keys)))}
    group = np.array([names[name] for name in keys], np.int64)
    published = read_published_overlapping(paths, names, ticks._replace(group=group))
    found = []
    for number in range(len(names)):
        at = np.flatnonzero(group == number)
        near = published.take(published.group == number)
        mine = ticks.take(at)
        rows = select(near._replace(group=np.zeros_like(near.group)), mine, mine.feed != FeedId.GAPFILL)
        found.append(rows._replace(tick=at[rows.tick]))
    rows = SelectedRows.concatenate(found)
    order = np.argsort(rows.tick, kind="stable")
    return SelectedRows(*(column[order] for column in rows))
