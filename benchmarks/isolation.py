"""Does killing one broker slow the other down, or cost it anything? `python -m benchmarks.isolation`.

    one run    a quiet minute ──> a minute with kis SIGKILLed every 5 s
    judged     kiwoom's latency from socket to ring (its vitals), and its loss (simulator's truth against Parquet)

The minutes can be repeated in turn (--rounds), because a noisy machine differs more between two minutes than kis can do harm.
A percentile is the upper edge of its bucket, four of which make a doubling: a step of one bucket is a ratio of 1.14 to 1.25.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks.process_tree import demo_home, running_tree
from brokers.simulator import ground_truth
from collectorctl.demo.oracle import ConnectionInstants, compare
from collectorctl.supervision.readiness import wait_until_healthy
from collectorctl.supervision.supervisor import SupervisorClient
from conf.home import Home
from ringbuf.vitals import compute_percentiles, read_snapshot

KILL_EVERY_S = 5.0
OBSERVED_FEED = "kiwoom"


class Interval(NamedTuple):
    """A stretch of the run: mono_ns from and to, kills of kis in it, kiwoom's latency counts by bucket."""

    kis_killed: bool
    begin_ns: int
    end_ns: int
    kills: int
    buckets: np.ndarray


def run_interval(home: Home, seconds: float, kill_kis: bool) -> Interval:
    """Let the tree run for so long, killing kis or not."""
    before = np.array(read_snapshot(home.vitals_path(OBSERVED_FEED)).latency_buckets)
    begin_ns, kills = time.monotonic_ns(), 0
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, KILL_EVERY_S))
        pid = next((p.pid for p in SupervisorClient(home).list_programs() if p.name == "kis"), 0)
        if kill_kis and pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                kills += 1
    after = np.array(read_snapshot(home.vitals_path(OBSERVED_FEED)).latency_buckets)
    return Interval(kill_kis, begin_ns, time.monotonic_ns(), kills, after - before)


def count_delivered_and_missing(
    home: Home, truth: ground_truth.GroundTruth, ended_ns: ConnectionInstants, intervals: list[Interval]
) -> tuple[int, int]:
    """Rows that the simulator certainly delivered to kiwoom in these stretches, and how many of them are not in Parquet."""
    within = np.zeros(len(truth.deliveries), bool)
    for interval in intervals:
        within |= (truth.deliveries["mono_ns"] >= interval.begin_ns) & (truth.deliveries["mono_ns"] < interval.end_ns)
    rows = [pd.read_parquet(home.data / "kr" / dataset) for dataset in ("orderbook", "tick")]
    result = compare(truth.books, truth.trades, truth.deliveries[within], ended_ns, *rows)
    sides = [account.feeds[OBSERVED_FEED] for account in (result.books, result.ticks)]
    return sum(side.sent - side.in_flight for side in sides), sum(side.missing for side in sides)


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of one stretch")
    parser.add_argument("--rounds", type=int, default=1, help="stretches of each kind, in turn")
    parser.add_argument(
        "--books-per-s", type=float, default=10.0, help="market events a second and symbol (20 symbols)"
    )
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    options = (
        "--always-open",
        "--seed",
        str(arguments.seed),
        "--books-per-s",
        str(arguments.books_per_s),
        "--kis-slot-release-s",
        "0",
    )
    intervals: list[Interval] = []
    with demo_home(2 * arguments.seconds * arguments.rounds) as root:
        with running_tree(root, *options) as (home, simulator):
            time.sleep(5.0)
            for _ in range(arguments.rounds):
                for kill_kis in (False, True):
                    intervals.append(run_interval(home, arguments.seconds, kill_kis))
                    wait_until_healthy(home, 30)
            for feed in simulator.addresses:
                simulator.send_command(f"{feed} quiet 3600")
            time.sleep(2.5)
        print_table(home, ground_truth.load(root / "truth"), intervals)


def print_table(home: Home, truth: ground_truth.GroundTruth, intervals: list[Interval]) -> None:
    """The table: undisturbed, killing, ratio."""
    ended_ns = {(c["line"], c["connection"]): c["ended_mono_ns"] for c in truth.connections if c["ended_mono_ns"]}
    columns: list[dict[str, float]] = []
    for killing in (False, True):
        mine = [one for one in intervals if one.kis_killed == killing]
        buckets = np.sum([one.buckets for one in mine], axis=0)
        delivered, missing = count_delivered_and_missing(home, truth, ended_ns, mine)
        columns.append(
            {"kis killed": sum(one.kills for one in mine), "kiwoom's rows to ring": int(buckets.sum())}
            | {f"latency p{percent}, us": ns / 1000 for percent, ns in compute_percentiles(buckets).items()}
            | {"delivered": delivered, "not stored": missing}
        )
    print(f"{'kiwoom while':<24}{'undisturbed':>14}{'kis is killed':>16}{'ratio':>8}")
    for name, quiet in columns[0].items():
        killing = columns[1][name]
        ratio = f"{killing / quiet:8.2f}" if quiet else f"{'-':>8}"
        print(f"{name:<24}{quiet:>14,.0f}{killing:>16,.0f}{ratio}")


if __name__ == "__main__":
    main()
