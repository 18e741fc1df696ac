"""Incidents of the day, folded from events."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from conf import clock
from conf.clock import HOUR_NS, SECOND_NS
from ringbuf.records import EVENT, STREAM_NAMES, UNDEFINED, EventType, FeedId, Venue, empty_records
from writer import schema
from writer.feeds.day_events import COLUMNS, KEEP_NS, MAX_INCIDENTS, BlindSpan, DayEvents
from writer.feeds.day_report import DayReport, DayReporter

T0 = 1_763_600_400 * SECOND_NS  # 2025-11-20 10:00 KST


def event(kind: EventType, at_s: float, feed: FeedId = FeedId.KIS, **fields: Any) -> np.ndarray:
    record = empty_records(EVENT, 1)
    record["recv_ns"] = record["mono_ns"] = T0 + round(at_s * SECOND_NS)
    record["exch_ns"] = UNDEFINED
    record["line"], record["kind"] = feed, kind
    since_s = fields.get("since_s")
    record["since_ns"] = UNDEFINED if since_s is None else T0 + round(since_s * SECOND_NS)
    record["value"] = fields.get("value", UNDEFINED)
    record["symbol"], record["venue"] = fields.get("symbol", "").encode(), Venue.KRX if fields.get("symbol") else 0
    record["stream"] = STREAM_NAMES.index(fields.get("stream", ""))
    record["connection"] = fields.get("connection", 0)
    record["message"] = fields.get("message", "").encode()
    return record


def subscribed(at_s: float, feed: FeedId, symbol: str = "005930", connection: int = 1) -> np.ndarray:
    return event(EventType.ACKNOWLEDGED, at_s, feed, symbol=symbol, stream="orderbook", connection=connection)


def cut(at_s: float, feed: FeedId, since_s: float, connection: int = 1) -> np.ndarray:
    return event(EventType.DISCONNECTED, at_s, feed, since_s=since_s, connection=connection, message="no frame")


def fold(*events: np.ndarray) -> DayEvents:
    day = DayEvents()
    day.add_records(np.concatenate([np.zeros(0, EVENT), *events]))
    return day


def as_rows(events: np.ndarray) -> list[dict[str, Any]]:
    """The events as they are stored and read again."""
    table = pa.table(schema.build_columns("kr.event", events), schema.PARQUET["kr.event"]).select(COLUMNS)
    for name in ("time", "since"):
        table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.int64()))
    return table.to_pylist()


def test_a_book_is_blind_while_no_feed_is_subscribed_to_it_after_one_was() -> None:
    """From the last frame of the last connection to the first acknowledgement of any."""
    day = fold(
        subscribed(0, FeedId.KIS),
        subscribed(1, FeedId.KIWOOM),
        subscribed(1, FeedId.KIS, "000660", connection=2),
        cut(20, FeedId.KIS, since_s=10),
        cut(40, FeedId.KIWOOM, since_s=35),
        subscribed(50, FeedId.KIS),
        subscribed(60, FeedId.KIWOOM),
    )

    assert day.blind_spans() == [BlindSpan(T0 + 35 * SECOND_NS, T0 + 50 * SECOND_NS, ["005930 KRX"])]


def test_a_book_is_blind_although_one_feed_is_back_before_the_end_of_the_other_is_known() -> None:
    """Both processes were killed at once; KIS's next one subscribes before Kiwoom's has started."""
    day = fold(
        subscribed(0, FeedId.KIS),
        subscribed(0, FeedId.KIWOOM),
        event(EventType.STARTED, 12, FeedId.KIS, since_s=10),
        subscribed(14, FeedId.KIS),
        event(EventType.STARTED, 15, FeedId.KIWOOM, since_s=11),
        subscribed(18, FeedId.KIWOOM),
    )

    assert day.blind_spans() == [BlindSpan(T0 + 11 * SECOND_NS, T0 + 14 * SECOND_NS, ["005930 KRX"])]


def test_a_book_that_the_second_feed_has_not_seen_yet_is_blind_without_the_first() -> None:
    """Until the second one is subscribed to it as well."""
    day = fold(subscribed(0, FeedId.KIS), cut(5, FeedId.KIS, since_s=3), subscribed(8, FeedId.KIWOOM))

    assert day.blind_spans() == [BlindSpan(T0 + 3 * SECOND_NS, T0 + 8 * SECOND_NS, ["005930 KRX"])]


def test_a_book_of_a_killed_process_is_blind_from_its_last_heartbeat_on() -> None:
    """And the span is open until somebody subscribes to it."""
    day = fold(subscribed(0, FeedId.KIS), event(EventType.STARTED, 30, since_s=21, message="pid 7"))

    assert day.blind_spans() == [BlindSpan(T0 + 21 * SECOND_NS, None, ["005930 KRX"])]
    (restart,) = day.incidents
    assert (restart.kind, restart.feed, restart.begin_ns, restart.end_ns) == (
        "restart",
        "kis",
        T0 + 21 * SECOND_NS,
        T0 + 30 * SECOND_NS,
    )


def test_an_orderly_stop_and_start_is_no_restart() -> None:
    """A start without a predecessor that died is none, and the end of a connection on request is no disconnect."""
    closed = event(EventType.DISCONNECTED, 1, connection=1, message="asked to stop")
    assert fold(closed, event(EventType.STOPPED, 1), event(EventType.STARTED, 2)).incidents == []


def test_a_pause_ends_with_the_resumption_of_the_same_dataset() -> None:
    """Of two paused datasets one goes on."""
    day = fold(
        event(EventType.PAUSED, 1, FeedId.WRITER, message="kr.tick: No space left on device"),
        event(EventType.PAUSED, 2, FeedId.WRITER, message="kr.orderbook: No space left on device"),
        event(EventType.RESUMED, 9, FeedId.WRITER, message="kr.tick", since_s=1),
    )

    assert [(one.stream, one.end_ns) for one in day.incidents] == [
        ("kr.tick", T0 + 9 * SECOND_NS),
        ("kr.orderbook", None),
    ]


def test_a_degradation_ends_with_the_restoration_of_the_same_symbol() -> None:
    """Of the feed as a whole is another."""
    day = fold(
        event(EventType.DEGRADED, 1, symbol="005930", message="half of the books"),
        event(EventType.DEGRADED, 2, message="half of the books"),
        event(EventType.RESTORED, 5, since_s=2),
    )

    assert [one.end_ns for one in day.incidents] == [None, T0 + 5 * SECOND_NS]


def test_a_disconnect_ends_with_the_first_acknowledgement_on_its_connection() -> None:
    """That of another connection ends nothing."""
    day = fold(cut(5, FeedId.KIS, 3), subscribed(6, FeedId.KIS, connection=2), subscribed(8, FeedId.KIS))

    assert [(one.kind, one.begin_ns, one.end_ns) for one in day.incidents] == [
        ("disconnect", T0 + 3 * SECOND_NS, T0 + 8 * SECOND_NS)
    ]


def test_losses_are_kept_for_a_day_and_joined_when_they_are_many() -> None:
    """None of their records is forgotten before."""
    losses = [
        event(EventType.RING_LOSS, n, FeedId.KIS, stream="orderbook", value=2, since_s=n - 1)
        for n in range(MAX_INCIDENTS + 50)
    ]
    day = fold(*losses)

    assert len(day.incidents) == MAX_INCIDENTS
    assert sum(one.value or 0 for one in day.incidents) == 2 * (MAX_INCIDENTS + 50)
    assert sum(one.count for one in day.incidents) == MAX_INCIDENTS + 50
    assert day.incidents[-1].end_ns == T0 + (MAX_INCIDENTS + 49) * SECOND_NS
    day.expire(T0 + KEEP_NS)
    assert len(day.incidents) == MAX_INCIDENTS
    day.expire(T0 + KEEP_NS + HOUR_NS)
    assert day.incidents == []


def test_of_joined_losses_an_unknown_number_stays_unknown() -> None:
    """A ring that is gone took nobody knows how much with it."""
    frames = [event(EventType.QUARANTINED, n, value=value) for n, value in enumerate((3, 4))]
    assert [(one.value, one.count) for one in fold(*frames).incidents] == [(7, 2)]
    frames.append(event(EventType.QUARANTINED, 5))
    assert [(one.value, one.count) for one in fold(*frames).incidents] == [(None, 3)]


KINDS = st.sampled_from(list(EventType))


@given(
    drawn=st.lists(
        st.tuples(
            KINDS,
            st.sampled_from([FeedId.KIS, FeedId.KIWOOM, FeedId.WRITER]),
            st.sampled_from(["", "005930", "000660"]),
            st.sampled_from(["", "orderbook", "tick"]),
            st.integers(0, 2),
            st.none() | st.integers(0, 5),
            st.none() | st.integers(0, 60),
        ),
        max_size=40,
    ),
    split=st.integers(0, 40),
)
def test_stored_events_and_new_ones_give_what_all_of_them_give(drawn: list[tuple[Any, ...]], split: int) -> None:
    """A restart of the writer changes no incident and no span, and open spans are of books that no feed sees."""
    events = [
        event(
            kind,
            60 + at,
            feed,
            symbol=symbol,
            stream=stream,
            connection=connection,
            message="kr.tick: text",
            **({} if value is None else {"value": value}),
            since_s=since,
        )
        for at, (kind, feed, symbol, stream, connection, value, since) in enumerate(drawn)
    ]
    whole = fold(*events)

    restarted = DayEvents()
    if events[:split]:
        restarted.add_rows(as_rows(np.concatenate(events[:split])))
    restarted.add_records(np.concatenate([np.zeros(0, EVENT), *events[split:]]))

    assert restarted.incidents == whole.incidents
    assert restarted.blind_spans() == whole.blind_spans()
    assert all(span.end_ns is None or span.begin_ns <= span.end_ns for span in whole.blind_spans())


def test_the_report_is_written_when_it_changes_and_confirmed_once_a_second(tmp_path: Path) -> None:
    """A reader sees by the file's time that it holds; a file that was deleted comes back."""
    path, day = tmp_path / "day.json", DayEvents()
    reporter = DayReporter(path, clock.real())

    def write(second: int) -> tuple[int, int]:
        os.utime(path, (0, 0)) if path.exists() else None
        reporter.write([("kr", day)], (1000 + second) * SECOND_NS)
        return path.stat().st_ino, len(msgspec.json.decode(path.read_bytes(), type=DayReport).recent)

    first = write(0)
    assert write(1) == first and path.stat().st_mtime > 0
    day.add_records(event(EventType.PAUSED, 0, message="kr.tick: full"))
    changed = write(2)
    assert changed[0] != first[0] and changed[1] == 1
    assert write(3) == changed
    path.unlink()
    assert write(4)[1] == 1 and path.stat().st_mtime > 0


def test_an_unwritable_report_is_not_confirmed(tmp_path: Path) -> None:
    """Its age grows until it is written."""
    path, day = tmp_path / "day.json", DayEvents()
    reporter = DayReporter(path, clock.real())
    reporter.write([("kr", day)], 1000 * SECOND_NS)
    os.utime(path, (0, 0))
    blocker = tmp_path / f".day.json.{os.getpid()}.new"
    blocker.mkdir()
    day.add_records(event(EventType.PAUSED, 0, message="kr.tick: full"))
    for second in (1001, 1002):
        reporter.write([("kr", day)], second * SECOND_NS)
        assert path.stat().st_mtime == 0
    blocker.rmdir()
    reporter.write([("kr", day)], 1003 * SECOND_NS)

    assert path.stat().st_mtime > 0
