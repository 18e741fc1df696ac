"""Rules of the verdict: findings from the state of the processes, the day's incidents, and the room on the disk (pure).

    Status, DayReport, DiskRoom, acknowledgement ──judge()──> Verdict: level, findings, the worst first

    0 safe      1 repairing: something is not healthy now, and is being repaired
    2 attention: something was lost today, or a person is needed      3 stopped: on purpose

Guarantees:
    * A loss of the trading day counts until the day is over or it is acknowledged, whatever is healthy since.
    * A level does not change back within SETTLE_S of a restart, a reconnection or the end of a pause.
    * Equal evidence gives an equal verdict.

Not handled here:
    * Missing ticks are no loss before recovery has failed: they are fetched after the close.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from enum import IntEnum
from statistics import median

import msgspec

from collectorctl.supervision.status import Status
from collectorctl.verdict.messages import ACTIONS, MESSAGES
from conf.calendar import TradingCalendar
from conf.clock import SECOND_NS
from conf.loader import SETTINGS_FILE
from conf.market import KR, MARKETS, Market
from conf.text.language import Count, Language, Texts
from ringbuf.vitals import ProcessState
from writer.feeds.day_events import BlindSpan, Incident

SETTLE_S = 60.0
"""How long something is called repairing after it was repaired."""

MAX_LAG_MS = 1000.0
"""A feed whose books come later than this behind the other's, or the exchange's second, is late."""

STAMP_MS = 1000.0
"""An exchange stamp has whole seconds: what comes so much later may have come at once."""

MIN_DISK_DAYS = 2.0
MIN_RING_S = 60.0
STALE_REPORT_S = 10.0

_LOSSES = ("ring_loss", "journal_damaged")
_NEEDS_PERSON = (ProcessState.REFUSED, ProcessState.PAUSED, ProcessState.FAILING)
_NOTES_WITH_ACTION = ("quarantined", "settings_changed", "shortfall", "disk_days")


class Level(IntEnum):
    """The level of a finding and of a verdict; also the exit status of `status`."""

    SAFE = 0
    REPAIRING = 1
    ATTENTION = 2
    STOPPED = 3


class Finding(msgspec.Struct, frozen=True):
    """One fact about the day.

    `code` and `subject` name it for good; `begin_ns`, `end_ns`: ns since 1970 UTC; `action`: what to do.
    """

    level: Level
    code: str
    subject: str
    message: str
    begin_ns: int | None = None
    end_ns: int | None = None
    action: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """The verdict; `findings`: the worst first."""

    level: Level
    findings: list[Finding]


class DiskRoom(msgspec.Struct, frozen=True):
    """Free bytes of the data directory's file system, and the bytes of the largest of the last days; None: no day yet.

    `usual_bytes`: what a trading day usually takes, see compute_usual_bytes.
    """

    free_bytes: int
    day_bytes: int | None
    usual_bytes: int | None = None

    @property
    def days(self) -> float | None:
        """For how many more days there is room, at the rate of the largest."""
        return self.free_bytes / self.day_bytes if self.day_bytes else None

    @property
    def usual_days(self) -> float | None:
        """For how many more trading days there is room, at the usual rate."""
        return self.free_bytes / self.usual_bytes if self.usual_bytes else None


def compute_usual_bytes(day_bytes: Sequence[int]) -> int | None:
    """What a trading day usually takes, of the bytes of the last days, oldest first; None: of no day.

    The median of the days that are over, or the newest one, which may not be, if that is more already.
    """
    if not day_bytes:
        return None
    *over, newest = day_bytes
    return max(newest, round(median(over)) if over else 0) or None


class Evidence(msgspec.Struct, frozen=True):
    """What a verdict is made of.

    `now_ns`: the home's clock, of which `speed` seconds pass in a real one; `stopped_in_order`: nothing runs, and no process was
    killed; `acknowledged_ns`: up to where losses are acknowledged; `settings_changed_s`: seconds since the settings changed;
    `disk_warn_days`: with room for fewer trading days there is a note.
    """

    status: Status
    now_ns: int
    speed: float
    disk: DiskRoom
    stopped_in_order: bool
    acknowledged_ns: int
    settings_changed_s: float
    disk_warn_days: float = 0.0


def judge(evidence: Evidence, calendar: TradingCalendar, language: Language = "en") -> Verdict:
    """The verdict of this instant, its messages in `language`."""
    texts = Texts(language, MESSAGES)
    findings = [
        *_judge_processes(evidence, texts),
        *_judge_rings(evidence.status, texts),
        *_judge_feeds(evidence, texts),
        *_judge_incidents(evidence, texts),
        *_judge_blind_spans(evidence, calendar, texts),
        *_judge_disk(evidence.disk, evidence.disk_warn_days, texts),
        *_judge_settings(evidence, texts),
    ]
    findings = [_advise(finding, language) for finding in findings]
    findings.sort(key=lambda finding: -finding.level)
    level = max((finding.level for finding in findings), default=Level.SAFE)
    if evidence.status.supervisor_pid is None and evidence.stopped_in_order:
        level = Level.STOPPED
    return Verdict(level, findings)


def _advise(finding: Finding, language: Language) -> Finding:
    """The finding with what to do about it; what is over or acknowledged needs nothing."""
    if finding.level == Level.SAFE and finding.code not in _NOTES_WITH_ACTION:
        return finding
    action = Texts(language, ACTIONS)(finding.code, name=finding.subject.split(" ")[0])
    return msgspec.structs.replace(finding, action=action)


def _judge_processes(evidence: Evidence, texts: Texts) -> Iterator[Finding]:
    status = evidence.status
    if status.supervisor_pid is None:
        if not evidence.stopped_in_order:
            yield Finding(Level.ATTENTION, "not_running", "supervisord", texts("not_running"))
        return
    for process in status.processes:
        if process.healthy:
            continue
        needs_person = process.state in _NEEDS_PERSON or process.other_version
        level = Level.ATTENTION if needs_person else Level.REPAIRING
        yield Finding(level, "unhealthy", process.name, process.verdict)
    if evidence.status.day is None:
        if any(one.name == "writer" and one.healthy and one.uptime_s > STALE_REPORT_S for one in status.processes):
            yield Finding(Level.REPAIRING, "no_day_report", "writer", texts("no_day_report"))
        return
    age_s = evidence.status.day_age_s or 0.0
    if age_s > STALE_REPORT_S:
        yield Finding(Level.REPAIRING, "stale_report", "writer", texts("stale_report", age_s=age_s))


def _judge_rings(status: Status, texts: Texts) -> Iterator[Finding]:
    for ring in status.rings:
        if ring.error:
            yield Finding(Level.ATTENTION, "ring_unreadable", ring.name, ring.error)
        elif ring.capacity and ring.backlog > ring.capacity:
            message = texts("ring_overrun", count=ring.backlog - ring.capacity)
            yield Finding(Level.ATTENTION, "ring_overrun", ring.name, message)
        elif ring.full_in_s is not None and ring.full_in_s < MIN_RING_S:
            message = texts("ring_filling", backlog=ring.backlog, capacity=ring.capacity, full_in_s=ring.full_in_s)
            yield Finding(Level.REPAIRING, "ring_filling", ring.name, message)


def _judge_feeds(evidence: Evidence, texts: Texts) -> Iterator[Finding]:
    report = evidence.status.feed_health
    if report is None:
        return
    for degradation in report.degraded:
        subject = " ".join(filter(None, (degradation.feed, degradation.symbol, degradation.venue)))
        yield Finding(Level.REPAIRING, "degraded", subject, degradation.message)
    if report.lag_p50_ms is not None and len(report.feeds) == 2 and abs(report.lag_p50_ms) > MAX_LAG_MS:
        first, second = (feed.feed for feed in report.feeds)
        late, other = (second, first) if report.lag_p50_ms > 0 else (first, second)
        message = texts("late", lag_s=abs(report.lag_p50_ms) / 1000, other=other)
        yield Finding(Level.REPAIRING, "late", late, message)
        return
    lags_ms = {one.feed: one.exchange_lag_p50_ms for one in report.feeds if one.exchange_lag_p50_ms is not None}
    yield from _judge_stamps(lags_ms, evidence.speed, texts)


def _judge_stamps(lags_ms: Mapping[str, float], speed: float, texts: Texts) -> Iterator[Finding]:
    """Feeds behind the exchange's second. One of two is late; all alike, or before it, are so by this machine's clock as well."""
    behind_ms = {feed: (lag_ms - STAMP_MS) / speed for feed, lag_ms in lags_ms.items()}
    late = [feed for feed, ms in behind_ms.items() if ms > MAX_LAG_MS]
    feeds = ", ".join(lags_ms)
    if len(late) > 1:
        message = texts("clock_ahead", feeds=feeds, lag_s=min(behind_ms.values()) / 1000)
        yield Finding(Level.REPAIRING, "clock", "host", message)
    elif late:
        key = "late_exchange" if len(lags_ms) > 1 else "late_or_clock"
        yield Finding(Level.REPAIRING, "late", late[0], texts(key, lag_s=behind_ms[late[0]] / 1000))
    elif lags_ms and (ahead_ms := -max(lags_ms.values()) / speed) > MAX_LAG_MS:
        yield Finding(Level.REPAIRING, "clock", "host", texts("clock_behind", feeds=feeds, lag_s=ahead_ms / 1000))


def _judge_incidents(evidence: Evidence, texts: Texts) -> Iterator[Finding]:
    for market, incidents in _of_today(evidence):
        groups: dict[tuple[str, str, str], list[Incident]] = {}
        for one in incidents:
            groups.setdefault((one.kind, one.feed, one.stream), []).append(one)
        for (kind, feed, stream), group in groups.items():
            subject = " ".join(filter(None, (feed, stream)))
            if kind in _LOSSES:
                yield from _judge_losses(evidence, market, kind, subject, group, texts)
            elif kind in ("restart", "disconnect", "paused", "degraded"):
                yield _judge_repairs(evidence, kind, subject, group, texts)
            elif kind == "quarantined":
                message = texts("quarantined", count=_sum_values(group, texts), cause=group[-1].message)
                yield _build(Level.SAFE, kind, subject, message, group)


def _judge_losses(
    evidence: Evidence, market: Market, kind: str, subject: str, losses: list[Incident], texts: Texts
) -> Iterator[Finding]:
    acknowledged = [one for one in losses if one.end_ns is not None and one.end_ns <= evidence.acknowledged_ns]
    open_losses = [one for one in losses if one not in acknowledged]
    for level, group, note in ((Level.ATTENTION, open_losses, ""), (Level.SAFE, acknowledged, "_acknowledged")):
        if group:
            count, spans = _sum_values(group, texts), _format_spans(market, group, texts)
            message = texts(f"{kind}{note}", count=count, spans=spans, cause=group[-1].message)
            yield _build(level, kind, subject, message, group)


def _judge_repairs(evidence: Evidence, kind: str, subject: str, group: list[Incident], texts: Texts) -> Finding:
    """What repairs itself: a note, unless it goes on or has just ended."""
    newest_ns = max(one.end_ns if one.end_ns is not None else evidence.now_ns for one in group)
    is_recent = (evidence.now_ns - newest_ns) / SECOND_NS / evidence.speed < SETTLE_S
    ago_s = (evidence.now_ns - newest_ns) / SECOND_NS / evidence.speed
    when = texts("goes_on") if newest_ns == evidence.now_ns else texts("last_time", ago_s=ago_s)
    message = f"{texts(kind, count=Count(sum(one.count for one in group)))}, {when}"
    if group[-1].message and kind != "restart":
        message += f": {group[-1].message}"
    return _build(Level.REPAIRING if is_recent else Level.SAFE, kind, subject, message, group)


def _judge_blind_spans(evidence: Evidence, calendar: TradingCalendar, texts: Texts) -> Iterator[Finding]:
    if evidence.status.day is None:
        return
    for market, spans in evidence.status.day.blind.items():
        today = _date_of(MARKETS[market], evidence.now_ns)
        for is_acknowledged in (False, True):
            blind_ns: dict[str, int] = {}
            first_ns, last_ns = evidence.now_ns, 0
            for span in spans:
                end_ns = evidence.now_ns if span.end_ns is None else span.end_ns
                if (span.end_ns is not None and end_ns <= evidence.acknowledged_ns) is not is_acknowledged:
                    continue
                for instrument, open_ns in _intersect(span, end_ns, today, calendar).items():
                    blind_ns[instrument] = blind_ns.get(instrument, 0) + open_ns
                    first_ns, last_ns = min(first_ns, span.begin_ns), max(last_ns, end_ns)
            if blind_ns:
                yield _build_blind_finding(MARKETS[market], blind_ns, first_ns, last_ns, is_acknowledged, texts)


def _intersect(span: BlindSpan, end_ns: int, today: date, calendar: TradingCalendar) -> dict[str, int]:
    """How long of a span each instrument's venue was in session today, ns; those that were not are left out."""
    found = {}
    for instrument in span.instruments:
        venue = instrument.split(" ")[1]
        open_ns = sum(
            max(0, min(end_ns, phase.end_ns) - max(span.begin_ns, phase.begin_ns))
            for phase in calendar.phase_spans(venue, today)
        )
        if open_ns:
            found[instrument] = open_ns
    return found


