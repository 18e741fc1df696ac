"""A stored day as messages: in receive order, gaps and events at their place, at its pace."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from pathlib import Path

import numpy as np
import pytest
from support.us_day import DAY as US_DAY
from support.us_day import make_us_day, ny
from support.writer_data import NINE_NS, SECOND_NS, make_books, make_home, make_ticks

from collectorctl.reader.home import HomeReader
from collectorctl.reader.live import RecordBatch
from collectorctl.reader.messages import Book, FeedDown, FeedUp, Gap, Message, Tick
from collectorctl.reader.replay import Replay
from conf.clock import to_kst
from conf.home import Home
from ringbuf.records import EVENT, EventType, FeedId, empty_records
from writer.publish.records import publish_records

DAY = to_kst(NINE_NS).date()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Four books, four ticks between them of which one was fetched, and a connection that breaks and returns."""
    made = make_home(tmp_path_factory.mktemp("home"))
    books, ticks, events = make_books(range(4), symbols=1), make_ticks([1, 2, 5, 6]), empty_records(EVENT, 2)
    books["symbol"] = b"005930"
    books["recv_ns"] = NINE_NS + np.array([0, 10, 20, 200]) * SECOND_NS
    ticks["recv_ns"] = NINE_NS + np.array([5, 6, 25, 201]) * SECOND_NS
    events["recv_ns"] = NINE_NS + np.array([12, 22]) * SECOND_NS
    events["kind"], events["line"] = [EventType.DISCONNECTED, EventType.CONNECTED], FeedId.KIS
    events["connection"], events["seq"] = 1, [1, 2]
    events["message"][0] = b"cut"
    for dataset, records, lineage in (
        ("kr.orderbook", books, "books"),
        ("kr.tick", ticks, "ticks"),
        ("kr.tick", make_ticks([4], FeedId.GAPFILL), "fetched"),
        ("kr.event", events, "events"),
    ):
        directory = made.data / dataset.replace(".", "/")
        publish_records(directory, dataset, records, lineage, made.settings.writer, SECOND_NS)
    return made


def name(message: Message) -> str:
    return type(message).__name__


ORDER = ["Book", "Tick", "Tick", "Book", "FeedDown", "Book", "FeedUp", "Gap", "Tick", "Book", "Tick"]


def test_a_day_comes_in_receive_order_with_its_gaps_and_events_at_their_place(home: Home) -> None:
    replay = Replay(home, DAY, ["005930"])
    messages = list(replay)

    assert [name(one) for one in messages] == ORDER
    assert [one for one in messages if isinstance(one, Gap)] == [Gap("005930", "KRX", 2, 4, NINE_NS + 25 * SECOND_NS)]
    assert [one for one in messages if isinstance(one, FeedDown | FeedUp)] == [
        FeedDown("kis", 1, "cut", None),
        FeedUp("kis", 1),
    ]
    assert replay.count_fetched() == 1


def test_batches_and_an_async_iterator_have_the_same(home: Home) -> None:
    async def read() -> list[Message]:
        return [message async for message in Replay(home, DAY, ["005930"])]

    batches = list(Replay(home, DAY, ["005930"]).batches())
    counted = [one.stream for one in batches if isinstance(one, RecordBatch) for _ in one.records]

    assert asyncio.run(read()) == list(Replay(home, DAY, ["005930"]))
    assert (counted.count("orderbook"), counted.count("tick")) == (4, 4)


def test_a_speed_keeps_the_pace_and_a_pause_moves_what_follows(home: Home) -> None:
    begin, end = (to_kst(NINE_NS + second * SECOND_NS).time() for second in (0, 210))
    replay = Replay(home, DAY, ["005930"], begin=begin, end=end, speed=200)
    messages = iter(replay)
    next(messages)
    begin_s = time.monotonic()
    replay.pause()
    time.sleep(0.3)
    replay.resume()
    rest = list(messages)

    assert len(rest) == len(ORDER) - 1
    assert time.monotonic() - begin_s >= 201 / 200 + 0.29


