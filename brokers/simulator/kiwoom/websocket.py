"""Kiwoom WebSocket server: LOGIN, REG and REMOVE, PING, disconnects.

    GET /api/dostk/websocket

Guarantees:
    * docs/wire/kiwoom.md 2 and 9 are enforced: the newer session of a key ends the older one, 100013 before the LOGIN reply,
      five REG a second, the item limits, R10002.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from brokers.simulator.gateway.client import ClientConnection, Feed
from brokers.simulator.gateway.handshake import ClientDisconnect, accept, read_messages
from brokers.simulator.ground_truth import Stream
from brokers.simulator.kiwoom import encode
from brokers.simulator.kiwoom.auth import NOT_REGISTERED, TokenStore
from conf.instrument import Instrument

TYPES = {"0B": Stream.TICK, "0D": Stream.BOOK}
PHASE_TYPE = "0s"
PHASES: dict[str, dict[str, tuple[str, str]]] = {
    "KRX": {
        "opening_auction": ("0", "9"),
        "regular": ("3", "2"),
        "closing_auction": ("2", "4"),
        "closing_price": ("a", "b"),
        "after_market": ("c", "d"),
    },
    "NXT": {"pre_market": ("P", "Q"), "regular": ("R", "S"), "after_market": ("U", "V")},
}
"""FID 215 when a phase begins, and when it ends without another one following at once (docs/wire/kiwoom.md 3.3)."""

R10001 = "동일한 App key로 접속이 되었습니다. 기존 세션은 종료가 됩니다"
R10002 = "사용자 프로그램으로부터 Heartbeat(연결유지) 메시지가 오지않아서 접속을 종료합니다"
R10004 = "로그인 인증 정보(Token)가 들어오지 않아 접속을 종료합니다"
REFUSED = "실시간 등록에 실패하였습니다"
CONTROL_PER_S = 5
MAX_NAMED = 3
LOGIN_REPLY_S = 0.02


@dataclass(frozen=True)
class KiwoomRules:
    """What is a parameter because sources disagree, or because a test wants another value."""

    max_items: int = 200
    max_group_items: int = 200
    ping_interval_s: float = 10.0
    max_missed_pings: int = 3
    login_timeout_s: float = 10.0
    one_session_per_key: bool = True
    served_only: bool = False
    """Whether a type or item that the feed does not carry is refused; else it is accepted and stays silent, as with the vendor."""


def build_reply(trnm: str, code: int, text: str, **more: str) -> str:
    """A control reply as on the wire."""
    return msgspec.json.encode({"trnm": trnm, "return_code": code, "return_msg": text, **more}).decode()


def build_system_message(code: str, text: str) -> str:
    """A SYSTEM message."""
    return msgspec.json.encode({"trnm": "SYSTEM", "code": code, "message": text}).decode()


@dataclass(eq=False)
class KiwoomClientSession:
    """One client's conversation: its login, its groups, its heartbeat."""

    server: KiwoomWebSocketServer
    connection: ClientConnection
    logged_in: bool = False
    groups: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    last_subscription_ns: int = 0
    unanswered_pings: int = 0
    _control_times_s: dict[str, deque[float]] = field(default_factory=dict)

    def instrument_keys(self) -> set[str]:
        """The item codes subscribed, over all groups."""
        return {item for registered in self.groups.values() for item, _ in registered if item}

    def on_text(self, text: str) -> None:
        """A text frame of the client."""
        try:
            request = msgspec.json.decode(text)
        except msgspec.DecodeError:
            request = {}
        trnm = request.get("trnm") if isinstance(request, dict) else None
        if not isinstance(trnm, str) or not trnm:
            self.connection.send_control(build_reply("", 100002, "필수 파라미터가 누락되어 있습니다"))
        elif trnm == "LOGIN":
            self._login(request)
        elif trnm == "PING":
            self.unanswered_pings = 0
        elif not self.logged_in:
            text = "로그인 인증이 들어오기 전에 다른 전문이 들어왔습니다. 해당 전문은 무시됩니다. (TRNM=%s)"
            self.connection.send_control(build_reply(trnm, 100013, text))
        elif trnm not in ("REG", "REMOVE"):
            self.connection.send_control(build_reply(trnm, 105108, "정의되어 있지 않는 TRNM입니다"))
        elif self._exceeds_control_rate(trnm):
            text = f"해당 TRNM으로 허용된 요청 건수를 초과하였습니다 (TRNM={trnm})"
            self.connection.send_control(build_reply(trnm, 105110, text))
        else:
            code, text = self._change_subscriptions(trnm, request)
            self.connection.send_control(build_reply(trnm, code, text), self.connection.feed.faults.late_ack_s)

    def _login(self, request: dict[str, Any]) -> None:
        token = request.get("token")
        if not token or not isinstance(token, str):
            self.connection.send_control(build_reply("LOGIN", 805002, "인증을 체크하기 위한 Token 값이 없습니다"))
            return
        app_key = self.server.keys.find_holder(token, time.monotonic())
        loop = asyncio.get_running_loop()
        if self.connection.feed.faults.is_blocked():
            text = f"로그인 인증에 실패하였습니다 [CODE=8050 : {NOT_REGISTERED}]"
            self.connection.send_control(build_reply("LOGIN", 805004, text), LOGIN_REPLY_S)
            loop.call_later(2 * LOGIN_REPLY_S, self.server.close_session, self, "refused: address")
            return
        if app_key is None:
            match self.connection.feed.faults.mute_login:
                case 0:
                    text = "로그인 인증에 실패하였습니다 [CODE=8005 : Token이 유효하지 않습니다]"
                    self.connection.send_control(build_reply("LOGIN", 805004, text), LOGIN_REPLY_S)
                case 1:
                    self.connection.send_control(build_system_message("R10004", R10004), LOGIN_REPLY_S)
            loop.call_later(2 * LOGIN_REPLY_S, self.server.close_session, self, "refused: token")
            return
        self.connection.app_key = app_key
        loop.call_later(LOGIN_REPLY_S, self._logged_in)

    def _logged_in(self) -> None:
        if self.server.rules.one_session_per_key:
            self.server.end_older_sessions(self)
        self.logged_in = True
        self.connection.send_control(build_reply("LOGIN", 0, "", sor_yn="Y"))

    def _exceeds_control_rate(self, trnm: str) -> bool:
        now_s = time.monotonic()
        recent = self._control_times_s.setdefault(trnm, deque())
        while recent and now_s - recent[0] >= 1.0:
            recent.popleft()
        if len(recent) >= CONTROL_PER_S:
            return True
        recent.append(now_s)
        return False

    def _change_subscriptions(self, trnm: str, request: dict[str, Any]) -> tuple[int, str]:
        """REG or REMOVE: the reply's code and text (docs/wire/kiwoom.md 2.4, 2.5)."""
        try:
            group = str(request["grp_no"])
            wanted = {
                (str(item), str(kind)) for part in request["data"] for item in part["item"] for kind in part["type"]
            }
        except (KeyError, TypeError):
            return 100002, "필수 파라미터가 누락되어 있습니다"
        faults = self.connection.feed.faults
        if trnm == "REMOVE":
            for registered in self.groups.values():
                registered -= wanted
            self._update_connection()
            return 0, ""
        if faults.take("refuse"):
            return 1, REFUSED
        if self.server.rules.served_only and (unknown := wanted - self.server.streams.keys()):
            return 1, f"{REFUSED} ({', '.join(f'{kind} {item}' for item, kind in sorted(unknown)[:MAX_NAMED])})"
        groups = {} if request.get("refresh") == "0" else {name: set(items) for name, items in self.groups.items()}
        groups.setdefault(group, set()).update(wanted)
        rules = self.server.rules
        if len({item for item, _ in groups[group] if item}) > rules.max_group_items:
            return 105118, f"그룹별 등록 가능한 종목 개수를 초과하였습니다 ({rules.max_group_items})"
        if len({item for items in groups.values() for item, _ in items if item}) > rules.max_items:
            return 105115, f"등록 가능한 종목 개수를 초과하였습니다 ({rules.max_items})"
        self.groups = groups
        self.last_subscription_ns = time.monotonic_ns()
        self._update_connection()
        return 0, ""

    def _update_connection(self) -> None:
        """Subscribe at the feed; unknown codes stay silent."""
        streams: set[tuple[Instrument, Stream]] = set()
        for item, kind in (pair for registered in self.groups.values() for pair in registered):
            if (item, kind) in self.server.streams:
                streams.add(self.server.streams[item, kind])
        self.connection.subscriptions = streams

    def wants_phases(self) -> bool:
        """Whether 0s is subscribed."""
        return any(kind == PHASE_TYPE for registered in self.groups.values() for _, kind in registered)

    async def run_heartbeat(self) -> None:
        """PING from LOGIN on; a client that does not echo gets a message and is closed (docs/wire/kiwoom.md 2.3)."""
        rules = self.server.rules
        deadline_s = time.monotonic() + rules.login_timeout_s
        while not self.logged_in:
            if time.monotonic() > deadline_s:
                self.server.close_session(self, "no login")
                return
            await asyncio.sleep(0.01)
        while not self.connection.disconnect_reason:
            await asyncio.sleep(rules.ping_interval_s)
            if self.connection.is_silent():
                self.unanswered_pings = 0  # half-open: the server does not detect it
                continue
            if self.unanswered_pings >= rules.max_missed_pings:
                self.connection.send_control(build_system_message("R10002", R10002))
                self.server.close_session(self, "heartbeat unanswered")
                return
            self.unanswered_pings += 1
            self.connection.send_control('{"trnm":"PING"}')


