"""A stream that is opened at any moment has what one has that was there from the beginning: stored rows, then rings, no seam."""

from __future__ import annotations

import datetime as dt
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.writer_data import ROOT, make_books, make_home, make_ticks, read_running_vitals, start_writer, wait_for

from collectorctl.reader.home import HomeReader
from collectorctl.reader.live import Live
from collectorctl.reader.messages import Book, FeedDown, Gap, Lost, Message, Tick
from collectorctl.reader.since import parse_since
from conf.clock import KST, SECOND_NS
from conf.home import Home
from conf.market import US
from ringbuf.records import EVENT, RINGS, TICK, EventType, FeedId, Venue, empty_records
from ringbuf.ring import Producer
from ringbuf.vitals import Vitals
from writer.catalog import Catalog, find_partitions
from writer.dataset import Dataset
from writer.ingest.ring_reader import NO_LIMIT_NS
from writer.publish import partition
from writer.publish.records import publish_records

FEEDS = (FeedId.KIS, FeedId.KIWOOM)
BOOKED = ("000000", "000010", "000020", "000030")
"""Whose books `make_books` makes."""
STREAMS = ("orderbook", "tick", "event")
EVENTS = (EventType.CONNECTED, EventType.DISCONNECTED, EventType.PHASE, EventType.VI, EventType.ACKNOWLEDGED)


def identity(message: Message) -> tuple:
    """What a message is about: a book and a tick without the feed that was first, and without its stamps."""
    match message:
        case Book():
            return ("book", message.symbol, message.venue, message.cum_volume, message.asks, message.bids)
        case Tick():
            return (
                "tick",
                message.symbol,
                message.venue,
                message.cum_volume,
                message.size,
                message.price,
                message.side,
            )
    return (type(message).__name__, *message)


class Market:
    """A home whose rings and writer are driven step by step; its time begins 200 s ago, 7 s before an hour ends."""

    def __init__(self, root: Path, seed: int = 0, capacity: int = 8192) -> None:
        make_home(root, twin_window_s=0.5)
        with (root / "collector.toml").open("a") as settings:
            settings.write('[universe]\nkr = ["005930"]\n[clock]\nstart = "2026-11-20T10:03:13+09:00"\nspeed = 1.0\n')
        self.home = Home(root)
        self.random = random.Random(seed)
        self.mono_ns = time.monotonic_ns() - 200 * SECOND_NS
        self.begin_ns = self.mono_ns
        clock = self.home.load_clock()
        self.offset_ns = clock.anchor.calendar_ns - clock.anchor.mono_ns
        self.capacity = capacity
        self.rings: dict[tuple[FeedId, str], Producer] = {}
        self.datasets: dict[str, Dataset] = {}
        self.book = self.volume = self.steps = 0
        self.owed: list[tuple[FeedId, str, np.ndarray]] = []
        for feed in FEEDS:
            for stream in STREAMS:
                self.ring(feed, stream)

    @property
    def now_ns(self) -> int:
        """The calendar time of the next record."""
        return self.mono_ns + self.offset_ns

    def ring(self, feed: FeedId, stream: str) -> Producer:
        if (feed, stream) not in self.rings:
            path = self.home.ring_path(feed.name.lower(), stream)
            self.rings[feed, stream] = Producer.open(path, RINGS[stream], self.capacity)
        return self.rings[feed, stream]

    def publish(self, feed: FeedId, stream: str, records: np.ndarray) -> None:
        """Stamp records with the present and publish them."""
        for at in range(len(records)):
            records["mono_ns"][at] = self.mono_ns
            records["recv_ns"][at] = self.now_ns
            self.mono_ns += 1000
        records["line"] = feed
        self.ring(feed, stream).publish(records)

    def trade(self) -> None:
        """A moment of the market: books of both feeds, one later than the other; ticks, some of them by both; gaps, events."""
        self.steps += 1
        feed, other = self.random.sample(FEEDS, 2)
        for owed_feed, stream, records in self.owed:
            self.publish(owed_feed, stream, records)
        self.owed.clear()
        made_ns = self.now_ns // SECOND_NS * SECOND_NS
        books = make_books(range(self.book, self.book + 3), exch_ns=made_ns)
        self.book += 3
        self.owed.append((other, "orderbook", books.copy()))
        self.publish(feed, "orderbook", books)
        self.volume += self.random.choice([0, 0, 0, 5])
        ticks = make_ticks(range(self.volume + 1, self.volume + 4), exch_ns=made_ns)
        self.volume += 3
        if self.random.random() < 0.3:
            self.owed.append((other, "tick", ticks.copy()))
        self.publish(feed, "tick", ticks)
        if self.random.random() < 0.2:
            self.publish(feed, "event", make_event(self.random.choice(EVENTS)))
        self.mono_ns += self.random.randrange(20, 150) * 1_000_000

    def write(self, stream: str) -> None:
        """A step of the writer, which reads up to some instant of the near past."""
        if stream not in self.datasets:
            vitals = Vitals.create(self.home.vitals_path("writer"), "writer")
            with (
                pytest.MonkeyPatch.context() as patched
            ):  # a life begins in the market's time, or nothing of it ever settles
                patched.setattr("writer.dataset.time.monotonic_ns", lambda: self.mono_ns)
                self.datasets[stream] = Dataset(self.home, f"kr.{stream}", vitals)
        limit_ns = self.mono_ns - self.random.randrange(300) * 1_000_000
        self.datasets[stream].step(limit_ns, self.mono_ns, is_retry=True)

    def kill_writer(self, stream: str) -> None:
        """The next life of a dataset begins with what is in its journal."""
        if (dataset := self.datasets.pop(stream, None)) is not None:
            dataset.close()

    def publish_hours(self, stream: str) -> None:
        """What has settled becomes files, and is cut off the journal."""
        if (dataset := self.datasets.get(stream)) is None:
            return
        for hour in dataset.schedule.unpublished_hours():
            while (task := dataset.build_publish_task(hour, include_unsettled=False)) is None:
                dataset.step(None, self.mono_ns)
            partition.publish(task)
            dataset.schedule.resume(hour, task.row_to)
        dataset.request_prune()
        dataset.step(None, self.mono_ns)

    def close(self) -> None:
        for part in (*self.rings.values(), *self.datasets.values()):
            part.close()


