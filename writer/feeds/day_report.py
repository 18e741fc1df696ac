"""Day report: the incidents of the last day as a snapshot, for `status` and whatever judges the day.

    day_events.py, one per market ──when they change──> HOME/run/day.json <──once a second: its time── still holds

Guarantees:
    * The report is made of stored events: after the writer's restart it is the same.
    * It is composed and written only when its content changes; the file's time is when it last held.
    * A snapshot that cannot be written stops nothing; its age shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from conf.clock import SECOND_NS, Clock
from writer.feeds.day_events import BlindSpan, DayEvents, Incident
from writer.snapshot_file import SnapshotFile

EXPIRE_NS = 60 * SECOND_NS
"""How often old incidents are looked for."""


class DayReport(msgspec.Struct):
    """What went wrong of late in each market; `written_ns`: when it was written, ns since 1970 UTC by the home's clock.

    `recent`: the newest events as they came, each with its time as `end_ns`.
    """

    written_ns: int
    incidents: dict[str, list[Incident]]
    blind: dict[str, list[BlindSpan]]
    recent: list[Incident]


class DayReporter:
    """The report of a home."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._file = SnapshotFile(path, "old incidents")
        self._clock = clock
        self._looked_ns = self._expired_ns = 0
        self._written: list[tuple[str, int]] | None = None

    def write(self, days: Iterable[tuple[str, DayEvents]], now_ns: int) -> None:
        """Publish the incidents of these markets, once a second (mono_ns)."""
        if now_ns - self._looked_ns < SECOND_NS:
            return
        self._looked_ns = now_ns
        calendar_ns, days = self._clock.now_ns(), list(days)
        if now_ns - self._expired_ns >= EXPIRE_NS:
            self._expired_ns = now_ns
            for _, day in days:
                day.expire(calendar_ns)
        revisions = [(market, day.revision) for market, day in days]
        if revisions == self._written and self._file.confirm():
            return
        report = DayReport(calendar_ns, {}, {}, [])
        for market, day in days:
            report.incidents[market] = day.incidents
            report.blind[market] = day.blind_spans()
            report.recent += day.recent
        report.recent.sort(key=lambda event: event.end_ns or 0)
        self._written = revisions if self._file.write(report) else None
