"""Tables of a demo."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
from rich import box
from rich.table import Table

from collectorctl.demo.recovery import DemoRecovery
from collectorctl.demo.result import Bounds, DemoResult
from collectorctl.demo.us.night import UsOutcome
from collectorctl.recover.progress import GRADE_COLOURS
from collectorctl.supervision.status import Status
from collectorctl.terminal import TextConsole, coloured, echo_json
from conf.home import Home


class DemoMeasurements(msgspec.Struct):
    """What a demo measured: bytes on disk per row, lag from KIS to Kiwoom in real ms, own memory in MB."""

    bytes_per_book: float
    bytes_per_tick: float
    files: int
    hours: list[str]
    twin_share: float
    lag_ms: dict[str, float]
    own_memory_mb: dict[str, float]
    stop_s: float


class DemoOutcome(msgspec.Struct):
    """A finished demo: description, actions that the trading day was too short for, and results.

    `assertion_failures`: failed assertions of the scenario; `late_start`: what may explain violations.
    """

    description: str
    skipped_actions: list[str]
    result: DemoResult
    assertion_failures: list[str]
    recovery: DemoRecovery
    measurements: DemoMeasurements
    bounds: Bounds = Bounds()
    us: UsOutcome | None = None
    late_start: str = ""

    def problems(self) -> list[str]:
        """Violations, as messages; empty when the demo passed."""
        skipped = [f"{act}: the market closed before it: give it more --seconds" for act in self.skipped_actions]
        us = self.us.problems() if self.us is not None else []
        found = [*skipped, *self.result.problems(self.bounds), *self.assertion_failures, *self.recovery.problems(), *us]
        return [*found, self.late_start] if found and self.late_start else found

    def describe(self) -> list[str]:
        """What became of what was delivered, and of the day's trades after recovery."""
        return [
            *self.result.describe(),
            *self.recovery.describe(),
            *(self.us.describe() if self.us is not None else []),
        ]


def measure(home: Home, status: Status, stop_s: float) -> DemoMeasurements:
    """The figures of a finished demo; of the last status before it stopped."""
    sizes = {name: list((home.data / "kr" / name).rglob("part-*.parquet")) for name in ("orderbook", "tick")}
    books = pd.read_parquet(home.data / "kr" / "orderbook", columns=["recv_time_kis", "recv_time_kiwoom", "hour"])
    ticks = pd.read_parquet(home.data / "kr" / "tick", columns=["seq"])
    both = books.dropna(subset=["recv_time_kis", "recv_time_kiwoom"])
    # arrivals are in calendar time, which the warped clock stretches
    lag_ns = (both["recv_time_kiwoom"] - both["recv_time_kis"]).dt.total_seconds() * 1e3 / home.settings.clock.speed
    return DemoMeasurements(
        bytes_per_book=_total_bytes(sizes["orderbook"]) / max(len(books), 1),
        bytes_per_tick=_total_bytes(sizes["tick"]) / max(len(ticks), 1),
        files=sum(len(files) for files in sizes.values()),
        hours=[f"{hour:02}" for hour in sorted(books["hour"].astype(int).unique())],
        twin_share=len(both) / max(len(books), 1),
        lag_ms={str(p): float(np.percentile(lag_ns, p)) if len(lag_ns) else float("nan") for p in (1, 50, 99)},
        own_memory_mb={p.name: p.own_memory_mb for p in status.processes if p.own_memory_mb is not None},
        stop_s=stop_s,
    )


