"""One dataset's disk fails: it pauses by name, the others go on, and it recovers by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.faulty_disk import set_faults, start_faulty_writer
from support.small_disk import RingFeeder
from support.writer_data import (
    make_home,
    read_counter,
    read_published,
    read_running_vitals,
    read_vitals,
    stop_writer,
    wait_for,
)

from conf.home import Home
from ringbuf.events import EventPublisher
from ringbuf.records import RINGS, EventType, FeedId
from ringbuf.ring import Consumer
from writer.journal.entries import JOURNAL
from writer.journal.journal import Journal

DATASETS = ("kr.orderbook", "kr.tick", "kr.event")


class Feed:
    """Books, ticks and events, and what of them is durable."""

    def __init__(self, home: Home) -> None:
        self.events = 0
        self._home = home
        self._data = RingFeeder(home)
        self._events = EventPublisher(home.ring_path("kis", "event"), FeedId.KIS, home.load_clock())

    def publish(self) -> None:
        """A portion of each."""
        self._data.publish(100)
        self._events.emit(EventType.PHASE, f"number {self.events}")
        self.events += 1

    def is_durable(self, dataset: str) -> bool:
        """Whether everything of KIS's ring of that dataset is behind the committed position."""
        stream = dataset.partition(".")[2]
        ring = Consumer.open(self._home.ring_path("kis", stream), RINGS[stream])
        try:
            return ring.tail == ring.head + 1
        finally:
            ring.close()

    def close(self) -> None:
        """The collectors are gone."""
        self._data.close()
        self._events.close()

    def assert_stored_once(self) -> None:
        """Each book, tick and event is in Parquet, once."""
        self._data.assert_stored_once(self._home)
        stored = read_published(self._home, "event").query("kind == 'phase'")
        assert Counter(f"number {number}" for number in range(self.events)) == Counter(stored["message"])


@pytest.fixture
def home(place: Path) -> Iterator[Home]:
    """A home whose hours are published soon."""
    return make_home(place, grace_s=0.6, late_every_s=1.0)


def paused_names(home: Home) -> set[str]:
    """The datasets that the writer's state names as paused."""
    found = read_vitals(home)
    return set(found.detail.partition(":")[0].split(", ")) if found and found.state == "paused" else set()


@pytest.mark.parametrize(
    ("effect", "dataset"),
    [
        *(("append", name) for name in DATASETS),
        *(("sync", name) for name in DATASETS),
        *(("create", name) for name in DATASETS[:2]),
        *(("remove", name) for name in DATASETS[:2]),
    ],
)
def test_a_dataset_whose_disk_fails_pauses_by_name_and_the_others_go_on(home: Home, effect: str, dataset: str) -> None:
    """Whatever effect of whichever dataset: the others become durable meanwhile; afterwards everything is stored once."""
    process, feed = start_faulty_writer(home), Feed(home)
    wait_for(lambda: read_running_vitals(home, process))
    set_faults(home, f"{effect} {dataset} EIO")

    def others_are_durable() -> bool:
        return all(feed.is_durable(name) for name in DATASETS if name != dataset)

    def is_paused() -> bool:
        if others_are_durable():  # no faster than the writer reads: rings are not what is tested here
            feed.publish()
        return paused_names(home) == {dataset}

    wait_for(is_paused)
    for _ in range(3):
        feed.publish()
        wait_for(others_are_durable)
    assert paused_names(home) == {dataset}
    assert "Input/output error" in read_vitals(home).detail and read_counter(home, "pauses") == 1
    if effect in ("append", "sync"):
        assert not feed.is_durable(dataset)

    set_faults(home)

    wait_for(lambda: read_vitals(home).state in ("running", "publishing"))
    wait_for(lambda: feed.is_durable(dataset))
    feed.close()
    assert stop_writer(process) == 0
    feed.assert_stored_once()
    events = read_published(home, "event").set_index("kind")
    assert events.message["paused"].startswith(f"{dataset}: ") and events.message["resumed"] == dataset
    assert f"{dataset}: writable again" in (home.log / "writer.log").read_text()


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_dataset_that_cannot_be_opened_is_opened_later_and_the_others_collect(home: Home, dataset: str) -> None:
    """From the start no segment of it can be begun; it is tried again by itself."""
    set_faults(home, f"create {dataset} EROFS")
    process, feed = start_faulty_writer(home), Feed(home)
    feed.publish()

    wait_for(lambda: paused_names(home) == {dataset})
    wait_for(lambda: all(feed.is_durable(name) for name in DATASETS if name != dataset))

    set_faults(home)
    wait_for(lambda: feed.is_durable(dataset))
    feed.close()
    assert stop_writer(process) == 0
    feed.assert_stored_once()


def test_a_journal_that_is_refused_stops_no_other(home: Home) -> None:
    """Segments of two journals in one directory: said of that dataset; the others are collected and published by a stop."""
    for number in (1, 2):
        journal = Journal.open(home.journal_directory("other"), JOURNAL["kr.event"])
        journal.roll([])
        journal.close()
        home.journal_directory("kr.event").mkdir(parents=True, exist_ok=True)
        journal.current.path.rename(home.journal_directory("kr.event") / f"{number:012d}.journal")
    process, feed = start_faulty_writer(home), Feed(home)
    feed.publish()

    wait_for(lambda: paused_names(home) == {"kr.event"})
    assert "move all but one elsewhere" in read_vitals(home).detail
    wait_for(lambda: feed.is_durable("kr.orderbook") and feed.is_durable("kr.tick"))

    feed.close()
    assert stop_writer(process) == 0
    assert "kr.event" in read_vitals(home).detail and "for the next start" in read_vitals(home).detail
    assert len(read_published(home)) == 100 and len(read_published(home, "tick")) == 100


def test_a_stop_publishes_the_datasets_that_can_be_written_and_names_the_other(home: Home) -> None:
    """What the failing one holds stays for the next start, which publishes it once."""
    process, feed = start_faulty_writer(home), Feed(home)
    wait_for(lambda: read_running_vitals(home, process))
    set_faults(home, "append kr.event ENOSPC")
    feed.publish()
    wait_for(lambda: paused_names(home) == {"kr.event"})
    feed.close()

    assert stop_writer(process) == 0

    assert "kr.event: [Errno 28]" in read_vitals(home).detail and "for the next start" in read_vitals(home).detail
    assert len(read_published(home)) == 100 and len(read_published(home, "tick")) == 100
    set_faults(home)
    process = start_faulty_writer(home)
    wait_for(lambda: read_running_vitals(home, process))
    assert stop_writer(process) == 0
    feed.assert_stored_once()
