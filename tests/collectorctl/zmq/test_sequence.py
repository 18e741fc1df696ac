"""The numbers of topics: what is new, what was missed, and that each number is one of the two."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from collectorctl.zmq.sequence import Missed, Restarted, SequenceTracker

EPOCH, LATER = 1000, 9000
TOPICS = ("orderbook.005930", "tick.005930")


def make_tracker() -> SequenceTracker:
    return SequenceTracker(lambda topic: topic in TOPICS)


def test_a_number_that_is_skipped_is_missed_between_the_last_heads_and_the_message_that_shows_it() -> None:
    tracker = make_tracker()

    assert tracker.take_heads(EPOCH, {TOPICS[0]: 4}, at_ns=1010) == []
    assert tracker.take(TOPICS[0], EPOCH, 5, 1020, 1021) == ([], True, False)
    assert tracker.take(TOPICS[0], EPOCH, 9, 1030, 1031).losses == [Missed(TOPICS[0], EPOCH, 6, 8, 1010, 1031)]
    assert tracker.take(TOPICS[0], EPOCH, 10, 1040, 1041) == ([], True, False)


def test_heads_without_data_show_what_an_idle_topic_lost() -> None:
    tracker = make_tracker()
    tracker.take_heads(EPOCH, {TOPICS[0]: 4}, at_ns=1010)

    assert tracker.take_heads(EPOCH, {TOPICS[0]: 6, TOPICS[1]: 2, "orderbook.000660": 7}, at_ns=1020) == [
        Missed(TOPICS[0], EPOCH, 5, 6, 1010, 1020),
        Missed(TOPICS[1], EPOCH, 1, 2, 1010, 1020),
    ]
    assert tracker.take_heads(EPOCH, {TOPICS[0]: 6, TOPICS[1]: 2}, at_ns=1030) == []


def test_what_was_before_the_beginning_is_not_missed() -> None:
    tracker = make_tracker()

    assert tracker.take(TOPICS[0], EPOCH, 70, 1020, 1021) == ([], True, True)
    assert tracker.take_heads(EPOCH, {TOPICS[0]: 70, TOPICS[1]: 30}, at_ns=1030) == []
    assert tracker.take(TOPICS[1], EPOCH, 31, 1040, 1041) == ([], True, False)


def test_a_last_value_begins_a_topic_whichever_of_it_and_the_heads_is_first_and_is_not_new_later() -> None:
    tracker = make_tracker()

    assert tracker.take(TOPICS[0], EPOCH, 70, 500, 501) == ([], True, True)
    tracker.take_heads(EPOCH, {TOPICS[0]: 70, TOPICS[1]: 30}, at_ns=1030)
    assert tracker.take(TOPICS[1], EPOCH, 30, 500, 501) == ([], True, True)
    assert [tracker.take(topic, EPOCH, seq, 500, 501).is_new for topic, seq in zip(TOPICS, (70, 30), strict=True)] == [
        False,
        False,
    ]


def test_another_epoch_is_a_restart_and_all_of_it_is_due() -> None:
    tracker = make_tracker()
    tracker.take_heads(EPOCH, {TOPICS[0]: 4}, at_ns=1010)
    tracker.take(TOPICS[0], EPOCH, 5, 1020, 1021)

    assert tracker.take(TOPICS[0], LATER, 3, 9500, 9501).losses == [
        Restarted(EPOCH, LATER, 1010, 9501),
        Missed(TOPICS[0], LATER, 1, 2, LATER, 9501),
    ]
    assert tracker.take_heads(LATER, {TOPICS[0]: 3, TOPICS[1]: 1}, at_ns=9600) == [
        Missed(TOPICS[1], LATER, 1, 1, LATER, 9600)
    ]


@given(st.lists(st.tuples(st.sampled_from([*TOPICS, "heads", "restart"]), st.booleans()), max_size=60))
def test_whatever_is_dropped_each_number_is_taken_or_missed_once(steps: list[tuple[str, bool]]) -> None:
    """A publisher of two topics; each message, and each of its heads, arrives or not; the last heads arrive."""
    tracker = make_tracker()
    at_ns = epoch = 1
    counts: Counter[str] = Counter()
    sent: set[tuple[int, str, int]] = set()
    found: list[tuple[int, str, int]] = []
    restarts, epochs = 0, {epoch}

    def note(losses: list[Missed | Restarted]) -> None:
        nonlocal restarts
        for loss in losses:
            if isinstance(loss, Restarted):
                restarts += 1
            else:
                found.extend((loss.epoch, loss.topic, seq) for seq in range(loss.first, loss.last + 1))

    tracker.take_heads(epoch, {}, at_ns)
    for what, arrives in [*steps, ("heads", True)]:
        at_ns += 1
        if what == "restart":
            # what the former epoch sent since its newest heads that arrived is behind the Restarted
            epoch = at_ns
            counts.clear()
        elif what == "heads":
            if arrives:
                epochs.add(epoch)
                note(tracker.take_heads(epoch, dict(counts), at_ns))
        else:
            counts[what] += 1
            sent.add((epoch, what, counts[what]))
            if arrives:
                epochs.add(epoch)
                arrival = tracker.take(what, epoch, counts[what], at_ns, at_ns)
                note(arrival.losses)
                found += [(epoch, what, counts[what])] * arrival.is_new

    assert len(found) == len(set(found))
    assert set(found) <= sent
    assert {one for one in sent if one[0] == epoch} <= set(found)
    assert restarts == len(epochs) - 1
