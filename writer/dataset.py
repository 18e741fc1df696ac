"""One dataset from its rings to its journal: intake, merge, entries, append.

    Intake ──records──> Merge ──twins──> entries ──batch──> Journal         the same state again after a kill:
                          ^                                   |             journal rows ──replay──> Merge
                          └───────────── replay ──────────────┘

Promises: a record is in the journal exactly once, together with the position behind it; what could not be written is written again
before anything more is taken; after `open` the state is that of a process that never died.
Leaves to others: when to turn, sync and publish (drain.py).
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
from ringbuf.events import Events
from ringbuf.records import RINGS, STREAMS, UNDEFINED, Kind, Line
from ringbuf.vitals import Vitals
from writer import schema
from writer.feeds.monitor import Lines
from writer.ingest import book_arbiter, ring_reader
from writer.ingest.book_arbiter import NEW, Merge, Waiting
from writer.ingest.ring_reader import Intake
from writer.journal.journal import Journal, held
from writer.journal.segment import Whole
from writer.publish import partition
from writer.publish.schedule import Hours
from writer.volume.gap_report import Gaps

READ_MOST = 8192
"""Records of one ring in one turn: bounds the memory of a backlog."""

STRAGGLER_NS = SECOND_NS
"""How long a collector may take from stamping a record to publishing it, and still find the twin at the window's edge."""


class Prepared(NamedTuple):
    """A batch on its way into the journal."""

    batch: pa.RecordBatch
    taken: ring_reader.Taken
    said: book_arbiter.Taken | None


