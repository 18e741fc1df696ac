"""Collector process: the connections of one broker, a thread each, into its rings.

    allocation ──> connection (key 1), thread ──┐
               ──> connection (key 2), thread ──┴──> kis.orderbook.ring, kis.tick.ring
    this loop: clock steps, failover            (with the ticks of another feed while that is down)
               another list in force            (what is kept of it is not touched)

Guarantees:
    * A failing connection does not affect another one.
    * A thread that hangs stops the heartbeat of the process; a thread that raises ends the process as a bug.
    * A stop waits until the connections are closed.
    * A list in force that was replaced is taken up within two seconds; no connection is closed for it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from loguru import logger

from brokers.allocation.allocate import ConnectionPlan, PlannedConnection, plan_connections
from brokers.allocation.credentials import key_counts
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
from conf.settings import SettingsError
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
        self._home, self._broker = home, broker
        self._stop = stop
        self._vitals = vitals
        self._clock = home.load_clock()
        self._heartbeats = HeartbeatAggregator(vitals)
        self._heartbeat = self._heartbeats.add_thread()
        self._failures: list[BaseException] = []
        self._by_code = self._find_codes(plan)
        self._is_refused = False  # whether the list in force could not be taken up
        self._publisher = RingPublisher(home, broker.name, vitals, self._clock)
        try:
            quarantine = Quarantine(home.quarantine_directory(), broker.name, home.settings.quarantine.max_bytes)
            self._capture = FrameCapture(home, broker.name, vitals, self._clock)
            self._context = ConnectionContext(
                home,
                stop,
                broker,
                self._clock,
                home.load_calendar(),
                self._publisher,
                quarantine,
                self._capture,
                self._by_code,
            )
            self._connections = [self._add_connection(planned) for planned in plan.connections[broker.name]]
            own_connections = plan.connections[broker.name]
            self._failover_monitors = {
                peer: FailoverMonitor(
                    home, broker.name, own_connections, peer, peer_connections, self._publisher.events
                )
                for peer, peer_connections in plan.connections.items()
                if peer != broker.name and BROKERS[peer].market == BROKERS[broker.name].market
            }
        except BaseException:
            self._publisher.close()
            raise

    def _add_connection(self, planned: PlannedConnection) -> tuple[FeedConnection, ThreadHeartbeat]:
        heartbeat = self._heartbeats.add_thread(f"key {planned.key}")
        return FeedConnection(self._context, planned, heartbeat), heartbeat

    def _find_codes(self, plan: ConnectionPlan) -> dict[str, Subscription]:
        """What `decode` has to know: a stream that was not subscribed is data as well, only its instrument has to be ours."""
        instruments = self._home.settings.instruments(BROKERS[self._name].market)
        return self._broker.subscriptions_by_code(
            [
                *(Subscription(instrument, stream) for instrument in instruments for stream in STREAMS),
                *(subscription for connection in plan.connections[self._name] for subscription in connection.status),
            ]
        )

    def _make_thread(self, connection: FeedConnection, heartbeat: ThreadHeartbeat) -> threading.Thread:
        return threading.Thread(
            target=self._run_connection, args=(connection, heartbeat), name=heartbeat.name, daemon=True
        )

    def run(self) -> None:
        """Run until a stop is requested. Raises the exception that ended a connection's thread."""
        self._threads = [self._make_thread(*one) for one in self._connections]
        self._publisher.emit_started()
        self._capture.start()
        for heartbeat in (self._heartbeat, *(heartbeat for _, heartbeat in self._connections)):
            heartbeat.heartbeat()  # the start until here may have taken long
        for thread in self._threads:
            thread.start()
        try:
            while not self._stop.wait(POLL_INTERVAL_S):
                self._heartbeat.heartbeat()
                self._publisher.restore_paths()
                self._check_clock()
                if self._home.take_up_list():
                    self._replan()
                self._poll_failover()
                self._confirm_list()
        finally:
            self._close(self._threads)
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

    def _replan(self) -> None:
        """Let the connections collect what the list in force says; what stays on its key is not touched."""
        try:
            plan = plan_connections(self._home.settings, key_counts(self._home))
            planned = {connection.key: connection for connection in plan.connections[self._name]}
            present = {connection.planned.key for connection, _ in self._connections}
            added = [self._add_connection(planned[key]) for key in planned if key not in present]
        except SettingsError as error:
            logger.error("the list in force is not taken up: {}", error)
            self._is_refused = True
            return
        self._is_refused = False
        self._by_code.update(self._find_codes(plan))  # codes that went stay known: their data may be on its way
        for connection, _ in self._connections:
            key = connection.planned.key
            connection.planned = planned.get(key, PlannedConnection(key, ()))
        instruments = self._home.settings.instruments(BROKERS[self._name].market)
        for peer, monitor in self._failover_monitors.items():
            monitor.replan(instruments, plan.connections[self._name], plan.connections[peer])
        for one in added:
            self._connections.append(one)
            self._threads.append(self._make_thread(*one))
            self._threads[-1].start()
        logger.info("another list is in force: {} instruments", len(instruments))

    def _confirm_list(self) -> None:
        """State which list is taken up, once every connection has asked for what it says."""
        found = self._home.settings.in_force
        if (
            found is not None
            and not self._is_refused
            and all(connection.is_synced for connection, _ in self._connections)
        ):
            self._vitals.set("list_number", found.number)

    def _poll_failover(self) -> None:
        """Run the failover monitor."""
        now_ns = self._clock.mono_ns()
        own = FeedState(now_ns, self._vitals.get("up_keys"), self._vitals.get("last_data_mono_ns"))
        monitors = self._failover_monitors.values()
        for monitor in monitors:
            monitor.poll(now_ns, self._clock.to_calendar_ns(now_ns), own)
        for connection, _ in self._connections:
            key = connection.planned.key
            connection.extra = tuple(r for monitor in monitors for r in monitor.extra_subscriptions.get(key, ()))
        self._vitals.set("taken_over", sum(len(connection.extra) for connection, _ in self._connections))
        self._heartbeats.set_note("; ".join(filter(None, (monitor.status for monitor in monitors))))

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
