"""KRX, NXT and both unified, of one stock: prices that belong together, and a unified feed that is the sum of its venues."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.process_tree import wait_until
from support.vendor_clients import KiwoomRest, start_simulator

from brokers.simulator.exchange import backfill
from brokers.simulator.exchange.market import SimulatedMarket
from brokers.simulator.exchange.models import Book, MarketUpdate
from brokers.simulator.ground_truth import load
from conf.calendar import TradingCalendar
from conf.clock import KST
from conf.instrument import Instrument, parse_instrument
from conf.loader import load_settings as load_settings

KRX, NXT, UN = (Instrument("005930", venue) for venue in ("KRX", "NXT", "UN"))
DAY_S = round(datetime(2026, 11, 20, tzinfo=KST).timestamp())


def play(
    seed: int, steps: int = 300, names: tuple[str, ...] = ("005930_AL",)
) -> tuple[SimulatedMarket, list[MarketUpdate]]:
    """Both venues from 08:00 to 20:00 by the calendar of defaults, `steps` events each, evenly spread."""
    with tempfile.TemporaryDirectory() as home:
        calendar = TradingCalendar(load_settings(Path(home)))
    market = SimulatedMarket([parse_instrument(name) for name in names], seed)
    played: list[MarketUpdate] = []
    for number in range(steps):
        at_s = DAY_S + 8 * 3600 + number * 12 * 3600 // steps
        for instrument in market.primary_listings:
            step = market.advance(instrument, calendar.find_phase(instrument.venue, at_s * 10**9), at_s, at_s * 10**9)
            if step is not None:
                played += filter(None, (step, market.consolidate(step)))
    return market, played


def levels(*books: Book, side: str) -> Counter[int]:
    """Sizes by price."""
    total: Counter[int] = Counter()
    for book in books:
        for price, size in zip(getattr(book, f"{side}_price"), getattr(book, f"{side}_size"), strict=True):
            if price:
                total[price] += size
    return total


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32))
def test_the_unified_trades_are_those_of_both_venues_in_their_order(seed: int) -> None:
    """Price, size, side, second; cumulative volume, value and counts are the sums; the days' totals as well."""
    market, played = play(seed)
    own = [t for step in played if step.instrument != UN for t in step.trades]
    whole = [t for step in played if step.instrument == UN for t in step.trades]
    sums: Counter[str] = Counter()

    assert {t.instrument for t in own} == {KRX, NXT}
    assert [(t.exch_s, t.price, t.size, t.side) for t in whole] == [(t.exch_s, t.price, t.size, t.side) for t in own]
    for trade in whole:
        sums["volume"] += trade.size
        sums["value"] += trade.size * trade.price
        assert (trade.day.cum_volume, trade.day.cum_value) == (sums["volume"], sums["value"])
    for name in ("cum_volume", "cum_value", "buys", "sells", "buy_volume", "sell_volume"):
        days = [market.listings[one].day for one in (KRX, NXT, UN)]
        assert getattr(days[0], name) + getattr(days[1], name) == getattr(days[2], name)
    assert len(market.listings[UN].history) == len(whole)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**32))
def test_the_unified_book_is_the_levels_of_the_venues_that_trade(seed: int) -> None:
    """While both trade: the ten best prices of both books together, sizes added; while one trades alone, its own."""
    _, played = play(seed)
    shown: dict[Instrument, Book] = {}
    phases: Counter[bool] = Counter()
    for step in played:
        book = step.book
        if book is None:
            continue
        shown[step.instrument] = book
        if step.instrument != UN:
            continue
        second = book.exch_s - DAY_S
        both = 9 * 3600 < second < 15 * 3600 + 1200 or second > 16 * 3600
        alone = second < 8 * 3600 + 1800 or 15 * 3600 + 2400 < second < 16 * 3600  # KRX has not begun, or shows no book
        if not (both or alone):
            continue
        phases[both] += 1
        parts = [shown[KRX], shown[NXT]] if both else [shown[NXT]]
        for side, best in (("ask", 1), ("bid", -1)):
            whole = levels(*parts, side=side)
            expected = sorted(whole.items(), key=lambda level, best=best: best * level[0])[:10]
            assert expected == list(levels(book, side=side).items())
    assert phases[True] > 50 < sum(phases.values()) - 20 < 10**9
    assert phases[False] > 5


def test_prices_of_the_two_venues_stay_together() -> None:
    """The same base and limits; NXT's trades lie within a percent of KRX's price, in the morning of yesterday's close."""
    for seed in range(3):
        market, played = play(seed, 1500)
        last, far = market.listings[KRX].day.previous_close, []
        for step in played:
            for trade in step.trades:
                if step.instrument == KRX:
                    last = trade.price
                elif step.instrument == NXT:
                    far.append(abs(trade.price - last) / last)
        days = [market.listings[one].day for one in (KRX, NXT, UN)]

        assert len({(day.previous_close, day.lower, day.upper, day.listed_shares) for day in days}) == 1
        assert len(far) > 150
        assert np.quantile(far, 0.9) < 0.01
        assert max(far) < 0.05


