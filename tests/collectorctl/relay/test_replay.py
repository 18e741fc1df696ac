"""A stored day played to clients: every received row in its order, at its pace, and what was not received is counted."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from datetime import date
from itertools import product
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from support.ring_program import free_ports
from support.us_day import DAY as US_DAY
from support.us_day import make_us_books, make_us_day, make_us_ticks, ny
from support.vendor_clients import WebSocketClient
from support.writer_data import NINE_NS, SECOND_NS, make_books, make_home, make_ticks

from brokers.kis import decode as kis_decode
from brokers.kiwoom import decode as kiwoom_decode
from brokers.subscription import Subscription
from brokers.us import decode as us_decode
from collectorctl.cli import main
from collectorctl.reader import stored
from collectorctl.reader.messages import FEED_NAMES
from collectorctl.relay.replay import run_replay
from conf.clock import to_kst
from conf.home import Home
from conf.instrument import Instrument
from conf.market import US
from ringbuf.records import ORDERBOOK, TICK, FeedId
from writer.publish.records import publish_records

DAY = to_kst(NINE_NS).date()
SYMBOL = Instrument("005930", "KRX")
BOOKS, TICKS = 200, 60
KEY = "any key"


def make_stored_books() -> np.ndarray:
    """One each two seconds, from both feeds."""
    books = make_books(range(1, BOOKS + 1), symbols=1)
    books["symbol"] = b"005930"
    books["recv_ns"] = NINE_NS + np.arange(BOOKS) * 2 * SECOND_NS + 7
    books["exch_ns"] = books["recv_ns"] // SECOND_NS * SECOND_NS
    books["line"] = np.where(np.arange(BOOKS) % 2, FeedId.KIS, FeedId.KIWOOM)
    books["seq"] = np.arange(BOOKS) + 1
    books["expected_price_e4"], books["expected_size"] = 0, 0
    books["mid_price_e4"], books["mid_size"] = 0, 0
    books["ask_price_e4"][:, 9], books["ask_size"][:, 9] = 0, 0
    books["total_ask_size"] = books["ask_size"].sum(axis=1)
    return books


def make_stored_ticks() -> np.ndarray:
    """One each second; ten shares are missing before the last."""
    ticks = make_ticks(range(1, TICKS + 1))
    ticks["recv_ns"] = NINE_NS + np.arange(TICKS) * SECOND_NS + 9
    ticks["exch_ns"] = ticks["recv_ns"] // SECOND_NS * SECOND_NS
    ticks["cum_volume"][-1] += 10
    ticks["ask_price_1_e4"], ticks["bid_price_1_e4"] = 0, 699_000_000
    ticks["seq"] = np.arange(TICKS) + 1
    return ticks


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = make_home(tmp_path_factory.mktemp("home"))
    ticks = make_stored_ticks()
    for dataset, records, lineage in (
        ("kr.orderbook", make_stored_books(), "books"),
        ("kr.tick", ticks[TICKS // 2 :], "ticks"),
        ("kr.tick", ticks[: TICKS // 2], "late ticks"),
        ("kr.tick", make_ticks([65, 66], FeedId.GAPFILL), "fetched"),
    ):
        directory = made.data / dataset.replace(".", "/")
        publish_records(directory, dataset, records, lineage, made.settings.writer, SECOND_NS)
    return made


@pytest.mark.parametrize(("stream", "written"), [("orderbook", make_stored_books()), ("tick", make_stored_ticks())])
def test_stored_rows_are_the_records_they_were_in_the_order_of_receipt(
    home: Home, stream: str, written: np.ndarray
) -> None:
    rows = stored.StoredRows(home, [SYMBOL], DAY)
    windows = [(NINE_NS + at * SECOND_NS, NINE_NS + (at + 100) * SECOND_NS) for at in range(-100, 600, 100)]
    read = np.concatenate([rows.read(stream, *window) for window in windows])

    names = [name for name in written.dtype.names or () if name not in ("mono_ns", "extra", "_pad", "line")]
    for name in names:
        assert np.array_equal(read[name], written[name]), name
    assert [FEED_NAMES[line] for line in read["line"]] == [FEED_NAMES[line] for line in written["line"]]
    assert len(stored.StoredRows(home, [Instrument("005930", "NXT")], DAY).read(stream, 0, 2**62)) == 0


def test_books_and_ticks_are_merged_by_receipt_and_a_book_goes_first() -> None:
    books, ticks = np.zeros(4, ORDERBOOK), np.zeros(3, TICK)
    books["recv_ns"], ticks["recv_ns"] = [1, 2, 5, 9], [2, 3, 4]
    runs = [
        (stream, found["recv_ns"].tolist())
        for stream, found in stored.merge_runs({"orderbook": books, "tick": ticks}, 2)
    ]

    assert runs == [("orderbook", [1, 2]), ("tick", [2, 3]), ("tick", [4]), ("orderbook", [5, 9])]
    assert list(stored.merge_runs({"orderbook": books[:0], "tick": ticks[:0]}, 2)) == []


def register_kis(url: str, *kinds: str, keys: Sequence[str] = ("005930",)) -> WebSocketClient:
    client = WebSocketClient(url)
    for kind, key in product(kinds, keys):
        header = {"approval_key": KEY, "custtype": "P", "tr_type": "1", "content-type": "utf-8"}
        client.send({"header": header, "body": {"input": {"tr_id": kind, "tr_key": key}}})
    return client


def register_kiwoom(url: str) -> WebSocketClient:
    client = WebSocketClient(url)
    client.send({"trnm": "LOGIN", "token": KEY})
    client.await_frame(lambda frame: b"LOGIN" in frame)
    client.send({"trnm": "REG", "grp_no": "1", "refresh": "1", "data": [{"item": ["005930"], "type": ["0B", "0D"]}]})
    return client


def test_a_day_is_played_as_fast_as_clients_take_it_in_both_forms(home: Home) -> None:
    kis_port, kiwoom_port = free_ports(2)
    command = [Path(sys.executable).parent / "collectorctl", "--home", home.root, "replay", "--date", str(DAY)]
    command += ["--symbols", "005930", "--speed", "max", "--kis-port", str(kis_port), "--kiwoom-port", str(kiwoom_port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "begins when" in process.stdout.readline()
            kiwoom = register_kiwoom(f"ws://127.0.0.1:{kiwoom_port}/api/dostk/websocket")
            kis = register_kis(f"ws://127.0.0.1:{kis_port}", "H0STCNT0", "H0STASP0")
            assert [client.await_end(60) for client in (kis, kiwoom)] == ["1000 Bye"] * 2
            for client in (kis, kiwoom):
                client.ws.shutdown()
            told = process.stdout.read()
            assert process.wait(60) == 0
        finally:
            process.kill()

    books, ticks = make_stored_books(), make_stored_ticks()
    subscriptions = [Subscription(SYMBOL, "tick"), Subscription(SYMBOL, "orderbook")]
    for client, decode, by_code in (
        (kis, kis_decode.decode, kis_decode.subscriptions_by_code(subscriptions)),
        (kiwoom, kiwoom_decode.decode, kiwoom_decode.subscriptions_by_code(subscriptions)),
    ):
        found = [decode(frame, by_code, NINE_NS) for frame in client.frames]
        assert np.concatenate([one.ticks for one in found])["cum_volume"].tolist() == ticks["cum_volume"].tolist()
        read = np.concatenate([one.books for one in found])
        for name in ("cum_volume", "exch_ns", "ask_price_e4", "bid_size", "total_ask_size"):
            assert np.array_equal(read[name], books[name]), name
    assert f"played {BOOKS} books and {TICKS} ticks" in told
    assert "10 shares were traded" in told
    assert "2 ticks were fetched" in told


def test_a_span_keeps_its_pace_and_waits_while_nobody_has_registered_anything(home: Home) -> None:
    kis_port, kiwoom_port = free_ports(2)
    settings = msgspec.structs.replace(home.settings.relay, kis_port=kis_port, kiwoom_port=kiwoom_port)
    span = stored.Span(DAY, NINE_NS + 10 * SECOND_NS, NINE_NS + 60 * SECOND_NS)
    told: queue.Queue[str] = queue.Queue()
    played = threading.Thread(target=run_replay, args=(home, [SYMBOL], span, 20.0, settings, told.put))
    played.start()
    assert "begins when" in told.get(timeout=60)
    first = register_kis(f"ws://127.0.0.1:{kis_port}", "H0STCNT0")
    begin_s = time.monotonic()
    volumes = [int(first.await_frame(lambda frame: frame.startswith(b"0|")).split(b"^")[13]) for _ in range(21)]
    elapsed_s = time.monotonic() - begin_s
    first.ws.close()
    time.sleep(1.0)  # twenty seconds of the day, if it went on
    begin_s = time.monotonic()
    second = register_kis(f"ws://127.0.0.1:{kis_port}", "H0STCNT0")
    assert second.await_end(60) == "1000 Bye"
    resumed_s = time.monotonic() - begin_s
    second.ws.shutdown()
    played.join(60)

    rest = [int(frame.split(b"^")[13]) for frame in second.frames if frame.startswith(b"0|")]
    assert volumes == list(range(11, 32))
    assert elapsed_s > 20 / 20
    assert rest[0] <= volumes[-1] + 10
    assert resumed_s > (len(rest) - 3) / 20
    assert rest == [*range(rest[0], TICKS), TICKS + 10]


def test_a_us_day_is_played_in_the_form_of_kis(tmp_path: Path) -> None:
    home, (kis_port, kiwoom_port) = make_us_day(tmp_path / "home"), free_ports(2)
    settings = msgspec.structs.replace(home.settings.relay, kis_port=kis_port, kiwoom_port=kiwoom_port)
    instruments = home.settings.instruments("us")
    span = stored.Span(date.fromisoformat(US_DAY), ny(US_DAY), ny("2026-11-21"))
    told: queue.Queue[str] = queue.Queue()
    played = threading.Thread(target=run_replay, args=(home, instruments, span, 0.0, settings, told.put, US))
    played.start()
    assert "begins when" in told.get(timeout=60)
    kis = register_kis(f"ws://127.0.0.1:{kis_port}", "HDFSCNT0", "HDFSASP0", keys=("DNASNVDA", "RBAQNVDA", "DNYSBRK/B"))
    assert kis.await_end(60) == "1000 Bye"
    kis.ws.shutdown()
    played.join(60)

    by_code = us_decode.subscriptions_by_code(
        Subscription(instrument, stream) for instrument in instruments for stream in ("tick", "orderbook")
    )
    found = [us_decode.decode(frame, by_code, NINE_NS) for frame in kis.frames if frame.startswith(b"0|")]
    ticks, books = make_us_ticks()[:-1], make_us_books()  # the last was received on the next day
    read_ticks, read_books = (np.concatenate(each) for each in ([f.ticks for f in found], [f.books for f in found]))
    for read, written, names in (
        (read_ticks, ticks, ("symbol", "venue", "exch_ns", "price_e4", "size", "cum_volume", "cum_value")),
        (read_books, books, ("symbol", "venue", "exch_ns", "ask_price_e4", "bid_size", "total_ask_size")),
    ):
        assert [one for one in names if not np.array_equal(read[one], written[one])] == []
    assert (
        f"played {len(books)} books and {len(ticks)} ticks, received {US_DAY} 00:00 to 2026-11-21 00:00 EST"
        in told.get()
    )
    assert "5 shares were traded" in told.get()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--date", "2026-11-18"], "no books and ticks are stored"),
        (["--date", str(DAY), "--speed", "0"], "write 0.1 to 1000, or max"),
        (["--date", str(DAY), "--speed", "fast"], "write 0.1 to 1000, or max"),
        (["--date", str(DAY), "--symbols", "NAS.AAPL"], "not of the market kr"),
        (["--date", str(DAY), "--market", "us"], "no books and ticks are stored"),
        (["--date", str(DAY), "--from", "10:00", "--to", "09:00"], "--to is not after --from"),
        (["--date", str(DAY), "--from", "9 o'clock"], "write HH:MM"),
    ],
)
def test_what_cannot_be_played_is_refused_in_words(home: Home, options: list[str], words: str) -> None:
    refused = CliRunner().invoke(main, ["--home", str(home.root), "replay", *options])

    assert refused.exit_code != 0
    assert words in refused.output
