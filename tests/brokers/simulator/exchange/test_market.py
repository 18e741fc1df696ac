"""The market keeps its own promises, whatever the seed and the phases it goes through."""

from __future__ import annotations

import itertools
from collections import Counter
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.simulator.exchange.market import SimulatedMarket
from brokers.simulator.exchange.models import MarketUpdate
from brokers.simulator.exchange.order_book import BookSide, OrderBook
from brokers.simulator.exchange.price_grid import KrxPriceGrid, compute_limits, find_tick_size, floor_to_tick
from conf.clock import KST
from conf.instrument import parse_instrument

DAY_S = round(datetime(2026, 11, 20, tzinfo=KST).timestamp())
PHASES = {
    "opening_auction": 8 * 3600 + 1800,
    "regular": 9 * 3600,
    "closing_auction": 15 * 3600 + 1200,
    None: 15 * 3600 + 1800,
    "closing_price": 15 * 3600 + 2400,
    "after_market": 16 * 3600,
}
NAMES = ("005930", "0074K0", "Q500001", "000660_NX", "035420_AL")
seeds = st.integers(0, 2**32)


def play(seed: int, steps: int = 80, names: tuple[str, ...] = NAMES, days: int = 1) -> list[MarketUpdate]:
    """`steps` events of each phase of a day, for each instrument."""
    market = SimulatedMarket([parse_instrument(name) for name in names], seed)
    played = []
    for day in range(days):
        for phase, begin_s in PHASES.items():
            for number in range(steps if phase else 2):
                for instrument in market.primary_listings:
                    at_s = DAY_S + day * 86_400 + begin_s + number // 10
                    step = market.advance(instrument, phase, at_s, at_s * 10**9)
                    if step is not None:
                        played += filter(None, (step, market.consolidate(step)))
    return played


@given(st.integers(1, 5_000_000))
def test_the_grid_holds_every_tick_between_the_limits(previous_close: int) -> None:
    """Grid prices ascend by the tick of their price and stay within 30 % of the previous close."""
    lower, upper = compute_limits(floor_to_tick(previous_close))
    prices = KrxPriceGrid(floor_to_tick(previous_close)).prices

    assert [lower, upper] == [prices[0], prices[-1]]
    assert all(after - before == find_tick_size(before) for before, after in itertools.pairwise(prices))
    assert all(floor_to_tick(price) == price for price in prices)
    assert lower * 10 >= floor_to_tick(previous_close) * 7
    assert upper * 10 <= floor_to_tick(previous_close) * 13


@pytest.mark.parametrize(
    ("price", "size"), [(1999, 1), (2000, 5), (6490, 10), (49_950, 50), (199_900, 100), (257_500, 500)]
)
def test_tick_sizes_are_those_of_krx(price: int, size: int) -> None:
    """The table of docs/wire/kiwoom.md 9; 6,490 and 257,500 are recorded prices."""
    assert size == find_tick_size(price)


@settings(max_examples=6, deadline=None)
@given(seeds)
def test_books_are_ordered_on_the_grid_and_sum_to_their_totals(seed: int) -> None:
    """Ten levels, best first, no price twice, none crossed, sizes above zero, empty levels last and 0.

    (Two venues put together may cross for a moment, and have a mid price each.)
    """
    for step in play(seed):
        book, one_venue = step.book, step.instrument.venue != "UN"
        if book is None:
            continue
        for prices, sizes, sign in ((book.ask_price, book.ask_size, 1), (book.bid_price, book.bid_size, -1)):
            filled = [price for price in prices if price]
            assert prices == filled + [0] * (10 - len(filled))
            assert [size > 0 for size in sizes] == [price > 0 for price in prices]
            assert filled == sorted(set(filled), key=lambda price: sign * price)
            assert all(book.day.lower <= price <= book.day.upper and floor_to_tick(price) == price for price in filled)
            assert len(filled) <= 3 or book.phase not in ("opening_auction",) or not one_venue
        assert (sum(book.ask_size), sum(book.bid_size)) == (book.total_ask, book.total_bid)
        if book.ask_price[0] and book.bid_price[0] and one_venue:
            assert book.ask_price[0] > book.bid_price[0]
            if book.mid_price:
                assert book.mid_price * 2 == book.ask_price[0] + book.bid_price[0]
        assert (book.mid_size > 0) == (book.mid_side != 0)
        assert book.expected_size == 0 or book.phase in ("opening_auction", "closing_auction")


@settings(max_examples=6, deadline=None)
@given(seeds)
def test_trades_chain_in_volume_value_and_counts(seed: int) -> None:
    """Within a day cumulative figures advance by each trade, sides raise their own sums, auctions neither (docs/wire/kis.md 3)."""
    last: dict[object, tuple[int, ...]] = {}
    for step in play(seed, days=2):
        for trade in step.trades:
            key = (trade.instrument, trade.day.date)
            volume, value, sells, buys, sold, bought = last.get(key, (0,) * 6)
            day = trade.day
            sell, buy = trade.side == -1, trade.side == 1
            expected = (
                volume + trade.size,
                value + trade.size * trade.price,
                sells + sell,
                buys + buy,
                sold + sell * trade.size,
                bought + buy * trade.size,
            )
            last[key] = (day.cum_volume, day.cum_value, day.sells, day.buys, day.sell_volume, day.buy_volume)

            assert expected == last[key]
            assert day.lower <= day.low <= trade.price <= day.high <= day.upper
            assert trade.size > 0
        if step.book is not None:
            assert step.book.cum_volume == last.get((step.instrument, step.book.day.date), (0,))[0]


