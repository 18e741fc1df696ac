"""How soon after a SIGKILL the first record comes again: `python -m benchmarks.recovery_time`.

    SIGKILL ──> supervisord notices, starts ──> imports, login, subscription ──> first record
                `- the floor: the same for a shell script under the same supervisord, in the same run

kis, kiwoom: a new record in the order-book ring. writer: a new row in its journal. The market never pauses (20 symbols, 10 events
a second each), so that waiting for something to record is not measured. KIS frees the dead session's slot at once here; where it
does not, the vendor's own rule (no new attempt for 10 s) comes on top.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.process_tree import demo_home, running_tree
from collectorctl.supervision.readiness import wait_until_healthy
from collectorctl.supervision.supervisor import SupervisorClient
from conf.home import Home
from ringbuf.records import ORDERBOOK
from ringbuf.ring import Consumer
from ringbuf.vitals import read_snapshot

POLL_S = 0.002
TIMEOUT_S = 60.0
FLOOR = "floor"
PROGRAM = f"""
[program:{FLOOR}]
command = /bin/sh -c "touch run/{FLOOR}; exec sleep 86400"
directory = %(here)s
autorestart = true
startsecs = 3
"""


def wait_for_pid(home: Home, name: str) -> int:
    """The running process's id; waits until it has run long enough to count as started."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        program = next(p for p in SupervisorClient(home).list_programs() if p.name == name)
        if program.state == "RUNNING":
            return program.pid
        time.sleep(0.05)
    raise SystemExit(f"{name} does not run")


def measure_until(condition: Callable[[], bool], since: float) -> float:
    """Seconds from `since` until it happened."""
    while not condition():
        if time.monotonic() - since > TIMEOUT_S:
            raise SystemExit(f"nothing came within {TIMEOUT_S} s")
        time.sleep(POLL_S)
    return time.monotonic() - since


def measure_restart(home: Home, name: str) -> float:
    """Kill it; seconds until its first record."""
    pid = wait_for_pid(home, name)
    if name == FLOOR:
        (home.run / FLOOR).unlink()
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    if name == FLOOR:
        return measure_until((home.run / FLOOR).exists, began)
    if name == "writer":
        return measure_until(lambda: has_journalled(home, pid), began)
    while Path(f"/proc/{pid}").exists():  # its last record may come in this instant
        time.sleep(0)
    ring = Consumer.open(home.ring_path(name, "orderbook"), ORDERBOOK)
    try:
        before = ring.head
        return measure_until(lambda: ring.head > before, began)
    finally:
        ring.close()


def has_journalled(home: Home, old_pid: int) -> bool:
    """Whether a new writer has journalled a row."""
    vitals = read_snapshot(home.vitals_path("writer"))
    return vitals.pid != old_pid and vitals.counters["journal_rows"] > 0


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with demo_home(600) as root:
        with (root / "supervisord.conf").open("a") as file:
            file.write(PROGRAM)
        with running_tree(root, "--always-open", "--kis-slot-release-s", "0") as (home, _):
            print_table(home, arguments.times, rng)


def print_table(home: Home, times: int, rng: random.Random) -> None:
    """Kill each process in turn, so many times."""
    print(f"{'SIGKILL to first record':<26}{'median s':>10}{'min s':>8}{'max s':>8}{'over the floor':>16}")
    floor = 0.0
    for name in (FLOOR, "kis", "kiwoom", "writer"):
        durations_s = []
        for _ in range(times):
            unhealthy = wait_until_healthy(home, 60, ("kis", "kiwoom", "writer"))
            assert not unhealthy, unhealthy
            time.sleep(rng.uniform(0.0, 1.0))  # supervisord looks once a second: not always at the same phase
            durations_s.append(measure_restart(home, name))
        median = statistics.median(durations_s)
        floor = floor or median
        print(
            f"{name:<26}{median:>10.2f}{min(durations_s):>8.2f}{max(durations_s):>8.2f}{median - floor:>16.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
