"""Everything that can be wrong before a start: settings and secrets; and what of the universe finds no place.

Promises: raises the first error found, in words (SettingsError); starts and writes nothing; what does not fit is named, and is no
error: the home runs with what fits.
Leaves to others: whether the brokers accept the keys.
"""

from __future__ import annotations

from typing import Any

from brokers.allocation.credentials import at_hand
from collectorctl.allocation_report import in_words, planned
from collectorctl.supervision.status import lines_of
from conf.home import Home
from conf.loader import load_secrets


def findings(home: Home) -> dict[str, Any]:
    """What would be registered where; SettingsError instead if the home cannot be started."""
    for name, keys in at_hand(home).items():
        for number in range(1, keys + 1):
            load_secrets(home.root, name, number=number)
    plan = planned(home)
    lines = []
    for name in lines_of(home.settings):
        held = [connection for connection in plan.connections if connection.broker == name]
        lines.append(
            {
                "name": name,
                "keys": len(held),
                "books": sum(connection.books for connection in held),
                "ticks": sum(connection.ticks for connection in held),
                "registrations": sum(connection.slots for connection in held),
                "limit": sum(connection.limit for connection in held),
            }
        )
    return {"home": str(home.root), "lines": lines, "short": plan.short, "fit": in_words(plan)}
