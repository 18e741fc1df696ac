"""The processes of a home, each as an object that is turned by the scheduler: the product's own loops and files, no thread.

    SimulatedCollector   frames ─> FeedConnection (decode, publish) ─> rings
    SimulatedWriter      rings ─> WriterService.poll_once ─> journal, Parquet
    SimulatedGapFiller   gap report ─> GapFiller ─> its ring

Guarantees:
    * A killed process leaves what a kernel would leave: files and rings as they were, locks free, descriptors closed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from simulation.network import INSTRUMENTS, US_INSTRUMENTS, SentFrame, Truth
from simulation.plan import US_FEED

from brokers.allocation.allocate import plan_connections
from brokers.collector import POLL_INTERVAL_S
from brokers.feed.capture import FrameCapture
from brokers.feed.connection import ConnectionContext, FeedConnection
from brokers.feed.heartbeat import HeartbeatAggregator
from brokers.feed.publisher import RingPublisher
from brokers.feed.quarantine import Quarantine
from brokers.history import TRADE_ROW, PageRequest, PageResponse, PageRows
from brokers.registry import load_broker
from brokers.simulator.exchange.models import Trade
from brokers.subscription import Subscription, SubscriptionTable
from collectorctl.gapfill.service import POLL_INTERVAL_S as GAPFILL_INTERVAL_S
from collectorctl.gapfill.service import GapFiller
from conf.clock import SECOND_NS, Clock, to_kst
from conf.home import Home
from conf.instrument import Instrument
from ringbuf import layout
from ringbuf.records import STREAMS
from ringbuf.ring import Producer
from ringbuf.vitals import Vitals
from writer import durable_io
from writer.journal import journal
from writer.publish.partition import PublishTask
from writer.publish.worker import Publisher, PublishResult
from writer.service import POLL_INTERVAL_S as WRITER_INTERVAL_S
from writer.service import WriterService

PAGE_ROWS = 30


class SimulatedStop:
    """A ShutdownSignal without signals and pipes; waiting lets virtual time pass."""

    def __init__(self, sleep: Callable[[float], None]) -> None:
        self.requested = False
        self._sleep = sleep

    def request(self, *_: object) -> None:
        self.requested = True

    def wait(self, seconds: float) -> bool:
        if not self.requested and seconds > 0:
            self._sleep(seconds)
        return self.requested


class InlinePublisher(Publisher):
    """The publication thread's work, done in the turn that asks for its result; `delay_turns`: how many turns that is later."""

    delay_turns: Callable[[], int] = staticmethod(lambda: 0)

    def __init__(self, date_lock_path: Callable[[str], Path], speed: float = 1.0) -> None:
        self._date_lock_path = date_lock_path
        self._speed = speed
        self._left = 0
        self._cancelled = threading.Event()
        self.current = None

    def submit(self, task: PublishTask) -> None:
        self.current, self._left = task, self.delay_turns()

    def poll(self) -> PublishResult | None:
        if self.current is None:
            return None
        if self._left:
            self._left -= 1
            return None
        task, self.current = self.current, None
        return self._execute(task)

    def stop(self, seconds: float) -> None:
        self.current = None


