"""The collector process of one broker: its connections, one thread each, into the broker's rings.

    plan ──> connection (key 1), thread ──┐
         ──> connection (key 2), thread ──┼──> kis.orderbook.ring, kis.tick.ring
    clock, other lines <── this loop   ───┘     (their ticks while they are down: standin.py)

Promises: one connection's trouble is not another's; a thread that hangs stops the heartbeat of the whole, one that fails ends the
process as a bug; a stop waits until the connections are closed.
Leaves to others: everything on a connection (connection.py), who takes part in the heartbeat (pulse.py).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from loguru import logger

from brokers.allocation.allocate import Plan
from brokers.allocation.failover import Sight
from brokers.allocation.failover_monitor import StandIn
from brokers.feed.connection import LiveConnection, Shared
from brokers.feed.heartbeat import Pulse, Pulses
from brokers.feed.publisher import Rings
from brokers.feed.quarantine import Quarantine
from brokers.protocol import Broker
from brokers.registry import BROKERS
from brokers.subscription import Registration
from conf.clock import SECOND_NS
from conf.home import Home
from conf.process import Stop
from ringbuf.records import STREAMS, Kind
from ringbuf.vitals import Vitals

TURN_S = 0.5
LEAVE_S = 8.0
"""Longest wait for connections to be closed; supervisord waits 10 s."""


class Collector:
    """One broker's connections, for the life of the process."""

    def __init__(self, home: Home, stop: Stop, vitals: Vitals, broker: Broker, plan: Plan) -> None:
        """SettingsError if a connection's secrets are missing."""
        self._name = broker.name
        self._stop = stop
        self._vitals = vitals
        self._clock = home.clock()
        self._pulses = Pulses(vitals)
        self._pulse = self._pulses.add()
        self._failures: list[BaseException] = []
        # A stream that came without being asked for is data all the same: only its instrument has to be ours.
        instruments = home.settings.instruments(BROKERS[broker.name].market)
        known = broker.known(Registration(instrument, stream) for instrument in instruments for stream in STREAMS)
        self._rings = Rings(home, broker.name, vitals, self._clock)
        try:
            quarantine = Quarantine(home.quarantine(), broker.name, home.settings.quarantine.most_bytes)
            shared = Shared(home, stop, broker, self._clock, home.calendar(), self._rings, quarantine, known)
            self._connections = [
                (LiveConnection(shared, connection, pulse), pulse)
                for connection in plan.connections[broker.name]
                for pulse in [self._pulses.add(f"key {connection.key}")]
            ]
            own = plan.connections[broker.name]
            self._standins = [
                StandIn(home, broker.name, own, other, planned, self._rings.events)
                for other, planned in plan.connections.items()
                if other != broker.name and BROKERS[other].market == BROKERS[broker.name].market
            ]
        except BaseException:
            self._rings.close()
            raise

    def run(self) -> None:
        """Until a stop is requested. Raises what a connection's thread failed with."""
        threads = [
            threading.Thread(target=self._live, args=(connection, pulse), name=pulse.name, daemon=True)
            for connection, pulse in self._connections
        ]
        self._rings.started()
        for pulse in (self._pulse, *(pulse for _, pulse in self._connections)):
            pulse.beat()  # what was prepared until now may have taken long
        for thread in threads:
            thread.start()
        try:
            while not self._stop.wait(TURN_S):
                self._pulse.beat()
                self._follow_clock()
                self._stand_in()
        finally:
            self._close(threads)
        if self._failures:
            raise self._failures[0]

    def _live(self, connection: LiveConnection, pulse: Pulse) -> None:
        """The body of a connection's thread."""
        several = len(self._connections) > 1
        with logger.contextualize(**({"process": f"{self._name} {pulse.name}"} if several else {})):
            try:
                connection.run()
            except BaseException as error:  # noqa: BLE001 raised again where the process ends
                self._failures.append(error)
                self._stop.request()
            finally:
                pulse.leave()

    def _follow_clock(self) -> None:
        if step_ns := self._clock.follow_wall():
            logger.warning("the wall clock was stepped by {:+.3f} s", step_ns / SECOND_NS)
            self._vitals.add("clock_steps")
            self._rings.clock_stepped(self._clock.mono_ns())
            self._rings.events.tell(Kind.CLOCK_STEP, number=step_ns)

    def _stand_in(self) -> None:
        """Look after the other lines' ticks."""
        now_ns = self._clock.mono_ns()
        own = Sight(now_ns, self._vitals.get("up_keys"), self._vitals.get("last_data_mono_ns"))
        for standin in self._standins:
            standin.look(now_ns, self._clock.at(now_ns), own)
        for connection, _ in self._connections:
            key = connection.planned.key
            connection.more = tuple(r for standin in self._standins for r in standin.more.get(key, ()))
        self._vitals.set("taken_over", sum(len(connection.more) for connection, _ in self._connections))
        self._pulses.note("; ".join(filter(None, (standin.words for standin in self._standins))))

    def _close(self, threads: Sequence[threading.Thread]) -> None:
        """Wait for the connections to be closed; then let go of the rings, unless somebody still writes."""
        give_up_ns = self._clock.mono_ns() + round(LEAVE_S * SECOND_NS)
        for thread in threads:
            while thread.is_alive() and self._clock.mono_ns() < give_up_ns:
                thread.join(0.1)
                self._pulse.beat()
        if not self._failures:
            self._rings.events.tell(Kind.STOPPED)
        if not any(thread.is_alive() for thread in threads):
            self._rings.close()
