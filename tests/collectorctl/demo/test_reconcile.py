"""The second judge of rehearsals: each way in which a recovered day can differ from the market is found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from brokers.simulator.ground_truth import TRADES
from collectorctl.demo.reconcile import Reconciliation, reconcile

BEGIN_S = 1_763_596_800


def market() -> np.ndarray:
    """Five trades of 10 shares, bought at 70,100, a second apart."""
    trades = np.zeros(5, TRADES)
    trades["symbol"], trades["venue"] = b"005930", b"KRX"
    trades["exch_s"] = BEGIN_S + np.arange(5)
    trades["size"], trades["price"], trades["side"] = 10, 70_100, 1
    trades["cum_volume"] = 10 * np.arange(1, 6)
    trades["ask_price_1"], trades["bid_price_1"] = 70_100, 70_000
    return trades


def row(trade: int, source: str = "recovered", **other: Any) -> dict[str, Any]:
    """The row of one trade, but for what is `other`; a recovered one does not know its quotes."""
    told = market()[trade]
    quote = {"ask_price_1": 70_100, "bid_price_1": 70_000} if source == "live" else dict.fromkeys(QUOTES)
    told_row = {name: int(told[name]) for name in ("price", "size", "side", "cum_volume")}
    time = pd.Timestamp(int(told["exch_s"]), unit="s", tz="Asia/Seoul")
    return {"symbol": "005930", "venue": "KRX", "exch_time": time, "source": source} | told_row | quote | other


QUOTES = ("ask_price_1", "bid_price_1")
LIVE = [row(0, "live"), row(2, "live", size=20)]
"""The first trade, and the second and third as one print that a broker had merged; the last two are missing."""


def judged(*recovered: dict[str, Any], live: list[dict[str, Any]] = LIVE) -> Reconciliation:
    """The account of that day with these rows recovered."""
    (found,) = reconcile(market(), pd.DataFrame([*live, *recovered]))
    return found


def test_recovered_rows_that_are_the_missing_trades_pass() -> None:
    """Two trades are in no live row; both were recovered: one without side, one with its quotes."""
    found = judged(row(3, side=0), row(4, ask_price_1=70_100, bid_price_1=70_000))

    assert found.problems() == []
    assert (5, 2, 2, 20, 2, 2) == (
        found.trades, found.live, found.missed, found.missed_shares, found.recovered, found.equal,
    )  # fmt: skip


@pytest.mark.parametrize(
    "other",
    [
        {"price": 70_000}, {"size": 9}, {"side": -1}, {"cum_volume": 51}, {"ask_price_1": 70_200}, {"bid_price_1": 1},
        {"exch_time": pd.Timestamp(BEGIN_S, unit="s", tz="Asia/Seoul")},
    ],
    ids=lambda other: next(iter(other)),
)  # fmt: skip
def test_a_recovered_row_that_says_something_else_is_found(other: dict[str, Any]) -> None:
    """It is wrong, and the trade it should have been is still lacking."""
    found = judged(row(3), row(4, **other))

    assert (1, 1) == (found.wrong, found.missing)
    assert 2 == len(found.problems())


@pytest.mark.parametrize(
    ("recovered", "wrong", "lacking", "twice"),
    [
        ([row(3)], 0, 1, 0),
        ([row(3), row(3), row(4)], 1, 0, 0),
        ([row(2), row(3), row(4)], 1, 0, 0),  # its trade was there live
        ([], 0, 2, 0),
    ],
)
def test_rows_too_few_or_too_many_are_found(recovered: list, wrong: int, lacking: int, twice: int) -> None:
    """Not recovered, recovered twice, recovered although it was there."""
    found = judged(*recovered)

    assert (wrong, lacking, twice) == (found.wrong, found.missing, found.duplicated)
    assert found.problems()


def test_a_trade_in_two_live_rows_is_found() -> None:
    """A merged print beside one of its parts."""
    found = judged(row(3), row(4), live=[*LIVE, row(1, "live")])

    assert 1 == found.duplicated
    assert found.problems()
