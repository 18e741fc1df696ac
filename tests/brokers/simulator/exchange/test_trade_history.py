"""The tape, its groups, the quota, and history made at once: pure."""

from __future__ import annotations

from datetime import date
from itertools import groupby, pairwise
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.simulator.exchange import backfill
from brokers.simulator.exchange.listing import Listing
from brokers.simulator.exchange.market import SimulatedMarket
from brokers.simulator.exchange.models import DailyStats
from brokers.simulator.exchange.trade_history import TradeHistory, build_row
from brokers.simulator.gateway.token_bucket import TokenBucket
from brokers.simulator.kiwoom.charts import build_tick_chart
from brokers.simulator.kiwoom.paging import ListRequest
from conf.calendar import TradingCalendar
from conf.instrument import parse_instrument
from conf.loader import SETTINGS_FILE, load_settings

FRIDAY = date(2026, 11, 20)
TRADES = st.lists(st.tuples(st.integers(0, 400), st.integers(50, 60), st.integers(1, 9)), min_size=1, max_size=60)


def a_day(number: int) -> DailyStats:
    """A day without a trade yet."""
    return DailyStats(f"2026111{number}", 55, 1000, 55_000, 10**6, 40, 70)


def taped(days: list[list[tuple[int, int, int]]]) -> TradeHistory:
    """A tape of (second, price, size) trades."""
    tape = TradeHistory()
    for number, trades in enumerate(days):
        day = a_day(number)
        tape.begin_day(day)
        for second, price, size in sorted(trades, key=lambda trade: trade[0]):
            day.add_trade(price, size, 1, "000000")
            tape.extend([build_row(number * 86_400 + second, price, size, 1, day, 0, 0)])
    return tape


@pytest.fixture
def calendar(tmp_path: Path) -> TradingCalendar:
    """The default sessions; Friday is closed where a test says so."""
    return TradingCalendar(load_settings(tmp_path))


