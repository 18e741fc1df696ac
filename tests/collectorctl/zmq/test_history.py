"""Published messages: their form, their numbers, and what is kept of them."""

from __future__ import annotations

import json

from collectorctl.reader.messages import Book, FeedDown, FeedUp, Gap, Lost, Phase, Tick
from collectorctl.zmq.envelope import Heads, decode
from collectorctl.zmq.history import OVERHEAD_BYTES, History

ASKS, BIDS = ((70100, 5), (70200, 3)), ((70000.0, 7),)
BOOK = Book("kis", "005930", "NXT", 7, 10, 11, 12, ASKS, BIDS, None, 50, 70, 70100, 4, "regular", 0)
TICK = Tick("kiwoom", "AAPL", "NASDAQ_DAY", 8, 10, 11, 12, 190.25, 5, -1, 100, None, 3, 190.3, None, "day", 4)
GAP = Gap("005930", "KRX", 10, 20, 30)
PHASE = Phase("vi", "kis", "005930", "KRX", 30, 1, "text \u00e9")
OTHERS = [
    (FeedDown("kis", 2, "cut", None), b"feed.kis.2"),
    (FeedUp("us", 0), b"feed.us.0"),
    (Lost("kis", "tick", 3, 9, True), b"lost"),
    (Phase("phase", "kis", "", "", 30, None, "21"), b"phase"),
]
MESSAGES = [
    *((BOOK, b"orderbook.005930_NX"), (TICK, b"tick.BAQ.AAPL"), (GAP, b"gap.005930"), (PHASE, b"phase.005930")),
    *OTHERS,
]


def make_gaps(history: History, count: int) -> list[bytes]:
    return [history.add(GAP._replace(begin=number), 40)[1] for number in range(count)]


def test_every_kind_of_message_has_its_topic_and_comes_back_as_it_was() -> None:
    history = History(5, 1 << 20)

    for message, topic in MESSAGES:
        found, payload = history.add(message, 40)
        envelope, back = decode(payload)
        assert (found, back, type(back)) == (topic, message, type(message))
        assert (envelope.epoch, envelope.topic_seq, envelope.at_ns, envelope.is_snapshot) == (5, 1, 40, False)
    _, heads = decode(history.make_heads(50))
    assert heads == Heads({topic.decode(): 1 for _, topic in MESSAGES})


def test_the_object_on_the_wire_is_the_one_that_the_page_shows() -> None:
    _, payload = History(5, 1 << 20).add(GAP, 40)

    assert json.loads(payload) == {
        "epoch": 5,
        "topic_seq": 1,
        "at_ns": 40,
        "type": "gap",
        "message": {"symbol": "005930", "venue": "KRX", "begin": 10, "end": 20, "recv_ns": 30},
        "is_snapshot": False,
    }


def test_what_is_kept_is_the_newest_without_a_hole_in_no_more_bytes_than_allowed() -> None:
    size = len(make_gaps(History(5, 1 << 20), 1)[0]) + OVERHEAD_BYTES
    history = History(5, 10 * size + 9)
    payloads = make_gaps(history, 9)
    history.add(BOOK, 40)  # of another topic, and larger
    kept, gone = history.read(b"gap.005930", 1, 9, 100)

    assert kept == payloads[gone:]
    assert 0 < gone < 9
    assert history.read(b"gap.005930", 9, 9, 100) == ([payloads[8]], 0)
    assert history.read(b"gap.005930", gone + 1, 9, 2) == (payloads[gone : gone + 2], 0)
    assert history.read(b"gap.005930", 1, 2**63, 100) == (payloads[gone:], gone)
    assert history.read(b"gap.005930", -5, -1, 100) == ([], 0)
    assert history.read(b"gap.005930", 10, 12, 100) == ([], 0)
    assert history.read(b"gap.000660", 1, 2, 100) == ([], 0)


def test_last_values_are_books_and_states_of_feeds_under_the_numbers_that_they_have() -> None:
    history = History(5, 1)
    for number in (1, 2):
        for message, _ in MESSAGES:
            history.add(message._replace(seq=number) if isinstance(message, Book) else message, 40)
    found = {topic: decode(payload) for topic, payload in history.make_snapshots(b"")}

    assert {topic: message for topic, (_, message) in found.items()} == {
        b"orderbook.005930_NX": BOOK._replace(seq=2),
        b"feed.kis.2": FeedDown("kis", 2, "cut", None),
        b"feed.us.0": FeedUp("us", 0),
    }
    assert {(envelope.is_snapshot, envelope.topic_seq) for envelope, _ in found.values()} == {(True, 2)}
    assert [topic for topic, _ in history.make_snapshots(b"orderbook.005930")] == [b"orderbook.005930_NX"]
    assert history.make_snapshots(b"orderbook.0059301") == []
