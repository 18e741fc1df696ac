"""Read interface of stored rows: published partitions, and rows that only the journal has yet.

    data/kr/orderbook/date=/hour=/part-*.parquet ─┐     hour=all: a compacted day
                                                  ├─> Catalog ─> explain, recover, reprocess, tail
    data/journal/kr.orderbook/*.journal          ─┘

Guarantees:
    * Nothing is changed, and a live writer is not disturbed: a segment that disappears while it is read was published.
    * `read`, `read_between`, `read_beside_writer` and `take_snapshot` miss and double no row, also while the writer publishes
      or a day is compacted. Files that are read piece by piece are held open: they are read as they were.
    * `read` has rows of the journal as they will be published: a book with the arrivals of both feeds, each share in one tick.
    * `unpublished` yields no row that a partition already holds, and no twin of such a row.
    * A price that the exchange did not give is null, with its size, also in files of before and in the journal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from conf.clock import DAY_NS, HOUR_NS, kst_midnight_ns
from conf.home import Home
from conf.instrument import Instrument
from ringbuf.records import INSTRUMENT_BYTES, MAX_INT64, Venue
from writer.ingest.book_arbiter import encode_instrument
from writer.journal.entries import EXPANDED, JOURNAL, expand_entries, group_batches, instrument_column, read_records
from writer.journal.journal import RingPositions
from writer.journal.reader import list_segments, read_batches, read_lineage, read_rows
from writer.publish.dedup import read_published_overlapping, select_rows
from writer.publish.partition import (
    COMPACTED,
    PART_PATTERN,
    WINNER_COLUMNS,
    encode_spans,
    hour_directory,
    list_parts,
    read_listed,
    read_published_to,
    read_spans,
)
from writer.publish.verified_file import PartitionWriteError
from writer.schema import PARQUET, clear_zero_prices, may_overlap, parse_dataset

__all__ = [
    "COMPACTED",
    "PARQUET",
    "Catalog",
    "FileState",
    "HeldFile",
    "Snapshot",
    "encode_spans",
    "expand",
    "find_partitions",
    "hour_directory",
    "instrument_mask",
    "read_file_state",
    "read_instrument",
    "read_published_overlapping",
    "read_row_groups",
    "read_spans",
]

EXPANDED_ROWS = 8192
_Found = TypeVar("_Found")
FileState = tuple[str, int, int, int]
"""A published file: its name below a directory, inode, size, time of the last change in ns."""


class HeldFile:
    """A published file that is held open: it is read as it was, whatever takes its place. It is closed with its last reference."""

    def __init__(self, path: Path) -> None:
        """OSError; FileNotFoundError if another file has taken its place."""
        self.path = path
        self._file = pa.OSFile(str(path))

    def read(self, columns: Sequence[str], rows: pc.Expression | None = None) -> pa.Table:
        """`columns` of its rows, or of those that `rows` chooses. PartitionWriteError, with its name, if it cannot be read."""
        try:
            found = pq.read_table(self._file, columns=list(columns), filters=rows, partitioning=None)
        except (pa.ArrowException, OSError) as error:
            raise PartitionWriteError(f"{self.path}: cannot be read: {error}") from error
        return clear_zero_prices(found)

    def read_time_span(self, column: str) -> tuple[int, int]:
        """The first and the last time in a column, ns, by its statistics; wider where it has none. PartitionWriteError."""
        try:
            metadata = pq.read_metadata(self._file)
        except (pa.ArrowException, OSError) as error:
            raise PartitionWriteError(f"{self.path}: cannot be read: {error}") from error
        at = metadata.schema.names.index(column)
        groups = [metadata.row_group(number).column(at).statistics for number in range(metadata.num_row_groups)]
        if any(one is None or (not one.has_min_max and one.null_count != one.num_values) for one in groups):
            return 0, MAX_INT64
        found = [one for one in groups if one.has_min_max]
        return min((one.min_raw for one in found), default=MAX_INT64), max((one.max_raw for one in found), default=0)


class Snapshot(NamedTuple):
    """The rows of a dataset up to one frame of its journal: published files, and rows that only the journal has.

    `positions`: where the rings go on behind that frame.
    """

    files: list[HeldFile]
    unpublished: pa.Table
    positions: RingPositions


class Catalog:
    """What is stored in a home. Datasets are named as in "kr.tick"; instants are ns since 1970 UTC."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def directory(self, dataset: str) -> Path:
        """The directory of a dataset's partitions."""
        market, stream = parse_dataset(dataset)
        return self._home.data / market.name / stream

    def partitions(self, dataset: str, day: date) -> list[Path]:
        """The published files of a day, by hour and number."""
        return find_partitions(self.directory(dataset), day)

    def partitions_between(self, dataset: str, begin_ns: int, end_ns: int) -> list[Path]:
        """The published files of every hour that overlaps [begin_ns, end_ns), by hour and name."""
        market, _ = parse_dataset(dataset)
        hours = range(begin_ns // HOUR_NS * HOUR_NS, end_ns, HOUR_NS)
        return list_parts(hour_directory(self.directory(dataset), hour, market) for hour in hours)

    def read_beside_writer(
        self, dataset: str, begin_ns: int, end_ns: int, read: Callable[[list[Path]], _Found]
    ) -> _Found:
        """What `read` finds in `partitions_between` and in the journal: together each row once.

        The writer may publish, or a day be compacted, meanwhile: `read` is then called again.
        """
        return read_listed(lambda: self.partitions_between(dataset, begin_ns, end_ns), read)

    def hold_beside_writer(
        self, dataset: str, begin_ns: int, end_ns: int, look: Callable[[], _Found]
    ) -> tuple[list[HeldFile], _Found]:
        """`partitions_between`, held open, and what `look` finds in the journal: together each row once."""
        return self.read_beside_writer(
            dataset, begin_ns, end_ns, lambda paths: ([HeldFile(path) for path in paths], look())
        )

    def read(
        self, dataset: str, instrument: Instrument, begin_ns: int, end_ns: int, columns: Sequence[str]
    ) -> pa.Table:
        """Rows of an instrument: published ones of every hour that overlaps [begin_ns, end_ns), and all unpublished ones."""

        def find(paths: list[Path]) -> list[pa.Table]:
            tables = [table for path in paths for table in read_instrument(path, instrument, columns)]
            return [*tables, self.read_unpublished(dataset, [instrument]).select(columns)]

        tables = self.read_beside_writer(dataset, begin_ns, end_ns, find)
        schema = pa.schema([PARQUET[dataset].field(name) for name in columns])
        return pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in tables)])

    def read_unpublished(self, dataset: str, instruments: Collection[Instrument]) -> pa.Table:
        """Unpublished rows of some instruments of a market, as they will be published. FileNotFoundError: of `read_listed`."""
        found = pa.Table.from_batches(self.unpublished(dataset, instruments), EXPANDED[dataset])
        is_twin = pc.is_valid(found["twin_of"])
        found = _join_twins(found.filter(pc.invert(is_twin)), found.filter(is_twin))
        if not may_overlap(dataset):
            return found
        market, _ = parse_dataset(dataset)
        days = np.array([market.to_local(hour).toordinal() for hour in found["hour"].to_pylist()])
        keys = np.array(_name_instruments(found).to_pylist())
        groups = sorted(set(zip(days.tolist(), keys.tolist(), strict=True)))
        return pa.concat_tables(
            [
                found.slice(0, 0),
                *(
                    select_rows(
                        found.filter(pa.array((days == day) & (keys == name))),
                        self.partitions(dataset, date.fromordinal(day)),
                    )
                    for day, name in groups
                ),
            ]
        )

    def read_between(self, dataset: str, begin_ns: int, end_ns: int, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Rows of every instrument, as `read` has them, a file or a batch at a time."""
        files, unpublished = self.hold_beside_writer(
            dataset,
            begin_ns,
            end_ns,
            lambda: [pa.Table.from_batches([batch]).select(columns) for batch in self.unpublished(dataset)],
        )
        for file in files:
            yield file.read(columns)
        yield from unpublished

    def take_snapshot(self, dataset: str, begin_ns: int, end_ns: int, keep: Callable[[pa.Table], pa.Table]) -> Snapshot:
        """What is stored up to the newest complete frame of the journal: what is not, is in the rings behind its positions.

        `keep` chooses among the unpublished rows, a frame at a time; files are those of `partitions_between`, held open.
        """
        positions: RingPositions = {}

        def look() -> pa.Table:
            positions.clear()
            found = [PARQUET[dataset].empty_table()]
            rows = (
                entries.filter(pa.array(is_unpublished & entries.column("twin_of").is_null().to_numpy(False)))
                for entries, _, is_unpublished in self._find_unpublished(dataset, positions=positions)
            )
            for batch in expand(dataset, rows):
                found.append(keep(pa.Table.from_batches([batch]).select(PARQUET[dataset].names)))
            return pa.concat_tables(found)

        # hours before the first day have no directory, and one that is published meanwhile is of these days
        days = [date.fromisoformat(path.name[5:]) for path in self.directory(dataset).glob("date=*")]
        first_ns = min([end_ns - 4 * DAY_NS, *(kst_midnight_ns(day) - DAY_NS for day in days)])
        files, unpublished = self.hold_beside_writer(dataset, max(begin_ns, first_ns), end_ns, look)
        return Snapshot(files, unpublished, positions)

    def journal(self, dataset: str, ends: dict[Path, int] | None = None) -> Iterator[pa.RecordBatch]:
        """Every whole batch of journal entries (JOURNAL), oldest first, published or not.

        `ends`: an empty dict at first; with it a later call gives what is new.
        """
        yield from read_rows(self._home.journal_directory(dataset), JOURNAL[dataset], ends)

    def unpublished(self, dataset: str, instruments: Collection[Instrument] | None = None) -> Iterator[pa.RecordBatch]:
        """Entries (EXPANDED) that are in no partition yet, oldest first, of all or of some instruments.

        PartitionWriteError if a partition is unreadable.
        """
        found = (entries.filter(pa.array(mask)) for entries, _, mask in self._find_unpublished(dataset))
        yield from expand(dataset, found if instruments is None else _select_instruments(found, instruments))

    def journal_only(self, dataset: str, begin_ns: int, end_ns: int) -> list[int]:
        """Hours that begin in [begin_ns, end_ns) and have unpublished entries, ascending."""
        found: set[int] = set()
        for _, hours, is_unpublished in self._find_unpublished(dataset, begin_ns, end_ns):
            found.update(np.unique(hours[is_unpublished]).tolist())
        return sorted(found)

    def _find_unpublished(
        self, dataset: str, begin_ns: int = 0, end_ns: int = MAX_INT64, positions: RingPositions | None = None
    ) -> Iterator[tuple[pa.RecordBatch, np.ndarray, np.ndarray]]:
        """Batches with unpublished entries of hours that begin in [begin_ns, end_ns); partitions of no other hour are read.

        Yields the entries, the hour of each, and which are unpublished. `positions` become those of the newest frame that was read.
        """
        market, _ = parse_dataset(dataset)
        published_to: dict[tuple[str, int], int] = {}
        for path in list_segments(self._home.journal_directory(dataset)):
            lineage = read_lineage(path) or ""
            for entries, metadata, *_ in read_batches(path, JOURNAL[dataset]):
                if positions is not None and "positions" in metadata:
                    positions.clear()
                    positions.update(metadata["positions"])
                hours = entries.column("hour").to_numpy()
                row = pc.coalesce(entries.column("twin_of"), entries.column("row")).to_numpy()
                is_unpublished = np.zeros(len(hours), bool)
                for hour in np.unique(hours[(hours >= begin_ns) & (hours < end_ns)]).tolist():
                    if (lineage, hour) not in published_to:
                        newest = read_published_to(self.directory(dataset), hour, lineage, market)
                        published_to[lineage, hour] = newest
                    is_unpublished |= (hours == hour) & (row > published_to[lineage, hour])
                if is_unpublished.any():
                    yield entries, hours, is_unpublished


def _join_twins(rows: pa.Table, twins: pa.Table) -> pa.Table:
    """Rows of the journal with the arrivals of their twins; the first of two arrivals is the winner."""
    if not len(twins):
        return rows
    at = pc.index_in(rows["row"], twins["twin_of"].combine_chunks())
    first = pc.fill_null(pc.less(twins["mono_ns"].take(at), rows["mono_ns"]), False)
    columns = {name: twins[name].take(at) for name in rows.column_names}
    for name in rows.column_names:
        if name.startswith("recv_time_"):
            joined = pc.coalesce(rows[name], columns[name])
        elif name in WINNER_COLUMNS:
            joined = pc.if_else(first, columns[name], rows[name])
        elif name == "flags":
            joined = pc.bit_wise_or(rows[name], pc.fill_null(columns[name], 0))
        else:
            continue
        rows = rows.set_column(rows.column_names.index(name), rows.schema.field(name), joined)
    return rows


def expand(dataset: str, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Entries of a journal (JOURNAL) with the columns of the rows as they will be published (EXPANDED), in larger batches."""
    for group in group_batches((batch for batch in batches if batch.num_rows), EXPANDED_ROWS):
        yield clear_zero_prices(expand_entries(dataset, pa.concat_batches(group)))


def _select_instruments(
    batches: Iterable[pa.RecordBatch], instruments: Collection[Instrument]
) -> Iterator[pa.RecordBatch]:
    """The rows of some instruments, and their twins, which come after them."""
    wanted = pa.array(
        [encode_instrument(one.symbol, Venue[one.venue]) for one in instruments], pa.binary(INSTRUMENT_BYTES)
    )
    known = pa.array([], pa.int64())
    for batch in batches:
        is_mine = pc.is_in(instrument_column(read_records(batch)), wanted)
        known = pa.concat_arrays([known, batch.column("row").filter(is_mine)])
        yield batch.filter(pc.or_(is_mine, pc.is_in(batch.column("twin_of"), known)))


def _name_instruments(rows: pa.Table) -> pa.ChunkedArray:
    """Symbol and venue of each row as one text."""
    return pc.binary_join_element_wise(rows["symbol"].cast(pa.string()), rows["venue"].cast(pa.string()), " ")


def read_file_state(path: Path, directory: Path) -> FileState:
    """The state of a file below `directory`; another if a process changed or replaced it."""
    found = path.stat()
    return str(path.relative_to(directory)), found.st_ino, found.st_size, found.st_mtime_ns


def find_partitions(directory: Path, day: date) -> list[Path]:
    """The published files of a day below a dataset's directory, by hour and number."""
    found = (directory / f"date={day:%Y-%m-%d}").glob(f"hour=*/{PART_PATTERN}")
    return sorted(found, key=lambda path: (path.parent.name, len(path.name), path.name))


def read_row_groups(
    path: Path, symbol: str | None, columns: Sequence[str] | None = None, dictionary: Sequence[str] = ()
) -> Iterator[tuple[int, pa.Table]]:
    """The row groups of a partition that may hold a symbol (None: any), each with the number of its first row in the file.

    PartitionWriteError, with its name, if it cannot be read, or a page is not what was written.

    Args:
        path: a published file.
        symbol: judged by the row group's statistics; a group without statistics may hold it.
        columns: to be read, None for all.
        dictionary: columns of strings to be read as dictionaries.
    """
    try:
        with pq.ParquetFile(path, read_dictionary=list(dictionary), page_checksum_verification=True) as file:
            first_row, column = 0, file.schema_arrow.get_field_index("symbol")
            for number in range(file.num_row_groups):
                group = file.metadata.row_group(number)
                statistics = group.column(column).statistics
                is_unknown = symbol is None or statistics is None or not statistics.has_min_max
                if is_unknown or statistics.min <= symbol <= statistics.max:
                    yield first_row, clear_zero_prices(file.read_row_group(number, columns))
                first_row += group.num_rows
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise PartitionWriteError(f"{path}: cannot be read: {error}") from error


def read_instrument(
    path: Path, instrument: Instrument, columns: Sequence[str], dictionary: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """`columns` of one instrument's rows in a partition, a row group at a time, none of them empty."""
    read = list(dict.fromkeys(("symbol", "venue", *columns)))
    for _, table in read_row_groups(path, instrument.symbol, read, [name for name in dictionary if name in read]):
        found = table.filter(instrument_mask(table, instrument)).select(columns)
        if len(found):
            yield found


def instrument_mask(table: pa.Table, instrument: Instrument) -> pa.Array:
    """Which rows are an instrument's, bool (n,)."""
    same = pc.and_(pc.equal(table["symbol"], instrument.symbol), pc.equal(table["venue"], instrument.venue))
    return pc.fill_null(same, False).combine_chunks()
