"""Tick sizes and daily price limits of KRX (pure).

    price below    2,000  5,000  20,000  50,000  200,000  500,000  above
    tick               1      5      10      50      100      500  1,000        won

US prices are cents, counted in 1/10,000 of a dollar; they have no limits but those of this grid.

Guarantees:
    * Every price of a PriceGrid is whole won, lies between the limits and on a tick (docs/wire/kiwoom.md 9).

Not handled here:
    * Half-tick prices of mid-price trades, which are off the grid by nature.
"""

from __future__ import annotations

from bisect import bisect_left

BANDS = ((2_000, 1), (5_000, 5), (20_000, 10), (50_000, 50), (200_000, 100), (500_000, 500))
TOP_TICK = 1_000
LIMIT_PERCENT = 30


def find_tick_size(price: int) -> int:
    """The tick size at `price`, won."""
    for below, size in BANDS:
        if price < below:
            return size
    return TOP_TICK


def floor_to_tick(price: int) -> int:
    """The highest price on the grid that is not above `price`."""
    return price - price % find_tick_size(price)


def compute_limits(previous_close: int) -> tuple[int, int]:
    """Lowest and highest price of the day: 30 % off the previous close, rounded inward to the grid."""
    reach = previous_close * LIMIT_PERCENT // 100
    reach -= reach % find_tick_size(previous_close)
    lower = floor_to_tick(previous_close - reach)
    if lower < previous_close - reach:
        lower += find_tick_size(lower)
    return lower, floor_to_tick(previous_close + reach)


class KrxPriceGrid:
    """All prices of one day, ascending; a price's place in it is its index."""

    def __init__(self, previous_close: int) -> None:
        self.lower, self.upper = compute_limits(previous_close)
        self.prices: list[int] = []
        price = self.lower
        while price <= self.upper:
            self.prices.append(price)
            price += find_tick_size(price)

    @staticmethod
    def round_down(price: int) -> int:
        """The highest grid price that is not above `price`."""
        return floor_to_tick(price)

    def find_index(self, price: int) -> int:
        """The index of the lowest grid price that is not below `price`, within the limits."""
        return min(bisect_left(self.prices, price), len(self.prices) - 1)


CENT = 100
"""In 1/10,000 of a dollar."""


class CentPriceGrid(KrxPriceGrid):
    """The grid of a US instrument: every cent, 30 % around the previous close."""

    def __init__(self, previous_close: int) -> None:
        reach = previous_close * LIMIT_PERCENT // 100
        self.lower, self.upper = self.round_down(previous_close - reach) + CENT, self.round_down(previous_close + reach)
        self.prices = list(range(self.lower, self.upper + 1, CENT))

    @staticmethod
    def round_down(price: int) -> int:
        """The highest whole cent that is not above `price`."""
        return price - price % CENT
