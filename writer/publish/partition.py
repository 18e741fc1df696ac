"""Partition writer: one hour of the journal into a Parquet file.

    journal ─index, gather─> .part-0.parquet.PID.tmp ─fsync, read back─> link ─> part-0.parquet ─> (the journal may be pruned)

    data/kr/orderbook/date=2026-11-20/hour=09/part-0.parquet      each part's metadata: lineage, row_from, row_to

Where clocks are set back an hour occurs twice: both have one directory, and parts of the second carry `fold`.

A part holds the rows row_from < row <= row_to of its hour. How far an hour is published is read from its parts alone:
publishing again does nothing, and a crash before the journal was pruned doubles nothing.

Guarantees:
    * A part appears complete or not at all, and has been read back equal to what was written.
    * Parts of one lineage never overlap.
    * Memory is bounded by the index of MAX_PART_ROWS rows and one row group.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from conf.clock import HOUR_NS
from conf.market import KR, Market
from ringbuf.records import Flag
from writer import durable_io
from writer.ingest.book_arbiter import RULE
from writer.journal.entries import JOURNAL
from writer.journal.row_index import JournalRows, RowIndex
from writer.journal.segment import Damage
from writer.publish.dedup import SelectedTicks, select_ticks
from writer.publish.overlap import mark_rows
from writer.publish.verified_file import PartitionWriteError, remove_leftovers, write_verified
from writer.schema import (
    FILE_VERSION,
    PARQUET,
    build_columns,
    clear_zero_prices,
    is_merged,
    is_sorted_by_symbol,
    may_overlap,
    parse_dataset,
)

MAX_PART_ROWS = 1_000_000
"""Rows of one part at most: what bounds the index. A larger hour becomes several parts, each sorted."""

_Found = TypeVar("_Found")
_PART = re.compile(r"part-(\d+)\.parquet")
PART_PATTERN = "part-*.parquet"
COMPACTED = "hour=all"
"""The directory of a compacted day's file, beside those of hours: no reader takes it for one of them."""

WINNER_COLUMNS = ("broker", "recv_time", "seq")
"""Columns of a book that are those of its first arrival."""

_WINNER_FIELDS = ("line", "recv_ns", "seq")
"""The fields of a record that they are made of."""


class PublishTask(NamedTuple):
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
        return parse_dataset(self.dataset)[0]

    @property
    def date(self) -> str:
        """The exchange's own date of the hour, "2026-11-20"."""
        return f"{self.market.to_local(self.hour):%Y-%m-%d}"


class Part(NamedTuple):
    """A part that was put in place."""

    path: Path
    rows: int
    bytes: int
    duplicates: int = 0
    """Ticks that are not in it because others cover their shares."""
    conflicts: int = 0
    """Ticks that are in it though others cover their shares otherwise."""


def hour_directory(directory: Path, hour: int, market: Market = KR) -> Path:
    """Where an hour's parts lie below the dataset's directory: the exchange's own date and hour."""
    local = market.to_local(hour)
    return directory / f"date={local:%Y-%m-%d}" / f"hour={local:%H}"


def list_parts(hour_dirs: Iterable[Path]) -> list[Path]:
    """The parts of some hours, by hour and name, and those of their dates that are compacted."""
    directories = dict.fromkeys(each for one in hour_dirs for each in (one, one.with_name(COMPACTED)))
    return [path for directory in directories for path in sorted(directory.glob(PART_PATTERN))]


def read_listed(list_paths: Callable[[], list[Path]], read: Callable[[list[Path]], _Found]) -> _Found:
    """What `read` makes of the files of one list; it is called again where others have taken their place meanwhile.

    A part appears when an hour is published, and a compaction exchanges all files of a day: both change the list.
    FileNotFoundError: a listed file cannot be opened, though nothing has changed.
    """
    paths = list_paths()
    while True:
        before = paths
        try:
            found = read(before)
        except FileNotFoundError:
            if (paths := list_paths()) == before:
                raise
            continue
        if (paths := list_paths()) == before:
            return found


