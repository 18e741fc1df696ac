"""Listing: one instrument on one venue, with its orders, its day and its last book."""

from __future__ import annotations

from random import Random

from brokers.simulator.exchange.models import Book, DailyStats
from brokers.simulator.exchange.order_book import LEVELS, OrderBook
from brokers.simulator.exchange.order_flow import Execution, OrderFlow
from brokers.simulator.exchange.price_grid import CentPriceGrid, KrxPriceGrid
from brokers.simulator.exchange.trade_history import TradeHistory
from conf.clock import SECOND_NS
from conf.instrument import Instrument
from conf.market import KR, hours_of, to_local

AUCTIONS = frozenset({"opening_auction", "closing_auction"})
CONTINUOUS = frozenset({"pre_market", "regular", "after_market", "day_market"})
CLOSING_PRICE = "closing_price"
LEADER_PULL = 0.2
"""How much nearer to the leader's fair value an event brings the one that follows."""
UNLIMITED_SIZE = 1 << 40


class Listing:
    """One instrument: its orders, its day, its last book. On NXT it follows `leader`, the stock on KRX."""

    def __init__(self, instrument: Instrument, seed: int, leader: Listing | None = None) -> None:
        self.instrument = instrument
        self.leader = leader
        self.random = Random(f"{seed}:{instrument}")
        self.history = TradeHistory()
        self.phase: str | None = None
        self.last_book: Book | None = None
        self.last_event_s = 0
        is_korean = instrument.market is KR
        self._grid_type = KrxPriceGrid if is_korean else CentPriceGrid
        # 1,600 to 800,000 won; 6 to 630 dollars in 1/10,000
        close = self._grid_type.round_down(int(10 ** self.random.uniform(*((3.2, 5.9) if is_korean else (4.8, 6.8)))))
        volume, odd = int(10 ** self.random.uniform(5, 7)), self.random.randrange(10**6)
        listed_shares = int(10 ** self.random.uniform(7, 9.5))
        if leader is not None:
            close, listed_shares = leader.day.previous_close, leader.day.listed_shares
        self._reset_day("", close, volume, volume * close + odd, listed_shares)

    def _reset_day(self, date: str, close: int, volume: int, value: int, listed_shares: int) -> None:
        self.grid = self._grid_type(close)
        self.day = DailyStats(date, close, volume, value, listed_shares, self.grid.lower, self.grid.upper)
        self.history.begin_day(self.day)
        self.flow = OrderFlow(self.random, self.grid, close)
        self.book = OrderBook()
        self.last_book = None

    def begin_day(self, date: str) -> None:
        """Start a day: yesterday's close and volume become the previous ones, all orders are removed."""
        old = self.day
        close = self.find_previous_close(date)
        if old.date and old.last:
            self._reset_day(date, close, old.cum_volume, old.cum_value, old.listed_shares)
        else:
            self._reset_day(date, close, old.previous_volume, old.previous_value, old.listed_shares)

    def find_previous_close(self, date: str) -> int:
        """The close that counts on `date`: the leader's, who may or may not have begun that day; else the last price."""
        if self.leader is not None:
            return self.leader.find_previous_close(date)
        day = self.day
        return (
            day.previous_close
            if day.date == date or not (day.date and day.last)
            else self._grid_type.round_down(day.last)
        )

    def find_trading_date(self, exch_s: int) -> str:
        """The trading day of a second, YYYYMMDD: the date where the venue's sessions are."""
        return f"{to_local(exch_s * SECOND_NS, hours_of(self.instrument.venue).zone):%Y%m%d}"

    def format_time(self, exch_s: int) -> str:
        """The exchange's time of a second, HHMMSS."""
        return f"{self.instrument.market.to_local(exch_s * SECOND_NS):%H%M%S}"

    def best_indexes(self) -> tuple[int | None, int | None]:
        """Indexes of the best ask and the best bid, None without orders."""
        return self.book.asks.best(), self.book.bids.best()

    def run_event(self, phase: str) -> list[Execution]:
        """One event of `phase`; what it executed."""
        if phase in AUCTIONS:
            self.flow.add_auction_orders(self.book)
        elif phase in CONTINUOUS:
            return self._follow_leader() or self.flow.generate_event(self.book)
        elif phase == CLOSING_PRICE and self.day.last and self.random.random() < 0.1:
            return [Execution(self.day.last, self.flow.draw_size(), -1)]
        return []

    def pull_toward(self, price: int) -> None:
        """From now on `price` is where traders think the stock belongs; 0 is no price."""
        if price:
            self.flow.mean_value, self.flow.mean_reversion = self.grid.find_index(price), LEADER_PULL

    def _follow_leader(self) -> list[Execution]:
        """Follow the leader: its price is the fair one, and what crosses its quotes is traded away at once."""
        leader = self.leader
        if leader is None:
            return []
        self.pull_toward(leader.grid.prices[round(leader.flow.fair_value)])
        if leader.phase not in CONTINUOUS or leader.day.date != self.day.date:
            return []
        facing_ask, facing_bid = leader.best_indexes()
        if facing_ask is not None and (crossed := self.book.bids.execute(UNLIMITED_SIZE, facing_ask)):
            return [Execution(self.grid.prices[index], size, -1) for index, size in crossed]
        if facing_bid is not None and (crossed := self.book.asks.execute(UNLIMITED_SIZE, facing_bid)):
            return [Execution(self.grid.prices[index], size, 1) for index, size in crossed]
        return []

    def end_phase(self, phase: str | None) -> list[Execution]:
        """The end of `phase`: an auction executes; the mid-price orders of continuous trading lapse."""
        self.flow.mid_side = self.flow.mid_size = 0
        if phase not in AUCTIONS:
            return []
        found = self.book.uncross()
        return [] if found is None else [Execution(self.grid.prices[found[0]], found[1], 0)]

    def build_book(self, phase: str, exch_s: int, at: str, mono_ns: int) -> Book:
        """The book as it is now, without an id."""
        prices = self.grid.prices
        expected_price = expected_size = mid_price = 0
        if phase in AUCTIONS:
            found = self.book.find_equilibrium()
            if found is not None:
                expected_price, expected_size = prices[found[0]], found[1]
            asks, bids = self.book.levels_after_auction(expected_size)
        else:
            asks = [(index, self.book.asks.total[index]) for index in self.book.asks.top_levels()]
            bids = [(index, self.book.bids.total[index]) for index in self.book.bids.top_levels()]
            mid_price = self.flow.compute_mid_price(self.book)
        blank = [0] * LEVELS
        return Book(
            id=0,
            instrument=self.instrument,
            day=self.day,
            phase=phase,
            exch_s=exch_s,
            at=at,
            mono_ns=mono_ns,
            ask_price=([prices[index] for index, _ in asks] + blank)[:LEVELS],
            ask_size=([size for _, size in asks] + blank)[:LEVELS],
            bid_price=([prices[index] for index, _ in bids] + blank)[:LEVELS],
            bid_size=([size for _, size in bids] + blank)[:LEVELS],
            cum_volume=self.day.cum_volume,
            expected_price=expected_price,
            expected_size=expected_size,
            mid_price=mid_price,
            mid_size=self.flow.mid_size if mid_price else 0,
            mid_side=self.flow.mid_side if mid_price and self.flow.mid_size else 0,
        )