@settings(max_examples=6, deadline=None)
@given(seeds)
def test_ids_count_books_and_trades_of_the_whole_market(seed: int) -> None:
    """1, 2, 3 ... in the order things happen."""
    steps = play(seed)

    assert [step.book.id for step in steps if step.book] == list(
        range(1, sum(step.book is not None for step in steps) + 1)
    )
    trades = [trade.id for step in steps for trade in step.trades]
    assert trades == list(range(1, len(trades) + 1))


@settings(max_examples=6, deadline=None)
@given(seeds)
def test_an_instrument_lives_its_life_whatever_else_is_listed(seed: int) -> None:
    """The same seed gives the same trades of a symbol alone and in company."""
    alone = [(t.price, t.size, t.side) for step in play(seed, 60, ("005930",)) for t in step.trades]
    company = [
        (t.price, t.size, t.side)
        for step in play(seed, 60, ("000660", "005930"))
        for t in step.trades
        if t.instrument.symbol == "005930"
    ]

    assert alone == company


def test_a_day_has_both_auctions_mid_prices_equal_trades_and_sweeps() -> None:
    """What trips decoders up happens: side-less prints, off-grid prices, equal neighbours, many trades in one step."""
    seen: Counter[str] = Counter()
    for step in play(7, 700):
        seen["sweep"] += len(step.trades) > 3
        for trade in step.trades:
            seen["auction"] += trade.side == 0
            seen["off grid"] += floor_to_tick(trade.price) != trade.price
        pairs = zip(step.trades, step.trades[1:], strict=False)
        seen["equal"] += sum((a.price, a.size, a.side) == (b.price, b.size, b.side) for a, b in pairs)
        if step.book is not None:
            seen["thin"] += step.book.ask_price[9] == 0 and step.book.phase == "regular"
            seen["expected"] += step.book.expected_size > 0

    assert all(seen[what] > 0 for what in ("sweep", "auction", "off grid", "equal", "thin", "expected")), seen
    assert 2 * (len(NAMES) + 3) == seen["auction"]  # the unified one has those of two venues, which are there as well


def test_the_next_day_begins_at_zero_from_the_old_close() -> None:
    """Cumulative volume restarts; the previous close and volume are the old day's (docs/wire/kiwoom.md 3.1)."""
    steps = [step for step in play(3, 100, ("005930",), days=2) if step.trades]
    first = [step.trades[-1].day for step in steps if step.trades[-1].day.date == "20261120"][-1]
    second = next(step.trades[0].day for step in steps if step.trades[0].day.date == "20261121")

    assert (floor_to_tick(first.last), first.cum_volume) == (second.previous_close, second.previous_volume)
    assert second.cum_volume < first.cum_volume


orders = st.lists(st.tuples(st.sampled_from((1, -1)), st.integers(0, 30), st.integers(1, 500)), min_size=1, max_size=80)


@given(orders)
def test_matching_conserves_shares_and_leaves_no_cross(sent: list[tuple[int, int, int]]) -> None:
    """Shares sent are shares resting plus twice the shares traded; best bid stays below best ask."""
    book = OrderBook()
    traded = sum(size for side, index, size in sent for _, size in book.submit(side, index, size))
    resting = sum(book.asks.total.values()) + sum(book.bids.total.values())

    assert sum(size for _, _, size in sent) == resting + 2 * traded
    if book.asks.indexes and book.bids.indexes:
        assert book.bids.best() < book.asks.best()


@given(orders)
def test_an_auction_executes_the_largest_volume_and_shows_the_rest_beforehand(sent: list[tuple[int, int, int]]) -> None:
    """Against a brute-force search over all prices; what was shown as the rest is the book after the print."""
    book = OrderBook()
    for side, index, size in sent:
        book.get_side(side).add(index, size)
    best = max(
        min(
            sum(size for side, at, size in sent if side < 0 and at <= index),
            sum(size for side, at, size in sent if side > 0 and at >= index),
        )
        for index in range(31)
    )
    found = book.find_equilibrium()
    shown = book.levels_after_auction(found[1] if found else 0)
    printed = book.uncross()

    assert (best or None) == (found[1] if found else None)
    assert found == printed
    rest = tuple([(index, half.total[index]) for index in half.top_levels(3)] for half in (book.asks, book.bids))
    assert shown == rest
    if rest[0] and rest[1]:
        assert rest[1][0][0] < rest[0][0][0]


def test_orders_of_a_level_are_met_in_time_order() -> None:
    """One fill for each order met, the last one perhaps in part."""
    half = BookSide(+1)
    for size in (5, 7, 9):
        half.add(10, size)
    half.add(12, 4)

    assert half.execute(13, 10) == [(10, 5), (10, 7), (10, 1)]
    assert half.execute(50, 11) == [(10, 8)]
    assert half.total == {12: 4}
