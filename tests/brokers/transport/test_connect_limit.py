"""How many connections a key may make in an hour."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from brokers.transport.connect_limit import ConnectLimit
from conf.clock import HOUR_NS, SECOND_NS


@given(st.integers(3, 200), st.lists(st.integers(0, 3 * HOUR_NS), min_size=1, max_size=400))
def test_no_hour_has_more_connections_than_allowed(per_hour: int, pauses_ns: list[int]) -> None:
    """However they are wanted, one after another as soon as both the caller and the limit have waited."""
    limit, now_ns, times_ns = ConnectLimit(per_hour), 0, []
    for pause_ns in pauses_ns:
        now_ns += pause_ns // 100
        now_ns += limit.wait_ns(now_ns)
        limit.on_connect(now_ns)
        times_ns.append(now_ns)

    most = max(sum(1 for ns in times_ns if first <= ns < first + HOUR_NS) for first in times_ns)
    assert most <= per_hour


def test_a_third_comes_at_any_pace_and_the_rest_evenly() -> None:
    """Of 90 an hour 30 are free, then one a minute; no wait is longer."""
    limit, waits_s = ConnectLimit(90), []
    now_ns = 0
    for _ in range(200):
        waits_s.append(limit.wait_ns(now_ns) / SECOND_NS)
        now_ns += limit.wait_ns(now_ns)
        limit.on_connect(now_ns)

    assert set(waits_s[:30]) == {0}
    assert set(waits_s[30:]) == {60}


def test_connections_of_an_earlier_process_count() -> None:
    """Those that are an hour old do not."""
    past_ns = [HOUR_NS, *range(2 * HOUR_NS, 2 * HOUR_NS + 30)]

    limit = ConnectLimit(90, past_ns)

    assert limit.count(2 * HOUR_NS + 60) == 30
    assert limit.wait_ns(2 * HOUR_NS + 60) > 59 * SECOND_NS
    assert limit.count(3 * HOUR_NS) == 29 and limit.wait_ns(3 * HOUR_NS) == 0
