"""Pipeline of one dataset: ring reader, arbitration, journal entries, append.

    RingReader ─records─> BookArbiter ─twins─> entries ─batch─> Journal      after a kill, the state is rebuilt:
                           ^                                  |          journal rows ──replay──> BookArbiter
                           └──────────── replay ──────────────┘

Guarantees:
    * A record is in the journal exactly once, together with the ring position behind it.
    * What could not be written is written again before anything more is read.
    * After `open` the state is that of a process that never died.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from loguru import logger

from conf.clock import SECOND_NS
from conf.home import Home
from ringbuf.events import EventPublisher
from ringbuf.records import RINGS, STREAMS, UNDEFINED, EventType, FeedId
from ringbuf.vitals import Vitals
from writer import schema
from writer.feeds.monitor import FeedMonitor
from writer.ingest import book_arbiter, ring_reader
from writer.ingest.book_arbiter import NEW, BookArbiter, UnmatchedRow
from writer.ingest.ring_reader import RingReader
from writer.journal.journal import Journal, find_newest_rows
from writer.journal.segment import JournalBatch
from writer.publish import partition
from writer.publish.schedule import PublicationSchedule
from writer.publish.verified_file import PartitionWriteError
from writer.volume.gap_report import GapReporter

MAX_RECORDS_PER_READ = 8192
"""Records of one ring in one turn: bounds the memory of a backlog."""

STRAGGLER_NS = SECOND_NS
"""Upper bound of the time from stamping a record to publishing it; extends the window so that late twins are found."""


class PreparedBatch(NamedTuple):
    """A batch on its way into the journal."""

    batch: pa.RecordBatch
    ring_batch: ring_reader.OrderedBatch
    arbitration: book_arbiter.ArbitrationResult | None


class Dataset:
    """`name` such as "kr.orderbook": its rings, its journal, its hours."""

    def __init__(
        self,
        home: Home,
        name: str,
        vitals: Vitals,
        gap_reporter: GapReporter | None = None,
        events: EventPublisher | None = None,
        feed_monitor: FeedMonitor | None = None,
    ) -> None:
        """Recover the journal and attach to the rings that exist; `gaps` and `lines` hear of everything, `events` of what was lost.

        JournalError; OSError.
        """
        settings = home.settings.writer
        self.market, self.stream = schema.parse_dataset(name)
        self.name = name
        self.directory = home.data / self.market.name / self.stream
        self.schedule = PublicationSchedule(
            round(settings.grace_s * SECOND_NS), round(settings.late_every_s * SECOND_NS)
        )
        self.watermark_row = 0
        self._settings = settings
        self._vitals = vitals
        self._gap_reporter = gap_reporter
        self._events = events
        self._feed_monitor = feed_monitor
        self._feeds = schema.feeds_of(name)
        self._pending_watermarks: deque[tuple[int, int]] = deque()
        self._prepared: PreparedBatch | None = None
        is_merged = schema.is_merged(name)
        self._window_ns = round(settings.twin_window_s * SECOND_NS) if is_merged else 0
        self.arbiter = BookArbiter(self._window_ns, settings.identity_cum_volume) if is_merged else None
        self.journal = self._recover(home.journal_directory(name))
        rings = {f"{line}.{self.stream}": home.ring_path(line, self.stream) for line in self._feeds}
        self.reader = RingReader(rings, RINGS[self.stream], self.journal.positions)
        self.reader.attach()
        self.prune_journal()

    def _recover(self, directory: Path) -> Journal:
        """The journal, and from its rows the hours, the waiting rows and the ceilings."""
        recent: deque[tuple[int, pa.RecordBatch]] = deque()
        since_opening: list[pa.RecordBatch] = []
        horizon_ns = 0

        def on_batch(journal_batch: JournalBatch) -> None:
            nonlocal horizon_ns
            self._vitals.heartbeat()  # a long journal is no hang
            if "ceilings" in journal_batch.metadata:
                since_opening.clear()
            if journal_batch.entries.num_rows == 0:
                return
            since_opening.append(journal_batch.entries)
            if self._gap_reporter is not None and self.stream == "tick":
                self._gap_reporter.replay(journal_batch.entries)
            self.schedule.add_rows(find_newest_rows(journal_batch.entries))
            newest_ns = int(journal_batch.entries.column("mono_ns").to_numpy().max())
            horizon_ns = max(horizon_ns, newest_ns)
            recent.append((newest_ns, journal_batch.entries))
            while recent[0][0] < horizon_ns - self._window_ns - STRAGGLER_NS:
                recent.popleft()

        journal = Journal.open(directory, schema.JOURNAL[self.name], on_batch)
        for hour in list(self.schedule.hours):
            try:
                self.schedule.resume(
                    hour, partition.read_published_to(self.directory, hour, journal.lineage, self.market)
                )
            except PartitionWriteError as error:
                logger.error("{}", error)  # logged again when the hour is due; collecting goes on
        if self.arbiter is not None:
            self.arbiter.restore_volume_high_water(journal.volume_high_water)
            for batch in since_opening:
                self._vitals.heartbeat()
                _raise_volume_high_water(self.arbiter, batch)
            for _, batch in recent:
                self._vitals.heartbeat()
                _replay(self.arbiter, batch, self.schedule.published_rows())
        self._pending_watermarks.append((journal.last_row, time.monotonic_ns()))  # the rings may still hold their twins
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
        journal.roll(self.arbiter.export_volume_high_water() if self.arbiter else [])
        return journal

    def process_batch(self, limit_ns: int, now_ns: int) -> bool:
        """Process what was received up to `limit_ns` (mono_ns); whether more is due. OSError: not written, call again."""
        if self._prepared is None:
            ring_batch = self.reader.peek(limit_ns, now_ns, MAX_RECORDS_PER_READ)
            if not len(ring_batch.records) and ring_batch.positions == self.journal.positions:
                self._advance_watermark(ring_batch.through_ns)
                self._update_monitors(ring_batch, None, now_ns)
                return False
            self._prepared = self._prepare(ring_batch, now_ns)
        batch, ring_batch, arbitration = self._prepared
        if self.journal.current.size > self._settings.segment_max_bytes:
            self.begin_segment()
        written = self.journal.append(batch, ring_batch.positions)
        self._prepared = None
        self.reader.advance(ring_batch)
        self._update_counters(batch, ring_batch, arbitration, written, now_ns)
        newest_ns = int(ring_batch.records["mono_ns"].max()) if len(ring_batch.records) else 0
        self._pending_watermarks.append((self.journal.last_row, min(newest_ns, now_ns)))
        self._advance_watermark(ring_batch.through_ns)
        self._update_monitors(ring_batch, arbitration, now_ns)
        return ring_batch.has_more

    def _update_monitors(
        self, ring_batch: ring_reader.OrderedBatch, arbitration: book_arbiter.ArbitrationResult | None, now_ns: int
    ) -> None:
        """The watch over the feeds and the volume line follow what is journalled."""
        if self._feed_monitor is not None and self.arbiter is not None:
            self._feed_monitor.add_books(ring_batch.records, arbitration, min(ring_batch.through_ns, now_ns))
        elif self._feed_monitor is not None and self.stream == "event":
            self._feed_monitor.add_events(ring_batch.records)
        if self._gap_reporter is None:
            return
        if self.stream == "orderbook":
            self._gap_reporter.add_books(ring_batch.records)
        elif self.stream == "tick":
            self._gap_reporter.add_ticks(ring_batch.records, self.journal.last_row)
            self._gap_reporter.check(min(ring_batch.through_ns, now_ns))

    def _prepare(self, ring_batch: ring_reader.OrderedBatch, now_ns: int) -> PreparedBatch:
        ring_batch = self._filter_backfill(ring_batch)
        records, first_row = ring_batch.records, self.journal.last_row + 1
        for overrun in ring_batch.overruns:
            self._report_overrun(overrun)
        arbitration = (
            self.arbiter.arbitrate(records, schema.compute_hours(records), first_row) if self.arbiter else None
        )
        batch = schema.build_entries(self.name, records, first_row, arbitration)
        if self.stream in STREAMS:
            self._vitals.set("last_data_mono_ns", now_ns)
        return PreparedBatch(batch, ring_batch, arbitration)

    def _filter_backfill(self, ring_batch: ring_reader.OrderedBatch) -> ring_reader.OrderedBatch:
        """Without fetched ticks that would cover something twice; their places in the ring are passed by like all others."""
        if self._gap_reporter is None or self.stream != "tick":
            return ring_batch
        keep = self._gap_reporter.accept_backfill(ring_batch.records)
        if keep.all():
            return ring_batch
        self._vitals.add("gapfill_refused_rows", int(np.count_nonzero(~keep)))
        return ring_batch._replace(records=ring_batch.records[keep])

    def _advance_watermark(self, through_ns: int) -> None:
        """Rows whose window has closed wait no longer and may be published."""
        closed_ns = through_ns - (self._window_ns + STRAGGLER_NS if self._window_ns else 0)
        while self._pending_watermarks and self._pending_watermarks[0][1] <= closed_ns:
            self.watermark_row = max(self.watermark_row, self._pending_watermarks.popleft()[0])
        if self.arbiter is not None:
            self.arbiter.expire(self.watermark_row)

    def _update_counters(
        self,
        batch: pa.RecordBatch,
        ring_batch: ring_reader.OrderedBatch,
        arbitration: book_arbiter.ArbitrationResult | None,
        written: int,
        now_ns: int,
    ) -> None:
        vitals, records = self._vitals, ring_batch.records
        rows = find_newest_rows(batch)
        vitals.add("journal_bytes", written)
        self.schedule.add_rows(rows)
        if self.stream == "event":
            vitals.add("events", len(records))
            return
        vitals.add("journal_rows", len(records))
        vitals.add("late_rows", self._count_late_rows(batch, rows))
        twins = batch.num_rows - batch.column("twin_of").null_count
        new = pc.is_null(batch.column("twin_of")).to_numpy(zero_copy_only=False)
        for feed in self._feeds:
            mine = records["line"] == FeedId[feed.upper()]
            vitals.add(f"rows_in_{feed}", int(mine.sum()))
            if self.arbiter is not None:
                vitals.add(f"books_in_{feed}", int(mine.sum()))
                vitals.add(f"books_first_{feed}", int((mine & new).sum()))
        if self.arbiter is not None:
            vitals.add("books_new", batch.num_rows - twins)
            vitals.add("books_twins", twins)
            vitals.add("books_late", int(arbitration.late.sum()) if arbitration else 0)
            vitals.set("waiting_books", self.arbiter.unmatched_count)
        if self.stream == "tick":
            vitals.add("ticks_in", len(records))
        if len(records):
            for lags in np.array_split(np.sort(now_ns - records["mono_ns"]), min(8, len(records))):
                vitals.record_latency(max(0, int(lags.mean())), len(lags))

    def _report_overrun(self, overrun: ring_reader.OverrunReport) -> None:
        """Count, log and emit records that were overwritten before they were read.

        This is done before the batch behind the loss is journalled: a kill in between reports a loss twice rather than never.
        """
        first, last = overrun.overrun
        count = last - first + 1
        self._vitals.add("lost_records", count)
        after = self.market.to_local(overrun.after_ns) if overrun.after_ns else "the ring's beginning"
        before = self.market.to_local(overrun.before_ns) if overrun.before_ns else "now"
        message = f"records {first} to {last} ({count}) were overwritten before they were read"
        message += f"; received between {after} and {before}"
        logger.error("{}: {}", overrun.ring, message)
        if self._events is not None:
            feed, _, stream = overrun.ring.partition(".")
            self._events.emit(
                EventType.RING_LOSS,
                message,
                feed=FeedId[feed.upper()],
                stream=stream if stream in STREAMS else "",
                value=count,
                since_ns=overrun.after_ns or UNDEFINED,
            )

    def _count_late_rows(self, batch: pa.RecordBatch, rows: dict[int, int]) -> int:
        """New rows of hours that are published and closed."""
        late = [start for start in rows if start in self.schedule.hours and self.schedule.hours[start].closed]
        if not late:
            return 0
        new = batch.filter(pc.is_null(batch.column("twin_of")))
        return int(np.isin(new.column("hour").to_numpy(), late).sum())

    def sync(self) -> bool:
        """Make the journal durable and advance the tails of the rings; whether there was anything. OSError."""
        dirty = self.journal.unsynced > 0
        self.journal.sync()
        if dirty:
            self.reader.commit()
        return dirty

    def begin_segment(self) -> None:
        """Close the journal's segment, so that it can be published and deleted. OSError."""
        self.journal.roll(self.arbiter.export_volume_high_water() if self.arbiter else [])
        self.reader.commit()

    def build_publish_task(self, hour: int, include_unsettled: bool) -> partition.PublishTask:
        """What publishing this hour means now: rows whose twins can no longer come, or everything. OSError."""
        if self.journal.current.newest_rows:
            self.begin_segment()
        return partition.PublishTask(
            dataset=self.name,
            directory=self.directory,
            lineage=self.journal.lineage,
            hour=hour,
            row_to=self.journal.last_row if include_unsettled else self.watermark_row,
            segments=tuple(segment.path for segment in self.journal.segments if hour in segment.newest_rows),
            row_group_rows=self._settings.row_group_rows,
            window_s=self._settings.twin_window_s if len(self.market.feeds) > 1 else 0.0,
        )

    def prune_journal(self) -> None:
        """Delete the published part of the journal."""
        for path in self.journal.prune(self.schedule.published_rows()):
            logger.info("{}: published, deleted", path)
        self.schedule.prune({hour for segment in self.journal.segments for hour in segment.newest_rows})

    def close(self) -> None:
        """Close files and rings."""
        self.journal.close()
        self.reader.close()


