"""One dataset's turn: nothing settles too early, nothing is judged twice."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.writer_data import NINE_NS, SECOND_NS, make_books, make_home

from conf.home import Home
from ringbuf.records import ORDERBOOK, FeedId
from ringbuf.ring import Producer
from ringbuf.vitals import Vitals
from writer import durable_io
from writer.dataset import STRAGGLER_NS, Dataset
from writer.ingest.ring_reader import (
    MAX_RECORDS_PER_READ,
    MIN_RECORDS_PER_READ,
    NO_LIMIT_NS,
    READ_TARGET_S,
    compute_read_limit,
)
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


def stamped(numbers: list[int], feed: FeedId, mono_ns: int, second: int) -> np.ndarray:
    """Books that the exchange made in that second after nine, by a calendar that passes with `mono_ns`."""
    found = make_books(numbers, feed, NINE_NS + second * SECOND_NS, mono_ns, symbols=1)
    found["recv_ns"] = found["mono_ns"]  # the calendar's zero does not matter
    return found


def opened(home: Home) -> Dataset:
    """The dataset as the writer opens it."""
    return Dataset(home, "kr.orderbook", Vitals.create(home.vitals_path("writer"), "writer"))


def test_a_row_settles_only_when_its_window_has_passed_on_every_ring(home: Home, rings: dict[FeedId, Producer]) -> None:
    """Up to the last instant a twin is found; what is settled may be published, so it must not be so earlier."""
    dataset = opened(home)
    now_ns = time.monotonic_ns()
    rings[FeedId.KIS].publish(make_books(range(10), mono_ns=now_ns))
    end_ns = now_ns + 9000

    dataset.step(end_ns, end_ns)
    dataset.step(end_ns + WINDOW_NS + STRAGGLER_NS - 1, NO_LIMIT_NS)

    assert dataset.watermark_row == 0 and dataset.arbiter.unmatched_count == 10

    rings[FeedId.KIWOOM].publish(make_books([3], FeedId.KIWOOM, mono_ns=now_ns + WINDOW_NS))
    dataset.step(end_ns + WINDOW_NS, end_ns + WINDOW_NS)

    assert dataset.arbiter.unmatched_count == 9

    rings[FeedId.KIWOOM].publish(stamped([77], FeedId.KIWOOM, now_ns + WINDOW_NS + 1, 5))
    dataset.step(end_ns + WINDOW_NS + STRAGGLER_NS, end_ns + WINDOW_NS + STRAGGLER_NS)

    assert dataset.watermark_row == 10
    dataset.close()


def test_rows_of_a_stall_settle_only_when_the_feed_has_come_past_them(
    home: Home, rings: dict[FeedId, Producer]
) -> None:
    """Kiwoom stalls for 13 s: what KIS had meanwhile is not published before Kiwoom's own; a published row has no twin any more."""
    dataset = opened(home)
    begin_ns = time.monotonic_ns()

    def run(to_s: float) -> None:
        dataset.step(begin_ns + round(to_s * SECOND_NS), begin_ns + round(to_s * SECOND_NS))

    for second in range(12):
        rings[FeedId.KIS].publish(stamped([second], FeedId.KIS, begin_ns + second * SECOND_NS, second))
        if second < 2:
            rings[FeedId.KIWOOM].publish(stamped([second], FeedId.KIWOOM, begin_ns + second * SECOND_NS + 1, second))
        run(second + 0.5)

    assert dataset.watermark_row == 2
    assert dataset.due_hours(NINE_NS + 3600 * SECOND_NS, begin_ns) == []
    assert dataset.due_hours(NINE_NS + 3600 * SECOND_NS, begin_ns + 21 * SECOND_NS) == []

    for second in range(2, 12):
        rings[FeedId.KIWOOM].publish(stamped([second], FeedId.KIWOOM, begin_ns + 14 * SECOND_NS + second, second))
    for feed in (FeedId.KIS, FeedId.KIWOOM):
        rings[feed].publish(stamped([14], feed, begin_ns + 14 * SECOND_NS + 100 + feed, 14))
    run(14.5)
    run(19)

    twins = [
        row
        for batch in read_rows(home.journal_directory("kr.orderbook"))
        for row in batch.column("twin_of").to_pylist()
    ]
    assert twins.count(None) == 13
    assert dataset.watermark_row > 12
    dataset.close()


def test_a_feed_that_is_gone_holds_no_hour_up_for_ever(home: Home, rings: dict[FeedId, Producer]) -> None:
    """After the longest stall its twins are waited for no longer, and an hour waits no longer than that beyond its grace."""
    dataset = opened(home)
    begin_ns = time.monotonic_ns()
    rings[FeedId.KIWOOM].publish(stamped([0], FeedId.KIWOOM, begin_ns, 0))
    rings[FeedId.KIS].publish(stamped([1], FeedId.KIS, begin_ns + SECOND_NS, 1))
    stall_ns = dataset.arbiter.stall_ns

    dataset.step(begin_ns + 2 * SECOND_NS, begin_ns + 2 * SECOND_NS)
    dataset.step(begin_ns + stall_ns, begin_ns + stall_ns)

    assert dataset.watermark_row == 0
    assert dataset.due_hours(NINE_NS + 3600 * SECOND_NS, begin_ns) == []
    assert dataset.due_hours(NINE_NS + 3600 * SECOND_NS, begin_ns + stall_ns + 22 * SECOND_NS) != []

    dataset.step(begin_ns + stall_ns + 3 * SECOND_NS, begin_ns + stall_ns + 3 * SECOND_NS)

    assert dataset.watermark_row == 2 and dataset.arbiter.unmatched_count == 0
    dataset.close()


