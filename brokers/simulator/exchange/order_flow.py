"""Random order generator: seeded, plausible, rich in the cases that decoders get wrong.

    fair value (random walk, pulled to the previous close, or to where the leader is)
        |  lean: above the book's middle -> more buyers
        v
    limit 40 %   cancel 30 %   market 20 % (some sweep many orders)   mid-price 10 %

Guarantees:
    * Prices never leave the grid; both sides of the book keep orders. The result depends on its Random alone.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from brokers.simulator.exchange.order_book import BookSide, OrderBook
from brokers.simulator.exchange.price_grid import KrxPriceGrid

MAX_LEVELS = 24
MAX_ORDERS_PER_LEVEL = 12


class Execution(NamedTuple):
    """One execution: price in won, aggressor's side."""

    price: int
    size: int
    side: int


class EventMix(NamedTuple):
    """What an event of continuous trading is, as cumulative probabilities; the rest of 1 meets at the mid price."""

    limit: float
    cancel: float
    market: float


NORMAL_MIX = EventMix(0.40, 0.70, 0.90)
BACKFILL_MIX = EventMix(0.45, 0.50, 0.95)
"""More trades for each event: for a history that is made at once."""


class OrderFlow:
    """The traders of one instrument on one day."""

    def __init__(self, random: Random, grid: KrxPriceGrid, previous_close: int) -> None:
        self.random = random
        self.grid = grid
        self.mean_value = self.fair_value = float(grid.find_index(previous_close))
        self.mean_reversion = 0.001
        self.depth = 6 if random.random() < 0.15 else 14  # one instrument in seven has fewer than ten levels
        self.mid_side = 0
        self.mid_size = 0

    def draw_size(self) -> int:
        """A plausible order: very often 1 or 10, sometimes thousands."""
        roll = self.random.random()
        if roll < 0.2:
            return 1
        if roll < 0.3:
            return 10
        return min(20_000, 1 + int(self.random.lognormvariate(3.0, 1.3)))

    def restore_depth(self, book: OrderBook) -> None:
        """Give a book that is too empty to trade in its usual depth."""
        centre = round(self.fair_value)
        for side in (1, -1):
            book_side = book.get_side(side)
            other = book.get_side(-side).best()
            for distance in range(1, 2 * self.depth):
                if len(book_side) >= self.depth:
                    break
                index = centre - side * distance
                crossed = other is not None and (other - index) * side <= 0
                if 0 <= index < len(self.grid.prices) and index not in book_side.total and not crossed:
                    for _ in range(self.random.randint(1, 4)):
                        book_side.add(index, self.draw_size())

    def compute_mid_price(self, book: OrderBook) -> int:
        """Midpoint of the best quotes, won; 0 where it is fractional or a side is empty."""
        ask, bid = book.asks.best(), book.bids.best()
        if ask is None or bid is None:
            return 0
        twice = self.grid.prices[ask] + self.grid.prices[bid]
        return 0 if twice % 2 else twice // 2

    def generate_event(self, book: OrderBook, mix: EventMix = NORMAL_MIX) -> list[Execution]:
        """One event of continuous trading, applied to `book`."""
        self._drift()
        if min(len(book.asks), len(book.bids)) < self.depth // 2:
            self.restore_depth(book)
        side = self._draw_side(book)
        roll = self.random.random()
        if roll < mix.limit:
            return self._send_limit_order(book, side)
        if roll < mix.cancel:
            self._cancel(book.get_side(side))
            return []
        if roll < mix.market:
            return self._send_market_order(book, side)
        return self._send_mid_price_order(book, side)

    def add_auction_orders(self, book: OrderBook) -> None:
        """One event of a call auction: orders pile up across each other, nothing executes."""
        self._drift()
        if min(len(book.asks), len(book.bids)) < 4:
            for side in (1, -1) * 8:
                self._add_auction_order(book, side)
        side = self.random.choice((1, -1))
        if self.random.random() < 0.25 and len(book.get_side(side)) > 6:
            self._cancel(book.get_side(side))
        else:
            self._add_auction_order(book, side)

    def shift_fair_value(self, share: float) -> None:
        """The whole market moved by this share of the price: the fair value moves along."""
        at = min(max(round(self.fair_value), 1), len(self.grid.prices) - 1)
        steps = share * self.grid.prices[at] / (self.grid.prices[at] - self.grid.prices[at - 1])
        self.fair_value += steps
        self.mean_value += steps

    def _drift(self) -> None:
        self.fair_value += self.random.gauss(0.0, 0.25) + (self.mean_value - self.fair_value) * self.mean_reversion
        self.fair_value = min(max(self.fair_value, 0.0), len(self.grid.prices) - 1.0)

    def _draw_side(self, book: OrderBook) -> int:
        ask, bid = book.asks.best(), book.bids.best()
        middle = self.fair_value if ask is None or bid is None else (ask + bid) / 2
        lean = min(max((self.fair_value - middle) * 0.08, -0.3), 0.3)
        return 1 if self.random.random() < 0.5 + lean else -1

    def _send_limit_order(self, book: OrderBook, side: int) -> list[Execution]:
        own, other = book.get_side(side), book.get_side(-side)
        best, facing = own.best(), other.best()
        if best is None:
            self.restore_depth(book)
            return []
        distance = 0
        while distance < 12 and self.random.random() < 0.6:
            distance += 1
        index = best - side * distance
        if facing is not None and (facing - best) * side > 1 and self.random.random() < 0.7:
            index = best + side  # improve upon the best quote
        if not 0 <= index < len(self.grid.prices) or len(own.queues.get(index, ())) >= MAX_ORDERS_PER_LEVEL:
            self._cancel(own)
            return []
        return self._to_executions(book.submit(side, index, self.draw_size()), side)

    def _cancel(self, book_side: BookSide) -> None:
        if not book_side:
            return
        levels = book_side.in_order()
        far = len(levels) > MAX_LEVELS
        index = levels[-1] if far else levels[min(int(self.random.expovariate(0.3)), len(levels) - 1)]
        book_side.cancel(index, self.random.randrange(len(book_side.queues[index])))

    def _send_market_order(self, book: OrderBook, side: int) -> list[Execution]:
        facing = book.get_side(-side)
        best = facing.best()
        if best is None:
            return []
        size = self.draw_size()
        if self.random.random() < 0.1:  # a sweep
            size = max(size, facing.total[best] + self.draw_size())
        reach = best + side * self.random.choice((0, 0, 1, 3))
        return self._to_executions(facing.execute(size, reach), side)

    def _send_mid_price_order(self, book: OrderBook, side: int) -> list[Execution]:
        price = self.compute_mid_price(book)
        if not price:
            return []
        if self.mid_side != -side:  # no counterparty: rest
            self.mid_side, self.mid_size = side, self.mid_size * (self.mid_side == side) + self.draw_size()
            return []
        size = min(self.draw_size(), self.mid_size)
        self.mid_size -= size
        if not self.mid_size:
            self.mid_side = 0
        return [Execution(price, size, side)]

    def _add_auction_order(self, book: OrderBook, side: int) -> None:
        index = round(self.fair_value + self.random.gauss(0.0, 4.0))
        book.get_side(side).add(min(max(index, 0), len(self.grid.prices) - 1), self.draw_size())

    def _to_executions(self, fills: list[tuple[int, int]], side: int) -> list[Execution]:
        return [Execution(self.grid.prices[index], size, side) for index, size in fills]
