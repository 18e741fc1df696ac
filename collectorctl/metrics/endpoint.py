"""Metrics endpoint: http://127.0.0.1:PORT/metrics, one reading of the home for each scrape.

    Prometheus ──GET──> metrics ──reads──> vitals pages, rings, reports, supervisord

Guarantees:
    * Nothing is kept between scrapes, and a scrape writes nothing: every figure is read when it is asked for.
    * Scrapes read one after another, however many come at once.
    * A home that cannot be read is exposed as such (`collectorctl_readable 0`).
    * It listens on loopback alone; a port that is taken is reported as the process's state and tried again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress

from loguru import logger
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import Metric

from collectorctl.metrics.families import build_families, build_unreadable
from collectorctl.supervision.status import collect_status
from collectorctl.verdict import collect_evidence, judge
from conf.home import Home
from conf.process import ShutdownSignal
from ringbuf.vitals import ProcessState, Vitals, VitalsError, VitalsSnapshot, read_snapshot

LOOPBACK = "127.0.0.1"
BIND_RETRY_S = 2.0
HEARTBEAT_S = 1.0


class HomeCollector:
    """A home as prometheus-client reads it for each scrape."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Metric]:
        """The metric families of this instant."""
        try:
            with self._lock:
                families = list(self._read())
        except Exception as error:  # noqa: BLE001 whatever it is: an endpoint that fails says less
            logger.error("the home cannot be read for a scrape: {}: {}", type(error).__name__, error)
            families = list(build_unreadable())
        yield from families

    def _read(self) -> Iterator[Metric]:
        self._home.take_up_list()
        status = collect_status(self._home)
        evidence = collect_evidence(self._home, status)
        verdict = judge(evidence, self._home.load_calendar())
        return build_families(
            evidence, verdict, self._read_snapshots([one.name for one in status.processes]), time.monotonic_ns()
        )

    def _read_snapshots(self, names: list[str]) -> dict[str, VitalsSnapshot]:
        """The vitals of those that have any, of an ended process until its successor begins: its last counts are not lost."""
        found = {}
        for name in names:
            with suppress(FileNotFoundError, VitalsError):
                found[name] = read_snapshot(self._home.vitals_path(name))
        return found


def serve(home: Home, stop: ShutdownSignal, vitals: Vitals) -> None:
    """Answer scrapes until asked to stop."""
    registry = CollectorRegistry()
    registry.register(HomeCollector(home))
    port = home.settings.metrics.port
    while not stop.requested:
        try:
            server, thread = start_http_server(port, LOOPBACK, registry)
        except OSError as error:
            detail = f"{LOOPBACK}:{port}: {error.strerror}: set metrics.port to a free one; tried again by itself"
            logger.error("{}", detail)
            vitals.set_state(ProcessState.FAILING, detail)
            _wait(stop, vitals, BIND_RETRY_S)
            continue
        vitals.set_state(ProcessState.RUNNING, f"http://{LOOPBACK}:{port}/metrics")
        while not stop.requested:
            _wait(stop, vitals, HEARTBEAT_S)
        server.shutdown()
        server.server_close()
        thread.join()


def _wait(stop: ShutdownSignal, vitals: Vitals, seconds: float) -> None:
    """Wait, with heartbeats."""
    deadline = time.monotonic() + seconds
    while not stop.requested and time.monotonic() < deadline:
        vitals.heartbeat()
        stop.wait(min(HEARTBEAT_S, seconds))
