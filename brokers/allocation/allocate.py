"""Allocation of subscriptions to connections (pure).

    instruments, most important first ─┐      books   each on every broker       ┌─> kis     key 1: 41, key 2: 41 subscriptions
    keys and limits of each broker ────┼───>  ticks   each on one broker     ────┼─> kiwoom  key 1: 100 symbols
    groups, expected rates ────────────┘      shortfall  what has no slot        └─> reported, with the consequence

Objectives in order; within each one the more important instrument comes first, whatever it costs a less important one:

    1  an instrument has its book on some broker          else `not collected`
    2  and on every broker                                else `no redundancy`
    3  its ticks come live from some broker               else `ticks by recovery only`
    4  from the broker of its group in [shards]; in neither: from the one with the lower expected rate so far,
       alternating where the rates are equal

A vendor that counts symbols whatever their streams carries the ticks of a symbol without a further slot where it carries its book.

Guarantees:
    * No connection gets more than its limit. The allocation is optimal by the list above for one vendor that counts
      subscriptions and one that counts symbols (tests compare with all possibilities).
    * What a list in force has placed stays on its broker and key as far as there are slots.
    * The collectors, `collectorctl plan`, `check` and `status` compute the same allocation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from brokers.registry import BROKERS
from brokers.subscription import Subscription
from conf.instrument import Instrument
from conf.market import KR
from conf.settings import Settings
from ringbuf.fields import STATUS_STREAM

NOT_COLLECTED = "not collected"
NO_REDUNDANCY = "no redundancy"
TICKS_BY_RECOVERY = "ticks by recovery only"
MINUTES_BY_RECOVERY = "minute bars by recovery only"


Placement = Mapping[str, Mapping[str, int]]
"""Broker -> subscription as text -> number of the key (conf/universe/listing.py)."""
NOTHING_PLACED: Placement = {}


class PlannedConnection(NamedTuple):
    """The subscriptions of one connection, most important first, and the number of its key (1, 2, ...).

    `status`: what else it subscribes, in slots that nothing else needs: ticks in place of another feed come first.
    """

    key: int
    subscriptions: tuple[Subscription, ...]
    status: tuple[Subscription, ...] = ()


class Shortfall(NamedTuple):
    """What an instrument does not get for lack of slots."""

    instrument: Instrument
    consequence: str

    def __str__(self) -> str:
        return f"{self.instrument}: {self.consequence}"


class ConnectionPlan(NamedTuple):
    """The connections of each enabled broker, and what did not fit, most important first."""

    connections: dict[str, list[PlannedConnection]]
    shortfalls: list[Shortfall]


class Capacity(NamedTuple):
    """What a broker's keys hold: `limit` each, in the vendor's `limit_unit` ("subscriptions" or "symbols")."""

    name: str
    keys: int
    limit: int
    limit_unit: str


class Allocation(NamedTuple):
    """Broker -> instruments whose books, whose ticks it collects, most important first."""

    books: dict[str, list[Instrument]]
    ticks: dict[str, list[Instrument]]


def plan_connections(settings: Settings, keys: Mapping[str, int]) -> ConnectionPlan:
    """The plan of a home; `keys`: broker -> how many key pairs it has, one if it is missing."""
    connections: dict[str, list[PlannedConnection]] = {}
    placed: Placement = settings.in_force.placement if settings.in_force else {}
    shortfalls: list[Shortfall] = []
    for market in dict.fromkeys(entry.market for entry in BROKERS.values()):
        instruments = settings.instruments(market)
        capacities = [
            Capacity(name, keys.get(name, 1), getattr(settings, name).max_subscriptions, entry.limit_unit)
            for name, entry in BROKERS.items()
            if entry.market == market and getattr(settings, name).enabled
        ]
        if not capacities:
            continue
        preferred = choose_tick_brokers(settings, market, [capacity.name for capacity in capacities], placed)
        allocation = allocate(instruments, capacities, preferred, placed)
        shortfalls += find_shortfalls(instruments, allocation)
        for capacity in capacities:
            planned = distribute(capacity, allocation.books[capacity.name], allocation.ticks[capacity.name], placed)
            if capacity.name == "kis" and settings.kis.market_status:
                planned = add_status(capacity.limit, planned, instruments)
            connections[capacity.name] = planned
    return ConnectionPlan(connections, shortfalls)


def choose_tick_brokers(
    settings: Settings, market: str, brokers: Sequence[str], placed: Placement = NOTHING_PLACED
) -> dict[Instrument, str]:
    """Instrument -> which of `brokers` its ticks should come from: where they are placed, else as [shards] says."""
    owners = {BROKERS[name].shard: name for name in brokers}
    expected = dict.fromkeys(brokers, 0.0)
    instruments = settings.instruments(market)
    names = dict.fromkeys(map(str, instruments))
    assigned = {text: name for name in brokers for text in names if f"{text} tick" in placed.get(name, ())}
    for text, owner in assigned.items():
        expected[owner] += settings.shards.rate.get(text, 1.0)
    for group, owner in owners.items():
        for text in getattr(settings.shards, group, []):
            if text in names and text not in assigned:  # a group may name codes that expressions do not select today
                assigned[text] = owner
                expected[owner] += settings.shards.rate.get(text, 1.0)
    for text in names:
        if text not in assigned:
            assigned[text] = min(brokers, key=expected.__getitem__)
            expected[assigned[text]] += settings.shards.rate.get(text, 1.0)
    return {instrument: assigned[str(instrument)] for instrument in instruments}


def allocate(
    instruments: Sequence[Instrument],
    capacities: Sequence[Capacity],
    preferred: Mapping[Instrument, str],
    placed: Placement = NOTHING_PLACED,
) -> Allocation:
    """Distribute the slots; `instruments` most important first, `preferred`: the broker of each one's ticks."""
    free_slots = {capacity.name: capacity.keys * capacity.limit for capacity in capacities}
    # if only one book fits, prefer a broker whose books carry the ticks without a further slot
    by_symbol = [capacity.name for capacity in capacities if capacity.limit_unit == "symbols"]
    brokers = [*by_symbol, *(name for name in free_slots if name not in by_symbol)]
    books = _allocate_books(instruments, brokers, free_slots, placed)
    on = {name: frozenset(assigned) for name, assigned in books.items()}
    collected = frozenset[Instrument]().union(*on.values())
    carriers = {i: [name for name in by_symbol if i in on[name]] for i in instruments if i in collected}
    ticks: dict[Instrument, str] = {}
    for instrument, names in carriers.items():  # first the instruments whose ticks take a slot
        if not names and (open_to := [name for name in (preferred[instrument], *brokers) if free_slots[name]]):
            ticks[instrument] = open_to[0]
            free_slots[open_to[0]] -= 1
    for instrument, names in carriers.items():
        if names:
            choice = preferred[instrument]
            if choice not in names and free_slots[choice]:
                free_slots[choice] -= 1
            elif choice not in names:
                choice = names[0]
            ticks[instrument] = choice
    return Allocation(books, {name: [i for i in instruments if ticks.get(i) == name] for name in free_slots})


