"""Report of the subscription allocation: what will be subscribed where, and what has no slot.

Guarantees:
    * It starts and writes nothing; it is the allocation that the collectors use.

Not handled here:
    * Whether the brokers accept the keys.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich import box
from rich.table import Table

from brokers.allocation.allocate import plan_connections, slots_used
from brokers.allocation.credentials import key_counts
from brokers.registry import BROKERS
from collectorctl.check_messages import MESSAGES
from collectorctl.terminal import TextConsole
from conf.home import Home
from conf.instrument import Instrument
from conf.text.language import Language, Texts

_MAX_NAMED = 3


class ConnectionRow(msgspec.Struct, frozen=True):
    """One connection: with which of the broker's keys, and how full."""

    feed: str
    key: int
    books: int
    ticks: int
    status: int
    slots: int
    limit: int


class InstrumentRow(msgspec.Struct, frozen=True):
    """One instrument: the brokers of its books and its ticks, and its shortfall."""

    instrument: str
    books: list[str]
    ticks: list[str]
    shortfalls: list[str]


class AllocationReport(msgspec.Struct, frozen=True):
    """The allocation of a home; `shortfalls`: what has no slot, most important first; `market_status`: what that costs."""

    connections: list[ConnectionRow]
    instruments: list[InstrumentRow]
    shortfalls: list[str]
    market_status: str


def build_allocation_report(home: Home) -> AllocationReport:
    """The allocation of `home`. SettingsError if an app key is configured twice."""
    allocation = plan_connections(home.settings, key_counts(home))
    sources: dict[tuple[Instrument, str], list[str]] = {}
    rows = []
    for name, connections in allocation.connections.items():
        for connection in connections:
            streams = [registration.stream for registration in connection.subscriptions]
            limit = getattr(home.settings, name).max_subscriptions
            used, status = slots_used(name, connection.subscriptions), len(connection.status)
            books, ticks = streams.count("orderbook"), streams.count("tick")
            rows.append(ConnectionRow(name, connection.key, books, ticks, status, used + status, limit))
            for subscription in connection.subscriptions:
                sources.setdefault(subscription, []).append(name)
    instruments = [
        InstrumentRow(
            str(instrument),
            sources.get((instrument, "orderbook"), []),
            sources.get((instrument, "tick"), []),
            [short.consequence for short in allocation.shortfalls if short.instrument == instrument],
        )
        for instrument in _list_instruments(home)
    ]
    shortfalls = [str(short) for short in allocation.shortfalls]
    return AllocationReport(rows, instruments, shortfalls, _describe_market_status(home, rows))


def _describe_market_status(home: Home, rows: Sequence[ConnectionRow]) -> str:
    """What KIS's market operation of each instrument costs; "" without KIS."""
    own = [row for row in rows if row.feed == "kis"]
    if not own:
        return ""
    wanted, taken = len(home.settings.instruments("kr")), sum(row.status for row in own)
    free = sum(row.limit - row.slots for row in own) + taken
    if not home.settings.kis.market_status:
        return (
            f"kis: market status (phases, VI, halts) is off; kis.market_status = true takes {min(wanted, free)} of {free} "
            f"free slots, for {wanted} instruments"
        )
    return (
        f"kis: market status (phases, VI, halts) takes {taken} of {free} free slots, for {wanted} instruments; "
        "failover comes first"
    )


def _list_instruments(home: Home) -> list[Instrument]:
    """The instruments of every market that a broker is switched on for, most important first."""
    markets = dict.fromkeys(entry.market for name, entry in BROKERS.items() if getattr(home.settings, name).enabled)
    return [instrument for market in markets for instrument in home.settings.instruments(market)]


def print_allocation_report(report: AllocationReport, console: TextConsole) -> None:
    """Print it: connections, then instruments in order of priority."""
    for one in report.connections:
        console.print(
            f"{one.feed:<8} key {one.key}: {one.books} books, {one.ticks} ticks{f', {one.status} status' * bool(one.status)}: "
            f"{one.slots} of {one.limit} slots"
        )
    if report.market_status:
        console.print(report.market_status)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("instrument", "books", "ticks", "goes without"):
        table.add_column(column)
    for row in report.instruments:
        table.add_row(row.instrument, ", ".join(row.books), ", ".join(row.ticks), "; ".join(row.shortfalls))
    console.print(table)
    console.print(format_shortfalls(report))


def format_shortfalls(report: AllocationReport, language: Language = "en") -> str:
    """The shortfalls in one line: how many instruments lack what, and the first of each."""
    texts = Texts(language, MESSAGES)
    if not report.shortfalls:
        return texts("everything_fits")
    kinds = dict.fromkeys(shortfall for share in report.instruments for shortfall in share.shortfalls)
    parts = []
    for kind in kinds:
        names = [share.instrument for share in report.instruments if kind in share.shortfalls]
        parts.append(texts(kind, count=len(names), names=abbreviate(names)))
    return texts("does_not_fit", parts=", ".join(parts))


def abbreviate(names: Sequence[str]) -> str:
    """The first names of many."""
    return ", ".join(names[:_MAX_NAMED]) + ", ..." * (len(names) > _MAX_NAMED)
