"""Process tree of a demo's home, for the benchmarks that measure one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from collectorctl.demo.environment import SimulatorProcess, create_demo_home, set_addresses
from collectorctl.supervision.readiness import wait_until_healthy
from collectorctl.supervision.supervisor import SupervisorClient
from conf.home import Home

HEALTHY_WITHIN_S = 60.0


@contextmanager
def demo_home(seconds: float, real_time: bool = False) -> Iterator[Path]:
    """A home as the demo makes it, gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="cc-", dir="/tmp"))
    try:
        create_demo_home(root, seconds, real_time=real_time)
        yield root
    finally:
        shutil.rmtree((root / "run" / "ring").resolve(), ignore_errors=True)
        shutil.rmtree(root)


@contextmanager
def running_tree(root: Path, *options: str) -> Iterator[tuple[Home, SimulatorProcess]]:
    """The healthy tree of a home, stopped afterwards; `options` of the simulator, whose truth is in ROOT/truth then.

    SystemExit if it is not healthy.
    """
    with SimulatorProcess(root, root / "truth", *options) as simulator:
        set_addresses(root, simulator.addresses)
        home = Home(root)
        home.create_directories()
        supervisor = SupervisorClient(home)
        supervisor.start()
        try:
            if unhealthy := wait_until_healthy(home, HEALTHY_WITHIN_S):
                raise SystemExit(f"the tree is not healthy: {unhealthy}")
            yield home, simulator
        finally:
            for _ in supervisor.stop():
                pass
