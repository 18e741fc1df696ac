"""Live readers: CPU of a record, and how many readers keep up with how many records a second.

    python -m benchmarks.live [--seconds 3] [--readers 1 16] [--rates 1000 5000] [--read all one batches]
    python -m benchmarks.live --looks [--against CHECKOUT]      # CPU of a record by the records of a look, in one process

    this process ──books, paced, two feeds──> rings ──> readers, each a process: three lines that print every message

What a reader reads: `all` symbols as objects, `one` symbol of SYMBOLS as objects, all symbols in `batches` of numpy records.
Latency: from just before a book is put into its ring to its message in the reader, by CLOCK_MONOTONIC. CPU: user and system of one
reader for each book in the rings, wanted or not, until it has all of them. Every book differs from all others, so that each must
come to each reader once; what is missing is counted. Behind: how long after the last book the last reader had everything.
With --against, rounds of this checkout and of another one take turns: on a loaded machine only their ratio is worth anything.
Not handled here: collectors and writer, which run beside readers in a real home.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from collectorctl.init import create_home
from collectorctl.reader.live import Live
from conf.home import Home
from ringbuf.records import ORDERBOOK, FeedId, Venue, empty_records
from ringbuf.ring import Producer

ROOT = Path(__file__).parents[1]
SYMBOLS = 20
ONE = 1
"""The symbol of a reader of one symbol."""
OBJECTS = """import collectorctl, sys, time
for message in collectorctl.open(sys.argv[1]).live({symbols}):
    print(1, time.monotonic_ns() - message.mono_ns)
"""
BATCHES = """import collectorctl, sys, time
for batch in collectorctl.open(sys.argv[1]).live().batches():
    print(len(batch.records), time.monotonic_ns() - batch.records["mono_ns"][0])
"""
READERS = {"all": OBJECTS.format(symbols=""), "one": OBJECTS.format(symbols=[f"{ONE:06}"]), "batches": BATCHES}
"""What a reader prints: how many books, and the latency of the first of them in ns."""
LAUNCHER = """import collectorctl, os, sys
code, home, *outputs = sys.argv[1:]
for output in outputs:
    if os.fork() == 0:
        os.dup2(os.open(output, os.O_WRONLY), 1)
        sys.argv[1:] = [home]
        exec(code)
for _ in outputs:
    os.wait()
"""
"""Starts a process for each reader: what they import is imported once."""
LOOKS = (3, 50)
"""Records that a look finds: at 5,000/s on an idle machine, and on one whose readers share their cores."""
CAPACITY = 65536
START_S = 180.0


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

    def publish(self, count: int = 1) -> None:
        """So many more."""
        for number in range(self.count + 1, self.count + count + 1):
            feed, producer = self._producers[number % 2]
            record = self._record
            record["line"], record["symbol"], record["cum_volume"] = feed, f"{number % SYMBOLS:06}".encode(), number
            record["recv_ns"] = record["exch_ns"] = time.time_ns()
            record["mono_ns"] = time.monotonic_ns()
            producer.publish(record)
        self.count += count

    def publish_paced(self, rate: int, seconds: float) -> None:
        """So many a second."""
        begin, sent = time.monotonic(), 0
        while (elapsed := time.monotonic() - begin) < seconds:
            due = int(elapsed * rate)
            self.publish(due - sent)
            sent = due
            time.sleep(1 / rate if rate else seconds)

    def close(self) -> None:
        """Unmap the rings."""
        for _, producer in self._producers:
            producer.close()


class Output:
    """What one reader has printed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.books = 0
        self.latency_ms: list[float] = []
        self._read_bytes = 0

    def read(self) -> int:
        """Take up what is new; how many books came since `forget`."""
        with self.path.open("rb") as file:
            file.seek(self._read_bytes)
            found = file.read()
        found = found[: found.rfind(b"\n") + 1]
        self._read_bytes += len(found)
        values = np.array(found.split(), np.int64)
        self.books += int(values[::2].sum())
        self.latency_ms += (values[1::2] / 1e6).tolist()
        return self.books

    def forget(self) -> None:
        """Count from here on."""
        self.read()
        self.books, self.latency_ms = 0, []


