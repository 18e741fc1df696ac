"""Heartbeat aggregation: one vitals page for several threads.

    connection 1  at 12:00:07  connected 1  streaming ──┐            at 12:00:03  (the oldest)
    connection 2  at 12:00:03  connected 0  retrying  ──┼──> page    connected 1    (the sum)
    the process   at 12:00:07                         ──┘            retrying: 1 of 2 connections stream; key 2: retrying: ...

Guarantees:
    * A thread that hangs is not hidden by the others: the page shows the oldest heartbeat.
    * Counters are summed, levels are summed, times are the newest; no count is lost.
    * A detail is one line, without control characters and without a secret of this process.
    * The state is the worst one, and its detail names the connection when there are several.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from brokers.errors import to_safe_text
from ringbuf.records import MAX_INT64
from ringbuf.vitals import ProcessState, Vitals

SEVERITY_ORDER = (
    ProcessState.REFUSED,
    ProcessState.CONNECT_LIMIT,
    ProcessState.RETRYING,
    ProcessState.DEGRADED,
    ProcessState.STARTING,
    ProcessState.CONNECTING,
    ProcessState.LOGGING_IN,
    ProcessState.SUBSCRIBING,
    ProcessState.STREAMING,
    ProcessState.CLOSED_MARKET,
    ProcessState.SLEEPING,
)


class HeartbeatAggregator:
    """The threads' pulses, and the page they make."""

    def __init__(self, page: Vitals) -> None:
        self.page = page
        self._lock = threading.Lock()
        self._threads: list[ThreadHeartbeat] = []
        self._published: tuple[ProcessState | None, str] = (None, "")
        self._note = ""

    def add_thread(self, name: str = "") -> ThreadHeartbeat:
        """The share of one more thread; one without a name has no state."""
        thread = ThreadHeartbeat(self, name)
        self._threads.append(thread)
        return thread

    def heartbeat(self) -> None:
        """Publish the oldest heartbeat of all threads."""
        self.page.heartbeat(min(thread.heartbeat_ns for thread in self._threads))

    def update_level(self, counter: str) -> None:
        """State a level of all: the newest of times, else the sum."""
        with self._lock:
            values = [thread.levels.get(counter, 0) for thread in self._threads]
            self.page.set(counter, max(values) if counter.endswith("_ns") else sum(values))

    def set_note(self, note: str) -> None:
        """Set a note on the process, beside the state of its connections; empty removes it."""
        if note != self._note:
            self._note = note
            self.publish_state()

    def publish_state(self) -> None:
        """Publish the worst state, and the reason."""
        with self._lock:
            named = [thread for thread in self._threads if thread.name]
            state, detail = named[0].status if len(named) == 1 else self._combine(named)
            status = (state, "; ".join(filter(None, (detail, self._note))))
            if status != self._published:
                self._published = status
                self.page.set_state(*status)

    def _combine(self, threads: list[ThreadHeartbeat]) -> tuple[ProcessState, str]:
        if len({thread.status for thread in threads}) == 1:
            return threads[0].status
        state = min((thread.status[0] for thread in threads), key=SEVERITY_ORDER.index)
        details = [": ".join(filter(None, (thread.name, *thread.status))) for thread in threads if thread.is_noteworthy]
        if not details:
            return state, ""
        healthy = sum(thread.status[0].is_healthy for thread in threads)
        return state, "; ".join([f"{healthy} of {len(threads)} connections stream", *details])


class ThreadHeartbeat:
    """One thread's share of the page."""

    def __init__(self, aggregator: HeartbeatAggregator, name: str) -> None:
        self.name = name
        self.status = (ProcessState.STARTING, "")
        self.heartbeat_ns = time.monotonic_ns()
        self.levels: dict[str, int] = {}
        self._aggregator = aggregator

    @property
    def is_noteworthy(self) -> bool:
        """Whether its state is reported beside the worst one."""
        return not self.status[0].is_healthy or bool(self.status[1])

    def heartbeat(self) -> None:
        """Alive: this thread's loop came round."""
        self.heartbeat_ns = time.monotonic_ns()
        self._aggregator.heartbeat()

    def unregister(self) -> None:
        """The thread ends in order: the page waits for it no longer."""
        self.heartbeat_ns = MAX_INT64

    def add(self, counter: str, count: int = 1) -> None:
        """Count something."""
        self._aggregator.page.add(counter, count)

    def add_all(self, counts: Mapping[str, int]) -> None:
        """Count several things at once."""
        self._aggregator.page.add_all(counts)

    def set(self, counter: str, value: int) -> None:
        """State a level of this thread."""
        self.levels[counter] = value
        self._aggregator.update_level(counter)

    def set_state(self, state: ProcessState, detail: str = "") -> None:
        """Publish what this thread is doing: a state, and a sentence of detail where it helps."""
        self.status = (state, to_safe_text(detail))
        self._aggregator.publish_state()
