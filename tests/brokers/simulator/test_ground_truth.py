"""The truth on disk is what clients received, record by record, faults included."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.vendor_clients import KisClient, KiwoomClient, SimulatorHandle, start_simulator

from brokers.simulator.exchange.market import SimulatedMarket
from brokers.simulator.ground_truth import (
    BOOKS,
    DELIVERIES,
    TRADES,
    DeliveryOutcome,
    GroundTruth,
    GroundTruthWriter,
    Stream,
    load,
)
from conf.instrument import parse_instrument

KIS, KIWOOM = 1, 2
SYMBOLS = ("005930", "000660", "0074K0")


class Session:
    """A simulator with both vendors' clients registered for everything, reading in threads."""

    def __init__(self, home: Path, truth: Path, *options: str) -> None:
        names = ",".join(SYMBOLS)
        self._context = start_simulator(home, "--always-open", "--truth", str(truth), "--symbols", names, *options)
        self.simulator: SimulatorHandle = self._context.__enter__()
        self.truth = truth
        self.kis = KisClient(self.simulator.ready)
        for symbol in SYMBOLS:
            self.kis.subscribe("H0STCNT0", symbol)
            self.kis.subscribe("H0STASP0", symbol)
        self.kiwoom = KiwoomClient(self.simulator.ready)
        self.kiwoom.request("REG", list(SYMBOLS), ["0B", "0D"])
        self._threads = [threading.Thread(target=client.read_for, args=(60,)) for client in (self.kis, self.kiwoom)]
        for thread in self._threads:
            thread.start()

    def await_sent(self, line: str, stream: str, number: int, within_s: float = 20) -> None:
        """Until `line` has sent that many records."""
        deadline_s = time.monotonic() + within_s
        while self.simulator.send_command("status")[line][stream].get("sent", 0) < number:
            assert time.monotonic() < deadline_s, f"{line} never sent {number} of {stream}"
            time.sleep(0.05)

    def finish(self) -> GroundTruth:
        """Stop the market's flow, let the clients read what is under way, stop the simulator; the truth."""
        for line in ("kis", "kiwoom"):
            self.simulator.send_command(f"{line} quiet 60")
        time.sleep(0.3)  # what was handed to the socket reaches the client's frames
        assert self.simulator.stop() == 0
        for thread in self._threads:
            thread.join()
        return load(self.truth)


@pytest.fixture
def session(home: Path, tmp_path: Path) -> Iterator[Callable[..., Session]]:
    """Starts sessions; they end with the test."""
    started: list[Session] = []

    def start(*options: str) -> Session:
        started.append(Session(home, tmp_path / "truth", *options))
        return started[-1]

    yield start
    for one in started:
        one._context.__exit__(None, None, None)


def sent_ids(run: GroundTruth, line: int, stream: Stream, *outcomes: DeliveryOutcome) -> list[tuple[int, int]]:
    """(first, last) ids of one line's records with these outcomes."""
    wanted = (
        (run.deliveries["line"] == line)
        & (run.deliveries["stream"] == stream)
        & np.isin(run.deliveries["outcome"], outcomes)
    )
    return [(int(first), int(last)) for first, last in run.deliveries[wanted][["first_id", "last_id"]].tolist()]


def told_books(run: GroundTruth, line: int, *outcomes: DeliveryOutcome) -> Counter[tuple[Any, ...]]:
    """The books one line sent, as the truth has them."""
    told: Counter[tuple[Any, ...]] = Counter()
    for first, _ in sent_ids(run, line, Stream.BOOK, *outcomes):
        book = run.books[first - 1]
        assert book["id"] == first
        levels = [*book["ask_price"], *book["bid_price"], *book["ask_size"], *book["bid_size"]]
        rest = [
            book[name]
            for name in ("total_ask", "total_bid", "expected_price", "expected_size", "mid_price", "mid_size")
        ]
        told[(book["symbol"].decode(), *map(int, levels), int(book["cum_volume"]), *map(int, rest))] += 1
    return told


def told_trades(run: GroundTruth, line: int, *outcomes: DeliveryOutcome) -> Counter[tuple[Any, ...]]:
    """The prints one line sent, merged ones as they were merged."""
    told: Counter[tuple[Any, ...]] = Counter()
    for first, last in sent_ids(run, line, Stream.TICK, *outcomes):
        covered = run.trades[first - 1 : last]
        end = covered[-1]
        size = int(end["cum_volume"] - covered[0]["cum_volume"] + covered[0]["size"])
        names = ("price", "side", "cum_volume", "sells", "buys", "ask_price_1", "bid_price_1")
        told[(end["symbol"].decode(), size, *(int(end[name]) for name in names))] += 1
    return told


