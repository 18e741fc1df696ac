"""Collector process: the connections of one broker, a thread each, into its rings.

    allocation ──> connection (key 1), thread ──┐
               ──> connection (key 2), thread ──┴──> kis.orderbook.ring, kis.tick.ring
    this loop: clock steps, failover            (with the ticks of another feed while that is down)

Guarantees:
    * A failing connection does not affect another one.
    * A thread that hangs stops the heartbeat of the process; a thread that raises ends the process as a bug.
    * A stop waits until the connections are closed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from loguru import logger

from brokers.allocation.allocate import ConnectionPlan
from brokers.allocation.failover import FeedState
from brokers.allocation.failover_monitor import FailoverMonitor
from brokers.feed.capture import FrameCapture
from brokers.feed.connection import ConnectionContext, FeedConnection
from brokers.feed.heartbeat import HeartbeatAggregator, ThreadHeartbeat
from brokers.feed.publisher import RingPublisher
from brokers.feed.quarantine import Quarantine
from brokers.protocol import Broker
from brokers.registry import BROKERS
from brokers.subscription import Subscription
from conf.clock import SECOND_NS
from conf.home import Home
from conf.process import ShutdownSignal
from ringbuf.records import STREAMS, EventType
from ringbuf.vitals import Vitals

POLL_INTERVAL_S = 0.5
CLOSE_TIMEOUT_S = 8.0
"""Longest wait for connections to be closed; supervisord waits 10 s."""


class Collector:
    """The connections of one broker, their threads and the loop that watches them."""

    def __init__(self, home: Home, stop: ShutdownSignal, vitals: Vitals, broker: Broker, plan: ConnectionPlan) -> None:
        """SettingsError if a connection's secrets are missing."""
        self._name = broker.name
        self._stop = stop
        self._vitals = vitals
        self._clock = home.load_clock()
        self._heartbeats = HeartbeatAggregator(vitals)
        self._heartbeat = self._heartbeats.add_thread()
        self._failures: list[BaseException] = []
        # a stream that was not subscribed is data as well: only its instrument has to be ours
        instruments = home.settings.instruments(BROKERS[broker.name].market)
        by_code = broker.subscriptions_by_code(
            [
                *(Subscription(instrument, stream) for instrument in instruments for stream in STREAMS),
                *(subscription for connection in plan.connections[broker.name] for subscription in connection.status),
            ]
        )
        self._publisher = RingPublisher(home, broker.name, vitals, self._clock)
        try:
            quarantine = Quarantine(home.quarantine_directory(), broker.name, home.settings.quarantine.max_bytes)
            self._capture = FrameCapture(home, broker.name, vitals, self._clock)
            context = ConnectionContext(
                home,
                stop,
                broker,
                self._clock,
                home.load_calendar(),
                self._publisher,
                quarantine,
                self._capture,
                by_code,
            )
            self._connections = [
                (FeedConnection(context, connection, heartbeat), heartbeat)
                for connection in plan.connections[broker.name]
                for heartbeat in [self._heartbeats.add_thread(f"key {connection.key}")]
            ]
            own_connections = plan.connections[broker.name]
            self._failover_monitors = [
                FailoverMonitor(home, broker.name, own_connections, peer, peer_connections, self._publisher.events)
                for peer, peer_connections in plan.connections.items()
                if peer != broker.name and BROKERS[peer].market == BROKERS[broker.name].market
            ]
        except BaseException:
            self._publisher.close()
            raise

    def run(self) -> None:
        """Run until a stop is requested. Raises the exception that ended a connection's thread."""
        threads = [
            threading.Thread(
                target=self._run_connection, args=(connection, heartbeat), name=heartbeat.name, daemon=True
            )
            for connection, heartbeat in self._connections
        ]
        self._publisher.emit_started()
        self._capture.start()
        for heartbeat in (self._heartbeat, *(heartbeat for _, heartbeat in self._connections)):
            heartbeat.heartbeat()  # the start until here may have taken long
        for thread in threads:
            thread.start()
        try:
            while not self._stop.wait(POLL_INTERVAL_S):
                self._heartbeat.heartbeat()
                self._publisher.restore_paths()
                self._check_clock()
                self._poll_failover()
        finally:
            self._close(threads)
        if self._failures:
            raise self._failures[0]

    def _run_connection(self, connection: FeedConnection, heartbeat: ThreadHeartbeat) -> None:
        """The body of a connection's thread."""
        several = len(self._connections) > 1
        with logger.contextualize(**({"process": f"{self._name} {heartbeat.name}"} if several else {})):
            try:
                connection.run()
            except BaseException as error:  # noqa: BLE001 raised again where the process ends
                self._failures.append(error)
                self._stop.request()
            finally:
                heartbeat.unregister()

    def _check_clock(self) -> None:
        if step_ns := self._clock.detect_step():
            logger.warning("the wall clock was stepped by {:+.3f} s", step_ns / SECOND_NS)
            self._vitals.add("clock_steps")
            self._publisher.on_clock_step(self._clock.mono_ns())
            self._publisher.events.emit(EventType.CLOCK_STEP, value=step_ns)

    def _poll_failover(self) -> None:
        """Run the failover monitor."""
        now_ns = self._clock.mono_ns()
        own = FeedState(now_ns, self._vitals.get("up_keys"), self._vitals.get("last_data_mono_ns"))
        for monitor in self._failover_monitors:
            monitor.poll(now_ns, self._clock.to_calendar_ns(now_ns), own)
        for connection, _ in self._connections:
            key = connection.planned.key
            connection.extra = tuple(
                r for monitor in self._failover_monitors for r in monitor.extra_subscriptions.get(key, ())
            )
        self._vitals.set("taken_over", sum(len(connection.extra) for connection, _ in self._connections))
        self._heartbeats.set_note("; ".join(filter(None, (monitor.status for monitor in self._failover_monitors))))

    def _close(self, threads: Sequence[threading.Thread]) -> None:
        """Wait for the connections to close; then close the rings, unless a thread still writes."""
        deadline_ns = self._clock.mono_ns() + round(CLOSE_TIMEOUT_S * SECOND_NS)
        for thread in threads:
            while thread.is_alive() and self._clock.mono_ns() < deadline_ns:
                thread.join(0.1)
                self._heartbeat.heartbeat()
        self._capture.close()
        if not self._failures:
            self._publisher.events.emit(EventType.STOPPED)
        if not any(thread.is_alive() for thread in threads):
            self._publisher.close()