def make_event(kind: EventType) -> np.ndarray:
    event = empty_records(EVENT, 1)
    event["kind"], event["symbol"], event["venue"] = kind, b"005930", Venue.KRX
    event["connection"], event["message"], event["value"] = 1, "text €".encode(), 1
    return event


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    made = Market(tmp_path)
    yield made
    made.close()


def read_all(live: Live) -> list[Message]:
    """Everything that a stream has by now."""
    found: list[Message] = []
    for messages in iter(live.read, []):
        found += messages
    return found


@pytest.mark.parametrize("seed", range(2))
def test_a_stream_opened_at_any_moment_has_the_list_of_one_that_was_there_from_the_beginning(
    tmp_path: Path, seed: int
) -> None:
    """Fifty random moments, while the writer reads, publishes, prunes, is killed, and its datasets are apart from each other."""
    market = Market(tmp_path, seed)
    since_ns = market.now_ns
    first, expected = Live(market.home), []
    later: list[tuple[int, Live]] = []
    moments = set(market.random.sample(range(1, 160), 25))
    for step in range(160):
        market.trade()
        expected += first.read()
        for stream in STREAMS:
            action = market.random.random()
            if action < 0.4:
                market.write(stream)
            elif action < 0.46:
                market.publish_hours(stream)
            elif action < 0.5:
                market.kill_writer(stream)
        if step in moments:
            later.append((step, Live(market.home, since=since_ns)))
    expected = [identity(message) for message in expected + read_all(first)]

    assert len(expected) > 900
    assert {"book", "tick", "Gap", "FeedUp", "FeedDown", "Phase"} == {name for name, *_ in expected}
    assert all(find_partitions(market.home.data / "kr" / stream, dt.date(2026, 11, 20)) for stream in STREAMS)
    for step, live in later:
        found = [identity(message) for message in read_all(live)]
        assert (Counter(found) - Counter(expected), Counter(expected) - Counter(found)) == (Counter(), Counter())
        assert found == expected, step
        live.close()
    first.close()
    market.close()


