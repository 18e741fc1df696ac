"""How a home is doing, judged from outside by vitals, not by what supervisord believes.

    supervisord: RUNNING, pid ──┐
    vitals page: beat, state  ──┼─> judge() ─> healthy, or why not
    /proc: own memory         ──┘

Promises: reading disturbs nobody; `judge` is pure; a process that is RUNNING but not healthy is called so, with the reason.
Leaves to others: doing something about it (daemon.py, watchdog).
"""

from __future__ import annotations

import time

import msgspec
import psutil

from brokers.registry import BROKERS
from collectorctl.allocation_report import in_words, planned
from collectorctl.recover.schedule.schedule import Schedule
from collectorctl.recover.schedule.state import PROGRAM as ON_CALL
from collectorctl.recover.schedule.state import Outlook, outlook
from collectorctl.supervision.supervisor import Daemon, Program
from conf.clock import korean
from conf.home import Home
from conf.market import KR, MARKETS, US, Market
from conf.settings import Settings, SettingsError
from ringbuf.records import STREAMS
from ringbuf.ring import Consumer, RingError
from ringbuf.vitals import Reading, VitalsError, read
from writer.feeds.monitor import LinesReport
from writer.feeds.monitor import report_of as lines_report
from writer.volume.gap_tracker import Report, report_of

EVENTS_LOOKED_AT, EVENTS_SHOWN = 200, 5

STALE_S = 5.0
"""Every loop beats about once a second; this much later it hangs."""

HEALTHY = frozenset(
    ["streaming", "closed_market", "sleeping", "running", "publishing", "disabled", "recovering", "done"]
)
"""States in which a process does all it is there for."""

START_WITHIN_S = 90.0
"""A program that is due is started by the watchdog long before this."""


class Process(msgspec.Struct, frozen=True):
    """One process: what supervisord says, what its vitals say, and the verdict."""

    name: str
    supervisor_state: str
    pid: int
    healthy: bool
    verdict: str
    state: str = ""
    detail: str = ""
    uptime_s: float = 0.0
    heartbeat_age_s: float | None = None
    own_memory_mb: float | None = None
    latency_us: dict[str, float] = {}
    counters: dict[str, int] = {}


class RingLevel(msgspec.Struct, frozen=True):
    """How full a ring is: `backlog` records the writer has not made safe yet."""

    name: str
    capacity: int
    head: int
    backlog: int
    complaint: str = ""


class Status(msgspec.Struct, frozen=True):
    """A home at one instant."""

    home: str
    now: str
    supervisor_pid: int | None
    healthy: bool
    processes: list[Process]
    rings: list[RingLevel]
    market: str = ""
    """Which sessions the universe's venues have now, or until when they are closed."""
    lines: LinesReport | None = None
    """How the lines stand as the writer last judged them; None before it did."""
    events: list[str] = []
    """What happened last, of the open hour; without acknowledgements."""
    volume: Report | None = None
    """The volume line as the writer last told it: missing and doubled ticks by symbol; None before it did."""
    us_volume: Report | None = None
    """The same of the US ticks, in dollars."""
    short: list[str] = []
    """What of the universe finds no place with the brokers, and what that costs."""
    fit: str = ""
    """The same in one line."""
    recovery: Outlook | None = None
    """Recovery by itself: the last round, the next one."""


def programs_of(settings: Settings) -> list[str]:
    """The programs a home has, in the order of the data flow."""
    return [*lines_of(settings), *fills(settings), "writer", ON_CALL, "watchdog"]


def lines_of(settings: Settings) -> list[str]:
    """The lines that are switched on."""
    return [name for name in BROKERS if getattr(settings, name).enabled]


def is_at_rest(program: Program) -> bool:
    """Whether it was never started: a program that starts only where it is switched on."""
    return program.state == "STOPPED" and not program.start_s


def fills(settings: Settings) -> list[str]:
    """The process that fills gaps during the day, where it has something to do."""
    return ["fill"] if settings.fill.enabled and settings.kis.enabled else []


def judge(program: Program | None, vitals: Reading | None, now_mono_ns: int) -> tuple[bool, str]:
    """Whether a process is healthy, and in words what it is doing or what is wrong."""
    if program is None:
        return False, "not supervised"
    if program.state != "RUNNING" and program.state != "STARTING":
        return False, f"supervisor: {program.state}{': ' + program.complaint if program.complaint else ''}"
    if vitals is None or vitals.pid != program.pid:
        return False, "no sign of life yet"
    age_s = (now_mono_ns - vitals.beat_mono_ns) / 1e9
    if age_s > STALE_S:
        return False, f"no heartbeat for {age_s:.0f} s"
    said = f"{vitals.state}: {vitals.detail}" if vitals.detail else vitals.state
    return vitals.state in HEALTHY, said


