"""Writer main loop: read the rings, sync the journal, publish hours.

    every turn     rings ─> arbitrate ─> journal                  at most fsync_every_s   journal ─fsync─> rings may overwrite
    hour is due    journal ─publisher thread─> Parquet        then                    the journal is pruned

Guarantees:
    * Never blocks. ENOSPC: data stays in the rings, the write is retried every second. Missing ring: attaching is retried
      every second. Publication runs in its own thread.
    * On shutdown, if all collectors have exited, everything is drained and published; otherwise the journal is synced, and
      the next start resumes from it.
"""

from __future__ import annotations

import time
from typing import Any

from loguru import logger

from conf.clock import SECOND_NS
from conf.home import Home
from conf.market import KR, MARKETS, Market
from conf.process import ShutdownSignal
from ringbuf.events import EventPublisher
from ringbuf.records import RINGS, STREAMS, EventType, FeedId
from ringbuf.vitals import ProcessState, Vitals
from writer.dataset import Dataset
from writer.feeds.monitor import FeedMonitor
from writer.ingest.ring_reader import NO_LIMIT_NS
from writer.publish.verified_file import Cancelled
from writer.publish.worker import Publisher, PublishResult
from writer.schema import WRITER_FEED, parse_dataset
from writer.volume.gap_report import GapReporter

POLL_INTERVAL_S = 0.2
"""Pause between two turns when nothing is left to do: batches of this length, five wake-ups a second."""

RETRY_S = 1.0
PUBLISH_RETRY_S = 30.0
PRODUCER_EXIT_TIMEOUT_S = 3.0
"""How long a stop waits for the collectors to exit before it leaves the rest to the next start."""

SHUTDOWN_NO_SPACE_TIMEOUT_S = 10.0


def find_datasets(home: Home) -> list[str]:
    """The datasets of this home.

    Those of every market that a feed is enabled for, or that has a ring or a journal, and the writer's own events.
    """
    names = [f"{market.name}.{stream}" for market in MARKETS.values() if _is_in_use(home, market) for stream in RINGS]
    own = f"{KR.name}.event"
    return names if own in names else [*names, own]


def _is_in_use(home: Home, market: Market) -> bool:
    if any(getattr(home.settings, line).enabled for line in market.feeds):
        return True
    left = [home.journal_directory(f"{market.name}.{stream}") for stream in RINGS]
    return any(
        path.exists() for path in (*left, *(home.ring_path(line, stream) for line in market.feeds for stream in RINGS))
    )


def main(home: Home, stop: ShutdownSignal) -> None:
    """The writer process of `home`, until it is asked to stop and is done."""
    vitals = Vitals.create(home.vitals_path(WRITER_FEED), WRITER_FEED)
    service = WriterService(home, stop, vitals)
    try:
        service.run()
    finally:
        service.close()


