"""KIS's prints of today: asked as the specification says, read as they are, refused when they are none."""

from __future__ import annotations

from datetime import date

import msgspec
import numpy as np
import pytest
from support.process_tree import a_home

from brokers.errors import RestError, RestLimited, RestRefused, RestUnreachable
from brokers.history import Asked, QuotesError
from brokers.kis.history import RestQuotes
from brokers.simulator import ground_truth
from collectorctl.demo.environment import Simulator, connect_home
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
    with a_home(settings) as root, Simulator(root, root / "truth", "--history", "200") as simulator:
        connect_home(root, simulator.addresses)
        yield RestQuotes(Home(root)), simulator, ground_truth.load(root / "truth").trades


@pytest.fixture(scope="module")
def quotes():
    """The calls, of which none is made."""
    with a_home("") as root:
        yield RestQuotes(Home(root))


def asked(until: str = "235959") -> Asked:
    """A page of today."""
    return Asked("prints", SAMSUNG, DAY, until=until)


def test_prints_are_the_markets_trades(evening) -> None:
    """Thirty at or before a second, newest first, everything but the side."""
    quotes, _, trades = evening

    rows = quotes.prints(quotes.ask(asked()).content, DAY)
    earlier = quotes.prints(quotes.ask(asked("100000")).content, DAY)

    mine = trades[:-31:-1]
    for name in ("price", "size", "cum_volume", "ask_price_1", "bid_price_1"):
        assert np.array_equal(mine[name], rows[name]), name
    assert np.array_equal(mine["exch_s"] * 10**9, rows["exch_ns"])
    assert {0} == set(rows["side"].tolist())
    assert 0 < len(earlier) <= 30 and earlier["cum_volume"].max() < rows["cum_volume"].min()


def test_a_token_that_ended_is_renewed_and_the_rate_is_named(evening) -> None:
    """EGW00123 costs one more call; EGW00201 and a gateway out of order are told apart."""
    quotes, simulator, _ = evening
    simulator.tell("kis expire")
    assert quotes.ask(asked()).content
    simulator.tell("kis limit 1")
    with pytest.raises(RestLimited, match="EGW00201"):
        quotes.ask(asked())
    simulator.tell("kis error 2")
    for _ in range(2):
        with pytest.raises(RestUnreachable, match=r"EGW00002|502"):
            quotes.ask(asked())
    assert quotes.ask(asked()).content


def test_a_question_that_makes_no_sense_is_this_questions_fault(evening) -> None:
    """And one about what KIS is not asked for is none."""
    quotes, _, _ = evening

    for wrong in (asked("9"), asked()._replace(what="days")):
        with pytest.raises(QuotesError):
            quotes.ask(wrong)


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, {"rt_cd": "0", "msg_cd": "MCA00000"}, QuotesError),
        (200, {"rt_cd": "0", "output2": {}}, QuotesError),
        (200, {"rt_cd": "7", "msg_cd": "KIER2620", "msg1": "조회할 자료가 없습니다"}, QuotesError),
        (200, {"rt_cd": "1", "msg_cd": "EGW00206"}, RestRefused),
        (500, {"rt_cd": "1", "msg_cd": "EGW00121"}, RestRefused),
        (500, {"rt_cd": "1", "msg_cd": "EGW00301"}, RestUnreachable),
        (500, {"rt_cd": "1", "msg_cd": "EGW00201"}, RestLimited),
        (503, {"x": 1}, RestUnreachable),
    ],
)
def test_an_answer_without_rows_is_an_error_of_its_kind(
    make_vendor, status: int, body: dict, error: type[RestError]
) -> None:
    """Whose keys are refused waits; whose question is refused asks another."""
    vendor = make_vendor("kis")
    vendor.rest = lambda path, given: (200, {"access_token": "t" * 40, "expires_in": 86400})
    vendor.quotation = lambda path, query: (status, body)
    with a_home(f'[kis]\nrest_url = "http://127.0.0.1:{vendor.port}"\n') as root, pytest.raises(error) as caught:
        RestQuotes(Home(root)).ask(asked())

    assert type(caught.value) is error
    assert "t" * 40 not in str(caught.value)
    assert (caught.value.wait_s > 0) == (error in (RestRefused, RestLimited))


def content(*rows: object) -> bytes:
    """An answer with these rows."""
    return msgspec.json.encode({"output2": rows})


def test_a_row_is_read_field_by_field(quotes: RestQuotes) -> None:
    """A quote may be missing, and the price has two names (spec kis 5)."""
    rows = quotes.prints(content(ROW, {**ROW, "stck_pbpr": "5"} | {"cnqn": " 8 "}), DAY)

    assert [(70100, 7, 90, 70200, UNDEFINED)] == rows[["price", "size", "cum_volume", "ask_price_1", "bid_price_1"]][
        :1
    ].tolist()
    other = {name: text for name, text in ROW.items() if name != "stck_prpr"} | {"stck_pbpr": "123"}
    assert 123 == quotes.prints(content(other), DAY)["price"][0]
    assert 0 == len(quotes.prints(content(), DAY))


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            {name: value}
            for name in ("stck_prpr", "acml_vol", "cnqn")
            for value in ("", "x", "-7", "1.5", None, 7, "9" * 30)
        ),
        *({"stck_cntg_hour": value} for value in ("", "250000", "1000", None)),
        {"askp": "many"},
    ],
)
def test_what_is_no_trade_is_refused(quotes: RestQuotes, wrong: dict) -> None:
    """A page of another form must not become trades."""
    with pytest.raises(QuotesError):
        quotes.prints(content(ROW, ROW | wrong), DAY)
    with pytest.raises(QuotesError):
        quotes.prints(content("no row"), DAY)
