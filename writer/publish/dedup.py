"""Which of an hour's ticks are published: one row for every share, whoever delivered it and however often.

    rows of the hour     ──> received: once (overlap.py) ──> fetched: where nothing was received (filled.py) ──> rows of the part
    parts that are there ──┘

Promises: the same rows give the same part; what is published stays as it is, later parts are told apart from it as well; of parts
that are there only what overlaps with the new rows is held in memory, of the new ones one symbol's ticks at a time.
Leaves to others: the rules (overlap.py, filled.py), writing the part (parquet.py).
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

from ringbuf.records import UNDEFINED, Flag, Line
from writer.ingest.backfill_filter import standing
from writer.journal.row_index import Entries, Index, Place
from writer.publish.overlap import Received, once, once_beside

_NUMBERS = ("cum_volume", "size", "price")
ENDLESS = 2**63 - 1


class Standing(NamedTuple):
    """The rows that stay, in the order of publication; `flags` int64 (n,): bits to be added to each one's; how many received ticks
    went because others cover them, and how many stay that contradict others."""

    index: Index
    flags: np.ndarray
    doubled: int
    contradicting: int


def standing_ticks(entries: Entries, index: Index, parts: Sequence[Path]) -> Standing:
    """Of the rows of an hour, by symbol, venue and arrival, those that are published beside its `parts`."""
    edges = [0, *(np.flatnonzero(np.diff(index.group)) + 1).tolist(), len(index)]
    there = _beside(entries, index, edges, parts) if parts else {}
    rows, odds, doubled = [np.empty(0, np.int64)], [np.empty(0, bool)], 0
    for begin, end in pairwise(edges):
        place = index.place[begin:end]
        ticks, live = (
            _ticks(entries, place),
            entries.gather("recv_time", place).is_valid().to_numpy(zero_copy_only=False),
        )
        received = ticks.take(live)
        stays, odd = np.ones(end - begin, bool), np.zeros(end - begin, bool)
        stays[live], odd[live] = once_beside(there[begin], received) if begin in there else once(received)
        doubled += int(np.count_nonzero(~stays))
        chosen = np.flatnonzero(stays)
        if not live[chosen].all():
            chosen = chosen[standing(ticks.group[chosen], live[chosen], ticks.cum_volume[chosen], ticks.size[chosen])]
        rows.append(begin + chosen)
        odds.append(odd[chosen])
    chosen, odd = np.concatenate(rows), np.concatenate(odds)
    if len(chosen) < len(index) or (np.diff(chosen) < 0).any():
        index = index.take(chosen)
    return Standing(index, np.where(odd, int(Flag.CONTRADICTS), 0), doubled, int(odd.sum()))


def _ticks(entries: Entries, place: Place) -> Received:
    """Rows of one symbol and venue, as far as they are laid."""
    numbers = [_numbers(entries.gather(name, place)) for name in _NUMBERS]
    return Received(np.zeros(len(numbers[0]), np.int64), *numbers, _lines(entries.gather("broker", place)))


def published(parts: Sequence[Path], names: dict[tuple[str, str], int], ticks: Received) -> Received:
    """The published ticks that lie where `ticks` do; `names`: whose each of their groups is."""
    low, high = _nowhere(len(names))
    laid = ticks.take(ticks.cum_volume != UNDEFINED)
    np.minimum.at(low, laid.group, laid.cum_volume - laid.size)
    np.maximum.at(high, laid.group, laid.cum_volume)
    return _within(parts, names, low, high)


def _beside(entries: Entries, index: Index, edges: Sequence[int], parts: Sequence[Path]) -> dict[int, Received]:
    """The same for an index, by where each symbol and venue begins in it."""
    first = index.place[np.array(edges[:-1])]
    words = (entries.gather(name, first).to_pylist() for name in ("symbol", "venue"))
    names = {name: number for number, name in enumerate(zip(*words, strict=True))}
    low, high = _nowhere(len(names))
    for number, (begin, end) in enumerate(pairwise(edges)):
        new = _ticks(entries, index.place[begin:end])
        new = new.take(new.cum_volume != UNDEFINED)
        if len(new.group):
            low[number], high[number] = (new.cum_volume - new.size).min(), new.cum_volume.max()
    found = _within(parts, names, low, high)
    by_name = {}
    for number in np.unique(found.group).tolist():
        mine = found.take(found.group == number)
        by_name[edges[number]] = mine._replace(group=np.zeros_like(mine.group))
    return by_name


def _nowhere(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.full(count, ENDLESS), np.full(count, UNDEFINED)


def _within(parts: Sequence[Path], names: dict[tuple[str, str], int], low: np.ndarray, high: np.ndarray) -> Received:
    """The published ticks that reach into (low, high] of their name."""
    found = [Received(*(np.empty(0, np.int64) for _ in Received._fields))]
    for path in parts:
        with pq.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                table = file.read_row_group(number, ["symbol", "venue", *_NUMBERS, "broker"], use_threads=False)
                table = table.combine_chunks()
                pairs = zip(table.column("symbol").to_pylist(), table.column("venue").to_pylist(), strict=True)
                group = np.array([names.get(pair, -1) for pair in pairs], np.int64)
                numbers = [_numbers(table.column(name)) for name in _NUMBERS]
                rows = Received(group, *numbers, _lines(table.column("broker").combine_chunks()))
                near = (group >= 0) & (rows.cum_volume != UNDEFINED)
                near &= (rows.cum_volume > low[group]) & (rows.cum_volume - rows.size < high[group])
                found.append(rows.take(near))
    return Received(*(np.concatenate(columns) for columns in zip(*found, strict=True)))


def _lines(brokers: pa.Array) -> np.ndarray:
    """A line's code for its name, int64 (n,)."""
    words = brokers.dictionary_encode()
    codes = np.array([Line[word.upper()] for word in words.dictionary.to_pylist()] + [0], np.int64)
    return codes[pc.fill_null(words.indices, len(codes) - 1).to_numpy()]


def _numbers(column: pa.Array) -> np.ndarray:
    return pc.fill_null(column, UNDEFINED).to_numpy(zero_copy_only=False)
