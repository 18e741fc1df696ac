"""Flipped bits of a journal and of a ring, and unreadable sectors, under a real writer: it goes on, and names what it lacks."""

from __future__ import annotations

import math
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.former_journal import write_former_segment
from support.writer_data import (
    make_books,
    make_home,
    read_counter,
    read_published,
    read_running_vitals,
    start_writer,
    stop_writer,
    wait_for,
)

from conf.home import Home
from ringbuf.events import EventPublisher
from ringbuf.records import ORDERBOOK, EventType, FeedId
from ringbuf.ring import Producer
from writer.journal.entries import EXPANDED, expand_entries, read_records
from writer.journal.reader import list_segments
from writer.journal.segment import JournalBatch, scan_segment

BATCHES, BOOKS = 4, 15


@pytest.fixture
def home(place: Path) -> Iterator[Home]:
    """A home whose hours are published only by a stop."""
    return make_home(place, grace_s=1000.0, late_every_s=1000.0, fsync_every_s=0.05)


def fill(home: Home) -> list[Path]:
    """A journal of sixty books in four batches, its writer killed; the segments with books.

    An event keeps the journal of events from being empty.
    """
    events = EventPublisher(home.ring_path("kis", "event"), FeedId.KIS, home.load_clock())
    events.emit(EventType.PHASE, "before")
    ring = Producer.open(home.ring_path("kis", "orderbook"), ORDERBOOK, 1024)
    process = start_writer(home)
    for number in range(BATCHES):
        ring.publish(make_books(range(number * BOOKS, (number + 1) * BOOKS)))
        wait_for(lambda number=number: read_counter(home, "journal_rows") == (number + 1) * BOOKS)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ring.close()
    events.close()
    return list_segments(home.journal_directory("kr.orderbook"))


def frames_of(path: Path) -> list[JournalBatch]:
    """The frames of a sound segment."""
    return [found for found in scan_segment(path) if isinstance(found, JournalBatch)]


def flip(path: Path, at: int, bit: int) -> None:
    """Change one bit of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        (octet,) = file.read(1)
        file.seek(at)
        file.write(bytes([octet ^ 1 << bit]))


def books_in(batch: JournalBatch) -> set[int]:
    """The numbers of the books of a frame."""
    return set(read_records(batch.entries)["cum_volume"].tolist())


def stored(home: Home) -> list[int]:
    """The numbers of all published books."""
    return sorted(read_published(home)["cum_volume"])


def close_segment(home: Home) -> None:
    """One life of the writer more, so that the segment with the books is not the newest."""
    process = start_writer(home)
    wait_for(lambda: read_running_vitals(home, process))
    process.send_signal(signal.SIGKILL)
    process.wait()


RANDOM = random.Random(11)


@pytest.mark.parametrize(
    "where", ["opening", "copy", "header", "metadata", "body", "last", "anywhere", "anywhere again"]
)
def test_a_flipped_bit_costs_its_batch_and_nothing_hangs_or_exits(home: Home, where: str) -> None:
    """Started on the damage, it runs, is stopped in time, publishes the other books once, and counts and emits what it lacks."""
    (path,) = fill(home)
    opening, copy, *batches = frames_of(path)
    if where != "last":
        close_segment(home)
    at = {
        "opening": opening.begin + RANDOM.randrange(opening.end),
        "copy": copy.begin + RANDOM.randrange(copy.end - copy.begin),
        "header": batches[1].begin + RANDOM.randrange(88),
        "metadata": batches[1].begin + 88 + RANDOM.randrange(40),
        "body": batches[1].end - 1 - RANDOM.randrange(3000),
        "last": batches[-1].end - 1 - RANDOM.randrange(3000),
    }.get(where, RANDOM.randrange(path.stat().st_size))
    flip(path, at, RANDOM.randrange(8))
    (hit,) = (batch for batch in (opening, copy, *batches) if batch.begin <= at < batch.end)
    lost = books_in(hit) if where != "last" else set()  # its records are read again

    process = start_writer(home)
    wait_for(lambda: read_running_vitals(home, process))

    assert 1 == read_counter(home, "journal_damaged")
    assert len(lost) == read_counter(home, "journal_lost_rows")
    assert stop_writer(process) == 0
    assert sorted(set(range(BATCHES * BOOKS)) - lost) == stored(home)
    (event,) = read_published(home, "event").query("kind == 'journal_damaged'").itertuples()
    assert (math.isnan(event.value) and "read again" in event.message) if where == "last" else len(lost) == event.value
    assert event.message.startswith(f"kr.orderbook/{path.name}: bytes {hit.begin} to {hit.end} are damaged")
    assert f"{path.name}.damaged" in {found.name for found in path.parent.iterdir()}


def test_damage_that_comes_while_it_runs_is_named_by_the_publication(home: Home) -> None:
    """The rest of the hour is published, once; the file is kept."""
    (path,) = fill(home)
    process = start_writer(home)
    wait_for(lambda: read_running_vitals(home, process))
    hit = frames_of(path)[4]
    flip(path, hit.begin + 1000, 3)

    assert stop_writer(process) == 0

    assert sorted(set(range(BATCHES * BOOKS)) - books_in(hit)) == stored(home)
    assert (1, BOOKS) == (read_counter(home, "journal_damaged"), read_counter(home, "journal_lost_rows"))
    assert [f"{path.name}.damaged"] == [found.name for found in path.parent.glob("*.damaged")]


BAD_SECTOR = """
import errno, os, sys
path, begin = {path!r}, {begin}
def failing(read):
    def wrapper(fd, count, at):
        size = count if isinstance(count, int) else sum(map(len, count))
        if begin < at + size and at < begin + 512 and os.readlink(f"/proc/self/fd/{{fd}}") == path:
            raise OSError(errno.EIO, "Input/output error")
        return read(fd, count, at)
    return wrapper
