"""What will be registered where, and what finds no place, before anything starts.

Promises: starts and writes nothing; it is the plan that the processes obey (brokers/plan.py).
Leaves to others: the plan itself, whether the brokers accept the keys.
"""

from __future__ import annotations

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table

from brokers.allocation.allocate import plan, slots
from brokers.allocation.credentials import at_hand
from brokers.registry import BROKERS
from conf.home import Home
from conf.instrument import Instrument

_NAMED = 3


class Held(msgspec.Struct, frozen=True):
    """One connection: with which of the broker's keys, and how full."""

    broker: str
    key: int
    books: int
    ticks: int
    slots: int
    limit: int


class Share(msgspec.Struct, frozen=True):
    """One instrument: the brokers its books and its ticks come from, and what it goes without."""

    instrument: str
    books: list[str]
    ticks: list[str]
    short: list[str]


class Planned(msgspec.Struct, frozen=True):
    """The plan of a home; `short` names what found no place, most important first."""

    connections: list[Held]
    instruments: list[Share]
    short: list[str]


def planned(home: Home) -> Planned:
    """The plan of `home`. SettingsError if an app key stands in two places."""
    made = plan(home.settings, at_hand(home))
    sources: dict[tuple[Instrument, str], list[str]] = {}
    held = []
    for name, connections in made.connections.items():
        for connection in connections:
            streams = [registration.stream for registration in connection.registrations]
            limit = getattr(home.settings, name).registrations
            taken = slots(name, connection.registrations)
            held.append(Held(name, connection.key, streams.count("orderbook"), streams.count("tick"), taken, limit))
            for registration in connection.registrations:
                sources.setdefault(registration, []).append(name)
    instruments = [
        Share(
            str(instrument),
            sources.get((instrument, "orderbook"), []),
            sources.get((instrument, "tick"), []),
            [short.consequence for short in made.short if short.instrument == instrument],
        )
        for instrument in _collected(home)
    ]
    return Planned(held, instruments, [str(short) for short in made.short])


def _collected(home: Home) -> list[Instrument]:
    """The instruments of every market that a broker is switched on for, most important first."""
    markets = dict.fromkeys(entry.market for name, entry in BROKERS.items() if getattr(home.settings, name).enabled)
    return [instrument for market in markets for instrument in home.settings.instruments(market)]


def show_plan(plan: Planned, console: Console) -> None:
    """Print it: connections, then instruments in order of priority."""
    for held in plan.connections:
        console.print(
            f"{held.broker:<8} key {held.key}: {held.books} books, {held.ticks} ticks: {held.slots} of {held.limit} slots"
        )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("instrument", "books", "ticks", "goes without"):
        table.add_column(column)
    for share in plan.instruments:
        table.add_row(share.instrument, ", ".join(share.books), ", ".join(share.ticks), "; ".join(share.short))
    console.print(table)
    console.print(in_words(plan))


def in_words(plan: Planned) -> str:
    """What does not fit, in one line: how many instruments go without what, and the first of each."""
    if not plan.short:
        return "everything fits"
    kinds = dict.fromkeys(word for share in plan.instruments for word in share.short)
    said = []
    for kind in kinds:
        names = [share.instrument for share in plan.instruments if kind in share.short]
        said.append(f"{len(names)} {kind} ({', '.join(names[:_NAMED])}{', ...' * (len(names) > _NAMED)})")
    return f"does not fit: {', '.join(said)}: add app keys, or take instruments out of [universe]"
