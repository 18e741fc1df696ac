"""Two-phase commit of reprocessed rows: a batch of frames leaves the quarantine for the datasets exactly once.

    data/quarantine/date=2026-11-20/
      .placing.tmp/            1 built: decoded lines, the lines left of them, finished Parquet files, the names of published ones
      placing-3f0c.../         2 renamed: committed, any later run completes it
      kis.jsonl                3 loses the decoded lines, gains those left of them
      (the Parquet files)      4 linked into data/MARKET/STREAM/date=/hour=/part-requarantine-3f0c...-N.parquet
      kis.placed.jsonl         5 gains the decoded lines

Each step is idempotent, so an interrupted batch is completed by repeating them. The caller holds the lock of every date whose
partitions the batch changes. A batch that was interrupted is compared with the files that were published since it was committed:
rows that these hold go.

Guarantees:
    * A line is in exactly one valid place, and a row appears complete, verified and once, whatever instruction is the last.
    * Of a batch that was not committed nothing is left but `.placing.tmp`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from brokers.registry import BROKERS
from collectorctl.reprocess import stored_books, stored_ticks
from collectorctl.reprocess.decode import Batch
from collectorctl.reprocess.stored_books import window_ns
from conf.home import Home
from conf.market import MARKETS, MarketDate
from writer import durable_io
from writer.catalog import PART_PATTERN, FileState, read_file_state
from writer.publish.records import publish_records
from writer.publish.verified_file import write_verified
from writer.schema import compute_hours

_BUILD_FOLDER = ".placing.tmp"
_DECODED_FILE, _LEFTOVER_FILE, _PARTS_FOLDER = "{}.taken", "{}.rest", "parts"
_PUBLISHED_FILE = "published.json"
_OWN_PREFIX = "part-requarantine-"


def find_dates(batch: Batch) -> set[MarketDate]:
    """The dates whose partitions the rows of a batch belong to."""
    return {
        MarketDate(market.name, market.to_local(hour).date())
        for dataset, rows in batch.rows.items()
        if len(rows) and (market := MARKETS[dataset.partition(".")[0]])
        for hour in np.unique(compute_hours(rows)).tolist()
    }


def find_pending_dates(batch: Path) -> set[str]:
    """The dates whose partitions a committed batch still changes."""
    return {path.parent.parent.name.removeprefix("date=") for path in _find_parts(batch)}


def commit(home: Home, directory: Path, batch: Batch) -> None:
    """Steps 1 and 2. OSError; PartitionWriteError if a file could not be read back: nothing has changed."""
    clear(directory)
    build_dir = directory / _BUILD_FOLDER
    build_dir.mkdir()
    digest = sha256()
    for name in batch.decoded:
        _write_lines(build_dir / _DECODED_FILE.format(name), batch.decoded[name])
        _write_lines(build_dir / _LEFTOVER_FILE.format(name), batch.leftover[name])
        digest.update(b"".join(batch.decoded[name]))
    name = digest.hexdigest()[:16]
    for dataset, rows in batch.rows.items():
        if len(rows):
            parts_dir, lineage = build_dir / _PARTS_FOLDER / dataset, f"requarantine/{name}"
            publish_records(parts_dir, dataset, rows, lineage, home.settings.writer, window_ns(home))
    _write_lines(build_dir / _PUBLISHED_FILE, [msgspec.json.encode(_read_published_states(home, build_dir))])
    for path in [*(found for found in build_dir.rglob("*") if found.is_dir()), build_dir]:
        durable_io.sync_directory(path)
    durable_io.rename(build_dir, directory / f"placing-{name}")


def find_pending(directory: Path) -> list[Path]:
    """Batches that were committed and not finished."""
    return sorted(directory.glob("placing-*"))


def complete(home: Home, batch: Path) -> None:
    """Steps 3 to 5, from wherever an earlier run was stopped. OSError: to be continued."""
    directory = batch.parent
    for name in BROKERS:
        decoded, leftover = batch / _DECODED_FILE.format(name), batch / _LEFTOVER_FILE.format(name)
        _rewrite(directory / f"{name}.jsonl", remove=(decoded, leftover), append=leftover)
    new_paths = _find_published_since(home, batch)
    for part in _find_parts(batch):
        dataset, date, hour, _ = part.relative_to(batch / _PARTS_FOLDER).parts
        target_dir = home.data / dataset.replace(".", "/") / date / hour
        durable_io.create_directory(target_dir)
        target = target_dir / f"{_own_prefix(batch)}{part.stem.removeprefix('part-')}.parquet"
        if target.exists():
            durable_io.remove(part)
            continue
        _drop_stored(home, dataset, part, [path for path in new_paths if path.parent.parent == target_dir.parent])
        durable_io.link_new(part, target)
    for name in BROKERS:
        decoded = batch / _DECODED_FILE.format(name)
        _rewrite(directory / f"{name}.placed.jsonl", remove=(decoded,), append=decoded)
    clear(directory)
    durable_io.rename(batch, directory / _BUILD_FOLDER)
    clear(directory)


def _find_parts(batch: Path) -> list[Path]:
    return sorted((batch / _PARTS_FOLDER).rglob(PART_PATTERN))


def _own_prefix(batch: Path) -> str:
    return f"{_OWN_PREFIX}{batch.name.removeprefix('placing-')}-"


def _read_published_states(home: Home, batch: Path) -> list[FileState]:
    """The published files of every dataset and date that the parts of a batch belong to."""
    parts = batch / _PARTS_FOLDER
    dates = {path.parent.parent.relative_to(parts) for path in _find_parts(batch)}
    directories = {home.data / date.parts[0].replace(".", "/") / date.parts[1] for date in dates}
    return [
        read_file_state(path, home.data)
        for directory in sorted(directories)
        for path in sorted(directory.glob(f"hour=*/{PART_PATTERN}"))
    ]


def _find_published_since(home: Home, batch: Path) -> list[Path]:
    """The files that others published, or replaced, after the batch was committed; none for one of an earlier version."""
    file = batch / _PUBLISHED_FILE
    if not file.exists():
        return []
    known = set(msgspec.json.decode(file.read_bytes(), type=list[FileState]))
    found = [home.data / state[0] for state in _read_published_states(home, batch) if state not in known]
    return [path for path in found if not path.name.startswith(_own_prefix(batch))]


def _drop_stored(home: Home, dataset: str, part: Path, paths: list[Path]) -> None:
    """Remove the rows of a part that `paths` hold."""
    if not paths or dataset not in (stored_books.BOOKS, stored_ticks.TICKS):
        return
    with pq.ParquetFile(part) as file:
        table = file.read()
    if dataset == stored_books.BOOKS:
        left = table.filter(pa.array(~stored_books.find_rows_stored(home, table, paths)))
    else:
        left = stored_ticks.drop_rows_stored(table, paths)
    if not left.equals(table):
        group_rows, left = home.settings.writer.row_group_rows, left.combine_chunks()
        write_verified(
            part, table.schema, (left.slice(at, group_rows) for at in range(0, max(1, len(left)), group_rows))
        )


def clear(directory: Path) -> None:
    """Remove what was not committed, or is done with."""
    shutil.rmtree(directory / _BUILD_FOLDER, ignore_errors=True)


def _rewrite(file: Path, remove: Iterable[Path], append: Path) -> None:
    """Remove lines from a file and append others, atomically; an empty file is removed.

    Of equal lines all are removed: they decode equally, so they were decoded together.
    """
    dropped = {sha256(line).digest() for other in remove for line in _read_lines(other)}
    if not dropped:
        return
    temporary = file.with_name(f".{file.name}.tmp")
    fd = durable_io.open_temporary(temporary)
    with os.fdopen(fd, "wb") as opened:
        opened.writelines(line for line in _read_lines(file) if sha256(line).digest() not in dropped)
        opened.writelines(_read_lines(append))
        opened.flush()
        durable_io.sync(opened.fileno())
        size = opened.tell()
    if size:
        durable_io.rename(temporary, file)
    else:
        durable_io.remove(file)
        durable_io.remove(temporary)


def _read_lines(file: Path) -> Iterator[bytes]:
    if file.exists():
        with file.open("rb") as opened:
            yield from opened


def _write_lines(path: Path, lines: list[bytes]) -> None:
    if lines:
        fd = durable_io.open_temporary(path)
        with os.fdopen(fd, "wb") as opened:
            opened.writelines(lines)
            opened.flush()
            durable_io.sync(opened.fileno())
