"""An hour of the journal becomes a Parquet file.

    journal ─index, gather─> .part-0.parquet.tmp ─fsync, read back─> rename ─> part-0.parquet ─> (the journal may go)

    data/kr/orderbook/date=2026-11-20/hour=09/part-0.parquet      each part's metadata: lineage, row_from, row_to

Where clocks are set back an hour comes twice: both have one directory, and a part of the second says so (`fold`).

A part holds the rows row_from < row <= row_to of its hour. How far an hour is published is read from its parts, not remembered
elsewhere: publishing again finds nothing to do, and a crash before the journal went doubles nothing.

Promises: a part appears whole or not at all, and has been read back equal to what was written; parts of one lineage never overlap;
memory is bounded by PART_MOST_ROWS' index and one row group.
Leaves to others: which ticks stand (standing.py), when an hour is due (hours.py), deleting the journal (journal.py), the thread
this runs in (publisher.py).
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conf.market import KR, Market
from writer import durable_io
from writer.ingest.book_arbiter import RULE
from writer.journal.row_index import Entries, Place
from writer.publish.dedup import Standing, standing_ticks
from writer.schema import JOURNAL, PARQUET, VERSION, is_by_symbol, market_and_stream

PART_MOST_ROWS = 1_000_000
"""Rows of one part at most: what bounds the index. A larger hour becomes several parts, each sorted."""

_PART = re.compile(r"part-(\d+)\.parquet")
_WINNERS = ("broker", "recv_time", "seq")
_LINES = ("recv_time_kis", "recv_time_kiwoom")


class PublicationError(Exception):
    """An hour that could not be published; the journal still has it. The message says which, why, and what to do."""


class Cancelled(Exception):
    """The process has to end before the file was whole; nothing of it remains visible."""


class Task(NamedTuple):
    """What to publish: `hour` (start, ns since 1970 UTC) up to entry `row_to`, from `segments` of the journal of `lineage`."""

    dataset: str
    directory: Path
    lineage: str
    hour: int
    row_to: int
    segments: tuple[Path, ...]
    row_group_rows: int
    window_s: float

    @property
    def market(self) -> Market:
        """Whose hour it is."""
        return market_and_stream(self.dataset)[0]

    @property
    def overlaps(self) -> bool:
        """Whether several lines may have brought the same ticks, or somebody fetched them."""
        market, stream = market_and_stream(self.dataset)
        return stream == "tick" and (len(market.lines) > 1 or bool(market.fetched))


class Part(NamedTuple):
    """A part that was put in place."""

    path: Path
    rows: int
    bytes: int
    doubled: int = 0
    """Ticks that are not in it because others cover their shares."""
    contradicting: int = 0
    """Ticks that are in it though others cover their shares otherwise."""


def hour_directory(directory: Path, hour: int, market: Market = KR) -> Path:
    """Where an hour's parts lie below the dataset's directory: the exchange's own date and hour."""
    local = market.local(hour)
    return directory / f"date={local:%Y-%m-%d}" / f"hour={local:%H}"


def published_to(directory: Path, hour: int, lineage: str, market: Market = KR) -> int:
    """The newest row of this journal that the hour's parts hold; 0 for none."""
    fold = str(market.local(hour).fold)
    parts = _parts(hour_directory(directory, hour, market))
    return max((part.row_to for part in parts if (part.lineage, part.fold) == (lineage, fold)), default=0)


def publish(task: Task, cancelled: Callable[[], bool] = lambda: False) -> list[Part]:
    """Publish what of the hour is not yet published; the parts made, none if nothing was left.

    PublicationError: the file read back was not what was written, or an existing part is unreadable. OSError: no space and the
    like. Cancelled: `cancelled` said so between two row groups. In every case nothing half-done is visible.
    """
    home = hour_directory(task.directory, task.hour, task.market)
    home.mkdir(parents=True, exist_ok=True)
    for leftover in home.glob(".part-*.tmp"):
        durable_io.remove(leftover)
    done = []
    while True:
        row_from = published_to(task.directory, task.hour, task.lineage, task.market)
        entries = Entries(task.segments, JOURNAL[task.dataset], is_by_symbol(task.dataset))
        index = entries.index(task.hour, row_from, task.row_to, PART_MOST_ROWS)
        if not len(index):
            return done
        row_to = int(index.row.max()) if index.more else task.row_to
        stand = Standing(index, np.zeros(len(index), np.int64), 0, 0)
        if task.overlaps:
            stand = standing_ticks(entries, index, [home / f"part-{part.number}.parquet" for part in _parts(home)])
        done.append(_publish_part(task, home, entries, stand, (row_from, row_to), cancelled))


