"""Live readers over real rings: what is in band, what survives, and that nobody notices them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectorctl.reader import tap
from collectorctl.reader.live import GapFinder, Live, RecordBatch
from collectorctl.reader.messages import Book, FeedDown, FeedUp, Gap, Lost, Message, Phase, Tick, make_books
from conf.home import Home
from ringbuf import layout
from ringbuf.events import EventPublisher
from ringbuf.records import EVENT, ORDERBOOK, TICK, UNDEFINED, EventType, FeedId, Flag, Venue, empty_records
from ringbuf.ring import Consumer, Producer, RingError
from ringbuf.vitals import ProcessState, Vitals

AT_NS = 1_800_000_000_000_000_000
CAPACITY = 256


def books(feed: FeedId, *volumes: int, symbol: bytes = b"005930", mono_ns: int | None = None) -> np.ndarray:
    """Books that differ by their cumulative volume, received now."""
    records = empty_records(ORDERBOOK, len(volumes))
    records["symbol"], records["venue"], records["line"] = symbol, Venue.KRX, feed
    records["mono_ns"] = time.monotonic_ns() if mono_ns is None else mono_ns
    records["recv_ns"] = records["exch_ns"] = AT_NS
    records["cum_volume"] = volumes
    records["ask_price_e4"][:, 0], records["ask_size"][:, 0] = 701_000_000, 5
    return records


def ticks(feed: FeedId, *covered: tuple[int, int], symbol: bytes = b"005930") -> np.ndarray:
    """Ticks that cover (begin, end] each."""
    records = empty_records(TICK, len(covered))
    records["symbol"], records["venue"], records["line"] = symbol, Venue.KRX, feed
    records["mono_ns"], records["recv_ns"], records["exch_ns"] = time.monotonic_ns(), AT_NS, AT_NS
    records["size"], records["cum_volume"] = [end - begin for begin, end in covered], [end for _, end in covered]
    records["price_e4"] = 700_000_000
    return records


class Wires:
    """A home without processes, and the rings that its collectors would write."""

    def __init__(self, root: Path, settings: str = "") -> None:
        universe = '[universe]\nkr = ["005930", "000660"]\n[paths]\nring = "rings"\n'
        (root / "collector.toml").write_text(universe + settings)
        self.home = Home(root)
        self.home.create_directories()
        self.producers: list[Producer] = []

    def ring(self, feed: str, stream: str) -> Producer:
        dtype = {"orderbook": ORDERBOOK, "tick": TICK, "event": EVENT}[stream]
        producer = Producer.open(self.home.ring_path(feed, stream), dtype, CAPACITY)
        self.producers.append(producer)
        return producer


@pytest.fixture
def wires(tmp_path: Path) -> Iterator[Wires]:
    made = Wires(tmp_path)
    yield made
    for producer in made.producers:
        producer.close()


def read_until(live: Live, is_enough: Callable[[list[Message]], bool]) -> list[Message]:
    """The messages of a stream until there are enough; a minute at most."""
    found: list[Message] = []
    deadline = time.monotonic() + 60
    while not is_enough(found):
        assert time.monotonic() < deadline, found
        found += live.read()
        time.sleep(0.001)
    return found


def test_a_book_of_both_feeds_comes_once_as_the_first_of_them_has_it(wires: Wires) -> None:
    kis, kiwoom = wires.ring("kis", "orderbook"), wires.ring("kiwoom", "orderbook")
    with Live(wires.home) as live:
        kis.publish(books(FeedId.KIS, 100))
        first = live.read()
        kiwoom.publish(books(FeedId.KIWOOM, 100, 110))
        kis.publish(books(FeedId.KIS, 110))
        second = live.read()

    assert [(m.feed, m.cum_volume, m.asks, m.bids) for m in first if isinstance(m, Book)] == [
        ("kis", 100, ((70100, 5),), ())
    ]
    assert [(m.feed, m.cum_volume) for m in second if isinstance(m, Book)] == [("kiwoom", 110)]


def test_the_twin_of_a_book_that_came_before_the_reader_is_no_new_book(wires: Wires) -> None:
    kis, kiwoom = wires.ring("kis", "orderbook"), wires.ring("kiwoom", "orderbook")
    kis.publish(books(FeedId.KIS, 1, 2, 3))
    with Live(wires.home) as live:
        kiwoom.publish(books(FeedId.KIWOOM, 3, 4))
        found = live.read()

    assert [m.cum_volume for m in found if isinstance(m, Book)] == [4]


def test_ticks_that_both_feeds_deliver_come_once_and_leave_no_gap(wires: Wires) -> None:
    """One feed takes over from the other: both have the same trades for a while. The first was there before the reader."""
    kis, kiwoom = wires.ring("kis", "tick"), wires.ring("kiwoom", "tick")
    kis.publish(ticks(FeedId.KIS, (0, 5)))
    with Live(wires.home) as live:
        kiwoom.publish(ticks(FeedId.KIWOOM, (0, 5), (5, 9)))
        found = live.read()
        kis.publish(ticks(FeedId.KIS, (5, 9), (9, 12)))
        kiwoom.publish(ticks(FeedId.KIWOOM, (9, 12), (12, 20)))
        found += live.read()

    assert [(m.feed, m.cum_volume) for m in found if isinstance(m, Tick)] == [
        ("kiwoom", 9),
        ("kis", 12),
        ("kiwoom", 20),
    ]
    assert len(found) == 3


def test_only_the_symbols_and_streams_asked_for_come(wires: Wires) -> None:
    ring, tick_ring = wires.ring("kis", "orderbook"), wires.ring("kis", "tick")
    with Live(wires.home, ["000660"], ["orderbook"]) as live:
        ring.publish(books(FeedId.KIS, 1))
        ring.publish(books(FeedId.KIS, 2, symbol=b"000660"))
        tick_ring.publish(ticks(FeedId.KIS, (0, 5), symbol=b"000660"))
        found = live.read()

    assert [type(m) for m in found] == [Book]
    with pytest.raises(ValueError, match="no such stream"):
        Live(wires.home, streams=["trades"])


INSTRUMENTS = ((b"005930", Venue.KRX), (b"005930", Venue.NXT), (b"000660", Venue.KRX), (b"0059301", Venue.KRX))
parts = st.tuples(
    st.sampled_from(("orderbook", "tick")),
    st.sampled_from((FeedId.KIS, FeedId.KIWOOM)),
    st.sampled_from(INSTRUMENTS),
    st.integers(1, 4) | st.just(CAPACITY + 3),
)


@given(st.lists(st.lists(parts, max_size=8), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_a_reader_of_one_instrument_has_what_one_of_all_has_of_it(looks: list[list[tuple]]) -> None:
    """Twins, overlaps, gaps and losses, over any number of looks; as messages and as batches."""
    reached: Counter[tuple] = Counter()
    found: dict[str, list] = {"all": [], "one": [], "batches": []}
    with tempfile.TemporaryDirectory() as root, ExitStack() as stack:
        wires = Wires(Path(root))
        rings = {
            (s, f): wires.ring(f.name.lower(), s) for s in ("orderbook", "tick") for f in (FeedId.KIS, FeedId.KIWOOM)
        }
        for ring in rings.values():
            stack.callback(ring.close)
        everything = stack.enter_context(Live(wires.home))
        one, batches = (stack.enter_context(Live(wires.home, ["005930"])) for _ in range(2))
        for look in looks:
            for stream, feed, (symbol, venue), count in look:
                first = reached[stream, feed, symbol, venue] + 1
                reached[stream, feed, symbol, venue] += count
                numbers = range(first, first + count)  # both feeds deliver the same books and trades
                covered = [(5 * number - 5, 5 * number) for number in numbers]
                made = books(feed, *numbers) if stream == "orderbook" else ticks(feed, *covered)
                made["symbol"], made["venue"] = symbol, venue
                rings[stream, feed].publish(made)
            found["all"] += everything.read()
            found["one"] += one.read()
            found["batches"] += batches.read_batches()

    expected = [m for m in found["all"] if isinstance(m, Lost) or (m.symbol, m.venue) == ("005930", "KRX")]
    assert found["one"] == expected
    for kind, stream in ((Book, "orderbook"), (Tick, "tick")):
        records = [
            batch.records for batch in found["batches"] if isinstance(batch, RecordBatch) and batch.stream == stream
        ]
        got = [
            (feed, seq)
            for part in records
            for feed, seq in zip(part["line"].tolist(), part["seq"].tolist(), strict=True)
        ]
        assert got == [(FeedId[m.feed.upper()], m.seq) for m in expected if isinstance(m, kind)]
    for kind in (Lost, Gap):
        assert [m for m in found["batches"] if isinstance(m, kind)] == [m for m in expected if isinstance(m, kind)]


def test_levels_that_do_not_exist_are_left_out_and_prices_are_in_the_currency() -> None:
    korean, american = books(FeedId.KIS, 1), books(FeedId.US, 2)
    korean["bid_price_e4"][:, [0, 2]], korean["bid_size"][:, [0, 1, 2]] = [700_000_000, 699_000_000], [1, 2, 3]
    american["venue"], american["ask_price_e4"][:, 0], american["ask_price_e4"][:, 1] = (
        Venue.NASDAQ,
        1_234_500,
        UNDEFINED,
    )

    first, second = make_books(np.concatenate([korean, american]))

    assert (first.asks, first.bids) == (((70100, 5),), ((70000, 1), (69900, 3)))
    assert (second.asks, second.bids) == (((123.45, 5),), ())
    assert all(type(price) is int for price, _ in first.asks + first.bids)


def test_a_reader_that_was_overtaken_has_the_exact_numbers_in_band_and_the_writer_loses_nothing(wires: Wires) -> None:
    ring = wires.ring("kis", "tick")
    writer = Consumer.open(wires.home.ring_path("kis", "tick"), TICK)
    with Live(wires.home) as slow:
        ring.publish(ticks(FeedId.KIS, (0, 1)))
        slow.read()
        written = 2
        for volume in range(1, CAPACITY + 41):
            ring.publish(ticks(FeedId.KIS, (volume, volume + 1)))
            written = writer.read(written, 10).next_seq
            writer.commit(written)
        found = slow.read()

    assert found[0] == Lost("kis", "tick", 2, 41)
    assert [m.seq for m in found if isinstance(m, Tick)] == list(range(42, CAPACITY + 42))
    assert [(m.begin, m.end) for m in found if isinstance(m, Gap)] == [(1, 41)]
    assert (ring.tail, written) == (CAPACITY + 42, CAPACITY + 42)


def test_shares_that_no_tick_covers_are_a_gap_before_the_tick_that_shows_it() -> None:
    finder = GapFinder()

    assert finder.find(ticks(FeedId.KIS, (100, 110), (110, 115))) == []
    assert finder.find(ticks(FeedId.KIS, (115, 120), (150, 160), (120, 130))) == [
        (1, Gap("005930", "KRX", 120, 150, AT_NS))
    ]
    other_venue = ticks(FeedId.KIS, (900, 910))
    other_venue["flags"] = Flag.VENUE_MISMATCH
    assert finder.find(other_venue) == []
    absurd = ticks(FeedId.KIS, (1 << 50, (1 << 50) + 1))
    assert finder.find(absurd) == []
    assert len(finder.find(ticks(FeedId.KIS, (170, 180)))) == 1  # which an absurd volume hides no longer
    next_day = ticks(FeedId.KIS, (40, 50))
    next_day["exch_ns"] += 24 * 3600 * 10**9
    assert finder.find(next_day) == []
    assert finder.find(ticks(FeedId.KIS, (500, 510))) == []  # of the day before, late


def test_a_reader_that_was_there_before_the_home_begins_with_its_first_record(wires: Wires) -> None:
    with Live(wires.home) as live:
        assert live.read() == []
        wires.ring("kis", "tick").publish(ticks(FeedId.KIS, (0, 1), (1, 2)))
        found = read_until(live, lambda m: len(m) >= 2)

    assert [m.cum_volume for m in found if isinstance(m, Tick)] == [1, 2]


def test_a_ring_that_is_copied_to_its_path_again_is_read_on(wires: Wires) -> None:
    ring = wires.ring("kis", "tick")
    with Live(wires.home) as live:
        ring.publish(ticks(FeedId.KIS, (0, 1)))
        found = live.read()
        shutil.rmtree(wires.home.ring_directory)
        ring.publish(ticks(FeedId.KIS, (1, 2)))
        assert ring.restore_path()
        ring.publish(ticks(FeedId.KIS, (2, 3)))
        found += read_until(live, lambda m: len(m) >= 2)

    assert [type(m) for m in found] == [Tick] * 3
    assert [m.cum_volume for m in found if isinstance(m, Tick)] == [1, 2, 3]


def test_a_ring_that_was_replaced_is_read_to_its_end_before_the_new_one(wires: Wires) -> None:
    ring = wires.ring("kis", "tick")
    with Live(wires.home) as live:
        ring.publish(ticks(FeedId.KIS, (0, 1)))
        ring.close()
        wires.producers.clear()
        wires.home.ring_path("kis", "tick").unlink()
        wires.ring("kis", "tick").publish(ticks(FeedId.KIS, (1, 2)))
        found = read_until(live, lambda m: len(m) >= 2)

    assert [(m.seq, m.cum_volume) for m in found if isinstance(m, Tick)] == [(1, 1), (1, 2)]
    assert [m for m in found if not isinstance(m, Tick)] == []


def test_a_producer_that_goes_on_without_its_path_is_read_beside_the_one_that_took_it(wires: Wires) -> None:
    """Neither is lost, nor comes anything twice when the first takes its path back, and the other writes on without one."""
    first = wires.ring("kis", "tick")

    def tick(size: int) -> np.ndarray:
        record = ticks(FeedId.KIS, (0, size))
        record["cum_volume"] = UNDEFINED  # no merge tells it from another
        return record

    with Live(wires.home) as live:
        first.publish(tick(1))
        wires.home.ring_path("kis", "tick").unlink()
        second = wires.ring("kis", "tick")
        second.publish(tick(2))
        found = read_until(live, lambda m: len(m) >= 2)
        first.publish(tick(3))
        second.publish(tick(4))
        found += read_until(live, lambda m: len(m) >= 2)
        assert first.restore_path()
        first.publish(tick(5))
        found += read_until(live, bool)
        second.publish(tick(6))
        found += read_until(live, bool)

    assert [(m.seq, m.size) for m in found if isinstance(m, Tick)] == [(1, 1), (1, 2), (2, 3), (2, 4), (3, 5), (3, 6)]
    assert len(found) == 6


def test_a_ring_without_a_path_that_is_silent_is_let_go(wires: Wires, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory is free once nobody maps it."""
    monkeypatch.setattr(tap, "FORMER_NS", 0)
    first = wires.ring("kis", "tick")
    with Live(wires.home) as live:
        wires.home.ring_path("kis", "tick").unlink()
        second = wires.ring("kis", "tick")
        second.publish(ticks(FeedId.KIS, (0, 1)))
        found = read_until(live, bool)
        inode = f" {os.fstat(first.fd).st_ino} "
        deadline = time.monotonic() + 60
        while Path("/proc/self/maps").read_text().count(inode) > 1:  # the producer's own is one
            assert time.monotonic() < deadline
            found += live.read()

    assert [m.cum_volume for m in found if isinstance(m, Tick)] == [1]


