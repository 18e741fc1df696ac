"""Power cuts at every effect on the disk: what was durable is there once after recovery, whatever of the rest is lost or torn."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from loguru import logger
from support.crash_disk import CrashDisk, Tree, write_tree
from support.former_journal import write_former_segment
from support.writer_data import NINE_NS, SECOND_NS, make_books, make_home, make_ticks

from conf.home import Home
from ringbuf.events import EventPublisher
from ringbuf.records import RINGS, EventType, FeedId
from ringbuf.ring import Producer
from ringbuf.vitals import Vitals
from writer import durable_io, schema
from writer.dataset import Dataset
from writer.ingest.ring_reader import NO_LIMIT_NS
from writer.journal.journal import Journal
from writer.journal.reader import read_rows
from writer.publish import partition

HOUR_NS = 3600 * SECOND_NS
KEYS = {"orderbook": "cum_volume", "tick": "cum_volume", "event": "message"}


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory in memory, where there is one: thousands of files are synced."""
    logger.disable("writer")
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="cc-", dir=memory if memory.is_dir() else None))
    yield path
    shutil.rmtree(path)
    logger.enable("writer")


def open_dataset(home: Home, name: str) -> Dataset:
    """The dataset as the writer opens it."""
    return Dataset(home, name, Vitals.create(home.vitals_path("writer"), "writer"))


def publish_hour(dataset: Dataset, hour: int) -> None:
    """Publish an hour as the coordinator does."""
    task = dataset.build_publish_task(hour, include_unsettled=True)
    partition.publish(task)
    dataset.schedule.mark_published(hour, task.row_to, hour + 2 * HOUR_NS)
    dataset.prune_journal()


def recover(home: Home, name: str) -> Counter:
    """The writer's next life on a disk: journal, publication of everything; the keys of what is stored then."""
    dataset = open_dataset(home, name)
    for hour in dataset.schedule.unpublished_hours():
        publish_hour(dataset, hour)
    dataset.begin_segment()
    dataset.prune_journal()
    dataset.close()
    assert [] == list(read_rows(home.journal_directory(name)))
    return stored_in(home, name)


def stored_in(home: Home, name: str) -> Counter:
    """The keys of the published rows."""
    market, _, stream = name.partition(".")
    parts = sorted((home.data / market / stream).rglob("part-*.parquet"))
    tables = [partition.pq.read_table(path, columns=[KEYS[stream]], partitioning=None) for path in parts]
    return Counter(key for table in tables for key in table.column(0).to_pylist())


class Feed:
    """A ring of one dataset, and the keys of what was put into it."""

    def __init__(self, home: Home, name: str) -> None:
        self.keys: set = set()
        self._stream = name.partition(".")[2]
        path = home.ring_path("kis", self._stream)
        self._events = EventPublisher(path, FeedId.KIS, home.load_clock()) if self._stream == "event" else None
        self._ring = None if self._events else Producer.open(path, RINGS[self._stream], 256)

    def publish(self, numbers: range, hour: int) -> None:
        """Records of that hour."""
        if self._events is not None:
            for number in numbers:
                self._events.emit(EventType.PHASE, f"number {number}")
            self.keys |= {f"number {number}" for number in numbers}
        elif self._ring is not None:
            make = make_books if self._stream == "orderbook" else make_ticks
            self._ring.publish(make(np.array(numbers), exch_ns=hour))
            self.keys |= set(numbers)

    def close(self) -> None:
        """The collector is gone."""
        for ring in (self._events, self._ring):
            if ring is not None:
                ring.close()


def play(home: Home, name: str, durable: set) -> None:
    """Two lives of a dataset: hours, late rows, segments, publications; `durable` has the keys of what is durable."""
    feed = Feed(home, name)
    for life in range(2):
        dataset = open_dataset(home, name)
        begin = 100 * life
        feed.publish(range(begin, begin + 5), NINE_NS)
        take(dataset, feed, durable)
        feed.publish(range(begin + 5, begin + 10), NINE_NS + HOUR_NS)
        dataset.process_batch(NO_LIMIT_NS, NO_LIMIT_NS)
        dataset.begin_segment()
        durable |= feed.keys
        publish_hour(dataset, min(dataset.schedule.unpublished_hours()))
        feed.publish(range(begin + 10, begin + 15), NINE_NS)  # late
        take(dataset, feed, durable)
        for hour in dataset.schedule.unpublished_hours() if life else ():
            publish_hour(dataset, hour)
        dataset.close()
    feed.close()


