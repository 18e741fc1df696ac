"""Two-phase commit of reprocessed rows: a batch of frames leaves the quarantine for the datasets exactly once.

    data/quarantine/date=2026-11-20/
      .placing.tmp/            1 built: decoded lines, the lines left of them, finished Parquet files
      placing-3f0c.../         2 renamed: committed, any later run completes it
      kis.jsonl                3 loses the decoded lines, gains those left of them
      (the Parquet files)      4 renamed into data/MARKET/STREAM/date=/hour=/part-requarantine-3f0c...-N.parquet
      kis.placed.jsonl         5 gains the decoded lines

Each step is idempotent, so an interrupted batch is completed by repeating them. The files have names that the writer does not use,
so it may run meanwhile.

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

from brokers.registry import BROKERS
from collectorctl.reprocess.decode import Batch
from collectorctl.reprocess.stored_books import window_ns
from conf.home import Home
from writer import durable_io
from writer.publish.records import publish_records

_BUILD_FOLDER = ".placing.tmp"
_DECODED_FILE, _LEFTOVER_FILE, _PARTS_FOLDER = "{}.taken", "{}.rest", "parts"


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
    for part in sorted((batch / _PARTS_FOLDER).rglob("part-*.parquet")):
        dataset, date, hour, _ = part.relative_to(batch / _PARTS_FOLDER).parts
        target = home.data / dataset.replace(".", "/") / date / hour
        target.mkdir(parents=True, exist_ok=True)
        durable_io.sync_directory(target.parent.parent)
        durable_io.sync_directory(target.parent)
        number = part.stem.removeprefix("part-")
        durable_io.rename(part, target / f"part-requarantine-{batch.name.removeprefix('placing-')}-{number}.parquet")
    for name in BROKERS:
        decoded = batch / _DECODED_FILE.format(name)
        _rewrite(directory / f"{name}.placed.jsonl", remove=(decoded,), append=decoded)
    clear(directory)
    durable_io.rename(batch, directory / _BUILD_FOLDER)
    clear(directory)


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
