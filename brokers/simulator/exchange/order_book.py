"""Limit order book: price levels in time priority, and the call auction over them (pure).

    asks   index 57  [12, 300]        every level is a queue of order sizes, oldest first;
           index 56  [4, 4, 90]       an incoming order consumes the queue from its front: one
    -------------------------        trade for each order it meets
    bids   index 55  [70]
           index 53  [10, 2]

Guarantees:
    * Prices are indexes into a PriceGrid.
    * In continuous trading the book never stays crossed; matching conserves shares on both sides.
    * An auction executes the largest volume that can be executed at one price.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from itertools import accumulate

LEVELS = 10
AUCTION_LEVELS = 3


class BookSide:
    """One side of the book. `sign` is +1 where better means lower (asks), -1 for bids."""

    def __init__(self, sign: int) -> None:
        self.sign = sign
        self.queues: dict[int, deque[int]] = {}
        self.total: dict[int, int] = {}
        self.indexes: list[int] = []

    def __len__(self) -> int:
        return len(self.indexes)

    def best(self) -> int | None:
        """Index of the best level, None without orders."""
        if not self.indexes:
            return None
        return self.indexes[0] if self.sign > 0 else self.indexes[-1]

    def in_order(self) -> list[int]:
        """Indexes of all levels, best first."""
        return self.indexes if self.sign > 0 else self.indexes[::-1]

    def top_levels(self, max_levels: int = LEVELS) -> list[int]:
        """Indexes of the visible levels, best first."""
        return self.indexes[:max_levels] if self.sign > 0 else self.indexes[: -max_levels - 1 : -1]

    def add(self, index: int, size: int) -> None:
        """Rest an order of `size` behind the others at `index`."""
        if index not in self.queues:
            self.queues[index] = deque()
            self.total[index] = 0
            insort(self.indexes, index)
        self.queues[index].append(size)
        self.total[index] += size

    def cancel(self, index: int, place: int) -> int:
        """Withdraw the order at `place` of a level's queue; its size."""
        queue = self.queues[index]
        size = queue[place]
        del queue[place]
        self._reduce(index, size)
        return size

    def execute(self, size: int, worst: int) -> list[tuple[int, int]]:
        """Execute up to `size` shares at levels not worse than `worst`: (index, size) of each order met, in order."""
        fills = []
        while size and self.indexes:
            index = self.indexes[0] if self.sign > 0 else self.indexes[-1]
            if (index - worst) * self.sign > 0:
                break
            queue = self.queues[index]
            filled = min(size, queue[0])
            if filled == queue[0]:
                queue.popleft()
            else:
                queue[0] -= filled
            self._reduce(index, filled)
            size -= filled
            fills.append((index, filled))
        return fills

    def _reduce(self, index: int, size: int) -> None:
        self.total[index] -= size
        if not self.queues[index]:
            del self.queues[index], self.total[index]
            del self.indexes[bisect_left(self.indexes, index)]


class OrderBook:
    """Both sides of one instrument."""

    def __init__(self) -> None:
        self.asks = BookSide(+1)
        self.bids = BookSide(-1)

    def get_side(self, side: int) -> BookSide:
        """The side where an order of `side` (+1 buy, -1 sell) rests."""
        return self.bids if side > 0 else self.asks

    def submit(self, side: int, index: int, size: int) -> list[tuple[int, int]]:
        """A limit order in continuous trading: what it executes at once, (index, size) each; the rest is booked."""
        fills = self.get_side(-side).execute(size, index)
        rest = size - sum(filled for _, filled in fills)
        if rest:
            self.get_side(side).add(index, rest)
        return fills

    def find_equilibrium(self) -> tuple[int, int] | None:
        """(index, size) at which a call auction would execute now, None if nothing would.

        The largest volume; of several prices the least imbalance, then the one nearest the middle.
        """
        best_ask, best_bid = self.asks.best(), self.bids.best()
        if best_ask is None or best_bid is None or best_bid < best_ask:
            return None
        span = range(best_ask, best_bid + 1)
        supply = list(accumulate(self.asks.total.get(index, 0) for index in span))
        demand = list(accumulate(self.bids.total.get(index, 0) for index in reversed(span)))[::-1]
        deeper = [(min(s, d), -abs(s - d)) for s, d in zip(supply, demand, strict=True)]
        best = max(deeper)
        places = [place for place, value in enumerate(deeper) if value == best]
        return best_ask + places[len(places) // 2], best[0]

    def uncross(self) -> tuple[int, int] | None:
        """Execute the call auction: (index, size) of the one trade, None if nothing executed."""
        found = self.find_equilibrium()
        if found is None:
            return None
        _, size = found
        last = max(self.asks.indexes[-1], self.bids.indexes[-1])
        self.asks.execute(size, last)
        self.bids.execute(size, 0)
        return found

    def levels_after_auction(self, size: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Both sides after the execution of `size` shares: (index, size) of asks and bids, best first."""
        sides = []
        for book_side in (self.asks, self.bids):
            left, levels = size, []
            for index in book_side.in_order():
                rest = book_side.total[index] - left
                left = max(0, -rest)
                if rest > 0:
                    levels.append((index, rest))
                    if len(levels) == AUCTION_LEVELS:
                        break
            sides.append(levels)
        return sides[0], sides[1]