class Dataset:
    """`name` such as "kr.orderbook": its lines' rings, its journal, its hours."""

    def __init__(
        self,
        home: Home,
        name: str,
        vitals: Vitals,
        gaps: Gaps | None = None,
        events: Events | None = None,
        lines: Lines | None = None,
    ) -> None:
        """Recover the journal and attach to the rings that exist; `gaps` and `lines` hear of everything, `events` of what was lost.

        JournalError; OSError.
        """
        settings = home.settings.writer
        self.market, self.stream = schema.market_and_stream(name)
        self.name = name
        self.directory = home.data / self.market.name / self.stream
        self.hours = Hours(round(settings.grace_s * SECOND_NS), round(settings.late_every_s * SECOND_NS))
        self.settled_row = 0
        self._settings = settings
        self._vitals = vitals
        self._gaps = gaps
        self._events = events
        self._lines_watch = lines
        self._lines = schema.lines_of(name)
        self._unsettled: deque[tuple[int, int]] = deque()
        self._prepared: Prepared | None = None
        merged = schema.is_merged(name)
        self._window_ns = round(settings.twin_window_s * SECOND_NS) if merged else 0
        self.merge = Merge(self._window_ns, settings.identity_cum_volume) if merged else None
        self.journal = self._recover(home.journal(name))
        rings = {f"{line}.{self.stream}": home.ring(line, self.stream) for line in self._lines}
        self.intake = Intake(rings, RINGS[self.stream], self.journal.positions)
        self.intake.attach()
        self.let_go()

    def _recover(self, directory: Path) -> Journal:
        """The journal, and from its rows the hours, the waiting rows and the ceilings."""
        recent: deque[tuple[int, pa.RecordBatch]] = deque()
        since_opening: list[pa.RecordBatch] = []
        horizon_ns = 0

        def seen(whole: Whole) -> None:
            nonlocal horizon_ns
            self._vitals.beat()  # a long journal is no hang
            if "ceilings" in whole.says:
                since_opening.clear()
            if whole.batch.num_rows == 0:
                return
            since_opening.append(whole.batch)
            if self._gaps is not None and self.stream == "tick":
                self._gaps.replay(whole.batch)
            self.hours.note(held(whole.batch))
            newest_ns = int(whole.batch.column("mono_ns").to_numpy().max())
            horizon_ns = max(horizon_ns, newest_ns)
            recent.append((newest_ns, whole.batch))
            while recent[0][0] < horizon_ns - self._window_ns - STRAGGLER_NS:
                recent.popleft()

        journal = Journal.open(directory, schema.JOURNAL[self.name], seen)
        for hour in list(self.hours.hours):
            try:
                self.hours.resume(hour, partition.published_to(self.directory, hour, journal.lineage, self.market))
            except partition.PublicationError as error:
                logger.error("{}", error)  # said again when the hour is due; collecting goes on
        if self.merge is not None:
            self.merge.restore_ceilings(journal.ceilings)
            for batch in since_opening:
                self._vitals.beat()
                _raise_ceilings(self.merge, batch)
            for _, batch in recent:
                self._vitals.beat()
                _replay(self.merge, batch, self.hours.published_to())
        self._unsettled.append((journal.last_row, time.monotonic_ns()))  # the rings may still hold their twins
        if journal.last_row:
            logger.info(
                "{}: the journal goes on behind row {}, {} hours to publish, {} rows wait for twins",
                self.name,
                journal.last_row,
                len(self.hours.unpublished()),
                self.merge.waiting if self.merge else 0,
            )
        if self._gaps is not None and self.stream == "tick":
            self._gaps.begin(journal.lineage, journal.last_row)
        journal.begin(self.merge.ceilings() if self.merge else [])
        return journal

    def turn(self, limit_ns: int, now_ns: int) -> bool:
        """Take up what was received up to `limit_ns` (mono_ns); whether more is due. OSError: not written, do it again."""
        if self._prepared is None:
            taken = self.intake.take(limit_ns, now_ns, READ_MOST)
            if not len(taken.records) and taken.positions == self.journal.positions:
                self._settle(taken.through_ns)
                self._watch(taken, None, now_ns)
                return False
            self._prepared = self._prepare(taken, now_ns)
        batch, taken, said = self._prepared
        if self.journal.current.size > self._settings.segment_most_bytes:
            self.begin_segment()
        written = self.journal.append(batch, taken.positions)
        self._prepared = None
        self.intake.accept(taken)
        self._count(batch, taken, said, written, now_ns)
        newest_ns = int(taken.records["mono_ns"].max()) if len(taken.records) else 0
        self._unsettled.append((self.journal.last_row, min(newest_ns, now_ns)))
        self._settle(taken.through_ns)
        self._watch(taken, said, now_ns)
        return taken.more

    def _watch(self, taken: ring_reader.Taken, said: book_arbiter.Taken | None, now_ns: int) -> None:
        """The watch over the lines and the volume line follow what is journalled."""
        if self._lines_watch is not None and self.merge is not None:
            self._lines_watch.books(taken.records, said, min(taken.through_ns, now_ns))
        elif self._lines_watch is not None and self.stream == "event":
            self._lines_watch.happened(taken.records)
        if self._gaps is None:
            return
        if self.stream == "orderbook":
            self._gaps.books(taken.records)
        elif self.stream == "tick":
            self._gaps.ticks(taken.records, self.journal.last_row)
            self._gaps.judge(min(taken.through_ns, now_ns))

    def _prepare(self, taken: ring_reader.Taken, now_ns: int) -> Prepared:
        taken = self._admitted(taken)
        records, first_row = taken.records, self.journal.last_row + 1
        for lost in taken.lost:
            self._lost(lost)
        said = self.merge.take(records, schema.hours(records), first_row) if self.merge else None
        batch = schema.entries(self.name, records, first_row, said)
        if self.stream in STREAMS:
            self._vitals.set("last_data_mono_ns", now_ns)
        return Prepared(batch, taken, said)

    def _admitted(self, taken: ring_reader.Taken) -> ring_reader.Taken:
        """Without fetched ticks that would cover something twice; their places in the ring are passed by like all others."""
        if self._gaps is None or self.stream != "tick":
            return taken
        stays = self._gaps.admitted(taken.records)
        if stays.all():
            return taken
        self._vitals.add("fill_refused_rows", int(np.count_nonzero(~stays)))
        return taken._replace(records=taken.records[stays])

    def _settle(self, through_ns: int) -> None:
        """Rows whose window has closed wait no longer and may be published."""
        closed_ns = through_ns - (self._window_ns + STRAGGLER_NS if self._window_ns else 0)
        while self._unsettled and self._unsettled[0][1] <= closed_ns:
            self.settled_row = max(self.settled_row, self._unsettled.popleft()[0])
        if self.merge is not None:
            self.merge.forget(self.settled_row)

    def _count(
        self,
        batch: pa.RecordBatch,
        taken: ring_reader.Taken,
        said: book_arbiter.Taken | None,
        written: int,
        now_ns: int,
    ) -> None:
        vitals, records = self._vitals, taken.records
        rows = held(batch)
        vitals.add("journal_bytes", written)
        self.hours.note(rows)
        if self.stream == "event":
            vitals.add("events", len(records))
            return
        vitals.add("journal_rows", len(records))
        vitals.add("late_rows", self._late_rows(batch, rows))
        twins = batch.num_rows - batch.column("twin_of").null_count
        new = pc.is_null(batch.column("twin_of")).to_numpy(zero_copy_only=False)
        for line in self._lines:
            mine = records["line"] == Line[line.upper()]
            vitals.add(f"rows_in_{line}", int(mine.sum()))
            if self.merge is not None:
                vitals.add(f"books_in_{line}", int(mine.sum()))
                vitals.add(f"books_won_{line}", int((mine & new).sum()))
        if self.merge is not None:
            vitals.add("books_new", batch.num_rows - twins)
            vitals.add("books_twins", twins)
            vitals.add("books_late", int(said.late.sum()) if said else 0)
            vitals.set("waiting_books", self.merge.waiting)
        if self.stream == "tick":
            vitals.add("ticks_in", len(records))
        if len(records):
            for lags in np.array_split(np.sort(now_ns - records["mono_ns"]), min(8, len(records))):
                vitals.latency(max(0, int(lags.mean())), len(lags))

    def _lost(self, lost: ring_reader.Lost) -> None:
        """Records were overwritten unread: count, log and tell it. Told before the batch behind it is journalled, so that a kill
        in between tells it twice rather than never."""
        first, last = lost.loss
        count = last - first + 1
        self._vitals.add("lost_records", count)
        after = self.market.local(lost.after_ns) if lost.after_ns else "the ring's beginning"
        before = self.market.local(lost.before_ns) if lost.before_ns else "now"
        said = f"records {first} to {last} ({count}) were overwritten before they were read"
        said += f"; received between {after} and {before}"
        logger.error("{}: {}", lost.ring, said)
        if self._events is not None:
            line, _, stream = lost.ring.partition(".")
            self._events.tell(
                Kind.RING_LOSS,
                said,
                line=Line[line.upper()],
                stream=stream if stream in STREAMS else "",
                number=count,
                since_ns=lost.after_ns or UNDEFINED,
            )

    def _late_rows(self, batch: pa.RecordBatch, rows: dict[int, int]) -> int:
        """New rows of hours that are published and closed."""
        late = [start for start in rows if start in self.hours.hours and self.hours.hours[start].closed]
        if not late:
            return 0
        new = batch.filter(pc.is_null(batch.column("twin_of")))
        return int(np.isin(new.column("hour").to_numpy(), late).sum())

    def sync(self) -> bool:
        """Make the journal durable and tell the rings; whether there was anything. OSError."""
        dirty = self.journal.unsynced > 0
        self.journal.sync()
        if dirty:
            self.intake.commit()
        return dirty

    def begin_segment(self) -> None:
        """Close the journal's segment, so that it can be published and deleted. OSError."""
        self.journal.begin(self.merge.ceilings() if self.merge else [])
        self.intake.commit()

    def task(self, hour: int, everything: bool) -> partition.Task:
        """What publishing this hour means now: rows whose twins can no longer come, or everything. OSError."""
        if self.journal.current.held:
            self.begin_segment()
        return partition.Task(
            dataset=self.name,
            directory=self.directory,
            lineage=self.journal.lineage,
            hour=hour,
            row_to=self.journal.last_row if everything else self.settled_row,
            segments=tuple(segment.path for segment in self.journal.segments if hour in segment.held),
            row_group_rows=self._settings.row_group_rows,
            window_s=self._settings.twin_window_s if len(self.market.lines) > 1 else 0.0,
        )

    def let_go(self) -> None:
        """Delete what of the journal is published."""
        for path in self.journal.let_go(self.hours.published_to()):
            logger.info("{}: published, deleted", path)
        self.hours.forget({hour for segment in self.journal.segments for hour in segment.held})

    def close(self) -> None:
        """Let go of files and rings."""
        self.journal.close()
        self.intake.close()