@given(days=st.lists(TRADES, min_size=1, max_size=3), most=st.integers(1, 40), end=st.integers(1, 180))
def test_minutes_are_what_one_would_group_by_hand(days: list[list[tuple[int, int, int]]], most: int, end: int) -> None:
    """Open, high, low, close, shares of each minute of each day, the newest `most` of them."""
    tape = taped(days)
    end = min(end, len(tape))
    rows = tape.read_rows(0, end)
    hand = [
        (chunk[0][0], *(f(r["price"] for r in trades) for f in (max, min)), sum(int(r["size"]) for r in trades))
        for _, members in groupby(enumerate(rows), key=lambda one: int(one[1]["exch_s"]) // 60)
        for chunk in [list(members)]
        for trades in [[one for _, one in chunk]]
    ][-most:]
    groups = tape.build_groups(end, most, 0, tape.split_by_minute(1))

    assert hand == list(zip(groups.first, groups.high, groups.low, groups.size, strict=True))
    assert (groups.size == groups.volume).all()
    assert (groups.open == rows["price"][groups.first]).all()
    assert (groups.rows == rows[np.append(groups.first[1:], end) - 1]).all()


@given(days=st.lists(TRADES, min_size=1, max_size=3), number=st.sampled_from([1, 3, 10]), most=st.integers(1, 30))
def test_pages_of_groups_join_and_end_at_the_oldest_row(
    days: list[list[tuple[int, int, int]]], number: int, most: int
) -> None:
    """Page after page, every trade is in one group, no group reaches over two days."""
    tape = taped(days)
    end, found = len(tape), []
    while end:
        groups = tape.build_groups(end, most, 0, tape.split_by_count(number))
        found = [*zip(groups.first.tolist(), groups.size.tolist(), strict=True), *found]
        end = int(groups.first[0])
    firsts = [first for first, _ in found]
    total = sum(size for trades in days for _, _, size in trades)

    assert total == sum(size for _, size in found)
    assert firsts == sorted(set(firsts))
    assert {day.first for day in tape.list_traded_days()} <= set(firsts)
    assert all(later - earlier <= number for earlier, later in pairwise([*firsts, len(tape)]))


def test_a_day_without_a_trade_leaves_no_mark() -> None:
    """Holidays are no days of the tape."""
    tape = taped([[(1, 50, 1)]])
    tape.begin_day(a_day(1))
    tape.begin_day(a_day(2))

    assert [day.day.date for day in tape.list_traded_days()] == ["20261110"]
    assert [day.day.date for day in tape.days] == ["20261110", "20261112"]
    assert tape.build_groups(len(tape), 9, len(tape), tape.split_by_minute(1)) is None


def test_the_tick_chart_goes_back_as_many_days_as_its_horizon() -> None:
    """Rolling: older days are not served, and the last page says that there is no more (docs/wire/kiwoom.md 5.1)."""
    listing = Listing(parse_instrument("005930"), 1)
    listing.history = taped([[(1, 50, 1)] * 5, [(1, 50, 1)] * 5, [(1, 50, 1)] * 5])
    page = build_tick_chart(ListRequest(listing, {"tic_scope": "1"}, None, 2))

    assert (len(page.rows), page.next) == (10, None)
    assert page.rows[-1]["cntr_tm"][:8] == "20261111"


def test_a_quota_lets_a_burst_through_and_then_its_rate() -> None:
    """Five at once, then 4.5 a second; a refused call costs nothing; keys do not share."""
    quota = TokenBucket(5, 4.5)
    burst = [quota.try_acquire("a", 100.0) for _ in range(8)]
    later = sum(quota.try_acquire("a", 100.0 + step / 100) for step in range(1000))

    assert burst == [True] * 5 + [False] * 3
    assert later in (44, 45)
    assert quota.try_acquire("b", 100.0)


@pytest.mark.parametrize("until", ["09:10", "15:27", "15:50", "20:00", "24:00"])
def test_a_history_has_exactly_the_trades_asked_for_in_the_phases_of_the_day(
    calendar: TradingCalendar, until: str
) -> None:
    """Cumulative figures chain, seconds do not go back nor beyond the present, auctions print once without a side."""
    until_s = backfill.compute_midnight(FRIDAY) + int(until[:2]) * 3600 + int(until[3:]) * 60
    market = SimulatedMarket([parse_instrument("005930")], 3)
    (listing,) = market.listings.values()
    backfill.generate_day(
        listing, FRIDAY, backfill.find_intervals(calendar, "KRX", FRIDAY, until_s), until_s, 2500, Random(1)
    )
    rows = listing.history.read_rows()
    phases = {calendar.find_phase("KRX", int(second) * 10**9) for second in rows["exch_s"][rows["side"] != 0]}

    assert len(rows) == 2500
    assert (np.diff(rows["cum_volume"], prepend=0) == rows["size"]).all()
    assert (np.diff(rows["cum_value"], prepend=0) == rows["size"].astype(np.int64) * rows["price"]).all()
    for side, number, volume in ((1, "buys", "buy_volume"), (-1, "sells", "sell_volume")):
        assert (rows[number] == np.cumsum(rows["side"] == side)).all()
        assert (rows[volume] == np.cumsum(rows["size"] * (rows["side"] == side))).all()
    assert (np.diff(rows["exch_s"]) >= 0).all()
    assert rows["exch_s"][-1] < until_s
    assert (rows["side"] == 0).sum() == 1 + (until > "15:30")
    assert phases <= {"regular", "closing_price", "after_market"}
    assert listing.day.cum_volume == rows["cum_volume"][-1]


def test_a_history_is_continued_by_live_trading_and_is_the_same_for_the_same_seed(calendar: TradingCalendar) -> None:
    """The next step adds to the same ledger; the price goes on from where it was."""
    tapes = []
    for _ in range(2):
        market = SimulatedMarket([parse_instrument("005930")], 7)
        (instrument, listing), until_s = *market.listings.items(), backfill.compute_midnight(FRIDAY) + 11 * 3600
        backfill.generate_day(
            listing, FRIDAY, backfill.find_intervals(calendar, "KRX", FRIDAY, until_s), until_s, 400, Random(1)
        )
        made = listing.day.cum_volume
        steps = [market.advance(instrument, "regular", until_s, 1) for _ in range(200)]
        first = next(trade for step in steps if step for trade in step.trades)
        tapes.append(listing.history.read_rows())

        assert first.day.cum_volume == made + first.size
        assert abs(first.price - tapes[0]["price"][399]) < 0.1 * first.price
    assert (tapes[0] == tapes[1]).all()


def test_earlier_days_are_trading_days(tmp_path: Path) -> None:
    """Weekends and closed days are left out; yesterday's close is today's base."""
    (tmp_path / SETTINGS_FILE).write_text(f"[calendar]\nclosed = [{FRIDAY}]\n")
    calendar = TradingCalendar(load_settings(tmp_path))
    days = backfill.find_earlier_days(calendar, date(2026, 11, 23), 2)
    listing = Listing(parse_instrument("005930"), 1)
    for day in (*days, date(2026, 11, 23)):
        end_s = backfill.compute_midnight(day) + 86_400
        backfill.generate_day(listing, day, backfill.find_intervals(calendar, "KRX", day, end_s), end_s, 50, Random(1))
    first, second, last = (one.day for one in listing.history.list_traded_days())

    assert [date(2026, 11, 18), date(2026, 11, 19)] == days
    assert (first.date, last.date) == ("20261118", "20261123")
    assert second.previous_volume == first.cum_volume
    assert last.previous_value == second.cum_value


def test_a_history_before_the_session_is_refused_in_words(calendar: TradingCalendar) -> None:
    """Sunday, and before the opening auction ends."""
    listing = Listing(parse_instrument("005930"), 1)
    sunday_ns = backfill.compute_midnight(date(2026, 11, 22)) * 10**9 + 12 * 3600 * 10**9

    assert backfill.find_elapsed_intervals(calendar, "KRX", sunday_ns, False) == []
    with pytest.raises(backfill.BackfillError, match="has not begun"):
        backfill.generate_day(listing, FRIDAY, [], 0, 5, Random(1))
    for text in ("x", "=5", "005930=", "005930=-1", "1.5"):
        with pytest.raises(backfill.BackfillError, match="no number of trades"):
            backfill.parse_counts(text)
    assert backfill.parse_counts("5, 005930=30") == {"": 5, "005930": 30}
