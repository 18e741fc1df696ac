"""Kiwoom's REST answers: the recorded and documented pages are read as the specification says."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import msgspec
import numpy as np
import pytest
from support.process_tree import SAMPLES, temporary_home

from brokers.history import HistoryError, PageRequest
from brokers.kiwoom.history import KiwoomHistory, code_of, reject_other_venues
from conf.clock import to_kst
from conf.home import Home
from conf.instrument import Instrument
from ringbuf.records import UNDEFINED

pytestmark = pytest.mark.skipif(not SAMPLES.exists(), reason="the samples are not beside the checkout")


@pytest.fixture(scope="module")
def quotes():
    """The calls, of which none is made."""
    with temporary_home("") as root:
        yield KiwoomHistory(Home(root))


def sample(name: str) -> bytes:
    """The body of a recorded answer."""
    (path,) = Path(SAMPLES / "kiwoom").glob(f"{name}*.json")
    return msgspec.json.encode(msgspec.json.decode(path.read_bytes())["body"])


def test_recorded_prints_chain_by_their_cumulative_volume(quotes: KiwoomHistory) -> None:
    """Newest first; each ends where the one before it in time ended, plus its size; the sign of the quantity is the side."""
    rows = quotes.parse_trades(sample("rest_ka10084"), date(2026, 9, 18)).rows

    assert len(rows) > 20
    assert np.array_equal(rows["cum_volume"][1:], (rows["cum_volume"] - rows["size"])[:-1])
    assert (34950, 129, -1) == (rows["price"][0], rows["size"][0], rows["side"][0])
    assert "15:59:50" == f"{to_kst(int(rows['exch_ns'][0])):%H:%M:%S}"


def test_documented_ticks_and_recorded_minutes_are_read(quotes: KiwoomHistory) -> None:
    """Ticks carry neither side nor cumulative volume; prices lose their signs."""
    ticks = quotes.parse_ticks(sample("rest_ka10079")).rows
    bars = quotes.parse_bars(sample("rest_ka10080")).rows

    assert len(ticks) > 0
    assert (ticks["cum_volume"] == UNDEFINED).all()
    assert (ticks["price"] > 0).all() and (ticks["size"] > 0).all()
    assert len(bars) > 0
    assert (bars["low"] <= bars["high"]).all() and (bars["low"] > 0).all()
    assert (bars["exch_ns"] % 60_000_000_000 == 0).all()


def test_one_empty_row_is_no_row_and_a_list_that_is_none_is_refused(quotes: KiwoomHistory) -> None:
    """An unknown code is answered with one row of empty strings; among others such a row is one that cannot be read."""
    empty = {"cur_prc": "", "trde_qty": "", "cntr_tm": ""}
    good = {"cur_prc": "100", "trde_qty": "1", "cntr_tm": "20261120090000"}

    alone = quotes.parse_ticks(msgspec.json.encode({"stk_tic_chart_qry": [empty]}))
    among_others = quotes.parse_ticks(msgspec.json.encode({"stk_tic_chart_qry": [good, empty]}))
    assert (0, 0) == tuple(map(len, alone))
    assert (1, 1) == tuple(map(len, among_others))
    with pytest.raises(HistoryError):
        quotes.parse_ticks(msgspec.json.encode({"stk_tic_chart_qry": {}}))


def test_a_code_is_written_as_kiwoom_writes_it() -> None:
    """An ETN without its Q, the venue as suffix."""
    told = [code_of(Instrument(*one)) for one in (("005930", "KRX"), ("005930", "NXT"), ("Q500001", "KRX"))]

    assert ["005930", "005930_NX", "500001"] == told


def test_prints_of_another_venue_are_refused(quotes: KiwoomHistory) -> None:
    """The recorded ones are of KRX; unified ones may name either exchange."""
    rows = msgspec.json.decode(sample("rest_ka10084"))["tdy_pred_cntr"]
    assert {"KRX"} == {row["stex_tp"] for row in rows}

    for venue, right in (("KRX", True), ("UN", True), ("NXT", False)):
        asked = PageRequest("trades", Instrument("006360", venue), date(2026, 9, 18))
        if right:
            reject_other_venues(asked, rows)
        else:
            with pytest.raises(HistoryError, match="another venue"):
                reject_other_venues(asked, rows)
    reject_other_venues(
        asked._replace(instrument=Instrument("006360", "KRX")), [*rows, None, {"stex_tp": 7}, {"stex_tp": "?"}]
    )
