"""Report of the writer: its state, its events, and the pauses of datasets that cannot be written.

Guarantees:
    * A dataset that fails pauses alone: it is named in the state, the log and an event, and so is its end.
    * So does one that waits for the disk for longer than the alarm's bound; before, the wait is in the state only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from loguru import logger

from conf.clock import SECOND_NS, Clock
from ringbuf.events import EventPublisher
from ringbuf.records import EventType
from ringbuf.ring_file import RingError
from ringbuf.vitals import ProcessState, Vitals
from writer.journal.journal import JournalError

_ADVICE = (
    "data stays in the rings until they are full (`status`); if the disk is full make space, writing resumes by itself"
)

RETRY_NS = SECOND_NS
JOURNAL_RETRY_NS = 30 * SECOND_NS
"""A journal that is refused needs a person, and is read whole at each attempt."""


class Pause(NamedTuple):
    """A pause: since when, why, and when it is tried again; times are mono_ns."""

    since_ns: int
    error: str
    retry_ns: int


class WriterReport:
    """What the writer publishes of itself; `events` is None before its ring exists (no room): then only the log has them."""

    def __init__(self, vitals: Vitals, clock: Clock, disk_alarm_s: float) -> None:
        """`disk_alarm_s`: how long a dataset may wait for the disk before it counts as paused."""
        self._disk_alarm_s = disk_alarm_s
        self._disk_waits: Mapping[str, float] = {}
        self.events: EventPublisher | None = None
        self._vitals = vitals
        self._clock = clock
        self._state: tuple[ProcessState | None, str] = (None, "")
        self._pauses: dict[str, Pause] = {}

    @property
    def paused(self) -> list[str]:
        """The names of what failed and has not succeeded since."""
        return list(self._pauses)

    def is_due(self, name: str, now_ns: int) -> bool:
        """Whether `name` may be tried now (mono_ns): always, unless it is paused."""
        return name not in self._pauses or now_ns >= self._pauses[name].retry_ns

    @contextmanager
    def isolate(self, name: str) -> Iterator[None]:
        """A block whose failure pauses `name` alone, and whose success ends that pause."""
        try:
            yield
        except (OSError, RingError, JournalError) as error:
            self.pause(name, error)
        else:
            self._resume(name)

    def pause(self, name: str, error: Exception) -> None:
        """`name` could not be written: its data stays in the rings, and the write is repeated."""
        now_ns = self._clock.mono_ns()
        known = self._pauses.get(name)
        if known is None:
            self.emit(EventType.PAUSED, f"{name}: {error}")
            self._vitals.add("pauses")
        if known is None or known.error != str(error):
            logger.error("{}: {}: paused, {}", name, error, _ADVICE)
        retry_ns = now_ns + (JOURNAL_RETRY_NS if isinstance(error, JournalError) else RETRY_NS)
        self._pauses[name] = Pause(known.since_ns if known else now_ns, str(error), retry_ns)
        self.set_state(*self.describe())

    def _resume(self, name: str) -> None:
        known = self._pauses.pop(name, None)
        if known is not None:
            paused_s = (self._clock.mono_ns() - known.since_ns) / 1e9
            logger.info("{}: writable again, resumed after {:.1f} s", name, paused_s)
            self.emit(EventType.RESUMED, name, since_ns=self._clock.to_calendar_ns(known.since_ns))

    def set_disk_waits(self, waits: Mapping[str, float]) -> None:
        """For how long which datasets have been waiting for the disk, in seconds; those that do not wait are left out."""
        self._disk_waits = waits
        for name, seconds in waits.items():
            if seconds >= self._disk_alarm_s and name not in self._pauses:
                self.pause(name, TimeoutError(f"waiting for the disk for {seconds:.0f} s"))

    def describe_disk_waits(self) -> tuple[ProcessState, str] | None:
        """The state of a writer that waits for the disk; None if it does not."""
        if not self._disk_waits:
            return None
        longest_s = max(self._disk_waits.values())
        detail = f"{', '.join(self._disk_waits)}: for {longest_s:.0f} s; data stays in the rings until they are full"
        return ProcessState.DISK_WAIT, detail

    @property
    def failures(self) -> str:
        """What is paused: every name first, then the reasons."""
        waits = {name: f"waiting for the disk for {seconds:.0f} s" for name, seconds in self._disk_waits.items()}
        errors = dict.fromkeys(waits.get(name, pause.error) for name, pause in self._pauses.items())
        return f"{', '.join(self._pauses)}: {'; '.join(errors)}"

    def describe(self) -> tuple[ProcessState, str]:
        """The state of a writer of which something is paused."""
        return ProcessState.PAUSED, f"{self.failures}: {_ADVICE}"

    def set_state(self, state: ProcessState, detail: str = "") -> None:
        """Publish a state that changed."""
        if (state, detail) != self._state:
            self._state = (state, detail)
            self._vitals.set_state(state, detail)

    def emit(self, kind: EventType, message: str = "", **fields: Any) -> None:
        """Emit an event of the writer."""
        if self.events is not None:
            self.events.emit(kind, message, **fields)

    def check_clock(self) -> None:
        """Report a step of the wall clock."""
        if step_ns := self._clock.detect_step():
            logger.warning("the wall clock was stepped by {:+.3f} s", step_ns / SECOND_NS)
            self._vitals.add("clock_steps")
            self.emit(EventType.CLOCK_STEP, value=step_ns)
