"""Write-ahead log of accepted rows: append, recover, prune what is published.

    data/journal/kr.orderbook/000000000007.journal  000000000008.journal  ...     see segment.py

    the positions in a frame's metadata are the commit: rows and ring positions are written together or not at all

Guarantees:
    * After a kill at any instruction `open` finds every complete batch and truncates the torn one, logging the offset.
    * The newest segment alone holds positions, row numbers and volume high-water marks.
    * A write error leaves the log at the last complete batch; damage costs only the batches it hit, is reported with the number
      of rows, and the damaged file is kept under another name when the rest of it is published.
    * After a failed fsync no page of that file counts which was not durable before: those batches are cut off, and written
      again into the next segment, with the same row numbers. Should the old ones be on the disk after all, `open` cuts them:
      a segment ends where the next one begins.
    * Segments of former versions are rewritten once; of an unknown format, version or lineage nothing is touched.
    * A segment is removed only when every row in it, and every row its twins belong to, is published.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from loguru import logger

from ringbuf.records import MAX_INT64
from writer import durable_io
from writer.journal.entries import VERSION
from writer.journal.former_segment import BACKUP_SUFFIX, FORMER_VERSION, convert, find_former
from writer.journal.frame import FrameEncoder
from writer.journal.segment import (
    SUFFIX,
    Damage,
    FormatError,
    JournalBatch,
    read_identity,
    scan_segment,
    segment_paths,
)

RingPositions = dict[str, list[int]]
"""Ring name ("kis.orderbook") -> [ring_id, next_seq]."""


STATE = "arbiter"
"""In a frame's metadata: what the arbiter of the rows had learned behind it."""
_OTHER_VERSION = "let the version of collectorctl that wrote it publish it (collectorctl stop), then start this one"


class JournalError(Exception):
    """A journal that cannot be continued; the message says which, why, and what to do."""


@dataclass
class Segment:
    """One file of the log: complete up to `size` bytes; `newest_rows` maps an hour to its newest row in the file."""

    path: Path
    size: int = 0
    last_row: int = 0
    newest_rows: dict[int, int] = field(default_factory=dict)
    is_damaged: bool = False

    def add_rows(self, newest_rows: Mapping[int, int]) -> None:
        """Note appended rows."""
        for hour, row in newest_rows.items():
            self.newest_rows[hour] = max(row, self.newest_rows.get(hour, 0))


class _Appended(NamedTuple):
    """A batch that is not durable yet, with the positions and the state it brought and its last row."""

    batch: pa.RecordBatch
    positions: RingPositions
    state: Any
    last_row: int


class _Durable(NamedTuple):
    """How much of the newest segment is durable, and positions, state and last row there."""

    size: int
    positions: RingPositions
    state: Any
    last_row: int


_DISTRUSTED: set[Path] = set()
"""Segments of which an fsync failed in this process before they could be written again."""


def _ignore(_: object) -> None:
    """Nobody wants to know."""


