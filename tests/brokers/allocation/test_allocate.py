"""What is registered where: books on both, ticks by shard, the best use of scarce slots; what does not fit is named."""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brokers.allocation.allocate import (
    Allocation,
    Capacity,
    allocate,
    describe_placement,
    distribute,
    find_shortfalls,
    plan_connections,
    slots_used,
)
from conf.instrument import Instrument, parse_instrument
from conf.loader import load_settings
from conf.settings import Settings
from conf.universe.listing import UniverseList


@pytest.fixture
def settings(tmp_path):
    """Settings of an empty home with this universe, these shards and other tables changed."""

    def make(kr: list[str], kis_shard: tuple[str, ...] = (), kiwoom_shard: tuple[str, ...] = (), **tables) -> Settings:
        base = msgspec.to_builtins(load_settings(tmp_path))
        base["universe"]["kr"] = kr
        base["shards"] |= {"kis": list(kis_shard), "kiwoom": list(kiwoom_shard)}
        for name, values in tables.items():
            base[name] = base.get(name, {}) | values
        return msgspec.convert(base, Settings)

    return make


def asked(plans, name: str, stream: str) -> list[str]:
    """Instruments of one stream on a broker's connections."""
    return [str(r.instrument) for c in plans.connections[name] for r in c.subscriptions if r.stream == stream]


def test_books_go_to_both_and_ticks_are_shared_out_in_turn(settings):
    """Every book on both brokers, every tick on exactly one, in order of priority."""
    kr = ["005930", "000660", "373220", "005930_NX", "Q500001"]

    plans = plan_connections(settings(kr), {})

    assert kr == asked(plans, "kis", "orderbook") == asked(plans, "kiwoom", "orderbook")
    assert asked(plans, "kis", "tick") == ["005930", "373220", "Q500001"]
    assert asked(plans, "kiwoom", "tick") == ["000660", "005930_NX"]
    assert [len(connections) for connections in plans.connections.values()] == [1, 1]


@pytest.mark.parametrize(("limit", "fitting"), [(41, 3), (5, 0), (6, 1), (1, 0)])
def test_market_status_takes_only_what_books_and_ticks_leave(settings, limit: int, fitting: int):
    """The more important instrument first; the rest of the plan is the same with and without it."""
    kr = ["005930", "000660", "373220"]
    without = plan_connections(settings(kr, kis={"max_subscriptions": limit}), {})

    plans = plan_connections(settings(kr, kis={"max_subscriptions": limit, "market_status": True}), {})

    (kis,) = plans.connections["kis"]
    assert [str(subscription) for subscription in kis.status] == [f"{code} status" for code in kr[:fitting]]
    assert [kis._replace(status=())] == without.connections["kis"]
    assert plans.shortfalls == without.shortfalls


def test_named_groups_are_kept_and_the_rest_goes_to_the_shorter(settings):
    """[shards] decides; what it leaves open evens the lists out."""
    plans = plan_connections(settings(["000001", "000002", "000003", "000004"], kiwoom_shard=("000001", "000002")), {})

    assert asked(plans, "kis", "tick") == ["000003", "000004"]
    assert asked(plans, "kiwoom", "tick") == ["000001", "000002"]


@pytest.mark.parametrize(("down", "up"), [("kis", "kiwoom"), ("kiwoom", "kis")])
def test_the_ticks_of_a_broker_that_is_off_go_to_the_other(settings, down, up):
    """Nothing is left out because a broker is disabled."""
    kr = ["005930", "000660"]

    plans = plan_connections(
        settings(kr, kis_shard=("005930",), kiwoom_shard=("000660",), **{down: {"enabled": False}}), {}
    )

    assert [up] == list(plans.connections)
    assert kr == asked(plans, up, "tick")


def test_both_off_is_an_empty_plan(settings):
    """Nothing enabled, nothing planned."""
    assert plan_connections(settings(["005930"], kis={"enabled": False}, kiwoom={"enabled": False}), {}) == ({}, [])


def test_kis_counts_registrations_and_kiwoom_symbols(settings):
    """27 books and 14 ticks fill 41 registrations exactly; for Kiwoom 27 symbols are 27 whatever their streams."""
    kr = [f"{n:06}" for n in range(27)]

    plans = plan_connections(settings(kr, kiwoom={"max_subscriptions": 27}), {})

    assert len(plans.connections["kis"][0].subscriptions) == 41
    assert len(plans.connections["kiwoom"][0].subscriptions) == 40