class Result(NamedTuple):
    """Of all readers of a case: latencies in ms, CPU of each in us for a book of the rings and as a share of a core, how long
    after the last book they had all, books that did not come.
    """

    sent: int
    latency_ms: list[float]
    cpu_us: float
    cpu_share: float
    behind_s: float
    missing: int


@contextmanager
def temporary_home() -> Iterator[Home]:
    """A home without processes."""
    root = Path(tempfile.mkdtemp(prefix="cb-", dir="/tmp"))
    create_home(root)
    home = Home(root)
    home.create_directories()
    try:
        yield home
    finally:
        shutil.rmtree(home.ring_directory.resolve(), ignore_errors=True)
        shutil.rmtree(root)


def measure(read: str, readers: int, rate: int, seconds: float, checkout: Path) -> Result:
    """One case, in a home of its own; readers run the code of `checkout`."""
    with temporary_home() as home, ExitStack() as stack:
        books = Books(home)
        stack.callback(books.close)
        outputs = [Output(home.root / f"reader-{number}") for number in range(readers)]
        for output in outputs:
            output.path.touch()
        command = [sys.executable, "-u", "-c", LAUNCHER, READERS[read], home.root, *(one.path for one in outputs)]
        environment = os.environ | {"PYTHONPATH": str(checkout)}
        launcher = subprocess.Popen(command, cwd=checkout, env=environment)
        stack.callback(_end, launcher)
        deadline_s = time.monotonic() + START_S
        while not all(output.read() for output in outputs):
            if time.monotonic() > deadline_s:
                raise SystemExit(f"a reader had no book within {START_S:.0f} s")
            books.publish(SYMBOLS)
            time.sleep(0.05)
        time.sleep(1.0)
        processes = psutil.Process(launcher.pid).children()
        for output in outputs:
            output.forget()
        used_s, first, begin_s = _count_cpu(processes), books.count, time.monotonic()
        books.publish_paced(rate, seconds)
        sent, end_s = books.count - first, time.monotonic()
        cpu_share = (_count_cpu(processes) - used_s) / (end_s - begin_s) / readers
        numbers = range(first + 1, books.count + 1)
        expected = sum(number % SYMBOLS == ONE for number in numbers) if read == "one" else sent
        while min([output.read() for output in outputs]) < expected and time.monotonic() < end_s + START_S:
            time.sleep(0.05)
        behind_s, cpu_s = time.monotonic() - end_s, _count_cpu(processes) - used_s
        latency_ms = [ms for output in outputs for ms in output.latency_ms]
        missing = expected * readers - sum(output.books for output in outputs)
        return Result(sent, latency_ms, cpu_s / max(sent, 1) / readers * 1e6, cpu_share, behind_s, missing)


def _end(launcher: subprocess.Popen[bytes]) -> None:
    for process in psutil.Process(launcher.pid).children():
        process.kill()
    launcher.kill()
    launcher.wait()


