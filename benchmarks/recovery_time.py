"""How soon after a SIGKILL the first record comes again: `python -m benchmarks.recovery_time`.

    SIGKILL ──> supervisord notices, starts ──> imports, login, registration ──> first record
                `- the floor: the same for a shell script under the same supervisord, in the same run

kis, kiwoom: a new record in the order-book ring. writer: a new row in its journal. The market never pauses (20 symbols, 10 events
a second each), so that waiting for something to record is not measured. KIS frees the dead session's slot at once here; where it
does not, the vendor's own rule (no new attempt for 10 s) comes on top.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from collectorctl.demo.environment import Simulator, connect_home, write_home
from collectorctl.supervision.readiness import wait_until_healthy
from collectorctl.supervision.supervisor import Daemon
from conf.home import Home
from ringbuf.records import ORDERBOOK
from ringbuf.ring import Consumer
from ringbuf.vitals import read

POLL_S = 0.002
MOST_S = 60.0
FLOOR = "floor"
PROGRAM = f"""
[program:{FLOOR}]
command = /bin/sh -c "touch run/{FLOOR}; exec sleep 86400"
directory = %(here)s
autorestart = true
startsecs = 3
"""


def pid_of(home: Home, name: str) -> int:
    """The running process's id; waits until it has run long enough to count as started."""
    give_up = time.monotonic() + MOST_S
    while time.monotonic() < give_up:
        program = next(p for p in Daemon(home).programs() if p.name == name)
        if program.state == "RUNNING":
            return program.pid
        time.sleep(0.05)
    raise SystemExit(f"{name} does not run")


def until(happened: Callable[[], bool], since: float) -> float:
    """Seconds from `since` until it happened."""
    while not happened():
        if time.monotonic() - since > MOST_S:
            raise SystemExit(f"nothing came within {MOST_S} s")
        time.sleep(POLL_S)
    return time.monotonic() - since


def once(home: Home, name: str) -> float:
    """Kill it; seconds until its first record."""
    pid = pid_of(home, name)
    if name == FLOOR:
        (home.run / FLOOR).unlink()
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    if name == FLOOR:
        return until((home.run / FLOOR).exists, began)
    if name == "writer":
        return until(lambda: journalled(home, pid), began)
    while Path(f"/proc/{pid}").exists():  # its last record may come in this instant
        time.sleep(0)
    ring = Consumer.open(home.ring(name, "orderbook"), ORDERBOOK)
    try:
        before = ring.head
        return until(lambda: ring.head > before, began)
    finally:
        ring.close()


def journalled(home: Home, old: int) -> bool:
    """Whether a new writer has journalled a row."""
    vitals = read(home.vitals("writer"))
    return vitals.pid != old and vitals.counters["journal_rows"] > 0


def main() -> None:
    """Run and print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--times", type=int, default=10)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    chance = random.Random(given.seed)
    root = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    write_home(root, 600)
    (root / "supervisord.conf").write_text((root / "supervisord.conf").read_text() + PROGRAM)
    home = Home(root)
    try:
        with Simulator(root, root / "truth", "--always-open", "--kis-slot-release-s", "0") as simulator:
            connect_home(root, simulator.addresses)
            home = Home(root)
            home.make()
            daemon = Daemon(home)
            daemon.start()
            try:
                print(f"{'SIGKILL to first record':<26}{'median s':>10}{'min s':>8}{'max s':>8}{'over the floor':>16}")
                floor = 0.0
                for name in (FLOOR, "kis", "kiwoom", "writer"):
                    took = []
                    for _ in range(given.times):
                        sick = wait_until_healthy(home, 60, ("kis", "kiwoom", "writer"))
                        assert not sick, sick
                        time.sleep(
                            chance.uniform(0.0, 1.0)
                        )  # supervisord looks once a second: not always at the same phase
                        took.append(once(home, name))
                    median = statistics.median(took)
                    floor = floor or median
                    print(
                        f"{name:<26}{median:>10.2f}{min(took):>8.2f}{max(took):>8.2f}{median - floor:>16.2f}",
                        flush=True,
                    )
            finally:
                for _ in daemon.stop():
                    pass
    finally:
        shutil.rmtree((home.run / "ring").resolve(), ignore_errors=True)
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
