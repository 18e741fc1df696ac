"""Power cuts at every effect on the disk: what was durable is there once after recovery, whatever of the rest is lost or torn."""

from __future__ import annotations

import errno
import gc
import itertools
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loguru import logger
from support.crash_disk import CrashDisk, Tree, write_tree
from support.former_journal import write_former_segment, write_segment_of_version_1
from support.writer_data import NINE_NS, SECOND_NS, make_books, make_home, make_ticks

from conf.home import Home
from ringbuf.events import EventPublisher
from ringbuf.records import RINGS, EventType, FeedId
from ringbuf.ring import Producer
from ringbuf.vitals import Vitals
from writer import durable_io
from writer.dataset import Dataset
from writer.ingest.ring_reader import NO_LIMIT_NS
from writer.journal import journal as journal_module
from writer.journal.entries import EXPANDED, JOURNAL, build_entries, expand_entries
from writer.journal.journal import Journal
from writer.journal.reader import read_rows
from writer.publish import partition

HOUR_NS = 3600 * SECOND_NS
Insist = Callable[[Callable[[], Any]], Any]
KEYS = {"orderbook": "cum_volume", "tick": "cum_volume", "event": "message"}


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory in memory, where there is one: thousands of files are synced."""
    logger.disable("writer")
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="cc-", dir=memory if memory.is_dir() else None))
    yield path
    shutil.rmtree(path)
    gc.collect()  # files that a crash disk holds open
    logger.enable("writer")


def open_dataset(home: Home, name: str) -> Dataset:
    """The dataset as the writer opens it."""
    return Dataset(home, name, Vitals.create(home.vitals_path("writer"), "writer"))


def publish_hour(dataset: Dataset, hour: int, do: Insist) -> None:
    """Publish an hour as the coordinator does."""

    def publish() -> None:
        while (task := dataset.build_publish_task(hour, include_unsettled=True)) is None:
            flush(dataset)
        partition.publish(task)
        dataset.schedule.mark_published(hour, task.row_to, hour + 2 * HOUR_NS)

    do(publish)
    dataset.request_prune()
    do(lambda: flush(dataset))


def flush(dataset: Dataset) -> None:
    """What is due, and the fsync."""
    dataset.step(None, NO_LIMIT_NS, is_retry=True)


def recover(home: Home, name: str) -> Counter:
    """The writer's next life on a disk: rings, journal, publication of everything; the keys of what is stored then."""
    dataset = open_dataset(home, name)
    dataset.step(NO_LIMIT_NS, NO_LIMIT_NS, is_retry=True)
    for hour in dataset.schedule.unpublished_hours():
        publish_hour(dataset, hour, call)
    dataset.request_segment()
    flush(dataset)
    dataset.request_prune()
    flush(dataset)
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


def call(action: Callable[[], Any]) -> Any:
    """Do it once."""
    return action()


def insist(action: Callable[[], Any]) -> Any:
    """Try until it succeeds, as the writer's loop does; OSError if it never does."""
    for _ in range(5):
        try:
            return action()
        except OSError as error:
            failure = error
    raise failure


def play(home: Home, name: str, feed: Feed, durable: set, do: Insist = call) -> None:
    """Two lives of a dataset: hours, late rows, segments, publications; `durable` has the keys of what is durable."""
    for life in range(2):
        _play_life(home, name, 100 * life, feed, durable, do)


def _play_life(home: Home, name: str, begin: int, feed: Feed, durable: set, do: Insist) -> None:
    """One life; the first leaves hours to the second."""
    dataset = do(lambda: open_dataset(home, name))

    def take() -> None:
        do(lambda: dataset.step(NO_LIMIT_NS, NO_LIMIT_NS, is_retry=True))
        durable.update(feed.keys)

    feed.publish(range(begin, begin + 5), NINE_NS)
    take()
    feed.publish(range(begin + 5, begin + 10), NINE_NS + HOUR_NS)
    do(lambda: dataset.step(NO_LIMIT_NS, NO_LIMIT_NS))
    dataset.request_segment()
    do(lambda: flush(dataset))
    durable.update(feed.keys)
    publish_hour(dataset, min(dataset.schedule.unpublished_hours()), do)
    feed.publish(range(begin + 10, begin + 15), NINE_NS)  # late
    take()
    for hour in dataset.schedule.unpublished_hours() if begin else ():
        publish_hour(dataset, hour, do)
    dataset.close()


class Found:
    """The distinct trees of a run, each with what had to be durable."""

    def __init__(self) -> None:
        self.durable: set = set()
        self.disk: CrashDisk | None = None
        self.is_wanted: Callable[[str, Path], bool] = lambda name, path: True
        """Before which calls the power may be cut."""
        self.trees: dict[int, tuple[str, Tree, frozenset]] = {}

    def note(self, name: str, path: Path) -> None:
        """An effect is about to happen."""
        if self.disk is None or not self.is_wanted(name, path):
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
    found.trees.clear()


@pytest.mark.parametrize("name", ["kr.orderbook", "kr.tick", "kr.event"])
def test_a_power_cut_at_any_effect_leaves_every_durable_row_once(shared: Path, name: str) -> None:
    """Files and names that were not synced are lost, kept or torn in every combination; directories included."""
    home, found = make_home(shared / "home"), Found()
    found.disk = CrashDisk(home.data, found.note)
    feed = Feed(home, name)
    with found.disk.installed():
        play(home, name, feed, found.durable)
    found.note("end", home.data)
    feed.close()

    assert len(found.trees) > 50
    judge(found, shared, name, found.durable)