os.pread, os.preadv = failing(os.pread), failing(os.preadv)
from conf.process import run_process
from writer.service import main
sys.exit(run_process("writer", main))
"""


@pytest.mark.parametrize("where", ["opening", "body"])
def test_a_sector_that_cannot_be_read_costs_its_batch_and_no_signal(home: Home, where: str) -> None:
    """Neither the start nor the publication dies of it."""
    (path,) = fill(home)
    opening, _, *batches = frames_of(path)
    hit = {"opening": opening, "body": batches[1]}[where]
    close_segment(home)

    process = start_writer(home, BAD_SECTOR.format(path=str(path), begin=hit.begin + 1024))
    wait_for(lambda: read_running_vitals(home, process))
    assert stop_writer(process) == 0

    assert sorted(set(range(BATCHES * BOOKS)) - books_in(hit)) == stored(home)
    assert (1, hit.entries.num_rows) == (read_counter(home, "journal_damaged"), read_counter(home, "journal_lost_rows"))


@pytest.mark.parametrize("where", ["header", "slot", "slot again"])
def test_a_flipped_bit_of_a_ring_costs_its_record_and_nothing_hangs_or_exits(home: Home, where: str) -> None:
    """Read by a writer that starts on it: each other book is stored once, and the loss is counted."""
    path = home.ring_path("kis", "orderbook")
    ring = Producer.open(path, ORDERBOOK, 64)
    ring.publish(make_books(range(60)))
    ring.close()
    slot_bytes = (path.stat().st_size - 4096) // 64
    hit = RANDOM.randrange(60)
    at = (
        64 + RANDOM.randrange(16)
        if where == "header"
        else 4096 + hit * slot_bytes + RANDOM.randrange(ORDERBOOK.itemsize)
    )
    flip(path, at, RANDOM.randrange(8))
    lost = set() if where == "header" else {hit}

    process = start_writer(home)
    wait_for(lambda: read_counter(home, "journal_rows") == 60 - len(lost))
    assert stop_writer(process) == 0

    assert sorted(set(range(60)) - lost) == stored(home)
    assert len(lost) == read_counter(home, "lost_records")


def test_a_journal_of_the_version_before_is_published_by_this_one(home: Home) -> None:
    """A box that is upgraded with rows in its journal loses nothing, and goes on with its rings where it was."""
    (path,) = fill(home)
    batches = frames_of(path)[1:]
    lineage = path.read_bytes()[16:32].hex()
    rows = [
        (expand_entries("kr.orderbook", batch.entries), batch.metadata | {"last_row": batch.last_row})
        for batch in batches
    ]
    path.unlink()
    write_former_segment(path.with_suffix(".arrows"), EXPANDED["kr.orderbook"], lineage, rows)

    process = start_writer(home)
    wait_for(lambda: read_running_vitals(home, process))
    assert [] == list(path.parent.glob("*.arrows"))
    assert stop_writer(process) == 0

    assert list(range(BATCHES * BOOKS)) == stored(home)
    assert (0, 0) == (read_counter(home, "journal_rows"), read_counter(home, "lost_records"))
