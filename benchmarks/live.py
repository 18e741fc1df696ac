"""Live readers: from the ring into a message, and what a reader costs. `python -m benchmarks.live [--seconds 10]`.

    this process ──books, paced, two feeds──> rings ──> readers, each a process: three lines that print every message

Latency: from just before a book is put into its ring to its message in the reader, by CLOCK_MONOTONIC. CPU: user and system of one
reader, as a share of a core. Every book differs from all others, so that each must come to each reader once; what is missing is
counted. Not handled here: collectors and writer, which run beside readers in a real home.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from collectorctl.init import create_home
from conf.home import Home
from ringbuf.records import ORDERBOOK, FeedId, Venue, empty_records
from ringbuf.ring import Producer

READER = """import collectorctl, sys, time
for message in collectorctl.open(sys.argv[1]).live():
    print(message[3], time.monotonic_ns() - message.mono_ns)
"""
CASES = ((1, 0), (1, 1000), (1, 5000), (16, 1000), (16, 5000))
"""Readers, and books a second of both feeds together."""
SYMBOLS = 20
CAPACITY = 65536
START_S = 60.0


class Books:
    """Both feeds' rings of a home, and the books that go into them in turn."""

    def __init__(self, home: Home) -> None:
        self._producers = [
            (feed, Producer.open(home.ring_path(feed.name.lower(), "orderbook"), ORDERBOOK, CAPACITY))
            for feed in (FeedId.KIS, FeedId.KIWOOM)
        ]
        self._record = empty_records(ORDERBOOK, 1)
        self._record["venue"] = Venue.KRX
        levels = np.arange(10) * 1_000_000
        self._record["ask_price_e4"], self._record["bid_price_e4"] = 701_000_000 + levels, 700_000_000 - levels
        self._record["ask_size"] = self._record["bid_size"] = 5
        self.count = 0

    def publish(self) -> None:
        """One more."""
        self.count += 1
        feed, producer = self._producers[self.count % 2]
        record = self._record
        record["line"], record["symbol"], record["cum_volume"] = feed, f"{self.count % SYMBOLS:06}".encode(), self.count
        record["recv_ns"] = record["exch_ns"] = time.time_ns()
        record["mono_ns"] = time.monotonic_ns()
        producer.publish(record)

    def publish_paced(self, rate: int, seconds: float) -> None:
        """So many a second."""
        begin, sent = time.monotonic(), 0
        while (elapsed := time.monotonic() - begin) < seconds:
            for _ in range(int(elapsed * rate) - sent):
                self.publish()
                sent += 1
            time.sleep(1 / rate if rate else seconds)

    def close(self) -> None:
        """Unmap the rings."""
        for _, producer in self._producers:
            producer.close()


class Result(NamedTuple):
    """Of all readers of a case: latencies in ms, CPU of each as a share of a core, books that did not come."""

    sent: int
    latency_ms: list[float]
    cpu: list[float]
    missing: int


def measure(readers: int, rate: int, seconds: float) -> Result:
    """One case, in a home of its own."""
    root = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
    create_home(root)
    home = Home(root)
    home.create_directories()
    books = Books(home)
    outputs = [root / f"reader-{number}" for number in range(readers)]
    try:
        with ExitStack() as stack:
            processes = []
            for output in outputs:
                file = stack.enter_context(output.open("w"))
                process = subprocess.Popen([sys.executable, "-u", "-c", READER, root], stdout=file)
                stack.callback(process.wait)
                stack.callback(process.kill)
                processes.append(process)
            deadline = time.monotonic() + START_S
            while not all(output.stat().st_size for output in outputs):
                if time.monotonic() > deadline:
                    raise SystemExit(f"a reader had no book within {START_S:.0f} s")
                books.publish()
                time.sleep(0.05)
            time.sleep(1.0)
            before = [output.stat().st_size for output in outputs]
            watched = [psutil.Process(process.pid) for process in processes]
            used = [sum(one.cpu_times()[:2]) for one in watched]
            first, begin = books.count, time.monotonic()
            books.publish_paced(rate, seconds)
            elapsed = time.monotonic() - begin
            cpu = [(sum(one.cpu_times()[:2]) - was) / elapsed for one, was in zip(watched, used, strict=True)]
            sent = books.count - first
            deadline = time.monotonic() + START_S
            while time.monotonic() < deadline and any(
                _count_lines(*one) < sent for one in zip(outputs, before, strict=True)
            ):
                time.sleep(0.1)
        lines = [line.split() for one in zip(outputs, before, strict=True) for line in _read_lines(*one)]
        return Result(sent, [int(ns) / 1e6 for _, ns in lines], cpu, sent * readers - len(lines))
    finally:
        books.close()
        shutil.rmtree(home.ring_directory.resolve(), ignore_errors=True)
        shutil.rmtree(root)


def _read_lines(path: Path, begin: int) -> list[bytes]:
    return path.read_bytes()[begin:].splitlines()


def _count_lines(path: Path, begin: int) -> int:
    return len(_read_lines(path, begin))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a case")
    options = parser.parse_args()
    print(
        f"{'readers':>7} {'books/s':>8} {'sent/s':>8} {'median ms':>10} {'p99 ms':>8} {'CPU of a reader':>16} {'missing':>8}"
    )
    for readers, rate in CASES:
        result = measure(readers, rate, options.seconds)
        median, p99 = "-", "-"
        if result.latency_ms:
            median = f"{statistics.median(result.latency_ms):.2f}"
            p99 = f"{statistics.quantiles(result.latency_ms, n=100)[98]:.2f}"
        print(
            f"{readers:7} {rate:8,} {result.sent / options.seconds:8,.0f} {median:>10} {p99:>8}"
            f" {statistics.median(result.cpu):16.1%} {result.missing:8}",
            flush=True,
        )


if __name__ == "__main__":
    main()
