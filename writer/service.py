"""The writer's loop: drain the rings, keep the journal durable, have hours published.

    every turn     rings ─> merge ─> journal                  at most fsync_every_s   journal ─fsync─> rings may forget
    hour is due    journal ─publisher thread─> Parquet        then                    the journal of it goes

Promises: never waits for a disk that is full, a ring that is not there or an hour that is being published; stopping with the
collectors gone leaves nothing in rings and journal, stopping beside living ones leaves everything where the next start finds it.
Leaves to others: one dataset's way (dataset.py), publishing (publisher.py), the process's rites (conf/process.py).
"""

from __future__ import annotations

import time

from loguru import logger

from conf.clock import SECOND_NS
from conf.home import Home
from conf.market import KR, MARKETS, Market
from conf.process import Stop
from ringbuf.events import Events
from ringbuf.records import RINGS, STREAMS, Kind, Line
from ringbuf.vitals import Vitals
from writer.dataset import Dataset
from writer.feeds.monitor import Lines
from writer.ingest.ring_reader import ENDLESS_NS
from writer.publish.partition import Cancelled
from writer.publish.worker import Outcome, Publisher
from writer.schema import SELF, market_and_stream
from writer.volume.gap_report import Gaps

TURN_S = 0.2
"""Pause between two turns when nothing is left to do: batches of this length, five wake-ups a second."""

RETRY_S = 1.0
PUBLISH_AGAIN_S = 30.0
PRODUCERS_GONE_S = 3.0
"""How long a stop waits for the collectors to be gone before it hands over."""

NO_SPACE_AT_END_S = 10.0


def datasets_of(home: Home) -> list[str]:
    """The datasets this home has: of every market that a line is switched on for, or that has a ring or a journal; and the one
    that has the writer's own events."""
    names = [f"{market.name}.{stream}" for market in MARKETS.values() if _in_use(home, market) for stream in RINGS]
    own = f"{KR.name}.event"
    return names if own in names else [*names, own]


def _in_use(home: Home, market: Market) -> bool:
    if any(getattr(home.settings, line).enabled for line in market.lines):
        return True
    left = [home.journal(f"{market.name}.{stream}") for stream in RINGS]
    return any(
        path.exists() for path in (*left, *(home.ring(line, stream) for line in market.lines for stream in RINGS))
    )


def body(home: Home, stop: Stop) -> None:
    """The writer process of `home`, until it is asked to stop and is done."""
    vitals = Vitals.create(home.vitals(SELF), SELF)
    drain = Drain(home, stop, vitals)
    try:
        drain.run()
    finally:
        drain.close()


