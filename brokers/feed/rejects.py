"""Rejects of one connection: frames for the quarantine, and frames wider than the vendor documents.

Guarantees:
    * No key, secret or token of this process is in what is kept of a frame, nor in the reason, however it was written.
    * Every quarantined frame is counted, and one a minute is logged; an unknown width is logged once.
    * A connection of whose records a tenth is rejected for a minute is reported as degraded until a minute is better.
"""

from __future__ import annotations

from collections.abc import Iterable

from loguru import logger

from brokers.errors import MAX_MESSAGE_CHARS, to_safe_text
from brokers.feed.connection_events import ConnectionEvents
from brokers.feed.heartbeat import ThreadHeartbeat
from brokers.feed.quarantine import Quarantine
from conf.clock import SECOND_NS, Clock
from conf.text.secret_mask import hide_secrets_in

LOG_INTERVAL_NS = 60 * SECOND_NS
RATE_WINDOW_NS = 60 * SECOND_NS
MAX_REJECT_SHARE = 0.1
MIN_REJECTS = 10
"""Fewer in a minute are single bad frames, whatever their share."""
MAX_REPORTED_WIDTHS = 100
"""Widths beyond the known ones that are remembered as reported."""


class RejectRate:
    """Share of a connection's records that are rejected, minute by minute (pure)."""

    def __init__(self) -> None:
        self._begin_ns = self._records = self._rejects = 0
        self._alarm = ""

    def add(self, records: int, rejects: int) -> None:
        """Count what a poll brought."""
        self._records += records
        self._rejects += rejects

    def check(self, mono_ns: int) -> str:
        """What was wrong with the last full minute; empty if nothing."""
        self._begin_ns = self._begin_ns or mono_ns
        if mono_ns - self._begin_ns >= RATE_WINDOW_NS:
            total = self._records + self._rejects
            is_large = self._rejects >= MIN_REJECTS and self._rejects >= total * MAX_REJECT_SHARE
            self._alarm = f"{self._rejects} of {total} records rejected in a minute: see data/quarantine" * is_large
            self._begin_ns, self._records, self._rejects = mono_ns, 0, 0
        return self._alarm


class Rejects:
    """One connection's rejects."""

    def __init__(
        self, quarantine: Quarantine, events: ConnectionEvents, heartbeat: ThreadHeartbeat, clock: Clock
    ) -> None:
        self._quarantine = quarantine
        self._events = events
        self._heartbeat = heartbeat
        self._clock = clock
        self._reported_widths: set[tuple[str, int]] = set()
        self._logged_ns = 0

    def quarantine(self, raw: bytes, reason: str, mono_ns: int) -> None:
        """Quarantine a frame received at `mono_ns`."""
        reason = to_safe_text(reason)[:MAX_MESSAGE_CHARS]
        hidden = hide_secrets_in(raw, self._heartbeat.heartbeat)
        failure = self._quarantine.append(hidden, reason, self._clock.to_calendar_ns(mono_ns), mono_ns)
        self._events.quarantined(reason, mono_ns)
        self._heartbeat.add("quarantine_overflow" if failure else "quarantined")
        if mono_ns - self._logged_ns > LOG_INTERVAL_NS or not self._logged_ns:
            self._logged_ns = mono_ns
            logger.warning("a frame of {} bytes was quarantined: {} {}", len(raw), reason, failure)

    def report_widths(self, frames: Iterable[tuple[str, int]]) -> None:
        """Report the kinds and widths of a message whose surplus fields are kept."""
        self._heartbeat.add("wide_frames")
        for kind, width in set(frames) - self._reported_widths:
            if len(self._reported_widths) >= MAX_REPORTED_WIDTHS:
                break
            self._reported_widths.add((kind, width))
            logger.warning("{} comes with {} fields, an unknown width: the surplus is kept in `extra`", kind, width)
