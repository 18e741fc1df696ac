"""CPU per record of a ring, both sides, at 1, 5 and 100 records a publish: `python -m benchmarks.ring [--runs 5]`.

    rows --publish_rows--> ring --read--> array        in turn, so that each read finds what one publish brought
    rows --publish-------> ring                        as an array, where the checkout has no publish_rows

The ratio is to a plain copy of the same bytes in the same run. Another checkout: `PYTHONPATH=CHECKOUT python benchmarks/ring.py`.
Not handled here: decoding (decode.py, receive.py), processes beside each other (tests/ringbuf/test_ring_processes.py).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ringbuf.records import STREAMS, empty_records
from ringbuf.ring import Consumer, Producer

CAPACITY = 65_536
RECORDS = 20_000


def time_cpu_us(turns: int, records: int, turn: Callable[[], None]) -> float:
    """CPU us a record of so many turns."""
    begin = time.process_time()
    for _ in range(turns):
        turn()
    return (time.process_time() - begin) / records * 1e6


def measure(path: Path, dtype: np.dtype, batch: int, runs: int) -> tuple[list[float], list[float]]:
    """CPU us a record through the ring, and of a plain copy, by run."""
    producer, consumer = Producer.open(path, dtype, CAPACITY), Consumer.open(path, dtype)
    records = empty_records(dtype, batch)
    rows = [bytearray(record.tobytes()) for record in records]
    target, source = bytearray(records.nbytes), records.tobytes()
    publish_rows = getattr(producer, "publish_rows", None)
    next_seq = 1

    def through_ring() -> None:
        nonlocal next_seq
        if publish_rows is not None:
            publish_rows(rows)
        else:
            producer.publish(records)
        next_seq = consumer.read(next_seq, 1000).next_seq

    def copy() -> None:
        target[:] = source

    turns = RECORDS // batch
    pairs = [(time_cpu_us(turns, RECORDS, through_ring), time_cpu_us(turns, RECORDS, copy)) for _ in range(runs)]
    producer.close()
    consumer.close()
    path.unlink()
    return [ring for ring, _ in pairs], [plain for _, plain in pairs]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    print(f"CPU us a record, published and read: median (min to max) of {options.runs} runs; x = times a plain copy")
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as directory:
        for stream, dtype in STREAMS.items():
            for batch in (1, 5, 100):
                ring, plain = measure(Path(directory) / "ring", dtype, batch, options.runs)
                ratio = statistics.median(ring) / statistics.median(plain)
                print(
                    f"{stream:10} {batch:4} a publish {statistics.median(ring):7.2f} ({min(ring):5.2f} to {max(ring):5.2f})"
                    f" {ratio:6.0f} x",
                    flush=True,
                )


if __name__ == "__main__":
    main()
