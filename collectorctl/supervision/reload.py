"""Reload: another universe in a running home, without a restart of what carries books.

    settings ──check──> list, with the place of what stays ──> run/universe.json ──> collectors (within two seconds)
                                                                                └─> watchdog, notify, metrics at their next look

Guarantees:
    * What is not valid is refused as by `check`, and nothing is changed.
    * An instrument that is in both lists keeps broker and key of its subscriptions as far as there are slots; what moves is named.
    * A collector subscribes to what is new and unsubscribes what went on the connections that it has; the writer takes what comes.
    * The lists before and after are both recorded as the day's, once a session of the day has begun; else the new one alone.

Not handled here:
    * Settings other than [universe] and the groups of [shards]: they need a restart, as ever.
"""

from __future__ import annotations

import time

import msgspec

from brokers.allocation.allocate import Placement, describe_placement, plan_connections
from brokers.allocation.credentials import key_counts
from collectorctl.allocation_report import ConnectionRow, build_allocation_report
from collectorctl.check import require_startable
from collectorctl.supervision.readiness import wait_until_healthy
from collectorctl.supervision.status import enabled_feeds
from collectorctl.supervision.supervisor import SupervisorClient, exclude_starts
from collectorctl.symbols.resolve import find_today, put_in_force, record_list, resolve_universe, start_universe
from conf.files.replacement import read_replaced
from conf.home import Home
from conf.loader import load_settings
from conf.market import KR
from conf.settings import Settings
from conf.universe.listing import UniverseList
from ringbuf.vitals import VitalsError, read_snapshot

POLL_S = 0.1


class ReloadReport(msgspec.Struct, frozen=True):
    """What a reload changed. `is_running`: whether there were processes to take it up.

    `added`, `removed`: instruments; `moved`: subscriptions of instruments in both lists that change broker or key; `before`,
    `after`: the connections, before empty if no list was in force; `unhealthy`: feeds that have not taken it up in time, and why.
    """

    number: int
    is_running: bool
    added: list[str]
    removed: list[str]
    moved: list[str]
    before: list[ConnectionRow]
    after: list[ConnectionRow]
    shortfalls: list[str]
    unhealthy: list[tuple[str, str]]


def reload_universe(home: Home, wait_s: float) -> ReloadReport:
    """Put the universe of the settings in force, and wait until the collectors have it.

    SettingsError, AlreadyRunning, SupervisorError, OSError.
    """
    home.create_directories()
    with exclude_starts(home):
        require_startable(home.root)
        running = {program.name for program in SupervisorClient(home).list_programs() if program.pid}
        written = Home(home.root, load_settings(home.root))
        before = read_replaced(home.universe_path(), UniverseList)  # also where codes were edited since
        home = Home(home.root, msgspec.structs.replace(written.settings, in_force=before))
        new = place_list(written, resolve_universe(written), before)
        if before is not None and running and has_session_begun(home):
            record_list(home, find_today(home), before)
        if running:
            new = put_in_force(written, new)
        else:
            start_universe(written)
        new_home = Home(home.root, msgspec.structs.replace(written.settings, in_force=new))
    feeds = [name for name in enabled_feeds(new_home.settings) if name in running]
    report = build_allocation_report(new_home)
    old = set[str]() if before is None else {*before.kr, *before.us}
    codes = {*new.kr, *new.us}
    return ReloadReport(
        number=new.number,
        is_running=bool(running),
        added=[one for one in (*new.kr, *new.us) if one not in old] if before else [],
        removed=[one for one in (*before.kr, *before.us) if one not in codes] if before else [],
        moved=find_moved(plan_placement(home.settings, home), new.placement, old & codes) if before else [],
        before=build_allocation_report(home).connections if before else [],
        after=report.connections,
        shortfalls=report.shortfalls,
        unhealthy=_wait_until_taken_up(new_home, new.number, feeds, wait_s) if feeds else [],
    )


def place_list(written: Home, new: UniverseList, before: UniverseList | None) -> UniverseList:
    """The new list with the place of every subscription: where the list before has it, unless [shards] says otherwise."""
    shards = written.settings.shards
    named = {f"{text} tick" for text in (*shards.kis, *shards.kiwoom)}
    old = plan_placement(msgspec.structs.replace(written.settings, in_force=before), written) if before else {}
    kept = {name: {one: key for one, key in places.items() if one not in named} for name, places in old.items()}
    settings = msgspec.structs.replace(written.settings, in_force=msgspec.structs.replace(new, placement=kept))
    return msgspec.structs.replace(new, placement=plan_placement(settings, written))


def plan_placement(settings: Settings, home: Home) -> dict[str, dict[str, int]]:
    """Where everything is by the plan of these settings and the keys of a home. SettingsError."""
    return describe_placement(plan_connections(settings, key_counts(home)))


def find_moved(before: Placement, after: Placement, kept: set[str]) -> list[str]:
    """Subscriptions of instruments in both lists that are not where they were, or nowhere: `005930 tick: kis 1 -> kiwoom 1`."""
    places = [
        {(one, name): key for name, subscriptions in each.items() for one, key in subscriptions.items()}
        for each in (before, after)
    ]
    moved = []
    for (one, name), key in places[0].items():
        if one.split()[0] in kept and places[1].get((one, name)) != key:
            to = [f"{other} {number}" for (what, other), number in places[1].items() if what == one]
            moved.append(f"{one}: {name} {key} -> {', '.join(to) or 'no slot'}")
    return moved


def has_session_begun(home: Home) -> bool:
    """Whether a Korean session of today has begun, so that what is in force now has been collected today."""
    calendar, now_ns, today = home.load_calendar(), home.load_clock().now_ns(), find_today(home)
    spans = [calendar.phase_spans(venue, today) for venue in KR.venues]
    return any(each[0].begin_ns <= now_ns for each in spans if each)


def _wait_until_taken_up(home: Home, number: int, feeds: list[str], wait_s: float) -> list[tuple[str, str]]:
    """The feeds that have not asked for what the list says, or not got it, in time."""
    deadline = time.monotonic() + wait_s
    while left := [name for name in feeds if _read_list_number(home, name) != number]:
        if time.monotonic() > deadline:
            return [(name, f"has not taken up the list: see {home.log / name}.log") for name in left]
        time.sleep(POLL_S)
    return wait_until_healthy(home, max(0.0, deadline - time.monotonic()), feeds)


def _read_list_number(home: Home, name: str) -> int:
    try:
        return read_snapshot(home.vitals_path(name)).counters["list_number"]
    except (FileNotFoundError, VitalsError):  # it is just being started
        return -1