def test_ticks_that_one_broker_has_no_slot_for_come_from_the_other(settings):
    """Books first: 30 leave KIS 11 slots, for the most important ones of its share; Kiwoom has the others for nothing."""
    kr = [f"{n:06}" for n in range(30)]

    plans = plan_connections(settings(kr), {})

    assert asked(plans, "kis", "tick") == kr[0:22:2]
    assert asked(plans, "kiwoom", "tick") == [text for text in kr if text not in kr[0:22:2]]
    assert plans.shortfalls == []


def test_what_does_not_fit_is_named_with_what_it_costs(settings):
    """Most important first; the home runs with what fits."""
    kr = [f"{n:06}" for n in range(6)]

    plans = plan_connections(settings(kr, kis={"max_subscriptions": 3}, kiwoom={"max_subscriptions": 2}), {})

    assert asked(plans, "kiwoom", "orderbook") == kr[:2]
    assert asked(plans, "kis", "orderbook") == kr[2:5]
    assert list(map(str, plans.shortfalls)) == [
        "000000: no redundancy",
        "000001: no redundancy",
        *(f"{text}: {short}" for text in kr[2:5] for short in ("no redundancy", "ticks by recovery only")),
        "000005: not collected",
    ]


def test_two_venues_of_a_symbol_are_two_slots(settings):
    """KRX and NXT count one each, with either broker."""
    plans = plan_connections(
        settings(["005930", "005930_NX", "000660"], kis={"max_subscriptions": 2}, kiwoom={"max_subscriptions": 2}), {}
    )

    assert [slots_used(name, c.subscriptions) for name, (c,) in plans.connections.items()] == [2, 2]
    assert asked(plans, "kiwoom", "orderbook") == ["005930", "005930_NX"]
    assert asked(plans, "kis", "orderbook") == ["005930", "000660"]


def test_more_keys_hold_more_and_are_filled_evenly(settings):
    """Sixty symbols with two KIS keys: all books twice; each key has half of it, books before ticks."""
    kr = [f"{n:06}" for n in range(60)]

    plans = plan_connections(settings(kr), {"kis": 2, "kiwoom": 3})

    assert plans.shortfalls == []
    assert [len(c.subscriptions) for c in plans.connections["kis"]] == [41, 41]
    assert [c.key for c in plans.connections["kiwoom"]] == [1, 2, 3]
    assert [slots_used("kiwoom", c.subscriptions) for c in plans.connections["kiwoom"]] == [20, 20, 20]
    for connection in plans.connections["kis"]:
        streams = [r.stream for r in connection.subscriptions]
        assert streams == sorted(streams)


def test_a_key_without_registrations_is_not_connected(settings):
    """Two registrations need two keys at most."""
    plans = plan_connections(settings(["005930"]), {"kis": 5})

    assert [c.key for c in plans.connections["kis"]] == [1, 2]


def test_ticks_are_shared_out_by_what_is_to_be_expected(settings):
    """One busy symbol weighs as much as the others together; a symbol without a rate counts as one."""
    kr = ["005930", "000660", "373220", "207940"]

    plans = plan_connections(settings(kr, shards={"kis": [], "kiwoom": [], "rate": {"005930": 3.0}}), {})

    assert asked(plans, "kis", "tick") == ["005930"]
    assert asked(plans, "kiwoom", "tick") == ["000660", "373220", "207940"]


def worth(instruments: list[Instrument], allotment: Allocation, wished: dict[Instrument, str]) -> tuple:
    """What plan.py calls best, as something that can be compared."""
    books, ticks = allotment
    on = [sum(i in held for held in books.values()) for i in instruments]
    source = {i: name for name, held in ticks.items() for i in held}
    return (
        [count > 0 for count in on],
        [count == len(books) for count in on],
        [i in source for i in instruments],
        [source.get(i) == wished[i] for i in instruments],
    )


def taken(capacity: Capacity, allotment: Allocation) -> int:
    """How many of its slots an allotment takes."""
    books, ticks = (set(held[capacity.name]) for held in allotment)
    return len(books | ticks) if capacity.limit_unit == "symbols" else len(books) + len(ticks)


def everything_possible(instruments: list[Instrument], capacities: list[Capacity]):
    """Every way to give out slots that exceeds no limit; ticks without a book are no collection."""
    names = [capacity.name for capacity in capacities]
    ways = [
        (books, tick)
        for books in product((False, True), repeat=len(names))
        for tick in ((None, *names) if any(books) else (None,))
    ]
    for chosen in product(ways, repeat=len(instruments)):
        of = list(zip(instruments, chosen, strict=True))
        allotment = Allocation(
            {name: [i for i, (books, _) in of if books[at]] for at, name in enumerate(names)},
            {name: [i for i, (_, tick) in of if tick == name] for name in names},
        )
        if all(taken(capacity, allotment) <= capacity.keys * capacity.limit for capacity in capacities):
            yield allotment


