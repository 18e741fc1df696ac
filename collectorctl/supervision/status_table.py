"""Text rendering of a status snapshot."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from collectorctl.capture import format_capture
from collectorctl.supervision.status import ProcessStatus, RingLevel, Status
from collectorctl.terminal import TextConsole, coloured
from collectorctl.verdict import Level, Verdict
from collectorctl.verdict.messages import MESSAGES
from conf.text.language import Language, Texts
from writer.feeds.monitor import FeedReport
from writer.volume.gap_tracker import GapReport

FRESH_S = 10.0

_COLOURS = {Level.SAFE: "green", Level.REPAIRING: "yellow", Level.ATTENTION: "red", Level.STOPPED: "yellow"}


def print_verdict(verdict: Verdict, console: TextConsole, language: Language = "en") -> None:
    """Print the verdict and its findings, the worst first."""
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
        table.add_row("", coloured(name, _COLOURS[finding.level]), text)
    if verdict.findings:
        console.print(table)


def print_status(status: Status, console: TextConsole, counters: bool = False, wide: bool = False) -> None:
    """Print processes and rings; with `counters` everything that was ever counted, `wide` with pids, memory and latencies."""
    supervisor = f"supervisord {status.supervisor_pid}" if status.supervisor_pid else "nothing runs"
    console.print(f"{status.home}   {status.now}   {supervisor}")
    console.print(f"market: {status.market}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    details = ("pid", "beat", "own MB", "wire to ring, p50 / p99 ms") if wide else ()
    for column in ("process", "health", "up", *details):
        table.add_column(column, no_wrap=True)
    table.add_column("what it does", overflow="fold")
    for process in status.processes:
        table.add_row(*_build_process_row(process, wide))
    console.print(table)
    for line in format_rings(status):
        console.print(line)
    if status.shortfalls:
        console.print(status.allocation_summary)
    if status.feed_health is not None:
        for line in format_feeds(status.feed_health):
            console.print(mark_age(line, status.feed_health_age_s))
        for degradation in status.feed_health.degraded:
            subject = " ".join(filter(None, (degradation.feed, degradation.symbol, degradation.venue)))
            console.print(coloured("DEGRADED", "red"), f"{subject}: {degradation.message}")
    if status.gaps is not None:
        console.print(mark_age(format_ticks(status.gaps), status.gaps_age_s))
    if status.us_gaps is not None:
        console.print(f"US {format_ticks(status.us_gaps, 'dollars')}")
    if status.recovery is not None:
        console.print(f"recovery: {status.recovery}")
    for capture in status.captures:
        console.print(format_capture(capture))
    for event in status.events:
        console.print(f"event {event}")
    if counters:
        for process in status.processes:
            text = ", ".join(f"{name} {count}" for name, count in process.counters.items() if count)
            console.print(f"{process.name}: {text}")


def mark_age(line: str, age_s: float | None) -> Text:
    """A line out of a file: grey, with its age, once that is more than FRESH_S."""
    if age_s is None or age_s <= FRESH_S:
        return coloured(line, "default")
    return coloured(f"{line} [{age_s:.0f} s old]", "bright_black")


def format_rings(status: Status) -> list[str]:
    """Each ring, and what the writer could not read of them."""
    lines = [f"ring {ring.name:<18} {_describe_ring(ring)}" for ring in status.rings]
    if status.lost_records:
        lines.append(
            f"LOST {status.lost_records} records since the writer's start: {status.damaged_records} damaged, "
            "the rest overwritten unread (`tail event`: ring_loss)"
        )
    return lines


def _describe_ring(ring: RingLevel) -> str:
    if ring.error or ring.note:
        return f"UNREADABLE {ring.error}" if ring.error else ring.note
    if ring.backlog > ring.capacity:
        return f"LOSING RECORDS: {ring.backlog - ring.capacity} of {ring.backlog} waiting are overwritten, {ring.head} in all"
    full = "" if ring.full_in_s is None else f", full in {ring.full_in_s:.0f} s if they stay"
    return f"{ring.backlog} of {ring.capacity} waiting{full}, {ring.head} in all"


def format_feeds(report: FeedReport) -> list[str]:
    """The feeds over the last window, one line each."""
    lines = []
    for feed in report.feeds:
        shares = [
            f"{share:.1%} {what}"
            for share, what in (
                (feed.twin_share, "found their twin"),
                (feed.first_share, "of the twins here first"),
                (feed.coverage, "of all books"),
            )
            if share is not None
        ]
        lines.append(
            f"feed {feed.feed:<8} {feed.books} books in {report.window_s:.0f} s; {'; '.join(shares) or 'none'}"
        )
    if report.lag_p50_ms is not None and len(report.feeds) == 2:
        first, second = (line.feed for line in report.feeds)
        lines.append(f"{second} is behind {first} by {report.lag_p50_ms:.0f} ms (p99 {report.lag_p99_ms:.0f})")
    return lines


def format_ticks(report: GapReport, currency: str = "won") -> str:
    """What is missing of the newest day's ticks, in one line, and where most."""
    symbols = report.newest_day()
    if not symbols:
        return f"ticks: none since {report.since}"
    gaps, shares, value, duplicates, confirmed, before_start = (
        sum(getattr(symbol, name) for symbol in symbols)
        for name in ("gaps", "gap_shares", "gap_value", "duplicates", "confirmed_by_book", "before_start")
    )
    parts = [f"{gaps} gap{'s' * (gaps > 1)} ({shares:,} shares, {value:,} {currency})" if gaps else "no gap"]
    parts += [f"{duplicates:,} twice"] * bool(duplicates)
    parts += [f"{confirmed} missing ticks confirmed by books"] * bool(confirmed)
    parts += [f"{before_start:,} shares before the start"] * bool(before_start)
    worst = max(symbols, key=lambda symbol: symbol.gap_shares + symbol.behind)
    if worst.gap_shares + worst.behind:
        parts.append(f"worst {worst.symbol} {worst.venue}: {worst.gap_shares + worst.behind:,} shares")
    return f"ticks of {symbols[0].day} since {report.since}: {'; '.join(parts)}"


def _build_process_row(process: ProcessStatus, wide: bool) -> list[str | Text]:
    health = coloured("healthy", "green") if process.healthy else coloured("NOT HEALTHY", "red")
    latency = process.latency_us
    details = [
        str(process.pid or "-"),
        "-" if process.heartbeat_age_s is None else f"{process.heartbeat_age_s:.1f} s",
        "-" if process.own_memory_mb is None else f"{process.own_memory_mb:.0f}",
        f"{latency.get('50', 0) / 1000:.2f} / {latency.get('99', 0) / 1000:.2f}" if latency else "-",
    ]
    up = format_duration(process.uptime_s) if process.pid else "-"
    return [process.name, health, up, *(details if wide else []), process.verdict]


def format_duration(seconds: float) -> str:
    """A duration in its largest unit: 45 s, 12 min, 3.5 h, 2.1 d."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"