def _build_blind_finding(
    market: Market, blind_ns: Mapping[str, int], first_ns: int, last_ns: int, is_acknowledged: bool, texts: Texts
) -> Finding:
    worst = max(blind_ns, key=lambda instrument: blind_ns[instrument])
    message = texts(
        "blind",
        count=Count(len(blind_ns)),
        begin=market.to_local(first_ns),
        end=market.to_local(last_ns),
        zone=_name_other_zone(market, texts),
        worst=worst,
        worst_s=blind_ns[worst] / SECOND_NS,
    )
    if is_acknowledged:
        acknowledged = texts("acknowledged", message=message)
        return Finding(Level.SAFE, "blind", market.name, acknowledged, first_ns, last_ns)
    return Finding(Level.ATTENTION, "blind", market.name, message, first_ns, last_ns)


def _judge_disk(disk: DiskRoom, warn_days: float, texts: Texts) -> Iterator[Finding]:
    if disk.days is not None and disk.days < MIN_DISK_DAYS:
        gb = {"free_gb": disk.free_bytes / 1e9, "day_gb": (disk.day_bytes or 0) / 1e9}
        message = texts("disk_room", days=disk.days, **gb)
        yield Finding(Level.ATTENTION, "disk_room", "data", message)
    elif disk.usual_days is not None and disk.usual_days < warn_days:
        gb = {"free_gb": disk.free_bytes / 1e9, "day_gb": (disk.usual_bytes or 0) / 1e9}
        yield Finding(Level.SAFE, "disk_days", "data", texts("disk_days", days=disk.usual_days, **gb))


