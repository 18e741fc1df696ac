"""A seeded run of one home in one process: who acts next is drawn, and everything that is done is noted.

    plan ─> scheduler ─> exchange, wires, collectors, writer, gap filler, disk, clock ─> Evidence (oracle.py judges it)

Guarantees:
    * Equal seeds and switches give equal traces, to the byte; `Evidence.trace` is their digest.
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from hashlib import sha256
from heapq import heappop, heappush
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import NamedTuple

import msgspec
from loguru import logger
from simulation import disk as simulated_disk
from simulation import virtual_time
from simulation.disk import SimulatedDeath, SimulatedDisk
from simulation.network import US_INSTRUMENTS, SentRecord, SimulatedExchange, SimulatedWire, Truth
from simulation.plan import FEEDS, SECOND_NS, TWIN_WINDOW_S, US_FEED, Fault, Plan
from simulation.processes import (
    InlineDiskThread,
    InlinePublisher,
    SimulatedCollector,
    SimulatedGapFiller,
    SimulatedWriter,
    close_leftovers,
)
from simulation.virtual_time import VirtualTime

from collectorctl.gapfill import service as gapfill_service
from conf.home import Home
from ringbuf.records import STREAMS
from ringbuf.ring import Consumer
from writer import service as writer_service
from writer.ingest import ring_reader
from writer.journal import journal
from writer.publish import coordinator, partition

SETTLE_S = 8.0
SETTINGS = f"""
[universe]
kr = ["005930", "005930_NX", "000660"]
us = ["NAS.AAPL", "NYS.BRK/B"]
[shards]
kis = []
kiwoom = []
[paths]
ring = "run/rings"
[writer]
fsync_every_s = 0.2
grace_s = 1.7
late_every_s = 1.0
twin_window_s = {TWIN_WINDOW_S}
segment_max_bytes = 1048576
[gapfill]
calls_per_s = 18.0
settle_s = 0.3
"""


class Delivery(NamedTuple):
    """A record that a living collector put into its ring."""

    feed: str
    record: SentRecord
    arrived_ns: int
    """When its frame reached the machine, virtual mono_ns."""
    waited_ns: int
    """How long it lay there until its collector read it."""
    recv_ns: int
    seq: int
    ring_id: int
    """Of the ring that numbers it."""


@dataclass
class Evidence:
    """What the oracle judges."""

    plan: Plan
    home: Home
    truth: Truth
    us_truth: Truth
    deliveries: list[Delivery] = field(default_factory=list)
    claims: dict[tuple[str, str], int] = field(default_factory=dict)
    """(feed, stream) -> the highest number its ring may have overwritten up to."""
    durable: dict[tuple[str, str, int], int] = field(default_factory=dict)
    """(feed, stream, id of a ring that a power cut took) -> the highest number that the writer called durable."""
    garbled: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*FEEDS, US_FEED), 0))
    """Frames received that nobody can decode."""
    rings: dict[tuple[str, str], int] = field(default_factory=dict)
    """(feed, stream) -> the id of the ring that there is at the end."""
    flipped: set[str] = field(default_factory=set)
    """Datasets in whose journal a bit flipped."""
    faults: list[str] = field(default_factory=list)
    """What went wrong on the way: a process that raised."""
    history: list[str] = field(default_factory=list)
    trace: str = ""


class World:
    """One run."""

    def __init__(self, plan: Plan, home: Home) -> None:
        self.plan = plan
        self.time = VirtualTime(plan.segments[0].begin_ns - SECOND_NS)
        self.time.sleep = self._sleep
        self._random = Random(f"{plan.seed} scheduler")
        self._acting = ""
        self._is_stopping = False
        self._nameless: list[tuple[str, str, Consumer]] = []
        """Rings whose names were removed, as whoever has them mapped still sees them."""
        self._uuids = Random(f"{plan.seed} uuid")
        self._heap: list[tuple[int, float, int, Callable[[], None]]] = []
        self._count = 0
        self._digest = sha256()
        self.exchange = SimulatedExchange(plan)
        us_exchange = SimulatedExchange(plan, tuple(US_INSTRUMENTS), "us market")
        self.evidence = Evidence(plan, home, self.exchange.truth, us_exchange.truth)
        self.disk = SimulatedDisk(home.data, self.note)
        self._home = home
        self._is_off = False
        feeds = plan.all_feeds
        self._wires = {feed: SimulatedWire(feed, plan) for feed in feeds}
        self._markets = [(self.exchange, FEEDS), *([(us_exchange, (US_FEED,))] if US_FEED in feeds else [])]
        chances = {name: Random(f"{plan.seed} {name}") for name in (*feeds, "writer")}
        sleep = self._sleep
        self._collectors = {feed: SimulatedCollector(home, feed, chances[feed], sleep) for feed in feeds}
        self._writer = SimulatedWriter(home, chances["writer"], sleep)
        self._gapfill = SimulatedGapFiller(home, self.exchange.truth, sleep)
        self._processes = {**self._collectors, "writer": self._writer, "gapfill": self._gapfill}
        self._paused_until_ns = dict.fromkeys(self._processes, 0)
        self._lives = dict.fromkeys(self._processes, 0)

    def note(self, text: str) -> None:
        """One line of the trace."""
        line = f"{self.time.mono_ns - virtual_time.BOOT_MONO_NS:>16} {text}"
        self._digest.update(line.encode() + b"\n")
        self.evidence.history.append(line)

    def make_uuid(self) -> uuid.UUID:
        """A lineage that is the same in every run of the seed."""
        return uuid.UUID(int=self._uuids.getrandbits(128), version=4)

    def run(self) -> Evidence:
        """Play all segments, let everything settle, stop."""
        for name in self._processes:
            self._start(name)
        for segment in self.plan.segments:
            self._play(segment.begin_ns, segment.end_ns)
        self._settle()
        try:
            self._stop()
        except Exception as error:  # noqa: BLE001 a bug, like one in a turn
            self._record_bug("writer", error)
            self._writer.kill()
        self._close_nameless()
        self.evidence.trace = self._digest.hexdigest()
        return self.evidence

    def _at(self, mono_ns: int, act: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._heap, (mono_ns, self._random.random(), self._count, act))

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self._at(self.time.mono_ns + round(seconds * SECOND_NS), act)

    def _run_until(self, mono_ns: int) -> None:
        while self._heap and self._heap[0][0] <= mono_ns:
            at_ns, _, _, act = heappop(self._heap)
            self.time.mono_ns = max(self.time.mono_ns, at_ns)
            act()
        self.time.mono_ns = max(self.time.mono_ns, mono_ns)

    def _sleep(self, seconds: float) -> None:
        """The acting process sleeps: the others act meanwhile. SimulatedDeath if it is killed in its sleep."""
        sleeper = self._acting
        life = self._lives.get(sleeper)
        self._run_until(self.time.mono_ns + max(1, round(seconds * SECOND_NS)))
        self._acting = sleeper
        if sleeper and (life != self._lives[sleeper] or not self._processes[sleeper].is_alive):
            raise SimulatedDeath(sleeper)

    def _play(self, begin_ns: int, end_ns: int) -> None:
        """Trading from `begin_ns` to `end_ns` (calendar); the hours before pass in one step."""
        offset_ns = self.time.true_offset_ns
        self.time.mono_ns = max(self.time.mono_ns, begin_ns - offset_ns)
        self.note("a segment begins")
        for fault in self.plan.faults:
            if begin_ns <= fault.at_ns < end_ns + 4 * SECOND_NS:
                self._at(fault.at_ns - offset_ns, lambda fault=fault: self._inject(fault))  # type: ignore[misc]
        self._trading_ends_ns = end_ns - offset_ns
        for exchange, feeds in self._markets:
            self._after(0.0, partial(self._trade, exchange, feeds))
        self._run_until(end_ns - offset_ns + 4 * SECOND_NS)

    def _trade(self, exchange: SimulatedExchange, feeds: Sequence[str]) -> None:
        update = exchange.advance(self.time.calendar_ns)
        if update is not None:
            for feed in feeds:
                self._wires[feed].send(update, self.time.mono_ns)
        next_ns = self.time.mono_ns + exchange.next_pause_ns()
        if next_ns < self._trading_ends_ns:
            self._at(next_ns, partial(self._trade, exchange, feeds))

    def _start(self, name: str) -> None:
        """A new life of a process, unless it has one."""
        process = self._processes[name]
        if process.is_alive or self._is_stopping or self._is_off:
            return
        self._acting = name
        self.note(f"{name} starts")
        self._lives[name] += 1
        life = self._lives[name]
        if name in self._collectors:
            self._wires[name].take_arrived(self.time.mono_ns)
        try:
            process.start()
        except SimulatedDeath:
            self._bury(name, 0.5)
            return
        except OSError as error:
            self.note(f"{name} does not start: {error.strerror}")
            self._bury(name, 0.5)
            return
        self._after(0.0, lambda: self._turn(name, life))

    def _turn(self, name: str, life: int) -> None:
        """A turn of a process, and the next one's date."""
        process = self._processes[name]
        if not process.is_alive or life != self._lives[name]:
            return
        if self.time.mono_ns < self._paused_until_ns[name]:
            self._at(self._paused_until_ns[name], lambda: self._turn(name, life))
            return
        self._acting = name
        try:
            pause_s = self._collect(name) if name in self._collectors else process.turn()  # type: ignore[union-attr]
        except SimulatedDeath:
            if process.is_alive and life == self._lives[name]:  # else it was killed in its sleep, and is buried
                self._bury(name, self._random.uniform(0.1, 1.0))
            return
        except Exception as error:  # noqa: BLE001 a bug: the process ends, supervisord starts it again, the oracle tells it
            self._record_bug(name, error)
            self._bury(name, 1.0)
            return
        if name not in self._collectors:
            self.note(f"{name} turns")
        self._after(pause_s + 0.001, lambda: self._turn(name, life))

    def _record_bug(self, name: str, error: Exception) -> None:
        where = traceback.extract_tb(error.__traceback__)[-1]
        self.evidence.faults.append(
            f"{name} ended by a bug: {type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        )
        self.note(f"{name} raises {type(error).__name__}")

    def _collect(self, feed: str) -> float:
        """One poll of a collector."""
        collector, now_ns = self._collectors[feed], self.time.monotonic_ns()
        arrived = self._wires[feed].take_arrived(self.time.mono_ns)
        if not arrived:
            collector.idle(now_ns)
        else:
            before, ring_ids = collector.heads(), collector.ring_ids()
            recv_ns = collector.receive([frame for _, frame in arrived], now_ns)
            for arrived_ns, frame in arrived:
                waited_ns = self.time.mono_ns - arrived_ns
                self.evidence.garbled[feed] += not frame.records
                for record in frame.records:
                    before[record.stream] += 1
                    self.evidence.deliveries.append(
                        Delivery(
                            feed, record, arrived_ns, waited_ns, recv_ns, before[record.stream], ring_ids[record.stream]
                        )
                    )
            if before != collector.heads():
                self.evidence.faults.append(
                    f"{feed}: {before} records were expected, {collector.heads()} are in the rings"
                )
            self._note_claims(feed)
            self.note(f"{feed} publishes {sorted(before.items())}")
        return self._random.uniform(0.02, 0.12)

    def _note_claims(self, feed: str) -> None:
        for stream, claim in self._collectors[feed].claims().items():
            self.evidence.claims[feed, stream] = claim

    def _bury(self, name: str, seconds: float) -> None:
        """A process ended; supervisord starts the next after `seconds`."""
        if name in self._collectors:
            self._wires[name].take_arrived(self.time.mono_ns)
        self._processes[name].kill()
        if name == "writer":
            self.disk.restore_after_kill()
        self._paused_until_ns[name] = 0
        self._after(seconds, lambda: self._start(name))

    def _inject(self, fault: Fault) -> None:
        """One fault of the plan."""
        self.note(f"fault {fault.kind} {fault.target} {fault.amount:g}")
        name, kind = fault.target, fault.kind
        if kind == "clock":
            self.time.step_ns += round(fault.amount * SECOND_NS)
        elif kind == "full":
            self.disk.fill(True)
            self._after(fault.amount, lambda: self.disk.fill(False))
        elif kind == "refuse":
            self.disk.refuse(True)
            self._after(fault.amount, lambda: self.disk.refuse(False))
        elif kind == "power":
            self._cut_power(fault.amount)
        elif kind == "unlink":
            self._close_nameless()
            self._nameless = list(self._open_rings())
            for path in sorted((self._home.run / "ring").iterdir()):
                path.unlink()
        elif kind == "bit":
            self._bury("writer", fault.amount)
            self.evidence.flipped.add(self.disk.flip_bit(self._random))
        elif kind == "error":
            self.disk.arm("error", int(fault.amount))
        elif kind in ("kill before", "kill half", "kill after"):
            self.disk.arm(kind.removeprefix("kill "), int(fault.amount))
        elif kind == "pause":
            self._paused_until_ns[name] = self.time.mono_ns + round(fault.amount * SECOND_NS)
        elif not self._processes[name].is_alive:
            return
        elif kind == "terminate":
            self._terminate_writer(fault.amount)
        else:
            if kind == "kill torn":
                self._collectors[name].tear()
                self._note_claims(name)
            self._bury(name, fault.amount)

    def _cut_power(self, seconds: float) -> None:
        """The machine goes off and comes up again after `seconds`: no process, no ring, CLOCK_MONOTONIC from zero."""
        if self._is_off:
            return
        for feed, stream, ring in (*self._nameless, *self._open_rings()):  # a copy of a nameless one is the newer
            self.evidence.durable[feed, stream, ring.ring_id] = ring.tail - 1
            ring.close()
        self._nameless = []
        for name, process in self._processes.items():
            process.kill()
            self._lives[name] += 1
            self._paused_until_ns[name] = 0
        self.disk.restore_after_kill()
        self.disk.disarm()
        self.disk.cut_power(self._random)
        for path in sorted((self._home.run / "ring").iterdir()):
            path.unlink()
        self._is_off = True
        self._after(seconds, self._boot_machine)

    def _open_rings(self) -> Iterator[tuple[str, str, Consumer]]:
        """Those that have a name."""
        for feed in self._collectors:
            for stream, dtype in STREAMS.items():
                with suppress(FileNotFoundError):
                    yield feed, stream, Consumer.open(self._home.ring_path(feed, stream), dtype)

    def _close_nameless(self) -> None:
        for _, _, ring in self._nameless:
            ring.close()

    def _boot_machine(self) -> None:
        self._is_off = False
        self.time.reboot(self._random.randrange(5 * SECOND_NS, 60 * SECOND_NS))
        for name in self._processes:
            self._start(name)

    def _terminate_writer(self, seconds: float) -> None:
        """SIGTERM: what it does until it exits, then its successor."""
        self._acting, life = "writer", self._lives["writer"]
        with suppress(SimulatedDeath):
            self._writer.finish()
        if life == self._lives["writer"]:
            self._bury("writer", seconds)

    def _settle(self) -> None:
        """No fault any more: the dead come back, what waits is done."""
        self.disk.disarm()
        self._paused_until_ns = dict.fromkeys(self._processes, 0)
        self.note("settles")
        self._run_until(self.time.mono_ns + round(SETTLE_S * SECOND_NS))

    def _stop(self) -> None:
        """`collectorctl stop`."""
        self._is_stopping = True
        for feed, collector in self._collectors.items():
            self.evidence.rings |= {(feed, stream): number for stream, number in collector.ring_ids().items()}
        for name in (*self._collectors, "gapfill"):
            self._processes[name].kill()
        self.note("stops")
        self._acting = "writer"
        if not self._writer.is_alive:
            self.evidence.faults.append("the writer did not come back")
            return
        if self.plan.stop_kill is not None:
            self.disk.arm("after" if self.plan.stop_kill % 2 else "half", self.plan.stop_kill)
            with suppress(SimulatedDeath):
                self._writer.finish()
            self._writer.kill()
            self.disk.restore_after_kill()
            self.disk.disarm()
            self._writer.start()
            self._writer.turn()
        self._writer.finish()


@cache
def _template() -> Home:
    """A home with what is the same in every home and slow to make: the holiday table."""
    root = Path(tempfile.mkdtemp(prefix="cc-simulation-", dir=_memory()))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    (root / "collector.toml").write_text(SETTINGS)
    home = Home(root)
    home.create_directories()
    time = VirtualTime(1_795_132_800 * SECOND_NS)
    with virtual_time.installed(time):
        home.load_calendar()
    return home


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@contextmanager
def simulated_home(plan: Plan) -> Iterator[Home]:
    """A fresh home for a plan, gone afterwards."""
    root = Path(tempfile.mkdtemp(prefix="cc-simulation-", dir=_memory()))
    try:
        (root / "collector.toml").write_text(SETTINGS)
        for feed in plan.all_feeds:
            with (root / ".env").open("a") as env:
                env.write(f"{feed.upper()}_APP_KEY=key-{feed}\n{feed.upper()}_APP_SECRET=secret-{feed}\n")
        (root / ".env").chmod(0o600)
        settings = _template().settings
        # smaller than a home may have them, so that a pause of seconds is enough to lap one
        ring = msgspec.structs.replace(
            settings.ring, orderbook_capacity=plan.ring_capacity, tick_capacity=plan.ring_capacity
        )
        limits = plan.limits
        writer = msgspec.structs.replace(
            settings.writer, segment_max_bytes=limits.segment_max_bytes, row_group_rows=limits.row_group_rows
        )
        us = msgspec.structs.replace(settings.us, enabled=US_FEED in plan.all_feeds)
        home = Home(root, msgspec.structs.replace(settings, ring=ring, writer=writer, us=us))
        home.create_directories()
        shutil.copy(_template().run / "calendar.json", home.run / "calendar.json")
        yield home
    finally:
        gc.collect()
        close_leftovers(root)
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def play(plan: Plan) -> Iterator[Evidence]:
    """The run of a plan; its home exists as long as the context."""
    with simulated_home(plan) as home, ExitStack() as patches:
        world = World(plan, home)
        gc.collect()
        gc.disable()  # what a killed process held is let go at the same instants in every run
        patches.callback(gc.enable)
        for name in virtual_time.PRODUCT:
            logger.disable(name)
            patches.callback(logger.enable, name)
        patches.enter_context(virtual_time.installed(world.time))
        patches.enter_context(simulated_disk.installed(world.disk))
        for module, attribute, value in (
            (journal, "uuid", SimpleNamespace(uuid4=world.make_uuid)),
            (coordinator, "Publisher", InlinePublisher),
            (writer_service, "DiskThread", InlineDiskThread),
            (gapfill_service, "call_with_heartbeat", lambda call, *_: call()),
            (partition, "MAX_PART_ROWS", plan.limits.max_part_rows),
            (ring_reader, "MAX_RECORDS_PER_READ", plan.limits.max_records_per_read),
        ):
            patches.callback(setattr, module, attribute, getattr(module, attribute))
            setattr(module, attribute, value)
        yield world.run()
