"""Kiwoom's REST answers: the recorded and documented pages are read as the specification says."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import msgspec
import numpy as np
import pytest
from support.process_tree import SAMPLES, a_home

from brokers.history import Asked, QuotesError
from brokers.kiwoom.history import RestQuotes, code_of, refuse_other_venues
from conf.clock import korean
from conf.home import Home
from conf.instrument import Instrument
from ringbuf.records import UNDEFINED

pytestmark = pytest.mark.skipif(not SAMPLES.exists(), reason="the samples are not beside the checkout")


@pytest.fixture(scope="module")
def quotes():
    """The calls, of which none is made."""
    with a_home("") as root:
        yield RestQuotes(Home(root))


def sample(name: str) -> bytes:
    """The body of a recorded answer."""
    (path,) = Path(SAMPLES / "kiwoom").glob(f"{name}*.json")
    return msgspec.json.encode(msgspec.json.decode(path.read_bytes())["body"])


def test_recorded_prints_chain_by_their_cumulative_volume(quotes: RestQuotes) -> None:
    """Newest first; each ends where the one before it in time ended, plus its size; the sign of the quantity is the side."""
    rows = quotes.prints(sample("rest_ka10084"), date(2026, 9, 18))

    assert len(rows) > 20
    assert np.array_equal(rows["cum_volume"][1:], (rows["cum_volume"] - rows["size"])[:-1])
    assert (34950, 129, -1) == (rows["price"][0], rows["size"][0], rows["side"][0])
    assert "15:59:50" == f"{korean(int(rows['exch_ns'][0])):%H:%M:%S}"


def test_documented_ticks_and_recorded_minutes_are_read(quotes: RestQuotes) -> None:
    """Ticks carry neither side nor cumulative volume; prices lose their signs."""
    ticks = quotes.ticks(sample("rest_ka10079"))
    bars = quotes.bars(sample("rest_ka10080"))

    assert len(ticks) > 0
    assert (ticks["cum_volume"] == UNDEFINED).all()
    assert (ticks["price"] > 0).all() and (ticks["size"] > 0).all()
    assert len(bars) > 0
    assert (bars["low"] <= bars["high"]).all() and (bars["low"] > 0).all()
    assert (bars["exch_ns"] % 60_000_000_000 == 0).all()


def test_one_empty_row_is_no_row_and_what_is_no_number_is_refused(quotes: RestQuotes) -> None:
    """An unknown code is answered with one row of empty strings; a page of another form must not become trades."""
    empty = {"cur_prc": "", "trde_qty": "", "cntr_tm": ""}

    assert 0 == len(quotes.ticks(msgspec.json.encode({"stk_tic_chart_qry": [empty]})))
    for wrong in ({"trde_qty": "x"}, {"cntr_tm": "20261120990000"}, {"cntr_tm": "20261320090000"}, {"cur_prc": ""}):
        row = {"cur_prc": "100", "trde_qty": "1", "cntr_tm": "20261120090000"} | wrong
        with pytest.raises(QuotesError):
            quotes.ticks(msgspec.json.encode({"stk_tic_chart_qry": [row]}))


def test_a_code_is_written_as_kiwoom_writes_it() -> None:
    """An ETN without its Q, the venue as suffix."""
    told = [code_of(Instrument(*one)) for one in (("005930", "KRX"), ("005930", "NXT"), ("Q500001", "KRX"))]

    assert ["005930", "005930_NX", "500001"] == told


def test_prints_of_another_venue_are_refused(quotes: RestQuotes) -> None:
    """The recorded ones are of KRX; unified ones may name either exchange."""
    rows = msgspec.json.decode(sample("rest_ka10084"))["tdy_pred_cntr"]
    assert {"KRX"} == {row["stex_tp"] for row in rows}

    for venue, right in (("KRX", True), ("UN", True), ("NXT", False)):
        asked = Asked("prints", Instrument("006360", venue), date(2026, 9, 18))
        if right:
            refuse_other_venues(asked, rows)
        else:
            with pytest.raises(QuotesError, match="another venue"):
                refuse_other_venues(asked, rows)
