"""Report of one dataset: counters of what is journalled, and of records that were lost before."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import pyarrow as pa
from loguru import logger

from ringbuf.records import STREAMS, UNDEFINED, EventType, FeedId
from ringbuf.vitals import Vitals
from writer import schema
from writer.ingest.arbitration_result import ArbitrationResult
from writer.ingest.book_arbiter import BookArbiter
from writer.ingest.ring_reader import UNKNOWN_SEQ, LossReport
from writer.journal.reader import describe
from writer.journal.segment import Damage

LATENCIES = 8
"""Values that the latencies of a batch are recorded as."""

_FEED_CODES = max(FeedId) + 1


class DatasetReport:
    """The report of the dataset `name`; losses are emitted as events, `arbiter` is that of its books."""

    def __init__(
        self, name: str, vitals: Vitals, emit: Callable[..., None] | None, arbiter: BookArbiter | None
    ) -> None:
        self._market, self._stream = schema.parse_dataset(name)
        self._feeds = schema.feeds_of(name)
        self._vitals = vitals
        self._emit = emit
        self._arbiter = arbiter

    def journalled(
        self,
        batch: pa.RecordBatch,
        records: np.ndarray,
        arbitration: ArbitrationResult | None,
        late_hours: Collection[int],
        now_ns: int,
    ) -> None:
        """`records` are in the journal as `batch`; new rows of `late_hours` came after the hour was published and closed."""
        vitals = self._vitals
        if self._stream == "event":
            vitals.add("events", len(records))
            return
        new = batch.column("twin_of").is_null().to_numpy(zero_copy_only=False)
        counts = {"journal_rows": len(records)}
        if late_hours:
            counts["late_rows"] = int((new & np.isin(batch.column("hour").to_numpy(), list(late_hours))).sum())
        of_feed = np.bincount(records["line"], minlength=_FEED_CODES).tolist()
        for feed in self._feeds:
            counts[f"rows_in_{feed}"] = of_feed[FeedId[feed.upper()]]
        if arbitration is not None and self._arbiter is not None:
            first = np.bincount(records["line"][new], minlength=_FEED_CODES).tolist()
            for feed in self._feeds:
                counts[f"books_in_{feed}"] = of_feed[FeedId[feed.upper()]]
                counts[f"books_first_{feed}"] = first[FeedId[feed.upper()]]
            counts["books_new"] = sum(first)
            counts["books_twins"] = len(records) - sum(first)
            counts["books_late"] = int(np.count_nonzero(arbitration.late))
            counts["twins_differ"] = int(np.count_nonzero(arbitration.differs))
            vitals.set("waiting_books", self._arbiter.unmatched_count)
            for venue, detail, is_trusted in arbitration.changes:
                self._report_change(schema.VENUE_NAMES[venue].as_py(), detail.removesuffix("_e4"), is_trusted)
        if self._stream == "tick":
            counts["ticks_in"] = len(records)
        vitals.add_all(counts)
        lags_ns = np.sort(now_ns - records["mono_ns"]).tolist()
        step = -(-len(lags_ns) // LATENCIES) or 1
        for begin in range(0, len(lags_ns), step):
            some_ns = lags_ns[begin : begin + step]
            vitals.record_latency(max(0, some_ns[len(some_ns) // 2]), len(some_ns))

    def _report_change(self, venue: str, detail: str, is_trusted: bool) -> None:
        """Log and emit what tells two books of a venue apart from now on."""
        if is_trusted:
            message = f"{detail} of {venue}: both feeds state it alike; books that differ in it are two books"
        else:
            message = (
                f"{detail} of {venue}: the feeds state it differently now; books that differ in it alone are one book"
            )
        logger.info("{}", message)
        if self._emit is not None:
            self._emit(EventType.DETAIL_CHANGED, message, stream=self._stream, value=int(is_trusted))

    def damaged(self, damage: Damage) -> None:
        """Count, log and emit a part of the journal that is unreadable.

        A damage is found again by each start until the hours of its segment are published.
        """
        self._vitals.add("journal_damaged")
        lost_rows = None if damage.is_newest else damage.lost_rows
        self._vitals.add("journal_lost_rows", lost_rows or 0)
        after = self._market.to_local(damage.after_ns) if damage.after_ns else "the segment's beginning"
        before = self._market.to_local(damage.before_ns) if damage.before_ns else "its end"
        message = describe(damage)
        logger.error(
            "{}; received between {} and {}; the rest is used, the file is kept until you delete it",
            message,
            after,
            before,
        )
        if self._emit is not None:
            self._emit(
                EventType.JOURNAL_DAMAGED,
                message.removeprefix(f"{damage.path.parent.parent}/"),
                stream=self._stream if self._stream in STREAMS else "",
                value=UNDEFINED if lost_rows is None else lost_rows,
                since_ns=damage.after_ns or UNDEFINED,
            )

    def lost(self, report: LossReport) -> None:
        """Count, log and emit records that were overwritten before they were read, or damaged in their ring.

        This is done before the batch behind the loss is journalled: a kill in between reports a loss twice rather than never.
        """
        loss = report.loss
        is_counted = loss.last_seq != UNKNOWN_SEQ
        self._vitals.add("lost_records", loss.record_count if is_counted else 0)
        self._vitals.add("damaged_records", loss.record_count if loss.is_damage else 0)
        after = self._market.to_local(report.after_ns) if report.after_ns else "the ring's beginning"
        before = self._market.to_local(report.before_ns) if report.before_ns else "now"
        if is_counted:
            how = "damaged in the ring" if loss.is_damage else "overwritten before they were read"
            message = f"records {loss.first_seq} to {loss.last_seq} ({loss.record_count}) were {how}"
        else:
            message = f"the ring is gone with what was unread, from record {loss.first_seq} on; how many is unknown"
        message += f"; received between {after} and {before}"
        logger.error("{}: {}", report.ring, message)
        if self._emit is not None:
            feed, _, stream = report.ring.partition(".")
            self._emit(
                EventType.RING_LOSS,
                message,
                feed=FeedId[feed.upper()],
                stream=stream if stream in STREAMS else "",
                value=loss.record_count if is_counted else UNDEFINED,
                since_ns=report.after_ns or UNDEFINED,
            )
