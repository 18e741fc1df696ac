"""Registry of brokers: package, shard, limit unit and market of each.

Guarantees:
    * Only the code of the broker that is asked for is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from brokers.protocol import Broker


class BrokerSpec(NamedTuple):
    """One entry of the registry."""

    module: str  # has BROKER
    shard: str  # the list of settings.shards whose ticks it collects; "" where it is alone in its market
    limit_unit: str  # what its limit counts: "subscriptions" (subscriptions), or "symbols" whatever their streams
    market: str = "kr"  # the market it collects; brokers of one market fail over to each other


BROKERS: dict[str, BrokerSpec] = {
    "kis": BrokerSpec("brokers.kis.session", "kis", "subscriptions"),
    "kiwoom": BrokerSpec("brokers.kiwoom.session", "kiwoom", "symbols"),
    "us": BrokerSpec("brokers.us.session", "", "subscriptions", "us"),
}


def load_broker(name: str) -> Broker:
    """The broker of that name; only its own code is imported. KeyError for an unknown name."""
    return import_module(BROKERS[name].module).BROKER
