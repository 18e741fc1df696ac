"""One instrument on one venue of the simulated exchange: its orders, its day, the last book it showed.

Leaves to others: phases and ids (market.py), both venues of a stock as one (consolidated.py).
"""

from __future__ import annotations

from random import Random

from brokers.simulator.exchange.models import Book, Day
from brokers.simulator.exchange.order_book import LEVELS, OrderBook
from brokers.simulator.exchange.order_flow import Fill, Flow
from brokers.simulator.exchange.price_grid import Cents, Grid
from brokers.simulator.exchange.trade_history import Tape
from conf.clock import SECOND_NS
from conf.instrument import Instrument
from conf.market import KR, hours_of, local

AUCTIONS = frozenset({"opening_auction", "closing_auction"})
CONTINUOUS = frozenset({"pre_market", "regular", "after_market", "day_market"})
CLOSING_PRICE = "closing_price"
LED = 0.2
"""How much nearer to the leader's fair value an event brings the one that follows."""
ALL = 1 << 40


class Listing:
    """One instrument: its orders, its day, the last book it showed. On NXT it follows `leader`, the same stock on KRX."""

    def __init__(self, instrument: Instrument, seed: int, leader: Listing | None = None) -> None:
        self.instrument = instrument
        self.leader = leader
        self.random = Random(f"{seed}:{instrument}")
        self.tape = Tape()
        self.phase: str | None = None
        self.shown: Book | None = None
        self.seen_s = 0
        korean = instrument.market is KR
        self._grid = Grid if korean else Cents
        # 1,600 to 800,000 won; 6 to 630 dollars in 1/10,000
        close = self._grid.floor(int(10 ** self.random.uniform(*((3.2, 5.9) if korean else (4.8, 6.8)))))
        volume, odd = int(10 ** self.random.uniform(5, 7)), self.random.randrange(10**6)
        listed = int(10 ** self.random.uniform(7, 9.5))
        if leader is not None:
            close, listed = leader.day.previous_close, leader.day.listed_shares
        self._begin("", close, volume, volume * close + odd, listed)

    def _begin(self, date: str, close: int, volume: int, value: int, listed: int) -> None:
        self.grid = self._grid(close)
        self.day = Day(date, close, volume, value, listed, self.grid.lower, self.grid.upper)
        self.tape.begin(self.day)
        self.flow = Flow(self.random, self.grid, close)
        self.book = OrderBook()
        self.shown = None

    def new_day(self, date: str) -> None:
        """Yesterday's close and volume become the previous ones; all orders are gone."""
        old = self.day
        close = self.close_before(date)
        if old.date and old.last:
            self._begin(date, close, old.cum_volume, old.cum_value, old.listed_shares)
        else:
            self._begin(date, close, old.previous_volume, old.previous_value, old.listed_shares)

    def close_before(self, date: str) -> int:
        """The close that counts on `date`: the leader's, who may or may not have begun that day; else the last price."""
        if self.leader is not None:
            return self.leader.close_before(date)
        day = self.day
        return day.previous_close if day.date == date or not (day.date and day.last) else self._grid.floor(day.last)

    def date(self, exch_s: int) -> str:
        """The trading day of a second, YYYYMMDD: the date where the venue's sessions are."""
        return f"{local(exch_s * SECOND_NS, hours_of(self.instrument.venue).zone):%Y%m%d}"

    def at(self, exch_s: int) -> str:
        """The exchange's time of a second, HHMMSS."""
        return f"{self.instrument.market.local(exch_s * SECOND_NS):%H%M%S}"

    def best(self) -> tuple[int | None, int | None]:
        """Indexes of the best ask and the best bid, None where there is no order."""
        return self.book.asks.best(), self.book.bids.best()

    def act(self, phase: str) -> list[Fill]:
        """One event of `phase`; what it executed."""
        if phase in AUCTIONS:
            self.flow.gather(self.book)
        elif phase in CONTINUOUS:
            return self._catch_up() or self.flow.trade_on(self.book)
        elif phase == CLOSING_PRICE and self.day.last and self.random.random() < 0.1:
            return [Fill(self.day.last, self.flow.size(), -1)]
        return []

    def follow(self, price: int) -> None:
        """From now on `price` is where traders think the stock belongs; 0 is no price."""
        if price:
            self.flow.home, self.flow.pull = self.grid.index(price), LED

    def _catch_up(self) -> list[Fill]:
        """Follow the leader: its price is the fair one, and what crosses its quotes is traded away at once."""
        leader = self.leader
        if leader is None:
            return []
        self.follow(leader.grid.prices[round(leader.flow.fair)])
        if leader.phase not in CONTINUOUS or leader.day.date != self.day.date:
            return []
        facing_ask, facing_bid = leader.best()
        if facing_ask is not None and (crossed := self.book.bids.take(ALL, facing_ask)):
            return [Fill(self.grid.prices[index], size, -1) for index, size in crossed]
        if facing_bid is not None and (crossed := self.book.asks.take(ALL, facing_bid)):
            return [Fill(self.grid.prices[index], size, 1) for index, size in crossed]
        return []

    def leave(self, phase: str | None) -> list[Fill]:
        """The end of `phase`: an auction executes; the mid-price orders of continuous trading lapse."""
        self.flow.mid_side = self.flow.mid_size = 0
        if phase not in AUCTIONS:
            return []
        found = self.book.uncross()
        return [] if found is None else [Fill(self.grid.prices[found[0]], found[1], 0)]

    def view(self, phase: str, exch_s: int, at: str, mono_ns: int) -> Book:
        """The book as it is now, without an id."""
        prices = self.grid.prices
        expected_price = expected_size = mid_price = 0
        if phase in AUCTIONS:
            found = self.book.equilibrium()
            if found is not None:
                expected_price, expected_size = prices[found[0]], found[1]
            asks, bids = self.book.after_auction(expected_size)
        else:
            asks = [(index, self.book.asks.total[index]) for index in self.book.asks.shown()]
            bids = [(index, self.book.bids.total[index]) for index in self.book.bids.shown()]
            mid_price = self.flow.mid_price(self.book)
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
