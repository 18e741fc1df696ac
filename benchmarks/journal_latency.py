"""What the writer costs, and how soon a record is in the journal: `python -m benchmarks.journal_latency [--rates 100 1000]`.

    this process ──so many books a second and feed──> two rings ──> python -m writer ──> journal <──each new frame── this process

Both feeds bring the same books, kiwoom a millisecond later. "ms": from the record's stamp, just before it is published in its ring,
until this process, which looks every two milliseconds, has read it from the journal. CPU: of the writer, user and system.

With --against, the same is measured with another checkout's writer in turn, in one run.
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
SETTLE_S = 2.0
LOOK_S = 0.002
FIGURES = ("p50_ms", "p99_ms", "cpu_percent", "cpu_us", "frames_s", "frame_bytes")


def measure(rate: float, seconds: float) -> dict[str, float]:
    """One run: quantiles of the latency, the writer's share of a core and CPU a record, frames a second, bytes a frame."""
    import numpy as np
    import psutil
    from support.writer_data import make_books, make_home, read_running_vitals, start_writer, stop_writer, wait_for

    from ringbuf.records import ORDERBOOK, FeedId
    from ringbuf.ring import Producer
    from writer.journal.reader import read_rows

    with tempfile.TemporaryDirectory(prefix="cc-", dir="/tmp") as directory:
        home = make_home(Path(directory))
        rings = {
            feed: Producer.open(home.ring_path(feed.name.lower(), "orderbook"), ORDERBOOK, 1 << 15)
            for feed in (FeedId.KIS, FeedId.KIWOOM)
        }
        writer = start_writer(home)
        wait_for(lambda: read_running_vitals(home, writer))
        process, ends = psutil.Process(writer.pid), dict[Path, int]()
        books = {feed: make_books(range(int(rate * (seconds + SETTLE_S)) + 1), feed, symbols=20) for feed in rings}
        lags_ns: list[np.ndarray] = []
        frames, begin_ns, sent, measured_ns, cpu_s = 0, time.monotonic_ns(), dict.fromkeys(rings, 0), 0, 0.0
        journal = home.journal_directory("kr.orderbook")
        while (elapsed_s := (time.monotonic_ns() - begin_ns) / 1e9) < seconds + SETTLE_S:
            for feed, ring in rings.items():
                due = int(rate * (elapsed_s - 0.001 * (feed == FeedId.KIWOOM)))
                while sent[feed] < due:
                    book = books[feed][sent[feed] : sent[feed] + 1]
                    book["mono_ns"], book["recv_ns"] = time.monotonic_ns(), time.time_ns()
                    book["exch_ns"] = book["recv_ns"] // 10**9 * 10**9
                    ring.publish(book)
                    sent[feed] += 1
            found = list(read_rows(journal, None, ends))
            if not measured_ns and elapsed_s >= SETTLE_S:
                measured_ns, cpu_s, size = time.monotonic_ns(), sum(process.cpu_times()[:2]), _count_bytes(journal)
            elif measured_ns:
                frames += len(found)
                lags_ns += [time.monotonic_ns() - entries.column("mono_ns").to_numpy() for entries in found]
            time.sleep(LOOK_S)
        cpu_s = sum(process.cpu_times()[:2]) - cpu_s
        took_s, size = (time.monotonic_ns() - measured_ns) / 1e9, _count_bytes(journal) - size
        for ring in rings.values():
            ring.close()
        stop_writer(writer)
    lags_ms = np.concatenate(lags_ns) / 1e6
    return {
        "p50_ms": float(np.quantile(lags_ms, 0.5)),
        "p99_ms": float(np.quantile(lags_ms, 0.99)),
        "cpu_percent": 100 * cpu_s / took_s,
        "cpu_us": 1e6 * cpu_s / len(lags_ms),
        "frames_s": frames / took_s,
        "frame_bytes": size / frames,
    }


def _count_bytes(journal: Path) -> int:
    return sum(path.stat().st_size for path in journal.glob("*.journal"))


def main() -> None:
    """Print a table a rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=float, nargs="+", default=[10.0, 100.0, 1000.0], help="books a second and feed")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--once", type=float, help="measure this rate once and print JSON")
    options = parser.parse_args()
    if options.once is not None:
        print(json.dumps(measure(options.once, options.seconds)))
        return
    checkouts = [ROOT, *([options.against.resolve()] if options.against else [])]
    for rate in options.rates:
        found: dict[Path, list[dict[str, float]]] = {checkout: [] for checkout in checkouts}
        command = [sys.executable, "-P", __file__, "--once", str(rate), "--seconds", str(options.seconds)]
        for _ in range(options.times):
            for checkout in checkouts:
                environment = os.environ | {"PYTHONPATH": f"{checkout}:{checkout / 'tests'}"}
                ran = subprocess.run(
                    command, cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True, check=True
                )
                found[checkout].append(json.loads(ran.stdout.splitlines()[-1]))
        print(f"{rate:g} books/s a feed, {options.seconds:g} s, median of {options.times}")
        print(f"{'':<24}" + "".join(f"{name:>13}" for name in FIGURES))
        for checkout, runs in found.items():
            medians = (statistics.median(run[name] for run in runs) for name in FIGURES)
            print(f"{checkout.name:<24}" + "".join(f"{median:>13.1f}" for median in medians), flush=True)


if __name__ == "__main__":
    main()
