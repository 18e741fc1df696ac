"""Does killing one broker slow the other down, or cost it anything? `python -m benchmarks.isolation`.

    one run    a quiet minute ──> a minute with kis SIGKILLed every 5 s
    judged     kiwoom's latency from socket to ring (its vitals), and its loss (simulator's truth against Parquet)

The minutes can be repeated in turn (--rounds), because a noisy machine differs more between two minutes than kis can do harm.
A percentile is the upper edge of its bucket, four of which make a doubling: a step of one bucket is a ratio of 1.14 to 1.25.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from brokers.simulator import ground_truth
from collectorctl.demo.environment import Simulator, connect_home, write_home
from collectorctl.demo.oracle import Instants, judge
from collectorctl.supervision.readiness import wait_until_healthy
from collectorctl.supervision.supervisor import Daemon
from conf.home import Home
from ringbuf.vitals import percentiles, read

KILL_EVERY_S = 5.0
BYSTANDER = "kiwoom"


class Stretch(NamedTuple):
    """A stretch of the run: mono_ns from and to, kills of kis in it, kiwoom's latency counts by bucket."""

    killing: bool
    begin_ns: int
    end_ns: int
    kills: int
    buckets: np.ndarray


def stretch(home: Home, seconds: float, killing: bool) -> Stretch:
    """Let the tree run for so long, killing kis or not."""
    before = np.array(read(home.vitals(BYSTANDER)).latency_buckets)
    begin_ns, kills = time.monotonic_ns(), 0
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, KILL_EVERY_S))
        pid = next((p.pid for p in Daemon(home).programs() if p.name == "kis"), 0)
        if killing and pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                kills += 1
    after = np.array(read(home.vitals(BYSTANDER)).latency_buckets)
    return Stretch(killing, begin_ns, time.monotonic_ns(), kills, after - before)


def delivered_and_missing(
    home: Home, told: ground_truth.Run, ended_ns: Instants, stretches: list[Stretch]
) -> tuple[int, int]:
    """Rows that the simulator certainly delivered to kiwoom in these stretches, and how many of them are not in Parquet."""
    within = np.zeros(len(told.sent), bool)
    for one in stretches:
        within |= (told.sent["mono_ns"] >= one.begin_ns) & (told.sent["mono_ns"] < one.end_ns)
    rows = [pd.read_parquet(home.data / "kr" / dataset) for dataset in ("orderbook", "tick")]
    verdict = judge(told.books, told.trades, told.sent[within], ended_ns, *rows)
    sides = [account.lines[BYSTANDER] for account in (verdict.books, verdict.ticks)]
    return sum(side.sent - side.in_flight for side in sides), sum(side.missing for side in sides)


def main() -> None:
    """Run and print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=60.0, help="length of one stretch")
    options.add_argument("--rounds", type=int, default=1, help="stretches of each kind, in turn")
    options.add_argument(
        "--books-per-s", type=float, default=10.0, help="market events a second and symbol (20 symbols)"
    )
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    root = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    write_home(root, 2 * given.seconds * given.rounds)
    choices = ("--seed", str(given.seed), "--books-per-s", str(given.books_per_s), "--kis-slot-release-s", "0")
    home = Home(root)
    stretches: list[Stretch] = []
    try:
        with Simulator(root, root / "truth", "--always-open", *choices) as simulator:
            connect_home(root, simulator.addresses)
            home = Home(root)
            home.make()
            daemon = Daemon(home)
            daemon.start()
            try:
                sick = wait_until_healthy(home, 30)
                assert not sick, sick
                time.sleep(5.0)
                for _ in range(given.rounds):
                    for killing in (False, True):
                        stretches.append(stretch(home, given.seconds, killing))
                        wait_until_healthy(home, 30)
                for line in simulator.addresses:
                    simulator.tell(f"{line} quiet 3600")
                time.sleep(2.5)
            finally:
                for _ in daemon.stop():
                    pass
        told = ground_truth.load(root / "truth")
        show(home, told, stretches)
    finally:
        shutil.rmtree((home.run / "ring").resolve(), ignore_errors=True)
        shutil.rmtree(root)


def show(home: Home, told: ground_truth.Run, stretches: list[Stretch]) -> None:
    """The table: undisturbed, killing, ratio."""
    ended_ns = {(c["line"], c["connection"]): c["ended_mono_ns"] for c in told.connections if c["ended_mono_ns"]}
    columns: list[dict[str, float]] = []
    for killing in (False, True):
        mine = [one for one in stretches if one.killing == killing]
        buckets = np.sum([one.buckets for one in mine], axis=0)
        delivered, missing = delivered_and_missing(home, told, ended_ns, mine)
        columns.append(
            {"kis killed": sum(one.kills for one in mine), "kiwoom's rows to ring": int(buckets.sum())}
            | {f"latency p{percent}, us": ns / 1000 for percent, ns in percentiles(buckets).items()}
            | {"delivered": delivered, "not stored": missing}
        )
    print(f"{'kiwoom while':<24}{'undisturbed':>14}{'kis is killed':>16}{'ratio':>8}")
    for name, quiet in columns[0].items():
        killing = columns[1][name]
        ratio = f"{killing / quiet:8.2f}" if quiet else f"{'-':>8}"
        print(f"{name:<24}{quiet:>14,.0f}{killing:>16,.0f}{ratio}")


if __name__ == "__main__":
    main()