def _total_bytes(files: list[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def print_report(console: TextConsole, root: Path, outcome: DemoOutcome, as_json: bool) -> None:
    """Print the outcome: tables for people, or one JSON object on stdout."""
    result, measurements = outcome.result, outcome.measurements
    if as_json:
        document = {"home": str(root), **msgspec.to_builtins(outcome), "complaints": outcome.problems()}
        document["verdict"] = outcome.describe()
        echo_json(document, indent=0)
        return
    console.print(_build_delivery_table(result))
    console.print(_build_outcome_table(result))
    if outcome.us is not None:
        console.print(_build_delivery_table(outcome.us.result))
    memory = ", ".join(f"{name} {mb:.0f} MB" for name, mb in measurements.own_memory_mb.items())
    console.print(
        f"hours {', '.join(measurements.hours)} in {measurements.files} files; {measurements.bytes_per_book:.0f} bytes per book, "
        f"{measurements.bytes_per_tick:.0f} per tick; {measurements.twin_share:.1%} of the books came by both feeds; "
        f"Kiwoom behind KIS by {measurements.lag_ms['50']:.0f} ms "
        f"(p1 {measurements.lag_ms['1']:.0f}, p99 {measurements.lag_ms['99']:.0f}); "
        f"own memory {memory}; stopped in {measurements.stop_s:.1f} s"
    )
    _print_pandas_example(console, root)
    console.print()
    console.print(f"{outcome.description}:")
    console.print(_build_certificate_table(outcome.recovery))
    ticks = [one.ticks for one in outcome.recovery.instruments]
    unchanged = Counter(one.before for one in outcome.recovery.instruments if one.before == one.after)
    for grade, count in sorted(unchanged.items()):
        console.print(f"{count} more symbols were {grade} as they stood")
    console.print(
        f"recovered in {outcome.recovery.seconds:.1f} s: {sum(one.recovered for one in ticks)} ticks, of which "
        f"{sum(one.equal for one in ticks)} equal the trade that was missed; of {sum(one.trades for one in ticks)} trades of the "
        f"market {sum(one.missing for one in ticks)} are in no row and {sum(one.duplicated for one in ticks)} in several"
    )
    problems = outcome.problems()
    for problem in problems:
        console.print(coloured("FAILED", "red"), problem)
    word = coloured("FAILED", "red") if problems else coloured("PASSED", "green")
    console.print(word, "; ".join(outcome.describe()))


def _build_certificate_table(recovery: DemoRecovery) -> Table:
    """Where recovery changed something."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("symbol", "trades", "live rows", "missing shares", "missing trades", "before", "recovered", "after"):
        table.add_column(column, justify="left" if column in ("symbol", "before", "after") else "right")
    for one in recovery.instruments:
        ticks = one.ticks
        if one.before == one.after and not ticks.recovered:
            continue
        counts = (ticks.trades, ticks.live, one.missing_shares, ticks.missed)
        before, after = (coloured(grade, GRADE_COLOURS.get(grade, "red")) for grade in (one.before, one.after))
        table.add_row(
            f"{ticks.symbol} {ticks.venue}",
            *(f"{count:,}" for count in counts),
            before,
            f"{ticks.recovered:,}",
            after,
        )
    return table


def _build_outcome_table(result: DemoResult) -> Table:
    """What is on disk of what either feed delivered."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("", "available", "stored", "fetched", "missed", "doubled", "both arrivals", "wrong pairs", "differ"):
        table.add_column(column, justify="left" if not column else "right")
    for name, account in (("books", result.books), ("ticks", result.ticks)):
        shares = [
            f"{count} ({_format_share(count, account.available)})"
            for count in (account.missed, account.doubled, account.wrong_pairs)
        ]
        is_books = account is result.books
        table.add_row(
            name,
            str(account.available),
            str(account.stored),
            "" if is_books else str(account.fetched),
            *shares[:2],
            *((str(account.pairs), shares[2]) if is_books else ("", "")),
            str(account.wrong),
        )
    return table


def _build_delivery_table(result: DemoResult) -> Table:
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
    for name, account in (("books", result.books), ("ticks", result.ticks)):
        for feed, feed_account in account.feeds.items():
            counts = (
                feed_account.sent,
                feed_account.in_flight,
                feed_account.lost,
                feed_account.conflated,
                feed_account.corrupted,
                feed_account.stored,
                feed_account.missing,
                feed_account.extra,
            )
            table.add_row(f"{name} {feed}", *map(str, counts))
    return table


def _format_share(part: int, whole: int) -> str:
    return f"{part / whole:.3%}" if whole else "-"


def _print_pandas_example(console: TextConsole, root: Path) -> None:
    """Two lines of pandas, run as a user would run them, and what they print."""
    lines = (
        f"import pandas as pd; books = pd.read_parquet({str(root / 'data/kr/orderbook')!r})",
        'print(books[["symbol", "exch_time", "recv_time", "broker", "bid_price_1", "ask_price_1"]].tail(3).to_string())',
    )
    completed = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    for line in lines:
        console.print(f">>> {line}")
    for line in (completed.stdout.rstrip() or completed.stderr.rstrip()).split("\n"):
        console.print(line)
