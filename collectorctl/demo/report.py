"""The table at the end of a rehearsal.

Leaves to others: right and wrong (oracle.py).
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

from collectorctl.demo.recovery import Recovery
from collectorctl.demo.result import Verdict
from collectorctl.recover.progress import COLOURS
from collectorctl.supervision.status import Status
from conf.home import Home


class Figures(msgspec.Struct):
    """What a rehearsal measured: bytes on disk per row, lag from KIS to Kiwoom in real ms, own memory in MB."""

    bytes_per_book: float
    bytes_per_tick: float
    files: int
    hours: list[str]
    twin_share: float
    lag_ms: dict[str, float]
    own_memory_mb: dict[str, float]
    stop_s: float


class Outcome(msgspec.Struct):
    """A finished rehearsal: what it was about, acts that the market's day was too short for, and what was found.

    `broken`: what the script says must hold, and does not.
    """

    about: str
    undone: list[str]
    verdict: Verdict
    broken: list[str]
    recovery: Recovery
    figures: Figures

    def complaints(self) -> list[str]:
        """In words what breaks a promise; empty when the rehearsal passed."""
        short = [f"{act}: the market closed before it: give it more --seconds" for act in self.undone]
        return [*short, *self.verdict.complaints(), *self.broken, *self.recovery.complaints()]


def measure(home: Home, seen: Status, stop_s: float) -> Figures:
    """The figures of a finished rehearsal; `seen` is the last look before it stopped."""
    sizes = {name: list((home.data / "kr" / name).rglob("part-*.parquet")) for name in ("orderbook", "tick")}
    books = pd.read_parquet(home.data / "kr" / "orderbook", columns=["recv_time_kis", "recv_time_kiwoom", "hour"])
    ticks = pd.read_parquet(home.data / "kr" / "tick", columns=["seq"])
    both = books.dropna(subset=["recv_time_kis", "recv_time_kiwoom"])
    # arrivals are in calendar time, which the warped clock stretches
    lag_ns = (both["recv_time_kiwoom"] - both["recv_time_kis"]).dt.total_seconds() * 1e3 / home.settings.clock.speed
    return Figures(
        bytes_per_book=_bytes(sizes["orderbook"]) / max(len(books), 1),
        bytes_per_tick=_bytes(sizes["tick"]) / max(len(ticks), 1),
        files=sum(len(files) for files in sizes.values()),
        hours=[f"{hour:02}" for hour in sorted(books["hour"].astype(int).unique())],
        twin_share=len(both) / max(len(books), 1),
        lag_ms={str(p): float(np.percentile(lag_ns, p)) if len(lag_ns) else float("nan") for p in (1, 50, 99)},
        own_memory_mb={p.name: p.own_memory_mb for p in seen.processes if p.own_memory_mb is not None},
        stop_s=stop_s,
    )


def _bytes(files: list[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def show(console: Console, root: Path, outcome: Outcome, as_json: bool) -> None:
    """Print the outcome: tables for people, or one JSON object on stdout."""
    verdict, figures = outcome.verdict, outcome.figures
    if as_json:
        told = {"home": str(root), **msgspec.to_builtins(outcome), "complaints": outcome.complaints()}
        print(msgspec.json.encode(told).decode())  # noqa: T201 this is the command's output
        return
    console.print(_deliveries(verdict))
    for name, account in (("books", verdict.books), ("ticks", verdict.ticks)):
        console.print(
            f"{name}: {account.available} available on either line, {account.stored} stored, "
            f"{f'{account.fetched} fetched during the day, ' if account.fetched else ''}"
            f"{account.missed} missed ({_share(account.missed, account.available)}), "
            f"{account.doubled} doubled ({_share(account.doubled, account.available)}), {account.wrong} differ from the truth"
        )
    memory = ", ".join(f"{name} {mb:.0f} MB" for name, mb in figures.own_memory_mb.items())
    console.print(
        f"hours {', '.join(figures.hours)} in {figures.files} files; {figures.bytes_per_book:.0f} bytes per book, "
        f"{figures.bytes_per_tick:.0f} per tick; {figures.twin_share:.1%} of the books came by both lines; "
        f"Kiwoom behind KIS by {figures.lag_ms['50']:.0f} ms (p1 {figures.lag_ms['1']:.0f}, p99 {figures.lag_ms['99']:.0f}); "
        f"own memory {memory}; stopped in {figures.stop_s:.1f} s"
    )
    _show_pandas(console, root)
    console.print(f"\n{outcome.about}:")
    console.print(_certificates(outcome.recovery))
    ticks = [one.ticks for one in outcome.recovery.instruments]
    stood = Counter(one.before for one in outcome.recovery.instruments if one.before == one.after)
    for word, count in sorted(stood.items()):
        console.print(f"{count} more symbols were {word} as they stood")
    console.print(
        f"recovered in {outcome.recovery.seconds:.1f} s: {sum(one.recovered for one in ticks)} ticks, of which "
        f"{sum(one.equal for one in ticks)} equal the trade that was missed; of {sum(one.trades for one in ticks)} trades of the "
        f"market {sum(one.lacking for one in ticks)} are in no row and {sum(one.twice for one in ticks)} in several"
    )
    for complaint in outcome.complaints():
        console.print(f"[red]FAILED[/] {complaint}")
    if not outcome.complaints():
        console.print(
            "[green]PASSED[/] nothing that either line delivered is missing, nothing is doubled beyond the allowance, "
            "and after recovery every trade of the day is there once"
        )


def _certificates(recovery: Recovery) -> Table:
    """Where recovery changed something."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("symbol", "trades", "live rows", "missing shares", "missing trades", "before", "recovered", "after"):
        table.add_column(column, justify="left" if column in ("symbol", "before", "after") else "right")
    for one in recovery.instruments:
        ticks = one.ticks
        if one.before == one.after and not ticks.recovered:
            continue
        counts = (ticks.trades, ticks.live, one.missing_shares, ticks.missed)
        colours = [f"[{COLOURS.get(word, 'red')}]{word}[/]" for word in (one.before, one.after)]
        table.add_row(
            f"{ticks.symbol} {ticks.venue}",
            *(f"{count:,}" for count in counts),
            colours[0],
            f"{ticks.recovered:,}",
            colours[1],
        )
    return table


def _deliveries(verdict: Verdict) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in (
        "",
        "sent",
        "in flight",
        "lost",
        "conflated",
        "spoiled",
        "stored",
        "missing",
        "extra",
    ):
        table.add_column(column, justify="left" if not column else "right")
    for name, account in (("books", verdict.books), ("ticks", verdict.ticks)):
        for line, side in account.lines.items():
            counts = (
                side.sent,
                side.in_flight,
                side.lost,
                side.conflated,
                side.spoiled,
                side.stored,
                side.missing,
                side.extra,
            )
            table.add_row(f"{name} {line}", *map(str, counts))
    return table


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.3%}" if whole else "-"


def _show_pandas(console: Console, root: Path) -> None:
    """Two lines of pandas, run as a user would run them, and what they print."""
    lines = (
        f'import pandas as pd; books = pd.read_parquet("{root}/data/kr/orderbook")',
        'print(books[["symbol", "exch_time", "recv_time", "broker", "bid_price_1", "ask_price_1"]].tail(3).to_string())',
    )
    ran = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    for line in lines:
        console.print(f">>> {line}", markup=False)
    console.print(ran.stdout.rstrip() or ran.stderr.rstrip(), markup=False)
