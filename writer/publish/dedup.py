"""Selection of an hour's ticks for publication: one row for every share.

    rows of the hour     ──> received: once (overlap.py) ──> backfilled: where none was received (backfill_filter.py) ──> the part
    existing parts       ──┘

Guarantees:
    * Equal rows give an equal part.
    * Published parts are not changed; later parts are deduplicated against them as well.
    * Memory holds the published rows that overlap with new ones, and some 50 bytes of each new tick.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ringbuf.records import MAX_INT64, UNDEFINED, FeedId, Flag
from writer.ingest.backfill_filter import prefer_live
from writer.journal.gathered_column import RowLocation
from writer.journal.row_index import JournalRows, RowIndex
from writer.publish.overlap import TickArrays, deduplicate, deduplicate_against

_NUMERIC_COLUMNS = ("cum_volume", "size", "price")


class SelectedTicks(NamedTuple):
    """The rows that are published, in order.

    `flags` int64 (n,): bits to be added to each row's. `duplicates`: received ticks left out because others cover them.
    `conflicts`: ticks published though they contradict others.
    """

    rows: RowIndex
    flags: np.ndarray
    duplicates: int
    conflicts: int


def select_ticks(entries: JournalRows, index: RowIndex, parts: Sequence[Path]) -> SelectedTicks:
    """The rows of an hour, by symbol, venue and arrival, that are published in addition to its `parts`."""
    edges = [0, *(np.flatnonzero(np.diff(index.group)) + 1).tolist(), len(index)]
    all_ticks, all_live = _gather_ticks(entries, index.location)
    published = _read_published_by_group(entries, index, all_ticks, edges, parts) if parts else {}
    rows, conflicts, duplicates = [np.empty(0, np.int64)], [np.empty(0, bool)], 0
    for begin, end in pairwise(edges):
        ticks, live = all_ticks.take(slice(begin, end)), all_live[begin:end]
        received = ticks.take(live)
        keep, conflict = np.ones(end - begin, bool), np.zeros(end - begin, bool)
        keep[live], conflict[live] = (
            deduplicate_against(published[begin], received) if begin in published else deduplicate(received)
        )
        duplicates += int(np.count_nonzero(~keep))
        chosen = np.flatnonzero(keep)
        if not live[chosen].all():
            chosen = chosen[
                prefer_live(ticks.group[chosen], live[chosen], ticks.cum_volume[chosen], ticks.size[chosen])
            ]
        rows.append(begin + chosen)
        conflicts.append(conflict[chosen])
    chosen, conflict = np.concatenate(rows), np.concatenate(conflicts)
    if len(chosen) < len(index) or (np.diff(chosen) < 0).any():
        index = index.take(chosen)
    return SelectedTicks(index, np.where(conflict, int(Flag.CONFLICT), 0), duplicates, int(conflict.sum()))


def _gather_ticks(entries: JournalRows, location: RowLocation) -> tuple[TickArrays, np.ndarray]:
    """The ticks, in one group, and which of them were received, bool (n,)."""
    names = (*_NUMERIC_COLUMNS, "broker", "recv_time")
    *numbers, broker, recv_time = entries.gather([(name, location) for name in names])
    volume, size, price = map(_to_ints, numbers)
    ticks = TickArrays(np.zeros(len(volume), np.int64), volume, size, price, _to_feed_codes(broker))
    return ticks, recv_time.is_valid().to_numpy(zero_copy_only=False)


def read_published_overlapping(
    parts: Sequence[Path], names: dict[tuple[str, str], int], ticks: TickArrays
) -> TickArrays:
    """The published ticks that lie where `ticks` do; `names`: whose each of their groups is."""
    low, high = _empty_ranges(len(names))
    placed = ticks.take(ticks.cum_volume != UNDEFINED)
    np.minimum.at(low, placed.group, placed.cum_volume - placed.size)
    np.maximum.at(high, placed.group, placed.cum_volume)
    return _read_published_within(parts, names, low, high)


def _read_published_by_group(
    entries: JournalRows, index: RowIndex, ticks: TickArrays, edges: Sequence[int], parts: Sequence[Path]
) -> dict[int, TickArrays]:
    """Published ticks that overlap an index, by where each symbol and venue begins in it."""
    first = index.location[np.array(edges[:-1])]
    columns = (column.to_pylist() for column in entries.gather([("symbol", first), ("venue", first)]))
    names = {name: number for number, name in enumerate(zip(*columns, strict=True))}
    low, high = _empty_ranges(len(names))
    for number, (begin, end) in enumerate(pairwise(edges)):
        new = ticks.take(slice(begin, end))
        new = new.take(new.cum_volume != UNDEFINED)
        if len(new.group):
            low[number], high[number] = (new.cum_volume - new.size).min(), new.cum_volume.max()
    found = _read_published_within(parts, names, low, high)
    by_name = {}
    for number in np.unique(found.group).tolist():
        mine = found.take(found.group == number)
        by_name[edges[number]] = mine._replace(group=np.zeros_like(mine.group))
    return by_name


def _empty_ranges(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full(count, MAX_INT64), np.full(count, UNDEFINED)


def _read_published_within(
    parts: Sequence[Path], names: dict[tuple[str, str], int], low: np.ndarray, high: np.ndarray
) -> TickArrays:
    """The published ticks that reach into (low, high] of their name."""
    found = [TickArrays(*(np.empty(0, np.int64) for _ in TickArrays._fields))]
    for path in parts:
        with pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                table = file.read_row_group(number, ["symbol", "venue", *_NUMERIC_COLUMNS, "broker"], use_threads=False)
                table = table.combine_chunks()
                pairs = zip(table.column("symbol").to_pylist(), table.column("venue").to_pylist(), strict=True)
                group = np.array([names.get(pair, -1) for pair in pairs], np.int64)
                volume, size, price = (_to_ints(table.column(name)) for name in _NUMERIC_COLUMNS)
                feed = _to_feed_codes(table.column("broker").combine_chunks())
                rows = TickArrays(group, volume, size, price, feed)
                near = (group >= 0) & (rows.cum_volume != UNDEFINED)
                near &= (rows.cum_volume > low[group]) & (rows.cum_volume - rows.size < high[group])
                found.append(rows.take(near))
    return TickArrays(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


def _to_feed_codes(brokers: pa.Array) -> np.ndarray:
    """A feed's code for its name, int64 (n,)."""
    names = brokers.dictionary_encode()
    codes = np.array([FeedId[word.upper()] for word in names.dictionary.to_pylist()] + [0], np.int64)
    return codes[pc.fill_null(names.indices, len(codes) - 1).to_numpy()]


def _to_ints(column: pa.Array) -> np.ndarray:
    return pc.fill_null(column, UNDEFINED).to_numpy(zero_copy_only=False)
