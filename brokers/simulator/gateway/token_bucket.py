"""Token bucket per key (pure).

Guarantees:
    * The time is an argument; a refused call costs nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass
class TokenBucket:
    """`burst` calls at once, `per_s` more each second, for every key of its own."""

    burst: float
    per_s: float
    _tokens: dict[Hashable, tuple[float, float]] = field(default_factory=dict)

    def try_acquire(self, key: Hashable, now_s: float) -> bool:
        """Whether one more call is allowed now."""
        tokens, last_s = self._tokens.get(key, (self.burst, now_s))
        tokens = min(self.burst, tokens + (now_s - last_s) * self.per_s)
        allowed = tokens >= 1
        self._tokens[key] = (tokens - allowed, now_s)
        return allowed
