"""Status snapshot of a home, judged by vitals, not by the state supervisord reports.

    supervisord: RUNNING, pid ──┐
    vitals page: heartbeat    ──┼─> evaluate() ─> healthy, or the reason
    /proc: own memory         ──┘

Guarantees:
    * Reading disturbs no process; `evaluate` is pure.
    * A process that is RUNNING but not healthy is reported as such, with the reason.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import psutil

from brokers.registry import BROKERS
from collectorctl.allocation_report import build_allocation_report, format_shortfalls
from collectorctl.capture import CaptureStatus, read_capture
from collectorctl.recover.schedule.schedule import build_schedules
from collectorctl.recover.schedule.state import PROGRAM as ON_CALL
from collectorctl.recover.schedule.state import ScheduleState, schedule_state
from collectorctl.supervision.messages import ENGLISH, STATUS_MESSAGES
from collectorctl.supervision.supervisor import Program, SupervisorClient
from collectorctl.terminal import format_event_value
from conf.calendar import SEARCH_DAYS, TradingCalendar
from conf.clock import KST, SECOND_NS, to_kst
from conf.files.replacement import read_replaced
from conf.home import Home
from conf.market import KR, US, hours_of, to_local
from conf.process import is_waiting_for_disk
from conf.settings import Settings, SettingsError
from conf.text.language import Language, Texts
from ringbuf.fields import STREAM_FIELDS, compute_layout
from ringbuf.ring_file import RingError, RingFile
from ringbuf.vitals import VitalsError, VitalsSnapshot, VitalsVersionError, read_heartbeat, read_snapshot
from writer.feeds.day_events import Incident
from writer.feeds.day_report import DayReport
from writer.feeds.feed_report import FeedReport
from writer.volume.gaps import GapReport

MAX_EVENTS_SHOWN = 5

STALE_S = 5.0
"""Every loop sends a heartbeat about once a second; this much later it hangs."""

START_TIMEOUT_S = 90.0
"""A program that is due is started by the watchdog long before this."""


class ProcessStatus(msgspec.Struct, frozen=True):
    """One process: state by supervisord, state by its vitals, and the verdict."""

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
    other_version: bool = False
    """Whether it runs, and its page is of another version: nothing but its heartbeat is known."""


class RingLevel(msgspec.Struct, frozen=True):
    """How full a ring is: `backlog` records the writer has not made safe yet; `error`: why it cannot be read.

    `full_in_s`: when the backlog fills it at the rate of its records, None where little waits or it is full already. A backlog
    beyond `capacity` was overwritten unread.
    """

    name: str
    capacity: int
    head: int
    backlog: int
    error: str = ""
    note: str = ""
    full_in_s: float | None = None


class Status(msgspec.Struct, frozen=True):
    """A home at one instant."""

    home: str
    now: str
    supervisor_pid: int | None
    healthy: bool
    processes: list[ProcessStatus]
    rings: list[RingLevel]
    lost_records: int = 0
    """Records that the writer, since its start, could not read: overwritten before, or damaged in a ring."""
    damaged_records: int = 0
    """How many of these were damaged."""
    market: str = ""
    """Which sessions the universe's venues have now, or until when they are closed."""
    feed_health: FeedReport | None = None
    """State of the feeds as last evaluated by the writer; None before that."""
    day: DayReport | None = None
    """The day's incidents as last published by the writer; None before that."""
    day_age_s: float | None = None
    """How long ago, in real seconds, the writer last wrote or confirmed them; it does once a second."""
    events: list[str] = []
    """What happened last; without acknowledgements."""
    feed_health_age_s: float | None = None
    """How old that state is, in real seconds; it is made anew several times a minute."""
    gaps: GapReport | None = None
    """Gaps as last published by the writer: missing and doubled ticks by symbol; None before that."""
    us_gaps: GapReport | None = None
    """Gaps of the US ticks, in dollars."""
    gaps_age_s: float | None = None
    """How old the gaps are; they are published once a second."""
    shortfalls: list[str] = []
    """Instruments without a slot, with the consequence."""
    allocation_summary: str = ""
    """The shortfalls in one line."""
    recovery: ScheduleState | None = None
    """Recovery by itself: the last round, the next one."""
    captures: list[CaptureStatus] = []
    """Captured raw frames of each feed that is or was captured."""


