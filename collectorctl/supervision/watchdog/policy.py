"""What to do about a process that hangs, grows or was given up.

    seen                                              done
    heartbeat older than stale_s, at two looks        SIGABRT: its stack goes to log/NAME.out
    still the same process at the next look           SIGKILL: supervisord starts it again
    own memory over the limit, at two looks           SIGTERM: it ends in order and is started again; the writer last, one at a time
    not gone leave_s after that                       as hung
    FATAL: supervisord has given up                   started again, every revive_s, for ever
    ended or never started, and due                   started, not sooner than revive_s after the last time

Promises: pure; one look is never enough to hurt a process (a machine that stood still makes every heartbeat old at once); while a
process that was restarted for its memory does not work again, no other is restarted for its own (both brokers at once would be a
hole), unless leave_s passes; the dog only signals and starts, so that its own death can leave nothing stopped.
Leaves to others: looking and doing (__main__.py), starting again what ended (supervisord).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

LAST = "writer"
"""Restarted for its memory only when no other process is over its limit: it is the one that all others fill."""

AGAIN_S = 600.0
"""A process that is over its limit again sooner than this after such a restart needs the memory: restarting it cures nothing."""


class Seen(NamedTuple):
    """One process at one look: `beat_age_s` None while there is no vitals page of this very pid; `works`: its page says so;
    `due`: why it should run now, of a program that ends when it is done."""

    name: str
    state: str
    pid: int
    beat_age_s: float | None
    works: bool
    own_memory_mb: float | None
    due: str = ""


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
    _since: dict[str, tuple[int, float]] = field(default_factory=dict)  # name -> pid, first seen
    _stale: dict[str, tuple[int, int]] = field(default_factory=dict)  # name -> pid, looks in a row
    _fat: dict[str, tuple[int, int]] = field(default_factory=dict)
    _leaving: tuple[str, int, float] | None = None  # name, pid, since; until its successor works
    _restarted: dict[str, float] = field(default_factory=dict)  # name -> when, for its memory
    _fatal: dict[str, float] = field(default_factory=dict)  # name -> since, or since the last try
    _called: dict[str, float] = field(default_factory=dict)  # name -> when it was started because it was due

    def look(self, processes: Sequence[Seen], now_s: float) -> list[Order]:
        """What to do now; `now_s` is monotonic. Call about every five seconds with every process."""
        orders: list[Order] = []
        for seen in processes:
            if self._since.get(seen.name, (0, 0.0))[0] != seen.pid:
                self._since[seen.name] = (seen.pid, now_s)
            orders += self._hung(seen, now_s) or self._given_up(seen, now_s) or self._due(seen, now_s)
        return orders + self._fattened(processes, {order.name for order in orders}, now_s)

    def _hung(self, seen: Seen, now_s: float) -> list[Order]:
        why = self._why_hung(seen, now_s)
        looks = _in_a_row(self._stale, seen, bool(why))
        if looks < 2:
            return []
        return [Order("SIGABRT" if looks == 2 else "SIGKILL", seen.name, seen.pid, why)]

    def _why_hung(self, seen: Seen, now_s: float) -> str:
        if not seen.pid or seen.state not in ("STARTING", "RUNNING"):
            return ""  # one that is STOPPING has its seconds counted by supervisord
        if self._leaving is not None and self._leaving[:2] == (seen.name, seen.pid):
            asked_s = now_s - self._leaving[2]
            if asked_s > self.limits.leave_s:
                return f"asked to leave {asked_s:.0f} s ago and still there"
        if seen.beat_age_s is None:
            # by our own clock: supervisord's start times are wall-clock times, which a step makes hours old
            up_s = now_s - self._since[seen.name][1]
            return f"no sign of life for {up_s:.0f} s" if up_s > self.limits.start_s else ""
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

    def _due(self, seen: Seen, now_s: float) -> list[Order]:
        if not seen.due or seen.state not in ("EXITED", "STOPPED"):
            return []
        if now_s - self._called.get(seen.name, now_s - self.limits.revive_s) < self.limits.revive_s:
            return []
        self._called[seen.name] = now_s
        return [Order("start", seen.name, 0, seen.due)]

    def _fattened(self, processes: Sequence[Seen], ordered: set[str], now_s: float) -> list[Order]:
        """At most one restart for memory at a time, the writer only when the others are within their limits.

        `ordered`: processes that something else is being done about.
        """
        over: list[Seen] = []
        ripe: list[Seen] = []
        for seen in processes:
            limit = self.limits.memory_mb.get(seen.name)
            judged = limit is not None and seen.pid and seen.state == "RUNNING" and seen.own_memory_mb is not None
            fat = bool(judged and seen.own_memory_mb > limit)
            looks = _in_a_row(self._fat, seen, fat)
            if not fat or now_s - self._restarted.get(seen.name, now_s - AGAIN_S) < AGAIN_S:
                continue
            over.append(seen)
            if looks >= 2 and seen.name not in ordered:
                ripe.append(seen)
        if self._waits_for_successor(processes, now_s):
            return []
        ripe = [seen for seen in ripe if seen.name != LAST or over == [seen]]
        if not ripe:
            return []
        seen = ripe[0]
        self._leaving = (seen.name, seen.pid, now_s)
        self._restarted[seen.name] = now_s
        limit = self.limits.memory_mb[seen.name]
        return [
            Order("SIGTERM", seen.name, seen.pid, f"own memory {seen.own_memory_mb:.0f} MB is over its {limit:.0f}")
        ]

    def _waits_for_successor(self, processes: Sequence[Seen], now_s: float) -> bool:
        """Whether a process restarted for its memory is still there, or its successor does not work yet."""
        if self._leaving is None:
            return False
        name, pid, since_s = self._leaving
        for seen in processes:
            if seen.name == name and (seen.pid == pid or (not seen.works and now_s - since_s <= self.limits.leave_s)):
                return True
        self._leaving = None
        return False


def _in_a_row(looks: dict[str, tuple[int, int]], seen: Seen, wrong: bool) -> int:
    """At how many looks in a row, this one included, something was wrong with this very process; kept in `looks`."""
    if not wrong:
        looks.pop(seen.name, None)
        return 0
    pid, count = looks.get(seen.name, (seen.pid, 0))
    looks[seen.name] = (seen.pid, count + 1 if pid == seen.pid else 1)
    return looks[seen.name][1]
