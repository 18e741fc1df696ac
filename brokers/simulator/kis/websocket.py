"""KIS WebSocket server: subscriptions, rejections, PINGPONG, disconnects.

    GET /  /tryitout  /tryitout/ANY

Guarantees:
    * docs/wire/kis.md 2 and 9 are enforced: one session per appkey (the older survives), 41 subscriptions, the codes of 2.4.
    * An approval key that has ended gets no data and no error (docs/wire/kis.md 1.3).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Any, NamedTuple

from aiohttp import WSMsgType, web

from brokers.simulator.gateway.client import ClientConnection, Feed
from brokers.simulator.gateway.handshake import ClientDisconnect, accept, read_messages
from brokers.simulator.ground_truth import Stream
from brokers.simulator.kis import encode
from brokers.simulator.kis.auth import KeyStore
from conf.instrument import Instrument, parse_instrument

STREAMS = {tr: (venue, Stream.TICK) for venue, tr in encode.TRADE_TR.items()}
STREAMS |= {tr: (venue, Stream.BOOK) for venue, tr in encode.BOOK_TR.items()}
TRS = frozenset(STREAMS) | frozenset(
    {"H0STANC0", "H0NXANC0", "H0UNANC0", "H0STMKO0", "H0NXMKO0", "H0UNMKO0", "H0STOUP0", "H0STOAC0", "H0STOAA0"}
    | {"HDFSCNT0", "HDFSASP0", "HDFSASP1", "H0STCNI0", "H0STCNI9", "H0GSCNI0", "H0GSCNI9"}
)
"""All that can be subscribed; what the feed does not carry stays silent."""
SUBSCRIBE, UNSUBSCRIBE = "1", "2"


@dataclass(frozen=True)
class KisRules:
    """Parameters, because the vendor's value is unknown or a test needs another one."""

    max_subscriptions: int = 41
    ping_idle_s: float = 10.0
    ping_grace_s: float = 90.0
    slot_release_s: float = 0.5
    abort_on_empty_pong: bool = False
    one_session_per_key: bool = True
    served_only: bool = False
    """Whether a TR that the feed does not carry is refused; else it is acknowledged and stays silent, as with the vendor."""


class TrCatalog(NamedTuple):
    """The subscriptions of a feed: its TRs, and the instrument of a TR id and key (ValueError for an impossible key)."""

    trs: frozenset[str]
    resolve: Callable[[str, str], tuple[Instrument, Stream]]


def resolve_domestic(tr_id: str, tr_key: str) -> tuple[Instrument, Stream]:
    """What a domestic subscription means. ValueError for an impossible key."""
    venue, stream = STREAMS[tr_id]
    named = parse_instrument(tr_key)
    if named.venue != "KRX":
        raise ValueError("the TR names the venue, not the key")
    return Instrument(named.symbol, venue), stream


DOMESTIC = TrCatalog(frozenset(STREAMS), resolve_domestic)


class SubscriptionRejected(Exception):
    """A subscription that gets an error: msg_cd, msg1, rt_cd."""

    def __init__(self, code: str, text: str, rt_cd: str = "1") -> None:
        super().__init__(code)
        self.code, self.text, self.rt_cd = code, text, rt_cd


class ApprovalExpired(Exception):
    """A subscription with an approval key that has ended."""


class AppKeyInUse(SubscriptionRejected):
    """A second session of an appkey: answered, then hung up on (docs/wire/kis.md 2.6)."""

    def __init__(self) -> None:
        super().__init__("OPSP8996", "ALREADY IN USE appkey", "9")


def build_control_message(
    tr_id: str, tr_key: str, rt_cd: str, code: str, text: str, output: dict[str, str] | None = None
) -> str:
    """A control message in the compact form of docs/wire/kis.md 2.3."""
    body: dict[str, object] = {"rt_cd": rt_cd, "msg_cd": code, "msg1": text}
    if output is not None:
        body["output"] = output
    message = {"header": {"tr_id": tr_id, "tr_key": tr_key, "encrypt": "N"}, "body": body}
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


def get_required(message: Any, name: str, code: str) -> Any:
    """`message[name]`; Refusal with `code` when it is not there."""
    if not isinstance(message, dict) or name not in message:
        raise SubscriptionRejected(code, f"JSON PARSING ERROR : {name} not found")
    return message[name]