_OPTIONAL_PROGRAMS = ("metrics", "relay", "zmq", "notify")
_PROGRAMS = {*BROKERS, "gapfill", "writer", ON_CALL, "watchdog", *_OPTIONAL_PROGRAMS}


def configured_programs(settings: Settings) -> list[str]:
    """The programs a home has, in the order of the data flow."""
    return [
        *enabled_feeds(settings),
        *gapfill_programs(settings),
        "writer",
        ON_CALL,
        "watchdog",
        *optional_programs(settings),
    ]


def enabled_feeds(settings: Settings) -> list[str]:
    """The enabled feeds."""
    return [name for name in BROKERS if getattr(settings, name).enabled]


def optional_programs(settings: Settings) -> list[str]:
    """The programs beside the data flow that are switched on."""
    return [name for name in _OPTIONAL_PROGRAMS if getattr(settings, name).enabled]


def never_started(program: Program) -> bool:
    """Whether it was never started: a program that starts only where it is switched on."""
    return program.state == "STOPPED" and not program.start_s


def gapfill_programs(settings: Settings) -> list[str]:
    """The process that fills gaps during the day, where it has something to do."""
    return ["gapfill"] if settings.gapfill.enabled and settings.kis.enabled else []


def evaluate(
    program: Program | None,
    vitals: VitalsSnapshot | None,
    now_mono_ns: int,
    waits_for_disk: bool = False,
    texts: Texts = ENGLISH,
) -> tuple[bool, str]:
    """Whether a process is healthy, and what it is doing or what is wrong."""
    if program is None:
        return False, texts("not_supervised")
    if program.state != "RUNNING" and program.state != "STARTING":
        return False, ": ".join(filter(None, (texts("supervisor_state", state=program.state), program.spawn_error)))
    if program.name not in _PROGRAMS:  # a user's own in supervisord.conf
        return True, texts("no_vitals")
    if vitals is None or vitals.pid != program.pid:
        return False, texts("no_sign")
    age_s = (now_mono_ns - vitals.heartbeat_mono_ns) / 1e9
    if age_s > STALE_S:
        return False, texts("no_heartbeat", age_s=age_s) + (f": {texts('waits_for_disk')}" if waits_for_disk else "")
    return vitals.state.is_healthy, ": ".join(filter(None, (texts(f"state_{vitals.state}"), vitals.detail)))


def evaluate_scheduled(program: Program, recovery: ScheduleState, texts: Texts = ENGLISH) -> tuple[bool, str]:
    """The verdict on a program that was not started, or has ended, because nothing was due for it."""
    if recovery.due and recovery.due_s > START_TIMEOUT_S:
        why = texts("was_stopped" if program.stopped_by_user else "not_started")
        return False, texts("due_not_running", due=recovery.due, why=why, name=program.name)
    if not recovery.enabled:
        return True, texts("off")
    return True, texts("due", due=recovery.due) if recovery.due else texts("nothing_due")


