"""Limit of connections an hour for one key (pure).

    attempts of the last hour   1 .. 30 at any pace   31, 32, ... one a minute        (90 an hour)

Guarantees:
    * In no hour are there more than `per_hour`; a third of them may come at any pace, so that the ordinary reconnect waits for
      nothing, the others come evenly spread, so that no wait is longer than a few minutes.
    * Times are mono_ns passed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from conf.clock import HOUR_NS


class ConnectLimit:
    """The connections of one key."""

    def __init__(self, per_hour: int, past_ns: Iterable[int] = ()) -> None:
        """`per_hour`: 2 or more; `past_ns`: connections of earlier processes."""
        self.per_hour = per_hour
        self._burst = max(1, per_hour // 3)
        self._spacing_ns = -(-HOUR_NS // (per_hour - self._burst))
        self._times_ns = deque(sorted(past_ns)[-per_hour:])

    def on_connect(self, mono_ns: int) -> None:
        """A connection is attempted."""
        self._times_ns.append(mono_ns)

    def count(self, mono_ns: int) -> int:
        """Attempts of the last hour."""
        while self._times_ns and mono_ns - self._times_ns[0] >= HOUR_NS:
            self._times_ns.popleft()
        return len(self._times_ns)

    def wait_ns(self, mono_ns: int) -> int:
        """How long until another one is allowed; 0: now."""
        if self.count(mono_ns) < self._burst:
            return 0
        return max(0, self._times_ns[-1] + self._spacing_ns - mono_ns)