@given(st.data())
def test_the_plan_is_the_best_there_is(data):
    """Compared with every possibility, for up to three instruments, on one broker of either kind or one of each."""
    instruments = [parse_instrument(f"{n:06}") for n in range(data.draw(st.integers(1, 3)))]
    kinds = data.draw(st.permutations(["subscriptions", "symbols"]))[: data.draw(st.integers(1, 2))]
    capacities = [
        Capacity(name, data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3)), kind)
        for name, kind in zip(("kis", "kiwoom"), kinds, strict=False)
    ]
    wished = {i: data.draw(st.sampled_from([capacity.name for capacity in capacities])) for i in instruments}

    made = allocate(instruments, capacities, wished)

    assert all(taken(capacity, made) <= capacity.keys * capacity.limit for capacity in capacities)
    best = max(worth(instruments, way, wished) for way in everything_possible(instruments, capacities))
    assert best == worth(instruments, made, wished)


@given(st.integers(1, 60), st.integers(1, 3), st.integers(1, 41), st.integers(1, 3), st.integers(1, 41), st.booleans())
def test_no_connection_holds_more_than_its_limit(count, kis_keys, kis_limit, kiwoom_keys, kiwoom_limit, first_to_kis):
    """And what is dealt out is what was given; an instrument is short of something or has everything."""
    instruments = [parse_instrument(f"{n:06}") for n in range(count)]
    capacities = [
        Capacity("kis", kis_keys, kis_limit, "subscriptions"),
        Capacity("kiwoom", kiwoom_keys, kiwoom_limit, "symbols"),
    ]
    wished = {i: ("kis", "kiwoom")[(n + first_to_kis) % 2] for n, i in enumerate(instruments)}

    made = allocate(instruments, capacities, wished)
    dealt = {c.name: distribute(c, made.books[c.name], made.ticks[c.name]) for c in capacities}

    for capacity in capacities:
        for connection in dealt[capacity.name]:
            assert 0 < slots_used(capacity.name, connection.subscriptions) <= capacity.limit
        all_of = sorted(r for connection in dealt[capacity.name] for r in connection.subscriptions)
        assert len(all_of) == len(set(all_of)) == len(made.books[capacity.name]) + len(made.ticks[capacity.name])
    short = {s.instrument for s in find_shortfalls(instruments, made)}
    for instrument in set(instruments) - short:
        assert all(instrument in books for books in made.books.values())
        assert any(instrument in ticks for ticks in made.ticks.values())


def place(settings: Settings, keys: dict[str, int], kr: list[str], placement: dict[str, dict[str, int]]) -> Settings:
    """The settings with a list in force."""
    found = UniverseList(entries=kr, table_day=None, kr=kr, us=[], placement=placement)
    return msgspec.structs.replace(settings, in_force=found)


@cache
def load_defaults() -> Settings:
    """default.toml alone."""
    return load_settings(Path(__file__).parent)  # which has no collector.toml


CODES = [f"{number:06d}" for number in range(1, 13)]


@given(
    before=st.lists(st.sampled_from(CODES), unique=True, min_size=1),
    after=st.lists(st.sampled_from(CODES), unique=True, min_size=1),
    keys=st.fixed_dictionaries({"kis": st.integers(1, 3), "kiwoom": st.integers(1, 2)}),
    limits=st.tuples(st.integers(1, 41), st.integers(1, 12)),
)
def test_what_a_list_has_placed_stays_where_it_is_and_the_plan_of_its_own_places_is_itself(before, after, keys, limits):
    """With slots enough nothing that both lists have moves; however few there are, all who read the list have one plan."""
    base = load_defaults()
    base = msgspec.structs.replace(
        base,
        kis=msgspec.structs.replace(base.kis, max_subscriptions=limits[0]),
        kiwoom=msgspec.structs.replace(base.kiwoom, max_subscriptions=limits[1]),
    )
    old = describe_placement(plan_connections(place(base, keys, before, {}), keys))

    plan = plan_connections(place(base, keys, after, old), keys)
    new = describe_placement(plan)

    assert plan_connections(place(base, keys, after, new), keys) == plan
    for name, connections in plan.connections.items():
        for connection in connections:
            assert slots_used(name, connection.subscriptions) <= limits[name == "kiwoom"]
    if limits[0] * keys["kis"] >= 2 * len(CODES) and limits[1] * keys["kiwoom"] >= len(CODES):
        kept = {f"{code} {stream}" for code in set(before) & set(after) for stream in ("orderbook", "tick")}
        for name, places in old.items():
            for subscription in kept & places.keys():
                assert new[name][subscription] == places[subscription], subscription
