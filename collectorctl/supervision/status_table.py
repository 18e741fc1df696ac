"""Status as a person reads it.

Leaves to others: the facts (status.py).
"""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from collectorctl.supervision.status import Process, Status
from writer.feeds.monitor import LinesReport
from writer.volume.gap_tracker import Report


def wide_console(stderr: bool = False) -> Console:
    """A console for tables: as wide as the terminal, and wide enough where there is none (a file, a pipe)."""
    console = Console(highlight=False, soft_wrap=True, stderr=stderr)
    if not console.is_terminal:
        console.width = 140
    return console


def show_status(status: Status, counters: bool) -> None:
    """Print processes and rings; with `counters` everything that was ever counted."""
    console = wide_console()
    supervisor = f"supervisord {status.supervisor_pid}" if status.supervisor_pid else "nothing runs"
    console.print(f"{status.home}   {status.now}   {supervisor}")
    console.print(f"market: {status.market}")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("process", "health", "pid", "up", "beat", "own MB", "p50 / p99 us", "what it does"):
        table.add_column(column)
    for process in status.processes:
        table.add_row(*_row(process))
    console.print(table)
    for ring in status.rings:
        console.print(
            f"ring {ring.name:<18} {ring.complaint or f'{ring.backlog} of {ring.capacity} waiting, {ring.head} in all'}"
        )
    if status.short:
        console.print(status.fit)
    if status.lines is not None:
        for line in lines_said(status.lines):
            console.print(line)
    if status.volume is not None:
        console.print(ticks_said(status.volume))
    if status.us_volume is not None:
        console.print(f"US {ticks_said(status.us_volume, 'dollars')}")
    if status.recovery is not None:
        console.print(f"recovery: {status.recovery}")
    for event in status.events:
        console.print(f"event {event}", markup=False)
    if counters:
        for process in status.processes:
            told = ", ".join(f"{name} {count}" for name, count in process.counters.items() if count)
            console.print(f"{process.name}: {told}")


def lines_said(report: LinesReport) -> list[str]:
    """The lines over the last window, one line each, and what is wrong with them in red."""
    said = []
    for line in report.lines:
        shares = [
            f"{share:.1%} {what}"
            for share, what in (
                (line.twin_share, "found their twin"),
                (line.win_share, "of the twins here first"),
                (line.coverage, "of all books"),
            )
            if share is not None
        ]
        said.append(f"line {line.line:<8} {line.books} books in {report.window_s:.0f} s; {'; '.join(shares) or 'none'}")
    if report.lag_p50_ms is not None and len(report.lines) == 2:
        first, second = (line.line for line in report.lines)
        said.append(f"{second} is behind {first} by {report.lag_p50_ms:.0f} ms (p99 {report.lag_p99_ms:.0f})")
    for trouble in report.degraded:
        whose = " ".join(filter(None, (trouble.line, trouble.symbol, trouble.venue)))
        said.append(f"[red]DEGRADED[/] {whose}: {trouble.words}")
    return said


def ticks_said(report: Report, currency: str = "won") -> str:
    """What is missing of the newest day's ticks, in one line, and where most."""
    symbols = report.newest()
    if not symbols:
        return f"ticks: none since {report.since}"
    gaps, shares, won, twice, seen, early = (
        sum(getattr(symbol, name) for symbol in symbols)
        for name in ("gaps", "gap_shares", "gap_won", "duplicates", "witnessed", "before_start")
    )
    said = [f"{gaps} gap{'s' * (gaps > 1)} ({shares:,} shares, {won:,} {currency})" if gaps else "no gap"]
    said += [f"{twice:,} twice"] * bool(twice)
    said += [f"{seen} missing ticks witnessed by books"] * bool(seen)
    said += [f"{early:,} shares before the start"] * bool(early)
    worst = max(symbols, key=lambda symbol: symbol.gap_shares + symbol.behind)
    if worst.gap_shares + worst.behind:
        said.append(f"worst {worst.symbol} {worst.venue}: {worst.gap_shares + worst.behind:,} shares")
    return f"ticks of {symbols[0].day} since {report.since}: {'; '.join(said)}"


def _row(process: Process) -> list[str]:
    mark = "[green]healthy[/]" if process.healthy else "[red]NOT HEALTHY[/]"
    latency = process.latency_us
    return [
        process.name,
        mark,
        str(process.pid or "-"),
        f"{process.uptime_s:.0f} s",
        "-" if process.heartbeat_age_s is None else f"{process.heartbeat_age_s:.1f} s",
        "-" if process.own_memory_mb is None else f"{process.own_memory_mb:.0f}",
        f"{latency.get('50', 0):.0f} / {latency.get('99', 0):.0f}" if latency else "-",
        process.verdict,
    ]
