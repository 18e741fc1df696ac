"""One connection, and the one loop for all brokers: connect, log in, subscribe, read, decode, publish, answer, reconnect.

    credential -> wire -> session ---outgoing---> wire
                   |         ^ control
                   `-> decode +--> rings
                             `---> quarantine

Promises: beats at least every second whatever it waits for; an outage is never a reason to exit; no attempt comes sooner than
the vendor allows (BrokerError.wait_s) nor than the backoff; what was received before a failure is published; a stop
closes the connection properly, so that the vendor's slot is free again; what is asked for in `more` is registered, and released
when it is no longer asked for, without disturbing the rest.
Leaves to others: what a vendor says and wants (sessions), judging silence (watch.py), bytes (wire.py, publish.py), the other
connections of the broker (collector.py).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import NamedTuple

from loguru import logger

from brokers.allocation.allocate import Connection
from brokers.decoded import Decoded
from brokers.errors import WORDS_MOST, BrokerError, Cut, SessionError
from brokers.feed.connection_events import Tidings
from brokers.feed.heartbeat import Pulse
from brokers.feed.liveness import Watch
from brokers.feed.publisher import Rings
from brokers.feed.quarantine import Quarantine
from brokers.protocol import Broker, Session
from brokers.subscription import Ledger, Registration
from brokers.transport.backoff import Backoff
from brokers.transport.blocking_call import Result, Stopping, beating
from brokers.transport.websocket import Wire
from conf.calendar import Calendar
from conf.clock import SECOND_NS, Clock
from conf.home import Home
from conf.process import Stop

BEAT_S = 0.5
POLL_S = 0.25
POLL_SUBSCRIBING_S = 0.02
LASTED_NS = 10 * SECOND_NS
"""A connection that lasted this long was a good one: the backoff begins small again."""
REFUSED_WAIT_S = 60.0
"""Pause after a key or token was refused that had just been renewed."""
QUARANTINE_LOG_NS = 60 * SECOND_NS
WIDTHS_MOST = 100
"""Widths beyond the known ones that are remembered as reported."""
LARGE_BYTES = 1 << 20
"""What a poll brings at the busiest is a tenth of it; after more, memory is given back."""


class Shared(NamedTuple):
    """What all connections of a broker have in common."""

    home: Home
    stop: Stop
    broker: Broker
    clock: Clock
    calendar: Calendar
    rings: Rings
    quarantine: Quarantine
    known: Mapping[str, Registration]


class LiveConnection:
    """One connection of one broker, for the life of the process; `run` is the body of its thread.

    `more`: registrations beyond the plan's own, set by another thread.
    """

    def __init__(self, shared: Shared, planned: Connection, pulse: Pulse) -> None:
        """SettingsError if the secrets of its key are missing."""
        home, self._broker, self._clock = shared.home, shared.broker, shared.clock
        self.planned = planned
        self.more: tuple[Registration, ...] = ()
        self._settings = home.settings
        self._stop = shared.stop
        self._pulse = pulse
        self._known = shared.known
        self._credential = self._broker.credential(home, planned.key)
        self._rings = shared.rings
        self._tidings = Tidings(shared.rings.events, self._clock, planned.key)
        self._quarantine = shared.quarantine
        self._calendar = shared.calendar
        self._watch = Watch(home.settings, shared.calendar, self._broker.heartbeat_s)
        self._backoff = Backoff(home.settings.feed.backoff_first_s, home.settings.feed.backoff_most_s)
        self._renewed = False
        self._shown = b""
        self._widths: set[tuple[str, int]] = set()
        self._quarantine_logged_ns = 0
        self._large = False

    def run(self) -> None:
        """Until a stop is requested."""
        try:
            while not self._stop.requested:
                try:
                    self._sleep()
                    self._connection()
                except BrokerError as error:
                    self._recover(error)
        except Stopping:
            pass

    def _sleep(self) -> None:
        """As long as nothing is to be heard. Stopping if asked to stop meanwhile."""
        venues = self._venues()
        if not self._watch.may_sleep(venues, self._clock.now_ns()):
            return
        words = self._calendar.said(venues, self._clock.now_ns())
        logger.info("sleeping: {}", words)
        self._pulse.say("sleeping", words)
        while self._watch.may_sleep(venues, self._clock.now_ns()):
            self._pulse.beat()
            if self._stop.wait(BEAT_S):
                raise Stopping

    def _venues(self) -> set[str]:
        """Of everything this connection is for."""
        return {registration.instrument.venue for registration in (*self.planned.registrations, *self.more)}

    def _connection(self) -> None:
        """One connection from handshake to its end. BrokerError if it was not asked for."""
        self._pulse.say("connecting")
        credential = self._beating(self._credential.get)
        self._shown = credential.encode()
        address, most_bytes = self._broker.address(self._settings), self._settings.feed.frame_most_bytes
        wire = self._beating(lambda: Wire.connect(address, most_bytes))
        began_ns = self._clock.mono_ns()
        logger.info("connected to {}", address)
        self._pulse.add("connects")
        self._pulse.set("connected", 1)
        ledger = Ledger((*self.planned.registrations, *self.more))
        session = self._broker.session(self._settings, credential, ledger)
        self._watch.connected(began_ns)
        self._tidings.connected(address)
        why = "the process failed"
        try:
            self._converse(wire, session, ledger)
            why = "asked to stop" if self._stop.requested else "outside all sessions"
        except BrokerError as error:
            why = str(error)
            if isinstance(error, Cut):
                # the vendor may hold the slot of a session whose end it has not noticed (spec kis 2.6)
                error.wait_s = max(error.wait_s, getattr(self._settings, self._broker.name).cut_wait_s)
            raise
        finally:
            self._tidings.answered(ledger)
            self._tidings.disconnected(why, self._watch.frame_ns)
            self._stand(False)
            self._pulse.set("connected", 0)
            self._pulse.add("disconnects")
            wire.close()
            if self._clock.mono_ns() - began_ns > LASTED_NS:
                self._backoff.reset()

    def _converse(self, wire: Wire, session: Session, ledger: Ledger) -> None:
        watched_ns = 0
        state = ""
        while not self._stop.requested:
            now_ns = self._clock.mono_ns()
            if now_ns - watched_ns >= SECOND_NS or session.state != state:
                watched_ns, state = now_ns, session.state
                self._look_after(session, ledger, now_ns)
                if self._watch.may_sleep(self._venues(), self._clock.at(now_ns)):
                    break
            for message in session.outgoing(now_ns):
                wire.send_text(message)
                self._pulse.beat()  # the other side may take them slowly
            messages = wire.poll(POLL_S if state == "streaming" else POLL_SUBSCRIBING_S)
            self._pulse.beat()
            if messages:
                self._take(messages, session, ledger)
        if messages := wire.poll(0):  # what had arrived before the stop
            self._take(messages, session, ledger)

    def _take(self, messages: list[tuple[bytes, int]], session: Session, ledger: Ledger) -> None:
        """Decode and publish what one poll brought; control messages go to the session.

        If the session ends with one of them, the rest of the poll is published before SessionError is raised.
        """
        batch = Decoded()
        failure: SessionError | None = None
        first_books: list[int] = []
        first_ticks: list[int] = []
        broker, known, clock = self._broker, self._known, self._clock
        for payload, mono_ns in messages:
            decoded = broker.decode(payload, known, clock.at(mono_ns), mono_ns)
            for of, rows, firsts in (
                (decoded.book_of, batch.book_rows, first_books),
                (decoded.tick_of, batch.tick_rows, first_ticks),
            ):
                for nth, registration in enumerate(of, len(rows)):
                    if ledger.heard(registration, mono_ns):
                        firsts.append(nth)
            batch.take(decoded, mono_ns)
            if decoded.control or decoded.rejected or decoded.happened or decoded.wide:
                try:
                    self._take_rest(payload, decoded, mono_ns, session, ledger)
                except SessionError as error:
                    failure = failure or error
        last_ns = messages[-1][1]
        self._pulse.add("frames", len(messages))
        size = sum(len(payload) for payload, _ in messages)
        self._pulse.add("bytes", size)
        self._large |= size > LARGE_BYTES
        self._watch.frame(last_ns)
        if batch.received and any(batch.received.values()):
            self._rings.publish(batch, first_books, first_ticks, last_ns)
            self._watch.data(last_ns)
            self._pulse.set("last_data_mono_ns", last_ns)
        if failure:
            raise failure

    def _take_rest(self, payload: bytes, decoded: Decoded, mono_ns: int, session: Session, ledger: Ledger) -> None:
        """What of a message is no record."""
        self._pulse.beat()  # a poll may bring thousands of them
        for raw, reason in decoded.rejected:
            self._keep(raw, reason, mono_ns)
        self._tidings.happened(decoded.happened, mono_ns)
        if decoded.wide:
            self._pulse.add("wide_frames")
            for kind, width in set(decoded.wide) - self._widths:
                if len(self._widths) >= WIDTHS_MOST:
                    break
                self._widths.add((kind, width))
                logger.warning(
                    "{} comes with {} fields, a width nobody knows: what is not understood is kept in `extra`",
                    kind,
                    width,
                )
        if decoded.control is None:
            return
        self._pulse.add("control")
        heard = session.receive(payload, mono_ns)
        if heard.words:
            logger.info("{}", heard.words)
        if heard.strange:
            self._keep(payload, heard.words, mono_ns)
        self._count(ledger)

    def _keep(self, raw: bytes, reason: str, mono_ns: int) -> None:
        """Put a frame aside, count it, say so once a minute. The key or token that was shown is not kept with it."""
        if self._shown:
            raw = raw.replace(self._shown, b"***")
        reason = reason[:WORDS_MOST]
        failure = self._quarantine.keep(raw, reason, self._clock.at(mono_ns), mono_ns)
        self._tidings.put_aside(reason, mono_ns)
        self._pulse.add("quarantine_overflow" if failure else "quarantined")
        if mono_ns - self._quarantine_logged_ns > QUARANTINE_LOG_NS or not self._quarantine_logged_ns:
            self._quarantine_logged_ns = mono_ns
            logger.warning("a frame of {} bytes was put aside: {} {}", len(raw), reason, failure)

    def _look_after(self, session: Session, ledger: Ledger, now_ns: int) -> None:
        """Once a second, and when the session has come further: what is wanted now, overdue or silent, what to say.

        SessionLost if the connection is of no use any more.
        """
        self._tidings.look(now_ns)
        if self._large:
            self._large = False
            _give_back_memory()
        session.overdue(now_ns)
        self._ask_for_more(session, ledger, now_ns)
        self._watch.market(self._clock.at(now_ns), {r.instrument.venue for r in ledger.standing}, now_ns)
        self._watch.check_connection(session.state == "streaming", now_ns)
        if overdue := self._watch.overdue(ledger, now_ns):
            logger.warning("not acknowledged in time, registering again: {}", ", ".join(map(str, overdue)))
            session.register_again(overdue, now_ns, release=False)
            self._tidings.resubscribed(overdue, "not acknowledged in time")
        if silent := self._watch.silent(ledger, now_ns):
            logger.warning("silent for too long, registering again: {}", ", ".join(map(str, silent)))
            session.register_again(silent, now_ns, release=True)
            self._pulse.add("resubscribed", len(silent))
            self._tidings.resubscribed(silent, "silent for too long")
        self._count(ledger)
        if session.state == "streaming":
            self._renewed = False
            self._stand(True)
        closed = session.state == "streaming" and not self._watch.open
        said = [self._calendar.said(self._venues(), self._clock.at(now_ns))] if closed else []
        self._pulse.say("closed_market" if closed else session.state, "; ".join((*said, *ledger.refusals())))

    def _stand(self, up: bool) -> None:
        """Whether everything has been registered since the connection began; other lines look at it."""
        self._pulse.set("up_keys", 1 << self.planned.key - 1 if up else 0)

    def _ask_for_more(self, session: Session, ledger: Ledger, now_ns: int) -> None:
        """Release what is no longer wanted, then register what is wanted now."""
        wanted = dict.fromkeys((*self.planned.registrations, *self.more))
        if gone := [registration for registration in ledger.standing if registration not in wanted]:
            session.release(gone, now_ns)
            self._tidings.released(gone)
        if new := [registration for registration in wanted if registration not in ledger.standing]:
            session.register(new, now_ns)

    def _count(self, ledger: Ledger) -> None:
        """Requested, acknowledged and refused are levels: how the present connection stands."""
        self._tidings.answered(ledger)
        lines = ledger.standing.values()
        self._pulse.set("requested", sum(1 for line in lines if line.requested_ns))
        self._pulse.set("acknowledged", sum(1 for line in lines if line.acknowledged_ns))
        self._pulse.set("refused", sum(1 for line in lines if line.refused))

    def _recover(self, error: BrokerError) -> None:
        """Say what happened and wait as long as both the backoff and the vendor want. Stopping if asked to stop meanwhile."""
        state, wait_s = error.state, max(error.wait_s, self._backoff.next_s())
        if error.renew:
            if self._renewed:
                wait_s = max(wait_s, REFUSED_WAIT_S)
            else:
                state = "retrying"
            self._renewed = True
            self._beating(self._credential.spoil)
        logger.warning("{}; next attempt in {:.1f} s", error, wait_s)
        self._pulse.say(state, str(error))
        _give_back_memory()
        until_ns = self._clock.mono_ns() + round(wait_s * SECOND_NS)
        while (left_ns := until_ns - self._clock.mono_ns()) > 0:
            self._pulse.beat()
            if self._stop.wait(min(BEAT_S, left_ns / SECOND_NS)):
                raise Stopping

    def _beating(self, call: Callable[[], Result]) -> Result:
        """See beating.py; nothing has been registered yet on the connection of a call that is abandoned."""
        return beating(call, self._pulse, self._stop)


def _give_back_memory() -> None:
    """What a large message or an answer took: the allocator would keep it, in one arena for each thread that called."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
    if trim is not None:
        trim(0)