def take(dataset: Dataset, feed: Feed, durable: set) -> None:
    """Journal what is in the ring, durably."""
    dataset.process_batch(NO_LIMIT_NS, NO_LIMIT_NS)
    dataset.sync()
    durable |= feed.keys


class Found:
    """The distinct trees of a run, each with what had to be durable."""

    def __init__(self) -> None:
        self.durable: set = set()
        self.disk: CrashDisk | None = None
        self.trees: dict[int, tuple[str, Tree, frozenset]] = {}

    def note(self, name: str, path: Path) -> None:
        """An effect is about to happen."""
        if self.disk is None:
            return
        durable = frozenset(self.durable)
        for tree in self.disk.possible_trees():
            number = hash((frozenset(tree.items()), durable))
            self.trees.setdefault(number, (f"{name} {path}", tree, durable))


def judge(found: Found, shared: Path, name: str, all_keys: set) -> None:
    """Recover each tree: what was durable is there, and nothing twice."""
    for number, (where, tree, durable) in enumerate(found.trees.values()):
        home = make_home(shared / f"after-{number}")
        write_tree(tree, home.data)

        stored = recover(home, name)

        assert durable <= stored.keys(), (where, sorted(tree))
        assert {1} >= set(stored.values()) and stored.keys() <= all_keys, (where, sorted(tree))
        shutil.rmtree(home.root)


@pytest.mark.parametrize("name", ["kr.orderbook", "kr.tick", "kr.event"])
def test_a_power_cut_at_any_effect_leaves_every_durable_row_once(shared: Path, name: str) -> None:
    """Files and names that were not synced are lost, kept or torn in every combination; directories included."""
    home, found = make_home(shared / "home"), Found()
    found.disk = CrashDisk(home.data, found.note)
    with found.disk.installed():
        play(home, name, found.durable)
    found.note("end", home.data)

    assert len(found.trees) > 50
    judge(found, shared, name, found.durable)


def test_a_power_cut_at_any_effect_of_an_upgrade_leaves_every_row_once(shared: Path) -> None:
    """Segments of the format before are replaced one by one."""
    home, found, rows = make_home(shared / "home"), Found(), schema.JOURNAL["kr.tick"]
    directory = home.journal_directory("kr.tick")
    for number in (1, 2):
        numbers = range(10 * number, 10 * number + 10)
        batch = schema.build_entries("kr.tick", make_ticks(numbers), 10 * number - 9, None)
        appended = [(batch, {"positions": {}, "last_row": 10 * number})]
        write_former_segment(directory / f"{number:012d}.arrows", rows, "0" * 32, appended)
    found.durable = set(range(10, 30))
    found.disk = CrashDisk(home.data, found.note)
    with found.disk.installed():
        journal = Journal.open(directory, rows)
        journal.roll([])
        journal.close()
    found.note("end", home.data)

    assert len(found.trees) > 10
    judge(found, shared, "kr.tick", found.durable)


def test_a_new_directory_is_durable_with_all_its_parents(shared: Path) -> None:
    """Also those that another process made and did not sync, in its last instant."""
    disk = CrashDisk(shared)
    with disk.installed():
        disk.mkdir(shared / "data")
        disk.mkdir(shared / "data" / "kr")
        durable_io.create_directory(shared / "data" / "kr" / "tick" / "date=2026-11-20")

    (tree,) = {frozenset(tree.items()) for tree in disk.possible_trees()}
    assert {name for name, _ in tree} == {"data", "data/kr", "data/kr/tick", "data/kr/tick/date=2026-11-20"}
