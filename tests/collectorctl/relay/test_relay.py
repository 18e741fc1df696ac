"""A real relay over real rings: clients written as the vendors' samples are, and what becomes of a slow one and of a restart."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import websocket
from support.process_tree import wait_until
from support.ring_program import CAPACITY, WAIT_S, RingProgram, free_ports
from support.vendor_clients import WebSocketClient, post

from brokers.kis import decode as kis_decode
from brokers.kiwoom import decode as kiwoom_decode
from brokers.simulator.gateway.client import MAX_QUEUED
from brokers.subscription import Subscription
from brokers.us import decode as us_decode
from collectorctl.relay.__main__ import serve
from collectorctl.relay.keys import Access, RelayKeyStore, RelayTokenStore
from conf.home import Home
from conf.instrument import Instrument
from conf.process import ShutdownSignal
from ringbuf.records import ORDERBOOK, TICK, FeedId, Venue, empty_records
from ringbuf.vitals import ProcessState, Vitals, read_snapshot

SYMBOL, US_SYMBOL = Instrument("005930", "KRX"), Instrument("NVDA", "NASDAQ")
SETTINGS = """
[universe]
kr = ["005930", "000660"]
us = ["NAS.NVDA"]
[us]
enabled = true
[paths]
ring = "rings"
[relay]
enabled = true
kis_port = {kis}
kiwoom_port = {kiwoom}
"""


class Relaying(RingProgram):
    """A home with rings, and the relay that serves them."""

    def __init__(self, root: Path) -> None:
        kis_port, kiwoom_port = free_ports(2)
        self.kis_url, self.kis_ws = f"http://127.0.0.1:{kis_port}", f"ws://127.0.0.1:{kis_port}"
        self.kiwoom_url = f"http://127.0.0.1:{kiwoom_port}"
        self.kiwoom_ws = f"ws://127.0.0.1:{kiwoom_port}/api/dostk/websocket"
        settings = SETTINGS.format(kis=kis_port, kiwoom=kiwoom_port)
        super().__init__(root, "relay", settings, ("kis", "kiwoom", "us"), ("orderbook", "tick"))

    def ticks(self, feed: FeedId, count: int) -> np.ndarray:
        """Trades of one share each that follow each other."""
        records = empty_records(TICK, count)
        self._stamp(records, feed)
        records["size"], records["price_e4"], records["side"] = 1, 700_000_000, 1
        records["cum_volume"] = self.volume + 1 + np.arange(count)
        records["cum_value"] = records["cum_volume"] * 70_000
        records["ask_price_1_e4"], records["bid_price_1_e4"] = 701_000_000, 700_000_000
        self.volume += count
        return records

    def books(self, feed: FeedId, count: int) -> np.ndarray:
        records = empty_records(ORDERBOOK, count)
        self._stamp(records, feed)
        records["ask_price_e4"], records["ask_size"] = 701_000_000 + np.arange(10) * 1_000_000, 5
        records["bid_price_e4"], records["bid_size"] = 700_000_000 - np.arange(10) * 1_000_000, 7
        records["total_ask_size"], records["total_bid_size"] = 50, 70
        self.volume += count
        records["cum_volume"] = self.volume - np.arange(count)[::-1]
        return records

    def _stamp(self, records: np.ndarray, feed: FeedId) -> None:
        records["symbol"], records["venue"], records["line"] = b"005930", Venue.KRX, feed
        if feed == FeedId.US:
            records["symbol"], records["venue"] = b"NVDA", Venue.NASDAQ
        records["mono_ns"], records["recv_ns"] = time.monotonic_ns(), time.time_ns()
        records["exch_ns"] = records["recv_ns"] // 1_000_000_000 * 1_000_000_000


@pytest.fixture(scope="module")
def relaying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relaying]:
    made = Relaying(tmp_path_factory.mktemp("relay"))
    yield made
    made.kill()
    for ring in made.rings.values():
        ring.close()


def open_kis(relaying: Relaying, *wanted: tuple[str, str], key: str | None = None) -> tuple[WebSocketClient, list[Any]]:
    """As the vendor's sample does it: approval key, connection, a registration each; the client and the answers."""
    if key is None:
        body = {"grant_type": "client_credentials", "appkey": "A" * 36, "secretkey": "any"}
        key = post(f"{relaying.kis_url}/oauth2/Approval", body).json()["approval_key"]
    client = WebSocketClient(relaying.kis_ws)
    answers = []
    for tr_id, tr_key in wanted:
        header = {"approval_key": key, "custtype": "P", "tr_type": "1", "content-type": "utf-8"}
        client.send({"header": header, "body": {"input": {"tr_id": tr_id, "tr_key": tr_key}}})
        answers.append(json.loads(client.await_frame(lambda frame: frame.startswith(b"{")))["body"])
    return client, answers


