"""Connection loop of all brokers: connect, log in, subscribe, read, decode, publish, reconnect.

    credential -> websocket -> session ---outgoing---> websocket
                   |         ^ control
                   `-> decode +--> rings
                             `---> quarantine

Guarantees:
    * The loop sends a heartbeat at least every second, whatever it waits for; an outage never ends it.
    * No connection is made with a key that another home of this host has in use.
    * No attempt comes sooner than the vendor allows (BrokerError.retry_after_s) nor than the backoff.
    * What was received before a failure is published; a stop closes the connection properly, so that the vendor frees the
      slot.
    * Subscriptions (of another plan, or extra ones of a failover) are added and released without disturbing the others.
    * A connection that is closed twice in a row before its login was answered costs the token, and one on which KIS sent no
      data at all, whether it acknowledged or not, the approval key: a vendor may refuse one that way, too.
    * A busy connection is read every feed.coalesce_ms; a message on a quiet one is read when it comes.
    * No key makes more connections an hour than the settings allow, across kills of the process as well.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from loguru import logger

from brokers.allocation.allocate import PlannedConnection
from brokers.decoded import DecodedBatch
from brokers.errors import BrokerError, ConnectionClosed, ConnectionClosedAbnormally, SessionError, SessionExpired
from brokers.feed.capture import FrameCapture
from brokers.feed.connection_events import ConnectionEvents
from brokers.feed.connection_report import ConnectionReport
from brokers.feed.halts import StateChanges
from brokers.feed.heartbeat import ThreadHeartbeat
from brokers.feed.liveness import LivenessMonitor
from brokers.feed.publisher import RingPublisher
from brokers.feed.quarantine import Quarantine
from brokers.feed.rejects import RejectRate, Rejects
from brokers.protocol import Broker, FeedSession
from brokers.subscription import Subscription, SubscriptionTable
from brokers.transport.backoff import Backoff
from brokers.transport.blocking_call import Result, ShutdownRequested, call_with_heartbeat
from brokers.transport.connect_limit import ConnectLimit
from brokers.transport.key_lock import KeyLock
from brokers.transport.websocket import WebSocketConnection
from conf.calendar import TradingCalendar
from conf.clock import SECOND_NS, Clock
from conf.home import Home
from conf.process import ShutdownSignal
from ringbuf.records import EventType
from ringbuf.vitals import ProcessState

HEARTBEAT_INTERVAL_S = 0.5
STORE_INTERVAL_NS = SECOND_NS // 100
"""Heartbeat, time of the latest data and what was received are stored at most this often: whoever reads them counts seconds."""
POLL_S = 0.25
POLL_SUBSCRIBING_S = 0.02
STABLE_NS = 10 * SECOND_NS
"""A connection that lasted this long was a good one: the backoff begins small again."""
REFUSED_WAIT_S = 60.0
"""Pause after a key or token was refused that had just been renewed."""
MAX_CLOSED_LOGINS = 2
"""Connections in a row that may be closed before the login was answered."""
LARGE_POLL_BYTES = 1 << 20
"""What a poll brings at the busiest is a tenth of it; after more, memory is given back."""


class ConnectionContext(NamedTuple):
    """What all connections of a broker have in common."""

    home: Home
    stop: ShutdownSignal
    broker: Broker
    clock: Clock
    calendar: TradingCalendar
    publisher: RingPublisher
    quarantine: Quarantine
    capture: FrameCapture
    by_code: Mapping[str, Subscription]


class FeedConnection:
    """One connection of one broker, for the life of the process; `run` is the body of its thread.

    `planned` and `extra`, subscriptions beyond the plan's own, are set by another thread; they are taken up within a second.
    """

    _session: FeedSession  # of the present or latest connection, like its table
    _subscription_table: SubscriptionTable

    def __init__(self, context: ConnectionContext, planned: PlannedConnection, heartbeat: ThreadHeartbeat) -> None:
        """SettingsError if the secrets of its key are missing."""
        home = context.home
        self.planned = planned
        self.extra: tuple[Subscription, ...] = ()
        self._synced: PlannedConnection | None = None  # what a living connection has asked for; None: there is none
        self._settings = home.settings
        self._broker, self._clock = context.broker, context.clock
        self._calendar, self._stop = context.calendar, context.stop
        self._by_code = context.by_code
        self._publisher, self._capture = context.publisher, context.capture
        self._heartbeat = heartbeat
        self._key_lock = KeyLock(home, self._broker.name, planned.key)
        self._credential = self._broker.create_credential(home, planned.key)
        self._credential_refreshed = False
        self._closed_logins = 0
        connects_ns = context.publisher.events.stored_times_ns(EventType.CONNECTED, planned.key)
        self._connect_limit = ConnectLimit(home.settings.feed.max_connects_per_hour, connects_ns)
        self._events = ConnectionEvents(context.publisher.events, self._clock, planned.key)
        self._report = ConnectionReport(self._events, heartbeat, planned.key)
        self._rejects = Rejects(context.quarantine, self._events, heartbeat, self._clock)
        self._reject_rate = RejectRate()
        self._state_changes = StateChanges()
        self._liveness = LivenessMonitor(home.settings, context.calendar, self._broker.heartbeat_s)
        self._backoff = Backoff(home.settings.feed.backoff_first_s, home.settings.feed.backoff_max_s)
        self._trim_due = False

    @property
    def is_synced(self) -> bool:
        """Whether what is planned now was asked for; the next connection will ask for it, if there is none."""
        synced = self._synced
        return synced is None or synced is self.planned

    def run(self) -> None:
        """Until a stop is requested."""
        try:
            while not self._stop.requested:
                try:
                    self._sleep()
                    self._run_once()
                except BrokerError as error:
                    self._back_off(error)
        except ShutdownRequested:
            pass
        finally:
            self._key_lock.release()

    def _sleep(self) -> None:
        """Sleep while no session is open; raises if a stop is requested meanwhile."""
        venues = self._find_venues()
        if not self._liveness.may_disconnect(venues, self._clock.now_ns()):
            return
        description = self._calendar.describe(venues, self._clock.now_ns())
        logger.info("sleeping: {}", description)
        self._heartbeat.set_state(ProcessState.SLEEPING, description)
        while self._liveness.may_disconnect(venues, self._clock.now_ns()):
            self._wait(HEARTBEAT_INTERVAL_S)

    def _find_venues(self) -> set[str]:
        """Of everything this connection is for."""
        return {subscription.instrument.venue for subscription in (*self.planned.subscriptions, *self.extra)}

    def _wanted_subscriptions(self) -> dict[Subscription, None]:
        """The plan's and the extra ones; status where neither needs the slot."""
        needed = dict.fromkeys((*self.planned.subscriptions, *self.extra))
        limit = getattr(self._settings, self._broker.name).max_subscriptions
        return needed | dict.fromkeys(self.planned.status[: max(0, limit - len(needed))])

    def _run_once(self) -> None:
        """One connection from handshake to its end. BrokerError if it was not asked for."""
        self._key_lock.acquire()
        self._wait_for_connect_limit()
        self._heartbeat.set_state(ProcessState.CONNECTING)
        credential = self._call_with_heartbeat(self._credential.get)
        url, max_bytes = self._broker.websocket_url(self._settings), self._settings.feed.frame_max_bytes
        self._connect_limit.on_connect(self._clock.mono_ns())
        websocket = self._call_with_heartbeat(lambda: WebSocketConnection.connect(url, max_bytes))
        connected_ns = self._clock.mono_ns()
        self._synced = self.planned
        self._subscription_table = SubscriptionTable(self._wanted_subscriptions())
        self._session = self._broker.create_session(self._settings, credential, self._subscription_table)
        self._liveness.on_connected(connected_ns)
        self._report.connected(url)
        reason = "the process failed"
        try:
            self._message_loop(websocket)
            reason = "asked to stop" if self._stop.requested else "outside all sessions"
        except BrokerError as error:
            reason = str(error)
            if isinstance(error, ConnectionClosedAbnormally):
                # the vendor may hold the slot of a session whose end it has not detected (docs/wire/kis.md 2.6)
                error.retry_after_s = max(error.retry_after_s, getattr(self._settings, self._broker.name).cut_wait_s)
            if isinstance(error, SessionExpired) and not self._subscription_table.any_data():
                error.refresh_credential |= self._broker.silence_means_refusal
            if self._session.is_answered:
                self._closed_logins = 0
            elif isinstance(error, ConnectionClosed) and self._session.state == ProcessState.LOGGING_IN:
                self._closed_logins += 1
                if self._closed_logins == MAX_CLOSED_LOGINS:
                    self._closed_logins, error.refresh_credential = 0, True
            raise
        finally:
            self._synced = None
            self._report.disconnected(reason, self._liveness.last_frame_ns, self._subscription_table)
            websocket.close()
            if self._clock.mono_ns() - connected_ns > STABLE_NS:
                self._backoff.reset()

    def _message_loop(self, websocket: WebSocketConnection) -> None:
        session, liveness, read_mono_ns = self._session, self._liveness, self._clock.mono_ns
        maintained_ns, stored_ns, poll_s = 0, 0, POLL_SUBSCRIBING_S
        coalesce_s = self._settings.feed.coalesce_ms / 1000
        coalesce_ns = round(coalesce_s * SECOND_NS)
        state: ProcessState | None = None
        while not self._stop.requested:
            now_ns = read_mono_ns()
            if now_ns - maintained_ns >= SECOND_NS or session.state != state:
                maintained_ns, state = now_ns, session.state
                poll_s = POLL_S if state == ProcessState.STREAMING else POLL_SUBSCRIBING_S
                self._maintain(now_ns)
                if liveness.may_disconnect(self._find_venues(), self._clock.to_calendar_ns(now_ns)):
                    break
            if now_ns - stored_ns >= STORE_INTERVAL_NS:
                stored_ns = now_ns
                self._heartbeat.heartbeat()
                self._report.store_received()
                if liveness.last_data_ns:
                    self._heartbeat.set("last_data_mono_ns", liveness.last_data_ns)
            for message in session.pending_messages(now_ns):
                websocket.send_text(message)
                self._heartbeat.heartbeat()  # the server may accept them slowly
            if messages := websocket.poll(poll_s):
                self._handle_messages(messages)
                if messages[0][1] - now_ns < coalesce_ns:  # it was there at once: more are on their way
                    time.sleep(coalesce_s)
        if messages := websocket.poll(0):  # what had arrived before the stop
            self._handle_messages(messages)

    def _handle_messages(self, messages: list[tuple[bytes, int]]) -> None:
        """Decode and publish what one poll brought; control messages go to the session.

        If the session ends with one of them, the rest of the poll is published before SessionError is raised.
        """
        self._capture.offer(messages, self.planned.key)
        decode, by_code, to_calendar_ns = self._broker.decode, self._by_code, self._clock.to_calendar_ns
        on_data = self._subscription_table.on_data
        batch: DecodedBatch | None = None
        failure: SessionError | None = None
        first_books: list[int] = []
        first_ticks: list[int] = []
        size = mono_ns = books = ticks = 0
        for payload, mono_ns in messages:
            size += len(payload)
            decoded = decode(payload, by_code, to_calendar_ns(mono_ns), mono_ns)
            if batch is None:
                batch = decoded  # at the pace of a real day a poll brings one message
            else:
                batch.extend(decoded)
            for subscription in decoded.book_subscriptions:
                if on_data(subscription, mono_ns):
                    first_books.append(books)
                books += 1
            for subscription in decoded.tick_subscriptions:
                if on_data(subscription, mono_ns):
                    first_ticks.append(ticks)
                ticks += 1
            if decoded.control or decoded.rejects or decoded.market_events or decoded.oversized_frames:
                try:
                    self._handle_non_data(payload, decoded, mono_ns)
                except SessionError as error:
                    failure = failure or error
        self._report.received(len(messages), size)
        self._trim_due |= size > LARGE_POLL_BYTES
        self._liveness.on_frame(mono_ns)
        if batch is not None and (books or ticks):
            self._reject_rate.add(books + ticks, 0)
            self._publisher.publish(batch, first_books, first_ticks, mono_ns)
            self._liveness.on_data(mono_ns)
        if batch is not None and batch.empty_trades:
            self._heartbeat.add("empty_trades", batch.empty_trades)
        if failure:
            raise failure

    def _handle_non_data(self, payload: bytes, decoded: DecodedBatch, mono_ns: int) -> None:
        """Handle the parts of a message that are no records."""
        self._heartbeat.heartbeat()  # a poll may bring thousands of them
        self._reject_rate.add(0, len(decoded.rejects))
        for raw, reason in decoded.rejects:
            self._rejects.quarantine(raw, reason, mono_ns)
        self._events.market_events(self._state_changes.filter(decoded.market_events), mono_ns)
        if decoded.oversized_frames:
            self._rejects.report_widths(decoded.oversized_frames)
        if decoded.control is None:
            return
        self._heartbeat.add("control")
        result = self._session.receive(payload, mono_ns)
        if result.message:
            logger.info("{}", result.message)
        if result.unexpected:
            self._rejects.quarantine(payload, result.message, mono_ns)
        if result.lost:
            self._report.resubscribed(result.lost, "released by the server, though nobody asked")
            self._heartbeat.add("resubscribed", len(result.lost))
        self._report.subscriptions(self._subscription_table)

    def _maintain(self, now_ns: int) -> None:
        """Once a second, and when the session state changed: maintain subscriptions and publish the state.

        SessionExpired if the connection is of no use any more.
        """
        session, table, liveness = self._session, self._subscription_table, self._liveness
        self._events.flush_if_due(now_ns)
        if self._trim_due:
            self._trim_due = False
            _release_memory()
        session.check_timeouts(now_ns)
        planned = self.planned
        self._sync_subscriptions(now_ns)
        calendar_ns = self._clock.to_calendar_ns(now_ns)
        liveness.update_open_venues(calendar_ns, {r.instrument.venue for r in table.states}, now_ns)
        liveness.check_connection(session.state == ProcessState.STREAMING, now_ns)
        if lost := table.lost(now_ns):
            session.resubscribe(lost, now_ns, unsubscribe_first=False)
        if unacknowledged := liveness.unacknowledged_subscriptions(table, now_ns):
            session.resubscribe(unacknowledged, now_ns, unsubscribe_first=False)
            self._report.resubscribed(unacknowledged, "not acknowledged in time")
        if stale := liveness.stale_subscriptions(table, now_ns):
            session.resubscribe(stale, now_ns, unsubscribe_first=True)
            self._report.resubscribed(stale, "silent for too long")
            self._heartbeat.add("resubscribed", len(stale))
        self._report.subscriptions(table)
        self._heartbeat.set("connects_hour", self._connect_limit.count(now_ns))
        state, details = session.state, table.describe_refusals()
        if state == ProcessState.STREAMING:
            self._credential_refreshed = False
            self._report.streaming()
            if not liveness.is_open:
                state = ProcessState.CLOSED_MARKET
                details.insert(0, self._calendar.describe(self._find_venues(), calendar_ns))
            if alarm := self._reject_rate.check(now_ns):
                state = ProcessState.DEGRADED
                details.insert(0, alarm)
        self._heartbeat.set_state(state, "; ".join(details))
        self._synced = planned  # after the state, which says that it is not acknowledged yet

    def _sync_subscriptions(self, now_ns: int) -> None:
        """Release what is no longer wanted, then subscribe what is wanted now."""
        wanted, present = self._wanted_subscriptions(), self._subscription_table.states
        if unwanted := [subscription for subscription in present if subscription not in wanted]:
            self._session.unsubscribe(unwanted, now_ns)
            self._events.unsubscribed(unwanted)
        if new := [subscription for subscription in wanted if subscription not in present]:
            self._session.subscribe(new, now_ns)

    def _back_off(self, error: BrokerError) -> None:
        """Publish the error and wait as long as backoff and vendor require; raises if a stop is requested meanwhile."""
        state, pause_s = error.state, max(error.retry_after_s, self._backoff.next_s())
        if error.refresh_credential:
            if self._credential_refreshed:
                pause_s = max(pause_s, REFUSED_WAIT_S)
            else:
                state = ProcessState.RETRYING
            self._credential_refreshed = True
            self._call_with_heartbeat(self._credential.invalidate)
        logger.warning("{}; next attempt in {:.1f} s", error, pause_s)
        self._heartbeat.set_state(state, str(error))
        _release_memory()
        until_ns = self._clock.mono_ns() + round(pause_s * SECOND_NS)
        while (left_ns := until_ns - self._clock.mono_ns()) > 0:
            self._wait(min(HEARTBEAT_INTERVAL_S, left_ns / SECOND_NS))

    def _wait_for_connect_limit(self) -> None:
        """Wait until another connection is allowed; raises if a stop is requested meanwhile."""
        limit, mono_ns = self._connect_limit, self._clock.mono_ns
        if not limit.wait_ns(mono_ns()):
            return
        described = (
            f"{limit.count(mono_ns())} connections in the last hour: the next in {limit.wait_ns(mono_ns()) / SECOND_NS:.0f} s, "
            f"so that the vendor does not block the address (feed.max_connects_per_hour = {limit.per_hour})"
        )
        logger.warning("{}", described)
        self._heartbeat.set_state(ProcessState.CONNECT_LIMIT, described)
        while (left_ns := limit.wait_ns(mono_ns())) > 0:
            self._wait(min(HEARTBEAT_INTERVAL_S, left_ns / SECOND_NS))

    def _wait(self, seconds: float) -> None:
        """Wait no longer than one heartbeat; raises if a stop is requested meanwhile."""
        self._heartbeat.heartbeat()
        if self._stop.wait(seconds):
            raise ShutdownRequested

    def _call_with_heartbeat(self, call: Callable[[], Result]) -> Result:
        """See blocking_call.py; no subscription was sent on the connection of an abandoned call."""
        return call_with_heartbeat(call, self._heartbeat, self._stop)


def _release_memory() -> None:
    """Return freed memory of large messages to the system: the allocator keeps one arena per thread."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)