def collect_status(home: Home, language: Language = "en") -> Status:
    """The status of a home, from outside; what people read of it in `language`."""
    texts = Texts(language, STATUS_MESSAGES)
    supervisor = SupervisorClient(home)
    pid = supervisor.find_pid()
    supervised = {program.name: program for program in supervisor.list_programs()}
    configured = configured_programs(home.settings)
    names = [
        *configured,
        *(name for name, program in supervised.items() if name not in configured and not never_started(program)),
    ]
    shortfalls, summary = _read_allocation(home)
    recovery = schedule_state(home, build_schedules(home.settings, home.load_calendar()))
    processes = [_build_process_status(home, name, supervised.get(name), recovery, texts) for name in names]
    feed_health = read_replaced(home.feed_report_path(), FeedReport) if pid is not None else None
    day = read_replaced(home.day_report_path(), DayReport)
    rings = [
        *(
            _read_ring_level(home, line, stream, texts)
            for line in enabled_feeds(home.settings)
            for stream in STREAM_FIELDS
        ),
        *(_read_ring_level(home, line, "tick", texts) for line in gapfill_programs(home.settings)),
    ]
    return Status(
        home=str(home.root),
        now=f"{to_kst(home.load_clock().now_ns()):%Y-%m-%d %H:%M:%S} KST",
        supervisor_pid=pid,
        healthy=pid is not None
        and all(process.healthy for process in processes)
        and not any(ring.error for ring in rings)
        and not (feed_health and feed_health.degraded),
        processes=processes,
        rings=rings,
        lost_records=_count_writers(processes, "lost_records"),
        damaged_records=_count_writers(processes, "damaged_records"),
        market=_describe_market(home, texts),
        feed_health=feed_health,
        feed_health_age_s=_read_age_s(home.feed_report_path()),
        day=day,
        day_age_s=_read_age_s(home.day_report_path()),
        events=[_format_event(event) for event in day.recent[-MAX_EVENTS_SHOWN:]] if day else [],
        gaps=read_replaced(home.gap_report_path(KR.name), GapReport),
        us_gaps=read_replaced(home.gap_report_path(US.name), GapReport),
        gaps_age_s=_read_age_s(home.gap_report_path(KR.name)),
        shortfalls=shortfalls,
        allocation_summary=summary,
        recovery=recovery,
        captures=read_capture(home, enabled_feeds(home.settings)),
    )


def _count_writers(processes: list[ProcessStatus], counter: str) -> int:
    return sum(process.counters.get(counter, 0) for process in processes if process.name == "writer")


def _describe_market(home: Home, texts: Texts) -> str:
    calendar, now_ns = home.load_calendar(), home.load_clock().now_ns()
    markets = dict.fromkeys(BROKERS[line].market for line in enabled_feeds(home.settings))
    venues = [{one.venue for one in home.settings.instruments(market)} for market in markets]
    return "; ".join(_describe_venues(calendar, each, now_ns, texts) for each in venues if each)


def _describe_venues(calendar: TradingCalendar, venues: set[str], now_ns: int, texts: Texts) -> str:
    phases = {venue: calendar.find_phase(venue, now_ns) for venue in sorted(venues)}
    if any(phases.values()):
        return ", ".join(f"{venue} {texts(f'phase_{phase}')}" for venue, phase in phases.items() if phase)
    opening = calendar.next_open_if_closed(venues, now_ns)
    if opening is None:
        return texts("closed", days=SEARCH_DAYS)
    if texts.language == "en":
        return texts("closed_until", text=opening)
    at = to_local(opening.ns, hours_of(opening.venue).zone)
    zone = "KST" if at.tzinfo is KST else f"{at:%Z}"
    return texts("closed_until", text=f"{at:%Y-%m-%d %H:%M} {zone} ({opening.venue} {texts(f'phase_{opening.phase}')})")


def _read_allocation(home: Home) -> tuple[list[str], str]:
    """Each shortfall, and all in one line; the error instead if keys cannot be counted."""
    try:
        report = build_allocation_report(home)
    except SettingsError as error:
        return [], str(error)
    return report.shortfalls, format_shortfalls(report)


