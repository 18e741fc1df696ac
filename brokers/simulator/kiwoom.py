"""Kiwoom as documented: tokens, and a WebSocket that wants LOGIN first, echoes of its PINGs, and little REG.

    POST /oauth2/token /oauth2/revoke   POST /api/dostk/...          GET /api/dostk/websocket   (WebSocket)

Promises: what spec kiwoom 1.3, 1.5, 2 and 9 state is enforced: the newer session of a key ends the older one, 100013 before the
LOGIN reply, five REG a second, the item limits, R10002; any key pair is good, the first secret seen for a key is its right one.
Leaves to others: the market (line.py), fields (kiwoom_wire.py). Market-data TRs (spec kiwoom 5) are added to `ANSWERS`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from brokers.simulator import kiwoom_wire
from brokers.simulator.connection import Connection
from brokers.simulator.handshake import Ending, accept, read
from brokers.simulator.line import Line
from brokers.simulator.truth import Stream
from conf.clock import KST
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
"""FID 215 when a phase begins, and when it ends without another one following at once (spec kiwoom 3.3)."""

Answer = Callable[[web.Request, dict[str, Any]], Awaitable[web.Response]]
ANSWERS: dict[str, tuple[str, Answer]] = {}
"""api-id -> (path, what answers it): the place of ka10079 and its sisters (spec kiwoom 5)."""

OK_TEXT = "정상적으로 처리되었습니다"
R10001 = "동일한 App key로 접속이 되었습니다. 기존 세션은 종료가 됩니다"
R10002 = "사용자 프로그램으로부터 Heartbeat(연결유지) 메시지가 오지않아서 접속을 종료합니다"
CONTROL_PER_S = 5
LOGIN_REPLY_S = 0.02


@dataclass(frozen=True)
class Rules:
    """What is a parameter because sources disagree, or because a test wants another value."""

    items: int = 200
    group_items: int = 200
    ping_every_s: float = 10.0
    pings_missed: int = 3
    login_within_s: float = 10.0
    token_life_s: float = 86_400.0


@dataclass
class Token:
    text: str
    app_key: str
    until_s: float
    expires: datetime


class Keys:
    """App keys, secrets and tokens; times in monotonic seconds."""

    def __init__(self, random: Random, life_s: float) -> None:
        self._random = random
        self._life_s = life_s
        self._secrets: dict[str, str] = {}
        self._tokens: dict[str, Token] = {}

    def known(self, app_key: str, secret: str) -> bool:
        """Whether the pair fits; a new key is taken at its word."""
        return self._secrets.setdefault(app_key, secret) == secret

    def issue(self, app_key: str, now_s: float) -> Token:
        """The key's token; the same one while it is valid (spec kiwoom 1.3)."""
        for token in self._tokens.values():
            if token.app_key == app_key and now_s < token.until_s:
                return token
        text = "".join(self._random.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", k=86))
        token = Token(text, app_key, now_s + self._life_s, datetime.now(KST) + timedelta(seconds=self._life_s))
        self._tokens[text] = token
        return token

    def holder(self, text: str, now_s: float) -> str | None:
        """The app key of a valid token."""
        token = self._tokens.get(text)
        return token.app_key if token is not None and now_s < token.until_s else None

    def revoke(self, text: str) -> bool:
        """Forget a token; False when there is none such."""
        return self._tokens.pop(text, None) is not None


def message(trnm: str, code: int, text: str, **more: str) -> str:
    """A control reply as on the wire."""
    return msgspec.json.encode({"trnm": trnm, "return_code": code, "return_msg": text, **more}).decode()


def system(code: str, text: str) -> str:
    """A SYSTEM message."""
    return msgspec.json.encode({"trnm": "SYSTEM", "code": code, "message": text}).decode()


@dataclass(eq=False)
class Session:
    """One client's conversation: its login, its groups, its heartbeat."""

    vendor: Kiwoom
    connection: Connection
    logged_in: bool = False
    groups: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    last_registration_ns: int = 0
    unanswered: int = 0
    _controls_s: dict[str, deque[float]] = field(default_factory=dict)

    def names(self) -> set[str]:
        """The item codes registered, over all groups."""
        return {item for registered in self.groups.values() for item, _ in registered if item}

    def hear(self, text: str) -> None:
        """A text frame of the client."""
        try:
            said = msgspec.json.decode(text)
        except msgspec.DecodeError:
            said = {}
        trnm = said.get("trnm") if isinstance(said, dict) else None
        if not isinstance(trnm, str) or not trnm:
            self.connection.say(message("", 100002, "필수 파라미터가 누락되어 있습니다"))
        elif trnm == "LOGIN":
            self._login(said)
        elif trnm == "PING":
            self.unanswered = 0
        elif not self.logged_in:
            text = "로그인 인증이 들어오기 전에 다른 전문이 들어왔습니다. 해당 전문은 무시됩니다. (TRNM=%s)"
            self.connection.say(message(trnm, 100013, text))
        elif trnm not in ("REG", "REMOVE"):
            self.connection.say(message(trnm, 105108, "정의되어 있지 않는 TRNM입니다"))
        elif self._too_many(trnm):
            text = f"해당 TRNM으로 허용된 요청 건수를 초과하였습니다 (TRNM={trnm})"
            self.connection.say(message(trnm, 105110, text))
        else:
            code, text = self._change(trnm, said)
            self.connection.say(message(trnm, code, text), self.connection.line.faults.late_ack_s)

    def _login(self, said: dict[str, Any]) -> None:
        token = said.get("token")
        if not token or not isinstance(token, str):
            self.connection.say(message("LOGIN", 805002, "인증을 체크하기 위한 Token 값이 없습니다"))
            return
        app_key = self.vendor.keys.holder(token, time.monotonic())
        loop = asyncio.get_running_loop()
        if app_key is None:
            text = "로그인 인증에 실패하였습니다 [CODE=8005 : Token이 유효하지 않습니다]"
            self.connection.say(message("LOGIN", 3, text), LOGIN_REPLY_S)
            loop.call_later(2 * LOGIN_REPLY_S, self.vendor.end, self, "refused: token")
            return
        self.connection.app_key = app_key
        loop.call_later(LOGIN_REPLY_S, self._logged_in)

    def _logged_in(self) -> None:
        self.vendor.displace(self)
        self.logged_in = True
        self.connection.say(message("LOGIN", 0, "", sor_yn="Y"))

    def _too_many(self, trnm: str) -> bool:
        now_s = time.monotonic()
        recent = self._controls_s.setdefault(trnm, deque())
        while recent and now_s - recent[0] >= 1.0:
            recent.popleft()
        if len(recent) >= CONTROL_PER_S:
            return True
        recent.append(now_s)
        return False

    def _change(self, trnm: str, said: dict[str, Any]) -> tuple[int, str]:
        """REG or REMOVE: the reply's code and text (spec kiwoom 2.4, 2.5)."""
        try:
            group = str(said["grp_no"])
            wanted = {(str(item), str(kind)) for part in said["data"] for item in part["item"] for kind in part["type"]}
        except (KeyError, TypeError):
            return 100002, "필수 파라미터가 누락되어 있습니다"
        faults = self.connection.line.faults
        if trnm == "REMOVE":
            for registered in self.groups.values():
                registered -= wanted
            self._follow()
            return 0, ""
        if faults.refuse:
            faults.refuse -= 1
            return 1, "실시간 등록에 실패하였습니다"
        groups = {} if said.get("refresh") == "0" else {name: set(held) for name, held in self.groups.items()}
        groups.setdefault(group, set()).update(wanted)
        rules = self.vendor.rules
        if len({item for item, _ in groups[group] if item}) > rules.group_items:
            return 105118, f"그룹별 등록 가능한 종목 개수를 초과하였습니다 ({rules.group_items})"
        if len({item for held in groups.values() for item, _ in held if item}) > rules.items:
            return 105115, f"등록 가능한 종목 개수를 초과하였습니다 ({rules.items})"
        self.groups = groups
        self.last_registration_ns = time.monotonic_ns()
        self._follow()
        return 0, ""

    def _follow(self) -> None:
        """Tell the line what is registered; codes that exist nowhere stay silent."""
        streams: set[tuple[Instrument, Stream]] = set()
        for item, kind in (pair for registered in self.groups.values() for pair in registered):
            if kind in TYPES and item in self.vendor.items:
                streams.add((self.vendor.items[item], TYPES[kind]))
        self.connection.registered = streams

    def wants_phases(self) -> bool:
        """Whether 0s is registered."""
        return any(kind == PHASE_TYPE for registered in self.groups.values() for _, kind in registered)

    async def heartbeat(self) -> None:
        """PING from LOGIN on; a client that does not echo is told so and closed (spec kiwoom 2.3)."""
        rules = self.vendor.rules
        deadline_s = time.monotonic() + rules.login_within_s
        while not self.logged_in:
            if time.monotonic() > deadline_s:
                self.vendor.end(self, "no login")
                return
            await asyncio.sleep(0.01)
        while not self.connection.how:
            await asyncio.sleep(rules.ping_every_s)
            if self.connection.silent():
                self.unanswered = 0  # half-open: the server does not notice
                continue
            if self.unanswered >= rules.pings_missed:
                self.connection.say(system("R10002", R10002))
                self.vendor.end(self, "heartbeat unanswered")
                return
            self.unanswered += 1
            self.connection.say('{"trnm":"PING"}')


class Kiwoom:
    """The vendor: REST and WebSocket of one line."""

    def __init__(self, line: Line, rules: Rules, random: Random, instruments: list[Instrument]) -> None:
        self.line = line
        self.items = {kiwoom_wire.item_code(instrument): instrument for instrument in instruments}
        self.rules = rules
        self.keys = Keys(random, rules.token_life_s)
        self.sessions: set[Session] = set()
        self._closing: set[asyncio.Task[None]] = set()

    def routes(self) -> list[web.RouteDef]:
        """Everything the vendor answers."""
        return [
            web.post("/oauth2/token", self.issue_token),
            web.post("/oauth2/revoke", self.revoke_token),
            web.get("/api/dostk/websocket", self.talk),
            web.post("/api/{path:.*}", self.call),
        ]

    def displace(self, newcomer: Session) -> None:
        """End the older sessions of the newcomer's app key (spec kiwoom 2.7)."""
        for session in list(self.sessions):
            older = session is not newcomer and session.logged_in
            if older and session.connection.app_key == newcomer.connection.app_key and not session.connection.how:
                session.connection.say(system("R10001", R10001))
                self.end(session, "displaced by a newer login")

    def end(self, session: Session, how: str) -> None:
        """Close a session with 1000 "Bye" once what was said has left."""
        task = asyncio.create_task(session.connection.close(how, 1000, b"Bye"))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def announce(self, venue: str, before: str | None, after: str | None, at: str) -> None:
        """Tell who registered 0s that `venue` went from one phase to the next at `at`, HHMMSS."""
        codes = PHASES.get(venue, {})
        code = codes[after][0] if after in codes else codes[before][1] if before in codes else None
        if code is None:
            return
        frame = kiwoom_wire.real([kiwoom_wire.entry(PHASE_TYPE, "", kiwoom_wire.phase_values(code, at, "000000"))])
        for session in self.sessions:
            if session.logged_in and session.wants_phases():
                session.connection.say(frame.decode())

    async def issue_token(self, request: web.Request) -> web.Response:
        """POST /oauth2/token (spec kiwoom 1.3)."""
        given = await body(request)
        if not given.get("grant_type"):
            return refusal(2, "grant_type이 존재하지 않습니다", 8011)
        if given["grant_type"] != "client_credentials":
            return refusal(2, "grant_type의 값이 맞지 않습니다", 8012)
        if not given.get("appkey") or not given.get("secretkey"):
            return refusal(2, "입력파라미터로 appkey 또는 secretkey가 들어오지 않았습니다", 8020)
        if not self.keys.known(str(given["appkey"]), str(given["secretkey"])):
            return refusal(3, "App Key와 Secret Key 검증에 실패했습니다", 8001)
        token = self.keys.issue(str(given["appkey"]), time.monotonic())
        return web.json_response(
            {
                "expires_dt": f"{token.expires:%Y%m%d%H%M%S}",
                "token_type": "bearer",
                "token": token.text,
                "return_code": 0,
                "return_msg": OK_TEXT,
            }
        )

    async def revoke_token(self, request: web.Request) -> web.Response:
        """POST /oauth2/revoke."""
        given = await body(request)
        if not given.get("token"):
            return refusal(2, "입력파라미터로 토큰이 들어오지 않았습니다", 8016)
        if not self.keys.revoke(str(given["token"])):
            return refusal(3, "토큰 폐기에 실패하였습니다", 8015)
        return web.json_response({"return_code": 0, "return_msg": OK_TEXT})

    async def call(self, request: web.Request) -> web.Response:
        """POST /api/...: the TR is named by the header api-id (spec kiwoom 1.1, 1.5)."""
        api_id = request.headers.get("api-id", "").strip()
        if not api_id or api_id.lower() == "null":
            return refusal(2, "API ID가 Null이거나 값이 없습니다", 1501)
        authorization = request.headers.get("authorization", "")
        if not authorization:
            return refusal(3, "Header에 authorization 필드가 없습니다", 1513)
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return refusal(3, "Header의 authorization 필드 형식이 맞지 않습니다", 1514)
        if not token.strip():
            return refusal(3, "Header의 authorization 필드에 Token이 없습니다", 1516)
        if self.keys.holder(token.strip(), time.monotonic()) is None:
            return refusal(3, "Token이 유효하지 않습니다", 8005)
        if api_id not in ANSWERS:
            return refusal(2, f"해당 API ID는 존재하지 않습니다. API ID={api_id}", 1505)
        path, answer = ANSWERS[api_id]
        if request.path != path:
            return refusal(2, f"해당 URI는 지원하는 API ID가 아닙니다. API ID={api_id}", 1504)
        return await answer(request, await body(request))

    async def talk(self, request: web.Request) -> web.StreamResponse:
        """One WebSocket client from handshake to end."""
        ws, connection = await accept(request, self.line)
        session = Session(self, connection)
        self.sessions.add(session)
        tasks = [asyncio.create_task(connection.write()), asyncio.create_task(session.heartbeat())]
        ending = Ending.VANISHED
        try:
            async for received in read(ws, connection):
                if received.type is WSMsgType.TEXT:
                    session.hear(received.data)
                elif received.type is WSMsgType.PING:
                    await ws.pong(received.data)
                elif received.type is WSMsgType.CLOSE:
                    ending = Ending.CLOSED
        finally:
            self.sessions.discard(session)
            await connection.finish(ending.value, tasks)
        return ws


async def body(request: web.Request) -> dict[str, Any]:
    """The JSON object of a request, empty when it is none."""
    try:
        given = await request.json()
    except ValueError:
        return {}
    return given if isinstance(given, dict) else {}


def refusal(code: int, text: str, inner: int) -> web.Response:
    """An error: HTTP 200, the outer code, and the fine one inside the text (spec kiwoom 1.5)."""
    lead = "인증에 실패했습니다" if code == 3 else "입력 값 오류입니다"
    return web.json_response({"return_code": code, "return_msg": f"{lead}[{inner}:{text}]"})
