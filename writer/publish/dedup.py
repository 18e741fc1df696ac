"""Selection of an hour's ticks for publication: one row for every share.

    rows of the hour         ──> received: once ──> backfilled: where none was received (overlap.py) ──> the part
    published: parts of the  ──┘
    hour and of the hours beside it

Guarantees:
    * Equal rows give an equal part.
    * Published parts are not changed; later parts are deduplicated against them as well, also over the edge of two hours: two
      feeds may stamp one trade in different hours.
    * Memory holds the published rows that overlap with new ones, and some 80 bytes of each new tick. Of row groups without such
      rows only four columns are read, or none.
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
from writer.journal.row_index import JournalRows, RowIndex, RowLocation
from writer.publish.overlap import NO_FEED, SelectedRows, TickArrays, mark_rows, select
from writer.publish.verified_file import PartitionWriteError
from writer.schema import build_prices, name_instruments, parse_dataset

_NUMERIC_COLUMNS = ("cum_volume", "size", "price")
_NO_TICKS = TickArrays(*[np.empty(0, np.int64)] * len(TickArrays._fields))


class SelectedTicks(NamedTuple):
    """The rows that are published, in order.

    `cum_volume`, `size` int64 (n,): those of each row; other than the tick's where it is a piece of it. `flags` int64 (n,): bits to
    be added to each row's. `duplicates`: received ticks left out because others cover them. `conflicts`: ticks published though
    they contradict others.
    """

    rows: RowIndex
    cum_volume: np.ndarray
    size: np.ndarray
    flags: np.ndarray
    duplicates: int
    conflicts: int


def select_ticks(dataset: str, entries: JournalRows, index: RowIndex, parts: Sequence[Path]) -> SelectedTicks:
    """The rows of an hour, by symbol, venue and arrival, that are published in addition to `parts`, of it and its neighbours."""
    edges = [0, *(np.flatnonzero(np.diff(index.group)) + 1).tolist(), len(index)]
    all_ticks, all_live = _gather_ticks(dataset, entries, index.location)
    published = _read_published_by_group(entries, index, all_ticks, edges, parts) if parts else {}
    found: list[SelectedRows] = []
    duplicates = 0
    for begin, end in pairwise(edges):
        ticks, live = all_ticks.take(slice(begin, end)), all_live[begin:end]
        rows = select(published.get(begin, _NO_TICKS), ticks, live)
        published_ticks = np.zeros(end - begin, bool)
        published_ticks[rows.tick] = True
        duplicates += int(np.count_nonzero(live & ~published_ticks))
        found.append(rows._replace(tick=begin + rows.tick))
    rows = SelectedRows.concatenate(found)
    if len(rows.tick) != len(index) or (np.diff(rows.tick) <= 0).any():
        index = index.take(rows.tick)
    conflicts = int(np.count_nonzero(rows.flags & int(Flag.CONFLICT)))
    return SelectedTicks(index, rows.cum_volume, rows.size, rows.flags, duplicates, conflicts)


def _gather_ticks(dataset: str, entries: JournalRows, location: RowLocation) -> tuple[TickArrays, np.ndarray]:
    """The ticks, in one group, and which of them were received, bool (n,)."""
    (ticks,) = entries.gather([location], ("cum_volume", "size", "price_e4", "line"))
    live = ticks["line"] != FeedId.GAPFILL
    price = _to_ints(build_prices(parse_dataset(dataset)[0], ticks["price_e4"]))
    feed = np.where(live, ticks["line"], FeedId.KIS).astype(np.int64)  # backfilled ticks come from KIS REST
    group = np.zeros(len(ticks), np.int64)
    return TickArrays(group, ticks["cum_volume"].copy(), ticks["size"].copy(), price, feed), live


def select_rows(rows: pa.Table, parts: Sequence[Path]) -> pa.Table:
    """What publication makes of an instrument's journal rows of one date, in any order, beside `parts` of that date."""
    rows = rows.sort_by([("mono_ns", "ascending"), ("row", "ascending")]).combine_chunks()
    volume, size, price = (_to_ints(rows[name]) for name in _NUMERIC_COLUMNS)
    feed = _to_feed_codes(rows["broker"].combine_chunks())
    ticks = TickArrays(np.zeros(len(rows), np.int64), volume, size, price, feed)
    name = (rows["symbol"][0].as_py(), rows["venue"][0].as_py())
    published = read_published_overlapping(parts, {name: 0}, ticks)
    found = select(published, ticks, rows["recv_time"].is_valid().to_numpy())
    return mark_rows(rows.take(pa.array(found.tick)), found.cum_volume, found.size, found.flags)


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
    (found_first,) = entries.gather([first], ("symbol", "venue"))
    names = {name: number for number, name in enumerate(name_instruments(found_first))}
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
    """The published ticks that reach into (low, high] of their name. FileNotFoundError; PartitionWriteError: an unreadable part."""
    found = [_NO_TICKS]
    for path in parts:
        try:
            with pq.ParquetFile(path, read_dictionary=["symbol", "venue"]) as file:
                for number in range(file.num_row_groups):
                    if _may_reach_into(file.metadata.row_group(number), names, low, high):
                        found.append(_read_group_within(file, number, names, low, high))
        except FileNotFoundError:
            raise
        except (pa.ArrowInvalid, OSError) as error:
            raise PartitionWriteError(
                f"{path}: unreadable ({error}): move it away; what of it is still in the journal is published again"
            ) from error
    return TickArrays(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


def _may_reach_into(
    group: pq.RowGroupMetaData, names: dict[tuple[str, str], int], low: np.ndarray, high: np.ndarray
) -> bool:
    """Whether a row group may hold such ticks, by its statistics."""
    columns = [group.column(number) for number in range(group.num_columns)]
    found = {one.path_in_schema: one.statistics for one in columns if one.statistics and one.statistics.has_min_max}
    if not found.keys() >= {"symbol", "cum_volume", "size"}:
        return True
    symbol, volume, size = (found[name] for name in ("symbol", "cum_volume", "size"))
    numbers = [number for (name, _), number in names.items() if symbol.min <= name <= symbol.max]
    return bool(((low[numbers] < volume.max) & (high[numbers] > volume.min - size.max)).any())


def _read_group_within(
    file: pq.ParquetFile, number: int, names: dict[tuple[str, str], int], low: np.ndarray, high: np.ndarray
) -> TickArrays:
    """The ticks of a row group that reach into (low, high] of their name; columns that only they need are read for them alone."""
    table = file.read_row_group(number, ["symbol", "venue", "cum_volume", "size"], use_threads=False).combine_chunks()
    symbol, venue = (table.column(name).combine_chunks() for name in ("symbol", "venue"))
    venues = venue.dictionary.to_pylist()
    numbers = np.array(
        [names.get((word, other), -1) for word in symbol.dictionary.to_pylist() for other in venues], np.int64
    )
    group = numbers[symbol.indices.to_numpy().astype(np.int64) * len(venues) + venue.indices.to_numpy()]
    volume, size = (_to_ints(table.column(name)) for name in ("cum_volume", "size"))
    near = (group >= 0) & (volume != UNDEFINED)
    near &= (volume > low[group]) & (volume - size < high[group])
    if not near.any():
        return _NO_TICKS
    rest = file.read_row_group(number, ["price", "broker", "flags"], use_threads=False).filter(pa.array(near))
    is_piece = (pc.fill_null(rest.column("flags"), 0).to_numpy() & int(Flag.SPLIT)) != 0
    feed = np.where(is_piece, NO_FEED, _to_feed_codes(rest.column("broker").combine_chunks()))
    return TickArrays(group[near], volume[near], size[near], _to_ints(rest.column("price")), feed)


def _to_feed_codes(brokers: pa.Array) -> np.ndarray:
    """A feed's code for its name, int64 (n,)."""
    names = brokers.dictionary_encode()
    codes = np.array([FeedId[word.upper()] for word in names.dictionary.to_pylist()] + [0], np.int64)
    return codes[pc.fill_null(names.indices, len(codes) - 1).to_numpy()]


def _to_ints(column: pa.Array) -> np.ndarray:
    return pc.fill_null(column, UNDEFINED).to_numpy(zero_copy_only=False)
