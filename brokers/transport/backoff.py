"""Exponential backoff with jitter.

Guarantees:
    * The n-th pause in a row is first x 2^n, at most `max_s`, times 0.8 to 1.2.
"""

from __future__ import annotations

import random

JITTER = 0.2


class Backoff:
    """The pauses of one connection."""

    def __init__(self, first_s: float, max_s: float) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._attempts = 0

    def next_s(self) -> float:
        """The next pause in seconds."""
        pause = min(self._first_s * 2 ** min(self._attempts, 30), self._max_s)
        self._attempts += 1
        return pause * random.uniform(1 - JITTER, 1 + JITTER)

    def reset(self) -> None:
        """Start again at the first pause, after a success."""
        self._attempts = 0
