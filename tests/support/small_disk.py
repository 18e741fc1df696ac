"""A disk of a few megabytes to fill, lines to feed the writer with, and what must be on disk afterwards."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.writer_data import NINE_NS, make_books, make_ticks, read_published

from brokers.simulator import ground_truth
from collectorctl.demo.oracle import compare
from conf.home import Home
from ringbuf.records import ORDERBOOK, TICK, FeedId
from ringbuf.ring import Producer


@contextmanager
def small_disk(at: Path, megabytes: int) -> Iterator[Path]:
    """A file system of that size mounted at `at`; the test is skipped where nobody may mount."""
    at.mkdir(parents=True, exist_ok=True)
    ran = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", at], capture_output=True, text=True, check=False
    )
    if ran.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {ran.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", at], check=True)


def remount(at: Path, options: str) -> None:
    """Change a mounted disk, e.g. "ro"."""
    subprocess.run(["mount", "-o", f"remount,{options}", at], check=True)


def fill_disk(disk: Path) -> Path:
    """Leave no byte; the file that has to go to make room again."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            while True:
                try:
                    file.write(bytes(size))
                except OSError:
                    break
    return ballast


class RingFeeder:
    """Both lines' rings, filled with the same books, and with ticks that are each on one of them, all numbered on and on."""

    def __init__(self, home: Home, book_capacity: int = 65536, tick_capacity: int = 65536) -> None:
        self.books = self.ticks = 0
        self._rings = {
            (line, stream): Producer.open(home.ring_path(line.name.lower(), stream), dtype, capacity)
            for line in (FeedId.KIS, FeedId.KIWOOM)
            for stream, dtype, capacity in (("orderbook", ORDERBOOK, book_capacity), ("tick", TICK, tick_capacity))
        }

    def publish(self, book_count: int, tick_count: int | None = None) -> None:
        """The next books, on both lines, and so many ticks on each line (half as many as books unless told)."""
        tick_count = book_count // 2 if tick_count is None else tick_count
        numbers = np.arange(self.books, self.books + book_count)
        self.books += book_count
        now_ns = time.monotonic_ns()
        for line in (FeedId.KIS, FeedId.KIWOOM):
            self._rings[line, "orderbook"].publish(make_books(numbers, line, NINE_NS, now_ns))
            self._rings[line, "tick"].publish(
                make_ticks(np.arange(self.ticks, self.ticks + tick_count), line, NINE_NS, now_ns)
            )
            self.ticks += tick_count

    def run(self, seconds: float, books_per_s: int, ticks_per_s: int) -> None:
        """So many books and ticks a second on each line, in portions of 50 ms; a portion that comes late comes whole."""
        begin, done = time.monotonic(), 0
        while done < round(seconds / 0.05):
            time.sleep(max(0.0, begin + done * 0.05 - time.monotonic()))
            self.publish(books_per_s // 20, ticks_per_s // 20)
            done += 1

    @property
    def records(self) -> int:
        """All that was put into rings."""
        return 2 * self.books + self.ticks

    def close(self) -> None:
        """The collectors are gone."""
        for ring in self._rings.values():
            ring.close()

    def assert_stored_once(self, home: Home) -> None:
        """Each book once with both arrivals, each tick once."""
        stored = read_published(home)
        assert Counter(range(self.books)) == Counter(stored["cum_volume"])
        assert self.books == stored["recv_time_kis"].notna().sum() == stored["recv_time_kiwoom"].notna().sum()
        assert Counter(range(self.ticks)) == Counter(read_published(home, "tick")["cum_volume"])


def find_problems(root: Path, truth_directory: Path) -> list[str]:
    """What of the simulator's truth at `told` is missing from, doubled or wrong in the home's files."""
    truth = ground_truth.load(truth_directory)
    ended: Mapping[tuple[int, int], int] = {
        (c["line"], c["connection"]): c["ended_mono_ns"] for c in truth.connections if c["ended_mono_ns"]
    }
    rows = [pd.read_parquet(root / "data" / "kr" / stream) for stream in ("orderbook", "tick")]
    return compare(truth.books, truth.trades, truth.deliveries, ended, *rows).problems()
