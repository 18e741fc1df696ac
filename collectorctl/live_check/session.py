"""One short session with one key and few subscriptions.

    key lock -> credential -> connect -> log in, subscribe -> listen -> close

Guarantees:
    * No session is opened with a key that a process of this host has in use.
    * The session is closed with a close frame, so that the vendor frees its slot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from brokers.decoded import DecodedBatch
from brokers.errors import BrokerError, to_safe_text
from brokers.protocol import Broker, FeedSession
from brokers.registry import load_broker
from brokers.subscription import Subscription, SubscriptionTable
from brokers.transport.key_lock import KeyLock
from brokers.transport.websocket import WebSocketConnection
from collectorctl.live_check.probe import FAILED, ODD, OK, Probe, SessionSample
from conf.clock import SECOND_NS, Clock
from conf.home import Home
from ringbuf.vitals import ProcessState

POLL_S = 0.02
ENOUGH_RECORDS = 20
MAX_SKEWS = 10_000


def check_session(
    home: Home, name: str, key: int, subscriptions: Sequence[Subscription], listen_s: float
) -> tuple[list[Probe], SessionSample | None]:
    """Probes of credential and connection with a key, and what the session brought, if there was one."""
    subject, broker = f"{name} key {key}", load_broker(name)
    lock = KeyLock(home, name, key)
    found: list[Probe] = []
    check = "key"
    try:
        lock.acquire()
        check = "credential"
        credential = broker.create_credential(home, key).get()
        found.append(Probe(subject, check, OK, "issued for this key"))
        check = "connection"
        websocket = WebSocketConnection.connect(broker.websocket_url(home.settings), home.settings.feed.frame_max_bytes)
        try:
            sample = _listen(home, broker, credential, websocket, subscriptions, listen_s)
        finally:
            websocket.close()
        found.append(Probe(subject, check, OK, broker.websocket_url(home.settings)))
        return found, sample
    except BrokerError as error:
        check = "token" if error.refresh_credential else check
        outcome = ODD if check in ("key", "token") else FAILED
        found.append(Probe(subject, check, outcome, str(error), _REMEDY[check]))
        return found, None
    finally:
        lock.release()


_REMEDY = {
    "key": "check again when that process has ended",
    "token": "a collector replaces it by itself; or remove its file in run/token while nothing runs, and check again",
    "credential": "compare key and secret in .env with the vendor's pages, its registered addresses with this host's, and rest_url",
    "connection": "look whether ws_url and the network are right; a session of another host with this key excludes this one",
}


def _listen(
    home: Home,
    broker: Broker,
    credential: str,
    websocket: WebSocketConnection,
    subscriptions: Sequence[Subscription],
    listen_s: float,
) -> SessionSample:
    """Subscribe, and listen until there are enough records of each, at most `listen_s` from the last answer on. BrokerError."""
    clock, table = home.load_clock(), SubscriptionTable(subscriptions)
    session = broker.create_session(home.settings, credential, table)
    by_code = broker.subscriptions_by_code(subscriptions)
    collected = _Collected(clock)
    begin_ns, answered_ns = clock.mono_ns(), 0
    end_ns = begin_ns + round(home.settings.feed.acknowledge_within_s * SECOND_NS)
    while (now_ns := clock.mono_ns()) < end_ns:
        session.check_timeouts(now_ns)
        if not answered_ns and session.state == ProcessState.STREAMING:
            answered_ns, end_ns = now_ns, now_ns + round(listen_s * SECOND_NS)
        if answered_ns and all(collected.count[subscription] >= ENOUGH_RECORDS for subscription in subscriptions):
            break
        for message in session.pending_messages(now_ns):
            websocket.send_text(message)
        for payload, mono_ns in websocket.poll(POLL_S):
            decoded = broker.decode(payload, by_code, clock.to_calendar_ns(mono_ns), mono_ns)
            collected.add(decoded, session, mono_ns)
    answers = {
        str(subscription): state.refusal or ("" if state.acknowledged_ns else "no answer")
        for subscription, state in table.states.items()
    }
    listened_s = (clock.mono_ns() - (answered_ns or begin_ns)) / SECOND_NS
    records = sum(collected.count.values())
    return SessionSample(answers, records, collected.wide, collected.rejects, collected.skews_s, listened_s)


class _Collected:
    """What came."""

    def __init__(self, clock: Clock) -> None:
        self.count: Counter[Subscription] = Counter()
        self.wide: Counter[tuple[str, int]] = Counter()
        self.rejects: list[str] = []
        self.skews_s: list[float] = []
        self._clock = clock

    def add(self, decoded: DecodedBatch, session: FeedSession, mono_ns: int) -> None:
        """One message. SessionError if it ends the session."""
        self.count.update((*decoded.book_subscriptions, *decoded.tick_subscriptions))
        self.wide.update(decoded.oversized_frames)
        self.rejects += [to_safe_text(reason) for _, reason in decoded.rejects]
        for records in (decoded.books, decoded.ticks):
            if len(records) and len(self.skews_s) < MAX_SKEWS:
                self.skews_s += ((records["recv_ns"] - records["exch_ns"]) / SECOND_NS).tolist()
        if decoded.control is not None:
            result = session.receive(decoded.control, mono_ns)
            if result.unexpected:
                self.rejects.append(to_safe_text(result.message))
