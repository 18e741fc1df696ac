"""Rings as one stream: order, watermark, losses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support.writer_data import make_ticks

from ringbuf.records import TICK, FeedId
from ringbuf.ring import Loss, Producer
from writer.ingest.ring_reader import NO_LIMIT_NS, UNKNOWN_SEQ, RingReader

NAMES = ("kis.tick", "kiwoom.tick")
NOW = 10**15


def rings(place: Path, capacity: int = 1024) -> dict[str, Producer]:
    """Two rings with their producers."""
    return {name: Producer.open(place / name, TICK, capacity) for name in NAMES}


def intake(place: Path, positions: dict | None = None) -> RingReader:
    """The two rings, attached."""
    found = RingReader({name: place / name for name in NAMES}, TICK, positions or {})
    found.attach()
    return found


def at(times: list[int], line: FeedId = FeedId.KIS) -> np.ndarray:
    """Ticks received at these mono_ns."""
    found = make_ticks(range(len(times)), line)
    found["mono_ns"] = times
    return found


def test_records_of_both_rings_come_in_receive_order_behind_the_watermark(place: Path) -> None:
    """What is younger than the limit stays; ties go to the line named first; the position is behind what was taken."""
    made = rings(place)
    made["kis.tick"].publish(at([1, 4, 5, 9, 30]))
    made["kiwoom.tick"].publish(at([2, 5, 6, 31], FeedId.KIWOOM))
    source = intake(place)

    taken = source.peek(limit_ns=10, now_ns=NOW, max_records=100)

    assert taken.records["mono_ns"].tolist() == [1, 2, 4, 5, 5, 6, 9]
    assert taken.records["line"].tolist() == [1, 2, 1, 1, 2, 2, 1]
    assert [taken.positions[name][1] for name in NAMES] == [5, 4]


def test_what_was_not_accepted_is_taken_again(place: Path) -> None:
    """Taking changes nothing."""
    made = rings(place)
    made["kis.tick"].publish(at([1, 2, 3]))
    source = intake(place)

    first = source.peek(NO_LIMIT_NS, NOW, 100)
    again = source.peek(NO_LIMIT_NS, NOW, 100)
    source.advance(again)

    assert 3 == len(first.records) == len(again.records)
    assert len(source.peek(NO_LIMIT_NS, NOW, 100).records) == 0


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(1, 5), st.integers(0, 9), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_ring_that_two_threads_fill_is_taken_to_its_end(
    times: list[int], most: int, spread: int, reverse: bool
) -> None:
    """What one thread received stands a little behind what the other received later: nothing sticks, nothing is lost, and no record
    waits behind one that was received more than `spread` later."""
    import tempfile

    order = sorted(range(len(times)), key=lambda n: (times[n] // (spread + 1), -times[n] if reverse else times[n]))
    with tempfile.TemporaryDirectory(prefix="cc-") as name:
        place = Path(name)
        made = rings(place)
        made["kis.tick"].publish(at([times[n] for n in order]))
        source = intake(place)
        taken: list[int] = []
        for _ in range(len(times) + 1):
            part = source.peek(NO_LIMIT_NS, NOW, most)
            source.advance(part)
            assert len(part.records) or not part.has_more
            taken += part.records["mono_ns"].tolist()

    assert sorted(times) == sorted(taken)
    for at_, mono_ns in enumerate(taken):
        assert max(taken[: at_ + 1]) - mono_ns <= spread


@given(
    st.lists(st.integers(0, 50), max_size=40), st.lists(st.integers(0, 50), max_size=40), st.integers(1, 7), st.data()
)
@settings(max_examples=60, deadline=None)
def test_small_reads_give_the_order_of_one_large_read(
    kis: list[int], kiwoom: list[int], most: int, data: st.DataObject
) -> None:
    """A backlog taken in pieces, each behind the slower ring, is in the order in which it would have come at once."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="cc-") as name:
        place = Path(name)
        made = rings(place)
        made["kis.tick"].publish(at(sorted(kis)))
        made["kiwoom.tick"].publish(at(sorted(kiwoom), FeedId.KIWOOM))
        at_once = intake(place).peek(NO_LIMIT_NS, NOW, 1000).records
        source, pieces = intake(place), []
        while source.backlog:
            taken = source.peek(NO_LIMIT_NS, NOW, most)
            source.advance(taken)
            pieces.append(taken.records)
        for ring in made.values():
            ring.close()
        source.close()

    in_pieces = np.concatenate(pieces) if pieces else at_once

    assert sorted(at_once.tolist()) == sorted(in_pieces.tolist())
    assert at_once["mono_ns"].tolist() == in_pieces["mono_ns"].tolist()


