"""What recovering a heavy day takes: `python -m benchmarks.recover`. Target: within 5 % of pages divided by the allowed rate.

A home that has nothing of the day, and a simulator that had so many trades of each symbol; the command as a user runs it. Printed:
pages, seconds, what the pages take at the rate, the most memory the process ever had (resident, shared libraries included).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from brokers.simulator import ground_truth
from collectorctl.demo.environment import SYMBOLS, SimulatorProcess, create_demo_home, set_addresses

DAY = "2026-11-20"


def create_benchmark_home(symbols: list[str], rate: float) -> Path:
    """A home on the evening of the day."""
    root = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    create_demo_home(root, 600)
    (root / "collector.toml").write_text(
        f'[universe]\nkr = {msgspec.json.encode(symbols).decode()}\n[clock]\nstart = "{DAY}T20:30:00+09:00"\n'
        f"[recover]\ncalls_per_s_first = {rate}\nmax_calls_per_s = {rate}\n[kis]\n[kiwoom]\n"
    )
    return root


def run_recover(root: Path) -> tuple[float, float, list[dict]]:
    """Run the command: seconds, MB at most, certificates."""
    command = [Path(sys.executable).parent / "collectorctl", "--home", str(root), "recover", "--date", DAY, "--json"]
    begin = time.monotonic()
    with (root / "told.json").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"recover ended with {process.returncode}: {(root / 'told.json').read_text()[:2000]}")
    return time.monotonic() - begin, usage.ru_maxrss / 1024, msgspec.json.decode((root / "told.json").read_bytes())


def main() -> None:
    """Print one line for each number of symbols."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trades", type=int, default=300_000)
    parser.add_argument("--symbols", type=int, nargs="+", default=[1])
    parser.add_argument("--rate", type=float, default=4.5)
    arguments = parser.parse_args()
    print(f"{'symbols':>8}{'trades each':>13}{'pages':>8}{'seconds':>10}{'pages/rate':>12}{'most MB':>9}  certificates")
    for number in arguments.symbols:
        symbols = SYMBOLS[:number]
        root = create_benchmark_home(symbols, arguments.rate)
        try:
            rate_options = ("--kiwoom-burst", str(arguments.rate), "--kiwoom-calls-per-s", str(arguments.rate))
            with SimulatorProcess(root, root / "truth", "--history", str(arguments.trades), *rate_options) as simulator:
                set_addresses(root, simulator.addresses)
                assert len(ground_truth.load(root / "truth").trades) >= number * arguments.trades
                seconds, max_mb, certificates = run_recover(root)
        finally:
            shutil.rmtree(root)
        pages = sum(one["pages"] for one in certificates)
        grades = ", ".join(sorted({one["certificate"] for one in certificates}))
        took = f"{seconds:>10.1f}{pages / arguments.rate:>12.1f}{max_mb:>9.0f}"
        print(f"{number:>8}{arguments.trades:>13,}{pages:>8}{took}  {grades}", flush=True)


if __name__ == "__main__":
    main()