def read_published_to(directory: Path, hour: int, lineage: str, market: Market = KR) -> int:
    """The newest row of this journal that the hour's parts hold; 0 for none."""
    local = market.to_local(hour)
    wanted = f"{local:%H}", lineage, str(local.fold)
    spans = read_listed(
        lambda: list_parts([hour_directory(directory, hour, market)]),
        lambda paths: [span for path in paths for span in read_spans(path)],
    )
    return max((span.row_to for span in spans if (span.hour, span.lineage, span.fold) == wanted), default=0)


def confirm_published_to(directory: Path, hour: int, lineage: str, market: Market = KR) -> int:
    """As `read_published_to`, when the parts' names are durable, so that the journal of their rows may be deleted. OSError.

    Whoever gave a part its name may have been killed, or failed, before it synced the directory.
    """
    hour_dir = hour_directory(directory, hour, market)
    if hour_dir.is_dir():
        _make_names_durable(hour_dir)
    return read_published_to(directory, hour, lineage, market)


def _make_names_durable(hour_dir: Path) -> None:
    durable_io.create_directory(hour_dir)
    durable_io.sync_directory(hour_dir)


def publish(
    task: PublishTask,
    cancelled: Callable[[], bool] = lambda: False,
    on_damage: Callable[[Damage], None] = lambda _: None,
) -> list[Part]:
    """Publish what of the hour is not yet published; the new parts, none if nothing was left. The caller holds the date's lock.

    `on_damage` gets what of the journal is unreadable; the rest is published.

    PartitionWriteError: the file read back was not what was written, or an existing part is unreadable. OSError: no space and the
    like. Cancelled: `cancelled` returned true between two row groups. In every case no partial file is visible.
    """
    hour_dir = hour_directory(task.directory, task.hour, task.market)
    _make_names_durable(hour_dir)  # also of parts that a failed attempt left: they count as published
    remove_leftovers(hour_dir)
    done: list[Part] = []
    while (part := _publish_next(task, hour_dir, cancelled, on_damage)) is not None:
        done.append(part)
    return done


def _publish_next(
    task: PublishTask, hour_dir: Path, cancelled: Callable[[], bool], on_damage: Callable[[Damage], None]
) -> Part | None:
    """Publish the next MAX_PART_ROWS rows; None if none is left. Nothing of their index outlives it."""
    row_from = read_published_to(task.directory, task.hour, task.lineage, task.market)
    entries = JournalRows(task.segments, JOURNAL[task.dataset], is_sorted_by_symbol(task.dataset))
    index = entries.build_index(task.hour, row_from, task.row_to, MAX_PART_ROWS)
    for damage in entries.damages:
        on_damage(damage)
    if not len(index):
        return None
    row_to = int(index.row.max()) if index.has_more else task.row_to
    selection = (
        select_ticks(task.dataset, entries, index, _find_near(task, hour_dir)) if may_overlap(task.dataset) else None
    )
    return _publish_part(task, hour_dir, entries, index, selection, (row_from, row_to), cancelled)


def _find_near(task: PublishTask, hour_dir: Path) -> list[Path]:
    """The parts, whoever made them, of the hour and of the hours beside it on its date: volumes begin anew with a date."""
    hours = [task.hour + offset for offset in (-HOUR_NS, 0, HOUR_NS)]
    directories = [hour_directory(task.directory, hour, task.market) for hour in hours]
    return list_parts(directory for directory in directories if directory.parent == hour_dir.parent)


