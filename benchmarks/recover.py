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
from collectorctl.demo.environment import SYMBOLS, Simulator, connect_home, write_home

DAY = "2026-11-20"


def home_of(symbols: list[str], rate: float) -> Path:
    """A home on the evening of the day."""
    root = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    write_home(root, 600)
    (root / "collector.toml").write_text(
        f'[universe]\nkr = {msgspec.json.encode(symbols).decode()}\n[clock]\nstart = "{DAY}T20:30:00+09:00"\n'
        f"[recover]\ncalls_per_s_first = {rate}\ncalls_per_s_most = {rate}\n[kis]\n[kiwoom]\n"
    )
    return root


def recovered(root: Path) -> tuple[float, float, list[dict]]:
    """Run the command: seconds, MB at most, certificates."""
    command = [Path(sys.executable).parent / "collectorctl", "--home", str(root), "recover", "--date", DAY, "--json"]
    begin = time.monotonic()
    with (root / "told.json").open("wb") as told:
        process = subprocess.Popen(command, stdout=told, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"recover ended with {process.returncode}: {(root / 'told.json').read_text()[:2000]}")
    return time.monotonic() - begin, usage.ru_maxrss / 1024, msgspec.json.decode((root / "told.json").read_bytes())


def main() -> None:
    """Print one line for each number of symbols."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--trades", type=int, default=300_000)
    options.add_argument("--symbols", type=int, nargs="+", default=[1])
    options.add_argument("--rate", type=float, default=4.5)
    given = options.parse_args()
    print(f"{'symbols':>8}{'trades each':>13}{'pages':>8}{'seconds':>10}{'pages/rate':>12}{'most MB':>9}  certificates")
    for number in given.symbols:
        symbols = SYMBOLS[:number]
        root = home_of(symbols, given.rate)
        try:
            allowed = ("--kiwoom-burst", str(given.rate), "--kiwoom-calls-per-s", str(given.rate))
            with Simulator(root, root / "truth", "--history", str(given.trades), *allowed) as simulator:
                connect_home(root, simulator.addresses)
                assert len(ground_truth.load(root / "truth").trades) >= number * given.trades
                seconds, most_mb, certificates = recovered(root)
        finally:
            shutil.rmtree(root)
        pages = sum(one["pages"] for one in certificates)
        grades = ", ".join(sorted({one["certificate"] for one in certificates}))
        took = f"{seconds:>10.1f}{pages / given.rate:>12.1f}{most_mb:>9.0f}"
        print(f"{number:>8}{given.trades:>13,}{pages:>8}{took}  {grades}", flush=True)


if __name__ == "__main__":
    main()
