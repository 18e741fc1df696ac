"""The rate of calls: learned, bounded, and close to what is allowed."""

from __future__ import annotations

from brokers.simulator.gateway.token_bucket import TokenBucket
from collectorctl.recover.download.rate_limiter import RateLimiter


def played(calls: int, first: float, most: float, allowed: float) -> tuple[float, int]:
    """Seconds that many answered calls take against a bucket of five, and how many were refused."""
    limiter, quota = RateLimiter(first, most), TokenBucket(5, allowed)
    now_s, refused, answered = 0.0, 0, 0
    while answered < calls:
        now_s += limiter.wait_s(now_s)
        limiter.on_call(now_s)
        if quota.try_acquire("key", now_s):
            limiter.on_success()
            answered += 1
        else:
            limiter.on_refusal()
            refused += 1
            now_s += 1.0
    return now_s, refused


def test_what_the_vendor_allows_is_used_to_within_a_twentieth() -> None:
    """334 pages, wherever the limit lies below the ceiling of 4.5 a second."""
    for allowed in (4.5, 4.0, 3.0):
        seconds, refused = played(334, 4.5, 4.5, allowed)
        assert seconds < 1.05 * 334 / allowed, (allowed, seconds)
        assert refused < 15, (allowed, refused)


def test_it_begins_slowly_and_never_exceeds_the_ceiling() -> None:
    """One a second at first; no second has more than five calls."""
    limiter = RateLimiter(1.0, 4.5)
    now_s, at = 0.0, []
    for _ in range(60):
        now_s += limiter.wait_s(now_s)
        limiter.on_call(now_s)
        limiter.on_success()
        at.append(now_s)

    assert at[1] - at[0] > 0.79
    assert all(later - earlier > 0.99 for earlier, later in zip(at, at[5:], strict=False))
    assert limiter.rate == 4.5


def test_a_refusal_halves_the_rate() -> None:
    """And it comes back to just below where it was refused."""
    limiter = RateLimiter(4.0, 4.5)
    limiter.on_refusal()

    assert 2.0 == limiter.rate
    for _ in range(5):
        limiter.on_success()
    assert 3.8 < limiter.rate < 3.95