def _format_event(event: Incident) -> str:
    market = US if event.feed == "us" else KR
    value = format_event_value(event.kind, event.value or None)
    subject = " ".join(filter(None, (event.symbol, event.venue, event.stream, value)))
    since = "" if event.begin_ns == event.end_ns else f"since {market.to_local(event.begin_ns):%H:%M:%S}"
    text = " ".join(filter(None, (subject, event.message, since)))
    zone = " %Z" if market is US else ""
    return f"{market.to_local(event.end_ns or event.begin_ns):%H:%M:%S{zone}} {event.feed} {event.kind}: {text}"


def estimate_full_in(ring: RingFile, backlog: int) -> float | None:
    """In how many seconds the ring is full if nothing is made safe meanwhile."""
    if not ring.capacity // 20 < backlog <= ring.capacity:
        return None
    oldest_ns, newest_ns = (ring.read_mono_ns(seq) for seq in (ring.head - backlog + 1, ring.head))
    if oldest_ns is None or newest_ns is None:
        return None
    span_s = (newest_ns - oldest_ns) / SECOND_NS
    return round((ring.capacity - backlog) * span_s / (backlog - 1), 1)


def _read_age_s(path: Path) -> float | None:
    """How long ago a file was replaced, in real seconds; None if there is none."""
    try:
        return round(time.time() - path.stat().st_mtime, 1)
    except FileNotFoundError:
        return None


def _build_process_status(
    home: Home, name: str, program: Program | None, recovery: ScheduleState, texts: Texts
) -> ProcessStatus:
    vitals: VitalsSnapshot | None = None
    vitals_error, is_other_version = "", False
    try:
        vitals = read_snapshot(home.vitals_path(name))
    except FileNotFoundError:
        pass
    except VitalsVersionError:
        page = read_heartbeat(home.vitals_path(name))
        is_other_version = program is not None and page is not None and program.pid == page.pid > 0
        vitals_error = texts("other_version", name=name) if is_other_version else ""
    except VitalsError as error:
        vitals_error = str(error)
    if name == ON_CALL and program is not None and program.state in ("STOPPED", "EXITED"):
        healthy, verdict = evaluate_scheduled(program, recovery, texts)
    else:
        healthy, verdict = evaluate(
            program, vitals, time.monotonic_ns(), program is not None and is_waiting_for_disk(program.pid), texts
        )
    status = ProcessStatus(
        name=name,
        supervisor_state=program.state if program else "ABSENT",
        pid=program.pid if program else 0,
        healthy=healthy,
        verdict=vitals_error or verdict,
        other_version=is_other_version,
    )
    if program is None or vitals is None or vitals.pid != program.pid:
        return status
    return msgspec.structs.replace(
        status,
        state=vitals.state,
        detail=vitals.detail,
        uptime_s=round(time.time() - vitals.start_ns / 1e9, 1),
        heartbeat_age_s=round((time.monotonic_ns() - vitals.heartbeat_mono_ns) / 1e9, 3),
        own_memory_mb=read_own_memory_mb(program.pid),
        latency_us={p: ns / 1000 for p, ns in vitals.latency_ns.items()},
        counters=vitals.counters,
    )


def read_own_memory_mb(pid: int) -> float | None:
    """Resident minus shared memory, MB: rings and mapped files do not count. None if the process does not exist."""
    try:
        memory = psutil.Process(pid).memory_info()
    except psutil.NoSuchProcess:
        return None
    return round((memory.rss - memory.shared) / 1e6, 1)


def _read_ring_level(home: Home, feed: str, stream: str, texts: Texts) -> RingLevel:
    name = f"{feed}.{stream}"
    try:
        ring = RingFile(home.ring_path(feed, stream), compute_layout(STREAM_FIELDS[stream]))
    except FileNotFoundError:
        return RingLevel(name, 0, 0, 0, note=texts("ring_missing"))
    except RingError as error:
        return RingLevel(name, 0, 0, 0, str(error))
    backlog = max(0, ring.head - ring.tail + 1)
    level = RingLevel(name, ring.capacity, ring.head, backlog, full_in_s=estimate_full_in(ring, backlog))
    ring.close()
    return level