def _publish_part(
    task: Task, home: Path, entries: Entries, stand: Standing, span: tuple[int, int], cancelled: Callable[[], bool]
) -> Part:
    number = 1 + max((part.number for part in _parts(home)), default=-1)
    path = home / f"part-{number}.parquet"
    aside = home / f".part-{number}.parquet.tmp"
    again = {"fold": "1"} if task.market.local(task.hour).fold else {}
    schema = PARQUET[task.dataset].with_metadata(
        {
            "schema_version": str(VERSION),
            "writer_version": _version(),
            "arbitration_rule": RULE if len(task.market.lines) > 1 else "one-line/1",
            "twin_window_s": str(task.window_s),
            "lineage": task.lineage,
            "row_from": str(span[0]),
            "row_to": str(span[1]),
            **(
                {"ticks_doubled": str(stand.doubled), "ticks_contradicting": str(stand.contradicting)}
                if task.overlaps
                else {}
            ),
            **again,
        }
    )
    try:
        written = write(aside, schema, _row_groups(task, entries, stand), cancelled)
        _verify(aside, len(stand.index), written)
        size = aside.stat().st_size
        durable_io.rename(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return Part(path, len(stand.index), size, stand.doubled, stand.contradicting)


def _row_groups(task: Task, entries: Entries, stand: Standing) -> Iterator[pa.Table]:
    """The hour's rows in order, one table per row group."""
    index, schema = stand.index, PARQUET[task.dataset]
    for begin in range(0, len(index), task.row_group_rows):
        chosen = slice(begin, begin + task.row_group_rows)
        own, twin = index.place[chosen], index.twin[chosen]
        winner = twin.over(own, index.twin_won[chosen])
        columns = {name: _column(entries, name, own, twin, winner) for name in schema.names}
        if (found := stand.flags[chosen]).any():
            columns["flags"] = pc.bit_wise_or(columns["flags"], pa.array(found))
        yield pa.table(list(columns.values()), schema)


def _column(entries: Entries, name: str, own: Place, twin: Place, winner: Place) -> pa.Array:
    if name in _LINES:
        return pc.coalesce(entries.gather(name, own), entries.gather(name, twin))
    return entries.gather(name, winner if name in _WINNERS else own)


def write(aside: Path, schema: pa.Schema, tables: Iterable[pa.Table], cancelled: Callable[[], bool]) -> list[int]:
    """Write row groups and make the file durable; a checksum per row group."""
    checksums = []
    fd = durable_io.write_aside(aside)
    with os.fdopen(fd, "wb") as file:
        with pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
            for table in tables:
                if cancelled():
                    raise Cancelled(str(aside))
                writer.write_table(table, row_group_size=max(1, table.num_rows))
                checksums.append(_checksum(table))
        file.flush()
        durable_io.sync(file.fileno())
    return checksums


def _verify(aside: Path, rows: int, checksums: list[int]) -> None:
    """Read the file back, row group by row group; PublicationError unless every value is what was written."""
    with pq.ParquetFile(aside, page_checksum_verification=True) as file:
        found = [_checksum(file.read_row_group(group, use_threads=False)) for group in range(file.num_row_groups)]
        if file.metadata.num_rows != rows or found != checksums:
            raise PublicationError(
                f"{aside}: read back {file.metadata.num_rows} rows, {rows} were written, contents differ: the journal is kept and "
                "this is tried again; check the disk if it happens twice"
            )


def _checksum(table: pa.Table) -> int:
    """A checksum of every value and null of a table, whatever its memory layout."""
    crc = 0
    for column in table.columns:
        column = column.combine_chunks()
        crc = zlib.crc32(np.packbits(column.is_null().to_numpy(zero_copy_only=False)), crc)
        if column.type == pa.string():
            lengths = pc.fill_null(pc.binary_length(column), 0).to_numpy()
            text = b"".join(pc.fill_null(column, "").cast(pa.binary()).to_pylist())
            crc = zlib.crc32(text, zlib.crc32(np.ascontiguousarray(lengths), crc))
            continue
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        elif pa.types.is_date32(column.type):
            column = column.cast(pa.int32())
        crc = zlib.crc32(np.ascontiguousarray(pc.fill_null(column, 0).to_numpy()), crc)
    return crc


class _Lying(NamedTuple):
    """A part as it lies there; one that no writer made has an empty lineage."""

    number: int
    lineage: str
    row_to: int
    fold: str


def _parts(home: Path) -> list[_Lying]:
    """The parts in an hour's directory."""
    found = []
    for path in sorted(home.glob("part-*.parquet")):
        match = _PART.fullmatch(path.name)
        if match is None:
            continue
        try:
            metadata = pq.read_metadata(path).metadata or {}
        except (pa.ArrowInvalid, OSError) as error:
            raise PublicationError(
                f"{path}: unreadable ({error}): move it away; what of it is still in the journal is published again"
            ) from error
        lineage, fold = (metadata.get(key, none).decode() for key, none in ((b"lineage", b""), (b"fold", b"0")))
        found.append(_Lying(int(match[1]), lineage, int(metadata.get(b"row_to", b"0")), fold))
    return found


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("collectorctl")
    except PackageNotFoundError:
        return "not installed"
