"""Thread for the effects of one dataset on the disk, so that a slow disk holds up nothing but what waits for it.

    main loop ──start(task)──> thread: the task, which may wait for the disk ──outcome──> main loop (collect)

Guarantees:
    * One task at a time; every error comes back as its outcome.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Any


class DiskThread:
    """One thread, idle until it is given a task."""

    def __init__(self, name: str) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], Any]] = queue.SimpleQueue()
        self._idle = threading.Event()
        self._idle.set()
        self._outcome: tuple[Any, BaseException | None] = (None, None)
        self._begun_ns = 0
        threading.Thread(target=self._run, name=f"disk {name}", daemon=True).start()

    def start(self, task: Callable[[], Any]) -> None:
        """Run this; only when the thread is not busy."""
        self._begun_ns = time.monotonic_ns()
        self._idle.clear()
        self._tasks.put(task)

    @property
    def is_busy(self) -> bool:
        """Whether a task is running."""
        return not self._idle.is_set()

    @property
    def waited_s(self) -> float:
        """For how long the task has been running; 0 without one."""
        return (time.monotonic_ns() - self._begun_ns) / 1e9 if self.is_busy else 0.0

    def wait(self, seconds: float | None = None) -> bool:
        """Wait, that long at most; whether the thread is idle."""
        return self._idle.wait(seconds)

    def collect(self) -> Any:
        """The result of the last task, or the error it ended with."""
        result, error = self._outcome
        self._outcome = (None, None)
        if error is not None:
            raise error
        return result

    def _run(self) -> None:
        while True:
            task = self._tasks.get()
            try:
                self._outcome = (task(), None)
            except BaseException as error:  # noqa: BLE001 the main loop judges it; a thread that ends would be waited for for ever
                self._outcome = (None, error)
            del task
            self._idle.set()
