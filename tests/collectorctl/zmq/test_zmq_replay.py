"""A stored day over ZeroMQ: subscribers have the messages of `home.replay`, all of them, in its order."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import zmq
from support.process_tree import BIN
from support.ring_program import free_ports
from support.stored_day import DAY, make_whole_day
from support.writer_data import SECOND_NS, make_books, make_home

import collectorctl
from collectorctl.reader.messages import Message
from collectorctl.zmq import publisher
from collectorctl.zmq.envelope import Heads, decode
from collectorctl.zmq.replay import run_replay
from collectorctl.zmq.subscriber import Snapshot, Subscriber
from conf.home import Home
from writer.publish.records import publish_records

SYMBOL = "005930"
BOOKS = 12_000


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whole_day(tmp_path_factory.mktemp("home"))


class Playing:
    """`collectorctl replay --zmq` of a home, as a process."""

    def __init__(self, root: Path, *options: str) -> None:
        self.ports = free_ports(2)
        ports = ["--zmq-port", str(self.ports[0]), "--resend-port", str(self.ports[1])]
        self.process = subprocess.Popen(
            [BIN / "collectorctl", "--home", root, "replay", "--date", DAY, "--zmq", *ports, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def subscribe(self, **options: int) -> Subscriber:
        addresses = [f"tcp://127.0.0.1:{port}" for port in self.ports]
        return Subscriber([SYMBOL], ["orderbook", "tick"], *addresses, **options)

    def wait(self) -> str:
        """Its lines, after its end."""
        lines, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, lines
        return lines


@contextmanager
def playing(root: Path, *options: str) -> Iterator[Playing]:
    made = Playing(root, *options)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()


def read_all(subscriber: Subscriber, count: int) -> list[object]:
    """So many messages."""
    found: list[object] = []
    deadline_s = time.monotonic() + 60
    while len(found) < count:
        assert time.monotonic() < deadline_s, f"{len(found)} of {count} messages"
        found += subscriber.read(1.0)
    return found


def publish_books(home: Home) -> None:
    """BOOKS books of SYMBOL, as a day that is stored."""
    books = make_books(range(BOOKS), symbols=1)
    books["symbol"], books["seq"] = SYMBOL.encode(), range(1, BOOKS + 1)
    publish_records(home.data / "kr/orderbook", "kr.orderbook", books, "books", home.settings.writer, SECOND_NS)


def read_expected(root: Path, **span: object) -> list[Message]:
    return list(collectorctl.open(root).replay(DAY, [SYMBOL], **span))  # type: ignore[arg-type]


def test_subscribers_have_the_messages_of_a_replay_though_one_reads_late(tmp_path: Path) -> None:
    """Neither queues nor what is kept to be sent again have room for the day: it waits, and begins when both are there."""
    home = make_home(tmp_path)
    with (tmp_path / "collector.toml").open("a") as settings:
        settings.write("[zmq]\nhigh_water = 100\nresend_mb = 1\n")
    publish_books(home)
    expected = read_expected(tmp_path)
    with (
        playing(tmp_path, "--speed", "max", "--clients", "2") as played,
        played.subscribe(high_water=100) as early,
        played.subscribe(high_water=100) as late,
        ThreadPoolExecutor() as pool,
    ):
        reading = pool.submit(read_all, early, BOOKS)
        assert not wait([reading], 3).done
        found = read_all(late, BOOKS)
        lines = played.wait()

    assert len(expected) == BOOKS
    assert found == expected and reading.result() == expected
    assert f"played {BOOKS} books and 0 ticks" in lines


def test_heads_name_no_message_that_is_not_sent_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subscriber that is behind would ask for it, and drop it when it comes: here heads are sent whenever there is room."""
    monkeypatch.setattr(publisher, "HEADS_S", 0.0)
    home = make_home(tmp_path)
    publish_books(home)
    day, ports = collectorctl.open(tmp_path).replay(DAY, [SYMBOL], speed="max"), free_ports(2)
    settings = msgspec.structs.replace(home.settings.zmq, port=ports[0], resend_port=ports[1], high_water=100)
    taken, ahead = 0, []
    with zmq.Context() as context, context.socket(zmq.SUB) as stream, ThreadPoolExecutor() as pool:
        stream.rcvhwm = 100
        stream.connect(f"tcp://127.0.0.1:{ports[0]}")
        stream.subscribe(b"")
        replayed = pool.submit(run_replay, day, settings, lambda _: None, 0)
        while taken < BOOKS:
            assert stream.poll(30_000), f"{taken} of {BOOKS}: {replayed}"
            envelope, message = decode(stream.recv_multipart()[1])
            if isinstance(message, Heads):
                ahead += [head for head in message.topics.values() if head > taken]
                time.sleep(0.001)  # so slowly that the queue is full, and room comes while a message waits
            else:
                taken = max(taken, envelope.topic_seq)
        context.destroy(linger=0)
        replayed.result(60)

    assert ahead == []


def test_a_replay_keeps_its_pace_and_a_subscriber_that_leaves_stops_the_day(root: Path) -> None:
    """Another one goes on where it stopped."""
    expected = read_expected(root)
    span_s = (expected[-1].recv_ns - expected[0].recv_ns) / 1e9  # type: ignore[union-attr]
    half = len(expected) // 2
    with playing(root, "--speed", str(min(1000.0, span_s / 4))) as played:
        with played.subscribe() as first:
            begin_s = time.monotonic()
            found = read_all(first, half)
            assert time.monotonic() - begin_s > 1.0
        time.sleep(1.0)
        with played.subscribe() as second:
            later = [one for one in read_all(second, 3) if not isinstance(one, Snapshot)]
        played.process.terminate()

    assert found[:half] == expected[:half]
    begin = expected.index(later[0])  # type: ignore[arg-type]
    assert half <= begin < len(expected) - 1 and later == expected[begin : begin + len(later)]


def test_a_day_without_rows_and_a_form_that_it_does_not_have_are_refused(root: Path) -> None:
    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [BIN / "collectorctl", "--home", root, "replay", "--zmq", *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    empty, form = run("--date", "2026-11-18"), run("--date", DAY, "--each-feed")
    assert (empty.returncode, form.returncode) == (1, 2)
    assert "no books and ticks are stored" in empty.stderr
    assert "--each-feed is for the vendors' forms" in form.stderr
