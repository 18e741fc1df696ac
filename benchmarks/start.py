"""Time, CPU and memory of what an operator starts: `python -m benchmarks.start [--times 7]`.

    python -c pass          the floor, in the same rounds
    collectorctl status     of a home that runs, and of one that does not; plan, check, tail
    python -c import ...    the package as a researcher's script imports it, and the processes' modules

Median of the rounds, in which all commands take turns. Memory is the largest resident set of the process.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from collectorctl.demo.environment import SimulatorProcess, create_demo_home, set_addresses
from collectorctl.supervision.readiness import wait_until_healthy
from collectorctl.supervision.supervisor import SupervisorClient
from conf.home import Home

CONTROL = ("-m", "collectorctl")
COMMANDS: dict[str, tuple[str, ...]] = {
    "python -c pass": ("-c", "pass"),
    "import numpy, pyarrow": ("-c", "import numpy, pyarrow"),
    "import collectorctl": ("-c", "import collectorctl"),
    "import brokers.collector": ("-c", "import brokers.collector"),
    "import writer.service": ("-c", "import writer.service"),
    "collectorctl --help": (*CONTROL, "--help"),
    "collectorctl status": (*CONTROL, "status"),
    "collectorctl plan": (*CONTROL, "plan"),
    "collectorctl check": (*CONTROL, "check"),
    "collectorctl tail orderbook": (*CONTROL, "tail", "orderbook", "-n", "5"),
}


def run(arguments: tuple[str, ...], home: Path) -> tuple[float, float, float]:
    """Seconds, CPU seconds and MB of one start. SystemExit if it failed for another reason than the state of the home."""
    begin_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=home,
        env=os.environ | {"COLLECTOR_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    error = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    took_s = time.perf_counter() - begin_s
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode and b"Traceback" in error:
        sys.exit(f"{' '.join(arguments)} failed:\n{error.decode(errors='replace')}")
    return took_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def print_table(home: Path, times: int) -> None:
    """Every command in turn, so many times; the table of the medians."""
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in COMMANDS}
    for _ in range(times):
        for name, arguments in COMMANDS.items():
            found[name].append(run(arguments, home))
    print(f"{'':<30}{'s':>8}{'(min to max)':>18}{'CPU s':>8}{'MB':>8}")
    for name, runs in found.items():
        seconds, cpu_s, megabytes = (sorted(one) for one in zip(*runs, strict=True))
        spread = f"({seconds[0]:.2f} to {seconds[-1]:.2f})"
        medians = statistics.median(seconds), statistics.median(cpu_s), statistics.median(megabytes)
        print(f"{name:<30}{medians[0]:>8.3f}{spread:>18}{medians[1]:>8.3f}{medians[2]:>8.0f}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=7)
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    create_demo_home(root, 3600.0, real_time=True)
    try:
        with SimulatorProcess(root, root / "truth", "--always-open", "--books-per-s", "1") as simulator:
            set_addresses(root, simulator.addresses)
            home = Home(root)
            home.create_directories()
            supervisor = SupervisorClient(home)
            supervisor.start()
            try:
                if unhealthy := wait_until_healthy(home, 60):
                    raise SystemExit(f"the tree is not healthy: {unhealthy}")
                print_table(root, options.times)
            finally:
                for _ in supervisor.stop():
                    pass
    finally:
        shutil.rmtree((root / "run" / "ring").resolve(), ignore_errors=True)
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