class SimulatedCollector:
    """One feed's collector."""

    def __init__(self, home: Home, feed: str, random: Random, sleep: Callable[[float], None]) -> None:
        self.name = feed
        self.is_alive = False
        self._home, self._random, self._sleep = home, random, sleep
        self._broker = load_broker(feed)
        self._vitals: Vitals | None = None

    def start(self) -> None:
        """A new life: rings, connection, subscriptions."""
        home = self._home
        self._vitals = vitals = Vitals.create(home.vitals_path(self.name), self.name)
        self._clock: Clock = home.load_clock()
        self._checked_ns = 0
        self.publisher = RingPublisher(home, self.name, vitals, self._clock)
        instruments = US_INSTRUMENTS if self.name == US_FEED else INSTRUMENTS
        subscriptions = [Subscription(instrument, stream) for instrument in instruments for stream in STREAMS]
        heartbeat = HeartbeatAggregator(vitals).add_thread("key 1")
        context = ConnectionContext(
            home,
            SimulatedStop(self._sleep),  # type: ignore[arg-type]
            self._broker,
            self._clock,
            home.load_calendar(),
            self.publisher,
            Quarantine(home.quarantine_directory(), self.name, 1 << 20),
            FrameCapture(home, self.name, vitals, self._clock),
            self._broker.subscriptions_by_code(subscriptions),
        )
        (planned,) = plan_connections(home.settings, {"kis": 1, "kiwoom": 1, "us": 1}).connections[self.name]
        self._connection = FeedConnection(context, planned, heartbeat)
        self._connection._subscription_table = SubscriptionTable(subscriptions)
        self.publisher.emit_started()
        self.is_alive = True

    def heads(self) -> dict[str, int]:
        """The newest record of each stream's ring."""
        return {stream: ring.head for stream, ring in self._rings().items()}

    def ring_ids(self) -> dict[str, int]:
        """Which ring each stream is written into: another one is numbered anew."""
        return {stream: ring.ring_id for stream, ring in self._rings().items()}

    def claims(self) -> dict[str, int]:
        """What each stream's ring may have overwritten up to."""
        return {stream: int(ring._header[layout.CLAIM]) for stream, ring in self._rings().items()}

    def _rings(self) -> dict[str, Producer]:
        return self.publisher._producers

    def receive(self, frames: list[SentFrame], mono_ns: int) -> int:
        """One poll that brings these frames; the receive time stamped on their records."""
        self._look_around(mono_ns)
        self._connection._handle_messages([(frame.payload, mono_ns) for frame in frames])
        return self._clock.to_calendar_ns(mono_ns)

    def idle(self, mono_ns: int) -> None:
        """One poll that brings nothing."""
        self._look_around(mono_ns)

    def _look_around(self, mono_ns: int) -> None:
        """What the process's own loop does beside its connections."""
        if mono_ns - self._checked_ns >= POLL_INTERVAL_S * SECOND_NS:
            self._checked_ns = mono_ns
            self.publisher.restore_paths()
            if self._clock.detect_step():
                self.publisher.on_clock_step(mono_ns)

    def tear(self) -> None:
        """Killed in the middle of publishing: slots are claimed and half written, the head never moved."""
        ring = self._rings()[self._random.choice(sorted(STREAMS))]
        count = self._random.randrange(1, min(ring.capacity, 20))
        head = ring.head
        ring._header[layout.CLAIM] = max(int(ring._header[layout.CLAIM]), head + count)
        for number in range(head, head + count - 1):
            ring.slots[number % ring.capacity] = np.zeros((), ring.dtype)

    def kill(self) -> None:
        """Its end, in whatever way: no word is written any more."""
        if self.is_alive:
            self.is_alive = False
            self.publisher.close()
        if self._vitals is not None:
            self._vitals.close()
            self._vitals = None


class InlineDiskThread:
    """A DiskThread whose tasks are done when they are given."""

    is_busy = False
    waited_s = 0.0

    def __init__(self, name: str) -> None:
        self._outcome: tuple[Any, Exception | None] = (None, None)

    def start(self, task: Callable[[], Any]) -> None:
        """Do it; SimulatedDeath ends the process at that point."""
        try:
            self._outcome = (task(), None)
        except Exception as error:  # noqa: BLE001 the main loop judges it, as in the product
            self._outcome = (None, error)

    def wait(self, seconds: float | None = None) -> bool:
        return True

    def collect(self) -> Any:
        result, error = self._outcome
        if error is not None:
            raise error
        return result


