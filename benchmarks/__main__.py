"""All benchmarks that need no process tree, one after another: `python -m benchmarks [--against CHECKOUT] [NAME ...]`.

Prints the machine and its load first: figures of a loaded machine are worth their ratios. A result with the command that made it
belongs into docs/performance.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

TAKES_AGAINST = ("receive", "journal", "journal_latency", "live")
"""Those that compare with another checkout, in turns."""
BENCHMARKS = ("ring", "receive", "decode", "journal", "journal_latency", "place", "live", "scale", "store", "peers")


def describe_machine() -> str:
    """Processor, cores, memory, load, versions: in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = "/".join(f"{value:.1f}" for value in os.getloadavg())
    versions = " ".join(f"{name} {metadata.version(name)}" for name in ("numpy", "msgspec", "pyarrow"))
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, load {load}, Python {platform.python_version()}, {versions}"


def main() -> None:
    """Run them; the exit code is that of the first that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all without one")
    parser.add_argument("--against", type=Path, help="another checkout, whose runs take turns with this one's")
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"no benchmark: {', '.join(sorted(unknown))}: choose of {', '.join(BENCHMARKS)}")
    print(describe_machine(), flush=True)
    for name in options.names or BENCHMARKS:
        arguments = ["--against", str(options.against)] if options.against and name in TAKES_AGAINST else []
        print(f"\n$ python -m benchmarks.{name} {' '.join(arguments)}".rstrip(), flush=True)
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=False)
        if done.returncode:
            sys.exit(done.returncode)


if __name__ == "__main__":
    main()