def test_of_a_feed_come_its_own_arrivals_at_their_times(tmp_path: Path) -> None:
    """Of books that both delivered each has its own time; a tick and an event are of the feed that brought them."""
    made = make_home(tmp_path)
    books, ticks, events = make_books(range(6), symbols=1), make_ticks(range(1, 5)), empty_records(EVENT, 2)
    books["recv_ns"] = books["mono_ns"] = NINE_NS + np.arange(6) * SECOND_NS
    twins = books[[0, 1, 3, 5]].copy()
    twins["line"] = FeedId.KIWOOM
    twins["recv_ns"] += np.array([30, -20, 40, 50]) * 1_000_000
    twins["mono_ns"] = twins["recv_ns"]
    both = np.concatenate([books[:5], twins])
    ticks["recv_ns"], ticks["line"][2:], ticks["symbol"] = NINE_NS + np.arange(4) * 7, FeedId.KIWOOM, b"000000"
    events["recv_ns"], events["kind"], events["line"] = NINE_NS + 5, EventType.CONNECTED, [FeedId.KIS, FeedId.KIWOOM]
    both = both[np.argsort(both["recv_ns"], kind="stable")]
    for dataset, records in (("kr.orderbook", both), ("kr.tick", ticks), ("kr.event", events)):
        directory = made.data / dataset.replace(".", "/")
        publish_records(directory, dataset, records, dataset, made.settings.writer, SECOND_NS)

    of_feed = {feed: list(Replay(made, DAY, ["000000"], feed=feed)) for feed in ("kis", "kiwoom")}
    for feed, delivered in (("kis", books[:5]), ("kiwoom", twins)):
        found = [one for one in of_feed[feed] if isinstance(one, Book)]
        assert [one.recv_ns for one in found] == delivered["recv_ns"].tolist()
        assert [one.cum_volume for one in found] == delivered["cum_volume"].tolist()
        assert {one.feed for one in found} == {feed}
        assert [one for one in of_feed[feed] if isinstance(one, FeedUp)] == [FeedUp(feed, 0)]
        assert of_feed[feed] == sorted(of_feed[feed], key=lambda one: getattr(one, "recv_ns", NINE_NS + 5))
    assert [one.cum_volume for one in of_feed["kis"] if isinstance(one, Tick)] == [1, 2]
    assert [one.cum_volume for one in of_feed["kiwoom"] if isinstance(one, Tick)] == [3, 4]
    with pytest.raises(ValueError, match="no such feed"):
        Replay(made, DAY, feed="us")


def test_a_closed_replay_ends_and_a_span_and_streams_select(home: Home) -> None:
    begin, end = (to_kst(NINE_NS + second * SECOND_NS).time() for second in (6, 21))
    found = list(Replay(home, DAY, ["005930"], ["tick"], begin, end))
    replay = Replay(home, DAY, ["005930"])
    messages = iter(replay)
    next(messages)
    replay.close()

    assert [name(one) for one in found] == ["Tick", "FeedDown"]
    assert list(messages) == []
    for symbols, market in ((["005930", "NAS.AAPL"], None), (["NAS.AAPL"], "kr")):
        with pytest.raises(ValueError, match="of one market, not of kr and us"):
            Replay(home, DAY, symbols, market=market)
    with pytest.raises(ValueError, match="no such market"):
        Replay(home, DAY, market="jp")
    with pytest.raises(ValueError, match="is not after"):
        Replay(home, DAY, None, ["tick"], end, begin)


@pytest.fixture(scope="module")
def us_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return make_us_day(tmp_path_factory.mktemp("us_home"))


def test_a_us_day_is_new_yorks_and_has_its_own_gaps_events_prices_and_repeats(us_home: Home) -> None:
    """A trade of before midnight that was received after it, too; the day market's volume begins anew in New York's evening."""
    reader = HomeReader(us_home.root)
    messages = list(reader.replay(US_DAY, ["NAS.NVDA", "BAQ.NVDA"]))
    ticks = [one for one in messages if isinstance(one, Tick)]

    expected = ["Tick", "FeedUp", "Book", "Tick", "Tick", "Tick", "Gap", "Tick", "FeedDown", "Book", "Tick", "Tick"]
    assert [name(one) for one in messages] == expected
    assert {one.feed for one in messages if isinstance(one, Book | Tick | FeedDown | FeedUp)} == {"us"}
    assert [one for one in messages if isinstance(one, Gap)] == [
        Gap("NVDA", "NASDAQ", 10, 15, ny(f"{US_DAY} 09:30:03.1"))
    ]
    assert [(one.venue, one.cum_volume, one.size) for one in ticks] == [
        *(("NASDAQ_DAY", 90, 1), ("NASDAQ", 10, 10), ("NASDAQ", 10, 10), ("NASDAQ", 10, 0)),
        *(("NASDAQ", 16, 1), ("NASDAQ_DAY", 4, 4), ("NASDAQ_DAY", 5, 1)),
    ]
    assert {one.price for one in ticks} == {180.325}
    assert len(list(reader.replay(US_DAY, market="us"))) == len(messages) + 2
    assert [one.cum_volume for one in reader.replay("2026-11-21", ["BAQ.NVDA"]) if isinstance(one, Tick)] == [6]


def test_the_span_of_a_us_replay_is_in_new_yorks_time(us_home: Home) -> None:
    span = {"begin": dt.time(9, 30, 2), "end": dt.time(12, 0, 1)}
    found = list(Replay(us_home, dt.date.fromisoformat(US_DAY), ["NAS.NVDA"], **span))

    assert [name(one) for one in found] == ["Tick", "Tick", "FeedDown"]
    assert [one.cum_volume for one in found if isinstance(one, Tick)] == [10, 16]