@pytest.mark.parametrize("write", [write_former_segment, write_segment_of_version_1])
def test_a_power_cut_at_any_effect_of_an_upgrade_leaves_every_row_once(
    shared: Path, write: Callable[..., None]
) -> None:
    """Segments of the forms before are replaced one by one."""
    home, found = make_home(shared / "home"), Found()
    directory = home.journal_directory("kr.tick")
    suffix = ".arrows" if write is write_former_segment else ".journal"
    for number in (1, 2):
        numbers = range(10 * number, 10 * number + 10)
        entries = expand_entries("kr.tick", build_entries("kr.tick", make_ticks(numbers), 10 * number - 9, None))
        appended = [(entries, {"positions": {}, "last_row": 10 * number})]
        write(directory / f"{number:012d}{suffix}", EXPANDED["kr.tick"], "0" * 32, appended)
    found.durable = set(range(10, 30))
    found.disk = CrashDisk(home.data, found.note)
    with found.disk.installed():
        journal = Journal.open(directory, JOURNAL["kr.tick"])
        journal.roll([])
        journal.close()
    found.note("end", home.data)

    assert len(found.trees) > 8
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


class Killed(BaseException):
    """The process is gone."""


class Script:
    """What becomes of the n-th call on a disk."""

    def __init__(self, found: Found, at: int, error: BaseException, is_for_good: bool) -> None:
        self.count = 0
        self._found, self._at, self._error, self._is_for_good = found, at, error, is_for_good
        self._is_healed = False
        self.is_over = False
        """Whether the run made fewer calls."""

    def __call__(self, name: str, path: Path) -> None:
        """A call is about to be made."""
        self.count += 1
        is_due = self.count == self._at or (self._is_for_good and self.count > self._at)
        if is_due and not self._is_healed:
            raise self._error
        self._found.note(name, path)

    def heal(self) -> None:
        """From here on every call succeeds."""
        self._is_healed = True
        self.is_over = self.count < self._at


def test_a_part_whose_name_could_not_be_synced_is_no_ground_for_deleting_the_journal(shared: Path) -> None:
    """The fsync of its directory fails once; the next attempt finds the part there, and makes it durable first."""
    home, found, failures = make_home(shared / "home"), Found(), []

    def fail_once(name: str, path: Path) -> None:
        found.note(name, path)
        if name == "fsync" and not failures and path.name == "hour=10" and list(path.glob("part-*.parquet")):
            failures.append(path)
            raise OSError(errno.EIO, "Input/output error")

    found.disk, found.is_wanted = CrashDisk(home.data, fail_once), is_journal_removed
    feed = Feed(home, "kr.tick")
    with found.disk.installed():
        play(home, "kr.tick", feed, found.durable, insist)
        found.note("end", home.data)
    feed.close()

    assert 1 == len(failures)
    judge(found, shared, "kr.tick", feed.keys)


def never(_name: str, _path: Path) -> bool:
    """The power stays."""
    return False


def is_journal_removed(name: str, path: Path) -> bool:
    """Where rows are lost that are nowhere else durable."""
    return name == "end" or (name == "unlink" and path.suffix == ".journal")


STRIDE = pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.long)])
"""Every fifth call, or each."""


def forget_process() -> None:
    """What a process knew is gone with it."""
    durable_io._durable_directories.clear()
    journal_module._DISTRUSTED.clear()


def recover_in_next_life(home: Home, name: str, feed: Feed, found: Found) -> Counter:
    """The keys of what is stored when another process has recovered the disk, and published everything."""
    forget_process()
    stored = recover(home, name)
    found.durable |= feed.keys
    found.note("end", home.data)
    return stored


@STRIDE
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["kr.orderbook", "kr.tick", "kr.event"])
def test_a_kill_at_any_call_and_a_power_cut_in_the_next_life_leave_every_durable_row_once(
    shared: Path, name: str, stride: int
) -> None:
    """What a killed process had done and not synced is no ground for deleting the journal."""
    for at in itertools.count(1 + len(name) % stride, stride):
        home, found = make_home(shared / f"home-{at}"), Found()
        script = Script(found, at, Killed(), is_for_good=False)
        found.disk, found.is_wanted = CrashDisk(home.data, script), never
        feed = Feed(home, name)
        with found.disk.installed():
            with suppress(Killed):
                play(home, name, feed, found.durable)
            feed.close()
            found.is_wanted = is_journal_removed
            script.heal()
            stored = recover_in_next_life(home, name, feed, found)

        assert Counter(feed.keys) == stored, at
        judge(found, shared, name, feed.keys)
        shutil.rmtree(home.root)
        if script.is_over:
            return


@STRIDE
@pytest.mark.timeout(900)
@pytest.mark.parametrize("is_for_good", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("name", ["kr.orderbook", "kr.tick", "kr.event"])
def test_whichever_call_on_the_disk_fails_nothing_is_lost_or_doubled(
    shared: Path, name: str, is_for_good: bool, stride: int
) -> None:
    """The n-th call fails, for each n: tried again, every row is stored once. A power cut takes nothing that was durable.

    Where it fails for good the process ends, and the next one, on a disk that works, stores every row once.
    """
    for at in itertools.count(1 + len(name) % stride, stride):
        home, found = make_home(shared / f"home-{at}"), Found()
        script = Script(found, at, OSError(errno.EIO, "Input/output error"), is_for_good)
        found.disk, found.is_wanted = CrashDisk(home.data, script), is_journal_removed
        feed = Feed(home, name)
        with found.disk.installed():
            try:
                play(home, name, feed, found.durable, insist)
                assert not is_for_good or script.count < at
            except OSError:
                assert is_for_good, at
            feed.close()
            found.note("end", home.data)
            script.heal()
            stored = recover_in_next_life(home, name, feed, found)

        assert Counter(feed.keys) == stored, at
        judge(found, shared, name, feed.keys)
        shutil.rmtree(home.root)
        if script.is_over:
            return