def test_a_lapped_ring_tells_exactly_what_is_lost_once(place: Path) -> None:
    """1,000 records into a ring of 256 after 100 were read: 101 to 744 are lost, and that is said one time."""
    made = rings(place, capacity=256)
    made["kis.tick"].publish(make_ticks(range(100)))
    source = intake(place)
    source.advance(source.peek(NO_LIMIT_NS, NO_LIMIT_NS, 1000))
    made["kis.tick"].publish(make_ticks(range(900)))

    taken = source.peek(NO_LIMIT_NS, NO_LIMIT_NS, 1000)
    source.advance(taken)

    assert [Loss(101, 744)] == [lost.loss for lost in taken.losses]
    assert taken.losses[0].after_ns > 0 and taken.losses[0].before_ns > 0
    assert list(range(745, 1001)) == taken.records["seq"].tolist()
    assert source.peek(NO_LIMIT_NS, NO_LIMIT_NS, 1000).losses == []


def test_a_record_from_the_future_is_due_at_once(place: Path) -> None:
    """A ring that outlived a reboot has larger monotonic times than the machine: it must not wait for ever."""
    made = rings(place)
    made["kis.tick"].publish(at([5000, 6000, 7]))
    source = intake(place)

    taken = source.peek(limit_ns=10, now_ns=20, max_records=100)

    assert len(taken.records) == 3


def test_rings_are_found_when_they_appear_and_again_when_they_are_replaced(place: Path) -> None:
    """No ring, one ring, another file in its place: the old one is read to its end first, then the new one from its start."""
    source = intake(place)
    assert len(source.peek(NO_LIMIT_NS, NOW, 100).records) == 0
    made = rings(place)
    made["kis.tick"].publish(at([1, 2]))
    source.attach()
    source.advance(source.peek(NO_LIMIT_NS, NOW, 1))

    (place / "kis.tick").unlink()
    made["kis.tick"].close()
    made["kis.tick"] = Producer.open(place / "kis.tick", TICK, 64)
    made["kis.tick"].publish(at([10, 11, 12]))
    source.attach()
    old = source.peek(NO_LIMIT_NS, NOW, 100)
    source.advance(old)
    source.attach()
    new = source.peek(NO_LIMIT_NS, NOW, 100)

    assert (old.records["mono_ns"].tolist(), new.records["mono_ns"].tolist()) == ([2], [10, 11, 12])
    assert [made["kis.tick"].ring_id, 4] == new.positions["kis.tick"]


def test_positions_of_another_ring_mean_nothing(place: Path) -> None:
    """A ring the journal does not know is read from its first record; one it knows goes on where it was."""
    made = rings(place)
    made["kis.tick"].publish(at([1, 2, 3]))
    made["kiwoom.tick"].publish(at([1, 2, 3], FeedId.KIWOOM))
    known = {"kis.tick": [made["kis.tick"].ring_id, 3], "kiwoom.tick": [12345, 3]}

    taken = intake(place, known).peek(NO_LIMIT_NS, NOW, 100)

    assert sorted(taken.records["seq"].tolist()) == [1, 2, 3, 3]


def delete_directory(place: Path) -> None:
    """The rings' directory goes."""
    for file in place.iterdir():
        file.unlink()
    place.rmdir()


def test_a_ring_that_was_deleted_and_made_again_by_its_producer_is_read_without_a_break(place: Path) -> None:
    """Unread before, published meanwhile, published after: each once, no loss reported, the position is the same ring's."""
    made = rings(place)
    made["kis.tick"].publish(at([1, 2, 3]))
    source = intake(place)
    source.advance(source.peek(NO_LIMIT_NS, NOW, 2))
    delete_directory(place)
    made["kis.tick"].publish(at([4]))
    source.attach()  # nothing is there yet: the pages are read on
    source.advance(source.peek(NO_LIMIT_NS, NOW, 1))

    assert made["kis.tick"].restore_path()
    made["kis.tick"].publish(at([5]))
    source.attach()
    taken = source.peek(NO_LIMIT_NS, NOW, 100)

    assert (taken.records["mono_ns"].tolist(), taken.losses) == ([4, 5], [])
    assert taken.positions["kis.tick"] == [made["kis.tick"].ring_id, 6]
    later = intake(place, source.positions).peek(NO_LIMIT_NS, NOW, 100)
    assert (later.records["mono_ns"].tolist(), later.losses) == ([4, 5], [])