class Journal:
    """The log of one dataset; one process has it open."""

    def __init__(self, directory: Path, schema: pa.Schema, on_damage: Callable[[Damage], None] = _ignore) -> None:
        self.directory = directory
        self.lineage = uuid.uuid4().hex
        self.positions: RingPositions = {}
        self.last_row = 0
        self.state: Any = None
        """What the newest batch brought: of whoever appends, fit for JSON."""
        self.volume_high_water: list[list] = []
        self.segments: list[Segment] = []
        self._schema = schema
        self._unsynced: list[_Appended] = []
        self._durable = _Durable(0, {}, None, 0)
        self.is_failed = False
        """Whether an fsync failed: only `roll` can go on."""
        self.closed_row = 0
        """The last row in the segments before the newest one."""
        self._encoder = FrameEncoder(schema, self.lineage, VERSION)
        self._number = 0
        self._fd = -1
        self._on_damage = on_damage
        self._known_damages: set[tuple[Path, int]] = set()
        self._tail: Damage | None = None

    @classmethod
    def open(
        cls,
        directory: Path,
        schema: pa.Schema,
        on_batch: Callable[[JournalBatch], None] = _ignore,
        on_damage: Callable[[Damage], None] = _ignore,
    ) -> Journal:
        """Recover the journal in `directory`; `on_batch` gets every complete batch in order. `roll` comes next.

        `on_damage` gets what is unreadable, here and in `report`. JournalError: segments of two lineages, or of another version.
        """
        journal = cls(directory, schema, on_damage)
        durable_io.create_directory(directory)
        for leftover in directory.glob("*.tmp"):
            durable_io.remove(leftover)
        known = sorted(_read_lineages(directory))
        if len(known) > 1:
            raise JournalError(
                f"{directory}: segments of several journals ({', '.join(known)}): move all but one elsewhere"
            )
        if known:
            journal.lineage = known[0]
            journal._encoder = FrameEncoder(schema, journal.lineage, VERSION)
        for former in find_former(directory):
            for damage in convert(former.path, schema, journal._encoder):
                on_damage(damage)
        paths = segment_paths(directory)
        if paths:  # before it is read: a failed fsync may take what was read
            _make_durable(paths[-1])
        for path, end_row in zip(paths, _find_ends(paths), strict=True):
            journal._recover(path, end_row, on_batch)
        journal._settle_newest_tail()
        return journal

    def _recover(self, path: Path, end_row: int, on_batch: Callable[[JournalBatch], None]) -> None:
        """Read the next segment; cut what is behind `end_row`, where a later one begins."""
        is_successor = bool(self.segments) and int(path.stem) == self._number + 1
        self._number = int(path.stem)
        segment = Segment(path, last_row=self.last_row)
        tail = None
        for found in scan_segment(path, self._schema, self.last_row if is_successor else None):
            if isinstance(found, Damage):
                segment.is_damaged = True
                self._known_damages.add((path, found.begin))
                if found.is_tail:
                    tail = found
                else:
                    self._on_damage(found)
                continue
            if found.last_row > end_row:
                logger.warning("{}: rows behind {} were written again into a later segment: cut", path, end_row)
                durable_io.truncate(path, found.begin)
                break
            if not segment.size:
                self._settle_tail(found.last_row - found.entries.num_rows if is_successor else None)
            segment.size, segment.last_row = found.end, found.last_row
            segment.add_rows(find_newest_rows(found.entries))
            self.positions = found.metadata.get("positions", self.positions)
            self.state = found.metadata.get(STATE, self.state)
            self.last_row = found.last_row
            self.volume_high_water = found.metadata.get("ceilings", self.volume_high_water)
            on_batch(found)
        if not segment.size:
            self._settle_tail(None)
            tail = tail or Damage(path, 0, 0, "empty", 0, is_tail=True, is_torn=True)
        self._tail = tail
        self.segments.append(segment)

    def _settle_tail(self, row_behind: int | None) -> None:
        """Report the damaged end of a segment, unless the next one says that it held no row: `row_behind`, where that one began."""
        tail, self._tail = self._tail, None
        if tail is None:
            return
        if row_behind is not None and tail.after_row is not None:
            tail = tail._replace(lost_rows=row_behind - tail.after_row)
        if tail.lost_rows == 0 and row_behind is not None:
            self.segments[-1].is_damaged = not tail.is_torn
            return
        self._on_damage(tail)

    def _settle_newest_tail(self) -> None:
        """Report the damaged end of the newest segment; truncate a torn one: without a complete frame it was never begun."""
        if self._tail is None:
            return
        if not self._tail.is_torn:
            self._tail = self._tail._replace(is_newest=True)
            self._settle_tail(None)
            return
        path, begin, end, *_ = self._tail
        self.segments[-1].is_damaged, self._tail = False, None
        if begin:
            logger.warning("{}: torn tail: cut at {}, {} bytes of an unfinished batch", path, begin, end - begin)
            durable_io.truncate(path, begin)
        else:
            logger.warning("{}: {} bytes, no complete batch: removed", path, end)
            durable_io.remove(path)
            self.segments.pop()
            self._number -= 1

    def report(self, damage: Damage) -> None:
        """Report what publication found unreadable in a closed segment, once."""
        segment = next((segment for segment in self.segments if segment.path == damage.path), None)
        if segment is None or damage.begin >= segment.size or (damage.path, damage.begin) in self._known_damages:
            return
        self._known_damages.add((damage.path, damage.begin))
        segment.is_damaged = True
        if damage.is_tail and damage.after_row is not None:
            damage = damage._replace(lost_rows=segment.last_row - damage.after_row)
        self._on_damage(damage)

    def roll(self, volume_high_water: list[list]) -> None:
        """Close the open segment and begin the next, from which alone the log can be continued.

        OSError: nothing has changed. What was appended is durable before the new segment claims the positions it brought; after
        a failed fsync the new segment begins where the old one was durable, and holds what was appended since.
        """
        if self.is_failed:
            durable_io.append(self._fd, self._durable.size, b"")  # which cuts what is behind
            self.current.size, self.current.last_row = self._durable.size, self._durable.last_row
        else:
            self.sync()
            self._durable = _Durable(self._durable.size, self.positions, self.state, self.last_row)
        path = self.directory / f"{self._number + 1:012d}{SUFFIX}"
        if path.exists():
            durable_io.remove(path)  # begun by an attempt that failed
        segment = Segment(path, last_row=self.last_row)
        metadata = {"positions": self._durable.positions, STATE: self._durable.state, "ceilings": volume_high_water}
        data = self._encoder.encode_opening(self._durable.last_row, metadata)
        for batch, positions, state, last_row in self._unsynced:
            data += self._encoder.encode_batch(batch, len(data), last_row, {"positions": positions, STATE: state})
            segment.add_rows(find_newest_rows(batch))
        fd = durable_io.create(path)
        try:
            durable_io.append(fd, 0, data)
            durable_io.sync(fd)
        except OSError:
            os.close(fd)
            durable_io.remove(path)
            raise
        self.close()
        if self.is_failed:
            logger.info(
                "{}: {} batches up to row {} that were not durable are written again",
                path,
                len(self._unsynced),
                self.last_row,
            )
        segment.size = len(data)
        self.closed_row = self._durable.last_row
        self._durable = _Durable(segment.size, self.positions, self.state, self.last_row)
        self._unsynced.clear()
        self.is_failed = False
        self.segments.append(segment)
        self._number += 1
        self._fd = fd

    @property
    def current(self) -> Segment:
        """The segment that grows."""
        return self.segments[-1]

    def append(self, batch: pa.RecordBatch, positions: RingPositions, state: Any = None) -> int:
        """Write `batch` (its rows are numbered from last_row + 1), ring positions and state it brings; the bytes it took.

        Not yet durable: see `sync`. OSError: the log is as it was before, and so are positions and last_row.
        """
        self._reject_failed()
        current, last_row = self.current, self.last_row + batch.num_rows
        data = self._encoder.encode_batch(batch, current.size, last_row, {"positions": positions, STATE: state})
        durable_io.append(self._fd, current.size, data)
        current.size, current.last_row = current.size + len(data), last_row
        current.add_rows(find_newest_rows(batch))
        self.positions, self.state, self.last_row = positions, state, last_row
        self._unsynced.append(_Appended(batch, positions, state, last_row))
        return len(data)

    @property
    def has_unsynced(self) -> bool:
        """Whether something was appended that is not durable yet."""
        return bool(self._unsynced)

    def sync(self) -> None:
        """Make everything appended durable.

        OSError: the kernel may have dropped the pages, and would call the next fsync of this file a success. What was not
        durable is cut off the file, so that no reader and no later life takes it for stored, and `roll` writes it again.
        """
        if not self._unsynced:
            return
        self._reject_failed()
        try:
            durable_io.sync(self._fd)
        except OSError:
            self.is_failed = True
            with suppress(OSError):  # `roll` does it again
                durable_io.append(self._fd, self._durable.size, b"")
            raise
        self._durable = _Durable(self.current.size, self.positions, self.state, self.last_row)
        self._unsynced.clear()

    def _reject_failed(self) -> None:
        if self.is_failed:
            raise OSError(errno.EIO, "an fsync failed, and no new segment could be begun yet", str(self.current.path))

    def find_closed(self, hour: int, published_to: int) -> tuple[Path, ...]:
        """Closed segments with rows of `hour` behind row `published_to`: any other may be deleted before it is read."""
        return tuple(one.path for one in self.segments[:-1] if one.newest_rows.get(hour, 0) > published_to)

    def prune(self, published_to: Mapping[int, int]) -> list[Path]:
        """Delete closed segments of which every row is published (`published_to`: hour -> newest published row).

        A damaged one is kept under another name. OSError: call again.
        """
        published = [
            segment
            for segment in self.segments[:-1]
            if all(row <= published_to.get(hour, 0) for hour, row in segment.newest_rows.items())
        ]
        for segment in published:
            if segment.is_damaged:
                backup = segment.path.with_name(segment.path.name + BACKUP_SUFFIX)
                durable_io.rename(segment.path, backup)
                logger.warning("{}: published but for what is damaged; kept as {}", segment.path, backup)
            else:
                durable_io.remove(segment.path)
            self.segments.remove(segment)
        return [segment.path for segment in published if not segment.is_damaged]

    def close(self) -> None:
        """Close the file; what was appended and not synced is left to the kernel."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _read_lineages(directory: Path) -> set[str]:
    """The lineages of the segments in a directory; JournalError if one was written by another version."""
    found: list[tuple[Path, str | None, int | None]] = list(find_former(directory))
    for path in segment_paths(directory):
        try:
            identity = read_identity(path)
        except FormatError as error:
            raise JournalError(f"{error}: {_OTHER_VERSION}") from error
        found.append((path, identity and identity.lineage, identity and identity.schema_version))
    for path, _, version in found:
        if version not in (None, FORMER_VERSION, VERSION):
            raise JournalError(f"{path}: entries of version {version}, this version has {VERSION}: {_OTHER_VERSION}")
    return {lineage for _, lineage, _ in found if lineage is not None}


def _find_ends(paths: Sequence[Path]) -> list[int]:
    """The row at which each segment ends, because a later one begins there."""
    end_row, ends = MAX_INT64, []
    for path in reversed(paths):
        ends.append(end_row)
        if (identity := read_identity(path)) is not None:
            end_row = min(end_row, identity.begin_row)
    return ends[::-1]


def _make_durable(path: Path) -> None:
    """Make the newest segment durable before anything counts on what it holds: a killed writer may not have done so.

    After a failed fsync another one proves nothing: what is left is written again. OSError: it is, at the next `open`.
    """
    if path not in _DISTRUSTED:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            durable_io.sync(fd)
        except OSError as error:
            logger.error("{}: fsync: {}: written again", path, error)
            _DISTRUSTED.add(path)
        finally:
            os.close(fd)
    if path in _DISTRUSTED:
        durable_io.replace(path, path.read_bytes())
        _DISTRUSTED.discard(path)


def find_newest_rows(batch: pa.RecordBatch) -> dict[int, int]:
    """Hour -> newest row of that hour a batch holds or refers to."""
    if batch.num_rows == 0:
        return {}
    hours = batch.column("hour").to_numpy()
    rows = pc.coalesce(batch.column("twin_of"), batch.column("row")).to_numpy()
    if (hours == hours[0]).all():
        return {int(hours[0]): int(rows.max())}
    return {int(hour): int(rows[hours == hour].max()) for hour in np.unique(hours)}
