"""Pre-flight checks: settings, supervisord.conf, secrets, and what of the universe has no slot.

Guarantees:
    * The first error found is raised as SettingsError; nothing is started or written.
    * What has no slot is reported and is no error: the home runs with what fits. So is a key that another home has in use; it
      is refused at the start.

Not handled here:
    * Whether the brokers accept the keys.
"""

from __future__ import annotations

import getpass
import os
from typing import Any

from brokers.allocation.credentials import key_counts
from brokers.transport.key_lock import find_keys_in_use
from collectorctl.allocation_report import build_allocation_report, format_shortfalls
from collectorctl.notify.channel import open_channels
from collectorctl.ring_directory import find_orphans, find_removal_risk
from collectorctl.supervision.status import enabled_feeds
from collectorctl.supervision.supervisor import check_configuration
from conf.clock import to_kst
from conf.home import Home
from conf.loader import SETTINGS_FILE, load_secrets
from conf.process import AlreadyRunning
from conf.settings import SettingsError
from ringbuf.machine import find_fault, read_machine


def check_home(home: Home) -> dict[str, Any]:
    """What would be subscribed where; SettingsError instead if the home cannot be started."""
    if fault := find_fault(read_machine()):
        raise SettingsError(home.root, "machine", f"{read_machine()}: {fault}", "use another machine")
    check_configuration(home)
    for name, keys in key_counts(home).items():
        for number in range(1, keys + 1):
            load_secrets(home.root, name, number=number)
    if home.settings.notify.enabled:
        open_channels(home)
    report = build_allocation_report(home)
    feeds = []
    for name in enabled_feeds(home.settings):
        connections = [connection for connection in report.connections if connection.feed == name]
        feeds.append(
            {
                "name": name,
                "keys": len(connections),
                "books": sum(connection.books for connection in connections),
                "ticks": sum(connection.ticks for connection in connections),
                "subscriptions": sum(connection.slots for connection in connections),
                "limit": sum(connection.limit for connection in connections),
            }
        )
    risk = find_removal_risk(home.ring_directory, getpass.getuser(), os.getuid())
    return {
        "home": str(home.root),
        "machine": str(read_machine()),
        "lines": feeds,
        "short": report.shortfalls,
        "fit": format_shortfalls(report),
        "keys_in_use": find_keys_in_use(home),
        "ring_directory": str(home.ring_directory),
        "warnings": [*filter(None, [risk, _find_missing_exam_day(home)]), *find_orphans(home.other_ring_directories())],
    }


def _find_missing_exam_day(home: Home) -> str:
    """A warning if nobody has named this year's day of the college entrance exam, on which Korea trades an hour later."""
    year = to_kst(home.load_clock().now_ns()).year
    if home.load_calendar().has_exam_day(year):
        return ""
    return (
        f"no exam day is named for {year}: on that Thursday of November the regular sessions are an hour later: add "
        f'"{year}-11-DD" = "exam_day" to [calendar.special] in {home.root / SETTINGS_FILE}'
    )


def reject_keys_in_use(home: Home) -> None:
    """AlreadyRunning if another home of this host has a key of this one in use: the two would end each other's session for ever."""
    if in_use := find_keys_in_use(home):
        raise AlreadyRunning("; ".join(in_use))
