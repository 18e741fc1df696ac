"""Stored journal, for those who only read it: the catalog, the gap report.

    000000000006.arrows  000000000007.journal  000000000008.journal ──complete batches──> rows

Guarantees:
    * Nothing is changed, and a live writer is not disturbed: a segment that disappears while it is read was published.
    * Damage is left out, and logged unless it is at the end of a file, where a writer may be at work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
from loguru import logger

from writer.journal.former_entries import convert_entries
from writer.journal.former_segment import FORMER_SUFFIX, find_former, read_former_batches
from writer.journal.segment import Damage, FormatError, JournalBatch, read_identity, scan_segment, segment_paths


def list_segments(directory: Path) -> list[Path]:
    """The segments of a journal in order, those of the format before included until they are rewritten."""
    paths = segment_paths(directory)
    present = {path.stem for path in paths}
    former = [path for path in directory.glob(f"[0-9]*{FORMER_SUFFIX}") if path.stem not in present]
    return sorted([*paths, *former], key=lambda path: path.stem)


def read_lineage(path: Path) -> str | None:
    """Which journal a segment belongs to; None if its beginning is unreadable, or the file was removed."""
    try:
        if path.suffix == FORMER_SUFFIX:
            return next((former.lineage for former in find_former(path.parent) if former.path == path), None)
        identity = read_identity(path)
    except (FileNotFoundError, FormatError):
        return None
    return identity and identity.lineage


def read_batches(path: Path, schema: pa.Schema | None = None, begin: int = 0) -> Iterator[JournalBatch]:
    """The complete batches of a segment; none if it was removed meanwhile, because it was published.

    `schema`: of the journal; entries of a former version are converted to it, and a segment is read whose beginning is damaged.
    `begin`: where a batch read before ended.
    """

    def convert(batch: JournalBatch) -> JournalBatch:
        return batch if schema is None else batch._replace(entries=convert_entries(batch.entries, schema))

    with suppress(FileNotFoundError):
        if path.suffix == FORMER_SUFFIX:
            yield from (convert(batch) for batch in read_former_batches(path, schema) if batch.end > begin)
            return
        for found in scan_segment(path, schema, begin=begin):
            if isinstance(found, JournalBatch):
                yield convert(found)
            elif not found.is_tail:
                logger.warning("{}", describe(found))


def read_rows(
    directory: Path, schema: pa.Schema | None = None, ends: dict[Path, int] | None = None
) -> Iterator[pa.RecordBatch]:
    """Every complete batch of a journal with rows, oldest first; safe beside a live writer.

    `ends`: how far each segment was read; it is updated, and what lies before is left out.
    """
    ends = {} if ends is None else ends
    for path in list_segments(directory):
        for batch in read_batches(path, schema, ends.get(path, 0)):
            ends[path] = batch.end
            if batch.entries.num_rows:
                yield batch.entries


def describe(damage: Damage) -> str:
    """What is unreadable, in words."""
    lost = "an unknown number of" if damage.lost_rows is None else damage.lost_rows
    text = f"{damage.path}: bytes {damage.begin} to {damage.end} are damaged ({damage.reason}): {lost} rows in them"
    return text + ", read again as far as the rings hold them" if damage.is_newest else text
