"""Time, CPU and memory of what an operator starts: `python -m benchmarks.start [--times 7]`.

    python -c pass          the floor, in the same rounds
    python -c import ...    the package as a researcher's script imports it, and the processes' modules
    collectorctl status     and other commands, of a home whose tree runs

Median of the rounds, in which all commands take turns. Memory is the largest resident set of the process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.process_tree import demo_home, running_tree

CONTROL = ("-c", "from collectorctl.cli import main; main()")
WITHOUT_PANDAS = "from conf.arrow import load_arrow_without_pandas; load_arrow_without_pandas()"
"""As writer/__main__.py begins."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "python -c pass": ("-c", "pass"),
    "import numpy, pyarrow": ("-c", "import numpy, pyarrow"),
    "import collectorctl": ("-c", "import collectorctl"),
    "a collector's modules": ("-c", "import brokers.collector"),
    "the writer's modules": ("-c", f"{WITHOUT_PANDAS}; import writer.service"),
    "collectorctl --help": (*CONTROL, "--help"),
    "collectorctl status": (*CONTROL, "status"),
    "collectorctl plan": (*CONTROL, "plan"),
    "collectorctl check": (*CONTROL, "check"),
    "collectorctl tail orderbook": (*CONTROL, "tail", "orderbook", "-n", "5"),
}


LAUNCHER = """
import os, resource, subprocess, sys, time
begin_s = time.perf_counter()
ran = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
took_s = time.perf_counter() - begin_s
used = resource.getrusage(resource.RUSAGE_CHILDREN)
if b"Traceback" in ran.stderr:
    sys.exit(ran.stderr.decode(errors="replace"))
print(took_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""
"""A small process of its own: what starts another passes its own largest resident set on to it."""


def run(arguments: tuple[str, ...], home: Path) -> list[float]:
    """Seconds, CPU seconds and MB of one start. SystemExit with a traceback; other failures are the state of the home."""
    ran = subprocess.run(
        [sys.executable, "-S", "-c", LAUNCHER, sys.executable, *arguments],
        cwd=home,
        env=os.environ | {"COLLECTOR_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{ran.stderr}")
    return [float(figure) for figure in ran.stdout.split()]


def print_table(home: Path, times: int) -> None:
    """Every command in turn, so many times; the table of the medians."""
    found: dict[str, list[list[float]]] = {name: [] for name in COMMANDS}
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
    with demo_home(3600.0, real_time=True) as root, running_tree(root, "--always-open", "--books-per-s", "1"):
        print_table(root, options.times)


if __name__ == "__main__":
    main()
