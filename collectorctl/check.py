"""Everything that can be wrong before a start: settings, secrets, registrations.

Promises: raises the first error found, in words (SettingsError, PlanError); starts and writes nothing.
Leaves to others: whether the brokers accept the keys.
"""

from __future__ import annotations

from typing import Any

from brokers.plan import plan, slots
from collectorctl.status import lines_of
from conf.home import Home
from conf.settings import load_secrets


def findings(home: Home) -> dict[str, Any]:
    """What would be registered where; SettingsError or PlanError instead if the home cannot be started."""
    for name in lines_of(home.settings):
        load_secrets(home.root, name)
    planned = plan(home.settings)
    lines = []
    for name in lines_of(home.settings):
        registrations = [r for connection in planned[name] for r in connection.registrations]
        lines.append(
            {
                "name": name,
                "books": sum(r.stream == "orderbook" for r in registrations),
                "ticks": sum(r.stream == "tick" for r in registrations),
                "registrations": sum(slots(name, connection.registrations) for connection in planned[name]),
                "limit": getattr(home.settings, name).registrations,
            }
        )
    return {"home": str(home.root), "lines": lines}
