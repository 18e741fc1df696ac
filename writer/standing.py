"""Which of an hour's ticks are published: one row for every share, whoever delivered it and however often.

    rows of the hour     ──> received: once (overlap.py) ──> fetched: where nothing was received (filled.py) ──> rows of the part
    parts that are there ──┘

Promises: the same rows give the same part; what is published stays as it is, later parts are told apart from it as well; of parts
that are there only what overlaps with the new rows is held in memory.
Leaves to others: the rules (overlap.py, filled.py), writing the part (parquet.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ringbuf.records import UNDEFINED, Flag, Line
from writer.filled import standing
from writer.gather import Entries, Index
from writer.overlap import Received, once, once_beside

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
    group, names = _groups(entries, index)
    live = entries.gather("recv_time", index.place).is_valid().to_numpy(zero_copy_only=False)
    ticks = Received(
        group,
        *(_numbers(entries.gather(name, index.place)) for name in _NUMBERS),
        _lines(entries.gather("broker", index.place)),
    )
    received = ticks.take(live)
    stays, odd = np.ones(len(group), bool), np.zeros(len(group), bool)
    stays[live], odd[live] = once_beside(published(parts, names, received), received) if parts else once(received)
    chosen = np.flatnonzero(stays)
    if not live[chosen].all():
        chosen = chosen[standing(group[chosen], live[chosen], ticks.cum_volume[chosen], ticks.size[chosen])]
    kept = Index(index.row[chosen], index.place[chosen], index.twin[chosen], index.twin_won[chosen], index.more)
    flags = np.where(odd[chosen], int(Flag.CONTRADICTS), 0)
    return Standing(kept, flags, int(np.count_nonzero(~stays)), int(odd.sum()))


def _groups(entries: Entries, index: Index) -> tuple[np.ndarray, dict[tuple[str, str], int]]:
    """A number for each row's symbol and venue, ascending, int64 (n,); and whose it is."""
    symbol, venue = (entries.gather(name, index.place).dictionary_encode() for name in ("symbol", "venue"))
    codes = [column.indices.to_numpy() for column in (symbol, venue)]
    new = np.any([code[1:] != code[:-1] for code in codes], axis=0)
    group = np.zeros(len(index), np.int64)
    np.cumsum(new, out=group[1:])
    first = np.concatenate([[0], np.flatnonzero(new) + 1])
    words = [
        column.dictionary.take(pa.array(code[first])).to_pylist()
        for column, code in zip((symbol, venue), codes, strict=True)
    ]
    return group, {name: number for number, name in enumerate(zip(*words, strict=True))}


def published(parts: Sequence[Path], names: dict[tuple[str, str], int], ticks: Received) -> Received:
    """The published ticks that lie where `ticks` do."""
    low, high = np.full(len(names), ENDLESS), np.full(len(names), UNDEFINED)
    laid = ticks.take(ticks.cum_volume != UNDEFINED)
    np.minimum.at(low, laid.group, laid.cum_volume - laid.size)
    np.maximum.at(high, laid.group, laid.cum_volume)
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
