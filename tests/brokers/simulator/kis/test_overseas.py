"""The simulated overseas side: frames as recorded, keys as documented, one tide for all, and a session per appkey."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from support.process_tree import temporary_home, wait_until
from support.vendor_clients import SAMPLES, KisClient, SimulatorHandle, start_simulator

from brokers.simulator.exchange.market import SimulatedMarket
from brokers.simulator.exchange.market_factor import MarketFactor
from brokers.simulator.exchange.models import MarketUpdate
from brokers.simulator.exchange.price_grid import CentPriceGrid
from brokers.simulator.gateway.client import QueuedItem
from brokers.simulator.ground_truth import GroundTruth, Stream, load
from brokers.simulator.kis import overseas_encode
from brokers.simulator.kis.overseas import OverseasSubscriptions
from conf.instrument import parse_instrument

OPENS_S = 1_795_185_000
"""2026-11-20 09:30 in New York."""
PRICE, DATE, TIME, COUNT = r"\d+\.\d{4}", r"\d{8}", r"\d{6}", r"\d+"
TRADE = [r"[DR][A-Z]{3}[A-Z./]+", r"[A-Z./]+", "4", DATE, DATE, TIME, DATE, TIME, *[PRICE] * 4, r"[1-5]", PRICE]
TRADE += [r"[+-]?\d+\.\d\d", PRICE, PRICE, *[COUNT] * 7, r"\d+\.\d\d", r"[123]"]
BOOK = [*TRADE[:3], DATE, TIME, DATE, TIME, COUNT, COUNT, r"-?\d+", r"-?\d+"]
BOOK += [PRICE, PRICE, COUNT, COUNT, r"-?\d+", r"-?\d+"] * 10
SHAPES = {"HDFSCNT0": TRADE, "HDFSASP0": BOOK}


@pytest.fixture(scope="module")
def steps() -> list[MarketUpdate]:
    """Half an hour of two exchanges and a day market."""
    market = SimulatedMarket([parse_instrument(name) for name in ("NAS.AAPL", "NYS.BRK/B", "BAQ.AAPL")], 3)
    found = []
    for number in range(900):
        for instrument in market.listings:
            step = market.advance(instrument, "regular", OPENS_S + 2 * number, 0)
            if step is not None:
                found.append(step)
    return found


@pytest.fixture(scope="module")
def sent(steps: list[MarketUpdate]) -> list[str]:
    """The frames of it, under free and day market keys."""
    overseas = OverseasSubscriptions()
    for key in ("DNASAAPL", "DNYSBRK/B", "RBAQAAPL"):
        overseas.resolve("HDFSCNT0", key)
    items = []
    for step in steps:
        items += [QueuedItem(0, step.instrument, Stream.TICK, step.trades)] if step.trades else []
        items += [QueuedItem(0, step.instrument, Stream.BOOK, step.book)] if step.book else []
    return [
        frame.payload.decode() for frame in overseas_encode.encode_frames(items, overseas_encode.WIDTHS, overseas.keys)
    ]


def records(text: str) -> list[list[str]]:
    """A frame's records as fields, split as docs/wire/kis.md 3 says."""
    _, tr, count, payload = text.split("|", 3)
    fields = payload.split("^")
    assert len(fields) == int(count) * len(SHAPES[tr])
    return [fields[at : at + len(SHAPES[tr])] for at in range(0, len(fields), len(SHAPES[tr]))]


def test_every_field_has_the_shape_of_the_recorded_ones(sent: list[str]) -> None:
    """Both what was recorded and what is sent fit one list of forms (docs/wire/kis.md 4.4, 4.5)."""
    recorded: list[str] = []
    if SAMPLES.is_dir():
        recorded = [line for tr in SHAPES for line in (Path(SAMPLES) / "kis" / f"{tr}.txt").read_text().splitlines()]

    for text in [*recorded, *sent]:
        for fields in records(text):
            for number, (form, field) in enumerate(zip(SHAPES[text.split("|")[1]], fields, strict=True)):
                assert re.fullmatch(form, field), f"{text[:40]}: field {number}: {field!r}"


def test_volume_value_and_sides_add_up_trade_by_trade(sent: list[str]) -> None:
    """Within each key: cumulative volume by size, value by size times price but for the fraction, one side or none."""
    chains: dict[str, list[list[str]]] = {}
    for text in sent:
        for fields in records(text) if "HDFSCNT0" in text else ():
            chains.setdefault(fields[0], []).append(fields)

    assert {"DNASAAPL", "DNYSBRK/B", "RBAQAAPL"} == set(chains)
    for chain in chains.values():
        assert len(chain) > 50
        for old, new in pairwise(chain):
            size, grown = int(new[19]), [int(new[at]) - int(old[at]) for at in (20, 22, 23)]
            assert grown[0] == size
            assert sorted(grown[1:]) == [0, size]
            assert abs(int(new[21]) - int(old[21]) - size * float(new[11])) <= 1