class Drain:
    """The loop and what it remembers from turn to turn."""

    def __init__(self, home: Home, stop: Stop, vitals: Vitals) -> None:
        self._settings = home.settings.writer
        self._clock = home.clock()
        self._stop = stop
        self._vitals = vitals
        self._home = home
        self._names = datasets_of(home)
        self._events: Events | None = None
        self._lines: Lines | None = None
        self._datasets: list[Dataset] = []
        self._gaps: dict[str, Gaps] = {}
        self._publisher = Publisher(self._clock.anchor.speed)
        self._said = ("", "")
        self._troubles: dict[str, str] = {}
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
            if not self.turn():
                self._stop.wait(RETRY_S if self._paused_ns else TURN_S)
        self.finish()

    def _open(self) -> bool:
        """Recover every dataset; False while the disk has no room even to begin."""
        self._vitals.beat()
        try:
            if self._events is None:
                self._events = Events(self._home.ring(SELF, "event"), Line.WRITER, self._clock)
                self._events.started(self._vitals.former_ns)
                self._lines = Lines(self._home, self._vitals, self._events)
            for name in self._names[len(self._datasets) :]:
                market = market_and_stream(name)[0]
                if market.name not in self._gaps:
                    self._gaps[market.name] = Gaps(self._home, self._vitals, market)
                watches = (self._gaps[market.name], self._events, self._lines if market is KR else None)
                self._datasets.append(Dataset(self._home, name, self._vitals, *watches))
        except OSError as error:
            self._pause(error)
            return False
        return True

    def turn(self, endless: bool = False) -> bool:
        """One round; whether more is due already. `endless`: the producers are gone, take everything."""
        now_ns = self._clock.mono_ns()
        self._vitals.beat()
        limit_ns = ENDLESS_NS if endless else now_ns - self._settings.watermark_ms * 1_000_000
        more = False
        try:
            self._each_second(now_ns)
            for dataset in self._datasets:
                more |= dataset.turn(limit_ns, now_ns)
            if now_ns - self._synced_ns >= self._settings.fsync_every_s * SECOND_NS:
                self._synced_ns = now_ns
                self._sync()
            self._publish(now_ns)
            self._tell_gaps(now_ns)
            if self._lines is not None:
                self._lines.tell(now_ns)
        except OSError as error:
            self._pause(error)
            return False
        if self._paused_ns:
            logger.info("the disk takes it again: going on")
            self._tell(Kind.RESUMED, since_ns=self._clock.at(self._paused_ns))
            self._paused_ns = 0
        self._vitals.set("backlog_records", sum(dataset.intake.backlog for dataset in self._datasets))
        if not self._stop.requested:
            self._say_running()
        return more

    def _each_second(self, now_ns: int) -> None:
        if now_ns - self._attached_ns < SECOND_NS:
            return
        self._attached_ns = now_ns
        step_ns = self._clock.follow_wall()
        if step_ns:
            logger.warning("the wall clock was stepped by {:+.3f} s", step_ns / SECOND_NS)
            self._vitals.add("clock_steps")
            self._tell(Kind.CLOCK_STEP, number=step_ns)
        for dataset in self._datasets:
            dataset.intake.attach()
        self._names += [name for name in datasets_of(self._home) if name not in self._names]
        if len(self._datasets) < len(self._names):  # a line was switched on since
            self._open()

    def _sync(self) -> None:
        for dataset in self._datasets:
            self._vitals.add("fsyncs", int(dataset.sync()))

    def _pause(self, error: OSError) -> None:
        """The disk takes nothing: the rings hold what comes, and the same is tried again."""
        if not self._paused_ns:
            self._paused_ns = self._clock.mono_ns()
            self._tell(Kind.PAUSED, str(error))
            self._vitals.add("pauses")
            logger.error("{}: paused, the rings hold; if the disk is full make space, it goes on by itself", error)
        self._say("paused", f"{error}: the rings hold; if the disk is full make space, it goes on by itself")

    def _publish(self, now_ns: int) -> None:
        """Take note of what was published; have the next hour published if one is due."""
        outcome = self._publisher.poll()
        if outcome is not None:
            self._published(outcome)
        if self._publisher.current is not None:
            return
        for dataset in self._datasets:
            for hour in dataset.hours.due(self._clock.now_ns(), now_ns):
                self._publisher.submit(dataset.task(hour, everything=False))
                return

    def _published(self, outcome: Outcome) -> None:
        task = outcome.task
        dataset = next(dataset for dataset in self._datasets if dataset.directory == task.directory)
        what = _hour(task.dataset, task.hour)
        if outcome.error is not None:
            dataset.hours.postpone(task.hour, self._clock.mono_ns() + round(PUBLISH_AGAIN_S * SECOND_NS))
            if not isinstance(outcome.error, Cancelled):
                self._troubles[what] = f"{what} could not be published: {outcome.error}"
                logger.opt(exception=outcome.error).error("{}; its journal is kept, tried again", self._troubles[what])
            return
        self._troubles.pop(what, None)
        if outcome.health_error is not None:
            logger.opt(exception=outcome.health_error).error("{}: published, but not the health of its lines", what)
        if not outcome.parts and dataset.hours.hours[task.hour].newest_row > task.row_to:
            dataset.hours.postpone(task.hour, self._clock.mono_ns() + SECOND_NS)  # nothing of it is settled yet
            return
        rows = sum(part.rows for part in outcome.parts)
        first = any(part.path.name == "part-0.parquet" for part in outcome.parts)
        for part in outcome.parts:
            logger.info(
                "{}: {} rows, {} bytes, {:.1f} s -> {}", what, part.rows, part.bytes, outcome.seconds, part.path
            )
        if dataset.stream in STREAMS:  # events are told of, not counted
            self._rows_published += rows
            self._vitals.add("rows_published", rows)
        self._vitals.add("ticks_doubled", sum(part.doubled for part in outcome.parts))
        self._vitals.add("ticks_contradicting", sum(part.contradicting for part in outcome.parts))
        self._vitals.add("hours_published", int(first))
        dataset.hours.published(task.hour, task.row_to, self._clock.now_ns())
        self._tell_gaps(self._clock.mono_ns(), at_once=True)  # before the journal forgets what was not told
        dataset.let_go()

    def finish(self) -> None:
        """Stop: drain to zero and publish everything if the collectors are gone, else hand over to the next start."""
        self._say("draining", "waiting for the collectors to be gone")
        give_up = time.monotonic() + PRODUCERS_GONE_S
        while self._producers() and time.monotonic() < give_up:
            if not self.turn():
                time.sleep(0.02)
        self._say("draining")
        self._tell(Kind.STOPPED)
        give_up = time.monotonic() + NO_SPACE_AT_END_S
        more = True
        while not (alive := self._producers()) and more:
            more = self.turn(endless=True) or self._paused_ns > 0
            more |= any(dataset.intake.backlog for dataset in self._datasets)
            if not self._paused_ns:
                give_up = time.monotonic() + NO_SPACE_AT_END_S
            elif time.monotonic() > give_up:
                self._hand_over("the disk is full")
                return
            else:
                time.sleep(RETRY_S / 10)
        if alive:  # they stayed, or are there again: twins of what they write are still to come
            self._hand_over(f"{', '.join(alive)} still written")
            return
        try:
            self._publish_everything()
        except OSError as error:  # what is in the journal stays there
            self._hand_over(str(error))

    def _producers(self) -> list[str]:
        names = [name for dataset in self._datasets for name in dataset.intake.producers()]
        return [name for name in names if not name.startswith(f"{SELF}.")]

    def _hand_over(self, why: str) -> None:
        self._publisher.end(seconds=2.0)
        try:
            self._sync()
        except OSError as error:
            why = f"{why}; the journal's end may be lost with the power: {error}"
        backlog = sum(dataset.intake.backlog for dataset in self._datasets)
        detail = f"handed over ({why}): {backlog} records in the rings and the journal are for the next start"
        logger.info(detail)
        self._say("stopped", detail)

    def _publish_everything(self) -> None:
        """The collectors are gone and the rings are empty: leave nothing in the journal either."""
        self._say("publishing", "everything, the open hour included")
        self._wait_for_publisher()
        before = self._rows_published
        failures = []
        for dataset in self._datasets:
            for hour in dataset.hours.unpublished():
                self._publisher.submit(dataset.task(hour, everything=True))
                outcome = self._wait_for_publisher()
                if outcome is not None and outcome.error is not None:
                    failures.append(f"{_hour(dataset.name, hour)} ({outcome.error})")
            if dataset.journal.current.held:
                dataset.begin_segment()
            dataset.sync()
            dataset.let_go()
        self._publisher.end(seconds=2.0)
        detail = f"drained to zero: {self._rows_published - before} rows published"
        if failures:
            detail = f"drained to zero, but not published, the journal is kept: {'; '.join(failures)}"
        logger.info(detail)
        self._say("stopped", detail)

    def _wait_for_publisher(self) -> Outcome | None:
        """Beat until the publisher is idle; the last outcome."""
        outcome = None
        while self._publisher.current is not None:
            self._vitals.beat()
            outcome = self._publisher.poll()
            if outcome is None:
                time.sleep(0.02)
            else:
                self._published(outcome)
        return outcome

    def _tell_gaps(self, now_ns: int, at_once: bool = False) -> None:
        for gaps in self._gaps.values():
            gaps.tell(now_ns, at_once)

    def _say_running(self) -> None:
        task = self._publisher.current
        if task is not None:
            self._say("publishing", _hour(task.dataset, task.hour))
        else:
            self._say("running", "; ".join(self._troubles.values()))

    def _tell(self, kind: Kind, words: str = "", **more: int) -> None:
        """An event of the writer's own; before there is a ring for it (no room), only the log has it."""
        if self._events is not None:
            self._events.tell(kind, words, **more)

    def _say(self, state: str, detail: str = "") -> None:
        if (state, detail) != self._said:
            self._said = (state, detail)
            self._vitals.say(state, detail)

    def close(self) -> None:
        """Let go of everything; the vitals page stays for readers."""
        if len(self._datasets) == len(self._names):
            self._tell_gaps(self._clock.mono_ns(), at_once=True)
        for dataset in self._datasets:
            dataset.close()
        if self._events is not None:
            self._events.close()
        self._vitals.close()


def _hour(dataset: str, hour: int) -> str:
    """A dataset's hour, as people name it."""
    return f"{dataset} {market_and_stream(dataset)[0].local(hour):%Y-%m-%d %H}h"