class KisClientSession:
    """One client's conversation: what it subscribed, and its heartbeat."""

    def __init__(self, server: KisWebSocketServer, connection: ClientConnection) -> None:
        self.server = server
        self.connection = connection
        self.subscriptions: dict[tuple[str, str], None] = {}  # in the order they were registered
        self.last_subscription_ns = 0
        random = server.random
        self.secret = {
            "iv": "".join(random.choices("0123456789abcdef", k=16)),
            "key": "".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=32)),
        }
        self.unanswered_since_ns = 0

    def on_text(self, text: str) -> None:
        """A text frame of the client: a subscription, or the echo of a PINGPONG."""
        tr_id, tr_key = "(null)", ""
        try:
            try:
                message = json.loads(text)
            except ValueError:
                raise SubscriptionRejected("OPSP9999", "JSON PARSING ERROR : invalid json format") from None
            header = get_required(message, "header", "OPSP9998")
            if isinstance(header, dict) and header.get("tr_id") == "PINGPONG":
                self.on_pong()
                return
            wanted = get_required(get_required(message, "body", "OPSP9992"), "input", "OPSP9991")
            tr_id, tr_key = (
                str(get_required(wanted, "tr_id", "OPSP9991")),
                str(get_required(wanted, "tr_key", "OPSP9990")),
            )
            self._authenticate(header)
            self._change_subscription(str(header.get("tr_type", "")), tr_id, tr_key)
        except AppKeyInUse as refusal:
            self.connection.send_control(build_control_message("(null)", "", refusal.rt_cd, refusal.code, refusal.text))
            self.connection.close_after_flush("refused: appkey in use")
        except ApprovalExpired:
            if self.connection.feed.faults.acknowledge_expired_key:
                self._acknowledge(tr_id, tr_key)
        except SubscriptionRejected as refusal:
            self._reply(build_control_message(tr_id, tr_key, refusal.rt_cd, refusal.code, refusal.text))

    def instrument_keys(self) -> set[str]:
        """The instrument keys subscribed."""
        return {tr_key for _, tr_key in self.subscriptions}

    def on_pong(self) -> None:
        """The client answered the heartbeat."""
        self.unanswered_since_ns = 0

    def _authenticate(self, header: dict[str, Any]) -> None:
        """Check the key; the first subscription takes the only slot of the appkey."""
        approval = str(get_required(header, "approval_key", "OPSP9996"))
        if str(header.get("custtype", "")) not in ("P", "B"):
            code = "OPSP8998" if "custtype" in header else "OPSP9997"
            raise SubscriptionRejected(
                code, f"JSON PARSING ERROR : {'invalid custtype' if 'custtype' in header else 'custtype not found'}"
            )
        if self.connection.app_key:
            return  # an established session outlives its key (docs/wire/kis.md 1.3)
        keys, now_s = self.server.keys, time.monotonic()
        if keys.is_approval_expired(approval, now_s):
            raise ApprovalExpired
        app_key = keys.find_approval_holder(approval, now_s)
        if app_key is None:
            raise SubscriptionRejected("OPSP0011", f"invalid approval : {approval}")
        if not self.server.acquire_slot(app_key, self.connection):
            raise AppKeyInUse
        self.connection.app_key = app_key

    def _change_subscription(self, tr_type: str, tr_id: str, tr_key: str) -> None:
        if tr_type not in (SUBSCRIBE, UNSUBSCRIBE):
            raise SubscriptionRejected("OPSP8997", "JSON PARSING ERROR : invalid tr_type")
        if tr_id not in (self.server.catalog.trs if self.server.rules.served_only else TRS):
            raise SubscriptionRejected("OPSP8991", "SUBSCRIBE ERROR : invalid tr_id")
        known = (tr_id, tr_key) in self.subscriptions
        if tr_type == UNSUBSCRIBE:
            if not known:
                raise SubscriptionRejected("OPSP0003", "UNSUBSCRIBE ERROR(not found!)")
            self._release(tr_id, tr_key)
            return
        if known:
            raise SubscriptionRejected("OPSP0002", "ALREADY IN SUBSCRIBE")
        stream = self._resolve_stream(tr_id, tr_key)
        faults = self.connection.feed.faults
        if faults.take("refuse"):
            raise SubscriptionRejected("OPSP0007", "SUBSCRIBE INTERNAL ERROR")
        if len(self.subscriptions) >= self.server.rules.max_subscriptions:
            raise SubscriptionRejected("OPSP0008", "MAX SUBSCRIBE OVER")
        self.subscriptions[tr_id, tr_key] = None
        if stream is not None:
            self.connection.subscriptions.add(stream)
        self.last_subscription_ns = time.monotonic_ns()
        self._acknowledge(tr_id, tr_key)

    def _acknowledge(self, tr_id: str, tr_key: str) -> None:
        self._reply(build_control_message(tr_id, tr_key, "0", "OPSP0000", "SUBSCRIBE SUCCESS", self.secret))

    def _release(self, tr_id: str, tr_key: str) -> None:
        self.subscriptions.pop((tr_id, tr_key))
        self.connection.subscriptions.discard(self._resolve_stream(tr_id, tr_key))
        self._reply(build_control_message(tr_id, tr_key, "0", "OPSP0001", "UNSUBSCRIBE SUCCESS", self.secret))

    def release_oldest(self, count: int) -> None:
        """Release that many registrations though nobody asked for it."""
        for tr_id, tr_key in list(self.subscriptions)[:count]:
            self._release(tr_id, tr_key)

    def _resolve_stream(self, tr_id: str, tr_key: str) -> tuple[Instrument, Stream] | None:
        """The (instrument, stream) of a subscription; None for TRs that the feed does not carry. Rejection of an impossible key."""
        catalog = self.server.catalog
        if tr_id not in catalog.trs:
            return None
        try:
            return catalog.resolve(tr_id, tr_key)
        except ValueError:
            raise SubscriptionRejected("OPSP8992", "SUBSCRIBE ERROR : invalid tr_key") from None

    def _reply(self, text: str) -> None:
        self.connection.send_control(text, self.connection.feed.faults.late_ack_s)

    def send_heartbeat(self) -> None:
        """A PINGPONG."""
        at = f"{self.server.now():%Y%m%d%H%M%S}"
        self.connection.send_control(f'{{"header":{{"tr_id":"PINGPONG","datetime":"{at}"}}}}')

    async def run_heartbeat(self) -> None:
        """PINGPONG whenever nothing was sent for a while; cut a client that leaves it unanswered (docs/wire/kis.md 2.5)."""
        rules = self.server.rules
        while not self.connection.disconnect_reason:
            if self.connection.is_silent():
                self.unanswered_since_ns = 0  # half-open: the server does not detect it
            idle_s = (time.monotonic_ns() - self.connection.last_sent_ns) / 1e9
            if self.unanswered_since_ns and time.monotonic_ns() - self.unanswered_since_ns > rules.ping_grace_s * 1e9:
                self.connection.abort("heartbeat unanswered")
                return
            if idle_s >= rules.ping_idle_s:
                self.send_heartbeat()
                self.unanswered_since_ns = self.unanswered_since_ns or time.monotonic_ns()
                idle_s = 0.0
            await asyncio.sleep(min(max(rules.ping_idle_s - idle_s, 0.01), rules.ping_grace_s))