def _count_cpu(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def measure_look(read: str, per_look: int, records: int) -> float:
    """CPU us of a record: looks in this process, each of so many records."""
    with temporary_home() as home:
        books = Books(home)
        with Live(home, [f"{ONE:06}"] if read == "one" else None) as live:
            look = live.read_batches if read == "batches" else live.read
            books.publish(per_look)
            look()
            used_ns = 0
            for _ in range(records // per_look):
                books.publish(per_look)
                begin_ns = time.process_time_ns()
                look()
                used_ns += time.process_time_ns() - begin_ns
        books.close()
        return used_ns / (records // per_look * per_look) / 1000


def _measure_look_in(checkout: Path, read: str, per_look: int, records: int) -> float:
    """As `measure_look`, with the code of a checkout, in a process of its own."""
    command = [sys.executable, Path(__file__), "--child", read, str(per_look), str(records)]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    return float(subprocess.run(command, env=environment, cwd=checkout, capture_output=True, check=True).stdout)


def print_looks(checkouts: Sequence[Path], reads: Sequence[str], rounds: int, records: int) -> None:
    """The table of looks: one column for each checkout, and their ratio."""
    print(f"CPU us a record, by the records of a look: median (min to max) of {rounds} rounds in turn")
    print(f"{'read':<8} {'a look':>7}" + "".join(f" {one.name:>24}" for one in checkouts) + "  ratio")
    for read in reads:
        for per_look in LOOKS:
            found: list[list[float]] = [[] for _ in checkouts]
            for _ in range(rounds):
                for costs, checkout in zip(found, checkouts, strict=True):
                    costs.append(_measure_look_in(checkout, read, per_look, records))
            shown = (f"{statistics.median(c):8.1f} ({min(c):5.1f} to {max(c):5.1f})" for c in found)
            ratio = statistics.median(found[0]) / statistics.median(found[-1])
            print(f"{read:<8} {per_look:7}" + "".join(f" {one:>24}" for one in shown) + f"  {ratio:5.2f}", flush=True)


def print_readers(checkouts: Sequence[Path], options: argparse.Namespace) -> None:
    """The table of readers: one line for each case and checkout, medians of the rounds."""
    print(
        f"{'read':<8} {'readers':>7} {'books/s':>8} {'sent/s':>8} {'median ms':>10} {'p99 ms':>8} {'behind s':>8}"
        f" {'CPU us a book':>13} {'of a core':>9} {'missing':>8}"
    )
    for read in options.read:
        for readers in options.readers:
            for rate in options.rates:
                found: list[list[Result]] = [[] for _ in checkouts]
                for _ in range(options.rounds):
                    for results, checkout in zip(found, checkouts, strict=True):
                        results.append(measure(read, readers, rate, options.seconds, checkout))
                for checkout, results in zip(checkouts, found, strict=True):
                    _print_case(read, readers, rate, options.seconds, results, checkout.name * (len(checkouts) > 1))


def _print_case(read: str, readers: int, rate: int, seconds: float, results: list[Result], name: str) -> None:
    latencies = [one.latency_ms for one in results if one.latency_ms]
    p50, p99 = "-", "-"
    if latencies:
        p50 = f"{statistics.median(map(statistics.median, latencies)):.2f}"
        p99 = f"{statistics.median(statistics.quantiles(one, n=100)[98] for one in latencies):.2f}"
    sent, cpu_us, share, behind_s, missing = (
        statistics.median(column)
        for column in zip(*((r.sent, r.cpu_us, r.cpu_share, r.behind_s, r.missing) for r in results), strict=True)
    )
    cost = f"{cpu_us:.1f}" if sent else "-"
    print(
        f"{read:<8} {readers:7} {rate:8,} {sent / seconds:8,.0f} {p50:>10} {p99:>8} {behind_s:8.2f} {cost:>13} {share:9.1%}"
        f" {missing:8.0f}  {name}",
        flush=True,
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--looks", action="store_true", help="the table of looks instead of that of readers")
    parser.add_argument("--records", type=int, default=6000, help="of a measurement of looks")
    parser.add_argument("--read", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--readers", nargs="+", type=int, default=[1, 16])
    parser.add_argument(
        "--rates", nargs="+", type=int, default=[1000, 5000], help="books a second of both feeds together"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a case")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", type=Path, help="another checkout, whose rounds take turns with this one's")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        read, per_look, records = options.child
        print(measure_look(read, int(per_look), int(records)))
        return
    checkouts = [ROOT, *([options.against.resolve()] if options.against else [])]
    if options.looks:
        print_looks(checkouts, options.read, options.rounds, options.records)
    else:
        print_readers(checkouts, options)


if __name__ == "__main__":
    main()