def test_each_venue_has_its_own_hours() -> None:
    """NXT trades before KRX does and not in its auctions; the unified feed has the whole day."""
    _, played = play(3, 2000)
    hours: dict[Instrument, set[int]] = {KRX: set(), NXT: set(), UN: set()}
    for step in played:
        hours[step.instrument] |= {(trade.exch_s - DAY_S) // 60 for trade in step.trades}

    assert min(hours[NXT]) < 8 * 60 + 50 < 9 * 60 <= min(hours[KRX])
    assert not {minute for minute in hours[NXT] if 15 * 60 + 20 < minute < 15 * 60 + 40}
    assert hours[UN] == hours[KRX] | hours[NXT]


def test_what_is_asked_for_elsewhere_changes_no_venue() -> None:
    """The market of KRX is the same with and without NXT; that of NXT the same whether or not it is unified."""
    alone, _ = play(9, 200, ("005930",))
    pair, _ = play(9, 200, ("005930_NX", "005930"))
    whole, _ = play(9, 200)

    assert alone.listings[KRX].day == pair.listings[KRX].day == whole.listings[KRX].day
    assert pair.listings[NXT].day == whole.listings[NXT].day


def test_days_follow_each_other_on_krxs_close(tmp_path: Path) -> None:
    """Made at once or live: the base of the day after is KRX's close on every venue, the volume before each one's own."""
    calendar = TradingCalendar(load_settings(tmp_path))
    market = SimulatedMarket([UN], 4)
    day = datetime(2026, 11, 20, tzinfo=KST).date()
    for one, listing in market.primary_listings.items():
        spans = backfill.find_intervals(calendar, one.venue, day, DAY_S + 86_400)
        backfill.generate_day(listing, day, spans, DAY_S + 86_400, 500, Random(1))
    market.consolidate_day(day)
    made = {one: listing.day for one, listing in market.listings.items()}
    tapes = {one: listing.history.read_rows() for one, listing in market.listings.items()}
    market.consolidate_day(day.replace(day=21))  # nobody traded: no day
    monday_s = DAY_S + 3 * 86_400 + 9 * 3600
    for one in (NXT, KRX):
        for number in range(50):
            step = market.advance(one, "regular", monday_s + number, 1)
            if step is not None:
                market.consolidate(step)

    assert made[KRX].cum_volume + made[NXT].cum_volume == made[UN].cum_volume
    assert sorted(tapes[UN][["price", "size"]].tolist()) == sorted(
        [*tapes[KRX][["price", "size"]].tolist(), *tapes[NXT][["price", "size"]].tolist()]
    )
    assert (np.diff(tapes[UN]["exch_s"]) >= 0).all()
    assert (np.diff(tapes[UN]["cum_volume"]) == tapes[UN]["size"][1:]).all()
    for one, listing in market.listings.items():
        assert (listing.day.date, listing.day.previous_close) == ("20261123", market.listings[KRX].day.previous_close)
        assert listing.day.previous_volume == made[one].cum_volume


@pytest.fixture
def running() -> Iterator[tuple[Path, object]]:
    root = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    (root / "collector.toml").write_text('[clock]\nstart = "2026-11-20T10:00:00+09:00"\nspeed = 1.0\n')
    options = ("--symbols", "005930,005930_NX,005930_AL", "--history", "300", "--truth", str(root / "truth"))
    with start_simulator(
        root, *options, "--books-per-s", "40", "--kiwoom-calls-per-s", "1000", "--kiwoom-burst", "1000"
    ) as made:
        yield root / "truth", made
    shutil.rmtree(root)


def test_truth_and_rest_answers_agree_on_every_venue(running) -> None:
    """Off-book volume included: what happens on a venue is in the unified day, whichever of the two it is named by."""
    truth, process = running
    wait_until("there are trades of today", lambda: len(load(truth).trades) > 1200)
    assert process.send_command("market block 005930_NX 777")["ok"]
    assert process.send_command("market block 005930_AL 5")["ok"]
    process.send_command("market rest")
    rest = KiwoomRest(process.ready)
    volumes = {}
    for code in ("005930", "005930_NX", "005930_AL"):
        answer = rest.call("ka10081", stk_cd=code, base_dt="20261120", upd_stkpc_tp="0").json()
        volumes[code] = int(answer["stk_dt_pole_chart_qry"][0]["trde_qty"])
    wait_until("all is on the disk", lambda: len(load(truth).trades) == process.send_command("status")["trades"])
    wait_until("the blocks as well", lambda: len(load(truth).blocks) == 4)
    trades = load(truth).trades
    sizes = {venue: int(trades["size"][trades["venue"] == venue].sum()) for venue in (b"KRX", b"NXT", b"UN")}

    assert volumes["005930"] + volumes["005930_NX"] == volumes["005930_AL"]
    assert (volumes["005930"], volumes["005930_NX"]) == (sizes[b"KRX"] + 5, sizes[b"NXT"] + 777)
    assert [(one["venue"], one["shares"]) for one in load(truth).blocks] == [
        ("NXT", 777),
        ("UN", 777),
        ("KRX", 5),
        ("UN", 5),
    ]
    assert sizes[b"UN"] == sizes[b"KRX"] + sizes[b"NXT"]
