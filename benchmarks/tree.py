"""CPU, wake-ups and memory of a whole process tree, idle and at a steady pace: `python -m benchmarks.tree [--rates 0 1000]`.

    simulator, a process of its own ──books and ticks──> kis, kiwoom ──rings──> writer ──> journal     the simulator is not measured

One home a rate, so many books a second and feed (20 symbols, ticks beside them, sharded); rate 0: the market rests, and
the brokers send their heartbeats only. Each process's CPU is user and system between two looks; its own memory is that
of `status`, resident less shared. "Behind" and "lost": records that waited in the rings at the end, and that
a ring overwrote unread.

Not handled here: publication, which comes once an hour (scale.py), and a real vendor's TLS.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.process_tree import demo_home, running_tree
from collectorctl.demo.environment import SYMBOLS
from collectorctl.supervision.status import read_own_memory_mb
from collectorctl.supervision.supervisor import SupervisorClient
from conf.home import Home
from ringbuf.vitals import read_snapshot

FEEDS = ("kis", "kiwoom")
SUPERVISORD = "supervisord"
SETTLE_S = 5.0
"""Imports, logins and the first records of every symbol are over."""


class Look(NamedTuple):
    """One process at one instant; `wake_ups`: of all its threads."""

    cpu_s: float
    kernel_s: float
    wake_ups: int
    own_mb: float


def look(pids: dict[str, int]) -> dict[str, Look]:
    """Every process now."""
    found = {}
    for name, pid in pids.items():
        process = psutil.Process(pid)
        times = process.cpu_times()
        own_mb = read_own_memory_mb(pid) or 0.0
        found[name] = Look(times.user + times.system, times.system, count_wake_ups(pid), own_mb)
    return found


def count_wake_ups(pid: int) -> int:
    """How often its threads have waited for something."""
    statuses = [task.joinpath("status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0]) for status in statuses)


def count_frames(home: Home) -> int:
    """Messages that the feeds have received."""
    return sum(read_snapshot(home.vitals_path(feed)).counters["frames"] for feed in FEEDS)


def measure(rate: float, seconds: float) -> None:
    """Print the table of one rate."""
    options = ["--always-open", "--kiwoom-books-per-s", "0", "--kiwoom-flush-ms", "0"]
    options += ["--books-per-s", str(max(rate, 1.0) / len(SYMBOLS))]
    with demo_home(3600.0, real_time=True) as root, running_tree(root, *options) as (home, simulator):
        if not rate:
            simulator.send_command("market rest")
        time.sleep(SETTLE_S)
        print_interval(home, rate, seconds)


def print_interval(home: Home, rate: float, seconds: float) -> None:
    """Let the tree run for so long; a line for each process, and the sum."""
    supervisor = SupervisorClient(home)
    pids = {program.name: program.pid for program in supervisor.list_programs() if program.pid}
    pids[SUPERVISORD] = supervisor.find_pid() or 0
    before, frames, begin_s = look(pids), count_frames(home), time.monotonic()
    time.sleep(seconds)
    after, frames, took_s = look(pids), count_frames(home) - frames, time.monotonic() - begin_s
    counters = read_snapshot(home.vitals_path("writer")).counters
    print(f"\n{rate:,.0f} books a second and feed: {frames / took_s:,.0f} messages/s in {took_s:.0f} s")
    print(
        f"{'':<12}{'% of a core':>12}{'in kernel':>10}{'wake-ups/s':>12}{'own MB':>9}{'CPU s per 10,000 messages':>28}"
    )
    sums = [0.0] * 4
    for name, end in sorted(after.items(), key=lambda item: before[item[0]].cpu_s - item[1].cpu_s):
        begin = before[name]
        figures = (*(now - then for now, then in zip(end[:3], begin[:3], strict=True)), end.own_mb)
        sums = [total + figure for total, figure in zip(sums, figures, strict=True)]
        print_line(name, figures, took_s, frames)
    print_line("together", sums, took_s, frames)
    print(f"behind {counters['backlog_records']:,}, lost {counters['lost_records']:,}", flush=True)


def print_line(name: str, figures: tuple[float, ...] | list[float], took_s: float, frames: int) -> None:
    """One line: CPU s, in the kernel of it, wake-ups, MB."""
    cpu_s, kernel_s, wake_ups, own_mb = figures
    shares = f"{cpu_s / took_s * 100:>12.2f}{kernel_s / took_s * 100:>10.2f}{wake_ups / took_s:>12.1f}"
    each = f"{cpu_s / frames * 10_000:>28.3f}" if frames > took_s else f"{'-':>28}"
    print(f"{name:<12}{shares}{own_mb:>9.1f}{each}")


def main() -> None:
    """Print a table a rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=float, nargs="+", default=[0, 100, 1000], help="books a second and feed")
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    for rate in options.rates:
        measure(rate, options.seconds)


if __name__ == "__main__":
    main()
