"""Report of the writer: its state, its events, and the pause while the disk cannot be written."""

from __future__ import annotations

from typing import Any

from loguru import logger

from conf.clock import SECOND_NS, Clock
from ringbuf.events import EventPublisher
from ringbuf.records import EventType
from ringbuf.vitals import ProcessState, Vitals

_ADVICE = "data stays in the rings; if the disk is full make space, writing resumes by itself"


class WriterReport:
    """What the writer publishes of itself; `events` is None before its ring exists (no room): then only the log has them."""

    def __init__(self, vitals: Vitals, clock: Clock) -> None:
        self.events: EventPublisher | None = None
        self._vitals = vitals
        self._clock = clock
        self._state: tuple[ProcessState | None, str] = (None, "")
        self._paused_ns = 0

    @property
    def is_paused(self) -> bool:
        """Whether writing failed and has not succeeded since."""
        return self._paused_ns > 0

    def set_state(self, state: ProcessState, detail: str = "") -> None:
        """Publish a state that changed."""
        if (state, detail) != self._state:
            self._state = (state, detail)
            self._vitals.set_state(state, detail)

    def emit(self, kind: EventType, message: str = "", **fields: Any) -> None:
        """Emit an event of the writer."""
        if self.events is not None:
            self.events.emit(kind, message, **fields)

    def pause(self, error: OSError) -> None:
        """Writing failed: data stays in the rings, and the write is repeated."""
        if not self._paused_ns:
            self._paused_ns = self._clock.mono_ns()
            self.emit(EventType.PAUSED, str(error))
            self._vitals.add("pauses")
            logger.error("{}: paused, {}", error, _ADVICE)
        self.set_state(ProcessState.PAUSED, f"{error}: {_ADVICE}")

    def resume(self) -> None:
        """Writing succeeded."""
        if self._paused_ns:
            paused_s = (self._clock.mono_ns() - self._paused_ns) / 1e9
            logger.info("disk writable again, resumed after {:.1f} s", paused_s)
            self.emit(EventType.RESUMED, since_ns=self._clock.to_calendar_ns(self._paused_ns))
            self._paused_ns = 0

    def check_clock(self) -> None:
        """Report a step of the wall clock."""
        if step_ns := self._clock.detect_step():
            logger.warning("the wall clock was stepped by {:+.3f} s", step_ns / SECOND_NS)
            self._vitals.add("clock_steps")
            self.emit(EventType.CLOCK_STEP, value=step_ns)