class WriterService:
    """The loop and what it remembers from turn to turn."""

    def __init__(self, home: Home, stop: ShutdownSignal, vitals: Vitals) -> None:
        self._settings = home.settings.writer
        self._clock = home.load_clock()
        self._stop = stop
        self._vitals = vitals
        self._home = home
        self._dataset_names = find_datasets(home)
        self._events: EventPublisher | None = None
        self._feed_monitor: FeedMonitor | None = None
        self._datasets: list[Dataset] = []
        self._gap_reporters: dict[str, GapReporter] = {}
        self._publisher = Publisher(self._clock.anchor.speed)
        self._last_state: tuple[ProcessState | None, str] = (None, "")
        self._publish_errors: dict[str, str] = {}
        self._paused_ns = 0
        self._synced_ns = 0
        self._attached_ns = 0
        self._rows_published = 0

    def run(self) -> None:
        """Turn until asked to stop; then finish."""
        while not self._open():
            if self._stop.wait(RETRY_S):
                return
        while not self._stop.requested:
            if not self.poll_once():
                self._stop.wait(RETRY_S if self._paused_ns else POLL_INTERVAL_S)
        self.finish()

    def _open(self) -> bool:
        """Recover every dataset; False while the disk has no room even to begin."""
        self._vitals.heartbeat()
        try:
            if self._events is None:
                self._events = EventPublisher(self._home.ring_path(WRITER_FEED, "event"), FeedId.WRITER, self._clock)
                self._events.emit_started(self._vitals.previous_heartbeat_ns)
                self._feed_monitor = FeedMonitor(self._home, self._vitals, self._events)
            for name in self._dataset_names[len(self._datasets) :]:
                market = parse_dataset(name)[0]
                if market.name not in self._gap_reporters:
                    self._gap_reporters[market.name] = GapReporter(self._home, self._vitals, market)
                monitors = (
                    self._gap_reporters[market.name],
                    self._events,
                    self._feed_monitor if market is KR else None,
                )
                self._datasets.append(Dataset(self._home, name, self._vitals, *monitors))
        except OSError as error:
            self._pause(error)
            return False
        return True

    def poll_once(self, drain_all: bool = False) -> bool:
        """One round; whether more is due already. Without a limit, when the producers have exited, everything is read."""
        now_ns = self._clock.mono_ns()
        self._vitals.heartbeat()
        limit_ns = NO_LIMIT_NS if drain_all else now_ns - self._settings.watermark_ms * 1_000_000
        more = False
        try:
            self._run_every_second(now_ns)
            for dataset in self._datasets:
                more |= dataset.process_batch(limit_ns, now_ns)
            if now_ns - self._synced_ns >= self._settings.fsync_every_s * SECOND_NS:
                self._synced_ns = now_ns
                self._sync()
            self._publish(now_ns)
            self._write_gap_reports(now_ns)
            if self._feed_monitor is not None:
                self._feed_monitor.evaluate(now_ns)
        except OSError as error:
            self._pause(error)
            return False
        if self._paused_ns:
            paused_s = (self._clock.mono_ns() - self._paused_ns) / 1e9
            logger.info("disk writable again, resumed after {:.1f} s", paused_s)
            self._emit(EventType.RESUMED, since_ns=self._clock.to_calendar_ns(self._paused_ns))
            self._paused_ns = 0
        self._vitals.set("backlog_records", sum(dataset.reader.backlog for dataset in self._datasets))
        if not self._stop.requested:
            self._set_running_state()
        return more

    def _run_every_second(self, now_ns: int) -> None:
        if now_ns - self._attached_ns < SECOND_NS:
            return
        self._attached_ns = now_ns
        step_ns = self._clock.detect_step()
        if step_ns:
            logger.warning("the wall clock was stepped by {:+.3f} s", step_ns / SECOND_NS)
            self._vitals.add("clock_steps")
            self._emit(EventType.CLOCK_STEP, value=step_ns)
        for dataset in self._datasets:
            dataset.reader.attach()
        self._dataset_names += [name for name in find_datasets(self._home) if name not in self._dataset_names]
        if len(self._datasets) < len(self._dataset_names):  # a line was switched on since
            self._open()

    def _sync(self) -> None:
        for dataset in self._datasets:
            self._vitals.add("fsyncs", int(dataset.sync()))

    def _pause(self, error: OSError) -> None:
        """Writing failed: data stays in the rings, and the write is repeated."""
        if not self._paused_ns:
            self._paused_ns = self._clock.mono_ns()
            self._emit(EventType.PAUSED, str(error))
            self._vitals.add("pauses")
            logger.error(
                "{}: paused, data stays in the rings; if the disk is full make space, writing resumes by itself", error
            )
        self._set_state(
            ProcessState.PAUSED,
            f"{error}: data stays in the rings; if the disk is full make space, writing resumes by itself",
        )

    def _publish(self, now_ns: int) -> None:
        """Note what was published; submit the next hour if one is due."""
        result = self._publisher.poll()
        if result is not None:
            self._handle_result(result)
        if self._publisher.current is not None:
            return
        for dataset in self._datasets:
            for hour in dataset.schedule.due_hours(self._clock.now_ns(), now_ns):
                self._publisher.submit(dataset.build_publish_task(hour, include_unsettled=False))
                return

    def _handle_result(self, result: PublishResult) -> None:
        task = result.task
        dataset = next(dataset for dataset in self._datasets if dataset.directory == task.directory)
        hour_name = _format_hour(task.dataset, task.hour)
        if result.error is not None:
            dataset.schedule.postpone(task.hour, self._clock.mono_ns() + round(PUBLISH_RETRY_S * SECOND_NS))
            if not isinstance(result.error, Cancelled):
                self._publish_errors[hour_name] = f"{hour_name} could not be published: {result.error}"
                logger.opt(exception=result.error).error(
                    "{}; its journal is kept, tried again", self._publish_errors[hour_name]
                )
            return
        self._publish_errors.pop(hour_name, None)
        if result.stats_error is not None:
            logger.opt(exception=result.stats_error).error("{}: published, but not its feed statistics", hour_name)
        if not result.parts and dataset.schedule.hours[task.hour].newest_row > task.row_to:
            dataset.schedule.postpone(task.hour, self._clock.mono_ns() + SECOND_NS)  # nothing of it is settled yet
            return
        rows = sum(part.rows for part in result.parts)
        first = any(part.path.name == "part-0.parquet" for part in result.parts)
        for part in result.parts:
            logger.info(
                "{}: {} rows, {} bytes, {:.1f} s -> {}", hour_name, part.rows, part.bytes, result.seconds, part.path
            )
        if dataset.stream in STREAMS:  # events are emitted, not counted
            self._rows_published += rows
            self._vitals.add("rows_published", rows)
        self._vitals.add("ticks_doubled", sum(part.duplicates for part in result.parts))
        self._vitals.add("ticks_contradicting", sum(part.conflicts for part in result.parts))
        self._vitals.add("hours_published", int(first))
        dataset.schedule.mark_published(task.hour, task.row_to, self._clock.now_ns())
        self._write_gap_reports(self._clock.mono_ns(), force=True)  # before the journal is pruned
        dataset.prune_journal()

    def finish(self) -> None:
        """Stop: drain and publish everything if the collectors have exited, else leave the rest to the next start."""
        self._set_state(ProcessState.DRAINING, "waiting for the collectors to exit")
        deadline = time.monotonic() + PRODUCER_EXIT_TIMEOUT_S
        while self._live_producers() and time.monotonic() < deadline:
            if not self.poll_once():
                time.sleep(0.02)
        self._set_state(ProcessState.DRAINING)
        self._emit(EventType.STOPPED)
        deadline = time.monotonic() + SHUTDOWN_NO_SPACE_TIMEOUT_S
        more = True
        while not (alive := self._live_producers()) and more:
            more = self.poll_once(drain_all=True) or self._paused_ns > 0
            more |= any(dataset.reader.backlog for dataset in self._datasets)
            if not self._paused_ns:
                deadline = time.monotonic() + SHUTDOWN_NO_SPACE_TIMEOUT_S
            elif time.monotonic() > deadline:
                self._stop_undrained("the disk is full")
                return
            else:
                time.sleep(RETRY_S / 10)
        if alive:  # they stayed, or are there again: twins of what they write are still to come
            self._stop_undrained(f"{', '.join(alive)} still written")
            return
        try:
            self._publish_all()
        except OSError as error:  # what is in the journal stays there
            self._stop_undrained(str(error))

    def _live_producers(self) -> list[str]:
        names = [name for dataset in self._datasets for name in dataset.reader.live_producers()]
        return [name for name in names if not name.startswith(f"{WRITER_FEED}.")]

    def _stop_undrained(self, reason: str) -> None:
        self._publisher.stop(seconds=2.0)
        try:
            self._sync()
        except OSError as error:
            reason = f"{reason}; the journal's end may be lost with the power: {error}"
        backlog = sum(dataset.reader.backlog for dataset in self._datasets)
        detail = f"stopped with collectors running ({reason}): {backlog} records stay in rings and journal for the next start"
        logger.info(detail)
        self._set_state(ProcessState.STOPPED, detail)

    def _publish_all(self) -> None:
        """The collectors have exited and the rings are empty: empty the journal as well."""
        self._set_state(ProcessState.PUBLISHING, "everything, the open hour included")
        self._wait_for_publisher()
        before = self._rows_published
        failures = []
        for dataset in self._datasets:
            for hour in dataset.schedule.unpublished_hours():
                self._publisher.submit(dataset.build_publish_task(hour, include_unsettled=True))
                result = self._wait_for_publisher()
                if result is not None and result.error is not None:
                    failures.append(f"{_format_hour(dataset.name, hour)} ({result.error})")
            if dataset.journal.current.newest_rows:
                dataset.begin_segment()
            dataset.sync()
            dataset.prune_journal()
        self._publisher.stop(seconds=2.0)
        detail = f"drained to zero: {self._rows_published - before} rows published"
        if failures:
            detail = f"drained to zero, but not published, the journal is kept: {'; '.join(failures)}"
        logger.info(detail)
        self._set_state(ProcessState.STOPPED, detail)

    def _wait_for_publisher(self) -> PublishResult | None:
        """Send heartbeats until the publisher is idle; the last result."""
        result = None
        while self._publisher.current is not None:
            self._vitals.heartbeat()
            result = self._publisher.poll()
            if result is None:
                time.sleep(0.02)
            else:
                self._handle_result(result)
        return result

    def _write_gap_reports(self, now_ns: int, force: bool = False) -> None:
        for reporter in self._gap_reporters.values():
            reporter.write(now_ns, force)

    def _set_running_state(self) -> None:
        task = self._publisher.current
        if task is not None:
            self._set_state(ProcessState.PUBLISHING, _format_hour(task.dataset, task.hour))
        else:
            self._set_state(ProcessState.RUNNING, "; ".join(self._publish_errors.values()))

    def _emit(self, kind: EventType, message: str = "", **fields: Any) -> None:
        """Emit an event of the writer; before its ring exists (no room), only the log has it."""
        if self._events is not None:
            self._events.emit(kind, message, **fields)

    def _set_state(self, state: ProcessState, detail: str = "") -> None:
        if (state, detail) != self._last_state:
            self._last_state = (state, detail)
            self._vitals.set_state(state, detail)

    def close(self) -> None:
        """Close everything; the vitals page stays for readers."""
        if len(self._datasets) == len(self._dataset_names):
            self._write_gap_reports(self._clock.mono_ns(), force=True)
        for dataset in self._datasets:
            dataset.close()
        if self._events is not None:
            self._events.close()
        self._vitals.close()


def _format_hour(dataset: str, hour: int) -> str:
    """A dataset's hour, as people name it."""
    return f"{dataset} {parse_dataset(dataset)[0].to_local(hour):%Y-%m-%d %H}h"
