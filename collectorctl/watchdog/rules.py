"""What to do about a process that hangs, grows or was given up.

    seen                                              done
    heartbeat older than stale_s, at two looks        SIGABRT: its stack goes to log/NAME.out
    still the same process at the next look           SIGKILL: supervisord starts it again
    own memory over the limit, at two looks           SIGTERM: it ends in order and is started again; the writer last, one at a time
    not gone leave_s after that                       as hung
    FATAL: supervisord has given up                   started again, every revive_s, for ever

Promises: pure; one look is never enough to hurt a process (a machine that stood still makes every heartbeat old at once); the
dog only signals and starts, so that its own death can leave nothing stopped.
Leaves to others: looking and doing (__main__.py), starting again what ended (supervisord).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

LAST = "writer"
"""Restarted for its memory only when no other process is being restarted: it is the one that all others fill."""


class Seen(NamedTuple):
    """One process at one look: `beat_age_s` None while there is no vitals page of this very pid."""

    name: str
    state: str
    pid: int
    up_s: float
    beat_age_s: float | None
    own_memory_mb: float | None


class Order(NamedTuple):
    """One thing to do, and why."""

    what: Literal["SIGABRT", "SIGKILL", "SIGTERM", "start"]
    name: str
    pid: int
    why: str


class Limits(NamedTuple):
    """Settings: ages and patience in seconds, memory in MB per process name."""

    stale_s: float
    start_s: float
    leave_s: float
    revive_s: float
    memory_mb: dict[str, float]


@dataclass
class Dog:
    """What was seen before: the memory between looks."""

    limits: Limits
    _stale: dict[str, tuple[int, int]] = field(default_factory=dict)  # name -> pid, looks in a row
    _fat: dict[str, tuple[int, int]] = field(default_factory=dict)
    _leaving: dict[str, tuple[int, float]] = field(default_factory=dict)  # name -> pid, since
    _fatal: dict[str, float] = field(default_factory=dict)  # name -> since, or since the last try

    def look(self, processes: Sequence[Seen], now_s: float) -> list[Order]:
        """What to do now; `now_s` is monotonic. Call about every five seconds with every process."""
        orders: list[Order] = []
        for seen in processes:
            orders += self._hung(seen, now_s) or self._given_up(seen, now_s)
        hung = {order.name for order in orders}
        orders += self._fattened([seen for seen in processes if seen.name not in hung], now_s)
        return orders

    def _hung(self, seen: Seen, now_s: float) -> list[Order]:
        why = self._why_hung(seen, now_s)
        if not why:
            self._stale.pop(seen.name, None)
            return []
        pid, looks = self._stale.get(seen.name, (seen.pid, 0))
        looks = looks + 1 if pid == seen.pid else 1
        self._stale[seen.name] = (seen.pid, looks)
        if looks == 1:
            return []
        return [Order("SIGABRT" if looks == 2 else "SIGKILL", seen.name, seen.pid, why)]

    def _why_hung(self, seen: Seen, now_s: float) -> str:
        if not seen.pid or seen.state not in ("STARTING", "RUNNING", "STOPPING"):
            return ""
        if seen.state == "STOPPING":
            return ""  # supervisord counts the seconds itself
        pid, since_s = self._leaving.get(seen.name, (0, 0.0))
        if pid == seen.pid and now_s - since_s > self.limits.leave_s:
            return f"asked to leave {now_s - since_s:.0f} s ago and still there"
        if seen.beat_age_s is None:
            return f"no sign of life {seen.up_s:.0f} s after its start" if seen.up_s > self.limits.start_s else ""
        return f"no heartbeat for {seen.beat_age_s:.0f} s" if seen.beat_age_s > self.limits.stale_s else ""

    def _given_up(self, seen: Seen, now_s: float) -> list[Order]:
        if seen.state != "FATAL":
            self._fatal.pop(seen.name, None)
            return []
        since_s = self._fatal.setdefault(seen.name, now_s)
        if now_s - since_s < self.limits.revive_s:
            return []
        self._fatal[seen.name] = now_s
        return [Order("start", seen.name, 0, "supervisord had given it up")]

    def _fattened(self, processes: Sequence[Seen], now_s: float) -> list[Order]:
        """At most one restart for memory at a time, the writer only when the others are within their limits."""
        pids = {seen.name: seen.pid for seen in processes}
        self._leaving = {name: left for name, left in self._leaving.items() if pids.get(name, left[0]) == left[0]}
        over: list[tuple[Seen, float]] = []
        for seen in processes:
            limit = self.limits.memory_mb.get(seen.name)
            if limit is None or seen.own_memory_mb is None or seen.own_memory_mb <= limit:
                self._fat.pop(seen.name, None)
                continue
            pid, looks = self._fat.get(seen.name, (seen.pid, 0))
            looks = looks + 1 if pid == seen.pid else 1
            self._fat[seen.name] = (seen.pid, looks)
            if looks >= 2:
                over.append((seen, limit))
        if not over or self._leaving:
            return []
        seen, limit = min(over, key=lambda found: found[0].name == LAST)
        self._leaving[seen.name] = (seen.pid, now_s)
        return [
            Order("SIGTERM", seen.name, seen.pid, f"own memory {seen.own_memory_mb:.0f} MB is over its {limit:.0f}")
        ]
