"""A throughput limit: a bucket of calls for each key, that fills up again with time.

Promises: pure: the time is an argument; a refused call costs nothing.
Leaves to others: what a key is, and the words of a refusal (kiwoom_rest.py, kis_quotations.py).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass
class Quota:
    """`burst` calls at once, `per_s` more each second, for every key of its own."""

    burst: float
    per_s: float
    _left: dict[Hashable, tuple[float, float]] = field(default_factory=dict)

    def take(self, key: Hashable, now_s: float) -> bool:
        """Whether one more call is allowed now."""
        left, then_s = self._left.get(key, (self.burst, now_s))
        left = min(self.burst, left + (now_s - then_s) * self.per_s)
        allowed = left >= 1
        self._left[key] = (left - allowed, now_s)
        return allowed