def kis_books(client: KisClient) -> Counter[tuple[Any, ...]]:
    """The books a KIS client read."""
    order = [*range(3, 43), 53, 43, 44, 47, 48, 59, 60]
    return Counter((row[0], *(int(row[place]) for place in order)) for row in client.collect_records("H0STASP0"))


def kis_trades(client: KisClient) -> Counter[tuple[Any, ...]]:
    """The trades a KIS client read."""
    sides = {"1": 1, "5": -1}
    return Counter(
        (row[0], int(row[12]), int(row[2]), sides.get(row[21], 0), *(int(row[place]) for place in (13, 15, 16, 10, 11)))
        for row in client.collect_records("H0STCNT0")
    )


def kiwoom_books(client: KiwoomClient) -> Counter[tuple[Any, ...]]:
    """The books a Kiwoom client read."""
    fids = [*range(41, 51), *range(51, 61), *range(61, 71), *range(71, 81), 13, 121, 125, 23, 24, 6102]
    read: Counter[tuple[Any, ...]] = Counter()
    for entry in client.collect_entries("0D"):
        values = entry["values"]
        mid = int(values["6101"]) + int(values["6103"])
        read[(entry["item"], *(abs(int(values[str(fid)])) for fid in fids), mid)] += 1
    return read


def kiwoom_trades(client: KiwoomClient) -> Counter[tuple[Any, ...]]:
    """The prints a Kiwoom client read."""
    read: Counter[tuple[Any, ...]] = Counter()
    for entry in client.collect_entries("0B"):
        values = entry["values"]
        side = {"+": 1, "-": -1}.get(values["15"][0], 0)
        fids = ("13", "1071", "1072", "27", "28")
        size, price = abs(int(values["15"])), abs(int(values["10"]))
        read[(entry["item"], size, price, side, *(abs(int(values[fid])) for fid in fids))] += 1
    return read


def test_clients_receive_exactly_what_the_truth_says_was_sent(session: Callable[..., Session]) -> None:
    """With loss, conflation and merging on both lines: every book and print, field by field, none more and none less."""
    lossy = ("--kis-loss", "0.05", "--kiwoom-loss", "0.05", "--kiwoom-merge", "0.5", "--books-per-s", "40")
    running = session(*lossy)
    running.await_sent("kis", "book", 300)
    running.await_sent("kiwoom", "tick", 100)
    run = running.finish()

    assert told_books(run, KIS, DeliveryOutcome.SENT) == kis_books(running.kis)
    assert told_trades(run, KIS, DeliveryOutcome.SENT) == kis_trades(running.kis)
    assert told_books(run, KIWOOM, DeliveryOutcome.SENT) == kiwoom_books(running.kiwoom)
    assert told_trades(run, KIWOOM, DeliveryOutcome.SENT) == kiwoom_trades(running.kiwoom)
    for told in (
        [row[13] for row in running.kis.collect_records("H0STCNT0") if row[0] == "005930"],
        _volumes(running.kiwoom),
    ):
        assert told == sorted(told, key=int)
    assert any(first != last for first, last in sent_ids(run, KIWOOM, Stream.TICK, DeliveryOutcome.SENT))
    assert len(sent_ids(run, KIWOOM, Stream.BOOK, DeliveryOutcome.CONFLATED)) > 100
    assert len(sent_ids(run, KIS, Stream.BOOK, DeliveryOutcome.LOST)) > 3


def _volumes(client: KiwoomClient) -> list[str]:
    return [entry["values"]["13"] for entry in client.collect_entries("0B") if entry["item"] == "005930"]


def test_every_record_of_a_registered_stream_has_one_outcome(session: Callable[..., Session]) -> None:
    """From the first to the last, no id of a registered symbol is missing and none has two fates."""
    running = session("--kis-loss", "0.1", "--kiwoom-loss", "0.1", "--books-per-s", "40")
    running.await_sent("kiwoom", "book", 30)
    run = running.finish()

    for line in (KIS, KIWOOM):
        for stream, table in ((Stream.BOOK, run.books), (Stream.TICK, run.trades)):
            covered = [
                number
                for first, last in sent_ids(run, line, stream, *DeliveryOutcome)
                for number in range(first, last + 1)
            ]
            first_s = run.deliveries[run.deliveries["line"] == line]["mono_ns"].min()
            due = {int(row["id"]) for row in table if row["mono_ns"] > first_s}
            # A merged print covers the trades of its own symbol only, and those of one sweep follow each other.
            assert len(covered) == len(set(covered))
            assert due <= set(covered) <= set(table["id"].tolist())