def open_kiwoom(relaying: Relaying, items: list[str], types: list[str]) -> tuple[WebSocketClient, dict[str, Any]]:
    """Token, login and one registration; the client and the answer to it."""
    body = {"grant_type": "client_credentials", "appkey": "A" * 36, "secretkey": "another"}
    token = post(f"{relaying.kiwoom_url}/oauth2/token", body).json()["token"]
    client = WebSocketClient(relaying.kiwoom_ws)
    client.send({"trnm": "LOGIN", "token": token})
    assert json.loads(client.await_frame(lambda frame: b"LOGIN" in frame))["return_code"] == 0
    client.send({"trnm": "REG", "grp_no": "1", "refresh": "1", "data": [{"item": items, "type": types}]})
    return client, json.loads(client.await_frame(lambda frame: b"REG" in frame))


def is_data(frame: bytes) -> bool:
    return frame.startswith(b"0|") or b'"REAL"' in frame


def read_data(client: WebSocketClient, count: int) -> list[bytes]:
    return [client.await_frame(is_data, WAIT_S) for _ in range(count)]


def assert_same(read: np.ndarray, written: np.ndarray, names: tuple[str, ...]) -> None:
    assert len(read) == len(written)
    for name in names:
        assert np.array_equal(read[name], written[name]), name


BOTH = [("H0STCNT0", "005930"), ("H0STASP0", "005930")]


def test_bots_of_both_vendors_with_one_key_get_every_record_of_both_feeds(relaying: Relaying) -> None:
    bots = [open_kis(relaying, *BOTH) for _ in range(2)]
    assert [answer["msg_cd"] for _, answers in bots for answer in answers] == ["OPSP0000"] * 4
    kiwoom, answer = open_kiwoom(relaying, ["005930"], ["0B", "0D"])
    assert answer["return_code"] == 0
    ticks = relaying.ticks(FeedId.KIS, 20)
    relaying.rings["kis", "tick"].publish(ticks)
    expected = []
    for feed in (FeedId.KIWOOM, FeedId.KIS):
        expected.append(relaying.books(feed, 10))
        relaying.rings[feed.name.lower(), "orderbook"].publish(expected[-1])
    books = np.concatenate(expected)

    subscriptions = [Subscription(SYMBOL, "tick"), Subscription(SYMBOL, "orderbook")]
    for client, decode, by_code in (
        *((client, kis_decode.decode, kis_decode.subscriptions_by_code(subscriptions)) for client, _ in bots),
        (kiwoom, kiwoom_decode.decode, kiwoom_decode.subscriptions_by_code(subscriptions)),
    ):
        found = [decode(frame, by_code, time.time_ns()) for frame in read_data(client, 40)]
        assert [one.rejects for one in found if one.rejects] == []
        read_ticks = np.concatenate([one.ticks for one in found if one.tick_rows])
        read_books = np.concatenate([one.books for one in found if one.book_rows])
        assert_same(read_ticks, ticks, TICK_NAMES)
        assert_same(read_books[np.argsort(read_books["cum_volume"])], books, BOOK_NAMES)
        client.ws.close()


TICK_NAMES = (
    *("symbol", "venue", "exch_ns", "price_e4", "size", "side", "cum_volume"),
    *("ask_price_1_e4", "bid_price_1_e4"),
)
BOOK_NAMES = (
    *("symbol", "venue", "exch_ns", "ask_price_e4", "ask_size", "bid_price_e4", "bid_size"),
    *("cum_volume", "total_ask_size", "total_bid_size"),
)


def test_what_is_not_collected_is_refused_in_the_vendors_form(relaying: Relaying) -> None:
    wanted = [("H0STCNT0", "999999"), ("H0NXCNT0", "005930"), ("H0STCNI0", "someone"), ("H0STCNT0", "005930")]
    kis, answers = open_kis(relaying, *wanted)
    assert [answer["msg_cd"] for answer in answers] == ["OPSP8992", "OPSP8992", "OPSP8991", "OPSP0000"]
    for items, types in ((["005930", "999999"], ["0B"]), (["005930"], ["0B", "00"])):
        kiwoom, answer = open_kiwoom(relaying, items, types)
        assert answer["return_code"] == 1
        kiwoom.ws.close()
    kis.ws.close()


US_BOTH = [("HDFSCNT0", "DNASNVDA"), ("HDFSASP0", "DNASNVDA")]


