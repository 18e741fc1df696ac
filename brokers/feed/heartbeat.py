"""One vitals page for several threads: each has a pulse of its own, the page shows what they make together.

    connection 1  beat 12:00:07  connected 1  streaming ──┐            beat 12:00:03  (the oldest)
    connection 2  beat 12:00:03  connected 0  retrying  ──┼──> page    connected 1    (the sum)
    the process   beat 12:00:07                         ──┘            retrying: 1 of 2 connections stream; key 2: retrying: ...

Promises: a thread that hangs is not hidden by those that do not; counts are never lost; levels are sums, times the newest; what is
said is the worst, and names the connection when there are several.
Leaves to others: the page (ringbuf/vitals.py), judging (collectorctl/status.py, watchdog).
"""

from __future__ import annotations

import threading
import time

from ringbuf.vitals import Vitals

_WORST_FIRST = (
    "refused",
    "retrying",
    "starting",
    "connecting",
    "logging_in",
    "subscribing",
    "streaming",
    "closed_market",
    "sleeping",
)
_FINE = ("streaming", "closed_market", "sleeping")
_NEVER_NS = 2**63 - 1


class Pulses:
    """The threads' pulses, and the page they make."""

    def __init__(self, page: Vitals) -> None:
        self.page = page
        self._lock = threading.Lock()
        self._pulses: list[Pulse] = []
        self._said = ("", "")
        self._note = ""

    def add(self, name: str = "") -> Pulse:
        """A pulse for one more thread; one without a name says nothing."""
        pulse = Pulse(self, name)
        self._pulses.append(pulse)
        return pulse

    def beat(self) -> None:
        """The page is as old as the pulse that is longest ago."""
        self.page.beat(min(pulse.beat_ns for pulse in self._pulses))

    def set(self, counter: str) -> None:
        """State a level of all: the newest of times, else the sum."""
        with self._lock:
            values = [pulse.levels.get(counter, 0) for pulse in self._pulses]
            self.page.set(counter, max(values) if counter.endswith("_ns") else sum(values))

    def note(self, words: str) -> None:
        """Something to say of the process, beside what its connections do; empty: nothing any more."""
        if words != self._note:
            self._note = words
            self.say()

    def say(self) -> None:
        """Say what the worst one does, and why."""
        with self._lock:
            speaking = [pulse for pulse in self._pulses if pulse.name]
            state, words = speaking[0].said if len(speaking) == 1 else self._together(speaking)
            said = (state, "; ".join(filter(None, (words, self._note))))
            if said != self._said:
                self._said = said
                self.page.say(*said)

    def _together(self, pulses: list[Pulse]) -> tuple[str, str]:
        if len({pulse.said for pulse in pulses}) == 1:
            return pulses[0].said
        state = min((pulse.said[0] for pulse in pulses), key=_WORST_FIRST.index)
        told = [": ".join(filter(None, (pulse.name, *pulse.said))) for pulse in pulses if pulse.worth_telling]
        if not told:
            return state, ""
        fine = sum(pulse.said[0] in _FINE for pulse in pulses)
        return state, "; ".join([f"{fine} of {len(pulses)} connections stream", *told])


class Pulse:
    """One thread's share of the page."""

    def __init__(self, pulses: Pulses, name: str) -> None:
        self.name = name
        self.said = ("starting", "")
        self.beat_ns = time.monotonic_ns()
        self.levels: dict[str, int] = {}
        self._pulses = pulses

    @property
    def worth_telling(self) -> bool:
        """Whether its state needs words beside the worst one's."""
        return self.said[0] not in _FINE or bool(self.said[1])

    def beat(self) -> None:
        """Alive: this thread's loop came round."""
        self.beat_ns = time.monotonic_ns()
        self._pulses.beat()

    def leave(self) -> None:
        """The thread ends in order: the page waits for it no longer."""
        self.beat_ns = _NEVER_NS

    def add(self, counter: str, count: int = 1) -> None:
        """Count something."""
        self._pulses.page.add(counter, count)

    def set(self, counter: str, value: int) -> None:
        """State a level of this thread."""
        self.levels[counter] = value
        self._pulses.set(counter)

    def say(self, state: str, detail: str = "") -> None:
        """What this thread is doing, in one word and, where it helps, in a sentence."""
        self.said = (state, detail)
        self._pulses.say()
