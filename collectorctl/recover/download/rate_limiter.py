r"""Adaptive rate limiter of one kind of call (pure).

    calls/s   4.5 ┤        /\    ______  increases slowly above the last refusal
                  ┤      /   \  /
                  ┤    /      \/          halved when refused, then quickly back to just below that rate
              1.0 ┤  /

Guarantees:
    * The rate never exceeds `max_calls_per_s`; a refusal halves it.
"""

from __future__ import annotations

INCREASE_FACTOR, SLOW_INCREASE_FACTOR = 1.25, 1.0002
SAFE_RATE_SHARE = 0.96
"""The rate after a refusal, as a share of the refused rate."""
MIN_RATE = 0.1


class RateLimiter:
    """One kind of call of one app key (docs/wire/kiwoom.md 1.6); times in monotonic seconds."""

    def __init__(self, initial_rate: float, max_rate: float) -> None:
        self.rate = initial_rate
        self._max_rate = max_rate
        self._safe_rate = max_rate
        self._last_call_s: float | None = None

    def wait_s(self, now_s: float) -> float:
        """How long to wait before the next call."""
        return 0.0 if self._last_call_s is None else max(0.0, self._last_call_s + 1 / self.rate - now_s)

    def on_call(self, now_s: float) -> None:
        """A call is made; up to half a pause of delay of the last one is made up for."""
        due_s = now_s if self._last_call_s is None else self._last_call_s + 1 / self.rate
        self._last_call_s = min(now_s, max(due_s, now_s - 0.5 / self.rate))

    def on_success(self) -> None:
        """It was answered."""
        faster = self.rate * INCREASE_FACTOR
        self.rate = min(
            self._max_rate,
            faster if faster <= self._safe_rate else max(self.rate * SLOW_INCREASE_FACTOR, self._safe_rate),
        )

    def on_refusal(self) -> None:
        """It came too soon."""
        self._safe_rate = max(MIN_RATE, self.rate * SAFE_RATE_SHARE)
        self.rate = max(MIN_RATE, self.rate / 2)
