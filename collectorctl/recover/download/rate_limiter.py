"""How fast one kind of call may be made: learned from the answers.

    calls/s   4.5 ┤        /\\    ______  creeps on above the last refusal
                  ┤      /   \\  /
                  ┤    /      \\/          halved when refused, then quickly back to just below where that was
              1.0 ┤  /

Promises: pure; never above `most`; a refusal halves the rate.
Leaves to others: the clock, waiting, calling (fetch.py).
"""

from __future__ import annotations

SPEED_UP, CREEP = 1.25, 1.0002
BELOW = 0.96
"""Where it goes back to after a refusal, as a share of the rate that was refused."""
SLOWEST = 0.1


class Limiter:
    """One kind of call of one app key (spec kiwoom 1.6); times in monotonic seconds."""

    def __init__(self, first: float, most: float) -> None:
        self.rate = first
        self._most = most
        self._safe = most
        self._last_s: float | None = None

    def wait_s(self, now_s: float) -> float:
        """How long to wait before the next call."""
        return 0.0 if self._last_s is None else max(0.0, self._last_s + 1 / self.rate - now_s)

    def called(self, now_s: float) -> None:
        """A call goes out; up to half a pause that the last one came late is made up for."""
        due_s = now_s if self._last_s is None else self._last_s + 1 / self.rate
        self._last_s = min(now_s, max(due_s, now_s - 0.5 / self.rate))

    def succeeded(self) -> None:
        """It was answered."""
        faster = self.rate * SPEED_UP
        self.rate = min(self._most, faster if faster <= self._safe else max(self.rate * CREEP, self._safe))

    def refused(self) -> None:
        """It came too soon."""
        self._safe = max(SLOWEST, self.rate * BELOW)
        self.rate = max(SLOWEST, self.rate / 2)
