"""What the journal costs: `python -m benchmarks.journal [--against OTHER_CHECKOUT]`.

    append, sync   batches of books into a journal, and an fsync after every fifth, as five turns a second make them
    index          the index of all of them by symbol, every checksum included
    gather         all columns of the rows in the order of publication, a row group at a time (publish less the Parquet file)

With --against, the same is measured in another checkout in turn, in one run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIGURES = ("append_ms", "sync_ms", "index_s", "publish_s")


def measure(batches: int, rows: int) -> dict[str, float]:
    """One run; milliseconds a batch for append and sync, seconds for index and publication of everything."""
    sys.path.insert(0, str(ROOT / "tests"))
    import numpy as np
    from support.writer_data import NINE_NS, make_books

    from writer import schema
    from writer.ingest.book_arbiter import BookArbiter
    from writer.journal.entries import JOURNAL, build_entries
    from writer.journal.journal import Journal
    from writer.journal.row_index import JournalRows
    from writer.publish.partition import PublishTask, publish

    dataset = "kr.orderbook"
    arbiter = BookArbiter(5_000_000_000, ["KRX"])
    with tempfile.TemporaryDirectory(prefix="cc-") as directory:
        place = Path(directory)
        journal = Journal.open(place / "journal", JOURNAL[dataset])
        journal.roll([])
        append_s = sync_s = 0.0
        for number in range(batches):
            books = make_books(np.arange(number * rows, (number + 1) * rows), mono_ns=number * 200_000_000, symbols=100)
            result = arbiter.arbitrate(books, schema.compute_hours(books), journal.last_row + 1)
            entries = build_entries(dataset, books, journal.last_row + 1, result)
            begin = time.perf_counter()
            journal.append(entries, {"kis.orderbook": [1, journal.last_row]})
            appended = time.perf_counter()
            if number % 5 == 4:
                journal.sync()
            append_s, sync_s = append_s + appended - begin, sync_s + time.perf_counter() - appended
        journal.roll([])
        paths = [segment.path for segment in journal.segments[:-1]]
        begin = time.perf_counter()
        JournalRows(paths, JOURNAL[dataset]).build_index(NINE_NS, 0, journal.last_row, 1_000_000)
        indexed = time.perf_counter()
        task = PublishTask(
            dataset, place / "data", journal.lineage, NINE_NS, journal.last_row, tuple(paths), 65536, 5.0
        )
        publish(task)
        published = time.perf_counter()
        journal.close()
    return {
        "append_ms": append_s / batches * 1e3,
        "sync_ms": sync_s / batches * 1e3,
        "index_s": indexed - begin,
        "publish_s": published - indexed,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--once", action="store_true", help="measure once and print JSON")
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(measure(arguments.batches, arguments.rows)))
        return
    checkouts = [ROOT, *([arguments.against.resolve()] if arguments.against else [])]
    found: dict[Path, list[dict[str, float]]] = {checkout: [] for checkout in checkouts}
    command = [sys.executable, "-m", "benchmarks.journal", "--once"]
    command += ["--batches", str(arguments.batches), "--rows", str(arguments.rows)]
    for _ in range(arguments.times):
        for checkout in checkouts:
            environment = os.environ | {"PYTHONPATH": str(checkout)}
            ran = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=True)
            found[checkout].append(json.loads(ran.stdout))
    print(f"{arguments.batches} batches of {arguments.rows} books, median of {arguments.times}")
    print(f"{'':<30}" + "".join(f"{name:>14}" for name in FIGURES))
    for checkout, runs in found.items():
        medians = (statistics.median(run[name] for run in runs) for name in FIGURES)
        print(f"{checkout.name:<30}" + "".join(f"{median:>14.3f}" for median in medians))


if __name__ == "__main__":
    main()