def _replay(merge: Merge, batch: pa.RecordBatch, published_to: dict[int, int]) -> None:
    """Let journalled rows wait for their twins again, as far as they are not published."""
    names = ["row", "mono_ns", "hour", "identity", "broker"]
    twins = pc.fill_null(batch.column("twin_of"), NEW).to_pylist()
    for *entry, twin_of in zip(*(batch.column(name).to_pylist() for name in names), twins, strict=True):
        row, mono_ns, hour, identity, broker = entry
        if max(row if twin_of == NEW else twin_of, 0) > published_to.get(hour, 0):
            merge.replay(identity, Waiting(row, mono_ns, Line[broker.upper()], hour), twin_of)


def _raise_ceilings(merge: Merge, batch: pa.RecordBatch) -> None:
    """Count journalled rows' cumulative volumes again."""
    rows = batch.filter(pc.and_(pc.is_null(batch.column("twin_of")), pc.is_valid(batch.column("cum_volume"))))
    venues = {name: code for code, name in enumerate(schema.VENUES.to_pylist())}
    exch_ns = pc.fill_null(rows.column("exch_time").cast(pa.int64()), UNDEFINED).to_pylist()
    columns = (rows.column(name).to_pylist() for name in ("symbol", "venue", "cum_volume"))
    for symbol, venue, volume, at_ns in zip(*columns, exch_ns, strict=True):
        merge.raise_ceiling(symbol, venues[venue], at_ns, volume)
