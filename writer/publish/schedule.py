"""Which hours have rows to publish, and since when they are due.

    rows ──note──> hour: newest row, published to          calendar past the hour's end ─> ripe ── grace ──> due
                                                           rows after its publication   ─> ripe ── late_every ──> due

Promises: pure; every row noted comes due once the calendar has left its hour; times to wait are real (monotonic) nanoseconds.
Leaves to others: publishing (parquet.py), the clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from conf.market import HOUR_NS


@dataclass
class Hour:
    """One hour with rows in the journal."""

    newest_row: int = 0
    published_to: int = 0
    ripe_ns: int | None = None
    closed: bool = False
    """Published after its end in this life of the process: what comes now is late."""
    not_before_ns: int = 0

    @property
    def waits(self) -> bool:
        """Whether it has rows that are not published."""
        return self.newest_row > self.published_to


class Hours:
    """The hours of one dataset."""

    def __init__(self, grace_ns: int, late_every_ns: int) -> None:
        self.hours: dict[int, Hour] = {}
        self._grace_ns = grace_ns
        self._late_every_ns = late_every_ns

    def note(self, held: Mapping[int, int]) -> None:
        """Rows were journalled: hour -> newest row."""
        for start, row in held.items():
            hour = self.hours.setdefault(start, Hour())
            hour.newest_row = max(hour.newest_row, row)

    def resume(self, start: int, published_to: int) -> None:
        """An earlier life published that much of this hour."""
        self.hours[start].published_to = published_to

    def due(self, calendar_ns: int, mono_ns: int) -> list[int]:
        """Hours to publish now, oldest first."""
        due = []
        for start, hour in sorted(self.hours.items()):
            if not hour.waits or calendar_ns < start + HOUR_NS:
                continue
            if hour.ripe_ns is None:
                hour.ripe_ns = mono_ns
            wait_ns = self._late_every_ns if hour.closed else self._grace_ns
            if mono_ns >= max(hour.ripe_ns + wait_ns, hour.not_before_ns):
                due.append(start)
        return due

    def unpublished(self) -> list[int]:
        """Every hour with rows that are not published, oldest first."""
        return sorted(start for start, hour in self.hours.items() if hour.waits)

    def published(self, start: int, row_to: int, calendar_ns: int) -> None:
        """Rows up to `row_to` of that hour are in Parquet."""
        hour = self.hours.setdefault(start, Hour())
        hour.published_to = max(hour.published_to, row_to)
        hour.ripe_ns = None
        hour.closed = calendar_ns >= start + HOUR_NS

    def postpone(self, start: int, mono_ns: int) -> None:
        """Publishing failed: not again before `mono_ns`."""
        self.hours[start].not_before_ns = mono_ns

    def published_to(self) -> dict[int, int]:
        """Hour -> newest published row."""
        return {start: hour.published_to for start, hour in self.hours.items()}

    def forget(self, kept: set[int]) -> None:
        """Drop hours that the journal holds no more, but remember that the newest were closed."""
        for start in sorted(self.hours)[:-48]:
            if start not in kept and not self.hours[start].waits:
                del self.hours[start]