def _replay(arbiter: BookArbiter, batch: pa.RecordBatch, published_to: dict[int, int]) -> None:
    """Restore the journalled rows that wait for twins, as far as they are not published."""
    names = ["row", "mono_ns", "hour", "identity", "broker"]
    twins = pc.fill_null(batch.column("twin_of"), NEW).to_pylist()
    for *entry, twin_of in zip(*(batch.column(name).to_pylist() for name in names), twins, strict=True):
        row, mono_ns, hour, identity, broker = entry
        if max(row if twin_of == NEW else twin_of, 0) > published_to.get(hour, 0):
            arbiter.replay(identity, UnmatchedRow(row, mono_ns, FeedId[broker.upper()], hour), twin_of)


def _raise_volume_high_water(arbiter: BookArbiter, batch: pa.RecordBatch) -> None:
    """Count journalled rows' cumulative volumes again."""
    rows = batch.filter(pc.and_(pc.is_null(batch.column("twin_of")), pc.is_valid(batch.column("cum_volume"))))
    venues = {name: code for code, name in enumerate(schema.VENUE_NAMES.to_pylist())}
    exch_ns = pc.fill_null(rows.column("exch_time").cast(pa.int64()), UNDEFINED).to_pylist()
    columns = (rows.column(name).to_pylist() for name in ("symbol", "venue", "cum_volume"))
    for symbol, venue, volume, at_ns in zip(*columns, exch_ns, strict=True):
        arbiter.raise_volume_high_water(symbol, venues[venue], at_ns, volume)
