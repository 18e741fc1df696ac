"""Pre-flight checks: settings, supervisord.conf, secrets, directories, and what of the universe has no slot.

Guarantees:
    * All faults are found in one run: what does not depend on a faulty setting is judged all the same.
    * Nothing is started or written.
    * Expressions of the universe are resolved as a start would now, whatever is in force; one that gives much less than it
      asks for is a fault.
    * A home without a broker, or with an instrument that no broker has a slot for, is refused like one with a fault. So is one
      with a code that the table of symbols, if it is of the last days, does not have.
    * What has a slot for less than it could have is reported and is no fault. So is a key that another home has in use; it is
      refused at the start.

Not handled here:
    * Whether the brokers accept the keys.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from brokers.allocation.credentials import key_counts
from brokers.registry import BROKERS
from brokers.transport.key_lock import find_keys_in_use
from collectorctl.allocation_report import AllocationReport, abbreviate, build_allocation_report, format_shortfalls
from collectorctl.check_messages import MESSAGES
from collectorctl.notify.channel import open_channels
from collectorctl.ring_directory import find_orphans, find_removal_risk
from collectorctl.supervision.status import enabled_feeds
from collectorctl.supervision.supervisor import check_configuration
from collectorctl.symbols.resolve import resolve_universe
from collectorctl.symbols.universe import judge_universe
from conf.clock import to_kst
from conf.home import Home, reject_unusable_path
from conf.loader import SETTINGS_FILE, count_keys, load_secrets, read_settings
from conf.process import AlreadyRunning, find_rotation_fault
from conf.settings import Fault, SettingsError
from conf.text.language import Language, Texts
from conf.universe.listing import has_expressions
from ringbuf.machine import find_fault, read_machine

_ALLOCATED = ("universe", "shards", *BROKERS)
"""Tables without which the allocation cannot be judged."""


class Faults:
    """The faults found so far, each once."""

    def __init__(self) -> None:
        self._found: dict[str, Fault] = {}

    def add(self, *faults: Fault) -> None:
        """Add what is not known yet."""
        for fault in faults:
            self._found.setdefault(fault.format(), fault)

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Add the faults of a SettingsError that ends the block."""
        try:
            yield
        except SettingsError as error:
            self.add(*error.faults)

    def list(self) -> list[Fault]:
        """All of them, in the order found."""
        return list(self._found.values())


def require_startable(root: Path) -> None:
    """SettingsError with all faults of a home that cannot be started."""
    faults, _ = check_home(root)
    if faults:
        raise SettingsError(*faults)


def check_home(root: Path, language: Language = "en") -> tuple[list[Fault], dict[str, Any]]:
    """All faults, and what would be subscribed where as far as that can be judged; its sentences in `language`."""
    root = root.resolve()
    faults = Faults()
    found: dict[str, Any] = {"home": str(root), "machine": str(read_machine()), "lines": [], "short": [], "fit": ""}
    found |= {"keys_in_use": [], "ring_directory": "", "warnings": [], "universe": None}
    with faults.collect():
        reject_unusable_path(root)
        settings, wrong = read_settings(root)
        faults.add(*wrong)
        if reason := find_fault(read_machine()):
            faults.add(Fault(root, "machine", "machine", machine=read_machine(), reason=reason))
        if settings is not None:
            faulty_tables = {fault.key.partition(".")[0] for fault in wrong}
            if "universe" not in faulty_tables and has_expressions(settings.universe.kr):
                faulty_tables.add("universe")  # unless the next line goes well
                with faults.collect():
                    resolved = resolve_universe(Home(root, settings))
                    settings = msgspec.structs.replace(settings, in_force=resolved)
                    found["universe"] = msgspec.to_builtins(resolved)
                    faulty_tables.discard("universe")
            _check_usable(Home(root, settings), faulty_tables, faults, found, language)
        elif root.is_dir():
            count_keys(root, "kis")  # reads the file of the secrets
    return faults.list(), found


def _check_usable(
    home: Home, faulty_tables: set[str], faults: Faults, found: dict[str, Any], language: Language
) -> None:
    """Add to `faults` and `found` what can be judged of a home with such settings."""
    with faults.collect():
        check_configuration(home)
    faults.add(*home.find_directory_faults())
    if fault := find_rotation_fault(home):
        faults.add(fault)
    if home.settings.notify.enabled:
        with faults.collect():
            open_channels(home)
    with faults.collect():
        for name, keys in key_counts(home).items():
            for number in range(1, keys + 1):
                with faults.collect():
                    load_secrets(home.root, name, number=number)
    if not enabled_feeds(home.settings):
        faults.add(Fault(home.root / SETTINGS_FILE, "enabled", "no_broker"))
    elif not faulty_tables & set(_ALLOCATED):
        with faults.collect():
            report = build_allocation_report(home)
            faults.add(*_find_uncollected(home, report))
            found |= {
                "lines": [_count_subscriptions(name, report) for name in enabled_feeds(home.settings)],
                "short": report.shortfalls,
                "fit": format_shortfalls(report, language),
            }
    if not faults.list():
        found["keys_in_use"] = find_keys_in_use(home)
    universe_warnings: list[str] = []
    if "universe" not in faulty_tables and {"kis", "kiwoom"} & set(enabled_feeds(home.settings)):
        wrong, universe_warnings = judge_universe(home, to_kst(home.load_clock().now_ns()).date(), language)
        faults.add(*wrong)
    risk = find_removal_risk(home.ring_directory, getpass.getuser(), os.getuid(), language=language)
    warnings = [risk, "" if "calendar" in faulty_tables else _find_missing_exam_day(home, language)]
    found["warnings"] = [
        *filter(None, warnings),
        *universe_warnings,
        *find_orphans(home.other_ring_directories(), language),
    ]
    found["ring_directory"] = str(home.ring_directory)


def _find_uncollected(home: Home, report: AllocationReport) -> Iterator[Fault]:
    """A fault if instruments have neither book nor ticks from any broker."""
    names = [row.instrument for row in report.instruments if not row.books and not row.ticks]
    if names:
        values = {"count": len(names), "total": len(report.instruments), "names": abbreviate(names)}
        yield Fault(home.root / SETTINGS_FILE, "universe", "not_collected", **values)


def _count_subscriptions(name: str, report: AllocationReport) -> dict[str, Any]:
    connections = [connection for connection in report.connections if connection.feed == name]
    return {
        "name": name,
        "keys": len(connections),
        "books": sum(connection.books for connection in connections),
        "ticks": sum(connection.ticks for connection in connections),
        "subscriptions": sum(connection.slots for connection in connections),
        "limit": sum(connection.limit for connection in connections),
    }


def _find_missing_exam_day(home: Home, language: Language) -> str:
    """A warning if nobody has named this year's day of the college entrance exam, on which Korea trades an hour later."""
    year = to_kst(home.load_clock().now_ns()).year
    if home.load_calendar().has_exam_day(year):
        return ""
    return Texts(language, MESSAGES)("no_exam_day", year=year, file=home.root / SETTINGS_FILE)


def reject_keys_in_use(home: Home) -> None:
    """AlreadyRunning if another home of this host has a key of this one in use: the two would end each other's session for ever."""
    if in_use := find_keys_in_use(home):
        raise AlreadyRunning("; ".join(in_use))
