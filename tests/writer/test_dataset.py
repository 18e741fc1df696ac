"""One dataset's turn: nothing settles too early, nothing is judged twice."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.writer_data import SECOND_NS, make_books, make_home

from conf.home import Home
from ringbuf.records import ORDERBOOK, FeedId
from ringbuf.ring import Producer
from ringbuf.vitals import Vitals
from writer import durable_io
from writer.dataset import STRAGGLER_NS, Dataset
from writer.ingest.ring_reader import NO_LIMIT_NS
from writer.journal.reader import read_rows

WINDOW_NS = 5 * SECOND_NS


@pytest.fixture
def home(place: Path) -> Home:
    """A home with the usual window."""
    return make_home(place, twin_window_s=5.0, grace_s=20.0)


@pytest.fixture
def rings(home: Home) -> Iterator[dict[FeedId, Producer]]:
    """Both lines' rings of books."""
    made = {
        line: Producer.open(home.ring_path(line.name.lower(), "orderbook"), ORDERBOOK, 1024)
        for line in (FeedId.KIS, FeedId.KIWOOM)
    }
    yield made
    for ring in made.values():
        ring.close()


def opened(home: Home) -> Dataset:
    """The dataset as the writer opens it."""
    return Dataset(home, "kr.orderbook", Vitals.create(home.vitals_path("writer"), "writer"))


def test_a_row_settles_only_when_its_window_has_passed_on_every_ring(home: Home, rings: dict[FeedId, Producer]) -> None:
    """Up to the last instant a twin is found; what is settled may be published, so it must not be so earlier."""
    dataset = opened(home)
    now_ns = time.monotonic_ns()
    rings[FeedId.KIS].publish(make_books(range(10), mono_ns=now_ns))
    end_ns = now_ns + 9000

    dataset.process_batch(end_ns, end_ns)
    dataset.process_batch(end_ns + WINDOW_NS + STRAGGLER_NS - 1, NO_LIMIT_NS)

    assert dataset.watermark_row == 0 and dataset.arbiter.unmatched_count == 10

    rings[FeedId.KIWOOM].publish(make_books([3], FeedId.KIWOOM, mono_ns=now_ns + WINDOW_NS))
    dataset.process_batch(end_ns + WINDOW_NS, end_ns + WINDOW_NS)

    assert dataset.arbiter.unmatched_count == 9

    dataset.process_batch(end_ns + WINDOW_NS + STRAGGLER_NS, NO_LIMIT_NS)

    assert dataset.watermark_row == 10 and dataset.arbiter.unmatched_count == 0
    dataset.close()


def test_what_could_not_be_written_is_not_judged_again(
    home: Home, rings: dict[FeedId, Producer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twins whose append failed are twins when it succeeds; positions move only then."""
    dataset = opened(home)
    now_ns = time.monotonic_ns()
    rings[FeedId.KIS].publish(make_books(range(10), mono_ns=now_ns))
    dataset.process_batch(now_ns + SECOND_NS, NO_LIMIT_NS)
    rings[FeedId.KIWOOM].publish(make_books(range(10), FeedId.KIWOOM, mono_ns=now_ns + 1000))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as context:
        context.setattr(durable_io, "append", full)
        for _ in range(3):
            with pytest.raises(OSError, match="no space"):
                dataset.process_batch(now_ns + SECOND_NS, NO_LIMIT_NS)
    assert dataset.reader.backlog == 10
    dataset.process_batch(now_ns + SECOND_NS, NO_LIMIT_NS)

    twins = [
        row
        for batch in read_rows(home.journal_directory("kr.orderbook"))
        for row in batch.column("twin_of").to_pylist()
    ]
    assert dataset.reader.backlog == 0
    assert twins == [None] * 10 + list(range(1, 11))
    dataset.close()


def test_ceilings_outlive_the_journal_rows_they_come_from(home: Home, rings: dict[FeedId, Producer]) -> None:
    """A volume behind one stored before the restart is LATE, whether its row is in the newest segment or long published."""
    dataset = opened(home)
    rings[FeedId.KIS].publish(make_books([40, 44], symbols=1))
    dataset.process_batch(NO_LIMIT_NS, NO_LIMIT_NS)
    dataset.begin_segment()
    rings[FeedId.KIS].publish(make_books([48], symbols=1))
    dataset.process_batch(NO_LIMIT_NS, NO_LIMIT_NS)
    dataset.close()

    again = opened(home)

    assert [volume for *_, volume in again.arbiter.export_volume_high_water()] == [48]
    again.close()
    assert [volume for *_, volume in opened(home).arbiter.export_volume_high_water()] == [48], (
        "also from an opening alone"
    )
