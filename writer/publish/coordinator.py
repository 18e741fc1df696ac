"""Publication coordinator: which hour is published next, and the bookkeeping of published hours.

    schedules of all datasets ─due hour─> Publisher ─result─> counters, errors, schedule ─> the journal is pruned

Guarantees:
    * One hour is published at a time; one that failed, or whose date another process changes, is tried again, its journal is
      kept.
    * A dataset whose journal fails pauses, and hinders the publication of no other.
    * The journal is pruned of an hour only after `before_prune` was called.
    * "Drained to zero" is said of no journal that still has rows of an hour.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from loguru import logger

from conf.clock import SECOND_NS, Clock
from conf.files.lock import LockHeld
from ringbuf.records import STREAMS
from ringbuf.vitals import ProcessState, Vitals
from writer.dataset import Dataset
from writer.publish.verified_file import Cancelled
from writer.publish.worker import Publisher, PublishResult
from writer.schema import parse_dataset
from writer.service_report import WriterReport

RETRY_S = 30.0
STOP_TIMEOUT_S = 2.0
FLUSH_TIMEOUT_S = 60.0
"""Longest wait for the disk at a stop, of one dataset; what is not durable then stays in the rings for the next start."""

FLUSH_POLL_S = 0.2


class PublicationCoordinator:
    """Publication of `datasets`, a list that may grow."""

    def __init__(
        self,
        datasets: Sequence[Dataset],
        clock: Clock,
        vitals: Vitals,
        report: WriterReport,
        before_prune: Callable[[], None],
        date_lock_path: Callable[[str], Path],
    ) -> None:
        self._datasets = datasets
        self._clock = clock
        self._vitals = vitals
        self._writer_report = report
        self._before_prune = before_prune
        self._publisher = Publisher(date_lock_path, clock.anchor.speed)
        self._errors: dict[str, str] = {}
        self._rows_published = 0

    def describe(self) -> tuple[ProcessState, str]:
        """The state of a writer that reads, and the hour that is published or those that could not be."""
        if (task := self._publisher.current) is not None:
            return ProcessState.PUBLISHING, _format_hour(task.dataset, task.hour)
        return ProcessState.RUNNING, "; ".join(self._errors.values())

    def poll(self, now_ns: int) -> None:
        """Note what was published; submit the next hour if one is due."""
        if (result := self._publisher.poll()) is not None:
            self._handle_result(result)
        if self._publisher.current is not None:
            return
        paused = self._writer_report.paused
        for dataset in self._datasets:
            if dataset.has_begun or dataset.name in paused:
                continue
            for hour in dataset.due_hours(self._clock.now_ns(), now_ns):
                task = dataset.build_publish_task(hour, include_unsettled=False)
                if task is None:
                    break  # after the next step
                self._publisher.submit(task)
                return

    def publish_all(self, unread: Sequence[str] = ()) -> str:
        """Publish all that the journals of datasets hold that are not paused, and empty them; what was achieved.

        `unread`: the rings that could not be read to their end, with the reason.
        """
        self._wait()
        before, failures = self._rows_published, []
        for dataset in self._datasets:
            if dataset.name not in self._writer_report.paused:
                with self._writer_report.isolate(dataset.name):
                    failures += self._publish_dataset(dataset)
        self.stop()
        if failures:
            outcome = f"not published, the journal is kept: {'; '.join(failures)}"
        else:
            outcome = f"{self._rows_published - before} rows published"
        if unread:
            return f"NOT drained, {outcome}; unread: {'; '.join(unread)}"
        return f"drained to zero, but {outcome}" if failures else f"drained to zero: {outcome}"

    def _publish_dataset(self, dataset: Dataset) -> list[str]:
        """Publish a dataset and empty its journal; the hours that could not be published. OSError."""
        failures = []
        self.flush(dataset)
        for hour in dataset.schedule.unpublished_hours():
            while (task := dataset.build_publish_task(hour, include_unsettled=True)) is None:
                self.flush(dataset)
            self._publisher.submit(task)
            result = self._wait()
            if result is not None and result.error is not None:
                failures.append(f"{_format_hour(dataset.name, hour)} ({result.error})")
            elif dataset.schedule.hours[hour].has_unpublished:
                failures.append(f"{_format_hour(dataset.name, hour)} (a part of it)")
        if dataset.journal.current.newest_rows:
            dataset.request_segment()
            self.flush(dataset)
        dataset.request_prune()
        self.flush(dataset)
        return failures

    def flush(self, dataset: Dataset) -> None:
        """Do what is due of a dataset and make it durable, sending heartbeats. OSError; TimeoutError, while it goes on."""
        begun_s = time.monotonic()
        dataset.begin(None, self._clock.mono_ns(), is_retry=True)
        while not dataset.disk.wait(FLUSH_POLL_S):
            self._vitals.heartbeat()
            if time.monotonic() - begun_s > FLUSH_TIMEOUT_S:
                raise TimeoutError(f"the disk has not answered for {FLUSH_TIMEOUT_S:.0f} s")
        dataset.finish(self._clock.mono_ns())

    def stop(self) -> None:
        """Stop the publisher, in the middle of an hour if it must be."""
        self._publisher.stop(STOP_TIMEOUT_S)

    def _wait(self) -> PublishResult | None:
        """Send heartbeats until the publisher is idle; the last result."""
        result = None
        while self._publisher.current is not None:
            self._vitals.heartbeat()
            if (result := self._publisher.poll()) is None:
                time.sleep(0.02)
            else:
                self._handle_result(result)
        return result

    def _handle_result(self, result: PublishResult) -> None:
        task = result.task
        dataset = next(dataset for dataset in self._datasets if dataset.directory == task.directory)
        hour_name = _format_hour(task.dataset, task.hour)
        for damage in result.damages:
            dataset.journal.report(damage)
        if result.error is not None:
            dataset.schedule.postpone(task.hour, self._clock.mono_ns() + round(RETRY_S * SECOND_NS))
            if isinstance(result.error, LockHeld):
                self._errors[hour_name] = (
                    f"{hour_name} is postponed by {RETRY_S:.0f} s: {result.error.holder} changes files of that date"
                )
                logger.warning("{}; its journal is kept", self._errors[hour_name])
            elif not isinstance(result.error, Cancelled):
                self._errors[hour_name] = f"{hour_name} could not be published: {result.error}"
                logger.opt(exception=result.error).error(
                    "{}; its journal is kept, tried again", self._errors[hour_name]
                )
            return
        self._errors.pop(hour_name, None)
        if result.stats_error is not None:
            logger.opt(exception=result.stats_error).error("{}: published, but not its feed statistics", hour_name)
        if not result.parts and dataset.schedule.hours[task.hour].newest_row > task.row_to:
            dataset.schedule.postpone(task.hour, self._clock.mono_ns() + SECOND_NS)  # nothing of it is settled yet
            return
        self._report(dataset, hour_name, result)
        dataset.schedule.mark_published(task.hour, task.row_to, self._clock.now_ns())
        self._before_prune()
        dataset.request_prune()

    def _report(self, dataset: Dataset, hour_name: str, result: PublishResult) -> None:
        """Log and count the parts that were published."""
        for part in result.parts:
            logger.info(
                "{}: {} rows, {} bytes, {:.1f} s -> {}", hour_name, part.rows, part.bytes, result.seconds, part.path
            )
        rows = sum(part.rows for part in result.parts)
        if dataset.stream in STREAMS:  # events are emitted, not counted
            self._rows_published += rows
            self._vitals.add("rows_published", rows)
        self._vitals.add("ticks_doubled", sum(part.duplicates for part in result.parts))
        self._vitals.add("ticks_contradicting", sum(part.conflicts for part in result.parts))
        self._vitals.add("hours_published", int(any(part.path.name == "part-0.parquet" for part in result.parts)))


def _format_hour(dataset: str, hour: int) -> str:
    """A dataset's hour, as people name it."""
    return f"{dataset} {parse_dataset(dataset)[0].to_local(hour):%Y-%m-%d %H}h"