def test_what_a_dead_producer_left_in_deleted_pages_is_read_before_the_next_ones_ring(place: Path) -> None:
    """The producer dies before it can make its ring again: the reader still has the pages, and then follows the new ring."""
    made = rings(place)
    source = intake(place)
    made["kis.tick"].publish(at([1, 2]))
    source.attach()
    delete_directory(place)
    made["kis.tick"].publish(at([3]))
    made["kis.tick"].close()
    place.mkdir()
    made["kis.tick"] = Producer.open(place / "kis.tick", TICK, 64)
    made["kis.tick"].publish(at([4]))
    taken = []
    for _ in range(3):
        source.attach()
        part = source.peek(NO_LIMIT_NS, NOW, 100)
        source.advance(part)
        assert part.losses == []
        taken += part.records["mono_ns"].tolist()

    assert taken == [1, 2, 3, 4]


def test_a_ring_that_went_while_nobody_held_it_is_a_loss_of_unknown_length_once(place: Path) -> None:
    """The journal knows record 3 as the next one of a ring that is gone: the rest is lost, said with the first record after."""
    made = rings(place)
    made["kis.tick"].publish(at([1, 2]))
    source = intake(place, {"kis.tick": [12345, 3]})

    taken = source.peek(NO_LIMIT_NS, NOW, 100)
    again = source.peek(NO_LIMIT_NS, NOW, 100)
    source.advance(again)

    assert [(report.ring, report.loss.first_seq, report.loss.last_seq) for report in taken.losses] == [
        ("kis.tick", 3, UNKNOWN_SEQ)
    ]
    assert taken.losses == again.losses and taken.losses[0].before_ns > 0
    assert source.peek(NO_LIMIT_NS, NOW, 100).losses == []


def go_on_in_a_copy(place: Path) -> tuple[dict[str, Producer], RingReader]:
    """A ring whose two records were read before its directory was deleted; its producer has made it again, unseen."""
    made = rings(place)
    source = intake(place)
    made["kis.tick"].publish(at([1, 2]))
    source.advance(source.peek(NO_LIMIT_NS, NOW, 100))
    delete_directory(place)
    assert made["kis.tick"].restore_path()
    return made, source


def test_a_ring_that_went_on_in_a_copy_that_nobody_has_seen_yet_is_neither_idle_nor_drained(place: Path) -> None:
    """The directory is deleted twice, and the writer stopped before the collector has made its ring again: it begins at no record
    that was read."""
    made, source = go_on_in_a_copy(place)
    delete_directory(place)
    source.attach()

    assert "kis.tick" in source.live_producers()
    assert not source.delete_drained()

    made["kis.tick"].publish(at([3]))
    assert made["kis.tick"].restore_path()
    later = intake(place, source.positions).peek(NO_LIMIT_NS, NOW, 100)
    assert (later.records["mono_ns"].tolist(), later.losses) == ([3], [])


def test_records_in_a_copy_that_is_deleted_before_it_is_seen_are_a_loss_of_unknown_length(place: Path) -> None:
    """The directory is deleted twice, and the collector killed before it, or the writer, has looked again."""
    made, source = go_on_in_a_copy(place)
    made["kis.tick"].publish(at([3, 4, 5]))
    delete_directory(place)
    made["kis.tick"].close()
    place.mkdir()
    made["kis.tick"] = Producer.open(place / "kis.tick", TICK, 64)
    made["kis.tick"].publish(at([6]))

    source.attach()
    taken = source.peek(NO_LIMIT_NS, NOW, 100)
    source.advance(taken)

    assert taken.records["mono_ns"].tolist() == [6]
    assert [(one.ring, one.loss.first_seq, one.loss.last_seq) for one in taken.losses] == [("kis.tick", 3, UNKNOWN_SEQ)]
    assert 0 < taken.losses[0].after_ns and 0 < taken.losses[0].before_ns
    assert source.peek(NO_LIMIT_NS, NOW, 100).losses == []
