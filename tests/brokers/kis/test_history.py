"""KIS's prints of today: asked as the specification says, read as they are, refused when they are none."""

from __future__ import annotations

from datetime import date

import msgspec
import numpy as np
import pytest
from support.process_tree import temporary_home

from brokers.errors import RateLimited, RequestRejected, RestError, ServiceUnavailable
from brokers.history import HistoryError, PageRequest
from brokers.kis.history import KisHistory
from brokers.simulator import ground_truth
from collectorctl.demo.environment import SimulatorProcess, set_addresses
from conf.home import Home
from conf.instrument import Instrument
from ringbuf.records import UNDEFINED

DAY = date(2026, 11, 20)
SAMSUNG = Instrument("005930", "KRX")
ROW = {"stck_cntg_hour": "100003", "stck_prpr": "70100", "askp": "70200", "bidp": "", "acml_vol": "90", "cnqn": "7"}


@pytest.fixture(scope="module")
def evening():
    """A simulator with a day of trades behind it, and the calls on it."""
    settings = '[universe]\nkr = ["005930"]\n[clock]\nstart = "2026-11-20T20:30:00+09:00"\n'
    with temporary_home(settings) as root, SimulatorProcess(root, root / "truth", "--history", "200") as simulator:
        set_addresses(root, simulator.addresses)
        yield KisHistory(Home(root)), simulator, ground_truth.load(root / "truth").trades


@pytest.fixture(scope="module")
def quotes():
    """The calls, of which none is made."""
    with temporary_home("") as root:
        yield KisHistory(Home(root))


def asked(until: str = "235959") -> PageRequest:
    """A page of today."""
    return PageRequest("trades", SAMSUNG, DAY, until=until)


def test_prints_are_the_markets_trades(evening) -> None:
    """Thirty at or before a second, newest first, everything but the side."""
    quotes, _, trades = evening

    rows = quotes.parse_trades(quotes.fetch_page(asked()).content, DAY).rows
    earlier = quotes.parse_trades(quotes.fetch_page(asked("100000")).content, DAY).rows

    mine = trades[:-31:-1]
    for name in ("price", "size", "cum_volume", "ask_price_1", "bid_price_1"):
        assert np.array_equal(mine[name], rows[name]), name
    assert np.array_equal(mine["exch_s"] * 10**9, rows["exch_ns"])
    assert {0} == set(rows["side"].tolist())
    assert 0 < len(earlier) <= 30 and earlier["cum_volume"].max() < rows["cum_volume"].min()


def test_a_token_that_ended_is_renewed_and_the_rate_is_named(evening) -> None:
    """EGW00123 costs one more call; EGW00201 and a gateway out of order are told apart."""
    quotes, simulator, _ = evening
    simulator.send_command("kis expire")
    assert quotes.fetch_page(asked()).content
    simulator.send_command("kis limit 1")
    with pytest.raises(RateLimited, match="EGW00201"):
        quotes.fetch_page(asked())
    simulator.send_command("kis error 2")
    for _ in range(2):
        with pytest.raises(ServiceUnavailable, match=r"EGW00002|502"):
            quotes.fetch_page(asked())
    assert quotes.fetch_page(asked()).content


def test_a_question_that_makes_no_sense_is_this_questions_fault(evening) -> None:
    """And one about what not available from KIS: is none."""
    quotes, _, _ = evening

    for wrong in (asked("9"), asked()._replace(kind="days")):
        with pytest.raises(HistoryError):
            quotes.fetch_page(wrong)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, {"rt_cd": "0", "msg_cd": "MCA00000"}, HistoryError),
        (200, {"rt_cd": "0", "output2": {}}, HistoryError),
        (200, {"rt_cd": "7", "msg_cd": "KIER2620", "msg1": "조회할 자료가 없습니다"}, HistoryError),
        (200, {"rt_cd": "1", "msg_cd": "EGW00206"}, RequestRejected),
        (500, {"rt_cd": "1", "msg_cd": "EGW00121"}, RequestRejected),
        (500, {"rt_cd": "1", "msg_cd": "EGW00301"}, ServiceUnavailable),
        (500, {"rt_cd": "1", "msg_cd": "EGW00201"}, RateLimited),
        (503, {"x": 1}, ServiceUnavailable),
    ],
)
def test_an_answer_without_rows_is_an_error_of_its_kind(
    make_vendor, status: int, body: dict, error: type[RestError]
) -> None:
    """Whose keys are refused waits; whose question is refused asks another."""
    vendor = make_vendor("kis")
    vendor.rest = lambda path, given: (200, {"access_token": "t" * 40, "expires_in": 86400})
    vendor.quotation = lambda path, query: (status, body)
    with (
        temporary_home(f'[kis]\nrest_url = "http://127.0.0.1:{vendor.port}"\n') as root,
        pytest.raises(error) as caught,
    ):
        KisHistory(Home(root)).fetch_page(asked())

    assert type(caught.value) is error
    assert "t" * 40 not in str(caught.value)
    assert (caught.value.retry_after_s > 0) == (error in (RequestRejected, RateLimited))


def content(*rows: object) -> bytes:
    """An answer with these rows."""
    return msgspec.json.encode({"output2": rows})


def test_a_row_is_read_field_by_field(quotes: KisHistory) -> None:
    """A quote may be missing, and the price has two names (docs/wire/kis.md 5)."""
    rows = quotes.parse_trades(content(ROW, {**ROW, "stck_pbpr": "5"} | {"cnqn": " 8 "}), DAY).rows

    assert [(70100, 7, 90, 70200, UNDEFINED)] == rows[["price", "size", "cum_volume", "ask_price_1", "bid_price_1"]][
        :1
    ].tolist()
    other = {name: text for name, text in ROW.items() if name != "stck_prpr"} | {"stck_pbpr": "123"}
    assert 123 == quotes.parse_trades(content(other), DAY).rows["price"][0]
    assert ([], []) == (quotes.parse_trades(content(), DAY).rows.tolist(), quotes.parse_trades(content(), DAY).rejects)
    unreadable_quote = quotes.parse_trades(content(ROW | {"askp": "many"}), DAY)
    assert ([UNDEFINED], []) == (unreadable_quote.rows["ask_price_1"].tolist(), unreadable_quote.rejects)


def test_an_answer_without_a_list_is_refused(quotes: KisHistory) -> None:
    """Its rows are judged one by one, the list is not."""
    for wrong in ({}, {"output2": None}, {"output2": {"0": ROW}}):
        with pytest.raises(HistoryError):
            quotes.parse_trades(msgspec.json.encode(wrong), DAY)
