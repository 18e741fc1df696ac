"""Rejects of one connection: frames for the quarantine, and frames wider than the vendor documents.

Guarantees:
    * The key or token of the connection is removed from a frame before it is kept.
    * Every quarantined frame is counted, and one a minute is logged; an unknown width is logged once.
"""

from __future__ import annotations

from collections.abc import Iterable

from loguru import logger

from brokers.errors import MAX_MESSAGE_CHARS
from brokers.feed.connection_events import ConnectionEvents
from brokers.feed.heartbeat import ThreadHeartbeat
from brokers.feed.quarantine import Quarantine
from conf.clock import SECOND_NS, Clock

LOG_INTERVAL_NS = 60 * SECOND_NS
MAX_REPORTED_WIDTHS = 100
"""Widths beyond the known ones that are remembered as reported."""


class Rejects:
    """One connection's rejects; `credential`: the key or token that it presented."""

    def __init__(
        self, quarantine: Quarantine, events: ConnectionEvents, heartbeat: ThreadHeartbeat, clock: Clock
    ) -> None:
        self.credential = b""
        self._quarantine = quarantine
        self._events = events
        self._heartbeat = heartbeat
        self._clock = clock
        self._reported_widths: set[tuple[str, int]] = set()
        self._logged_ns = 0

    def quarantine(self, raw: bytes, reason: str, mono_ns: int) -> None:
        """Quarantine a frame received at `mono_ns`."""
        if self.credential:
            raw = raw.replace(self.credential, b"***")
        reason = reason[:MAX_MESSAGE_CHARS]
        failure = self._quarantine.append(raw, reason, self._clock.to_calendar_ns(mono_ns), mono_ns)
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
