"""Books and trades of an instrument's day in one order, that of receipt, with a time of the exchange that never steps back (pure).

    books, trades ──by time of receipt──> row, row, row ──recovered trades at their volume──> Sequence
    holes ────────────── an empty book at the beginning of each

Guarantees:
    * A received row keeps its time of receipt to the nanosecond. Its time of the exchange is the stated one (whole seconds), but
      never after the receipt and never before that of the row before it.
    * A recovered trade stands before the first received row that shows its cumulative volume, marked as not received; its
      `recv_ns` is that row's.
    * `exch_ns` and `recv_ns` both ascend.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from conf.clock import SECOND_NS
from ringbuf.records import LEVELS, UNDEFINED

TICK, BOOK, HOLE = range(3)
"""What a row of a sequence is; of rows received at one instant in this order."""


class Books(NamedTuple):
    """n books: times int64 (n,), prices and sizes (n, 10), price 0 for an absent level; prices int64, or float64 dollars."""

    recv_ns: np.ndarray
    exch_ns: np.ndarray
    cum_volume: np.ndarray
    ask_price: np.ndarray
    ask_size: np.ndarray
    bid_price: np.ndarray
    bid_size: np.ndarray


class Ticks(NamedTuple):
    """n trades; `recv_ns` UNDEFINED: recovered."""

    recv_ns: np.ndarray
    exch_ns: np.ndarray
    cum_volume: np.ndarray
    price: np.ndarray
    size: np.ndarray
    side: np.ndarray


class Sequence(NamedTuple):
    """Rows in order: `kind` of TICK, BOOK, HOLE; `row` in the ticks or books; `is_received` bool."""

    kind: np.ndarray
    row: np.ndarray
    exch_ns: np.ndarray
    recv_ns: np.ndarray
    is_received: np.ndarray


def read_books(table: pa.Table) -> Books:
    """The books of a stored table that have a time of receipt. Of several levels of one price the first counts."""
    table = table.filter(pc.is_valid(table["recv_time"]))
    sides = []
    for side in ("ask", "bid"):
        price, size = (
            np.column_stack([_to_numpy(table[f"{side}_{what}_{level}"], 0) for level in range(1, LEVELS + 1)])
            for what in ("price", "size")
        )
        is_absent = (price <= 0) | (size <= 0)
        for level in range(1, LEVELS):
            is_absent[:, level] |= (price[:, :level] == price[:, level, None]).any(axis=1)
        sides += [np.where(is_absent, 0, price), np.where(is_absent, 0, size)]
    return Books(*_read_stamps(table), *sides)


def read_ticks(table: pa.Table) -> Ticks:
    """The trades of a stored table that have a price and a size, each once: a feed that is alone may send one twice."""
    table = table.filter(pc.and_(pc.greater(table["price"], 0), pc.greater(table["size"], 0)))
    found = Ticks(*_read_stamps(table), *(_to_numpy(table[name], 0) for name in ("price", "size", "side")))
    keys = np.stack([found.cum_volume, found.size, found.price])
    order = np.lexsort((found.recv_ns, *keys))
    is_repeat = np.zeros(len(order), bool)
    is_repeat[order[1:]] = (np.diff(keys[:, order]) == 0).all(axis=0) & (found.cum_volume[order[1:]] != UNDEFINED)
    return Ticks(*(column[~is_repeat] for column in found))


def _read_stamps(table: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    recv = _to_numpy(table["recv_time"], UNDEFINED)
    exch = _to_numpy(pc.coalesce(table["exch_time"], table["recv_time"]), 0)
    return recv, exch, _to_numpy(table["cum_volume"], UNDEFINED)


def _to_numpy(column: pa.ChunkedArray, absent: int) -> np.ndarray:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return pc.fill_null(column, absent).to_numpy()


def build_sequence(books: Books, ticks: Ticks, holes_ns: Iterable[int] = ()) -> Sequence:
    """One order of all; `holes_ns`: when books ceased to be received."""
    is_live = ticks.recv_ns != UNDEFINED
    holes = np.array(sorted(holes_ns), np.int64)
    live = np.flatnonzero(is_live)
    kind = np.repeat([TICK, BOOK, HOLE], [len(live), len(books.recv_ns), len(holes)])
    index = np.concatenate([live, np.arange(len(books.recv_ns)), np.arange(len(holes))])
    recv = np.concatenate([ticks.recv_ns[live], books.recv_ns, holes])
    exch = np.concatenate([ticks.exch_ns[live], books.exch_ns, holes])
    shown = np.concatenate([ticks.cum_volume[live], books.cum_volume, np.full(len(holes), UNDEFINED)])
    order = np.lexsort((kind, recv))
    kind, index, recv, exch, shown = (each[order] for each in (kind, index, recv, exch, shown))

    recovered = np.flatnonzero(~is_live)
    recovered = recovered[np.lexsort((ticks.exch_ns[recovered], ticks.cum_volume[recovered]))]
    places = _find_places(ticks, recovered, np.minimum(exch, recv), shown)
    by_place = np.argsort(places, kind="stable")
    recovered, places = recovered[by_place], places[by_place]
    kind, index = np.insert(kind, places, TICK), np.insert(index, places, recovered)
    exch = np.insert(exch, places, ticks.exch_ns[recovered])
    is_received = np.insert(np.ones(len(recv), bool), places, False)
    last = max(
        int(recv[-1]) if len(recv) else 0, int(ticks.exch_ns[recovered].max()) + SECOND_NS if len(recovered) else 0
    )
    recv = np.insert(recv, places, np.append(recv, last)[places])
    exch = np.maximum.accumulate(np.minimum(exch, recv))
    return Sequence(kind, index, exch, recv, is_received)


def _find_places(ticks: Ticks, recovered: np.ndarray, exch: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """For each recovered trade the number of the received row that it precedes."""
    if not len(exch):
        return np.zeros(len(recovered), np.int64)
    volume, at = ticks.cum_volume[recovered], ticks.exch_ns[recovered]
    by_volume = np.searchsorted(np.maximum.accumulate(shown), volume)
    by_time = np.searchsorted(np.maximum.accumulate(exch), at, "right")
    return np.where(volume == UNDEFINED, by_time, by_volume)