def _judge_settings(evidence: Evidence, texts: Texts) -> Iterator[Finding]:
    older = [
        one.name for one in evidence.status.processes if one.pid and one.uptime_s > evidence.settings_changed_s + 1
    ]
    if older:
        message = texts("settings_changed", names=", ".join(older))
        yield Finding(Level.SAFE, "settings_changed", SETTINGS_FILE, message)
    if evidence.status.shortfalls:
        yield Finding(Level.SAFE, "shortfall", "universe", evidence.status.allocation_summary)


def _of_today(evidence: Evidence) -> Iterator[tuple[Market, list[Incident]]]:
    """The incidents of each market's trading day: those that go on, or ended on it."""
    for market, incidents in (evidence.status.day.incidents if evidence.status.day else {}).items():
        today = _date_of(MARKETS[market], evidence.now_ns)
        of_today = [one for one in incidents if one.end_ns is None or _date_of(MARKETS[market], one.end_ns) == today]
        yield MARKETS[market], of_today


def _date_of(market: Market, ns: int) -> date:
    return market.to_local(ns).date()


def _build(level: Level, code: str, subject: str, message: str, group: Iterable[Incident]) -> Finding:
    group = list(group)
    ends = [one.end_ns for one in group]
    end_ns = None if None in ends else max(end for end in ends if end is not None)
    return Finding(level, code, subject, message, min(one.begin_ns for one in group), end_ns)


def _sum_values(group: Iterable[Incident], texts: Texts) -> str:
    """How many, and whether that is all."""
    values = [one.value for one in group]
    known = sum(value for value in values if value is not None)
    return texts("unknown_count", known=known) if None in values else f"{known:,}"


def _format_spans(market: Market, group: Iterable[Incident], texts: Texts) -> str:
    spans = [(market.to_local(one.begin_ns), market.to_local(one.end_ns or one.begin_ns)) for one in group]
    shown = ", ".join(texts("span", begin=begin, end=end) for begin, end in spans[:3])
    more = texts("more_spans", count=len(spans) - 3) if len(spans) > 3 else ""
    return f"{shown}{more}{_name_other_zone(market, texts)}"


def _name_other_zone(market: Market, texts: Texts) -> str:
    """The zone of a market's times where it is not Korea's, which all other times of a screen have."""
    return "" if market is KR else texts("new_york")
