"""Watchdog policy (pure).

    observed                                          action
    heartbeat older than stale_s, observed twice       SIGABRT: its stack goes to log/NAME.out
    no vitals page for start_s, observed twice        SIGABRT as well, one process at a time
    the same process at the next observation          SIGKILL: supervisord starts it again
    own memory over the limit, observed twice         SIGTERM: it ends in order and is started again; the writer last, one at a time
    still running terminate_timeout_s later           as for a stale heartbeat
    either, but it waits for the disk                 left alone; an alarm, once it has lasted for disk_alarm_s
    FATAL: supervisord gave up                        started again every fatal_restart_s
    ended or never started, and due                   started, not sooner than fatal_restart_s after the last time

Guarantees:
    * A process that waits for the disk, by its own state or the kernel's, is never signalled for it: a kill would not end the
      wait, and its successor would wait as well.
    * One observation is never enough for an action on a process: a machine that stood still makes every heartbeat old at
      once.
    * While a process that was restarted for its memory is not healthy again, no other is restarted for its memory (both feeds
      at once would be a hole), unless terminate_timeout_s passes.
    * A page that vanished is no hang: its process has start_s to make it again (the whole ring directory may have been deleted),
      and while the watchdog's own page cannot be made either, no process is blamed for a missing one. Never are two processes
      restarted at once for missing pages: the next one waits until the successor is healthy or terminate_timeout_s has passed.
    * The watchdog only signals and starts processes, so that its own death leaves nothing stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

RESTART_LAST = "writer"
"""Restarted for its memory only when no other process is over its limit: it is the one that all others fill."""

MEMORY_RESTART_INTERVAL_S = 600.0
"""A process over its limit again sooner than this after such a restart needs the memory: a restart does not help."""


class ProcessObservation(NamedTuple):
    """One process as the watchdog observes it.

    `heartbeat_age_s`: None while there is no vitals page of this pid. `healthy`: its vitals report a healthy state.
    `due_reason`: why it should run now, for a program that ends when it is done. `waits_for_disk`: by its state or the kernel's.
    """

    name: str
    state: str
    pid: int
    heartbeat_age_s: float | None
    healthy: bool
    own_memory_mb: float | None
    due_reason: str = ""
    waits_for_disk: bool = False


class Action(NamedTuple):
    """One thing to do, and why."""

    command: Literal["SIGABRT", "SIGKILL", "SIGTERM", "start", "alarm"]
    name: str
    pid: int
    reason: str


class WatchdogLimits(NamedTuple):
    """Settings: ages and timeouts in seconds, memory in MB per process name."""

    stale_s: float
    start_s: float
    terminate_timeout_s: float
    fatal_restart_s: float
    disk_alarm_s: float
    memory_mb: dict[str, float]


@dataclass
class WatchdogPolicy:
    """State between observations."""

    limits: WatchdogLimits
    _page_seen_s: dict[str, tuple[int, float]] = field(
        default_factory=dict
    )  # name -> pid, first seen or last with a page
    _missing_page: tuple[str, int, float] | None = None  # name, pid, since; until its successor works
    _stale: dict[str, tuple[int, int]] = field(default_factory=dict)  # name -> pid, observations in a row
    _disk_wait: dict[str, tuple[int, float, bool]] = field(default_factory=dict)  # name -> pid, since, alarm given
    _over_limit: dict[str, tuple[int, int]] = field(default_factory=dict)
    _terminating: tuple[str, int, float] | None = None  # name, pid, since; until its successor works
    _memory_restart_s: dict[str, float] = field(default_factory=dict)  # name -> when, for its memory
    _fatal_since_s: dict[str, float] = field(default_factory=dict)  # name -> since, or since the last try
    _due_start_s: dict[str, float] = field(default_factory=dict)  # name -> when it was started because it was due

    def decide(
        self, processes: Sequence[ProcessObservation], now_s: float, can_make_pages: bool = True
    ) -> list[Action]:
        """What to do now; `now_s` is monotonic. Call about every five seconds with every process.

        `can_make_pages`: whether the watchdog's own page is where it belongs.
        """
        actions: list[Action] = []
        if not self._waits_for_successor(self._missing_page, processes, now_s):
            self._missing_page = None
        for process in processes:
            is_new = self._page_seen_s.get(process.name, (0, 0.0))[0] != process.pid
            if is_new or process.heartbeat_age_s is not None or not can_make_pages:
                self._page_seen_s[process.name] = (process.pid, now_s)
            actions += (
                self._check_hung(process, now_s) or self._check_fatal(process, now_s) or self._check_due(process, now_s)
            )
        return actions + self._check_memory(processes, {action.name for action in actions}, now_s)

    def _check_hung(self, process: ProcessObservation, now_s: float) -> list[Action]:
        reason = self._hung_reason(process, now_s)
        if reason and process.waits_for_disk:
            self._stale.pop(process.name, None)
            return self._check_disk_wait(process, reason, now_s)
        if not reason:
            self._disk_wait.pop(process.name, None)
        streak = _count_streak(self._stale, process, bool(reason))
        if streak < 2:
            return []
        return [Action("SIGABRT" if streak == 2 else "SIGKILL", process.name, process.pid, reason)]

    def _check_disk_wait(self, process: ProcessObservation, reason: str, now_s: float) -> list[Action]:
        """One alarm for each wait that lasts."""
        pid, since_s, is_reported = self._disk_wait.get(process.name, (process.pid, now_s, False))
        if pid != process.pid:
            since_s, is_reported = now_s, False
        is_alarm = not is_reported and now_s - since_s >= self.limits.disk_alarm_s
        self._disk_wait[process.name] = (process.pid, since_s, is_reported or is_alarm)
        why = f"{reason}: it waits for the disk, which a kill would not end: look at the disk"
        return [Action("alarm", process.name, process.pid, why)] if is_alarm else []

    def _hung_reason(self, process: ProcessObservation, now_s: float) -> str:
        if not process.pid or process.state not in ("STARTING", "RUNNING"):
            return ""  # one that is STOPPING has its seconds counted by supervisord
        if self._terminating is not None and self._terminating[:2] == (process.name, process.pid):
            waited_s = now_s - self._terminating[2]
            if waited_s > self.limits.terminate_timeout_s:
                return f"SIGTERM sent {waited_s:.0f} s ago and still running"
        if process.heartbeat_age_s is None:
            # by our own clock: supervisord's start times are wall-clock times, which a step makes hours old
            missing_s = now_s - self._page_seen_s[process.name][1]
            if missing_s <= self.limits.start_s:
                return ""
            if self._missing_page is None:
                self._missing_page = (process.name, process.pid, now_s)
            is_its_turn = self._missing_page[:2] == (process.name, process.pid)
            return f"no sign of life for {missing_s:.0f} s" if is_its_turn else ""
        return (
            f"no heartbeat for {process.heartbeat_age_s:.0f} s" if process.heartbeat_age_s > self.limits.stale_s else ""
        )

    def _check_fatal(self, process: ProcessObservation, now_s: float) -> list[Action]:
        if process.state != "FATAL":
            self._fatal_since_s.pop(process.name, None)
            return []
        since_s = self._fatal_since_s.setdefault(process.name, now_s)
        if now_s - since_s < self.limits.fatal_restart_s:
            return []
        self._fatal_since_s[process.name] = now_s
        return [Action("start", process.name, 0, "supervisord had given it up")]

    def _check_due(self, process: ProcessObservation, now_s: float) -> list[Action]:
        if not process.due_reason or process.state not in ("EXITED", "STOPPED"):
            return []
        if (
            now_s - self._due_start_s.get(process.name, now_s - self.limits.fatal_restart_s)
            < self.limits.fatal_restart_s
        ):
            return []
        self._due_start_s[process.name] = now_s
        return [Action("start", process.name, 0, process.due_reason)]

    def _check_memory(self, processes: Sequence[ProcessObservation], handled: set[str], now_s: float) -> list[Action]:
        """At most one restart for memory at a time, the writer only when the others are within their limits.

        `handled`: processes that have an action already.
        """
        over: list[ProcessObservation] = []
        candidates: list[ProcessObservation] = []
        for process in processes:
            limit_mb, own_mb = self.limits.memory_mb.get(process.name), process.own_memory_mb
            is_running = process.pid > 0 and process.state == "RUNNING"
            is_over = is_running and limit_mb is not None and own_mb is not None and own_mb > limit_mb
            streak = _count_streak(self._over_limit, process, is_over)
            if (
                not is_over
                or now_s - self._memory_restart_s.get(process.name, now_s - MEMORY_RESTART_INTERVAL_S)
                < MEMORY_RESTART_INTERVAL_S
            ):
                continue
            over.append(process)
            if streak >= 2 and process.name not in handled:
                candidates.append(process)
        if self._waits_for_successor(self._terminating, processes, now_s):
            return []
        self._terminating = None
        candidates = [seen for seen in candidates if seen.name != RESTART_LAST or over == [seen]]
        if not candidates:
            return []
        process = candidates[0]
        self._terminating = (process.name, process.pid, now_s)
        self._memory_restart_s[process.name] = now_s
        limit = self.limits.memory_mb[process.name]
        return [
            Action(
                "SIGTERM",
                process.name,
                process.pid,
                f"own memory {process.own_memory_mb:.0f} MB is over its {limit:.0f}",
            )
        ]

    def _waits_for_successor(
        self, restarted: tuple[str, int, float] | None, processes: Sequence[ProcessObservation], now_s: float
    ) -> bool:
        """Whether a process that is being restarted is still there, or its successor does not work yet."""
        if restarted is None:
            return False
        name, pid, since_s = restarted
        for process in processes:
            if process.name == name and (
                process.pid == pid or (not process.healthy and now_s - since_s <= self.limits.terminate_timeout_s)
            ):
                return True
        return False


def _count_streak(streaks: dict[str, tuple[int, int]], process: ProcessObservation, wrong: bool) -> int:
    """The number of observations in a row, this one included, at which something was wrong with this very process."""
    if not wrong:
        streaks.pop(process.name, None)
        return 0
    pid, count = streaks.get(process.name, (process.pid, 0))
    streaks[process.name] = (process.pid, count + 1 if pid == process.pid else 1)
    return streaks[process.name][1]