def test_what_the_exchange_and_the_connections_do_is_in_band(wires: Wires) -> None:
    publisher = EventPublisher(wires.home.ring_path("kis", "event"), FeedId.KIS, wires.home.load_clock())
    with Live(wires.home) as live:
        publisher.emit(EventType.CONNECTED, "address", connection=1)
        publisher.emit(EventType.VI, "static", symbol="005930", venue="KRX", value=1)
        publisher.emit(EventType.DISCONNECTED, "no frame for 30 s", connection=1, since_ns=AT_NS)
        found = live.read()
    publisher.close()

    assert found[0] == FeedUp("kis", 1)
    assert isinstance(found[1], Phase)
    assert found[1][:4] == ("vi", "kis", "005930", "KRX")
    assert found[2] == FeedDown("kis", 1, "no frame for 30 s", AT_NS)


def test_a_process_without_a_heartbeat_is_down_and_comes_back(wires: Wires) -> None:
    vitals = Vitals.create(wires.home.vitals_path("kis"), "kis")
    vitals.set_state(ProcessState.STREAMING)
    with Live(wires.home) as live:
        assert live.read() == [FeedUp("kis", 0)]
        vitals.heartbeat(time.monotonic_ns() - 20 * 10**9)
        found = read_until(live, bool)
        vitals.heartbeat()
        found += read_until(live, bool)
    vitals.close()

    assert [type(m) for m in found] == [FeedDown, FeedUp]
    assert "no heartbeat for" in found[0].reason  # type: ignore[union-attr]


