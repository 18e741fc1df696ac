"""Text rendering of a status snapshot."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType

from rich import box
from rich.table import Table
from rich.text import Text

from collectorctl.capture import CaptureStatus
from collectorctl.recover.schedule.state import format_recovery
from collectorctl.supervision.messages import ENGLISH, STATUS_MESSAGES
from collectorctl.supervision.status import ProcessStatus, RingLevel, Status
from collectorctl.symbols.names import insert_names
from collectorctl.terminal import TextConsole, coloured
from collectorctl.verdict import Level, Verdict
from collectorctl.verdict.messages import MESSAGES
from conf.clock import SECOND_NS
from conf.text.language import Count, Language, Texts
from writer.feeds.feed_report import FeedReport
from writer.volume.gaps import GapReport

FRESH_S = 10.0

WIDE_COLUMNS = 118
"""A narrower terminal has pid, memory and latencies below each process, for want of room for columns."""
NO_NAMES: Mapping[str, str] = MappingProxyType({})

_COLOURS = {Level.SAFE: "green", Level.REPAIRING: "yellow", Level.ATTENTION: "red", Level.STOPPED: "yellow"}


def print_verdict(
    verdict: Verdict, console: TextConsole, language: Language = "en", names: Mapping[str, str] = NO_NAMES
) -> None:
    """Print the verdict and its findings, the worst first; with the `names` of symbols behind their codes."""
    texts = Texts(language, MESSAGES)
    console.print(coloured(verdict.level.name, _COLOURS[verdict.level]), texts(verdict.level.name))
    table = Table.grid(padding=(0, 1))
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # an ellipsis would cut a letter of two cells at the end of a full line
    for finding in verdict.findings:
        name = texts("note") if finding.level == Level.SAFE else finding.level.name
        action = f" -> {finding.action}" if finding.action else ""
        text = f"{finding.code} {finding.subject}: {finding.message}{action}"
        text = insert_names(text, names, listed=finding.code == "shortfall")
        table.add_row("", coloured(name, _COLOURS[finding.level]), text)
    if verdict.findings:
        console.print(table)


def print_status(
    status: Status,
    console: TextConsole,
    counters: bool = False,
    wide: bool = False,
    language: Language = "en",
    names: Mapping[str, str] = NO_NAMES,
) -> None:
    """Print processes and rings; with `counters` everything that was ever counted, `wide` with pids, memory and latencies."""
    texts = Texts(language, STATUS_MESSAGES)
    supervisor = f"supervisord {status.supervisor_pid}" if status.supervisor_pid else texts("nothing_runs")
    console.print(f"{status.home}   {status.now}   {supervisor}")
    console.print(texts("market", text=status.market))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    has_columns = wide and console.width >= WIDE_COLUMNS
    details = ("head_pid", "head_beat", "head_memory", "head_latency") if has_columns else ()
    for column in ("head_process", "head_health", "head_up", *details):
        table.add_column(texts(column), no_wrap=True)
    table.add_column(texts("head_does"), overflow="fold")
    for process in status.processes:
        row = _build_process_row(process, has_columns, texts)
        table.add_row(*row)
        if wide and not has_columns and process.pid:
            table.add_row(*[""] * (len(row) - 1), _format_details(process, texts))
    console.print(table)
    for line in format_rings(status, texts):
        console.print(line)
    if status.shortfalls:
        console.print(insert_names(status.allocation_summary, names, listed=True))
    if status.feed_health is not None:
        for line in format_feeds(status.feed_health, texts):
            console.print(mark_age(line, status.feed_health_age_s, texts))
        for degradation in status.feed_health.degraded:
            subject = " ".join(filter(None, (degradation.feed, degradation.symbol, degradation.venue)))
            console.print(coloured(texts("degraded"), "red"), insert_names(f"{subject}: {degradation.message}", names))
    if status.gaps is not None:
        line = insert_names(format_ticks(status.gaps, texts), names)
        console.print(mark_age(line, status.gaps_age_s, texts))
    if status.us_gaps is not None:
        console.print(texts("us_ticks", text=format_ticks(status.us_gaps, texts, "dollars")))
    if status.recovery is not None:
        console.print(texts("recovery", text=format_recovery(status.recovery, texts)))
    for capture in status.captures:
        console.print(format_capture(capture, texts))
    for event in status.events:
        console.print(texts("event", text=event))
    if counters:
        for process in status.processes:
            text = ", ".join(format_counter(name, count) for name, count in process.counters.items() if count)
            console.print(f"{process.name}: {text}")


def format_counter(name: str, count: int) -> str:
    """A counter; an instant by the clock of the machine as its age."""
    if name.endswith("_mono_ns"):
        return f"{name.removesuffix('_mono_ns')} {max(0, time.monotonic_ns() - count) / SECOND_NS:.1f} s ago"
    return f"{name} {count}"


def mark_age(line: str, age_s: float | None, texts: Texts = ENGLISH) -> Text:
    """A line out of a file: grey, with its age, once that is more than FRESH_S."""
    if age_s is None or age_s <= FRESH_S:
        return coloured(line, "default")
    return coloured(f"{line} {texts('age', age_s=age_s)}", "bright_black")


def format_rings(status: Status, texts: Texts = ENGLISH) -> list[str]:
    """Each ring, and what the writer could not read of them."""
    lines = [texts("ring", name=ring.name, text=_describe_ring(ring, texts)) for ring in status.rings]
    if status.lost_records:
        lines.append(texts("ring_lost", lost=status.lost_records, damaged=status.damaged_records))
    return lines


def _describe_ring(ring: RingLevel, texts: Texts) -> str:
    if ring.error or ring.note:
        return texts("ring_unreadable", error=ring.error) if ring.error else ring.note
    if ring.backlog > ring.capacity:
        return texts("ring_losing", lost=ring.backlog - ring.capacity, backlog=ring.backlog, head=ring.head)
    key = "ring_waiting" if ring.full_in_s is None else "ring_filling"
    values = {"backlog": ring.backlog, "capacity": ring.capacity, "head": ring.head, "full_in_s": ring.full_in_s}
    return texts(key, **values)


def format_feeds(report: FeedReport, texts: Texts = ENGLISH) -> list[str]:
    """The feeds over the last window, one line each."""
    lines = []
    for feed in report.feeds:
        found = [
            texts(name, share=share)
            for name in ("twin_share", "first_share", "coverage")
            if (share := getattr(feed, name)) is not None
        ]
        shares = "; ".join(found) or texts("no_shares")
        lines.append(texts("feed", feed=feed.feed, books=feed.books, window_s=report.window_s, shares=shares))
    if report.lag_p50_ms is not None and len(report.feeds) == 2:
        first, second = (line.feed for line in report.feeds)
        lines.append(texts("feed_lag", first=first, second=second, p50=report.lag_p50_ms, p99=report.lag_p99_ms))
    return lines


def format_ticks(report: GapReport, texts: Texts = ENGLISH, currency: str = "won") -> str:
    """What is missing of the newest day's ticks, in one line, and where most."""
    symbols = report.newest_day()
    if not symbols:
        return texts("no_ticks", since=report.since)
    gaps, shares, value, duplicates, confirmed, before_start = (
        sum(getattr(symbol, name) for symbol in symbols)
        for name in ("gaps", "gap_shares", "gap_value", "duplicates", "confirmed_by_book", "before_start")
    )
    missing = {"count": Count(gaps), "shares": shares, "value": value, "currency": texts(currency)}
    parts = [texts("gaps", **missing) if gaps else texts("no_gap")]
    parts += [texts("twice", count=duplicates)] * bool(duplicates)
    parts += [texts("confirmed", count=confirmed)] * bool(confirmed)
    parts += [texts("before_start", shares=before_start)] * bool(before_start)
    worst = max(symbols, key=lambda symbol: symbol.gap_shares + symbol.behind)
    if worst.gap_shares + worst.behind:
        parts.append(texts("worst", name=f"{worst.symbol} {worst.venue}", shares=worst.gap_shares + worst.behind))
    return texts("ticks", day=symbols[0].day, since=report.since, parts="; ".join(parts))


