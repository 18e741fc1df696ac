"""A program of the product over real rings: a home whose rings a test writes, and the process that reads them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from support.process_tree import wait_until

from conf.home import Home
from ringbuf.records import RINGS
from ringbuf.ring import Producer
from ringbuf.vitals import ProcessState, read_snapshot

WAIT_S = 60.0
CAPACITY = 8192


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as taken:
        return [taken.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


class RingProgram:
    """`python -m collectorctl.NAME` on a home, and the rings that it reads."""

    def __init__(self, root: Path, name: str, settings: str, feeds: Iterable[str], streams: Iterable[str]) -> None:
        self.name = name
        (root / "collector.toml").write_text(settings)
        self.home = Home(root)
        self.home.create_directories()
        self.rings = {
            (feed, stream): Producer.open(self.home.ring_path(feed, stream), RINGS[stream], CAPACITY)
            for feed in feeds
            for stream in streams
        }
        self.volume = 0
        self.start()

    def start(self) -> None:
        """A new process, which runs when this returns."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"collectorctl.{self.name}"],
            env=os.environ | {"COLLECTOR_HOME": str(self.home.root), "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        wait_until(f"{self.name} runs", lambda: self.read_vitals().state == ProcessState.RUNNING, WAIT_S)

    def read_vitals(self) -> Any:
        """Of this process; without a state until it has some."""
        path = self.home.vitals_path(self.name)
        snapshot = read_snapshot(path) if path.exists() else None
        started = snapshot is not None and snapshot.pid == self.process.pid
        return snapshot if started else type("NotYet", (), {"state": None, "detail": "", "counters": {}})

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()
