"""Events: told from any thread, read like every record."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conf.clock import real
from ringbuf.events import EventPublisher
from ringbuf.records import EVENT, STREAM_NAMES, UNDEFINED, EventType, FeedId, Venue
from ringbuf.ring import Consumer
from ringbuf.vitals import ProcessState, Vitals, last_heartbeat


@pytest.fixture
def events(tmp_path: Path) -> Iterator[EventPublisher]:
    """A line's events."""
    told = EventPublisher(tmp_path / "kis.event.ring", FeedId.KIS, real())
    yield told
    told.close()


def read(tmp_path: Path) -> list[dict[str, object]]:
    """What can be read from the ring."""
    ring = Consumer.open(tmp_path / "kis.event.ring", EVENT)
    records = ring.read(1, 10_000).records
    ring.close()
    return [dict(zip(EVENT.names, record, strict=True)) for record in records.tolist()]


def test_an_event_says_what_it_was_told_and_nothing_else(events: EventPublisher, tmp_path: Path) -> None:
    """What is not named is blank, or UNDEFINED where it is a number; both times are of one instant."""
    before_ns = time.time_ns()
    events.emit(
        EventType.ACKNOWLEDGED, "words", symbol="005930", venue="NXT", stream="tick", connection=2, value=5, since_ns=7
    )
    events.emit(EventType.RING_LOSS, feed=FeedId.KIWOOM, mono_ns=time.monotonic_ns() - 10**9)

    one, two = read(tmp_path)
    assert (one["line"], one["kind"], one["message"], one["symbol"]) == (
        FeedId.KIS,
        EventType.ACKNOWLEDGED,
        b"words",
        b"005930",
    )
    assert (one["venue"], STREAM_NAMES[one["stream"]], one["connection"]) == (Venue.NXT, "tick", 2)
    assert (one["value"], one["since_ns"], one["exch_ns"]) == (5, 7, UNDEFINED)
    assert before_ns - 10**8 < one["recv_ns"] < time.time_ns() + 10**8
    assert (two["line"], two["symbol"], two["venue"], two["stream"], two["message"]) == (FeedId.KIWOOM, b"", 0, 0, b"")
    assert (two["value"], two["since_ns"]) == (UNDEFINED, UNDEFINED)
    assert -1.1e9 < two["recv_ns"] - one["recv_ns"] < -0.5e9


def test_the_times_of_stored_events_are_those_of_a_kind_and_a_connection(events: EventPublisher) -> None:
    """What another process finds; one from the future is of another boot."""
    for kind, connection, mono_ns in (
        (EventType.CONNECTED, 1, 500),
        (EventType.CONNECTED, 2, 501),
        (EventType.DISCONNECTED, 1, 502),
        (EventType.CONNECTED, 1, 400),
        (EventType.CONNECTED, 1, time.monotonic_ns() + 10**12),
    ):
        events.emit(kind, connection=connection, mono_ns=mono_ns)

    assert events.stored_times_ns(EventType.CONNECTED, 1) == [400, 500]


def test_words_are_cut_between_letters(events: EventPublisher, tmp_path: Path) -> None:
    """A vendor's Korean has three bytes a letter; half a letter would be none."""
    events.emit(EventType.PHASE, "x" + "장" * 100)

    assert read(tmp_path)[0]["message"].decode() == "x" + "장" * 59


def test_many_threads_tell_at_once_and_every_event_is_there_once(events: EventPublisher, tmp_path: Path) -> None:
    """Several connections live in one process, a thread each, and have one ring."""
    threads = [
        threading.Thread(
            target=lambda n=n: [events.emit(EventType.CONNECTED, connection=n, value=i) for i in range(300)]
        )
        for n in range(1, 7)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    told = read(tmp_path)
    assert [event["seq"] for event in told] == list(range(1, 1801))
    assert sorted((e["connection"], e["value"]) for e in told) == [(n, i) for n in range(1, 7) for i in range(300)]


def test_the_last_sign_of_a_former_life_is_told_unless_it_ended_in_order(tmp_path: Path) -> None:
    """From a process that was killed, the page that outlives it; not from one that said it stopped, not from nobody."""
    path = tmp_path / "kis.vitals"
    nobody = last_heartbeat(path)
    vitals = Vitals.create(path, "kis")
    before_ns = time.monotonic_ns()
    vitals.heartbeat()
    killed = last_heartbeat(path)
    vitals.set_state(ProcessState.STOPPED, "as asked")

    assert nobody is None
    assert before_ns <= killed <= time.monotonic_ns()
    assert last_heartbeat(path) is None