class KisWebSocketServer:
    """The vendor's WebSocket server of one feed."""

    def __init__(
        self,
        feed: Feed,
        rules: KisRules,
        keys: KeyStore,
        random: Random,
        now: Callable[[], datetime],
        catalog: TrCatalog = DOMESTIC,
    ) -> None:
        self.feed = feed
        self.catalog = catalog
        self.rules = rules
        self.random = random
        self.now = now
        self.keys = keys
        self.sessions: set[KisClientSession] = set()
        self._slots: dict[str, ClientConnection | float] = {}
        feed.vendor_faults |= {
            "expire": lambda _: keys.expire(),
            "expirekey": self._expire_approvals,
            "release": self._release_oldest,
            "pingcut": self._cut_unanswered,
        }

    def _expire_approvals(self, acknowledge: float) -> None:
        self.feed.faults.acknowledge_expired_key = bool(acknowledge)
        self.keys.expire_approvals()

    def _release_oldest(self, count: float) -> None:
        for session in self.sessions:
            session.release_oldest(int(count))

    def _cut_unanswered(self, after_s: float) -> None:
        for session in self.sessions:
            session.send_heartbeat()
            asyncio.get_running_loop().call_later(after_s, session.connection.abort, "heartbeat unanswered")

    def build_routes(self) -> list[web.RouteDef]:
        """The paths a WebSocket is opened at (docs/wire/kis.md 2.1)."""
        return [
            web.get("/", self.handle_client),
            web.get("/tryitout", self.handle_client),
            web.get("/tryitout/{any:.*}", self.handle_client),
        ]

    def acquire_slot(self, app_key: str, connection: ClientConnection) -> bool:
        """Give the appkey's one session to `connection` unless another has it, or had it until a moment ago."""
        if not self.rules.one_session_per_key:
            return True
        holder = self._slots.get(app_key)
        if isinstance(holder, ClientConnection) or (holder is not None and time.monotonic() < holder):
            return False
        self._slots[app_key] = connection
        return True

    async def handle_client(self, request: web.Request) -> web.StreamResponse:
        """One WebSocket client from handshake to end."""
        ws, connection = await accept(request, self.feed)
        session = KisClientSession(self, connection)
        self.sessions.add(session)
        tasks = [asyncio.create_task(connection.run_writer()), asyncio.create_task(session.run_heartbeat())]
        disconnect = ClientDisconnect.VANISHED
        try:
            async for message in read_messages(ws, connection):
                if message.type is WSMsgType.TEXT:
                    session.on_text(message.data)
                elif message.type is WSMsgType.PING:
                    await ws.pong(message.data)
                elif message.type is WSMsgType.PONG:
                    if not message.data and self.rules.abort_on_empty_pong:
                        connection.abort("unsolicited empty Pong")
                    elif message.data:
                        session.on_pong()
                elif message.type is WSMsgType.CLOSE:
                    disconnect = ClientDisconnect.CLOSED
        finally:
            self.sessions.discard(session)
            if self._slots.get(connection.app_key) is connection:
                wait_s = 0.0 if disconnect is ClientDisconnect.CLOSED else self.rules.slot_release_s
                self._slots[connection.app_key] = time.monotonic() + wait_s
            await connection.finish(disconnect.value, tasks)
        return ws