def test_a_book_that_comes_while_the_segment_is_closed_for_publication_is_no_twin_of_what_is_published(
    home: Home, rings: dict[FeedId, Producer]
) -> None:
    """Read in the step that closes the segment, it would lie behind what is published, and its arrival in no row."""
    dataset = opened(home)
    begin_ns = time.monotonic_ns()

    def run(to_s: float) -> None:
        dataset.step(begin_ns + round(to_s * SECOND_NS), begin_ns + round(to_s * SECOND_NS))

    rings[FeedId.KIS].publish(stamped([1], FeedId.KIS, begin_ns, 0))
    run(0.5)
    for feed in (FeedId.KIS, FeedId.KIWOOM):
        rings[feed].publish(stamped([2], feed, begin_ns + 4 * SECOND_NS + feed, 4))
    run(6.5)
    assert dataset.watermark_row == 1
    assert dataset.build_publish_task(NINE_NS, include_unsettled=False) is None

    rings[FeedId.KIWOOM].publish(stamped([1], FeedId.KIWOOM, begin_ns + 7 * SECOND_NS, 0))
    run(7.5)
    task = dataset.build_publish_task(NINE_NS, include_unsettled=False)

    assert task is not None and task.row_to == 1
    twins = [
        row
        for batch in read_rows(home.journal_directory("kr.orderbook"))
        for row in batch.column("twin_of").to_pylist()
    ]
    assert 1 not in twins
    dataset.close()


def test_what_is_handed_to_publication_has_no_twin_any_more(home: Home, rings: dict[FeedId, Producer]) -> None:
    """A book that comes while its row is being published is a row of its own: neither is lost."""
    dataset = opened(home)
    now_ns = time.monotonic_ns()
    rings[FeedId.KIS].publish(stamped([1, 2], FeedId.KIS, now_ns, 0))
    dataset.step(NO_LIMIT_NS, now_ns + SECOND_NS)

    assert dataset.build_publish_task(NINE_NS, include_unsettled=True) is None
    dataset.step(None, now_ns + SECOND_NS)
    task = dataset.build_publish_task(NINE_NS, include_unsettled=True)
    rings[FeedId.KIWOOM].publish(stamped([1], FeedId.KIWOOM, now_ns + 1000, 0))
    dataset.step(NO_LIMIT_NS, now_ns + SECOND_NS)

    assert task.row_to == 2
    assert dataset.journal.current.newest_rows == {NINE_NS: 3}
    dataset.close()


def test_everything_of_an_hour_includes_what_came_since_its_segment_was_closed(
    home: Home, rings: dict[FeedId, Producer]
) -> None:
    """The wall clock is set back when the segment is closed: the hour goes on, and is published at the stop."""
    dataset = opened(home)
    now_ns = time.monotonic_ns()
    rings[FeedId.KIS].publish(stamped([1], FeedId.KIS, now_ns, 0))
    dataset.step(NO_LIMIT_NS, now_ns + SECOND_NS)
    assert dataset.build_publish_task(NINE_NS, include_unsettled=False) is None
    dataset.step(None, now_ns + SECOND_NS)
    rings[FeedId.KIS].publish(stamped([2], FeedId.KIS, now_ns + SECOND_NS, 1))
    dataset.step(NO_LIMIT_NS, now_ns + 2 * SECOND_NS)

    while (task := dataset.build_publish_task(NINE_NS, include_unsettled=True)) is None:
        dataset.step(None, now_ns + 2 * SECOND_NS)

    assert task.row_to == 2 and len(task.segments) == 2
    dataset.close()


def test_no_segment_of_a_publication_is_deleted_before_it_is_read(home: Home, rings: dict[FeedId, Producer]) -> None:
    """A late row of an hour is published while the segments are deleted of which all is published, that hour's among them."""
    dataset = opened(home)
    now_ns = time.monotonic_ns()
    tasks = []
    for number in (1, 2):
        rings[FeedId.KIS].publish(stamped([number], FeedId.KIS, now_ns + number * SECOND_NS, number))
        dataset.step(NO_LIMIT_NS, now_ns + (number + 1) * SECOND_NS)
        while (task := dataset.build_publish_task(NINE_NS, include_unsettled=True)) is None:
            dataset.step(None, now_ns + (number + 1) * SECOND_NS)
        tasks.append(task)
        if number == 1:
            dataset.schedule.mark_published(NINE_NS, task.row_to, NINE_NS + 3600 * SECOND_NS)
    dataset.request_prune()
    dataset.step(None, now_ns + 4 * SECOND_NS)

    assert [task.row_to for task in tasks] == [1, 2]
    assert not any(path.exists() for path in tasks[0].segments)
    assert tasks[1].segments and all(path.exists() for path in tasks[1].segments)
    dataset.close()