def test_batches_are_numpy_records_and_an_async_iterator_has_the_same_messages(wires: Wires) -> None:
    ring = wires.ring("kis", "orderbook")
    with Live(wires.home) as by_batch, Live(wires.home) as by_loop:
        ring.publish(books(FeedId.KIS, 1, 2, 3))
        batch = next(by_batch.batches())

        async def take() -> list[Message]:
            found = []
            async for message in by_loop:
                found.append(message)
                if len(found) == 3:
                    break
            return found

        found = asyncio.run(take())

    assert isinstance(batch, RecordBatch)
    assert (batch.stream, batch.records.dtype) == ("orderbook", ORDERBOOK)
    assert batch.records["cum_volume"].tolist() == [m.cum_volume for m in found if isinstance(m, Book)] == [1, 2, 3]


READER = """
import sys
from pathlib import Path
from collectorctl.reader.live import Live
from conf.home import Home
live = Live(Home(Path(sys.argv[1])))
print("ready", flush=True)
for message in live:
    print(*message[:1], getattr(message, "seq", message), flush=True)
"""


def test_readers_that_are_killed_or_stopped_are_not_noticed_and_the_others_lose_nothing(wires: Wires) -> None:
    """Real processes: one is killed, one is stopped until it was overtaken, two read everything."""
    ring = wires.ring("kis", "tick")
    command = [sys.executable, "-c", READER, str(wires.home.root)]
    readers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    try:
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
        killed, stopped, *others = readers
        ring.publish(ticks(FeedId.KIS, (0, 1)))
        for reader in readers:
            assert reader.stdout.readline() == "kis 1\n"  # type: ignore[union-attr]
        os.kill(killed.pid, signal.SIGKILL)
        os.kill(stopped.pid, signal.SIGSTOP)
        last = CAPACITY + 50
        read = {reader.pid: [] for reader in others}  # type: ignore[var-annotated]
        for seq in range(2, last + 1):
            ring.publish(ticks(FeedId.KIS, (seq - 1, seq)))
            if seq % 50 == 0 or seq == last:
                for reader in others:
                    while not read[reader.pid] or read[reader.pid][-1] != f"kis {seq}\n":
                        read[reader.pid].append(reader.stdout.readline())  # type: ignore[union-attr]
        os.kill(stopped.pid, signal.SIGCONT)
        after = stopped.stdout.readline()  # type: ignore[union-attr]
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
            reader.stdout.close()  # type: ignore[union-attr]

    everything = [f"kis {seq}\n" for seq in range(2, last + 1)]
    assert list(read.values()) == [everything, everything]
    assert after == f"kis Lost(feed='kis', stream='tick', first=2, last={last - CAPACITY}, is_damage=False)\n"
    assert ring.head == last