def test_spoiled_repeated_and_lost_frames_are_told_apart(session: Callable[..., Session]) -> None:
    """garble, truncate, badutf8, duplicate and quiet: what decodes at the client is sent and repeated, nothing else."""
    running = session("--kis-loss", "0", "--kiwoom-loss", "0", "--books-per-s", "20")
    for line in ("kis", "kiwoom"):
        for command in ("garble 2", "truncate 2", "badutf8 2", "duplicate 3"):
            assert running.simulator.send_command(f"{line} {command}")["ok"]
    running.await_sent("kis", "book", 100)
    running.await_sent("kiwoom", "book", 40)
    running.simulator.send_command("kis quiet 0.5")
    lost_by_s = time.monotonic() + 10
    while not running.simulator.send_command("status")["kis"]["book"].get("lost"):
        assert time.monotonic() < lost_by_s
    run = running.finish()
    good: list[list[bytes]] = [[], []]
    for number, client in enumerate((running.kis, running.kiwoom)):
        for frame in client.frames:
            whole = frame.count(b"|") == 3 and frame.count(b"^") >= 46 if number == 0 else _is_json(frame)
            if frame.isascii() or number == 1:
                good[number] += [frame] if whole and b"\xff" not in frame else []
        client.frames = good[number]
    every = (DeliveryOutcome.SENT, DeliveryOutcome.REPEATED)

    assert told_books(run, KIS, *every) == kis_books(running.kis)
    assert told_trades(run, KIS, *every) == kis_trades(running.kis)
    assert told_books(run, KIWOOM, *every) == kiwoom_books(running.kiwoom)
    assert told_trades(run, KIWOOM, *every) == kiwoom_trades(running.kiwoom)
    for line in (KIS, KIWOOM):
        assert (
            len(
                {
                    *run.deliveries[
                        (run.deliveries["line"] == line) & (run.deliveries["outcome"] == DeliveryOutcome.CORRUPTED)
                    ]["mono_ns"]
                }
            )
            == 6
        )
        assert (
            len(
                {
                    *run.deliveries[
                        (run.deliveries["line"] == line) & (run.deliveries["outcome"] == DeliveryOutcome.REPEATED)
                    ]["mono_ns"]
                }
            )
            == 3
        )


def _is_json(frame: bytes) -> bool:
    try:
        json.loads(frame)
    except ValueError:
        return False
    return True


def test_connections_are_written_down_with_how_they_ended(session: Callable[..., Session]) -> None:
    """A fault, a proper close and a client that vanished, by line and number, without the key."""
    running = session("--books-per-s", "5")
    running.simulator.send_command("kis drop")
    ready = running.simulator.ready
    closing = KiwoomClient(ready, "closing")
    closing.close()
    vanishing = KiwoomClient(ready, "vanishing")
    vanishing.vanish()
    deadline_s = time.monotonic() + 10
    while running.simulator.send_command("status")["kiwoom"]["connections"] > 1:
        assert time.monotonic() < deadline_s
    run = running.finish()

    hows = {(row["line"], row["connection"]): row["how"] for row in run.connections}
    assert hows == {
        (KIS, 1): "fault drop",
        (KIWOOM, 1): "simulator stopped",
        (KIWOOM, 2): "client closed",
        (KIWOOM, 3): "client vanished",
    }
    assert running.kis.end_reason == "cut"
    assert all(row["opened_mono_ns"] < row["ended_mono_ns"] for row in run.connections)
    assert "closing" not in (running.truth / "connections.jsonl").read_text()


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(0, 10**6))
def test_a_torn_last_record_is_cut_off(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """Reading at any length gives every whole record."""
    directory = tmp_path_factory.mktemp("torn")
    truth = GroundTruthWriter(directory, {"seed": 1})
    market = SimulatedMarket([parse_instrument("005930")], 1)
    (instrument,) = market.listings
    for number in range(20):
        step = market.advance(instrument, "regular", 1_795_132_800 + number, number)
        if step is not None and step.book is not None:
            truth.record_book(step.book)
            truth.record_delivery(KIS, Stream.BOOK, DeliveryOutcome.SENT, 1, step.book.id, step.book.id, number)
    truth.close()
    whole = load(directory)
    for name in ("books.bin", "sent.bin"):
        data = (directory / name).read_bytes()
        (directory / name).write_bytes(data[: cut % (len(data) + 1)])
    torn = load(directory)

    assert len(torn.books) == (directory / "books.bin").stat().st_size // BOOKS.itemsize
    assert (torn.books == whole.books[: len(torn.books)]).all()
    assert (torn.deliveries == whole.deliveries[: len(torn.deliveries)]).all()


def test_the_layout_is_what_is_documented() -> None:
    """Record sizes in bytes, which readers in other languages rely on."""
    assert (BOOKS.itemsize, TRADES.itemsize, DELIVERIES.itemsize) == (425, 121, 31)
