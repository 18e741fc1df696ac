"""A batch of frames leaves the quarantine for the datasets, exactly once.

    data/quarantine/date=2026-11-20/
      .placing.tmp/            1 built: lines taken, lines that are left of them, finished Parquet files
      placing-3f0c.../         2 renamed: from here on it will be placed, whoever finishes it
      kis.jsonl                3 loses the lines taken, gains those that are left of them
      (the Parquet files)      4 renamed into data/MARKET/STREAM/date=/hour=/part-requarantine-3f0c...-N.parquet
      kis.placed.jsonl         5 gains the lines taken

Each step may be done again without a difference, so a batch that was interrupted, anywhere, is simply finished. The files have
names of their own, which no writer uses: it may run meanwhile.

Promises: a line is in exactly one place that counts; a row appears whole, verified, once, whatever instruction is the last; nothing
of a batch that was not committed is left but `.placing.tmp`.
Leaves to others: which lines (frames.py), twins that are stored already (stored.py), one run at a time (again.py).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np

from brokers.registry import BROKERS
from collectorctl.reprocess.decode import Batch
from collectorctl.reprocess.stored_books import window_ns
from conf.home import Home
from writer import durable_io, schema
from writer.ingest.book_arbiter import Merge
from writer.journal.journal import Journal
from writer.publish import partition

_ASIDE = ".placing.tmp"
_TAKEN, _REST, _PARTS = "{}.taken", "{}.rest", "parts"


def commit(home: Home, directory: Path, batch: Batch) -> None:
    """Steps 1 and 2. OSError; PublicationError if a file could not be read back: nothing has changed."""
    clear(directory)
    aside = directory / _ASIDE
    aside.mkdir()
    digest = sha256()
    for name in batch.taken:
        _write(aside / _TAKEN.format(name), batch.taken[name])
        _write(aside / _REST.format(name), batch.rest[name])
        digest.update(b"".join(batch.taken[name]))
    name = digest.hexdigest()[:16]
    for dataset, rows in batch.rows.items():
        if len(rows):
            _build(home, aside, dataset, rows, f"requarantine/{name}")
    for path in [*(found for found in aside.rglob("*") if found.is_dir()), aside]:
        durable_io.sync_directory(path)
    durable_io.rename(aside, directory / f"placing-{name}")


def _build(home: Home, aside: Path, dataset: str, rows: np.ndarray, lineage: str) -> None:
    """Publish `rows` below `aside`, the way the writer does: entries, a journal, an hour after the other."""
    table = home.settings.writer
    taken = None
    if schema.is_merged(dataset):
        taken = Merge(window_ns(home), table.identity_cum_volume).take(rows, schema.hours(rows), 1)
    place = aside / "journal"
    journal = Journal.open(place, schema.JOURNAL[dataset])
    journal.begin([])
    journal.append(schema.entries(dataset, rows, 1, taken), {})
    journal.close()
    for hour in sorted(journal.current.held):
        partition.publish(
            partition.Task(
                dataset=dataset,
                directory=aside / _PARTS / dataset,
                lineage=lineage,
                hour=hour,
                row_to=journal.last_row,
                segments=(journal.current.path,),
                row_group_rows=table.row_group_rows,
                window_s=table.twin_window_s,
            )
        )
    shutil.rmtree(place)


def interrupted(directory: Path) -> list[Path]:
    """Batches that were committed and not finished."""
    return sorted(directory.glob("placing-*"))


def finish(home: Home, batch: Path) -> None:
    """Steps 3 to 5, from wherever an earlier run was stopped. OSError: to be continued."""
    directory = batch.parent
    for name in BROKERS:
        taken, rest = batch / _TAKEN.format(name), batch / _REST.format(name)
        _rewrite(directory / f"{name}.jsonl", without=(taken, rest), plus=rest)
    for part in sorted((batch / _PARTS).rglob("part-*.parquet")):
        dataset, date, hour, _ = part.relative_to(batch / _PARTS).parts
        target = home.data / dataset.replace(".", "/") / date / hour
        target.mkdir(parents=True, exist_ok=True)
        durable_io.sync_directory(target.parent.parent)
        durable_io.sync_directory(target.parent)
        number = part.stem.removeprefix("part-")
        durable_io.rename(part, target / f"part-requarantine-{batch.name.removeprefix('placing-')}-{number}.parquet")
    for name in BROKERS:
        taken = batch / _TAKEN.format(name)
        _rewrite(directory / f"{name}.placed.jsonl", without=(taken,), plus=taken)
    clear(directory)
    durable_io.rename(batch, directory / _ASIDE)
    clear(directory)


def clear(directory: Path) -> None:
    """Remove what was not committed, or is done with."""
    shutil.rmtree(directory / _ASIDE, ignore_errors=True)


def _rewrite(file: Path, without: Iterable[Path], plus: Path) -> None:
    """Drop lines from a file and append others, in one stroke; a file without lines goes.

    Of lines that are the same, all are dropped: they decode alike, so they were taken together.
    """
    dropped = {sha256(line).digest() for other in without for line in _lines(other)}
    if not dropped:
        return
    aside = file.with_name(f".{file.name}.tmp")
    fd = durable_io.write_aside(aside)
    with os.fdopen(fd, "wb") as opened:
        opened.writelines(line for line in _lines(file) if sha256(line).digest() not in dropped)
        opened.writelines(_lines(plus))
        opened.flush()
        durable_io.sync(opened.fileno())
        size = opened.tell()
    if size:
        durable_io.rename(aside, file)
    else:
        durable_io.remove(file)
        durable_io.remove(aside)


def _lines(file: Path) -> Iterator[bytes]:
    if file.exists():
        with file.open("rb") as opened:
            yield from opened


def _write(path: Path, found: list[bytes]) -> None:
    if found:
        fd = durable_io.write_aside(path)
        with os.fdopen(fd, "wb") as opened:
            opened.writelines(found)
            opened.flush()
            durable_io.sync(opened.fileno())