def test_changes_have_no_sign_and_rates_have_one(sent: list[str]) -> None:
    """DIFF is the distance, SIGN its direction, RATE both (docs/wire/kis.md 8, item 16)."""
    for text in sent:
        for fields in records(text) if "HDFSCNT0" in text else ():
            sign, diff, rate = fields[12:15]
            assert {"2": "+", "3": "0", "5": "-"}[sign] == (rate[0] if float(diff) and rate[0] in "+-" else "0")


def test_totals_are_the_sums_and_prices_are_cents(sent: list[str]) -> None:
    """Bid first in every level, best first on either side."""
    for text in sent:
        for fields in records(text) if "HDFSASP0" in text else ():
            bids, asks, bid_sizes, ask_sizes = (fields[at::6] for at in (11, 12, 13, 14))
            assert (sum(map(int, bid_sizes)), sum(map(int, ask_sizes))) == (int(fields[7]), int(fields[8]))
            assert float(bids[0]) < float(asks[0])
            assert all(price.endswith("00") for price in (*bids, *asks))


def test_the_whole_market_moves_together() -> None:
    """Prices of two instruments follow one tide: their moves by the minute are alike, and not the same."""
    market = SimulatedMarket([parse_instrument("NAS.AAPL"), parse_instrument("NYS.IBM")], 11)
    closes = {instrument: [] for instrument in market.listings}
    for minute in range(120):
        for instrument, found in closes.items():
            for second in range(0, 60, 2):
                market.advance(instrument, "regular", OPENS_S + 60 * minute + second, 0)
            found.append(market.listings[instrument].flow.fair_value * 100 + market.listings[instrument].grid.lower)

    moves = [np.diff(np.log(found)) for found in closes.values()]

    assert 0.3 < np.corrcoef(moves)[0, 1] < 0.999


def test_the_tide_does_not_depend_on_who_asks() -> None:
    """Moves between the same two seconds are the same; parts add up; another seed is another tide."""
    whole = MarketFactor(1).return_between(1000, 1100)
    once_more = MarketFactor(1)

    assert whole == pytest.approx(once_more.return_between(1000, 1040) + once_more.return_between(1040, 1100))
    assert whole != MarketFactor(2).return_between(1000, 1100)


@pytest.mark.parametrize("close", [62_345, 1_000_000, 6_300_000])
def test_the_grid_of_cents_has_every_cent_around_the_close(close: int) -> None:
    """In 1/10,000 of a dollar, 30 % either way."""
    grid = CentPriceGrid(close)

    assert {100} == {b - a for a, b in pairwise(grid.prices)}
    assert grid.lower < close * 0.71 and grid.upper > close * 1.29
    assert grid.prices[grid.find_index(CentPriceGrid.round_down(close))] == CentPriceGrid.round_down(close)


@pytest.mark.parametrize("key", ["AAPL", "DNAS", "DBAQAAPL", "XNASAAPL", "DTSE7203", "RNASaapl", ""])
def test_keys_that_cannot_be_are_refused(key: str) -> None:
    """docs/wire/kis.md 2.7; the day market has no free form."""
    with pytest.raises(ValueError):
        OverseasSubscriptions().resolve("HDFSCNT0", key)


def test_each_market_trades_in_its_own_hours() -> None:
    """Eleven in New York is past midnight in Korea: the US trades, Korea and the day market do not."""
    clock = '[clock]\nstart = "2026-11-20T11:00:00-05:00"\nspeed = 1.5\n'
    names = "NAS.AAPL,BAQ.AAPL,005930"
    with temporary_home(clock) as root, start_simulator(root, "--symbols", names, "--truth", str(root / "truth")):
        run = wait_until("something was traded", lambda: traded(root / "truth"))

    assert {(b"AAPL", b"NASDAQ")} == {(trade["symbol"], trade["venue"]) for trade in run.trades}
    assert {b"NASDAQ"} == set(run.books["venue"].tolist())


def traded(directory: Path) -> GroundTruth | None:
    """The truth once there are some trades."""
    run = load(directory) if (directory / "meta.json").exists() else None
    return run if run is not None and len(run.trades) > 20 else None


@pytest.fixture(scope="module")
def running() -> Iterator[SimulatorHandle]:
    """A simulator of one US instrument that always trades and loses nothing."""
    with (
        temporary_home("") as root,
        start_simulator(root, "--always-open", "--us-loss", "0", "--symbols", "NAS.AAPL") as started,
    ):
        yield started


def test_it_registers_overseas_keys_and_holds_to_one_session_an_appkey(running: SimulatorHandle) -> None:
    """Its own port, its own appkeys: acknowledged, refused by code, and a second session is hung up on."""
    ready = {"kis": running.ready["us"]}
    first = KisClient(ready)

    first.subscribe("HDFSCNT0", "DNASAAPL")
    assert "OPSP8992" == first.request("1", "HDFSASP0", "DBAQAAPL")["body"]["msg_cd"]
    assert "OPSP8991" == first.request("1", "HDFSASP9", "DNASAAPL")["body"]["msg_cd"]
    second = KisClient(ready, approval=first.approval)
    assert "OPSP8996" == second.request("1", "HDFSCNT0", "DNASAAPL")["body"]["msg_cd"]
    first.read_for(2)
    assert first.collect_records("HDFSCNT0")