class SimulatedWriter:
    """The writer, a turn at a time."""

    def __init__(self, home: Home, random: Random, sleep: Callable[[float], None]) -> None:
        self.name = "writer"
        self.is_alive = False
        self._home, self._random, self._sleep = home, random, sleep
        self._service: WriterService | None = None
        self._vitals: Vitals | None = None

    def start(self) -> None:
        """A new life; SimulatedDeath if it ends in its first effects."""
        InlinePublisher.delay_turns = staticmethod(lambda: self._random.randrange(4))
        self.stop = SimulatedStop(self._sleep)
        for memory in (durable_io._durable_directories, journal._DISTRUSTED):
            memory.clear()  # of a process that is gone
        self._vitals = Vitals.create(self._home.vitals_path("writer"), "writer")
        self._service = WriterService(self._home, self.stop, self._vitals)  # type: ignore[arg-type]
        self.is_alive = True

    def turn(self) -> float:
        """One turn of its loop; seconds until the next."""
        service = self._service
        assert service is not None
        return 0.0 if service.poll_once() else WRITER_INTERVAL_S * self._random.uniform(0.3, 1.2)

    def finish(self) -> None:
        """Its end as asked; the state it leaves is in `detail`."""
        service = self._service
        assert service is not None
        self.stop.request()
        service.finish()
        service.close()
        self.is_alive = False
        self._service = self._vitals = None

    def kill(self) -> None:
        """Its end without a last effect."""
        self.is_alive = False
        service, self._service = self._service, None
        if service is not None:
            for dataset in service._datasets:
                dataset.close()
            if service._report.events is not None:
                service._report.events.close()
        if self._vitals is not None:
            self._vitals.close()
            self._vitals = None


class SimulatedHistory:
    """KIS's list of trades over REST, from the truth."""

    def __init__(self, truth: Truth) -> None:
        self.PAGE_ROWS = {"trades": PAGE_ROWS}
        self._truth = truth

    def fetch_page(self, request: PageRequest) -> PageResponse:
        """The newest trades of the day up to `until`; their numbers stand for the response's bytes."""
        found = [
            trade.id for trade in trades_of(self._truth, request.instrument, request.day) if trade.at <= request.until
        ]
        return PageResponse(np.array(found[::-1][:PAGE_ROWS], np.int64).tobytes(), "")

    def parse_trades(self, content: bytes, day: date) -> PageRows:
        """TRADE_ROW of those trades."""
        trades = [self._truth.trades[number] for number in np.frombuffer(content, np.int64).tolist()]
        return PageRows(to_trade_rows(trades), [])

    def close(self) -> None:
        """Nothing is open."""


def trades_of(truth: Truth, instrument: Instrument, day: date) -> list[Trade]:
    """An instrument's trades of a day in order."""
    return [
        trade
        for trade in truth.trades.values()
        if trade.instrument == instrument and to_kst(trade.exch_s * SECOND_NS).date() == day
    ]


def to_trade_rows(trades: list[Trade]) -> np.ndarray:
    """As the broker's list shows them."""
    rows = np.zeros(len(trades), TRADE_ROW)
    for row, trade in zip(rows, trades, strict=True):
        row["exch_ns"], row["price"], row["size"] = trade.exch_s * SECOND_NS, trade.price, trade.size
        row["side"], row["cum_volume"] = trade.side, trade.day.cum_volume
        row["ask_price_1"], row["bid_price_1"] = trade.book.ask_price[0], trade.book.bid_price[0]
    return rows


class SimulatedGapFiller:
    """The gap filler, a turn at a time."""

    def __init__(self, home: Home, truth: Truth, sleep: Callable[[float], None]) -> None:
        self.name = "gapfill"
        self.is_alive = False
        self._home, self._truth, self._sleep = home, truth, sleep
        self._vitals: Vitals | None = None

    def start(self) -> None:
        """A new life."""
        self._vitals = Vitals.create(self._home.vitals_path("gapfill"), "gapfill")
        stop: Any = SimulatedStop(self._sleep)
        self._filler = GapFiller(self._home, stop, self._vitals, SimulatedHistory(self._truth))
        self.is_alive = True

    def turn(self) -> float:
        """One turn of its loop; seconds until the next."""
        return 0.0 if self._filler._poll_once() else GAPFILL_INTERVAL_S

    def kill(self) -> None:
        """Its end."""
        if self.is_alive:
            self.is_alive = False
            self._filler._ring.close()
        if self._vitals is not None:
            self._vitals.close()
            self._vitals = None


def close_leftovers(root: Path) -> None:
    """Close what objects of killed processes still hold open below `root`: the kernel would have."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 no path is wanted
        with suppress(OSError):
            if Path(os.readlink(f"/proc/self/fd/{name}")).is_relative_to(root):  # noqa: PTH115
                os.close(int(name))
