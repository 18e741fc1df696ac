"""Which registration goes to which connection of which broker (pure).

    instruments, most important first ─┐      books   each on every broker       ┌─> kis     key 1: 41, key 2: 41 registrations
    keys and limits of each broker ────┼───>  ticks   each on one broker     ────┼─> kiwoom  key 1: 100 symbols
    groups, expected rates ────────────┘      short   what found no place        └─> named, with what it costs

What is best, in this order; within each line the more important instrument comes first, whatever it costs a less important one:

    1  an instrument has its book on some broker          else `not collected`
    2  and on every broker                                else `no redundancy`
    3  its ticks come live from some broker               else `ticks by recovery only`
    4  from the broker of its group in [shards]; in neither: from the one with less to expect so far, in turn
       where nothing tells them apart

A vendor that counts symbols whatever their streams has the ticks of a symbol for nothing where it has its book.

Promises: no connection is given more than its limit; what is given is the best there is, by the list above, for one vendor that
counts registrations and one that counts symbols (tests compare with all possibilities). The processes, `collectorctl plan`,
`check` and `status` make the same plan.
Leaves to others: how a registration is spelled on the wire (sessions), what moves while a line is down (takeover.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from brokers.registry import BROKERS
from brokers.subscription import Registration
from conf.instrument import Instrument
from conf.market import KR
from conf.settings import Settings

NOT_COLLECTED = "not collected"
NO_REDUNDANCY = "no redundancy"
TICKS_BY_RECOVERY = "ticks by recovery only"
MINUTES_BY_RECOVERY = "minute bars by recovery only"


class Connection(NamedTuple):
    """What one connection registers, most important first, and with which of the broker's keys (1, 2, ...)."""

    key: int
    registrations: tuple[Registration, ...]


class Shortfall(NamedTuple):
    """What an instrument goes without, for want of slots."""

    instrument: Instrument
    consequence: str

    def __str__(self) -> str:
        return f"{self.instrument}: {self.consequence}"


class Plan(NamedTuple):
    """The connections of each enabled broker, and what did not fit, most important first."""

    connections: dict[str, list[Connection]]
    short: list[Shortfall]


class Capacity(NamedTuple):
    """What a broker's keys hold: `limit` each, of what its vendor `counts` ("registrations" or "symbols")."""

    name: str
    keys: int
    limit: int
    counts: str


class Allotment(NamedTuple):
    """Broker -> instruments whose books, whose ticks it collects, most important first."""

    books: dict[str, list[Instrument]]
    ticks: dict[str, list[Instrument]]


def plan(settings: Settings, keys: Mapping[str, int]) -> Plan:
    """The plan of a home; `keys`: broker -> how many key pairs it has, one where it is not named."""
    connections: dict[str, list[Connection]] = {}
    short: list[Shortfall] = []
    for market in dict.fromkeys(entry.market for entry in BROKERS.values()):
        instruments = settings.instruments(market)
        capacities = [
            Capacity(name, keys.get(name, 1), getattr(settings, name).registrations, entry.counts)
            for name, entry in BROKERS.items()
            if entry.market == market and getattr(settings, name).enabled
        ]
        if not capacities:
            continue
        allotment = allot(instruments, capacities, groups(settings, market, [capacity.name for capacity in capacities]))
        short += shortfalls(instruments, allotment)
        for capacity in capacities:
            connections[capacity.name] = deal(capacity, allotment.books[capacity.name], allotment.ticks[capacity.name])
    return Plan(connections, short)


def groups(settings: Settings, market: str, brokers: Sequence[str]) -> dict[Instrument, str]:
    """Instrument -> which of `brokers` its ticks should come from."""
    owners = {BROKERS[name].shard: name for name in brokers}
    expected = dict.fromkeys(brokers, 0.0)
    named = {}
    for group, owner in owners.items():
        for text in getattr(settings.shards, group, []):
            named[text] = owner
            expected[owner] += settings.shards.rate.get(text, 1.0)
    instruments = settings.instruments(market)
    for text in map(str, instruments):
        if text not in named:
            named[text] = min(brokers, key=expected.__getitem__)
            expected[named[text]] += settings.shards.rate.get(text, 1.0)
    return {instrument: named[str(instrument)] for instrument in instruments}


