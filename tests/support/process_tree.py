"""Homes, simulators and process trees for tests: all real, all short-lived.

Unix socket paths are short (homes lie directly under /tmp); rings are removed with their home.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from collectorctl.demo.environment import SimulatorProcess, set_addresses
from collectorctl.init import create_home
from conf.home import Home
from ringbuf.vitals import read_snapshot

SAMPLES = Path(__file__).parents[3] / "shared" / "specs" / "samples"
BIN = Path(sys.executable).parent
SECRETS = {
    "KIS_APP_KEY": "key-of-kis",
    "KIS_APP_SECRET": "secret-of-kis",
    "KIWOOM_APP_KEY": "key-of-kiwoom",
    "KIWOOM_APP_SECRET": "secret-of-kiwoom",
    "US_APP_KEY": "key-of-us",
    "US_APP_SECRET": "secret-of-us",
}

QUICK = """
[clock]
start = "2026-11-20T10:00:00+09:00"
[kis]
subscribe_spacing_ms = 20
cut_wait_s = 0.0
[feed]
backoff_first_s = 0.2
backoff_max_s = 0.5
"""
"""Settings of a home at a simulator in the middle of the morning, whose feeds subscribe and come back fast."""

# a proxy of the machine has no business between two loopback sockets
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"


@contextmanager
def temporary_home(settings: str) -> Iterator[Path]:
    """A home with these settings and some secrets; whatever still runs in it at the end is stopped, and all is removed."""
    root = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    create_home(root)
    (root / "collector.toml").write_text(settings)
    (root / ".env").touch(mode=0o600)
    (root / ".env").write_text("".join(f"{name}={value}\n" for name, value in SECRETS.items()))
    try:
        yield root
    finally:
        if (root / "run" / "supervisor.sock").exists():
            run_collectorctl(root, "stop", check=False)
        ring = root / "run" / "ring"
        if ring.is_symlink():
            shutil.rmtree(ring.resolve(), ignore_errors=True)
        shutil.rmtree(root)


def run_collectorctl(
    home: Path, *arguments: str, check: bool = True, timeout_s: float = 200
) -> subprocess.CompletedProcess[str]:
    """Run the installed command on a home, as a user does."""
    completed = subprocess.run(
        [BIN / "collectorctl", "--home", home, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if check and completed.returncode != 0:
        raise AssertionError(
            f"collectorctl {' '.join(arguments)}: exit {completed.returncode}\n{completed.stdout}\n{completed.stderr}"
        )
    return completed


def read_status(home: Path) -> dict[str, Any]:
    """`status --json`, with the processes by name; asked again while a busy machine keeps supervisord from answering."""
    deadline = time.monotonic() + 60
    while not (ran := run_collectorctl(home, "status", "--json", check=False)).stdout:
        assert "does not answer within" in ran.stderr and time.monotonic() < deadline, ran
    seen = msgspec.json.decode(ran.stdout)
    seen["processes"] = {process["name"]: process for process in seen["processes"]}
    return seen


def wait_until(description: str, poll: Callable[[], Any], timeout_s: float = 120) -> Any:
    """Wait until `poll` returns something true, and return that."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = poll()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain until {description}"
        time.sleep(0.05)


@contextmanager
def running_tree(settings: str) -> Iterator[Path]:
    """A home whose tree runs against the simulator."""
    with temporary_home(settings) as root, SimulatorProcess(root, root / "truth") as simulator:
        set_addresses(root, simulator.addresses)
        run_collectorctl(root, "start")
        yield root


def count_received(root: Path) -> int:
    """Books and ticks that the Korean feeds of a home have received in the lives of their collectors."""
    pages = (read_snapshot(Home(root).vitals_path(feed)).counters for feed in ("kis", "kiwoom"))
    return sum(counters["books"] + counters["ticks"] for counters in pages)


def read_pids(root: Path) -> dict[str, int]:
    """The ids of the processes that run, by name."""
    return {name: process["pid"] for name, process in read_status(root)["processes"].items() if process["pid"]}
