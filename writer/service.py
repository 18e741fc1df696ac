"""Writer main loop: read the rings, sync the journal, publish hours.

    turn, each dataset         rings ─> arbitrate ─disk thread─> journal     at most fsync_every_s   ─fsync─> rings may overwrite
    hour is due                journal ─publisher thread─> Parquet           then                    the journal is pruned

Guarantees:
    * A dataset that cannot be opened or written pauses alone: its data stays in the rings, and it is tried every second. No
      ring: attaching is retried every second. Publication runs in its own thread.
    * One that waits for the disk waits in its own thread: heartbeats and the other datasets go on, and its data stays in the
      rings, which are told of a position once it is durable.
    * On shutdown, if all collectors have exited, everything is drained and published, and the drained rings are deleted
      (ring.free_when_drained); otherwise the journal is synced, and the next start resumes from it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress

from loguru import logger

from conf.clock import SECOND_NS
from conf.home import Home
from conf.market import KR, MARKETS, Market
from conf.process import ShutdownSignal
from ringbuf.events import EventPublisher
from ringbuf.records import RINGS, EventType, FeedId
from ringbuf.vitals import ProcessState, Vitals
from writer.dataset import Dataset
from writer.disk_thread import DiskThread
from writer.feeds.day_report import DayReporter
from writer.feeds.monitor import FeedMonitor
from writer.ingest.ring_reader import NO_LIMIT_NS
from writer.publish.coordinator import PublicationCoordinator
from writer.schema import WRITER_FEED, parse_dataset
from writer.service_report import RETRY_NS, WriterReport
from writer.volume.gap_report import GapReporter
from writer.watchdog_guard import WatchdogGuard

TURN_S = 0.1
"""Pause between two turns while records arrive: what a record waits for, at most, behind the watermark."""

POLL_INTERVAL_S = 0.2
"""The longest pause, when none arrive: five wake-ups a second. As often everything else is looked after."""

DISK_TURN_S = 0.2
"""How long a turn waits for the disk: heartbeats go on, and on a disk that answers every step ends in its turn."""

DISK_WAIT_S = 1.0
"""A step that waits longer for the disk is reported in the state."""

LAST_SYNC_TIMEOUT_S = 5.0
PRODUCER_EXIT_TIMEOUT_S = 3.0
"""How long a stop waits for the collectors to exit before it leaves the rest to the next start."""

SHUTDOWN_NO_SPACE_TIMEOUT_S = 10.0
PAUSED_POLL_INTERVAL_S = 0.1
HOME = "home"
"""The name of what is no dataset's in a pause: the writer's own event ring, the search for datasets."""


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
    """The writer of one home."""

    def __init__(self, home: Home, stop: ShutdownSignal, vitals: Vitals) -> None:
        self._settings = home.settings.writer
        self._clock = home.load_clock()
        self._stop = stop
        self._vitals = vitals
        self._home = home
        self._dataset_names: list[str] = []
        self._feed_monitor: FeedMonitor | None = None
        self._datasets: list[Dataset] = []
        self._gap_reporters: dict[str, GapReporter] = {}
        self._report = WriterReport(vitals, self._clock, home.settings.watchdog.disk_alarm_s)
        self._disks: dict[str, DiskThread] = {}
        self._openings: dict[str, DiskThread] = {}
        self._publication = PublicationCoordinator(
            self._datasets, self._clock, vitals, self._report, self._write_gap_reports, home.date_lock_path
        )
        self._watchdog_guard = WatchdogGuard(home, vitals)
        self._day_reporter = DayReporter(home.day_report_path(), self._clock)
        self._looked_ns = self._served_ns = 0
        self.pause_s = TURN_S
        """Until the next turn: it doubles with each one that finds the rings empty."""

    def run(self) -> None:
        """Turn until asked to stop; then finish."""
        while not self._stop.requested:
            if not self.poll_once():
                self._stop.wait(self.pause_s)
        self.finish()

    def _open(self, now_ns: int) -> None:
        """Open what has appeared (a feed was enabled since) or could not be opened before, every dataset by itself."""
        with self._report.isolate(HOME):
            self._dataset_names += [name for name in find_datasets(self._home) if name not in self._dataset_names]
            if self._report.events is None:
                events = EventPublisher(self._home.ring_path(WRITER_FEED, "event"), FeedId.WRITER, self._clock)
                self._report.events = events
                events.emit_started(self._vitals.previous_heartbeat_ns)
        if self._feed_monitor is None:
            self._feed_monitor = FeedMonitor(self._home, self._vitals, self._report.emit)
        known = {dataset.name for dataset in self._datasets} | set(self._openings)
        for name in self._dataset_names:
            if name not in known and self._report.is_due(name, now_ns):
                self._openings[name] = self._begin_opening(name)

    def _begin_opening(self, name: str) -> DiskThread:
        """Recover a dataset in the thread that will be its own."""
        market = parse_dataset(name)[0]
        if market.name not in self._gap_reporters:
            self._gap_reporters[market.name] = GapReporter(self._home, self._vitals, market)
        feed_monitor = self._feed_monitor if market is KR else None
        arguments = self._home, name, self._vitals, self._gap_reporters[market.name], self._report.emit, feed_monitor
        disk = self._disks[name] = self._disks.get(name) or DiskThread(name)
        disk.start(lambda: Dataset(*arguments, disk))
        return disk

    def _collect_openings(self) -> None:
        """Take up the datasets that are recovered."""
        for name, disk in list(self._openings.items()):
            if not disk.is_busy:
                del self._openings[name]
                with self._report.isolate(name):
                    self._datasets.append(disk.collect())

    def poll_once(self, drain_all: bool = False) -> bool:
        """One round; whether more is due already. Without a limit, when the producers have exited, everything is read.

        Datasets without a new record, and all that is no dataset, have their turn every POLL_INTERVAL_S.
        """
        now_ns = self._clock.mono_ns()
        self._vitals.heartbeat()
        limit_ns = NO_LIMIT_NS if drain_all else now_ns - self._settings.watermark_ms * 1_000_000
        waiting = [dataset for dataset in self._datasets if dataset.reader.backlog]
        self.pause_s = TURN_S if waiting else min(2 * self.pause_s, POLL_INTERVAL_S)
        if not drain_all and now_ns - self._served_ns < POLL_INTERVAL_S * SECOND_NS:
            return self._step_datasets(waiting, limit_ns, now_ns)
        self._served_ns = now_ns
        if now_ns - self._looked_ns >= RETRY_NS:
            self._looked_ns = now_ns
            self._report.check_clock()
            self._watchdog_guard.poll(now_ns)
            self._open(now_ns)
            self._home.mark_ring_directory()
            if self._report.events is not None:
                self._report.events.restore_path()
        more = self._step_datasets(self._datasets, limit_ns, now_ns)
        self._serve(now_ns)
        return more

    def _serve(self, now_ns: int) -> None:
        """All that is due beside the datasets: publication, reports, the state."""
        self._publication.poll(now_ns)
        for reporter in self._gap_reporters.values():
            reporter.write(now_ns)
        if self._feed_monitor is not None:
            self._feed_monitor.evaluate(now_ns)
        days = [(each.market.name, each.day_events) for each in self._datasets if each.day_events is not None]
        self._day_reporter.write(days, now_ns)
        self._vitals.set("backlog_records", self._count_backlog())
        self._report.set_disk_waits(
            {one.name: one.disk.waited_s for one in self._datasets if one.disk.waited_s >= DISK_WAIT_S}
        )
        if self._report.paused:
            self._report.set_state(*self._report.describe())
        elif not self._stop.requested:
            self._report.set_state(*self._describe())

    def _step_datasets(self, datasets: Sequence[Dataset], limit_ns: int, now_ns: int) -> bool:
        """A step of each of these; what the disk is not done with in this turn goes on in the background."""
        begun = [disk for disk in self._openings.values() if disk.waited_s < DISK_TURN_S]
        for dataset in datasets:
            if not dataset.has_begun and self._report.is_due(dataset.name, now_ns):
                dataset.begin(limit_ns, now_ns, is_retry=dataset.name in self._report.paused)
                begun.append(dataset.disk)
        deadline = time.monotonic() + DISK_TURN_S
        for disk in begun:
            disk.wait(max(0.0, deadline - time.monotonic()))
        more = False
        for dataset in self._datasets:
            if dataset.has_begun and not dataset.disk.is_busy:
                with self._report.isolate(dataset.name):
                    more |= dataset.finish(now_ns)
        self._collect_openings()
        return more

    def _describe(self) -> tuple[ProcessState, str]:
        """The state of a writer that turns: a feed whose ring cannot be read is not collected, whatever else works."""
        if self._openings:
            return ProcessState.STARTING, f"recovering {', '.join(self._openings)}"
        if unreadable := self._unreadable_rings():
            return ProcessState.FAILING, f"not read: {'; '.join(unreadable)}"
        return self._report.describe_disk_waits() or self._publication.describe()

    def _unreadable_rings(self) -> list[str]:
        return [ring for dataset in self._datasets for ring in dataset.reader.unreadable]

    def finish(self) -> None:
        """Stop: drain and publish everything if the collectors have exited, else leave the rest to the next start."""
        self._report.set_state(ProcessState.DRAINING, "waiting for the collectors to exit")
        deadline = time.monotonic() + PRODUCER_EXIT_TIMEOUT_S
        while self._live_producers() and time.monotonic() < deadline:
            if not self.poll_once():
                time.sleep(0.02)
        self._report.set_state(ProcessState.DRAINING)
        self._report.emit(EventType.STOPPED)
        for dataset in self._datasets:
            if not dataset.has_begun:
                with suppress(OSError):  # the next step tries again, and reports it
                    dataset.reader.attach()  # to a ring that was made within the last second
        deadline = time.monotonic() + SHUTDOWN_NO_SPACE_TIMEOUT_S
        more = True
        while not (alive := self._live_producers()) and more:
            is_held_up = self._is_held_up()
            more = self.poll_once(drain_all=True) or is_held_up or self._is_waiting() or self._count_backlog() > 0
            if not is_held_up:
                deadline = time.monotonic() + SHUTDOWN_NO_SPACE_TIMEOUT_S
            elif time.monotonic() > deadline:
                break
            else:
                time.sleep(PAUSED_POLL_INTERVAL_S)
        if alive:  # they stayed, or are there again: twins of what they write are still to come
            self._publication.stop()
            self._set_undrained(f"{', '.join(alive)} still written")
            return
        if self._openings:
            self._publication.stop()
            self._set_undrained(f"{', '.join(self._openings)} not recovered yet")
            return
        self._report.set_state(ProcessState.PUBLISHING, "everything, the open hour included")
        achieved = self._publication.publish_all(self._unreadable_rings())
        if self._report.paused:  # what is in the journal stays there
            self._set_undrained(self._report.failures)
        else:
            if self._home.settings.ring.free_when_drained:
                self._delete_drained_rings()
            self._set_stopped(achieved)

    def _delete_drained_rings(self) -> None:
        """Free the memory of the rings: everything in them is published."""
        if self._report.events is not None:
            self._report.events.close()
            self._report.events = None
        for dataset in self._datasets:
            with self._report.isolate(dataset.name):
                if dataset.delete_drained_rings():
                    self._publication.flush(dataset)

    def _is_held_up(self) -> bool:
        """Whether a dataset is paused, or not recovered yet."""
        return bool(self._report.paused) or bool(self._openings)

    def _is_waiting(self) -> bool:
        """Whether a dataset waits for the disk."""
        return any(dataset.has_begun for dataset in self._datasets)

    def _live_producers(self) -> list[str]:
        names = [name for dataset in self._datasets for name in dataset.reader.live_producers()]
        return [name for name in names if not name.startswith(f"{WRITER_FEED}.")]

    def _count_backlog(self) -> int:
        return sum(dataset.reader.backlog for dataset in self._datasets)

    def _set_undrained(self, reason: str) -> None:
        now_ns = self._clock.mono_ns()
        for dataset in self._datasets:
            dataset.begin(None, now_ns, is_retry=True)
        for dataset in self._datasets:
            try:
                if not dataset.disk.wait(LAST_SYNC_TIMEOUT_S):
                    raise TimeoutError("the disk does not answer")
                dataset.finish(now_ns)
            except OSError as error:
                reason = f"{reason}; {dataset.name}: the journal's end may be lost with the power: {error}"
        rest = f"{self._count_backlog()} records stay in rings and journal for the next start"
        self._set_stopped(f"stopped before the rings were drained: {rest} ({reason})")

    def _set_stopped(self, detail: str) -> None:
        logger.info(detail)
        self._report.set_state(ProcessState.STOPPED, detail)

    def _write_gap_reports(self) -> None:
        for reporter in self._gap_reporters.values():
            reporter.write(self._clock.mono_ns(), force=True)

    def close(self) -> None:
        """Close everything; the vitals page stays for readers."""
        self._write_gap_reports()
        for dataset in self._datasets:
            if not dataset.has_begun:  # else its files are the disk thread's, until the process is gone
                dataset.close()
        if self._report.events is not None:
            self._report.events.close()
        self._vitals.close()