def _allocate_books(
    instruments: Sequence[Instrument], brokers: Sequence[str], free_slots: dict[str, int], placed: Placement
) -> dict[str, list[Instrument]]:
    """A first book for each instrument, further ones while slots remain for the first books of all others."""
    books: dict[str, list[Instrument]] = {name: [] for name in free_slots}
    for remaining, instrument in zip(range(len(instruments) - 1, -1, -1), instruments, strict=True):
        reserved = 0
        held = f"{instrument} orderbook"
        for name in sorted(brokers, key=lambda name: held not in placed.get(name, ())):
            if free_slots[name] and sum(free_slots.values()) > reserved:
                free_slots[name] -= 1
                books[name].append(instrument)
                reserved = remaining
    return books


def find_shortfalls(instruments: Iterable[Instrument], allocation: Allocation) -> list[Shortfall]:
    """The shortfall of each of `instruments`."""
    found = []
    books = [frozenset(one) for one in allocation.books.values()]
    ticks = frozenset[Instrument]().union(*allocation.ticks.values())
    for instrument in instruments:
        on = sum(instrument in one for one in books)
        if not on:
            found.append(Shortfall(instrument, NOT_COLLECTED))
            continue
        if on < len(books):
            found.append(Shortfall(instrument, NO_REDUNDANCY))
        if instrument not in ticks:
            found.append(Shortfall(instrument, TICKS_BY_RECOVERY if instrument.market is KR else MINUTES_BY_RECOVERY))
    return found


def distribute(
    capacity: Capacity, books: Iterable[Instrument], ticks: Iterable[Instrument], placed: Placement = NOTHING_PLACED
) -> list[PlannedConnection]:
    """Distribute a broker's subscriptions over its keys, books before ticks; a key without any is left out.

    What is placed keeps its key; the rest goes in turn to the key with the fewest.
    """
    subscriptions = [*(Subscription(i, "orderbook") for i in books), *(Subscription(i, "tick") for i in ticks)]
    key_by_unit: dict[object, int] = {}
    used = dict.fromkeys(range(1, capacity.keys + 1), 0)
    own = placed.get(capacity.name, {})
    for subscription in sorted(subscriptions, key=lambda one: str(one) not in own):
        unit, key = capacity_unit(capacity.name, subscription), own.get(str(subscription), 0)
        if unit not in key_by_unit:
            if used.get(key, capacity.limit) >= capacity.limit:
                key = min(used, key=used.__getitem__)
            key_by_unit[unit] = key
            used[key] += 1
    by_key: dict[int, list[Subscription]] = {key: [] for key in used}
    for subscription in subscriptions:
        by_key[key_by_unit[capacity_unit(capacity.name, subscription)]].append(subscription)
    return [PlannedConnection(key, tuple(held)) for key, held in by_key.items() if held]


def describe_placement(plan: ConnectionPlan) -> dict[str, dict[str, int]]:
    """Where everything of a plan is, for a list in force."""
    return {
        name: {str(one): connection.key for connection in connections for one in connection.subscriptions}
        for name, connections in plan.connections.items()
    }


def add_status(
    limit: int, connections: Sequence[PlannedConnection], instruments: Iterable[Instrument]
) -> list[PlannedConnection]:
    """Put the status of `instruments`, most important first, into free slots, of the connection that has most of them."""
    status: dict[int, list[Subscription]] = {connection.key: [] for connection in connections}
    used = {connection.key: len(connection.subscriptions) for connection in connections}
    for instrument in instruments:
        key = min(used, key=used.__getitem__, default=None)
        if key is None or used[key] >= limit:
            break
        used[key] += 1
        status[key].append(Subscription(instrument, STATUS_STREAM))
    return [connection._replace(status=tuple(status[connection.key])) for connection in connections]


def capacity_unit(name: str, subscription: Subscription) -> object:
    """The unit of a subscription that its vendor counts."""
    return subscription.instrument if BROKERS[name].limit_unit == "symbols" else subscription


def slots_used(name: str, subscriptions: Iterable[Subscription]) -> int:
    """Number of slots of a broker that `subscriptions` take."""
    return len({capacity_unit(name, subscription) for subscription in subscriptions})