class KiwoomWebSocketServer:
    """The vendor's WebSocket server of one feed."""

    def __init__(
        self, feed: Feed, rules: KiwoomRules, keys: TokenStore, served: Collection[tuple[Instrument, Stream]]
    ) -> None:
        self.feed = feed
        self.streams = {
            (encode.format_item_code(instrument), kind): (instrument, stream)
            for kind, stream in TYPES.items()
            for instrument in {instrument for instrument, _ in served}
            if (instrument, stream) in served
        }
        self.rules = rules
        self.keys = keys
        self.sessions: set[KiwoomClientSession] = set()
        feed.vendor_faults |= {"expire": lambda _: keys.expire()}
        self._closing: set[asyncio.Task[None]] = set()

    def build_routes(self) -> list[web.RouteDef]:
        """The path a WebSocket is opened at (docs/wire/kiwoom.md 2.1)."""
        return [
            web.get("/api/dostk/websocket", self.handle_client),
        ]

    def end_older_sessions(self, newcomer: KiwoomClientSession) -> None:
        """End the older sessions of the newcomer's app key (docs/wire/kiwoom.md 2.7)."""
        for session in list(self.sessions):
            older = session is not newcomer and session.logged_in
            if (
                older
                and session.connection.app_key == newcomer.connection.app_key
                and not session.connection.disconnect_reason
            ):
                session.connection.send_control(build_system_message("R10001", R10001))
                self.close_session(session, "displaced by a newer login")

    def close_session(self, session: KiwoomClientSession, how: str) -> None:
        """Close a session with 1000 "Bye", after the queued messages."""
        task = asyncio.create_task(session.connection.close(how, 1000, b"Bye"))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def send_phase_change(self, venue: str, before: str | None, after: str | None, at: str) -> None:
        """Send clients that subscribed 0s that `venue` changed its phase at `at`, HHMMSS."""
        codes = PHASES.get(venue, {})
        code = codes[after][0] if after in codes else codes[before][1] if before in codes else None
        if code is None:
            return
        frame = encode.build_real_frame([encode.build_entry(PHASE_TYPE, "", encode.encode_phase(code, at, "000000"))])
        for session in self.sessions:
            if session.logged_in and session.wants_phases():
                session.connection.send_control(frame.decode())

    async def handle_client(self, request: web.Request) -> web.StreamResponse:
        """One WebSocket client from handshake to end."""
        ws, connection = await accept(request, self.feed)
        session = KiwoomClientSession(self, connection)
        self.sessions.add(session)
        tasks = [asyncio.create_task(connection.run_writer()), asyncio.create_task(session.run_heartbeat())]
        disconnect = ClientDisconnect.VANISHED
        try:
            async for received in read_messages(ws, connection):
                if received.type is WSMsgType.TEXT:
                    session.on_text(received.data)
                elif received.type is WSMsgType.PING:
                    await ws.pong(received.data)
                elif received.type is WSMsgType.CLOSE:
                    disconnect = ClientDisconnect.CLOSED
        finally:
            self.sessions.discard(session)
            await connection.finish(disconnect.value, tasks)
        return ws
