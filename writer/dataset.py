"""Pipeline of one dataset: ring reader, arbitration, journal entries, append.

    RingReader ─records─> BookArbiter ─twins─> entries ─batch─> Journal      after a kill, the state is rebuilt:
                           ^                                  |          journal rows ──replay──> BookArbiter
                           └──────────── replay ──────────────┘

Guarantees:
    * A record is in the journal exactly once, together with the ring position behind it.
    * What could not be written is written again before anything more is read; what failed is due until it succeeds.
    * Nothing but the disk thread waits for the disk; the rings are told of a position once it is durable.
    * After `open` the state is that of a process that never died.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from loguru import logger

from conf.clock import SECOND_NS
from conf.home import Home
from ringbuf.records import RINGS, STREAMS
from ringbuf.vitals import Vitals
from writer import schema
from writer.catalog import Catalog
from writer.dataset_report import DatasetReport
from writer.disk_thread import DiskThread
from writer.feeds import day_events
from writer.feeds.book_monitors import BookMonitors
from writer.feeds.day_events import DayEvents
from writer.feeds.monitor import FeedMonitor
from writer.ingest.arbitration_result import ArbitrationResult
from writer.ingest.book_arbiter import BookArbiter
from writer.ingest.replay import ArbiterReplay
from writer.ingest.ring_reader import OrderedBatch, RingReader, compute_read_limit
from writer.journal.entries import JOURNAL, build_entries
from writer.journal.journal import Journal, find_newest_rows
from writer.journal.segment import JournalBatch
from writer.publish import partition
from writer.publish.schedule import PublicationSchedule
from writer.publish.verified_file import PartitionWriteError
from writer.volume.gap_report import GapReporter

STRAGGLER_NS = SECOND_NS
"""Upper bound of the time from stamping a record to publishing it; extends the window so that late twins are found."""


ATTACH_NS = SECOND_NS // 5
"""How often rings are looked for: until then, what a collector writes into a ring made anew is held by nobody else."""


class ReceivedRows(NamedTuple):
    """Rows up to `last_row` were received up to `newest_ns` (mono_ns), when the feeds had come as far as `reach_ns`."""

    last_row: int
    newest_ns: int
    reach_ns: dict[int, int]


class PreparedBatch(NamedTuple):
    """A batch on its way into the journal."""

    batch: pa.RecordBatch
    ring_batch: OrderedBatch
    arbitration: ArbitrationResult | None
    arbiter_state: dict | None
    refused_rows: int


@dataclass
class DiskTask:
    """Effects of one step on the disk, in this order, and how far they came; those that are None or False are not due."""

    ceilings: list[list] | None
    """Begin a segment, with these volume high-water marks."""
    prepared: PreparedBatch | None
    """Append this batch."""
    syncs: bool
    published: dict[int, int] | None
    """Delete segments of which all is published: hour -> newest published row."""
    is_segment_due_again: bool = False
    watermark_row: int = 0
    has_rolled: bool = False
    appended_bytes: int | None = None
    has_synced: bool = False
    pruned: list[Path] | None = None

    @property
    def has_effects(self) -> bool:
        """Whether there is anything to do."""
        return self.ceilings is not None or self.prepared is not None or self.syncs or self.published is not None

    def run(self, journal: Journal) -> None:
        """Do it; this may take as long as the disk takes. OSError: the rest is not done."""
        if self.ceilings is not None:
            journal.roll(self.ceilings)
            self.has_rolled = True
        if self.prepared is not None:
            self.appended_bytes = journal.append(
                self.prepared.batch, self.prepared.ring_batch.positions, self.prepared.arbiter_state
            )
        if self.syncs:
            journal.sync()
            self.has_synced = True
        if self.published is not None:
            self.pruned = journal.prune(self.published)


class Dataset:
    """`name` such as "kr.orderbook": its rings, its journal, its hours."""

    def __init__(
        self,
        home: Home,
        name: str,
        vitals: Vitals,
        gap_reporter: GapReporter | None = None,
        emit: Callable[..., None] | None = None,
        feed_monitor: FeedMonitor | None = None,
        disk: DiskThread | None = None,
    ) -> None:
        """Recover the journal; the gap reporter and the feed monitor follow what is journalled.

        This may take long and is for the disk thread, which is `disk`, or one of its own. What was lost is emitted as an
        event. JournalError; OSError.
        """
        settings = home.settings.writer
        self.market, self.stream = schema.parse_dataset(name)
        self.name = name
        self.directory = home.data / self.market.name / self.stream
        self.watermark_row = 0
        self._settings = settings
        self._vitals = vitals
        self._gap_reporter = gap_reporter
        self._feed_monitor = feed_monitor
        self._unsettled: deque[ReceivedRows] = deque()
        self._remembered: deque[ReceivedRows] = deque()
        self.disk = disk or DiskThread(name)
        self.has_begun = False
        """Whether a step has begun and is not finished: the journal is the disk thread's."""
        self._task = DiskTask(None, None, False, None)
        self._prepared: PreparedBatch | None = None
        self._read_limit = compute_read_limit(0, 0.0, has_more=False)
        self._read_took_s = 0.0
        self._attach_error: OSError | None = None
        self._hour_to_close: int | None = None
        self._closed_watermark_row = 0
        self._synced_ns = 0
        self._attached_ns = 0
        self._is_segment_due = False
        self._is_prune_due = True
        self.day_events = DayEvents() if self.stream == "event" else None
        is_merged = schema.is_merged(name)
        self._window_ns = round(settings.twin_window_s * SECOND_NS) if is_merged else 0
        self.arbiter: BookArbiter | None = None
        self._book_monitors: BookMonitors | None = None
        self._retention_ns = 0
        if is_merged:
            self._book_monitors = BookMonitors(feed_monitor, gap_reporter)
            self.arbiter = BookArbiter(self._window_ns, settings.identity_cum_volume, home.settings.clock.speed)
            self._retention_ns = self.arbiter.stall_ns + STRAGGLER_NS
        self.schedule = PublicationSchedule(
            round(settings.grace_s * SECOND_NS), round(settings.late_every_s * SECOND_NS), self._retention_ns
        )
        self._report = DatasetReport(name, vitals, emit, self.arbiter)
        self.journal = self._recover(home.journal_directory(name))
        if self.day_events is not None:
            _add_stored_events(self.day_events, home, name)
        rings = {f"{line}.{self.stream}": home.ring_path(line, self.stream) for line in schema.feeds_of(name)}
        self.reader = RingReader(rings, RINGS[self.stream], self.journal.positions)
        with suppress(OSError):  # the first step tries again
            self.reader.attach()

    def _recover(self, directory: Path) -> Journal:
        """The journal, and from its rows the hours, the waiting rows and the ceilings."""
        replay = ArbiterReplay(self._retention_ns)

        def on_batch(batch: JournalBatch) -> None:
            if self.arbiter is not None:
                replay.add(batch)
            if batch.entries.num_rows:
                if self._gap_reporter is not None and self.stream == "tick":
                    self._gap_reporter.replay(batch.entries)
                self.schedule.add_rows(find_newest_rows(batch.entries))

        journal = Journal.open(directory, JOURNAL[self.name], on_batch, self._report.damaged)
        for hour in list(self.schedule.hours):
            try:
                published_to = partition.confirm_published_to(self.directory, hour, journal.lineage, self.market)
                self.schedule.resume(hour, published_to)
            except PartitionWriteError as error:
                logger.error("{}", error)  # logged again when the hour is due; collecting goes on
        if self.arbiter is not None:
            self.arbiter.restore_volume_high_water(journal.volume_high_water)
            replay.restore(self.arbiter, self.schedule.published_rows())
        self._add_received(journal.last_row, time.monotonic_ns())  # the rings may still hold their twins
        if journal.last_row:
            logger.info(
                "{}: the journal continues after row {}, {} hours to publish, {} rows wait for twins",
                self.name,
                journal.last_row,
                len(self.schedule.unpublished_hours()),
                self.arbiter.unmatched_count if self.arbiter else 0,
            )
        if self._gap_reporter is not None and self.stream == "tick":
            self._gap_reporter.begin(journal.lineage, journal.last_row)
        journal.roll(self._export_volume_high_water())
        return journal

    def step(self, limit_ns: int | None, now_ns: int, is_retry: bool = False) -> bool:
        """A whole step, however long the disk takes; see `begin` and `finish`."""
        self.begin(limit_ns, now_ns, is_retry)
        self.disk.wait()
        return self.finish(now_ns)

    def begin(self, limit_ns: int | None, now_ns: int, is_retry: bool = False) -> None:
        """Begin a step, unless one has begun: what is due goes to the disk thread, and nothing here waits for it.

        `limit_ns` (mono_ns): what was received up to it is read; None reads nothing. At a retry the fsync is due as well: once
        it succeeds, what failed has succeeded.
        """
        if self.has_begun:
            return
        self.has_begun = True
        watermark_row = self.watermark_row  # of the rows up to here the journal has every twin
        if self.arbiter is not None and self._is_segment_due and self._hour_to_close is not None:
            # they are published without what is read from now on, which the segment that closes here does not have
            self.arbiter.forget(self._hour_to_close, watermark_row)
        self._attach(now_ns, is_retry)
        if self._prepared is None and limit_ns is not None:
            self._prepared = self._read(limit_ns, now_ns)
        journal, prepared = self.journal, self._prepared
        is_full = prepared is not None and journal.current.size > self._settings.segment_max_bytes
        has_unsynced = prepared is not None or journal.has_unsynced
        is_sync_due = is_retry or now_ns - self._synced_ns >= self._settings.fsync_every_s * SECOND_NS
        begins_segment = self._is_segment_due or journal.is_failed or is_full
        self._task = DiskTask(
            self._export_volume_high_water() if begins_segment else None,
            prepared,
            has_unsynced and is_sync_due,
            self.schedule.published_rows() if self._is_prune_due else None,
            # what is written again after a failed fsync lies in the new segment, which is then not closed yet
            is_segment_due_again=self._is_segment_due and journal.is_failed,
            watermark_row=watermark_row,
        )
        self._is_segment_due = self._is_prune_due = False
        if self._task.has_effects:
            self.disk.start(partial(self._task.run, journal))

    def finish(self, now_ns: int) -> bool:
        """Complete the step that the disk is done with; whether more is due already.

        OSError: what failed is due at the next step. Rings that cannot be attached come last: the others were read nevertheless.
        """
        task, has_more = self._task, False
        self.has_begun = False
        if task.ceilings is not None:
            self._is_segment_due |= task.is_segment_due_again or not task.has_rolled
            if task.has_rolled:
                self._closed_watermark_row = min(task.watermark_row, self.journal.closed_row)
                self.reader.commit()
        if task.prepared is not None and task.appended_bytes is not None:
            self._complete_batch(task.prepared, task.appended_bytes, now_ns)
            has_more = task.prepared.ring_batch.has_more
        if task.has_synced:
            self._synced_ns = now_ns
            self._vitals.add("fsyncs")
            self.reader.commit()
        if task.pruned is not None:
            for path in task.pruned:
                logger.info("{}: published, deleted", path)
            self.schedule.prune({hour for segment in self.journal.segments for hour in segment.newest_rows})
        elif task.published is not None:
            self._is_prune_due = True
        if task.has_effects:
            self.disk.collect()
        if self._attach_error is not None:
            raise self._attach_error
        return has_more

    def _attach(self, now_ns: int, is_retry: bool) -> None:
        if not is_retry and now_ns - self._attached_ns < ATTACH_NS:
            return
        self._attached_ns, self._attach_error = now_ns, None
        try:
            self.reader.attach()
        except OSError as error:
            self._attach_error = error

    def _read(self, limit_ns: int, now_ns: int) -> PreparedBatch | None:
        """What was received up to `limit_ns`, arbitrated; None if there is nothing to journal."""
        begin_s = time.monotonic()
        ring_batch = self.reader.peek(limit_ns, now_ns, self._read_limit)
        if len(ring_batch.records) or ring_batch.positions != self.journal.positions:
            prepared = self._prepare(ring_batch, now_ns)
            self._read_took_s = time.monotonic() - begin_s
            return prepared
        self._advance_watermark(ring_batch.through_ns)
        self._update_monitors(ring_batch, None, now_ns)
        return None

    def _complete_batch(self, prepared: PreparedBatch, size_bytes: int, now_ns: int) -> None:
        """The batch is in the journal."""
        begin_s = time.monotonic()
        batch, ring_batch, arbitration, _, refused_rows = prepared
        self._prepared = None
        self._vitals.add("journal_bytes", size_bytes)
        self._vitals.add("gapfill_refused_rows", refused_rows)
        self.reader.advance(ring_batch)
        rows = find_newest_rows(batch)
        self.schedule.add_rows(rows)
        late_hours = [start for start in rows if self.schedule.hours[start].closed]
        self._report.journalled(batch, ring_batch.records, arbitration, late_hours, now_ns)
        newest_ns = int(ring_batch.records["mono_ns"].max()) if len(ring_batch.records) else 0
        self._add_received(self.journal.last_row, min(newest_ns, now_ns))
        self._advance_watermark(ring_batch.through_ns)
        self._update_monitors(ring_batch, arbitration, now_ns)
        took_s = self._read_took_s + time.monotonic() - begin_s
        self._read_limit = compute_read_limit(self._read_limit, took_s, ring_batch.has_more)

    def _prepare(self, ring_batch: OrderedBatch, now_ns: int) -> PreparedBatch:
        ring_batch, refused_rows = self._filter_backfill(ring_batch)
        records, first_row = ring_batch.records, self.journal.last_row + 1
        for loss in ring_batch.losses:
            self._report.lost(loss)
        arbitration = (
            self.arbiter.arbitrate(records, schema.compute_hours(records), first_row) if self.arbiter else None
        )
        batch = build_entries(self.name, records, first_row, arbitration)
        if self.stream in STREAMS:
            self._vitals.set("last_data_mono_ns", now_ns)
        state = self.arbiter.export_state() if self.arbiter else None
        return PreparedBatch(batch, ring_batch, arbitration, state, refused_rows)

    def _filter_backfill(self, ring_batch: OrderedBatch) -> tuple[OrderedBatch, int]:
        """Without fetched ticks that would cover something twice, and their number; their ring positions count as read."""
        if self._gap_reporter is None or self.stream != "tick":
            return ring_batch, 0
        keep = self._gap_reporter.accept_backfill(ring_batch.records)
        return ring_batch._replace(records=ring_batch.records[keep]), int(np.count_nonzero(~keep))

    def _add_received(self, last_row: int, newest_ns: int) -> None:
        rows = ReceivedRows(last_row, newest_ns, dict(self.arbiter.reach_ns) if self.arbiter else {})
        self._unsettled.append(rows)
        if self.arbiter is not None:
            self._remembered.append(rows)

    def _advance_watermark(self, through_ns: int) -> None:
        """Settled rows may be published; rows beyond the longest stall are forgotten."""
        while self._unsettled and self._is_settled(self._unsettled[0], through_ns):
            self.watermark_row = max(self.watermark_row, self._unsettled.popleft().last_row)
        while self._remembered and self._remembered[0].newest_ns < through_ns - self._retention_ns:
            self.arbiter.expire(self._remembered.popleft().last_row)  # type: ignore[union-attr]  # none without an arbiter

    def _is_settled(self, rows: ReceivedRows, through_ns: int) -> bool:
        """Whether their window has closed, and no feed is known to be late with their twins."""
        if self.arbiter is None:
            return rows.newest_ns <= through_ns
        if rows.newest_ns > through_ns - self._window_ns - STRAGGLER_NS:
            return False
        return rows.newest_ns < through_ns - self._retention_ns or self.arbiter.has_passed(rows.reach_ns, through_ns)

    def _update_monitors(self, ring_batch: OrderedBatch, arbitration: ArbitrationResult | None, now_ns: int) -> None:
        """Feed monitor and gap reporter follow what is journalled."""
        records, through_ns = ring_batch.records, min(ring_batch.through_ns, now_ns)
        if self.day_events is not None:
            self.day_events.add_records(records)
        if self._book_monitors is not None:
            self._book_monitors.add(records, arbitration, through_ns, now_ns)
        elif self._feed_monitor is not None and self.stream == "event":
            self._feed_monitor.add_events(records)
        if self._gap_reporter is not None and self.stream == "tick":
            self._gap_reporter.add_ticks(records, self.journal.last_row)
            self._gap_reporter.check(through_ns)

    def request_segment(self) -> None:
        """Let the next step close the journal's segment, so that it can be published and deleted."""
        self._is_segment_due = True

    def request_prune(self) -> None:
        """Let the next step delete the published part of the journal."""
        self._is_prune_due = True

    def due_hours(self, calendar_ns: int, now_ns: int) -> list[int]:
        """Hours to publish now, oldest first; none while a batch that may hold twins of their rows could not be written."""
        return self.schedule.due_hours(calendar_ns, now_ns, self.watermark_row) if self._prepared is None else []

    def build_publish_task(self, hour: int, include_unsettled: bool) -> partition.PublishTask | None:
        """What publishing this hour means now: rows whose twins can no longer come, or everything.

        Between two steps only. None if a step must close the segment first, which is requested; ask again after it. What comes
        all the same is a row of its own.
        """
        row_to = self.journal.last_row if include_unsettled else self.watermark_row
        if hour in self.journal.current.newest_rows:
            # everything includes what came since a segment was closed for this hour, which may be long ago
            if include_unsettled or self._hour_to_close != hour or self._is_segment_due:
                self._hour_to_close = hour
                self.request_segment()
                return None
            # what the newest segment has of the hour came after the segment was closed
            row_to = self._closed_watermark_row
        self._hour_to_close = None
        if self.arbiter is not None:
            self.arbiter.forget(hour, row_to)
        return partition.PublishTask(
            dataset=self.name,
            directory=self.directory,
            lineage=self.journal.lineage,
            hour=hour,
            row_to=row_to,
            segments=self.journal.find_closed(hour, self.schedule.hours[hour].published_to),
            row_group_rows=self._settings.row_group_rows,
            window_s=self._settings.twin_window_s if len(self.market.feeds) > 1 else 0.0,
        )

    def _export_volume_high_water(self) -> list[list]:
        return self.arbiter.export_volume_high_water() if self.arbiter else []

    def delete_drained_rings(self) -> bool:
        """Delete the rings of which everything is journalled; whether there were any.

        The journal's positions in them go with the next step. OSError.
        """
        if not self.reader.delete_drained():
            return False
        self.journal.positions = dict(self.reader.positions)
        self.request_segment()
        self.request_prune()
        return True

    def close(self) -> None:
        """Close files and rings."""
        self.journal.close()
        self.reader.close()


def _add_stored_events(day: DayEvents, home: Home, dataset: str) -> None:
    """Add what is stored of the last day. Files that cannot be read are logged and left out."""
    catalog, now_ns = Catalog(home), home.load_clock().now_ns()
    try:
        for table in catalog.read_between(dataset, now_ns - day_events.KEEP_NS, now_ns, day_events.COLUMNS):
            times = {name: table[name].cast(pa.int64()) for name in ("time", "since")}
            for name, column in times.items():
                table = table.set_column(table.column_names.index(name), name, column)
            day.add_rows(table.to_pylist())
    except (OSError, PartitionWriteError, pa.ArrowException) as error:
        logger.error(
            "{}: stored events cannot be read, incidents before now are missing in the day report: {}", dataset, error
        )
