"""Which registration goes to which broker (pure).

    books   every instrument -> every enabled broker
    ticks   group A -> kis, group B -> kiwoom; in neither -> the shorter list, in order; one broker down -> all to the other

Promises: counted against the vendors' limits before anything starts; what does not fit is named. The processes and
`collectorctl check` make the same plan.
Leaves to others: how a registration is spelled on the wire (sessions).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from brokers.broker import BROKERS, PlanError
from brokers.registration import Registration
from conf.settings import Settings

_NAMED = 12


class Connection(NamedTuple):
    """What one connection registers, most important first. A broker's list has one per appkey, today one."""

    registrations: tuple[Registration, ...]


def plan(settings: Settings) -> dict[str, list[Connection]]:
    """The connections of each enabled broker. PlanError if a limit does not hold them."""
    enabled = [name for name in BROKERS if getattr(settings, name).enabled]
    shards = _shards(settings, enabled)
    plans = {}
    for name in enabled:
        books = [Registration(instrument, "orderbook") for instrument in settings.instruments()]
        ticks = [Registration(i, "tick") for i in settings.instruments() if shards[str(i)] == name]
        _fits(name, getattr(settings, name).registrations, books + ticks)
        plans[name] = [Connection((*books, *ticks))]
    return plans


def _shards(settings: Settings, enabled: Sequence[str]) -> dict[str, str]:
    """Instrument as written -> the broker that collects its ticks."""
    if not enabled:
        return {}
    owners = {entry.shard: name for name, entry in BROKERS.items() if name in enabled}
    lists: dict[str, list[str]] = {name: [] for name in enabled}
    for group in ("A", "B"):
        if group in owners:
            lists[owners[group]] += getattr(settings.shards, group)
    named = {text for texts in lists.values() for text in texts}
    for text in settings.universe.kr:
        if text not in named:
            min(lists.values(), key=len).append(text)
    return {text: name for name, texts in lists.items() for text in texts}


def slots(name: str, registrations: Sequence[Registration]) -> int:
    """How many of a broker's registrations these take: some vendors count symbols, whatever their streams."""
    return len({r.instrument if BROKERS[name].counts == "symbols" else r for r in registrations})


def _fits(name: str, most: int, registrations: Sequence[Registration]) -> None:
    """PlanError naming what lies beyond the limit."""
    wanted = slots(name, registrations)
    beyond = [str(r) for n, r in enumerate(registrations, 1) if slots(name, registrations[:n]) > most]
    if beyond:
        counts = BROKERS[name].counts
        names = ", ".join(beyond[:_NAMED]) + (f" and {len(beyond) - _NAMED} more" if len(beyond) > _NAMED else "")
        raise PlanError(
            f"{name}.registrations: {wanted} {counts} are wanted, {most} are allowed; what does not fit: {names}: "
            "take instruments out of universe.kr, or move ticks to the other group in [shards]"
        )
