"""Registry of brokers: the module, shard, counting unit and market of each.

Promises: only the code of the broker that is asked for is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

from brokers.protocol import Broker


class Entry(NamedTuple):
    """One line of the registry."""

    module: str  # has BROKER
    shard: str  # the group of settings.shards whose ticks it collects; "" where it is alone in its market
    counts: str  # what its limit counts: "registrations", or "symbols" whatever their streams
    market: str = "kr"  # whose instruments it collects; the brokers of one market stand in for each other


BROKERS: dict[str, Entry] = {
    "kis": Entry("brokers.kis.session", "A", "registrations"),
    "kiwoom": Entry("brokers.kiwoom.session", "B", "symbols"),
    "us": Entry("brokers.us.session", "", "registrations", "us"),
}


def broker(name: str) -> Broker:
    """The broker of that name; only its own code is imported. KeyError if there is none."""
    return import_module(BROKERS[name].module).BROKER