def test_a_bot_gets_us_instruments_beside_korean_ones_under_the_keys_of_the_homes_feed(relaying: Relaying) -> None:
    """The paid keys would be another feed."""
    wanted = [("HDFSCNT0", "RNASNVDA"), ("HDFSCNT0", "DNASAAPL"), ("HDFSASP1", "DNASNVDA"), *US_BOTH, BOTH[0]]
    client, answers = open_kis(relaying, *wanted)
    ticks, books, korean = (
        relaying.ticks(FeedId.US, 10),
        relaying.books(FeedId.US, 10),
        relaying.ticks(FeedId.KIS, 5),
    )
    ticks["price_e4"] = ticks["ask_price_1_e4"]  # so that the quotes tell the side
    relaying.rings["us", "tick"].publish(ticks)
    relaying.rings["us", "orderbook"].publish(books)
    relaying.rings["kis", "tick"].publish(korean)
    frames = read_data(client, 25)
    subscriptions = [Subscription(US_SYMBOL, "tick"), Subscription(US_SYMBOL, "orderbook")]
    by_code = us_decode.subscriptions_by_code(subscriptions)
    found = [us_decode.decode(one, by_code, time.time_ns()) for one in frames if b"|HDFS" in one]

    codes = [answer["msg_cd"] for answer in answers]
    assert codes == ["OPSP8992", "OPSP8992", "OPSP8991", "OPSP0000", "OPSP0000", "OPSP0000"]
    assert [one.rejects for one in found if one.rejects] == []
    assert_same(np.concatenate([one.ticks for one in found if one.tick_rows]), ticks, TICK_NAMES)
    names = [name for name in BOOK_NAMES if name != "cum_volume"]
    assert_same(np.concatenate([one.books for one in found if one.book_rows]), books, tuple(names))
    assert len(found) == 20
    client.ws.close()


def test_a_client_that_does_not_read_is_cut_and_another_gets_everything(relaying: Relaying) -> None:
    cut_before = relaying.read_vitals().counters["clients_cut"]
    slow, _ = open_kis(relaying, *BOTH)
    slow.ws.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    fast, _ = open_kis(relaying, BOTH[0])
    volumes: list[int] = []

    def is_cut() -> bool:
        return relaying.read_vitals().counters["clients_cut"] > cut_before

    begin, expected = relaying.volume, []
    while not is_cut():
        assert relaying.volume - begin < 20 * MAX_QUEUED
        relaying.rings["kis", "orderbook"].publish(relaying.books(FeedId.KIS, 2000))  # the slow one alone has them
        ticks = relaying.ticks(FeedId.KIS, 50)
        relaying.rings["kis", "tick"].publish(ticks)
        expected += ticks["cum_volume"].tolist()
        volumes += [int(frame.split(b"^")[13]) for frame in read_data(fast, 50)]

    assert volumes == expected
    slow.ws.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # what is under way comes quickly
    assert slow.await_end() == "cut"
    assert relaying.read_vitals().counters["lost_records"] == 0
    fast.ws.close()


def test_after_a_kill_the_same_approval_key_is_good_and_the_stream_goes_on(relaying: Relaying) -> None:
    body = {"grant_type": "client_credentials", "appkey": "A" * 36, "secretkey": "any"}
    key = post(f"{relaying.kis_url}/oauth2/Approval", body).json()["approval_key"]
    before, _ = open_kis(relaying, BOTH[0], key=key)
    os.kill(relaying.process.pid, signal.SIGKILL)
    relaying.process.wait()
    assert before.await_end() == "cut"
    relaying.start()
    after, answers = open_kis(relaying, BOTH[0], key=key)
    assert answers[0]["msg_cd"] == "OPSP0000"
    ticks = relaying.ticks(FeedId.KIS, 3)
    relaying.rings["kis", "tick"].publish(ticks)

    assert [int(frame.split(b"^")[13]) for frame in read_data(after, 3)] == ticks["cum_volume"].tolist()
    after.ws.close()


