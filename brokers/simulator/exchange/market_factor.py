"""Common market factor: a random walk that all US instruments share (pure).

    exchange second  ─>  step of STEP_S seconds  ─>  one move for all instruments, drawn from seed and step alone

Guarantees:
    * A move depends on nothing but the seed and the second, so the order of instruments does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

STEP_S = 10
RETURN_STDDEV = 0.0004
"""Standard deviation of one move, as a share of the price."""
MAX_STEPS = 60
"""Moves made up for after a pause; a longer one is a new beginning."""


@dataclass
class MarketFactor:
    """The walk of one market."""

    seed: int
    _returns: dict[int, float] = field(default_factory=dict)

    def return_between(self, from_s: int, to_s: int) -> float:
        """The share of its price by which the market moved between two seconds."""
        last = to_s // STEP_S
        return sum(self._draw_return(step) for step in range(max(from_s // STEP_S, last - MAX_STEPS) + 1, last + 1))

    def _draw_return(self, step: int) -> float:
        if step not in self._returns:
            if len(self._returns) > 10_000:
                self._returns.clear()
            self._returns[step] = Random(f"{self.seed}:tide:{step}").gauss(0.0, RETURN_STDDEV)
        return self._returns[step]
