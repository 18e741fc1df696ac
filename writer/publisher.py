"""The thread that publishes, beside the drain loop.

    drain loop ──submit(Task)──> thread: parquet.publish ──Outcome──> drain loop (poll)

Promises: runs at lower priority than the drain loop and touches nothing of its state; whatever goes wrong comes back as an Outcome.
Leaves to others: what to publish and what follows from it (drain.py), how (parquet.py).
"""

from __future__ import annotations

import ctypes
import os
import queue
import threading
import time
from typing import NamedTuple

import pyarrow as pa

from writer.parquet import Part, Task, publish

NICENESS = 10


class Outcome(NamedTuple):
    """What became of a task: its parts, or the error."""

    task: Task
    parts: list[Part]
    error: Exception | None
    seconds: float


class Publisher:
    """One thread, one task at a time."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()
        self.current: Task | None = None

    def submit(self, task: Task) -> None:
        """Publish this; only when `current` is None."""
        self.current = task
        self._tasks.put(task)

    def poll(self) -> Outcome | None:
        """The outcome, once it is there."""
        try:
            outcome = self._outcomes.get_nowait()
        except queue.Empty:
            return None
        self.current = None
        return outcome

    def end(self, seconds: float) -> None:
        """Stop, between two row groups if something is being written; wait that long at most."""
        self._cancelled.set()
        self._tasks.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while (task := self._tasks.get()) is not None:
            begin = time.monotonic()
            parts: list[Part] = []
            error = None
            try:
                parts = publish(task, self._cancelled.is_set)
            except Exception as caught:  # noqa: BLE001 the drain loop logs it, says so, and tries again
                error = caught
            _give_back_memory()
            self._outcomes.put(Outcome(task, parts, error, time.monotonic() - begin))


def _give_back_memory() -> None:
    """What an hour's index took: both allocators would keep it for the next hour."""
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)