def format_capture(capture: CaptureStatus, texts: Texts = ENGLISH) -> str:
    """The capture of a feed in one line."""
    dropped = texts("capture_dropped", dropped=capture.dropped, feed=capture.feed) if capture.dropped else ""
    values = {"feed": capture.feed, "files": capture.files, "mb": capture.bytes / 1e6, "frames": capture.frames}
    return texts("capture", state=texts("on" if capture.is_on else "off"), **values) + dropped


def _build_process_row(process: ProcessStatus, wide: bool, texts: Texts) -> list[str | Text]:
    health = coloured(texts("healthy"), "green") if process.healthy else coloured(texts("not_healthy"), "red")
    up = format_duration(process.uptime_s, texts) if process.pid else "-"
    return [process.name, health, up, *(_list_details(process) if wide else []), process.verdict]


def _list_details(process: ProcessStatus) -> list[str]:
    """Pid, age of the heartbeat, memory, latencies."""
    latency = process.latency_us
    return [
        str(process.pid or "-"),
        "-" if process.heartbeat_age_s is None else f"{process.heartbeat_age_s:.1f} s",
        "-" if process.own_memory_mb is None else f"{process.own_memory_mb:.0f}",
        f"{latency.get('50', 0) / 1000:.2f} / {latency.get('99', 0) / 1000:.2f}" if latency else "-",
    ]


def _format_details(process: ProcessStatus, texts: Texts) -> str:
    """The same in a line."""
    names = ("head_pid", "head_beat", "head_memory", "head_latency")
    found = zip(names, _list_details(process), strict=True)
    return ", ".join(f"{texts(name)} {text}" for name, text in found if text != "-")


def format_duration(seconds: float, texts: Texts = ENGLISH) -> str:
    """A duration in its largest unit: 45 s, 12 min, 3.5 h, 2.1 d."""
    if seconds < 120:
        return texts("seconds", n=seconds)
    if seconds < 7200:
        return texts("minutes", n=seconds / 60)
    return texts("hours", n=seconds / 3600) if seconds < 172_800 else texts("days", n=seconds / 86_400)
