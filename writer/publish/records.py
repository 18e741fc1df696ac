"""Publication of records that no ring holds: a journal of one batch, then every hour of it as the writer publishes it.

records ─arbitrate─> entries ─> journal (temporary) ─> <directory>/date=/hour=/part-0.parquet
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from conf.settings import Writer
from writer import schema
from writer.ingest.book_arbiter import BookArbiter
from writer.journal.entries import JOURNAL, build_entries
from writer.journal.journal import Journal
from writer.publish import partition


def publish_records(
    directory: Path, dataset: str, records: np.ndarray, lineage: str, settings: Writer, twin_window_ns: int
) -> list[Path]:
    """Publish `records` below `directory`; the parts. OSError; PartitionWriteError if one could not be read back.

    Args:
        directory: of the partitions; it also holds the journal for the time being.
        dataset: such as "kr.tick".
        records: of the dataset's dtype, shape (n,), in order of receipt.
        lineage: written to the parts in place of the name of a journal.
        settings: the [writer] table.
        twin_window_ns: how far apart two books of one content may be received to be twins, in the calendar's nanoseconds.
    """
    arbitration = None
    if schema.is_merged(dataset):
        arbiter = BookArbiter(twin_window_ns, settings.identity_cum_volume)
        arbitration = arbiter.arbitrate(records, schema.compute_hours(records), 1)
    journal = Journal.open(directory / "journal", JOURNAL[dataset])
    journal.roll([])
    journal.append(build_entries(dataset, records, 1, arbitration), {})
    journal.close()
    parts: list[Path] = []
    for hour in sorted(journal.current.newest_rows):
        task = partition.PublishTask(
            dataset=dataset,
            directory=directory,
            lineage=lineage,
            hour=hour,
            row_to=journal.last_row,
            segments=(journal.current.path,),
            row_group_rows=settings.row_group_rows,
            window_s=settings.twin_window_s,
        )
        parts += [part.path for part in partition.publish(task)]
    shutil.rmtree(journal.directory)
    return parts
