"""The ring between processes: producers that flood it and are killed at random instants, a reader that is lapped all the time.

Records prove themselves: every number of a record follows from its counter, so that a torn one is seen.

    counter = life * 2**32 + n      the n-th record of the life-th producer process
    words   = counter * odd + 0, 1, 2 ...
    total   = sum of the words
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from ringbuf import layout
from ringbuf.ring import Consumer, Producer

KILLS = 120

LIFE = 2**32
_ODD = 0x9E3779B97F4A7C15 - 2**64
WORDS = 60

CHECKED = np.dtype([("seq", "<i8"), ("counter", "<i8"), ("words", "<i8", (WORDS,)), ("total", "<i8")])


def make(life: int, first: int, count: int) -> np.ndarray:
    """`count` records of the producer `life`, from its `first`-th on."""
    records = np.zeros(count, CHECKED)
    records["counter"] = life * LIFE + np.arange(first, first + count)
    records["words"] = records["counter"][:, None] * np.int64(_ODD) + np.arange(WORDS)
    records["total"] = records["words"].sum(axis=1)
    return records


def torn(records: np.ndarray) -> list[int]:
    """Sequence numbers of the records that do not agree with themselves."""
    words = records["counter"][:, None] * np.int64(_ODD) + np.arange(WORDS)
    bad = (records["words"] != words).any(axis=1) | (records["total"] != words.sum(axis=1))
    return records["seq"][bad].tolist()


def out_of_order(records: np.ndarray) -> list[int]:
    """Sequence numbers of the records that do not follow the one before: a hole or repeat in the producer's own count."""
    counters = records["counter"]
    follows = np.diff(counters) == np.diff(records["seq"])
    new_life = counters[1:] // LIFE > counters[:-1] // LIFE
    return records["seq"][1:][~(follows | new_life)].tolist()


@contextmanager
def child(body: Callable[[], None]) -> Iterator[int]:
    """Run `body` in a process of its own; its pid. Forked, so that hundreds can be had in seconds; gone at the end."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            body()
            code = 0
        finally:
            os._exit(code)
    try:
        yield pid
    finally:
        with suppress(ChildProcessError):  # the test has waited for it already
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def flood(path: Path, capacity: int, life: int, most: int, count: int | None = None) -> None:
    """Publish at full speed in batches of 1 to `most`: `count` records, or until killed."""
    producer = Producer.open(path, CHECKED, capacity)
    sizes = random.Random(life)
    sent = 0
    while count is None or sent < count:
        part = make(life, sent + 1, 10_000)
        begin = 0
        while begin < len(part):
            end = begin + sizes.randint(1, most)
            producer.publish(part[begin:end])
            begin = end
        sent += len(part)


class Reader:
    """Reads on from where it is and keeps count; every record is checked, every number must be delivered or lost once."""

    def __init__(self, path: Path) -> None:
        self.ring = Consumer.open(path, CHECKED)
        self.next_seq = 1
        self.delivered = self.lost = self.losses = 0
        self._last = np.zeros(0, CHECKED)

    def read(self, most: int) -> int:
        batch = self.ring.read(self.next_seq, most)
        if batch.loss is not None:
            assert batch.loss.first_seq == self.next_seq <= batch.loss.last_seq
            self.lost += batch.loss.last_seq - batch.loss.first_seq + 1
            self.losses += 1
        assert torn(batch.records) == []
        in_order = np.concatenate([self._last, batch.records])
        assert out_of_order(in_order) == []
        self._last = in_order[-1:]
        self.delivered += len(batch.records)
        self.next_seq = batch.next_seq
        assert self.delivered + self.lost == self.next_seq - 1
        return len(batch.records)


@pytest.mark.parametrize(("capacity", "most"), [(5, 3), (64, 40)])
def test_a_reader_that_is_lapped_all_the_time_gets_only_whole_records(tmp_path: Path, capacity: int, most: int) -> None:
    """A tiny ring under a flood: every delivered record is whole and in order, and delivered + lost = published."""
    path, published = tmp_path / "ring", 300_000
    Producer.open(path, CHECKED, capacity).close()
    reader = Reader(path)
    with child(lambda: flood(path, capacity, 1, most, published)) as pid:
        ended = None
        while ended is None:
            for _ in range(200):
                reader.read(capacity)
            waited, status = os.waitpid(pid, os.WNOHANG)
            ended = status if waited else None
    while reader.read(capacity):
        pass

    assert ended == 0
    assert reader.delivered + reader.lost == published
    assert reader.delivered > 0
    assert reader.losses > 20  # else the test tested nothing


def test_producers_killed_at_any_instant_leave_a_ring_that_goes_on(tmp_path: Path) -> None:
    """SIGKILL again and again during a flood, a reader beside it: nothing torn, no number missing or repeated."""
    path, chance = tmp_path / "ring", random.Random(7)
    Producer.open(path, CHECKED, 256).close()
    reader = Reader(path)
    died_within_a_publish = heads = 0

    for life in range(1, KILLS + 1):
        begin = reader.ring.head
        with child(lambda life=life: flood(path, 256, life, 250)) as pid:
            give_up = time.monotonic() + 20
            while reader.ring.head == begin:
                assert time.monotonic() < give_up, "the next producer does not continue the ring"
            enough = time.monotonic() + chance.uniform(0, 0.02)
            while time.monotonic() < enough:
                reader.read(chance.randint(1, 300))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        head = reader.ring.head
        died_within_a_publish += int(reader.ring._header[layout.CLAIM]) > head
        while reader.read(300):
            pass
        assert reader.next_seq == head + 1
        assert not reader.ring.is_producer_alive()
        heads += head > begin

    assert heads == KILLS
    assert died_within_a_publish > 0  # else no kill ever hit the interesting instants
    assert reader.delivered > 0
