"""When ticks change hands: flapping, both down, closed markets, phases in which nothing happens; and where they find a place."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from brokers.allocation.allocate import PlannedConnection, slots_used
from brokers.allocation.failover import FailoverPolicy, FeedState, place_extra
from brokers.subscription import Subscription
from conf.instrument import parse_instrument

S = 1_000_000_000
AFTER_S, STEADY_S = 20, 60


def run(
    seconds: Iterable[int],
    up=lambda s: True,
    heard=lambda s: s,
    own_heard=lambda s: s,
    own_up=lambda s: True,
    is_open=lambda s: True,
    beat=lambda s: s,
    keys: int = 1,
) -> list[bool]:
    """Whether anything is taken over at each second; each function says how things stand at a second."""
    takeover = FailoverPolicy(AFTER_S, STEADY_S, range(1, keys + 1))
    found = []
    for second in seconds:
        other = FeedState(beat(second) * S, int(up(second)), heard(second) * S)
        own = FeedState(second * S, int(own_up(second)), own_heard(second) * S)
        found.append(bool(takeover.update(second * S, other, own, is_open(second))))
    return found


def spans(taken: list[bool]) -> list[tuple[int, int]]:
    """[begin, end) of the times in which it was taken over."""
    edges = [
        n for n in range(len(taken) + 1) if (taken[n - 1] if n else False) != (taken[n] if n < len(taken) else False)
    ]
    return list(zip(edges[::2], edges[1::2], strict=True))


def test_a_line_that_is_down_is_taken_over_and_given_back_when_it_is_steady() -> None:
    """Down from 100 to 200: taken after 20 s, given back after 60 s of being up."""
    down = range(100, 200)

    taken = run(range(400), up=lambda s: s not in down, heard=lambda s: 99 if s in down else s)

    assert spans(taken) == [(120, 260)]


def test_silence_before_books_are_expected_is_no_silence() -> None:
    """Before 08:50 Kiwoom has no books of KRX while another venue or feed has data; from then on it counts anew."""
    takeover, found = FailoverPolicy(AFTER_S, STEADY_S, [1]), []
    for second in range(300):
        peer, own = FeedState(second * S, 1, 0), FeedState(second * S, 1, second * S)
        found.append(bool(takeover.update(second * S, peer, own, True, expects_data=second >= 200)))

    ((begin, _),) = spans(found)
    assert begin >= 200 + AFTER_S


def test_an_ordinary_reconnect_is_waited_for() -> None:
    """Nineteen seconds away."""
    away = range(100, 119)

    assert True not in run(range(300), up=lambda s: s not in away, heard=lambda s: 99 if s in away else s)


def test_a_line_that_comes_and_goes_is_not_tossed_about() -> None:
    """Up for ten seconds, down for ten: never taken. Once taken, never given back until it stays up."""

    def flapping(s: int) -> bool:
        return s // 10 % 2 == 0

    assert True not in run(range(600), up=flapping)
    assert spans(run(range(700), up=lambda s: s < 100 or (s >= 130 and (flapping(s) or s >= 500)))) == [(120, 560)]


def test_while_both_are_down_nothing_is_taken_over() -> None:
    """As soon as this one is up, it takes over what has been down for long enough."""
    taken = run(range(200), up=lambda s: s < 50, heard=lambda s: min(s, 50), own_up=lambda s: s < 50 or s >= 150)

    assert spans(taken) == [(150, 200)]


def test_outside_the_sessions_nothing_is_taken_over() -> None:
    """A line that is away at night takes no slots; at the opening it has been down for long enough."""
    taken = run(range(200), up=lambda s: False, heard=lambda s: 0, is_open=lambda s: s >= 150)

    assert spans(taken) == [(150, 200)]


def test_a_phase_in_which_nothing_happens_is_no_silence() -> None:
    """Neither hears anything for two minutes; then this one hears first, by a moment."""
    quiet = range(100, 220)

    def last(s: int) -> int:
        return 99 if s in quiet else s

    assert True not in run(range(400), heard=lambda s: last(s - 1), own_heard=last)


def test_a_line_that_hears_nothing_of_what_this_one_hears_is_down() -> None:
    """Connected, but silent from 100 to 200: it is down since the first thing it did not hear."""
    taken = run(range(400), heard=lambda s: 99 if 100 <= s < 200 else s)

    assert spans(taken) == [(120, 260)]


def test_silence_does_not_count_in_a_closed_market() -> None:
    """A stray record of this line at night does not make the other one look silent."""
    assert True not in run(range(300), heard=lambda s: 10, own_heard=lambda s: s, is_open=lambda s: False)


def test_a_collector_that_hangs_or_is_gone_is_down() -> None:
    """Its page says that it is up, but its heart stopped at 100, or beat before a reboot; and a line that was never seen."""
    assert spans(run(range(200), beat=lambda s: min(s, 100), heard=lambda s: min(s, 100))) == [(126, 200)]

    assert spans(run(range(50), beat=lambda s: 10_000, heard=lambda s: 10_000)) == [(20, 50)]
    takeover = FailoverPolicy(AFTER_S, STEADY_S, [1])
    taken = [bool(takeover.update(s * S, None, FeedState(s * S, 1, s * S), True)) for s in range(30)]

    assert spans(taken) == [(20, 30)]


def test_each_connection_of_the_other_line_is_judged_by_itself() -> None:
    """Two keys, the second down: only its ticks change hands."""
    takeover = FailoverPolicy(AFTER_S, STEADY_S, [1, 2])
    for second in range(100):
        taken = takeover.update(
            second * S, FeedState(second * S, 0b01, second * S), FeedState(second * S, 1, second * S), True
        )

    assert taken == {2}


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 90)), min_size=1, max_size=12))
def test_ticks_change_hands_only_after_the_two_times(phases: list[tuple[bool, int]]) -> None:
    """Whatever a line does: taken over only when down for the one time, given back only when up for the other."""
    ups = [up for up, length in phases for _ in range(length)]

    taken = run(range(len(ups)), up=lambda s: ups[s])

    for begin, end in spans(taken):
        assert not any(ups[max(0, begin - AFTER_S) : begin + 1])
        if end < len(ups):
            assert all(ups[end - STEADY_S : end + 1])


def registrations(stream: str, *numbers: int) -> tuple[Subscription, ...]:
    """Of symbols by number."""
    return tuple(Subscription(parse_instrument(f"{n:06}"), stream) for n in numbers)


def test_ticks_of_symbols_that_are_there_cost_nothing_where_symbols_count() -> None:
    """Kiwoom, two full connections: each takes the ticks of its own symbols; a symbol of neither finds no place."""
    own = [
        PlannedConnection(1, registrations("orderbook", 1, 2)),
        PlannedConnection(2, registrations("orderbook", 3, 4)),
    ]

    more, left_out = place_extra("kiwoom", 2, own, registrations("tick", 3, 1, 9))

    assert more == {1: registrations("tick", 1), 2: registrations("tick", 3)}
    assert left_out == list(registrations("tick", 9))


def test_ticks_take_the_slots_that_are_left_where_registrations_count() -> None:
    """KIS with two slots left on one key and one on the other: the most important three."""
    own = [PlannedConnection(1, registrations("orderbook", 1)), PlannedConnection(2, registrations("orderbook", 2, 3))]

    more, left_out = place_extra("kis", 3, own, registrations("tick", 1, 2, 3, 4))

    assert more == {1: registrations("tick", 1, 2), 2: registrations("tick", 3)}
    assert left_out == list(registrations("tick", 4))


@given(
    st.sampled_from(["kis", "kiwoom"]),
    st.integers(1, 6),
    st.lists(st.lists(st.integers(0, 9), max_size=4, unique=True), min_size=1, max_size=3),
    st.lists(st.integers(0, 12), max_size=12, unique=True),
)
def test_no_connection_is_given_more_than_its_limit(
    name: str, limit: int, books: list[list[int]], wanted: list[int]
) -> None:
    """Everything wanted is placed once or left out, and nothing is left out while there is a slot."""
    own = [PlannedConnection(n, registrations("orderbook", *held[:limit])) for n, held in enumerate(books, 1)]

    more, left_out = place_extra(name, limit, own, registrations("tick", *wanted))

    taken = {c.key: slots_used(name, (*c.subscriptions, *more[c.key])) for c in own}
    assert max(taken.values()) <= limit
    assert sorted([*left_out, *(r for rs in more.values() for r in rs)]) == sorted(registrations("tick", *wanted))
    assert not left_out or min(taken.values()) == limit
