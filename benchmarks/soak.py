"""A simulated week, and what it leaves behind in the processes: `python -m benchmarks.soak [--days 7] [--speed 600]`.

    Monday 07:30 ──clock at 600 times its speed──> every phase, night and recovery of seven days        in 17 minutes

A line a sample: own memory (as `status` has it, MB), descriptors and threads of each process, and the median from socket to
ring since the line before. Last, for each process, the first sample after a tenth of the time beside the last one. What grows
with the time is a leak; what stays away at the end did not come back. Timeouts, heartbeats and the writer's turns keep their
real length (conf/clock.py).
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import numpy as np
import psutil

from benchmarks.process_tree import demo_home, running_tree
from collectorctl.demo.environment import REST_RATE_OPTIONS, SYMBOLS
from collectorctl.supervision.status import collect_status, read_own_memory_mb
from collectorctl.supervision.supervisor import SupervisorClient
from conf.home import Home
from ringbuf.vitals import compute_percentiles, read_snapshot

FEEDS = ("kis", "kiwoom", "us")
SETTINGS = """
[universe]
kr = {symbols}
us = ["NAS.AAPL", "NYS.JPM"]
[clock]
start = "2026-11-16T07:30:00+09:00"
speed = {speed}
[writer]
# an hour lasts six seconds at 600 times
grace_s = 6.0
[ring]
orderbook_capacity = 32768
tick_capacity = 32768
[kis]
subscribe_spacing_ms = 20
[us]
enabled = true
subscribe_spacing_ms = 20
[recover]
calls_per_s_first = 20.0
max_calls_per_s = 20.0
"""


class Sample(NamedTuple):
    """One process at one instant."""

    own_mb: float
    descriptors: int
    threads: int


def take_sample(home: Home) -> dict[str, Sample]:
    """Every process that runs now."""
    found = {}
    for program in SupervisorClient(home).list_programs():
        if not program.pid:
            continue
        process = psutil.Process(program.pid)
        with process.oneshot():
            own_mb = read_own_memory_mb(program.pid) or 0.0
            found[program.name] = Sample(own_mb, process.num_fds(), process.num_threads())
    return found


def read_latencies(home: Home) -> dict[str, np.ndarray]:
    """What each feed has counted so far, by bucket."""
    return {feed: np.array(read_snapshot(home.vitals_path(feed)).latency_buckets) for feed in FEEDS}


def format_sample(sample: Sample) -> str:
    """Memory, descriptors, threads."""
    return f"{sample.own_mb:.1f}/{sample.descriptors}/{sample.threads}"


def main() -> None:
    """Print the samples, and what has changed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=float, default=7.0)
    parser.add_argument("--speed", type=float, default=600.0)
    parser.add_argument("--samples", type=int, default=20)
    options = parser.parse_args()
    seconds = options.days * 86_400 / options.speed
    with demo_home(seconds) as root:
        symbols = str(SYMBOLS[:10]).replace("'", '"')
        (root / "collector.toml").write_text(SETTINGS.format(symbols=symbols, speed=options.speed))
        with running_tree(root, *REST_RATE_OPTIONS) as (home, _):
            begin_s, samples = time.monotonic(), []
            latencies = read_latencies(home)
            for number in range(1, options.samples + 1):
                time.sleep(max(0.0, begin_s + number * seconds / options.samples - time.monotonic()))
                samples.append(take_sample(home))
                before, latencies = latencies, read_latencies(home)
                medians = {feed: compute_percentiles(latencies[feed] - before[feed])["50"] / 1000 for feed in FEEDS}
                print(
                    f"day {number * options.days / options.samples:4.1f}  "
                    + "  ".join(f"{name} {format_sample(sample)}" for name, sample in samples[-1].items())
                    + "  us to ring "
                    + " ".join(f"{feed} {median:.0f}" for feed, median in medians.items()),
                    flush=True,
                )
            early, last = samples[options.samples // 10], samples[-1]
            for name in sorted(early.keys() & last.keys()):
                print(f"{name:<12}{format_sample(early[name]):>16} -> {format_sample(last[name])}")
            for program in collect_status(home).processes:
                print(f"{program.name:<12}{program.verdict}")


if __name__ == "__main__":
    main()
