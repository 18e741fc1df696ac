"""A real publisher over real rings: what comes, what a subscriber that did not read has of it, and what a restart leaves."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zmq
from support.process_tree import wait_until
from support.ring_program import CAPACITY, WAIT_S, RingProgram, free_ports

from collectorctl.reader.live import Live
from collectorctl.reader.messages import Book, FeedDown, FeedUp, Gap, Tick
from collectorctl.zmq.__main__ import serve
from collectorctl.zmq.sequence import Missed, Restarted
from collectorctl.zmq.subscriber import PUBLISHER, Received, Snapshot, Subscriber
from conf.home import Home
from conf.process import ShutdownSignal
from ringbuf.records import EVENT, ORDERBOOK, TICK, EventType, FeedId, Venue, empty_records
from ringbuf.vitals import ProcessState, read_snapshot

SETTINGS = """
[universe]
kr = ["005930", "005930_NX", "000660"]
[paths]
ring = "rings"
[zmq]
enabled = true
port = {port}
resend_port = {resend_port}
resend_mb = 1
high_water = 100
"""


class BegunSubscriber(Subscriber):
    """One that has read the beginning of its stream."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.first: list[Received] = []


class Publishing(RingProgram):
    """A home with rings, and the publisher that reads them."""

    def __init__(self, root: Path) -> None:
        port, resend_port = free_ports(2)
        self.address, self.resend_address = (f"tcp://127.0.0.1:{number}" for number in (port, resend_port))
        settings = SETTINGS.format(port=port, resend_port=resend_port)
        super().__init__(root, "zmq", settings, ("kis", "kiwoom"), ("orderbook", "tick", "event"))

    def subscribe(self, *symbols: str, streams: tuple[str, ...] = ("orderbook", "tick")) -> BegunSubscriber:
        """A subscriber whose stream has begun, and in `first` what has come of it."""
        subscriber = BegunSubscriber(symbols or None, streams, self.address, self.resend_address, high_water=100)
        deadline_s = time.monotonic() + WAIT_S
        while not subscriber.has_begun:
            assert time.monotonic() < deadline_s
            subscriber.first += subscriber.read(0.05)
        return subscriber

    def publish_books(self, count: int, symbol: str = "005930", venue: Venue = Venue.KRX) -> list[int]:
        """Books of ten levels by KIS, and their cumulative volumes; returns when the publisher has sent them."""
        volumes: list[int] = []
        while len(volumes) < count:
            records = empty_records(ORDERBOOK, min(count - len(volumes), CAPACITY // 2))
            self._stamp(records, symbol, venue, FeedId.KIS)
            records["ask_price_e4"], records["ask_size"] = 701_000_000 + np.arange(10) * 1_000_000, 5
            records["bid_price_e4"], records["bid_size"] = 700_000_000 - np.arange(10) * 1_000_000, 7
            records["cum_volume"] = self.volume + 1 + np.arange(len(records))
            self.volume += len(records)
            volumes += records["cum_volume"].tolist()
            sent = self.read_vitals().counters["published"] + len(records)
            self.rings["kis", "orderbook"].publish(records)
            wait_until("all are sent", lambda sent=sent: self.read_vitals().counters["published"] >= sent, WAIT_S)  # type: ignore[misc]
        return volumes

    def make_ticks(self, feed: FeedId, *covered: tuple[int, int], symbol: str = "005930") -> np.ndarray:
        records = empty_records(TICK, len(covered))
        self._stamp(records, symbol, Venue.KRX, feed)
        records["size"] = [end - begin for begin, end in covered]
        records["cum_volume"] = [end for _, end in covered]
        records["price_e4"] = 700_000_000
        return records

    def _stamp(self, records: np.ndarray, symbol: str, venue: Venue, feed: FeedId) -> None:
        records["symbol"], records["venue"], records["line"] = symbol.encode(), venue, feed
        records["mono_ns"], records["recv_ns"] = time.monotonic_ns(), time.time_ns()
        records["exch_ns"] = records["recv_ns"] // 1_000_000_000 * 1_000_000_000


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publishing]:
    made = Publishing(tmp_path_factory.mktemp("zmq"))
    yield made
    made.kill()
    for ring in made.rings.values():
        ring.close()


def read_until(subscriber: Subscriber, is_enough: Callable[[list[Received]], bool]) -> list[Received]:
    found: list[Received] = []
    deadline_s = time.monotonic() + WAIT_S
    while not is_enough(found):
        assert time.monotonic() < deadline_s, found[-20:]
        found += subscriber.read(0.05)
    return found


def has_book(volume: int) -> Callable[[list[Received]], bool]:
    return lambda found: any(isinstance(one, Book) and one.cum_volume == volume for one in found)


def volumes_of(found: list[Received]) -> list[int | None]:
    return [one.cum_volume for one in found if isinstance(one, Book)]


def test_a_subscriber_has_the_messages_of_a_live_reader(publisher: Publishing) -> None:
    with Live(publisher.home, ["005930"]) as live, publisher.subscribe("005930") as subscriber:
        publisher.rings["kis", "tick"].publish(publisher.make_ticks(FeedId.KIS, (0, 5), (5, 9), (20, 30)))
        publisher.rings["kiwoom", "tick"].publish(publisher.make_ticks(FeedId.KIWOOM, (30, 40), symbol="000660"))
        event = empty_records(EVENT, 1)
        event["line"], event["kind"], event["connection"] = FeedId.KIS, EventType.CONNECTED, 3
        publisher.rings["kis", "event"].publish(event)
        volumes = publisher.publish_books(3)
        publisher.publish_books(1, venue=Venue.NXT)
        found = read_until(subscriber, has_book(volumes[-1]))
        expected = [one for _ in range(5) for one in live.read()]

    assert {type(one) for one in expected} == {Tick, Gap, FeedUp, Book}
    assert sorted(map(repr, found)) == sorted(map(repr, expected))
    assert volumes_of(found) == volumes


def test_whoever_subscribes_has_the_last_book_as_a_snapshot_and_nobody_else_has_it_again(publisher: Publishing) -> None:
    with publisher.subscribe("000660") as first:
        volumes = publisher.publish_books(2, "000660")
        with publisher.subscribe("000660", streams=("orderbook",)) as second:
            later = publisher.publish_books(2, "000660")
            found = [one.first + read_until(one, has_book(later[-1])) for one in (first, second)]
    snapshots = [
        [one.message for one in each if isinstance(one, Snapshot) and isinstance(one.message, Book)] for each in found
    ]

    assert [volumes_of(each) for each in found] == [volumes + later, later]
    assert [[one.cum_volume for one in each] for each in snapshots] == [[], volumes[-1:]]
    assert [one for each in found for one in each if isinstance(one, Missed | Restarted)] == []


def test_what_was_dropped_for_a_subscriber_that_did_not_read_is_fetched_in_its_order_or_missed_by_its_numbers(
    publisher: Publishing,
) -> None:
    """Nothing comes behind them but heads. What is missed is in the rings, without a writer."""
    counters = publisher.read_vitals().counters
    with publisher.subscribe("000660") as slow, publisher.subscribe("005930") as other:
        before_ns = time.time_ns()
        volumes = publisher.publish_books(6000, "000660")
        others = publisher.publish_books(1)
        assert volumes_of(read_until(other, has_book(others[-1]))) == others
        found = read_until(slow, has_book(volumes[-1]))
        missed = [one for one in found if isinstance(one, Missed)]
        span = missed[0]._replace(end_ns=missed[-1].end_ns)
        stored = {one.cum_volume for one in slow.read_stored(publisher.home.root, span)}
    grown = {name: publisher.read_vitals().counters[name] - counters[name] for name in ("resent", "resend_gone")}
    received = volumes_of(found)
    absent = sorted(set(volumes) - set(received))
    numbers = [number for one in missed for number in range(one.first, one.last + 1)]

    assert received == [volume for volume in volumes if volume not in set(absent)]
    assert len({number - volume for number, volume in zip(numbers, absent, strict=True)}) == 1  # the same ones
    assert {one.topic for one in missed} == {"orderbook.000660"}
    assert (grown["resent"] > 0, grown["resend_gone"]) == (True, len(numbers))
    assert set(absent) <= stored
    assert all(before_ns - 2 * 10**9 < one.begin_ns < one.end_ns < time.time_ns() for one in missed)


def test_after_a_kill_what_was_unread_comes_then_the_restart_and_all_of_the_new_publisher(
    publisher: Publishing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collectorctl.zmq.subscriber.SILENT_S", 1.5)
    with publisher.subscribe("005930", streams=("orderbook",)) as subscriber:
        with publisher.subscribe("005930") as witness:
            unread = publisher.publish_books(5)
            read_until(witness, has_book(unread[-1]))
        publisher.kill()  # some may not have left it
        between = publisher.volume + 1
        records = empty_records(ORDERBOOK, 1)
        publisher._stamp(records, "005930", Venue.KRX, FeedId.KIS)
        records["cum_volume"], records["ask_price_e4"][:, 0] = between, 701_000_000
        publisher.volume += 1
        publisher.rings["kis", "orderbook"].publish(records)
        silent = read_until(subscriber, lambda found: any(isinstance(one, FeedDown) for one in found))
        publisher.start()
        later = publisher.publish_books(5)  # some of them before the subscriber is connected again
        found = read_until(subscriber, has_book(later[-1]))
        (restarted,) = [one for one in found if isinstance(one, Restarted)]
        stored = [one.cum_volume for one in subscriber.read_stored(publisher.home.root, restarted)]

    had = volumes_of(silent)
    assert had == unread[: len(had)] != []
    assert {between, *unread[len(had) :]} <= set(stored)
    assert [(one.feed, one.connection) for one in silent if isinstance(one, FeedDown)] == [(PUBLISHER, 0)]
    assert found[0] == FeedUp(PUBLISHER, 0)
    assert volumes_of(found[: found.index(restarted)]) == []
    assert volumes_of(found) == later
    assert [one for one in found if isinstance(one, Missed)] == []


def test_any_program_reads_it_with_a_plain_socket(publisher: Publishing) -> None:
    """As the page has it: two frames a message, the beginning of a topic as the subscription, REQ for what was missed."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context.socket(zmq.SUB) as stream, context.socket(zmq.REQ) as resend:
        stream.connect(publisher.address)
        stream.subscribe(b"orderbook.005930")
        resend.connect(publisher.resend_address)
        volumes = publisher.publish_books(1)
        assert stream.poll(WAIT_S * 1000)
        frames: list[bytes] = []
        while not frames or msgspec.json.decode(frames[1])["message"]["cum_volume"] != volumes[0]:
            frames = stream.recv_multipart()
        body = msgspec.json.decode(frames[1])
        resend.send(
            msgspec.json.encode(
                {"epoch": body["epoch"], "topic": frames[0].decode(), "first": body["topic_seq"], "last": 2**63}
            )
        )
        assert resend.poll(WAIT_S * 1000)
        epoch, *payloads = resend.recv_multipart()
        resend.send(b"what?")
        assert resend.poll(WAIT_S * 1000)
        refused = resend.recv_multipart()
    context.term()

    assert frames[0] == b"orderbook.005930"
    assert msgspec.json.decode(payloads[0]) == body | {"is_snapshot": False}
    assert refused == [epoch] == [msgspec.json.encode(body["epoch"])]


def test_switched_off_it_idles_and_a_port_that_is_taken_is_its_state_until_it_is_free(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for enabled, state, reason in (
            ("false", ProcessState.DISABLED, "zmq.enabled is false"),
            ("true", ProcessState.FAILING, f"127.0.0.1:{port}: Address already in use: set zmq.port to a free one"),
        ):
            root = tmp_path / enabled
            root.mkdir()
            settings = (
                f'[universe]\nkr = ["005930"]\n[paths]\nring = "rings"\n[zmq]\nenabled = {enabled}\nport = {port}\n'
            )
            (root / "collector.toml").write_text(settings)
            home, stop = Home(root), ShutdownSignal()
            home.create_directories()
            process = threading.Thread(target=serve, args=(home, stop))
            process.start()
            path = home.vitals_path("zmq")
            try:
                wait_until("its state", lambda: path.exists() and read_snapshot(path).state == state, WAIT_S)  # noqa: B023
                detail = read_snapshot(path).detail
            finally:
                stop.request()
                process.join(WAIT_S)
            assert reason in detail
            assert not process.is_alive()
