"""Rows of REST lists: one that cannot be read costs no other row, and is counted, on every reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.process_tree import SAMPLES, temporary_home

from brokers.history import BAR_ROW, PageRows, keep_finished_bars
from brokers.kis.history import KisHistory
from brokers.kiwoom.history import KiwoomHistory
from brokers.us.history import UsHistory
from conf.clock import KST, MINUTE_NS, SECOND_NS, parse_instant
from conf.home import Home

DAY = date(2026, 11, 20)
RECORDED_BARS = SAMPLES / "2026-11" / "kis_rest_inquire-time-itemchartprice_005930_20260527.json"
KIS_ROW = {
    "stck_cntg_hour": "100003",
    "stck_prpr": "70100",
    "askp": "70200",
    "bidp": "70100",
    "acml_vol": "90",
    "cnqn": "7",
}
TICK_ROW = {"cur_prc": "70100", "trde_qty": "7", "cntr_tm": "20261120100003"}
TRADE_ROW = {"tm": "100003", "cur_prc": "+70100", "cntr_trde_qty": "-7", "acc_trde_qty": "90", "stex_tp": "KRX"}
TRADE_ROW |= {"pri_sel_bid_unit": "+70200", "pri_buy_bid_unit": "+70100"}
PRICES = {"open_pric": "-70100", "high_pric": "70200", "low_pric": "70000"}
BAR = {"cur_prc": "-70100", "trde_qty": "9", "cntr_tm": "20261120100000", "acc_trde_qty": "90", **PRICES}
DAY_TOTAL = {"dt": "20261120", "trde_qty": "900", "trde_prica": "63"}
US_BAR = {"xymd": "20261119", "xhms": "100000", "kymd": "20261120", "khms": "000000", "evol": "9"}
US_BAR |= {"open": "1.5", "high": "2.0", "low": "1.0", "last": "1.25"}
READERS = {
    "kis trades": ("output2", KIS_ROW),
    "kiwoom ticks": ("stk_tic_chart_qry", TICK_ROW),
    "kiwoom trades": ("tdy_pred_cntr", TRADE_ROW),
    "kiwoom bars": ("stk_min_pole_chart_qry", BAR),
    "kiwoom days": ("stk_dt_pole_chart_qry", DAY_TOTAL),
    "us bars": ("output2", US_BAR),
}
ODD = st.one_of(
    st.sampled_from(
        ["", " ", "888888", "999999", "20261120888888", "-", "+", "--", "x", "1.5.1", "9" * 30, "-0", "0", "٣"]
    ),
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    st.just([]) | st.just({}),
)


class Reader(NamedTuple):
    """One reader of lists: its function, the list's name, and a row that can be read."""

    parse: Callable[[bytes], PageRows]
    name: str
    row: dict[str, str]

    def read(self, *rows: object) -> PageRows:
        """A page of these rows."""
        return self.parse(msgspec.json.encode({self.name: rows}))


@pytest.fixture(scope="module", params=READERS)
def reader(request: pytest.FixtureRequest) -> Iterator[Reader]:
    """Each reader in turn."""
    broker, kind = request.param.split()
    with temporary_home("") as root:
        history: Any = {"kis": KisHistory, "kiwoom": KiwoomHistory, "us": UsHistory}[broker](Home(root))
        parse = getattr(history, f"parse_{kind}")
        yield Reader((lambda content: parse(content, DAY)) if kind == "trades" else parse, *READERS[request.param])


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_row_that_cannot_be_read_costs_no_other_row(reader: Reader, data: st.DataObject) -> None:
    """Any field is anything, or the row is no object: it is read or counted, and its neighbours are what they are without it."""
    changes = st.dictionaries(st.sampled_from(sorted(reader.row)), ODD, min_size=1)
    row = data.draw(changes.map(lambda wrong: reader.row | wrong) | ODD | st.just(dict.fromkeys(reader.row, "")))
    place = data.draw(st.integers(0, 2))
    others = [reader.row] * 2

    page = reader.read(*others[:place], row, *others[place:])

    whole = reader.read(*others)
    assert whole.rejects == [] and len(whole.rows) == 2
    assert len(page.rows) + len(page.rejects) == 3
    assert np.array_equal(page.rows if page.rejects else np.delete(page.rows, place), whole.rows)


@pytest.mark.parametrize("wrong", ["", None, 7, "888888", "999999", "x", "9" * 30, [], ...], ids=str)
def test_a_row_whose_needed_field_is_spoiled_is_rejected_with_its_reason(reader: Reader, wrong: object) -> None:
    """Its time: no closing code, no missing one and no number is taken for a time."""
    (time_field,) = {"stck_cntg_hour", "cntr_tm", "tm", "dt", "xhms"} & set(reader.row)
    row = (
        {name: text for name, text in reader.row.items() if name != time_field}
        if wrong is ...
        else reader.row | {time_field: wrong}
    )

    page = reader.read(reader.row, row)

    assert (1, 1) == (len(page.rows), len(page.rejects))
    assert page.rejects[0].isprintable() and len(page.rejects[0]) <= 120


def test_a_row_without_price_or_quantity_is_no_trade_of_a_list(reader: Reader) -> None:
    """A filler has a time and nothing else."""
    if (
        {"acml_vol", "cntr_trde_qty", "trde_qty"} & set(reader.row)
        and "open_pric" not in reader.row
        and "dt" not in reader.row
    ):
        size = next(name for name in ("cnqn", "cntr_trde_qty", "trde_qty") if name in reader.row)
        assert (1, 1) == tuple(map(len, reader.read(reader.row, reader.row | {size: "0"})))


def test_a_minute_that_is_not_over_or_without_a_trade_is_no_bar() -> None:
    """Neither the future, nor the one at hand, nor an auction's; the last one that is over is a bar."""
    bars = np.zeros(5, BAR_ROW)
    bars["exch_ns"] = np.arange(5)[::-1] * MINUTE_NS
    bars["volume"] = [0, 5, 5, 0, 5]

    kept = keep_finished_bars(bars, 3 * MINUTE_NS + 10 * SECOND_NS)

    assert [2 * MINUTE_NS, 0] == kept["exch_ns"].tolist()
    assert [0] == keep_finished_bars(bars, 3 * MINUTE_NS + 9 * SECOND_NS)["exch_ns"].tolist()


@pytest.mark.skipif(not RECORDED_BARS.exists(), reason=f"recorded answers are not beside the checkout: {RECORDED_BARS}")
def test_the_fillers_of_a_recorded_answer_are_no_bars() -> None:
    """Asked at 15:08:22 for 15:30: of 30 minutes 22 are fillers and one is unfinished."""
    found = msgspec.json.decode(RECORDED_BARS.read_bytes())["output2"]
    bars = np.zeros(len(found), BAR_ROW)
    bars["exch_ns"] = [parse_instant(KST, row["stck_bsop_date"], row["stck_cntg_hour"], 0) for row in found]
    bars["volume"] = [int(row["cntg_vol"]) for row in found]

    kept = keep_finished_bars(bars, parse_instant(KST, "20260527", "150822", 0))

    assert found[-len(kept)]["stck_cntg_hour"] <= "150700"
    assert len(kept) and all(row["stck_cntg_hour"] > "150700" for row in found[: -len(kept)])