def judge_on_call(program: Program, ahead: Outlook) -> tuple[bool, str]:
    """The same for a program that was not started, or has ended, because nothing was due for it."""
    if ahead.due and ahead.due_s > START_WITHIN_S:
        why = "it was stopped" if program.held_down else "the watchdog should have started it"
        return False, f"due for {ahead.due} and does not run: {why}: `collectorctl restart {program.name}`"
    return True, (f"due for {ahead.due}" if ahead.due else "nothing is due") if ahead.on else "off"


def look(home: Home) -> Status:
    """Everything there is to see from outside."""
    daemon = Daemon(home)
    pid = daemon.pid()
    supervised = {program.name: program for program in daemon.programs()}
    wanted = programs_of(home.settings)
    names = [*wanted, *(name for name, program in supervised.items() if name not in wanted and not is_at_rest(program))]
    short, fit = _fit(home)
    ahead = outlook(home, Schedule(home.settings, home.calendar()))
    processes = [_process(home, name, supervised.get(name), ahead) for name in names]
    lines = _lines(home) if pid is not None else None
    return Status(
        home=str(home.root),
        now=f"{korean(home.clock().now_ns()):%Y-%m-%d %H:%M:%S} KST",
        supervisor_pid=pid,
        healthy=pid is not None and all(process.healthy for process in processes) and not (lines and lines.degraded),
        processes=processes,
        rings=[
            *(_ring(home, line, stream) for line in lines_of(home.settings) for stream in STREAMS),
            *(_ring(home, line, "tick") for line in fills(home.settings)),
        ],
        market=_market(home),
        lines=lines,
        events=_events(home),
        volume=_volume(home, KR),
        us_volume=_volume(home, US),
        short=short,
        fit=fit,
        recovery=ahead,
    )


def _market(home: Home) -> str:
    calendar, now_ns = home.calendar(), home.clock().now_ns()
    markets = dict.fromkeys(BROKERS[line].market for line in lines_of(home.settings))
    venues = [{one.venue for one in home.settings.instruments(market)} for market in markets]
    return "; ".join(calendar.said(each, now_ns) for each in venues if each)


def _fit(home: Home) -> tuple[list[str], str]:
    """What does not fit, each and in one line; keys that cannot be counted are said instead."""
    try:
        plan = planned(home)
    except SettingsError as error:
        return [], str(error)
    return plan.short, in_words(plan)


def _lines(home: Home) -> LinesReport | None:
    try:
        return lines_report((home.run / "lines.json").read_bytes())
    except FileNotFoundError:
        return None


def _events(home: Home) -> list[str]:
    from collectorctl.tail import newest, render  # with pyarrow, which the watchdog must not load with this module

    rows = [
        row
        for market in MARKETS
        for row in newest(home, f"{market}.event", EVENTS_LOOKED_AT, follow=False)
        if row["kind"] != "acknowledged"
    ]
    rows.sort(key=lambda row: row["mono_ns"])
    return [render("event", row) for row in rows[-EVENTS_SHOWN:]]


def _volume(home: Home, market: Market) -> Report | None:
    try:
        return report_of(home.volume(market.name).read_bytes())
    except FileNotFoundError:
        return None


def _process(home: Home, name: str, program: Program | None, ahead: Outlook) -> Process:
    vitals: Reading | None = None
    trouble = ""
    try:
        vitals = read(home.vitals(name))
    except FileNotFoundError:
        pass
    except VitalsError as error:
        trouble = str(error)
    if name == ON_CALL and program is not None and program.state in ("STOPPED", "EXITED"):
        healthy, verdict = judge_on_call(program, ahead)
    else:
        healthy, verdict = judge(program, vitals, time.monotonic_ns())
    common = {
        "name": name,
        "supervisor_state": program.state if program else "ABSENT",
        "pid": program.pid if program else 0,
        "healthy": healthy,
        "verdict": trouble or verdict,
    }
    if program is None or vitals is None or vitals.pid != program.pid:
        return Process(**common)
    return Process(
        **common,
        state=vitals.state,
        detail=vitals.detail,
        uptime_s=round(time.time() - vitals.start_ns / 1e9, 1),
        heartbeat_age_s=round((time.monotonic_ns() - vitals.beat_mono_ns) / 1e9, 3),
        own_memory_mb=own_memory_mb(program.pid),
        latency_us={p: ns / 1000 for p, ns in vitals.latency_ns.items()},
        counters=vitals.counters,
    )


def own_memory_mb(pid: int) -> float | None:
    """Resident minus shared memory, MB: rings and mapped files do not count. None when the process is gone."""
    try:
        memory = psutil.Process(pid).memory_info()
    except psutil.NoSuchProcess:
        return None
    return round((memory.rss - memory.shared) / 1e6, 1)


def _ring(home: Home, line: str, stream: str) -> RingLevel:
    name = f"{line}.{stream}"
    try:
        ring = Consumer.open(home.ring(line, stream), STREAMS[stream])
    except FileNotFoundError:
        return RingLevel(name, 0, 0, 0, "not made yet")
    except RingError as error:
        return RingLevel(name, 0, 0, 0, str(error))
    try:
        return RingLevel(name, ring.capacity, ring.head, max(0, ring.head - ring.tail + 1))
    finally:
        ring.close()
