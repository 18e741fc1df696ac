"""A night of New York over the change of its clocks, beside Korea: it passes, and whatever is wrong with it is found."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd
import pytest
from support.process_tree import BIN, temporary_home

from brokers.simulator import ground_truth
from collectorctl.demo.us.night import check_certificate, check_night
from collectorctl.demo.us.oracle import US_FEED, compare_us
from collectorctl.recover import us_job
from collectorctl.recover.certificate import store
from conf.instrument import Instrument
from conf.market import US

DAY = date(2026, 11, 1)


class Night(NamedTuple):
    """What the demo said, and what it left."""

    outcome: dict[str, Any]
    truth: ground_truth.GroundTruth
    books: pd.DataFrame
    ticks: pd.DataFrame
    certificates: list[Any]
    bars: dict[str, np.ndarray]

    def judge(self, books: pd.DataFrame | None = None, ticks: pd.DataFrame | None = None) -> list[str]:
        """The oracle's findings for these rows."""
        truth = self.truth
        venues = [venue.encode() for venue in US.venues]
        return compare_us(
            truth.books[np.isin(truth.books["venue"], venues)],
            truth.trades[np.isin(truth.trades["venue"], venues)],
            truth.deliveries,
            {(c["line"], c["connection"]): c["ended_mono_ns"] for c in truth.connections if c["ended_mono_ns"]},
            self.books if books is None else books,
            self.ticks if ticks is None else ticks,
        ).problems()


@pytest.fixture(scope="module")
def night() -> Iterator[Night]:
    """One run."""
    with temporary_home("") as root:
        ran = subprocess.run(
            [BIN / "collectorctl", "demo", "--home", root, "--scenario", "us-night", "--seconds", "36", "--json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=170,
        )
        instruments = {f"{one.symbol} {one.venue}": one for one in map(us_instrument, ("AAPL", "BRK/B", "SPY"))}
        yield Night(
            msgspec.json.decode(ran.stdout),
            ground_truth.load(root / "truth"),
            *(pd.read_parquet(root / "data/us" / stream) for stream in ("orderbook", "tick")),
            list(store.load(root / "data", DAY, US).values()),
            {name: us_job.load_bars(root / "data", DAY, one) for name, one in instruments.items()},
        )


def us_instrument(symbol: str) -> Instrument:
    """A symbol of the night on its venue."""
    return Instrument(symbol, {"AAPL": "NASDAQ", "BRK/B": "NYSE", "SPY": "AMEX"}[symbol])


@pytest.mark.timeout(240)
def test_a_night_over_the_change_of_clocks_passes_with_us_killed_in_it(night: Night) -> None:
    """Korea is PROVEN, of New York the minute bars are there; every delivery of each feed is stored."""
    us = night.outcome["us"]

    assert night.outcome["complaints"] == []
    assert us["certificates"] == {"AAPL NASDAQ": "MINUTE_ONLY", "BRK/B NYSE": "MINUTE_ONLY", "SPY AMEX": "MINUTE_ONLY"}
    assert us["result"]["books"]["available"] > 300 and us["result"]["ticks"]["available"] > 50
    assert any(one.missing_shares for one in night.certificates)  # what went by while it was dead
    assert {one["after"] for one in night.outcome["recovery"]["instruments"]} == {"PROVEN"}
    assert {1} <= set(night.books["hour"].astype(int))


@pytest.mark.parametrize(
    ("dataset", "damage", "words"),
    [
        ("books", lambda rows: rows.iloc[1:], "1 delivered but not stored"),
        ("books", lambda rows: pd.concat([rows, rows.iloc[:1]]), "1 stored but not sent"),
        ("books", lambda rows: rows.assign(ask_price_7=rows["ask_price_7"] + 0.0001), "rows differ from what was sent"),
        ("books", lambda rows: rows.assign(exch_time=rows["exch_time"] + pd.Timedelta("1h")), "rows differ"),
        ("ticks", lambda rows: rows.iloc[1:], "1 delivered but not stored"),
        ("ticks", lambda rows: pd.concat([rows, rows.iloc[:1]]), "1 doubled"),
        ("ticks", lambda rows: rows.assign(price=rows["price"] + 0.0001), "rows differ from what was sent"),
        ("ticks", lambda rows: rows.assign(cum_volume=rows["cum_volume"] + 1), "rows differ from what was sent"),
    ],
)
def test_each_damage_to_the_us_rows_is_found(
    night: Night, dataset: str, damage: Callable[[pd.DataFrame], pd.DataFrame], words: str
) -> None:
    """Of rows that were certainly delivered: the first ones, long before the kill."""
    assert night.judge() == []
    rows = damage(getattr(night, dataset).sort_values("recv_time"))

    assert any(words in problem for problem in night.judge(**{dataset: rows}))


def test_a_night_without_a_kill_or_without_the_second_one_o_clock_does_not_pass(night: Night) -> None:
    """The scenario did not happen."""
    deliveries, first = night.truth.deliveries, night.truth.deliveries["connection"]
    of_us = deliveries["line"] == US_FEED
    once = deliveries[~of_us | (first == first[of_us].min())]
    offsets = np.array([time.utcoffset().total_seconds() / 3600 for time in night.books["exch_time"]])

    assert check_night(night.books, deliveries) == []
    assert "not connected again" in check_night(night.books, once)[0]
    assert "hour=01" in check_night(night.books[offsets == -4], deliveries)[0]


def test_a_certificate_and_bars_that_are_not_the_markets_are_found(night: Night) -> None:
    """A minute less, a grade, a sum."""
    one = next(one for one in night.certificates if one.symbol == "AAPL")
    trades = night.truth.trades[night.truth.trades["symbol"] == b"AAPL"]
    rows, bars = night.ticks[night.ticks["symbol"] == "AAPL"], night.bars["AAPL NASDAQ"]
    change = lambda **fields: msgspec.structs.replace(one, **fields)  # noqa: E731

    assert check_certificate(one, trades, rows, bars) == []
    assert "minute bars lack" in check_certificate(one, trades, rows, bars[1:])[0]
    assert "INCOMPLETE" in check_certificate(change(certificate="INCOMPLETE"), trades, rows, bars)[0]
    told = check_certificate(change(missing_shares=one.missing_shares + 1), trades, rows, bars)
    assert "certified as missing" in told[0]