def _publish_part(
    task: PublishTask,
    hour_dir: Path,
    entries: JournalRows,
    index: RowIndex,
    selection: SelectedTicks | None,
    span: tuple[int, int],
    cancelled: Callable[[], bool],
) -> Part:
    numbers = [int(match[1]) for one in hour_dir.glob(PART_PATTERN) if (match := _PART.fullmatch(one.name))]
    number = 1 + max(numbers, default=-1)
    path = hour_dir / f"part-{number}.parquet"
    fold = {"fold": "1"} if task.market.to_local(task.hour).fold else {}
    schema = PARQUET[task.dataset].with_metadata(
        {
            "schema_version": str(FILE_VERSION),
            "writer_version": _read_package_version(),
            "arbitration_rule": RULE if len(task.market.feeds) > 1 else "one-line/1",
            "twin_window_s": str(task.window_s),
            "lineage": task.lineage,
            "row_from": str(span[0]),
            "row_to": str(span[1]),
            **(
                {"ticks_doubled": str(selection.duplicates), "ticks_contradicting": str(selection.conflicts)}
                if selection is not None
                else {}
            ),
            **fold,
        }
    )
    index = index if selection is None else selection.rows
    size = write_verified(path, schema, _build_row_groups(task, entries, index, selection), cancelled, replace=False)
    duplicates, conflicts = (0, 0) if selection is None else (selection.duplicates, selection.conflicts)
    return Part(path, len(index), size, duplicates, conflicts)


def _build_row_groups(
    task: PublishTask, entries: JournalRows, index: RowIndex, selection: SelectedTicks | None
) -> Iterator[pa.Table]:
    """The hour's rows in order, one table per row group."""
    schema = PARQUET[task.dataset]
    for begin in range(0, len(index), task.row_group_rows):
        chosen = slice(begin, begin + task.row_group_rows)
        columns = _gather_columns(task.dataset, entries, index, chosen)
        table = clear_zero_prices(pa.table([columns[name] for name in schema.names], schema))
        if selection is not None:
            table = mark_rows(
                table, *(column[chosen] for column in (selection.cum_volume, selection.size, selection.flags))
            )
        yield table


def _gather_columns(dataset: str, entries: JournalRows, index: RowIndex, chosen: slice) -> dict[str, pa.Array]:
    """The columns of a row group; of a merged book with both arrivals, those of the first, and the flag of its twin."""
    if not is_merged(dataset):
        (records,) = entries.gather([index.location[chosen]])
        return build_columns(dataset, records)
    own, twin = entries.gather([index.location[chosen], index.twin_location[chosen]])
    winner = own.copy()
    for name in _WINNER_FIELDS:
        winner[name] = np.where(index.twin_is_first[chosen], twin[name], own[name])
    winner["flags"] |= twin["flags"] & int(Flag.TWIN_DIFFERS)
    return build_columns(dataset, winner, arrivals=(own, twin))


class PublishedSpan(NamedTuple):
    """What a file has of an hour ("09") of the journal of `lineage`: up to row `row_to`; "" for none that the writer made."""

    hour: str
    lineage: str
    row_to: int
    fold: str


def read_spans(path: Path) -> list[PublishedSpan]:
    """What a published file has of journals; a compacted one of many hours. FileNotFoundError; PartitionWriteError: unreadable."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except FileNotFoundError:
        raise
    except (pa.ArrowInvalid, OSError) as error:
        raise PartitionWriteError(
            f"{path}: unreadable ({error}): move it away; what of it is still in the journal is published again"
        ) from error
    if b"compacted" in metadata:
        return msgspec.json.decode(metadata[b"compacted"], type=list[PublishedSpan])
    lineage, fold = (metadata.get(key, none).decode() for key, none in ((b"lineage", b""), (b"fold", b"0")))
    hour = path.parent.name.removeprefix("hour=")
    return [PublishedSpan(hour, lineage, int(metadata.get(b"row_to", b"0")), fold)]


def encode_spans(spans: Iterable[PublishedSpan]) -> str:
    """For the metadata of a compacted file: the newest row of each hour and journal."""
    newest: dict[tuple[str, str, str], PublishedSpan] = {}
    for span in spans:
        key = span.hour, span.lineage, span.fold
        newest[key] = max(newest.get(key, span), span, key=lambda one: one.row_to)
    return msgspec.json.encode([newest[key] for key in sorted(newest)]).decode()


@cache
def _read_package_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("collectorctl")
    except PackageNotFoundError:
        return "not installed"
