"""Publication schedule: which hours have rows to publish, and since when they are due (pure).

    rows ──add_rows──> hour: newest row, published to          calendar past the hour's end ─> ripe ── grace ──> due
                                                           rows after its publication   ─> ripe ── late_every ──> due
                                                           rows that are not settled    ─> due when they are, or after `hold`

Guarantees:
    * Every row that was added comes due once the calendar has left its hour; waiting times are real (monotonic) ns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from conf.clock import HOUR_NS
from ringbuf.records import MAX_INT64


@dataclass
class HourState:
    """One hour with rows in the journal."""

    newest_row: int = 0
    published_to: int = 0
    due_since_ns: int | None = None
    closed: bool = False
    """Published after its end in this life of the process: what comes now is late."""
    not_before_ns: int = 0

    @property
    def has_unpublished(self) -> bool:
        """Whether it has rows that are not published."""
        return self.newest_row > self.published_to


class PublicationSchedule:
    """The hours of one dataset."""

    def __init__(self, grace_ns: int, late_every_ns: int, hold_ns: int = 0) -> None:
        """`hold_ns`: how long an hour waits at most for rows that are not settled, beyond the others."""
        self._hold_ns = hold_ns
        self.hours: dict[int, HourState] = {}
        self._grace_ns = grace_ns
        self._late_every_ns = late_every_ns

    def add_rows(self, newest_rows: Mapping[int, int]) -> None:
        """Rows were journalled: hour -> newest row."""
        for start, row in newest_rows.items():
            hour = self.hours.setdefault(start, HourState())
            hour.newest_row = max(hour.newest_row, row)

    def resume(self, start: int, published_to: int) -> None:
        """An earlier life published that much of this hour."""
        self.hours[start].published_to = published_to

    def due_hours(self, calendar_ns: int, mono_ns: int, settled_row: int = MAX_INT64) -> list[int]:
        """Hours to publish now, oldest first; rows up to `settled_row` wait for nothing."""
        due = []
        for start, hour in sorted(self.hours.items()):
            if not hour.has_unpublished or calendar_ns < start + HOUR_NS:
                continue
            if hour.due_since_ns is None:
                hour.due_since_ns = mono_ns
            wait_ns = self._late_every_ns if hour.closed else self._grace_ns
            wait_ns += self._hold_ns if hour.newest_row > settled_row else 0
            if mono_ns >= max(hour.due_since_ns + wait_ns, hour.not_before_ns):
                due.append(start)
        return due

    def unpublished_hours(self) -> list[int]:
        """Every hour with rows that are not published, oldest first."""
        return sorted(start for start, hour in self.hours.items() if hour.has_unpublished)

    def mark_published(self, start: int, row_to: int, calendar_ns: int) -> None:
        """Rows up to `row_to` of that hour are in Parquet."""
        hour = self.hours.setdefault(start, HourState())
        hour.published_to = max(hour.published_to, row_to)
        hour.due_since_ns = None
        hour.closed = calendar_ns >= start + HOUR_NS

    def postpone(self, start: int, mono_ns: int) -> None:
        """Publishing failed: not again before `mono_ns`."""
        self.hours[start].not_before_ns = mono_ns

    def published_rows(self) -> dict[int, int]:
        """Hour -> newest published row."""
        return {start: hour.published_to for start, hour in self.hours.items()}

    def prune(self, journal_hours: set[int]) -> None:
        """Drop hours that the journal holds no more, but remember that the newest were closed."""
        for start in sorted(self.hours)[:-48]:
            if start not in journal_hours and not self.hours[start].has_unpublished:
                del self.hours[start]