def test_what_a_frame_did_not_have_is_none_and_never_zero(wires: Wires) -> None:
    ring = wires.ring("kis", "orderbook")
    record = books(FeedId.KIS, UNDEFINED)
    record["expected_price_e4"] = 0
    with Live(wires.home) as live:
        ring.publish(record)
        (book,) = live.read()

    assert isinstance(book, Book)
    assert (book.cum_volume, book.expected_price, book.total_ask_size) == (None, None, None)


def test_a_ring_that_cannot_be_read_for_a_second_is_an_error_and_no_silence(wires: Wires) -> None:
    """Its words for the newest record are damaged so that they hold less than the oldest."""
    ring = wires.ring("kis", "orderbook")
    with Live(wires.home) as live:
        ring.publish(books(FeedId.KIS, *range(1, 5)))
        assert [message.cum_volume for message in live.read() if isinstance(message, Book)] == [1, 2, 3, 4]
        ring._header[layout.HEAD], ring._header[layout.HEAD_COPY] = 9, 2

        with pytest.raises(RingError, match="the ring has 1 to 2"):
            read_until(live, lambda found: False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_member_of_the_group_reads_the_live_stream_and_nobody_else_does(tmp_path: Path) -> None:
    """Two users who own nothing here, one with the group; also after the ring directory was deleted and made again."""
    wires = Wires(tmp_path, settings='[ring]\nreader_group = "daemon"\n')
    for directory in (tmp_path, *tmp_path.parents[:-1]):
        directory.chmod(directory.stat().st_mode | 0o011)
    ring, vitals = wires.ring("kis", "orderbook"), Vitals.create(wires.home.vitals_path("kis"), "kis")
    script = f"""
import os, sys
from pathlib import Path
from collectorctl.reader.live import Live
from conf.home import Home
home = Home(Path({str(tmp_path)!r}))  # before: the code itself may be in a directory of root
os.setgroups([1] if sys.argv[1] == "member" else [])
os.setgid(65534), os.setuid(65534)
live = Live(home, None)
print("ready", flush=True)
while not (found := [message for message in live.read() if type(message).__name__ == "Book"]): pass
print(found[0].cum_volume)
"""
    try:
        for volume in (100, 200):
            command = [sys.executable, "-c", script]
            with subprocess.Popen([*command, "member"], stdout=subprocess.PIPE, text=True) as reader:
                assert reader.stdout is not None and reader.stdout.readline() == "ready\n"
                ring.publish(books(FeedId.KIS, volume))
                assert reader.stdout.read() == f"{volume}\n"
            refused = subprocess.run([*command, "stranger"], capture_output=True, text=True, timeout=60)
            assert (refused.returncode, "PermissionError" in refused.stderr) == (1, True)
            shutil.rmtree(tmp_path / "rings")
            assert ring.restore_path()
        assert {(path.stat().st_mode & 0o777, path.stat().st_gid) for path in (tmp_path / "rings").iterdir()} == {
            (0o640, 1)
        }
    finally:
        vitals.close()
        ring.close()