def test_a_batch_that_could_not_be_written_holds_publication_up(
    home: Home, rings: dict[FeedId, Producer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hold twins of the rows that would be published without them."""
    dataset = opened(home)
    now_ns = time.monotonic_ns()
    rings[FeedId.KIS].publish(stamped([1], FeedId.KIS, now_ns, 0))
    dataset.step(NO_LIMIT_NS, now_ns + SECOND_NS)
    late_ns = now_ns + 60 * SECOND_NS
    dataset.due_hours(NINE_NS + 3600 * SECOND_NS, now_ns)
    assert dataset.due_hours(NINE_NS + 3600 * SECOND_NS, late_ns) == [NINE_NS]
    rings[FeedId.KIWOOM].publish(stamped([1], FeedId.KIWOOM, now_ns + 1000, 0))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as context:
        context.setattr(durable_io, "append", full)
        with pytest.raises(OSError, match="no space"):
            dataset.step(NO_LIMIT_NS, now_ns + SECOND_NS)

    assert dataset.due_hours(NINE_NS + 3600 * SECOND_NS, late_ns) == []
    dataset.step(NO_LIMIT_NS, now_ns + SECOND_NS)
    assert dataset.due_hours(NINE_NS + 3600 * SECOND_NS, late_ns) == [NINE_NS]
    dataset.close()


def test_what_could_not_be_written_is_not_judged_again(
    home: Home, rings: dict[FeedId, Producer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twins whose append failed are twins when it succeeds; positions move only then."""
    dataset = opened(home)
    now_ns = time.monotonic_ns()
    rings[FeedId.KIS].publish(make_books(range(10), mono_ns=now_ns))
    dataset.step(now_ns + SECOND_NS, NO_LIMIT_NS)
    rings[FeedId.KIWOOM].publish(make_books(range(10), FeedId.KIWOOM, mono_ns=now_ns + 1000))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as context:
        context.setattr(durable_io, "append", full)
        for _ in range(3):
            with pytest.raises(OSError, match="no space"):
                dataset.step(now_ns + SECOND_NS, NO_LIMIT_NS)
    assert dataset.reader.backlog == 10
    dataset.step(now_ns + SECOND_NS, NO_LIMIT_NS)

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
    dataset.step(NO_LIMIT_NS, NO_LIMIT_NS)
    dataset.request_segment()
    dataset.step(None, NO_LIMIT_NS)
    rings[FeedId.KIS].publish(make_books([48], symbols=1))
    dataset.step(NO_LIMIT_NS, NO_LIMIT_NS)
    dataset.close()

    again = opened(home)

    assert [volume for *_, volume in again.arbiter.export_volume_high_water()] == [48]
    again.close()
    assert [volume for *_, volume in opened(home).arbiter.export_volume_high_water()] == [48], (
        "also from an opening alone"
    )


@pytest.mark.parametrize(("us_a_record", "slower"), [(2, 40), (20, 8), (20, 1), (400, 3)])
def test_a_turn_reads_as_much_as_its_time_allows_at_whatever_pace(us_a_record: int, slower: int) -> None:
    """In a backlog; when every record is dearer of a sudden, one turn takes long, and the next does not."""
    pace_s, limit = us_a_record * 1e-6, MIN_RECORDS_PER_READ
    for _ in range(10):
        limit = compute_read_limit(limit, limit * pace_s, has_more=True)
    assert limit in (MIN_RECORDS_PER_READ, MAX_RECORDS_PER_READ) or limit * pace_s > READ_TARGET_S / 2
    assert limit * pace_s <= max(READ_TARGET_S, MIN_RECORDS_PER_READ * pace_s)

    pace_s *= slower
    limit = compute_read_limit(limit, limit * pace_s, has_more=True)
    assert limit * pace_s <= max(READ_TARGET_S, MIN_RECORDS_PER_READ * pace_s)


def test_turns_that_find_little_leave_the_limit_as_it_is() -> None:
    """An idle writer is no measure of what a backlog takes."""
    assert compute_read_limit(1000, 0.001, has_more=False) == 1000


def test_a_backlog_is_read_in_turns_of_growing_size_and_none_is_above_the_limit(
    home: Home, rings: dict[FeedId, Producer]
) -> None:
    dataset, now_ns = opened(home), time.monotonic_ns()
    rings[FeedId.KIS].publish(make_books(range(1000), mono_ns=now_ns))

    assert dataset.step(NO_LIMIT_NS, time.monotonic_ns())
    assert dataset.journal.last_row == MIN_RECORDS_PER_READ
    assert not dataset.step(NO_LIMIT_NS, time.monotonic_ns())
    assert dataset.journal.last_row == 1000
    dataset.close()
