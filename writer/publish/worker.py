"""Publication thread.

    main loop ──submit(PublishTask)──> thread: partition.publish, feed_stats_file.refresh ──result──> main loop (poll)
                                       └ the date is locked ┘

Guarantees:
    * While recover or reprocess changes the partitions of a date, nothing of it is published: LockHeld within LOCK_TIMEOUT_S.
    * It runs at lower priority than the main loop and touches nothing of its state; every error comes back as a result.
    * A published hour counts as published even if the feed statistics could not be computed from it.
"""

from __future__ import annotations

import ctypes
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from conf.files.lock import exclusive_lock
from ringbuf.records import STREAMS
from writer.journal.segment import Damage
from writer.publish.feed_stats_file import find_newest_dates, refresh
from writer.publish.partition import Part, PublishTask, publish

NICENESS = 10
LOCK_TIMEOUT_S = 1.0
"""Longest wait for the lock of a date: a stop of the writer publishes hour after hour."""
REFRESHED_DATES = 2
"""How many of the newest dates are looked at again with every publication."""
LARGE_BLOCK_BYTES = 1 << 18
"""Blocks of memory from this size on are returned to the system when they are freed."""

_M_MMAP_THRESHOLD = -3


class PublishResult(NamedTuple):
    """The result of a task: its parts, or the error; `damages`: what of the journal was unreadable."""

    task: PublishTask
    parts: list[Part]
    error: Exception | None
    seconds: float
    stats_error: Exception | None = None
    damages: Sequence[Damage] = ()


class Publisher:
    """One thread, one task at a time."""

    def __init__(self, date_lock_path: Callable[[str], Path], speed: float = 1.0) -> None:
        """`date_lock_path`: the lock file of a date's partitions; `speed`: of the home's clock."""
        self._date_lock_path = date_lock_path
        self._speed = speed
        self._tasks: queue.SimpleQueue[PublishTask | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[PublishResult] = queue.SimpleQueue()
        self._cancelled = threading.Event()
        _return_large_blocks()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()
        self.current: PublishTask | None = None

    def submit(self, task: PublishTask) -> None:
        """Publish this; only when `current` is None."""
        self.current = task
        self._tasks.put(task)

    def poll(self) -> PublishResult | None:
        """The outcome, once it is there."""
        try:
            result = self._results.get_nowait()
        except queue.Empty:
            return None
        self.current = None
        return result

    def stop(self, seconds: float) -> None:
        """Stop, between two row groups if something is being written; wait that long at most."""
        self._cancelled.set()
        self._tasks.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while (task := self._tasks.get()) is not None:
            _release_memory()  # what a backlog left behind
            result = self._execute(task)
            _release_memory()
            self._results.put(result)

    def _execute(self, task: PublishTask) -> PublishResult:
        """Publish, then refresh what follows from it; every error comes back as a result."""
        begin = time.monotonic()
        parts: list[Part] = []
        damages: list[Damage] = []
        error = None
        try:
            parts = self._publish(task, damages.append)
        except Exception as caught:  # noqa: BLE001 the main loop logs it, publishes it as state and tries again
            error = caught
        seconds = time.monotonic() - begin
        stats_error = self._refresh_stats(task) if parts else None
        return PublishResult(task, parts, error, seconds, stats_error, damages)

    def _publish(self, task: PublishTask, on_damage: Callable[[Damage], None]) -> list[Part]:
        """The new parts of an hour. LockHeld; what `publish` raises."""
        path = self._date_lock_path(task.date)
        with exclusive_lock(path, "writer", LOCK_TIMEOUT_S, self._cancelled.is_set):
            return publish(task, self._cancelled.is_set, on_damage)

    def _refresh_stats(self, task: PublishTask) -> Exception | None:
        """Refresh the feed statistics of this task's date and of the newest dates.

        The latter are what a killed process left behind and what recovery has rewritten.
        """
        dataset, market = task.dataset.partition(".")[2], task.market
        if len(market.feeds) < 2 or dataset not in STREAMS:
            return None
        root = task.directory.parent
        try:
            for date in sorted({*find_newest_dates(root, REFRESHED_DATES), task.date}):
                refresh(root, market, date, self._speed, self._cancelled.is_set)
        except Exception as caught:  # noqa: BLE001 the rows are published; the drain loop logs what is wrong with their health
            return caught
        return None


def _return_large_blocks() -> None:
    """Let the allocator return large blocks when they are freed; it would keep more and more of them in its heaps, in pieces."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc only
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


def _release_memory() -> None:
    """Return free memory to the system: both allocators would keep that of a backlog, or of an hour's index, for the next one."""
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)
