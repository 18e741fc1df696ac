"""What a connection makes of the messages of a poll: records, first ones, counters."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import pytest
from support.process_tree import temporary_home

from benchmarks.receive import StopAfter, serve
from brokers.allocation.allocate import PlannedConnection
from brokers.feed.capture import FrameCapture
from brokers.feed.connection import ConnectionContext, FeedConnection
from brokers.feed.heartbeat import HeartbeatAggregator
from brokers.feed.publisher import RingPublisher
from brokers.feed.quarantine import Quarantine
from brokers.registry import load_broker
from brokers.subscription import Subscription, SubscriptionTable
from conf.home import Home
from conf.instrument import Instrument
from conf.process import ShutdownSignal
from ringbuf.records import STREAMS, Flag
from ringbuf.ring import Consumer
from ringbuf.vitals import Vitals, read_snapshot

SUBSCRIPTIONS = [
    Subscription(Instrument(symbol, "KRX"), stream) for symbol in ("005930", "000660") for stream in STREAMS
]


@pytest.fixture
def home() -> Iterator[Home]:
    """A home with small rings."""
    with temporary_home("[ring]\norderbook_capacity = 1024\ntick_capacity = 1024\n") as root:
        made = Home(root)
        made.create_directories()
        yield made


def connect(home: Home) -> FeedConnection:
    """A connection of KIS as it is once everything was subscribed, without a socket."""
    broker, clock = load_broker("kis"), home.load_clock()
    vitals = Vitals.create(home.vitals_path("kis"), "kis")
    context = ConnectionContext(
        home,
        ShutdownSignal(),
        broker,
        clock,
        home.load_calendar(),
        RingPublisher(home, "kis", vitals, clock),
        Quarantine(home.quarantine_directory(), "kis", 1 << 20),
        FrameCapture(home, "kis", vitals, clock),
        broker.subscriptions_by_code(SUBSCRIPTIONS),
    )
    heartbeat = HeartbeatAggregator(vitals).add_thread("key 1")
    connection = FeedConnection(context, PlannedConnection(1, tuple(SUBSCRIPTIONS), ()), heartbeat)
    connection._subscription_table = SubscriptionTable(SUBSCRIPTIONS)
    connection._session = broker.create_session(home.settings, "credential", connection._subscription_table)
    return connection


def book(code: str, price: int) -> bytes:
    """A book of one record, in the form without midpoint and market."""
    fields = [code, f"{time.strftime('%H%M%S', time.gmtime(time.time() + 9 * 3600))}", "0", *[str(price)] * 20]
    return f"0|H0STASP0|001|{'^'.join([*fields, *['1'] * 20, '10', '10', *['0'] * 14])}".encode()


def tick(code: str, records: int) -> bytes:
    """A frame of so many trades."""
    fields = [code, "090000", "100", *["0"] * 9, "1", "5", "500", *["0"] * 31]
    return f"0|H0STCNT0|{records:03}|{'^'.join(fields * records)}".encode()


MESSAGES = [
    tick("005930", 2),
    book("005930", 100),
    b'{"header":{"tr_id":"PINGPONG"}}',
    book("000660", 200),
    b"0|garbage",
    book("005930", 300),
    tick("000660", 1),
    tick("005930", 1),
]


@pytest.mark.parametrize("per_poll", [1, 3, len(MESSAGES)])
def test_a_poll_of_any_size_gives_the_same_records_and_counts(home: Home, per_poll: int) -> None:
    """However the messages are spread over polls: the first record of each stream is marked, all are counted once."""
    connection = connect(home)
    before_ns = time.monotonic_ns()

    for at in range(0, len(MESSAGES), per_poll):
        connection._handle_messages([(payload, before_ns + at) for payload in MESSAGES[at : at + per_poll]])

    books, ticks = (
        Consumer.open(home.ring_path("kis", stream), STREAMS[stream]).read(1, 99).records for stream in STREAMS
    )
    assert books["ask_price_e4"][:, 0].tolist() == [1_000_000, 2_000_000, 3_000_000]
    assert (books["flags"] & Flag.SNAPSHOT).tolist() == [1, 1, 0]
    assert ticks["symbol"].tolist() == [b"005930", b"005930", b"000660", b"005930"]
    assert (ticks["flags"] & Flag.SNAPSHOT).tolist() == [1, 0, 1, 0]
    connection._report.store_received()
    found = read_snapshot(home.vitals_path("kis"))
    counted = {name: found.counters[name] for name in ("frames", "bytes", "books", "ticks", "control", "quarantined")}
    size = sum(map(len, MESSAGES))
    assert counted == {"frames": 8, "bytes": size, "books": 3, "ticks": 4, "control": 1, "quarantined": 1}
    assert found.latency_count == 7
    assert connection._liveness.last_data_ns == connection._liveness.last_frame_ns >= before_ns


def test_messages_of_a_busy_connection_are_read_together_and_all_of_them(home: Home) -> None:
    """A hundred, four milliseconds apart, read every fifty; without the setting each is a poll of its own."""
    (home.root / "collector.toml").write_text("[feed]\ncoalesce_ms = 50\n")
    connection, count, ports = connect(Home(home.root)), 100, SimpleQueue()
    with ThreadPoolExecutor() as pool:
        served = pool.submit(serve, ports, book("005930", 100), 250, count)
        websocket = StopAfter.connect(f"ws://127.0.0.1:{ports.get()}/", 1 << 20)
        websocket.arm(connection._stop, count)
        connection._liveness.on_connected(time.monotonic_ns())
        connection._message_loop(websocket)
        websocket.close()
        served.result()

    assert read_snapshot(home.vitals_path("kis")).counters["books"] == count
    assert websocket.polls < count / 3
