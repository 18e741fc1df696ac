"""Which rows fill a gap: those that happened, and no others."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.history import TRADE_ROW
from brokers.kis.history import KisHistory
from collectorctl.gapfill.queue import FillableGap
from collectorctl.gapfill.verify import verify
from conf.instrument import Instrument

RECORDED = Path(__file__).parents[4] / (
    "shared/specs/samples/2026-11/kis_rest_inquire-time-itemconclusion_005930_20260527.json"
)
SAMSUNG = Instrument("005930", "KRX")
NINE_NS = 1_795_132_800_000_000_000
SECOND_NS = 1_000_000_000


def a_day(sizes: list[int], prices: list[int], seconds: list[int]) -> np.ndarray:
    """PRINTS in true order; `seconds` between them."""
    day = np.zeros(len(sizes), TRADE_ROW)
    day["size"], day["price"] = sizes, prices
    day["cum_volume"] = np.cumsum(sizes)
    day["exch_ns"] = NINE_NS + np.cumsum(seconds) * SECOND_NS
    return day


def missing(day: np.ndarray, begin: int, end: int, told: bool = True) -> FillableGap:
    """The gap that begin to end (exclusive) leave; with what ticks around it tell."""
    mine = day[begin:end]
    return FillableGap(
        SAMSUNG,
        "2026-11-20",
        low=int(mine["cum_volume"][0] - mine["size"][0]),
        high=int(mine["cum_volume"][-1]),
        value=int((mine["size"] * mine["price"]).sum()) if told else None,
        trades=len(mine) if told else None,
        begin_ns=int(day["exch_ns"][begin - 1]) if begin else 0,
        end_ns=int(day["exch_ns"][min(end, len(day) - 1)]),
    )


trades = st.lists(st.tuples(st.integers(1, 9), st.integers(100, 103), st.integers(0, 2)), min_size=6, max_size=40)


@given(trades, st.data())
def test_rows_as_they_happened_fill_every_gap_whatever_their_order(found: list, data: st.DataObject) -> None:
    """Copies, rows beyond the gaps and equal trades in one second included."""
    day = a_day(*map(list, zip(*found, strict=True)))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(day) - 1), min_size=2, max_size=6)))
    spans = list(zip(cuts[::2], cuts[1::2], strict=False))
    gaps = [missing(day, *span, told=data.draw(st.booleans())) for span in spans]
    rows = np.concatenate([day, data.draw(st.sampled_from([day[:0], day[:5], day]))])
    rows = rows[data.draw(st.permutations(range(len(rows))))]

    proof = verify(gaps, rows)

    assert ({}, gaps) == (proof.mismatches, list(proof.fills))
    for gap, (begin, end) in zip(gaps, spans, strict=True):
        assert np.array_equal(proof.fills[gap], day[begin:end])


@given(trades, st.data())
def test_a_gap_is_filled_by_nothing_less_and_nothing_else(found: list, data: st.DataObject) -> None:
    """One row dropped, priced otherwise, moved in time, cut in two, or two merged: that gap stays open, the other is filled."""
    day = a_day(*map(list, zip(*found, strict=True)))
    gap, other = missing(day, 1, 3), missing(day, 4, 5)
    rows = day.copy()
    at = data.draw(st.sampled_from([1, 2]))
    wrong = data.draw(st.sampled_from(["dropped", "price", "early", "late", "cut", "merged", "empty"]))
    if wrong == "dropped":
        rows = np.delete(rows, at)
    elif wrong == "price":
        rows["price"][at] += 1
    elif wrong == "early":
        rows["exch_ns"][at] = day["exch_ns"][0] - SECOND_NS
    elif wrong == "late":
        rows["exch_ns"][at] = day["exch_ns"][3] + SECOND_NS
    elif wrong == "cut":
        rows = np.insert(rows, at, rows[at])
        rows["size"][at : at + 2] = [1, rows["size"][at] - 1]
        rows["cum_volume"][at] = rows["cum_volume"][at + 1] - rows["size"][at + 1]
    elif wrong == "merged":
        rows["size"][2] += rows["size"][1]
        rows = np.delete(rows, 1)
    else:
        rows = rows[3:]

    proof = verify([gap, other], rows)

    assert gap not in proof.partial_fills or wrong == "dropped"
    # a row of no shares says that something is wrong with the whole page
    assert [] == [one for one in proof.fills if one != other]
    assert proof.fills.keys() == {other} or (rows["size"] <= 0).any()


@pytest.mark.parametrize(
    ("silence_s", "counted", "filled"), [(0, 3, True), (0, 2, False), (30, 2, True), (30, 4, False)]
)
def test_the_print_of_an_auction_is_no_counted_trade(silence_s: int, counted: int, filled: bool) -> None:
    """It has no side; a call auction lasts thirty seconds at least (docs/wire/kis.md 6)."""
    day = a_day([5, 5, 5, 5, 5], [100] * 5, [0, 1, silence_s, 1, 1])
    gap = missing(day, 1, 4)._replace(trades=counted)

    assert filled == bool(verify([gap], day).fills)


@given(trades, st.data())
def test_what_a_list_leaves_out_of_a_gap_stays_open_and_the_rest_is_filled(found: list, data: st.DataObject) -> None:
    """Some rows missing: the others are right, where value and number of trades leave room for what is missing."""
    day = a_day(*map(list, zip(*found, strict=True)))
    gap = missing(day, 1, len(day) - 1, told=data.draw(st.booleans()))
    left_out = data.draw(st.sets(st.integers(1, len(day) - 2), min_size=1, max_size=len(day) - 3))
    rows = np.delete(day, sorted(left_out))

    proof = verify([gap], rows)

    assert proof.fills == {}
    (part,) = proof.partial_fills.values()
    assert np.array_equal(part, np.delete(day[1:-1], sorted(at - 1 for at in left_out)))
    residual = gap.high - gap.low - int(part["size"].sum())
    assert residual == int(day["size"][sorted(left_out)].sum())


def test_rows_that_leave_too_little_value_or_no_trade_for_the_rest_fill_nothing() -> None:
    """What is missing must be able to be trades at prices of that day."""
    day = a_day([5] * 5, [100] * 5, [1] * 5)
    gap = missing(day, 1, 4)
    rows = np.delete(day, 2)

    for wrong in (gap._replace(value=1_000), gap._replace(value=4_000), gap._replace(trades=2)):
        assert verify([wrong], rows).partial_fills == {}
    assert len(verify([gap], rows).partial_fills) == 1


@pytest.mark.skipif(not RECORDED.exists(), reason=f"recorded answers are not beside the checkout: {RECORDED}")
def test_the_recorded_answer_fills_all_but_the_thirty_shares_it_leaves_out() -> None:
    """30 rows of a real answer, of which one step lacks 30 shares: 1,287 shares are filled, 30 stay open."""
    rows = KisHistory.parse_trades(KisHistory.__new__(KisHistory), RECORDED.read_bytes(), date(2026, 5, 27)).rows
    low, high = int((rows["cum_volume"] - rows["size"]).min()), int(rows["cum_volume"].max())
    gap = FillableGap(
        SAMSUNG, "2026-05-27", low, high, None, None, int(rows["exch_ns"].min()), int(rows["exch_ns"].max())
    )

    ((filled, part),) = verify([gap], rows).partial_fills.items()

    assert filled == gap
    assert (len(part), int(part["size"].sum()), high - low - int(part["size"].sum())) == (30, 1287, 30)
