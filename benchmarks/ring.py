"""How fast a ring is, as ratios to a plain numpy copy of the same bytes in the same run.

    python -m benchmarks.ring [RECORDS]

Figures are the best of five; nothing is asserted: machines differ, ratios less.
Leaves to others: decoding (benchmarks/decode.py), processes beside each other (tests/ringbuf/test_ring_processes.py).
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ringbuf.records import STREAMS, empty_records
from ringbuf.ring import Consumer, Producer

CAPACITY = 65_536
ROUNDS = 5


def best_rate(count: int, run: Callable[[], None]) -> float:
    """Records per second in the fastest of the rounds."""
    fastest_s = float("inf")
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        run()
        fastest_s = min(fastest_s, time.perf_counter() - begin)
    return count / fastest_s


def measure(path: Path, dtype: np.dtype, count: int, batch: int) -> tuple[float, float, float]:
    """Records per second, copied, published and read in batches; `count` fits into the ring, so nothing is lost."""
    producer = Producer.open(path, dtype, CAPACITY)
    consumer = Consumer.open(path, dtype)
    records, copies = empty_records(dtype, count), empty_records(dtype, count)
    opaque = np.dtype((np.void, dtype.itemsize))  # numpy copies structured records field by field, ten times slower
    source, target = records.view(opaque), copies.view(opaque)
    parts = [slice(at, at + batch) for at in range(0, count, batch)]

    def copy() -> None:
        for part in parts:
            target[part] = source[part]

    def publish() -> None:
        for part in parts:
            producer.publish(records[part])

    def read() -> None:
        next_seq = producer.head - count + 1
        while next_seq <= producer.head:
            next_seq = consumer.read(next_seq, batch).next_seq

    rates = best_rate(count, copy), best_rate(count, publish), best_rate(count, read)
    producer.close()
    consumer.close()
    path.unlink()
    return rates


def main(count: int) -> None:
    """Print the table."""
    print(f"{count:,} records a round, best of {ROUNDS}; x = times the cost of a plain numpy copy of the same batches")
    print(f"{'stream':10} {'batch':>5} {'copy/s':>12} {'publish/s':>12} {'x':>6} {'read/s':>12} {'x':>6}")
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as directory:
        for stream, dtype in STREAMS.items():
            for batch in (1, 100):
                copied, published, read = measure(Path(directory) / "ring", dtype, count, batch)
                print(
                    f"{stream:10} {batch:5} {copied:12,.0f} {published:12,.0f} {copied / published:6.1f} "
                    f"{read:12,.0f} {copied / read:6.1f}"
                )


if __name__ == "__main__":
    main(min(int(sys.argv[1]) if len(sys.argv) > 1 else 40_000, CAPACITY))
