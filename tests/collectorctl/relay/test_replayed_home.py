"""A home that is fed by the replay of a day has that day again; clients that are cut, and that come to each other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from support.ring_program import free_ports
from support.vendor_clients import WebSocketClient
from support.writer_data import NINE_NS, SECOND_NS, make_books, make_home, make_ticks

import collectorctl
from brokers.feed.publisher import SessionResolver
from brokers.kis import decode as kis_decode
from brokers.kiwoom import decode as kiwoom_decode
from brokers.simulator.kis.encode import PROFILES
from brokers.simulator.kis.record_encode import encode_record as encode_kis
from brokers.simulator.kiwoom.record_encode import encode_record as encode_kiwoom
from brokers.subscription import Subscription
from collectorctl.reader.home import HomeReader
from collectorctl.reader.stored import Span, StoredRows, merge_runs
from collectorctl.relay import stored
from collectorctl.relay.replay import run_replay
from conf.clock import to_kst
from conf.home import Home
from conf.instrument import Instrument
from ringbuf.records import FeedId, Session
from writer.publish.records import publish_records

DAY = to_kst(NINE_NS).date()
OF_RECEIPT = ["recv_time", "recv_time_kis", "recv_time_kiwoom", "broker", "seq", "flags"]
"""When, by whom and behind what a record was received: not the day's."""
NOT_HANDED_ON = {"orderbook": ["mid_size"], "tick": ["trade_count", "value_change", "cum_value"]}
"""Columns that docs/relay.md names: one of the forms has no place for them."""
FORMS = {
    "kis": (lambda *of: encode_kis(*of, PROFILES["47/63"]), kis_decode),
    "kiwoom": (encode_kiwoom, kiwoom_decode),
}
INSTRUMENTS = {"kis": Instrument("000010", "KRX"), "kiwoom": Instrument("005930", "KRX")}
"""Whose ticks each of the feeds brings; both have the books of both."""
KEY = "any key"


def read_day(home: HomeReader, stream: str, symbol: str, day: date = DAY) -> pd.DataFrame:
    """The rows of an instrument's day in their order, without what is not handed on."""
    rows = home.table(stream, symbol, day).to_pandas()
    return rows.drop(columns=[name for name in (*OF_RECEIPT, *NOT_HANDED_ON[stream]) if name in rows])


