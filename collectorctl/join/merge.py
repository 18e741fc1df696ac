"""Rows of one instrument's day from several homes, each book and each share once (pure).

    home A   10:00:01.05  book 1   10:00:02.06  book 2   .                      first wins, with homes in place of feeds
    home B   10:00:01.07  book 1   .                     10:00:03.04  book 3
    joined   10:00:01.05  book 1   10:00:02.06  book 2   10:00:03.04  book 3

Books are arbitrated by the writer's rule (levels and cumulative volume, window, order, usual lag), all rows of both homes in the
order of their times of receipt. Ticks are deduplicated by cumulative volume, received ones first: a fetched tick gives way.

Guarantees:
    * Of a content that comes back there are no fewer rows than in either home.
    * Times of receipt are those of the host that has the row: they are not moved, and two hosts' are comparable as far as their
      clocks agree. An arrival that the first row lacks is that of its twin, by the other host's clock.
    * The result depends on the rows and the order of the homes alone.

Not handled here:
    * Hosts whose clocks are further apart than the writer.twin_window_s: their books are rows of their own.
    * Details beside the levels (totals, midpoint): a pair keeps those of its first row.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from collectorctl.reprocess.stored_books import FEED_BY_COLUMN, to_records
from ringbuf.records import UNDEFINED, FeedId, Flag
from writer.ingest.arbitration_result import NEW
from writer.ingest.book_arbiter import BookArbiter
from writer.publish.overlap import NO_FEED, TickArrays, mark_rows, select

_LATEST = np.iinfo(np.int64).max


class NotMergeable(Exception):
    """Rows that cannot be told apart; the message has what they are."""


def merge_books(homes: Sequence[pa.Table], window_ns: int, volume_venues: Collection[str]) -> pa.Table:
    """Books of an instrument, in order of receipt.

    Args:
        homes: the rows of each home, columns of PARQUET["kr.orderbook"].
        window_ns: how far apart twins may be received, in the calendar's time.
        volume_venues: the venues whose books are also compared by cumulative volume.
    """
    return reduce(lambda one, other: _merge_pair(one, other, window_ns, volume_venues), homes)


def _merge_pair(one: pa.Table, other: pa.Table, window_ns: int, volume_venues: Collection[str]) -> pa.Table:
    rows = pa.concat_tables([one, other])
    books = to_records(rows)
    books["mono_ns"] = books["recv_ns"] = rows["recv_time"].cast(pa.int64()).to_numpy()
    books["line"] = np.repeat(
        [FeedId.KIS, FeedId.KIWOOM], [len(one), len(other)]
    )  # the homes: two streams of one market
    order = np.argsort(books["mono_ns"], kind="stable")
    twin_of = BookArbiter(window_ns, volume_venues).arbitrate(books[order], np.zeros(len(books), np.int64), 0).twin_of
    twin_at = np.full(len(books), NEW, np.int64)
    later = np.flatnonzero(twin_of != NEW)
    twin_at[twin_of[later]] = order[later]
    is_row = twin_of == NEW
    found, twin = rows.take(pa.array(order[is_row])), twin_at[is_row]
    twins = rows.take(pa.array(twin, mask=twin == NEW))
    for name in FEED_BY_COLUMN:
        found = _set(found, name, pc.coalesce(found[name], twins[name]))
    return _set(found, "flags", pc.bit_wise_or(found["flags"], pc.fill_null(twins["flags"], 0)))


def merge_ticks(homes: Sequence[pa.Table]) -> pa.Table:
    """Ticks of an instrument: every share that any home has, in one row; columns of PARQUET["kr.tick"]. NotMergeable."""
    rows = pa.concat_tables(homes)
    home = np.repeat(np.arange(len(homes)), [len(one) for one in homes])
    volume, size, price = (pc.fill_null(rows[name], UNDEFINED).to_numpy() for name in ("cum_volume", "size", "price"))
    if len(np.unique(home[volume == UNDEFINED])) > 1:
        raise NotMergeable("ticks without a cumulative volume in more than one home cannot be told apart")
    is_live = pc.equal(rows["source"], "live").to_numpy()
    received_ns = pc.fill_null(rows["recv_time"].cast(pa.int64()), _LATEST).to_numpy()
    order = np.lexsort((home, received_ns, ~is_live))
    is_piece = (pc.fill_null(rows["flags"], 0).to_numpy() & int(Flag.SPLIT)) != 0
    stream = np.where(is_piece, NO_FEED, home + 1)  # two homes contradict each other as two feeds do
    ticks = TickArrays(np.zeros(len(rows), np.int64), volume, size, price, stream).take(order)
    found = select(ticks.take(slice(0)), ticks, is_live[order])
    return mark_rows(rows.take(pa.array(order[found.tick])), found.cum_volume, found.size, found.flags)


def _set(table: pa.Table, name: str, values: pa.ChunkedArray) -> pa.Table:
    at = table.column_names.index(name)
    return table.set_column(at, table.schema.field(at), values)