def test_a_replay_is_the_list_that_a_live_stream_had_of_the_same_span(tmp_path: Path) -> None:
    """Of a day in files and journal, while its latest hour is neither whole in one nor in the other."""
    market = Market(tmp_path, seed=5)
    begin = dt.datetime.fromtimestamp(market.now_ns // SECOND_NS, KST).time()
    with Live(market.home) as first:
        live = []
        for step in range(160):
            market.trade()
            live += first.read()
            for stream in STREAMS:
                if step % 8 == 7:
                    market.write(stream)
                if step in (79, 127):
                    market.publish_hours(stream)
        live += first.read()
    for stream in STREAMS:
        write_all(market, stream)
    journalled = sum(batch.num_rows for batch in Catalog(market.home).unpublished("kr.orderbook"))
    replay = list(HomeReader(market.home.root).replay("2026-11-20", ["005930", *BOOKED], begin=begin))
    market.close()

    assert len(live) > 900
    assert len(find_partitions(market.home.data / "kr/orderbook", dt.date(2026, 11, 20))) >= 2
    assert journalled > 50
    assert {"book", "tick", "Gap", "FeedUp", "FeedDown", "Phase"} == {identity(message)[0] for message in live}
    assert [identity(message) for message in replay] == [identity(message) for message in live]
    stamps = [[m._replace(mono_ns=0) for m in found if isinstance(m, Book | Tick)] for found in (replay, live)]
    assert stamps[0] == stamps[1]


def read_out(market: Market, **arguments: object) -> list[Message]:
    """What a stream has that is opened now."""
    with Live(market.home, **arguments) as live:  # type: ignore[arg-type]
        return read_all(live)


def write_all(market: Market, stream: str) -> None:
    """The journal has everything that the rings have."""
    market.write(stream)
    market.datasets[stream].step(NO_LIMIT_NS - SECOND_NS, market.mono_ns, is_retry=True)


def test_what_was_overwritten_behind_the_journal_is_a_loss_with_its_numbers(tmp_path: Path) -> None:
    market = Market(tmp_path, capacity=16)
    since_ns = market.now_ns
    market.publish(FeedId.KIS, "tick", make_ticks(range(1, 6)))
    write_all(market, "tick")
    market.kill_writer("tick")
    market.publish(FeedId.KIS, "tick", make_ticks(range(6, 36)))
    found = read_out(market, since=since_ns)
    market.close()

    assert [message.cum_volume for message in found if isinstance(message, Tick)] == [*range(1, 6), *range(20, 36)]
    assert [message for message in found if isinstance(message, Lost)] == [Lost("kis", "tick", 6, 19)]
    assert [(message.begin, message.end) for message in found if isinstance(message, Gap)] == [(5, 19)]


@pytest.mark.parametrize("is_late", [False, True], ids=["it is there", "it comes later"])
def test_a_ring_that_took_the_place_of_the_journals_is_read_from_its_first_record_behind_a_loss_without_end(
    tmp_path: Path, is_late: bool
) -> None:
    market = Market(tmp_path)
    since_ns = market.now_ns
    market.publish(FeedId.KIS, "tick", make_ticks(range(1, 6)))
    write_all(market, "tick")
    market.publish(FeedId.KIS, "tick", make_ticks(range(6, 9)))
    market.rings.pop((FeedId.KIS, "tick")).close()
    market.home.ring_path("kis", "tick").unlink()
    if not is_late:
        market.publish(FeedId.KIS, "tick", make_ticks(range(9, 12)))
    with Live(market.home, since=since_ns) as live:
        found = live.read()
        if is_late:
            market.publish(FeedId.KIS, "tick", make_ticks(range(9, 12)))
        wait_for(lambda: found.extend(live.read()) or len(found) == 10)
    market.close()

    assert [message.cum_volume for message in found if isinstance(message, Tick)] == [*range(1, 6), *range(9, 12)]
    assert [message for message in found if isinstance(message, Lost)] == [Lost("kis", "tick", 6, None)]
    assert [message.shares for message in found if isinstance(message, Gap)] == [3]


def test_a_ring_that_is_deleted_while_the_stored_part_is_read_is_read_nevertheless(market: Market) -> None:
    """A home that stops: the writer has everything, and deletes the rings."""
    since_ns = market.now_ns
    market.publish(FeedId.KIS, "tick", make_ticks(range(1, 6)))
    write_all(market, "tick")
    with Live(market.home, since=since_ns) as live:
        market.publish(FeedId.KIS, "tick", make_ticks(range(6, 9)))
        write_all(market, "tick")
        market.rings.pop((FeedId.KIS, "tick")).close()
        assert market.datasets["tick"].delete_drained_rings()
        assert not market.home.ring_path("kis", "tick").exists()
        found = read_all(live)
    assert [message.cum_volume for message in found if isinstance(message, Tick)] == list(range(1, 9))
    assert not any(isinstance(message, Lost | Gap) for message in found)

    market.datasets["tick"].step(None, market.mono_ns)
    market.publish(FeedId.KIS, "tick", make_ticks(range(9, 12)))  # the next start: nothing of it is lost
    found = read_out(market, since=since_ns)
    assert [message.cum_volume for message in found if isinstance(message, Tick)] == list(range(1, 12))
    assert not any(isinstance(message, Lost | Gap) for message in found)


def test_without_a_writer_the_past_is_what_the_rings_have(market: Market) -> None:
    market.publish(FeedId.KIS, "tick", make_ticks(range(1, 6)))
    since_ns = market.now_ns
    market.publish(FeedId.KIS, "tick", make_ticks(range(6, 9)))

    everything = read_out(market, since=market.begin_ns + market.offset_ns)
    assert [message.cum_volume for message in everything if isinstance(message, Tick)] == list(range(1, 9))
    assert [message.cum_volume for message in read_out(market, since=since_ns) if isinstance(message, Tick)] == [
        6,
        7,
        8,
    ]
    assert read_out(market) == []


def test_a_stream_of_a_home_that_was_never_started_begins_with_its_first_record(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    with Live(home, since=0) as live:
        assert read_all(live) == []
        ring = Producer.open(home.ring_path("kis", "tick"), TICK, 64)
        ring.publish(make_ticks(range(1, 4)))
        found: list[Message] = []
        wait_for(lambda: found.extend(live.read()) or len(found) == 3)
        ring.close()

    assert [message.cum_volume for message in found if isinstance(message, Tick)] == [1, 2, 3]


def test_only_what_was_received_since_then_of_the_symbols_and_streams_asked_for_comes(market: Market) -> None:
    """Of a published and a journalled part. What was fetched was not received; the writer's own events are no feed's."""
    for _ in range(40):
        market.trade()
        write_all(market, "orderbook")
        write_all(market, "tick")
    since_ns = market.now_ns
    fetched = make_ticks(range(500, 510))
    market.publish(FeedId.GAPFILL, "tick", fetched)
    own = make_event(EventType.STOPPED)
    market.publish(FeedId.WRITER, "event", own)
    for _ in range(40):
        market.trade()
        write_all(market, "orderbook")
        write_all(market, "tick")
    write_all(market, "event")
    for stream in STREAMS:
        market.publish_hours(stream)
    market.trade()

    found = read_out(market, since=since_ns)
    assert min(message.recv_ns for message in found if isinstance(message, Book | Tick | Gap)) >= since_ns
    assert not any(isinstance(message, FeedDown) and message.feed == "writer" for message in found)
    everything = [identity(m) for m in read_out(market, since=market.begin_ns + market.offset_ns)]
    assert [identity(m) for m in found if isinstance(m, Book)] == [one for one in everything if one[0] == "book"][
        -sum(isinstance(m, Book) for m in found) :
    ]
    assert not {one[3] for one in everything if one[0] == "tick"} & set(range(500, 510))
    chosen = read_out(market, since=since_ns, symbols=["000010"], streams=["orderbook"])
    books = [message for message in found if isinstance(message, Book) and message.symbol == "000010"]
    assert [identity(message) for message in chosen if isinstance(message, Book)] == [identity(one) for one in books]
    assert {message.symbol for message in chosen if isinstance(message, Book | Tick)} == {"000010"}


def test_us_ticks_come_with_their_prices_in_dollars(market: Market) -> None:
    ticks = make_ticks(range(1, 4))
    ticks["symbol"], ticks["venue"], ticks["line"], ticks["price_e4"] = b"AAPL", Venue.NASDAQ, FeedId.US, 2_345_678
    settings, directory = market.home.settings.writer, market.home.data / US.name / "tick"
    publish_records(directory, "us.tick", ticks, "lineage", settings, 0)

    found = read_out(market, since=int(ticks["recv_ns"][0]) if market.now_ns > ticks["recv_ns"][0] else 0)
    assert [(m.symbol, m.venue, m.price) for m in found if isinstance(m, Tick)] == [("AAPL", "NASDAQ", 234.5678)] * 3


def test_since_is_an_instant_of_the_past_or_the_open(market: Market) -> None:
    """09:00 of a Friday is past; KRX's first session begins at 08:30."""
    reader = HomeReader(market.home.root)
    market.publish(FeedId.KIS, "tick", make_ticks(range(1, 4)))
    at = dt.datetime(2026, 11, 20, 9, tzinfo=KST)
    for since in ("open", at, round(at.timestamp()) * SECOND_NS, at - dt.timedelta(days=30)):
        with reader.live(since=since) as live:  # type: ignore[arg-type]  # a literal in a tuple is a string
            assert [message.cum_volume for message in read_all(live) if isinstance(message, Tick)] == [1, 2, 3]
    for since, fault in (
        (at + dt.timedelta(hours=2), "in the future"),
        (at.replace(tzinfo=None), "no zone"),
        ("09:00", 'name "open"'),
        (True, 'name "open"'),
    ):
        with pytest.raises(ValueError, match=fault):
            reader.live(since=since)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("now", "opened"),
    [("10:00", "08:30"), ("07:00", "07:00"), ("10:00+2", "10:00+2")],
    ids=["open", "before", "closed"],
)
def test_the_open_is_that_of_today_and_now_before_it_or_on_a_closed_day(tmp_path: Path, now: str, opened: str) -> None:
    def to_ns(text: str) -> int:
        time_of_day, _, days = text.partition("+")
        at = dt.datetime.fromisoformat(f"2026-11-20T{time_of_day}:00+09:00") + dt.timedelta(days=int(days or 0))
        return round(at.timestamp()) * SECOND_NS

    make_home(tmp_path)
    start = dt.datetime.fromtimestamp(to_ns(now) // SECOND_NS, KST).isoformat()
    with (tmp_path / "collector.toml").open("a") as settings:
        settings.write(f'[universe]\nkr = ["005930"]\n[clock]\nstart = "{start}"\nspeed = 1.0\n')

    assert 0 <= parse_since("open", Home(tmp_path), []) - to_ns(opened) < 30 * SECOND_NS


COLLECTOR = """
import sys, time
from pathlib import Path
from conf.clock import SECOND_NS
from conf.home import Home
from ringbuf.records import ORDERBOOK, FeedId
from ringbuf.ring import Producer
from support.writer_data import make_books
home, feed = Home(Path(sys.argv[1])), FeedId[sys.argv[2].upper()]
clock, ring = home.load_clock(), Producer.open(home.ring_path(sys.argv[2], "orderbook"), ORDERBOOK, 65536)
print("ready", flush=True)
while True:
    book = make_books([ring.head + 1], feed, symbols=1)
    book["mono_ns"] = mono_ns = time.monotonic_ns()
    book["recv_ns"] = clock.to_calendar_ns(mono_ns)
    book["exch_ns"] = book["recv_ns"] // SECOND_NS * SECOND_NS
    ring.publish(book)
    time.sleep(0.002)
"""


def list_of_feed(messages: list[Message], feed: str) -> list[tuple]:
    """The books and ticks that came from a feed, in the order they came in."""
    return [identity(message) for message in messages if isinstance(message, Book | Tick) and message.feed == feed]


@pytest.mark.long
def test_streams_opened_between_kills_of_the_writer_and_of_collectors_have_every_book_once(place: Path) -> None:
    """Real processes, hours of six seconds. Each feed numbers its books by its ring: what both have are twins or books apart.

    What comes from a feed comes in the same order.
    """
    home = make_home(place)
    with (place / "collector.toml").open("a") as settings:
        settings.write('[universe]\nkr = ["000000"]\n[clock]\nstart = "2026-11-20T09:00:00+09:00"\nspeed = 600.0\n')
    home = Home(place)
    env = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    rng, streams, first = random.Random(1), [], Live(home)
    since_ns = home.load_clock().now_ns()

    def start(feed: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", COLLECTOR, str(place), feed]
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        return process

    collectors = {feed: start(feed) for feed in ("kis", "kiwoom")}
    writer, found = start_writer(home), []
    try:
        for round_number in range(12):
            wait_for(lambda: found.extend(first.read()) or read_running_vitals(home, writer))  # noqa: B023
            until = time.monotonic() + rng.uniform(0.5, 2)
            while time.monotonic() < until:
                found += first.read()
                if rng.random() < 0.002 and len(streams) < 5 * (round_number + 1):
                    streams.append(Live(home, since=since_ns))
            if round_number % 3 == 2:
                feed = rng.choice(["kis", "kiwoom"])
                collectors[feed].kill()
                collectors[feed].wait()
                collectors[feed] = start(feed)
            else:
                writer.kill()
                writer.wait()
                streams.append(Live(home, since=since_ns))
                writer = start_writer(home)
    finally:
        for process in (*collectors.values(), writer):
            process.kill()
            process.wait()
    found += read_all(first)
    expected = Counter(identity(message) for message in found)

    assert len(list((home.data / "kr/orderbook").rglob("part-*.parquet"))) >= 2
    assert len(expected) > 2000 and len(streams) >= 10
    for stream in streams:
        read = read_all(stream)
        assert Counter(map(identity, read)) == expected
        for feed in ("kis", "kiwoom"):
            orders = [list_of_feed(messages, feed) for messages in (read, found)]
            common = set(orders[0]).intersection(orders[1])
            assert len(common) > 500
            assert [one for one in orders[0] if one in common] == [one for one in orders[1] if one in common]
        stream.close()
    first.close()