def make_delivered(count: int, lacks_midpoint: str = "") -> dict[str, np.ndarray]:
    """What both feeds delivered: books that one of them lacks, that come back, with empty levels; ticks of each feed."""
    random = np.random.default_rng(1)
    books = []
    for number in range(count):
        feeds = [("kis", FeedId.KIS), ("kiwoom", FeedId.KIWOOM)]
        for feed, line in feeds if random.random() < 0.7 else [feeds[random.integers(2)]]:
            content = number - 2 if number % 10 == 9 else number  # that of two books before
            (book,) = make_books([content], line, symbols=1)
            book["symbol"] = INSTRUMENTS["kis" if number % 3 else "kiwoom"].symbol.encode()
            book["recv_ns"] = book["mono_ns"] = NINE_NS + number * SECOND_NS // 4 + int(random.integers(1, 90)) * 10**6
            book["exch_ns"] = book["recv_ns"] // SECOND_NS * SECOND_NS
            book["expected_price_e4"], book["expected_size"] = (700_000_000, 5) if number % 4 else (0, 0)
            book["mid_price_e4"], book["mid_size"] = (700_010_000, 3) if feed != lacks_midpoint else (0, 0)
            if number % 5 == 0:
                book["ask_price_e4"][7:], book["ask_size"][7:] = 0, 0
                book["total_ask_size"] = book["ask_size"].sum()
            books.append(book)
    found = np.array(books)
    ticks = []
    for feed, line in (("kis", FeedId.KIS), ("kiwoom", FeedId.KIWOOM)):
        part = make_ticks(range(1, count + 1), line)
        part["symbol"] = INSTRUMENTS[feed].symbol.encode()
        part["recv_ns"] = part["mono_ns"] = NINE_NS + np.arange(count) * SECOND_NS // 4 + line
        part["exch_ns"] = part["recv_ns"] // SECOND_NS * SECOND_NS
        part["cum_volume"][count // 2 :] += 10  # a gap
        if feed == "kis":  # whose frames name it
            part["session"] = np.where(np.arange(count) < 9, Session.OPENING_AUCTION, Session.REGULAR)
        part["ask_price_1_e4"], part["bid_price_1_e4"] = 700_100_000, 0
        ticks.append(part)
    merged = np.concatenate(ticks)
    return {
        "orderbook": found[np.argsort(found["recv_ns"], kind="stable")],
        "tick": merged[np.argsort(merged["recv_ns"], kind="stable")],
    }


def store(root: Path, delivered: Mapping[str, np.ndarray]) -> Home:
    """A home in which that was collected."""
    home = make_home(root)
    for stream, records in delivered.items():
        directory = home.data / "kr" / stream
        publish_records(directory, f"kr.{stream}", records, stream, home.settings.writer, SECOND_NS)
    return home


def deliver_again(rows: Mapping[str, StoredRows], feed: str, late_ns: int) -> dict[str, np.ndarray]:
    """What the collector of a feed receives from a replay: frames of its form, decoded, `late_ns` after their first receipt."""
    encode, decode = FORMS[feed]
    instruments = {(one.symbol.encode(), one.venue): one for one in INSTRUMENTS.values()}
    wanted = [Subscription(one, "orderbook") for one in INSTRUMENTS.values()] + [
        Subscription(INSTRUMENTS[feed], "tick")
    ]
    by_code = decode.subscriptions_by_code(wanted)
    parts = {
        (stream, form): one.read(stream, NINE_NS, NINE_NS + 3600 * SECOND_NS)
        for stream in ("orderbook", "tick")
        for form, one in rows.items()
        if form in ("", feed)
    }
    found: dict[str, list[np.ndarray]] = {"orderbook": [], "tick": []}
    for (stream, _), records in merge_runs(parts, 100):
        for row in records.tolist():
            record = dict(zip(records.dtype.names or (), row, strict=True))
            instrument = instruments[record["symbol"], "KRX"]
            if stream == "tick" and instrument != INSTRUMENTS[feed]:
                continue
            at_ns = record["recv_ns"] + late_ns
            batch = decode.decode(encode(stream, record, instrument), by_code, at_ns, at_ns)
            assert batch.rejects == []
            found[stream] += [batch.books, batch.ticks]
    return {stream: np.concatenate([one for one in parts if len(one)]) for stream, parts in found.items()}


@pytest.mark.parametrize("each_feed", [False, True], ids=["the first of both", "each feed by itself"])
def test_a_home_that_is_fed_by_a_replay_has_the_books_and_ticks_of_the_day(tmp_path: Path, each_feed: bool) -> None:
    first = store(tmp_path / "first", make_delivered(200, "" if each_feed else "kiwoom"))
    forms = tuple(FORMS) if each_feed else ("",)
    rows = {form: StoredRows(first, list(INSTRUMENTS.values()), DAY, feed=form) for form in forms}
    late_ns = {"kis": 3_000_000, "kiwoom": 3_000_000 if each_feed else 1_000_000}
    received = [deliver_again(rows, feed, late_ns[feed]) for feed in FORMS]
    merged = {stream: np.concatenate([one[stream] for one in received]) for stream in ("orderbook", "tick")}
    for records in merged.values():
        SessionResolver(first).resolve(records)
    order = {stream: np.argsort(records["recv_ns"], kind="stable") for stream, records in merged.items()}
    again = store(tmp_path / "again", {stream: records[order[stream]] for stream, records in merged.items()})

    readers = [collectorctl.open(home.root) for home in (first, again)]
    for instrument in INSTRUMENTS.values():
        for stream in ("orderbook", "tick"):
            expected, found = (read_day(reader, stream, str(instrument)) for reader in readers)
            assert len(expected) > 60
            pd.testing.assert_frame_equal(found, expected)
        if each_feed:
            expected, found = (reader.books(str(instrument), DAY) for reader in readers)
            for name in ("recv_time", "recv_time_kis", "recv_time_kiwoom"):
                assert found[name].equals(expected[name] + pd.Timedelta(milliseconds=3)), name
            assert found["broker"].equals(expected["broker"])
    is_kiwoom = INSTRUMENTS["kiwoom"].symbol
    values = [reader.ticks(is_kiwoom, DAY)["value_change"] for reader in readers]
    assert values[0].equals(values[1])  # which Kiwoom's form has


class Playing:
    """A replay of a home's day in a thread, for clients of KIS's form."""

    def __init__(self, home: Home, speed: float, clients: int) -> None:
        kis_port, kiwoom_port = free_ports(2)
        settings = msgspec.structs.replace(home.settings.relay, kis_port=kis_port, kiwoom_port=kiwoom_port)
        span = Span(DAY, NINE_NS, NINE_NS + 3600 * SECOND_NS)
        self.lines: queue.Queue[str] = queue.Queue()
        arguments = (home, [INSTRUMENTS["kis"]], span, speed, settings, self.lines.put)
        self._thread = threading.Thread(target=run_replay, args=arguments, kwargs={"clients": clients}, daemon=True)
        self._thread.start()
        self.url = f"ws://127.0.0.1:{kis_port}"
        self.begins = self.lines.get(timeout=60)

    def register(self, kind: str = "H0STCNT0") -> WebSocketClient:
        client = WebSocketClient(self.url)
        header = {"approval_key": KEY, "custtype": "P", "tr_type": "1", "content-type": "utf-8"}
        client.send({"header": header, "body": {"input": {"tr_id": kind, "tr_key": INSTRUMENTS["kis"].symbol}}})
        return client

    def wait(self) -> list[str]:
        """Its last lines, after its end."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        return [self.lines.get() for _ in range(self.lines.qsize())]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Playing]]:
    monkeypatch.setattr(stored, "SETTLE_S", 0.1)
    yield Playing


def is_trade(frame: bytes) -> bool:
    return frame.startswith(b"0|H0STCNT0")


def read_volume(frame: bytes) -> int:
    return int(frame.split(b"^")[13])


def read_volumes(client: WebSocketClient) -> list[int]:
    """The trades that a client has had."""
    return [read_volume(frame) for frame in client.frames if is_trade(frame)]


def test_while_one_of_two_clients_is_away_the_replay_waits_and_the_other_lacks_nothing(
    tmp_path: Path, play: Callable[..., Playing]
) -> None:
    """Both have one key. The one that is cut comes back behind what was on its way to it, and has nothing twice."""
    day = make_delivered(60)
    playing = play(store(tmp_path, day), 40.0, 2)
    stays, leaves = playing.register(), playing.register()
    had = [read_volume(leaves.await_frame(is_trade)) for _ in range(20)]
    leaves.vanish()
    returned = playing.register()
    assert [one.await_end(60) for one in (stays, returned)] == ["1000 Bye"] * 2
    lines = playing.wait()

    volumes = day["tick"]["cum_volume"][day["tick"]["line"] == FeedId.KIS].tolist()
    assert "2 clients have registered" in playing.begins
    assert had == volumes[:20]
    assert read_volumes(stays) == volumes
    rest = read_volumes(returned)
    assert rest == volumes[-len(rest) :]
    assert len(volumes) - len(rest) >= 20
    assert any(line.startswith("played ") and " 60 ticks" in line for line in lines)


def test_what_waited_for_a_client_that_was_cut_is_counted(tmp_path: Path, play: Callable[..., Playing]) -> None:
    """Nobody can know what of the frames that were sent it has read."""
    books = make_books(range(9000), symbols=1)
    books["symbol"] = INSTRUMENTS["kis"].symbol.encode()
    playing = play(store(tmp_path, {"orderbook": books}), 0.0, 2)
    stays, leaves = playing.register("H0STASP0"), playing.register("H0STASP0")
    while len(stays.frames) < stored.MAX_WAITING:
        assert stays.receive() is not None
    leaves.vanish()
    returned = playing.register("H0STASP0")
    with ThreadPoolExecutor() as readers:  # one that is not read holds up the other
        assert list(readers.map(lambda one: one.await_end(60), (stays, returned))) == ["1000 Bye"] * 2
    lines = playing.wait()

    (told,) = [line for line in lines if "waited for clients that ended" in line]
    assert int(told.split()[0]) > 0
