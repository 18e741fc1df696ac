"""When one line collects another's ticks in its place, and when no more (pure).

    the other    ─up────┐                                   ┌──────────up─────────────────────
                        └───────────down────────────────────┘
    its ticks    other  | nobody (a gap)   | this line      | both (told apart by volume)      | other
                          takeover_after_s                    give_back_after_s of being up

Down is: not connected with everything registered; no heartbeat; or silent, which is judged by what this line hears: both lines have
the books of the same instruments, so a market in which nothing happens makes neither look silent, and one in which something
happens makes the line look silent that does not hear of it.

Promises: a line that comes and goes within the two times is neither taken over nor given back; while both are down, or no venue has
a session, nothing is taken over; no connection is given more than its limit; the same sights give the same decisions.
Leaves to others: seeing (standin.py), registering (connection.py), rows that both lines delivered (writer/overlap.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from brokers.allocation.allocate import Connection, unit
from brokers.subscription import Registration
from conf.clock import SECOND_NS

STALE_NS = 5 * SECOND_NS
"""A collector beats at least every second; this much later it hangs, or is no more."""
SILENT_NS = 5 * SECOND_NS
"""What one line hears the other hears within a second; this much later it has not."""


class Sight(NamedTuple):
    """What is seen of a line at an instant; times in mono_ns. `up`: bit k-1 for each key k whose connection stands."""

    beat_ns: int
    up: int
    data_ns: int


class Takeover:
    """What one line decides about the connections of another."""

    def __init__(self, after_s: float, steady_s: float, keys: Iterable[int]) -> None:
        """`keys`: the other line's connections."""
        self._after_ns = round(after_s * SECOND_NS)
        self._steady_ns = round(steady_s * SECOND_NS)
        self._since_ns: dict[int, int] = {}  # since when a key is what it is, up or down
        self._up: dict[int, bool] = dict.fromkeys(keys, False)
        self._heard_ns = 0
        self._alone_ns = 0
        self.taken: frozenset[int] = frozenset()

    def look(self, now_ns: int, other: Sight | None, own: Sight, is_open: bool) -> frozenset[int]:
        """The keys of the other line whose ticks this one collects from now on; `other` None: it has never been seen.

        `is_open`: whether a venue of its instruments has a session now.
        """
        silent = self._is_silent(now_ns, other, own.data_ns) and is_open
        # a beat far ahead is of another boot
        alive = other is not None and abs(now_ns - other.beat_ns) <= STALE_NS and not silent
        taken = set(self.taken)
        for key, was_up in self._up.items():
            is_up = alive and other is not None and bool(other.up >> key - 1 & 1)
            if is_up != was_up or key not in self._since_ns:
                self._up[key] = is_up
                self._since_ns[key] = self._alone_ns if silent and was_up else now_ns
            lasted_ns = now_ns - self._since_ns[key]
            if is_up and lasted_ns >= self._steady_ns:
                taken.discard(key)
            elif not is_up and lasted_ns >= self._after_ns and is_open and own.up:
                taken.add(key)
        self.taken = frozenset(taken)
        return self.taken

    def _is_silent(self, now_ns: int, other: Sight | None, own_data_ns: int) -> bool:
        """Whether this line has been hearing what the other does not."""
        heard_ns = other.data_ns if other is not None else 0
        if heard_ns != self._heard_ns or own_data_ns <= heard_ns:
            self._heard_ns, self._alone_ns = heard_ns, 0
        elif not self._alone_ns:
            self._alone_ns = now_ns
        return bool(self._alone_ns) and now_ns - self._alone_ns > SILENT_NS


def spread(
    name: str, limit: int, own: Sequence[Connection], wanted: Iterable[Registration]
) -> tuple[dict[int, tuple[Registration, ...]], list[Registration]]:
    """Where `wanted`, most important first, finds a place beside a broker's `own` plan: by key; and what finds none.

    A registration goes to the connection that need not count it (its symbol is there), else to the one with most room.
    """
    held: dict[int, list[Registration]] = {connection.key: list(connection.registrations) for connection in own}
    units = {key: {unit(name, registration) for registration in registrations} for key, registrations in held.items()}
    more: dict[int, list[Registration]] = {key: [] for key in held}
    left_out = []
    for registration in wanted:
        counted = unit(name, registration)
        if any(registration in registrations for registrations in held.values()):
            continue
        key = next((key for key in held if counted in units[key]), None)
        if key is None:
            key = min(held, key=lambda key: len(units[key]), default=None)
            if key is None or len(units[key]) >= limit:
                left_out.append(registration)
                continue
        held[key].append(registration)
        units[key].add(counted)
        more[key].append(registration)
    return {key: tuple(registrations) for key, registrations in more.items()}, left_out