def allot(
    instruments: Sequence[Instrument], capacities: Sequence[Capacity], wished: Mapping[Instrument, str]
) -> Allotment:
    """Give out the slots; `instruments` most important first, `wished`: the broker each one's ticks should come from."""
    room = {capacity.name: capacity.keys * capacity.limit for capacity in capacities}
    books: dict[str, list[Instrument]] = {name: [] for name in room}
    # where one book is all there is room for, it goes where the ticks come with it
    generous = [capacity.name for capacity in capacities if capacity.counts == "symbols"]
    brokers = [*generous, *(name for name in room if name not in generous)]
    for behind, instrument in enumerate(instruments, 1 - len(instruments)):
        placed = False
        for name in brokers:
            if room[name] and (not placed or sum(room.values()) > -behind):
                room[name] -= 1
                books[name].append(instrument)
                placed = True
    along: dict[Instrument, list[str]] = {}
    for name in generous:
        for instrument in books[name]:
            along.setdefault(instrument, []).append(name)
    collected = {instrument for held in books.values() for instrument in held}
    chosen: dict[Instrument, str] = {}
    for instrument in instruments:  # those whose ticks take a slot, first
        open_to = [name for name in (wished[instrument], *brokers) if room[name]]
        if instrument in collected and instrument not in along and open_to:
            chosen[instrument] = open_to[0]
            room[open_to[0]] -= 1
    for instrument in instruments:
        if instrument not in along:
            continue
        wish = wished[instrument]
        if wish in along[instrument] or not room[wish]:
            chosen[instrument] = wish if wish in along[instrument] else along[instrument][0]
        else:
            chosen[instrument] = wish
            room[wish] -= 1
    return Allotment(books, {name: [i for i in instruments if chosen.get(i) == name] for name in room})


def shortfalls(instruments: Iterable[Instrument], allotment: Allotment) -> list[Shortfall]:
    """What each of `instruments` goes without."""
    found = []
    for instrument in instruments:
        on = sum(instrument in books for books in allotment.books.values())
        if not on:
            found.append(Shortfall(instrument, NOT_COLLECTED))
            continue
        if on < len(allotment.books):
            found.append(Shortfall(instrument, NO_REDUNDANCY))
        if not any(instrument in ticks for ticks in allotment.ticks.values()):
            found.append(Shortfall(instrument, TICKS_BY_RECOVERY if instrument.market is KR else MINUTES_BY_RECOVERY))
    return found


def deal(capacity: Capacity, books: Iterable[Instrument], ticks: Iterable[Instrument]) -> list[Connection]:
    """A broker's registrations dealt out to its keys in turn, each key's books before its ticks; a key without any is left out."""
    registrations = [*(Registration(i, "orderbook") for i in books), *(Registration(i, "tick") for i in ticks)]
    hands: dict[object, int] = {}
    for registration in registrations:
        hands.setdefault(unit(capacity.name, registration), len(hands) % capacity.keys + 1)
    dealt = [
        Connection(key, tuple(r for r in registrations if hands[unit(capacity.name, r)] == key))
        for key in range(1, capacity.keys + 1)
    ]
    return [connection for connection in dealt if connection.registrations]


def unit(name: str, registration: Registration) -> object:
    """What of a registration its vendor counts."""
    return registration.instrument if BROKERS[name].counts == "symbols" else registration


def slots(name: str, registrations: Iterable[Registration]) -> int:
    """How many of a broker's slots these take."""
    return len({unit(name, registration) for registration in registrations})