def test_what_the_relay_was_too_late_for_is_counted_and_logged_with_its_numbers(relaying: Relaying) -> None:
    """A client gets the rest: its protocol has no message for the loss."""
    client, _ = open_kis(relaying, BOTH[0])
    before = relaying.read_vitals().counters["lost_records"]
    os.kill(relaying.process.pid, signal.SIGSTOP)
    for _ in range(5):
        relaying.rings["kis", "tick"].publish(relaying.ticks(FeedId.KIS, CAPACITY // 2))
    os.kill(relaying.process.pid, signal.SIGCONT)
    wait_until("it is counted", lambda: relaying.read_vitals().counters["lost_records"] > before, WAIT_S)
    lost = relaying.read_vitals().counters["lost_records"] - before
    volumes = [int(frame.split(b"^")[13]) for frame in read_data(client, 5 * CAPACITY // 2 - lost)]

    assert volumes == list(range(relaying.volume - len(volumes) + 1, relaying.volume + 1))
    assert len(volumes) <= CAPACITY
    assert relaying.read_vitals().counters["gap_shares"] >= lost
    log = (relaying.home.log / "relay.log").read_text()
    assert (
        f"to {relaying.rings['kis', 'tick'].head - len(volumes)} were overwritten before the relay had read them" in log
    )
    client.ws.close()


def write_vitals(vitals: dict[str, Vitals], **states: ProcessState) -> None:
    """A heartbeat of each collector, in the state named, else STREAMING."""
    for feed, page in vitals.items():
        page.set_state(states.get(feed, ProcessState.STREAMING))
        page.heartbeat()


def test_while_no_collector_lives_clients_are_cut_and_refused(relaying: Relaying) -> None:
    vitals = {feed: Vitals.create(relaying.home.vitals_path(feed), feed) for feed in ("kis", "us")}
    write_vitals(vitals)
    client, _ = open_kis(relaying, BOTH[0])
    write_vitals(vitals, kis=ProcessState.STOPPED, us=ProcessState.STOPPED)
    assert client.await_end(WAIT_S) == "cut"
    with pytest.raises((OSError, websocket.WebSocketException)):
        open_kis(relaying, BOTH[0])
    wait_until("the state says why", lambda: "no collector of kr and us runs" in relaying.read_vitals().detail, WAIT_S)
    write_vitals(vitals)
    wait_until("clients are let in again", lambda: "no collector" not in relaying.read_vitals().detail, WAIT_S)
    client, answers = open_kis(relaying, BOTH[0])

    assert answers[0]["msg_cd"] == "OPSP0000"
    client.ws.close()
    for page in vitals.values():
        page.close()


def test_while_the_us_collector_is_down_who_has_nothing_else_is_cut_and_the_others_go_on(relaying: Relaying) -> None:
    vitals = {feed: Vitals.create(relaying.home.vitals_path(feed), feed) for feed in ("kis", "us")}
    write_vitals(vitals)
    wait_until("both live", lambda: "no collector" not in relaying.read_vitals().detail, WAIT_S)
    both, _ = open_kis(relaying, US_BOTH[0], BOTH[0])
    one, _ = open_kis(relaying, US_BOTH[0])
    write_vitals(vitals, us=ProcessState.STOPPED)
    assert one.await_end(WAIT_S) == "cut"
    wait_until("the state says why", lambda: "no collector of us runs" in relaying.read_vitals().detail, WAIT_S)
    relaying.rings["kis", "tick"].publish(relaying.ticks(FeedId.KIS, 3))
    assert len(read_data(both, 3)) == 3
    write_vitals(vitals)
    wait_until("both live again", lambda: "no collector" not in relaying.read_vitals().detail, WAIT_S)
    relaying.rings["us", "tick"].publish(relaying.ticks(FeedId.US, 3))
    assert len(read_data(both, 3)) == 3
    both.ws.close()
    for page in vitals.values():
        page.close()


def test_with_a_token_only_who_knows_it_is_let_in() -> None:
    kis, kiwoom = RelayKeyStore(Access("the token")), RelayTokenStore(Access("the token"))
    approval, token = kis.issue_approval("the token", 0.0), kiwoom.issue("the token", 0.0).text

    assert [store.check_secret(key, "x") for store in (kis, kiwoom) for key in ("the token", "other")] == [
        *(True, False),
        *(True, False),
    ]
    assert [bool(kis.find_approval_holder(given, 1e9)) for given in (approval, "the token", "other", "")] == [
        *(True, True, False, False),
    ]
    assert [bool(kiwoom.find_holder(given, 1e9)) for given in (token, "the token", "other", "")] == [
        *(True, True, False, False),
    ]
    assert RelayKeyStore(Access("the token")).issue_approval("", 0.0) == approval
    assert RelayKeyStore(Access("another")).issue_approval("", 0.0) != approval


def test_an_address_that_others_reach_is_not_served_without_a_token(tmp_path: Path) -> None:
    (tmp_path / "collector.toml").write_text(
        '[universe]\nkr = ["005930"]\n[paths]\nring = "rings"\n[relay]\nenabled = true\naddress = "0.0.0.0"\n'
    )
    home, stop = Home(tmp_path), ShutdownSignal()
    home.create_directories()
    idle = threading.Thread(target=serve, args=(home, stop))
    idle.start()
    path = home.vitals_path("relay")
    try:
        wait_until("it says so", lambda: path.exists() and read_snapshot(path).state == ProcessState.FAILING, WAIT_S)
        assert "RELAY_TOKEN" in read_snapshot(path).detail
    finally:
        stop.request()
        idle.join()
