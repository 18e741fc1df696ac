"""CPU per record of a ring, both sides, at 1, 5 and 100 records a publish: `python -m benchmarks.ring [--runs 5]`.

    rows --publish_rows--> ring --read--> array        in turn, so that each read finds what one publish brought
    rows --publish-------> ring                        as an array, where the checkout has no publish_rows
    rows --send--> pyzmq over ipc, a pipe of multiprocessing --receive-->    each record a message; neither keeps what was read

The ratio is to a plain copy of the same bytes in the same run; threads of a library count.
Another checkout: `PYTHONPATH=CHECKOUT python benchmarks/ring.py`.
Not handled here: decoding (decode.py, receive.py), processes beside each other (tests/ringbuf/test_ring_processes.py).
"""

from __future__ import annotations

import argparse
import multiprocessing
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


def measure_messages(
    send: Callable[[bytes], object], receive: Callable[[], object], dtype: np.dtype, batch: int
) -> float:
    """CPU us a record through a channel of messages."""
    row = empty_records(dtype, 1).tobytes()

    def through() -> None:
        for _ in range(batch):
            send(row)
        for _ in range(batch):
            receive()

    return time_cpu_us(RECORDS // batch, RECORDS, through)


def measure_peers(directory: Path, dtype: np.dtype, batch: int, runs: int) -> dict[str, list[float]]:
    """CPU us a record through what else a process may send records by; pyzmq is left out where it is missing."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    with reader, writer:
        found = {"pipe": [measure_messages(writer.send_bytes, reader.recv_bytes, dtype, batch) for _ in range(runs)]}
    try:
        import zmq
    except ImportError:
        return found
    with zmq.Context() as context, context.socket(zmq.PUSH) as sender, context.socket(zmq.PULL) as receiver:
        sender.bind(f"ipc://{directory}/zmq")
        receiver.connect(f"ipc://{directory}/zmq")
        return found | {"pyzmq": [measure_messages(sender.send, receiver.recv, dtype, batch) for _ in range(runs)]}


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
                peers = measure_peers(Path(directory), dtype, batch, options.runs)
                print(
                    f"{stream:10} {batch:4} a publish {format_runs(ring)} {ratio:6.0f} x"
                    + "".join(f"   {name} {format_runs(costs)}" for name, costs in peers.items()),
                    flush=True,
                )


def format_runs(costs: list[float]) -> str:
    """Median, least and most."""
    return f"{statistics.median(costs):7.2f} ({min(costs):5.2f} to {max(costs):5.2f})"


if __name__ == "__main__":
    main()
