"""KIS's WebSocket as documented: it registers, refuses, pings and hangs up.

    GET /  /tryitout  /tryitout/ANY

Promises: what spec kis 2 and 9 state is enforced: one session per appkey (the older survives), 41 registrations, the codes of
2.4, PINGPONG.
Leaves to others: tokens and approval keys (kis_keys.py), quotations over REST (kis_quotations.py), the market (line.py),
fields (kis_wire.py).
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

from brokers.simulator.gateway.client import Connection
from brokers.simulator.gateway.feed import Line
from brokers.simulator.gateway.handshake import Ending, accept, read
from brokers.simulator.ground_truth import Stream
from brokers.simulator.kis import encode
from brokers.simulator.kis.auth import Keys
from conf.instrument import Instrument, parse

STREAMS = {tr: (venue, Stream.TICK) for venue, tr in encode.TRADE_TR.items()}
STREAMS |= {tr: (venue, Stream.BOOK) for venue, tr in encode.BOOK_TR.items()}
TRS = frozenset(STREAMS) | frozenset(
    {"H0STANC0", "H0NXANC0", "H0UNANC0", "H0STMKO0", "H0NXMKO0", "H0UNMKO0", "H0STOUP0", "H0STOAC0", "H0STOAA0"}
    | {"HDFSCNT0", "HDFSASP0", "HDFSASP1", "H0STCNI0", "H0STCNI9", "H0GSCNI0", "H0GSCNI9"}
)
"""All that can be registered; for those that are not of the line's feed there is nothing to send."""
REGISTER, RELEASE = "1", "2"


@dataclass(frozen=True)
class Rules:
    """What is a parameter because nobody knows the vendor's value, or because a test wants another one."""

    registrations: int = 41
    ping_idle_s: float = 10.0
    ping_grace_s: float = 60.0
    slot_release_s: float = 0.5
    cut_on_empty_pong: bool = False


class Feed(NamedTuple):
    """What of the market a line sends: its TRs, and what a TR id and key of them mean (ValueError for an impossible key)."""

    trs: frozenset[str]
    find: Callable[[str, str], tuple[Instrument, Stream]]


def domestic(tr_id: str, tr_key: str) -> tuple[Instrument, Stream]:
    """What a domestic registration means. ValueError for an impossible key."""
    venue, stream = STREAMS[tr_id]
    named = parse(tr_key)
    if named.venue != "KRX":
        raise ValueError("the TR names the venue, not the key")
    return Instrument(named.symbol, venue), stream


DOMESTIC = Feed(frozenset(STREAMS), domestic)


class Refusal(Exception):
    """A registration that gets an error: msg_cd, msg1, rt_cd."""

    def __init__(self, code: str, text: str, rt_cd: str = "1") -> None:
        super().__init__(code)
        self.code, self.text, self.rt_cd = code, text, rt_cd


class InUse(Refusal):
    """A second session of an appkey: answered, then hung up on (spec kis 2.6)."""

    def __init__(self) -> None:
        super().__init__("OPSP8996", "ALREADY IN USE appkey", "9")


def answer(tr_id: str, tr_key: str, rt_cd: str, code: str, text: str, output: dict[str, str] | None = None) -> str:
    """A control message in the compact form of spec kis 2.3."""
    body: dict[str, object] = {"rt_cd": rt_cd, "msg_cd": code, "msg1": text}
    if output is not None:
        body["output"] = output
    message = {"header": {"tr_id": tr_id, "tr_key": tr_key, "encrypt": "N"}, "body": body}
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


def part(message: Any, name: str, code: str) -> Any:
    """`message[name]`; Refusal with `code` when it is not there."""
    if not isinstance(message, dict) or name not in message:
        raise Refusal(code, f"JSON PARSING ERROR : {name} not found")
    return message[name]


class Session:
    """One client's conversation: what it registered, and its heartbeat."""

    def __init__(self, vendor: Kis, connection: Connection) -> None:
        self.vendor = vendor
        self.connection = connection
        self.registered: set[tuple[str, str]] = set()
        self.last_registration_ns = 0
        random = vendor.random
        self.secret = {
            "iv": "".join(random.choices("0123456789abcdef", k=16)),
            "key": "".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=32)),
        }
        self.unanswered_since_ns = 0

    def hear(self, text: str) -> None:
        """A text frame of the client: a registration, or the echo of a PINGPONG."""
        tr_id, tr_key = "(null)", ""
        try:
            try:
                message = json.loads(text)
            except ValueError:
                raise Refusal("OPSP9999", "JSON PARSING ERROR : invalid json format") from None
            header = part(message, "header", "OPSP9998")
            if isinstance(header, dict) and header.get("tr_id") == "PINGPONG":
                self.alive()
                return
            wanted = part(part(message, "body", "OPSP9992"), "input", "OPSP9991")
            tr_id, tr_key = str(part(wanted, "tr_id", "OPSP9991")), str(part(wanted, "tr_key", "OPSP9990"))
            self._admit(header)
            self._change(str(header.get("tr_type", "")), tr_id, tr_key)
        except InUse as refusal:
            self.connection.say(answer("(null)", "", refusal.rt_cd, refusal.code, refusal.text))
            self.connection.hang_up("refused: appkey in use")
        except Refusal as refusal:
            self._reply(answer(tr_id, tr_key, refusal.rt_cd, refusal.code, refusal.text))

    def names(self) -> set[str]:
        """The instrument keys registered."""
        return {tr_key for _, tr_key in self.registered}

    def alive(self) -> None:
        """The client answered the heartbeat."""
        self.unanswered_since_ns = 0

    def _admit(self, header: dict[str, Any]) -> None:
        """Check who speaks; the first registration takes the appkey's only slot."""
        approval = str(part(header, "approval_key", "OPSP9996"))
        if str(header.get("custtype", "")) not in ("P", "B"):
            code = "OPSP8998" if "custtype" in header else "OPSP9997"
            raise Refusal(
                code, f"JSON PARSING ERROR : {'invalid custtype' if 'custtype' in header else 'custtype not found'}"
            )
        if self.connection.app_key:
            return  # an established session outlives its key (spec kis 1.3)
        app_key = self.vendor.keys.approved(approval, time.monotonic())
        if app_key is None:
            raise Refusal("OPSP0011", f"invalid approval : {approval}")
        if not self.vendor.take_slot(app_key, self.connection):
            raise InUse
        self.connection.app_key = app_key

    def _change(self, tr_type: str, tr_id: str, tr_key: str) -> None:
        if tr_type not in (REGISTER, RELEASE):
            raise Refusal("OPSP8997", "JSON PARSING ERROR : invalid tr_type")
        if tr_id not in TRS:
            raise Refusal("OPSP8991", "SUBSCRIBE ERROR : invalid tr_id")
        known = (tr_id, tr_key) in self.registered
        if tr_type == RELEASE:
            if not known:
                raise Refusal("OPSP0003", "UNSUBSCRIBE ERROR(not found!)")
            self.registered.discard((tr_id, tr_key))
            self.connection.registered.discard(self._stream(tr_id, tr_key))
            self._reply(answer(tr_id, tr_key, "0", "OPSP0001", "UNSUBSCRIBE SUCCESS", self.secret))
            return
        if known:
            raise Refusal("OPSP0002", "ALREADY IN SUBSCRIBE")
        stream = self._stream(tr_id, tr_key)
        faults = self.connection.line.faults
        if faults.refuse:
            faults.refuse -= 1
            raise Refusal("OPSP0007", "SUBSCRIBE INTERNAL ERROR")
        if len(self.registered) >= self.vendor.rules.registrations:
            raise Refusal("OPSP0008", "MAX SUBSCRIBE OVER")
        self.registered.add((tr_id, tr_key))
        if stream is not None:
            self.connection.registered.add(stream)
        self.last_registration_ns = time.monotonic_ns()
        self._reply(answer(tr_id, tr_key, "0", "OPSP0000", "SUBSCRIBE SUCCESS", self.secret))

    def _stream(self, tr_id: str, tr_key: str) -> tuple[Instrument, Stream] | None:
        """What of the market a registration means; None for TRs the line does not feed. Refusal of an impossible key."""
        feed = self.vendor.feed
        if tr_id not in feed.trs:
            return None
        try:
            return feed.find(tr_id, tr_key)
        except ValueError:
            raise Refusal("OPSP8992", "SUBSCRIBE ERROR : invalid tr_key") from None

    def _reply(self, text: str) -> None:
        self.connection.say(text, self.connection.line.faults.late_ack_s)

    async def heartbeat(self) -> None:
        """PINGPONG whenever nothing was sent for a while; cut a client that leaves it unanswered (spec kis 2.5)."""
        rules = self.vendor.rules
        while not self.connection.how:
            if self.connection.silent():
                self.unanswered_since_ns = 0  # half-open: the server does not notice
            idle_s = (time.monotonic_ns() - self.connection.last_sent_ns) / 1e9
            if self.unanswered_since_ns and time.monotonic_ns() - self.unanswered_since_ns > rules.ping_grace_s * 1e9:
                self.connection.cut("heartbeat unanswered")
                return
            if idle_s >= rules.ping_idle_s:
                at = f"{self.vendor.now():%Y%m%d%H%M%S}"
                self.connection.say(f'{{"header":{{"tr_id":"PINGPONG","datetime":"{at}"}}}}')
                self.unanswered_since_ns = self.unanswered_since_ns or time.monotonic_ns()
                idle_s = 0.0
            await asyncio.sleep(min(max(rules.ping_idle_s - idle_s, 0.01), rules.ping_grace_s))


class Kis:
    """The vendor's WebSocket side of one line."""

    def __init__(
        self,
        line: Line,
        rules: Rules,
        keys: Keys,
        random: Random,
        now: Callable[[], datetime],
        feed: Feed = DOMESTIC,
    ) -> None:
        self.line = line
        self.feed = feed
        self.rules = rules
        self.random = random
        self.now = now
        self.keys = keys
        self.sessions: set[Session] = set()
        self._slots: dict[str, Connection | float] = {}

    def routes(self) -> list[web.RouteDef]:
        """The paths a WebSocket is opened at (spec kis 2.1)."""
        return [
            web.get("/", self.talk),
            web.get("/tryitout", self.talk),
            web.get("/tryitout/{any:.*}", self.talk),
        ]

    def take_slot(self, app_key: str, connection: Connection) -> bool:
        """Give the appkey's one session to `connection` unless another has it, or had it until a moment ago."""
        holder = self._slots.get(app_key)
        if isinstance(holder, Connection) or (holder is not None and time.monotonic() < holder):
            return False
        self._slots[app_key] = connection
        return True

    async def talk(self, request: web.Request) -> web.StreamResponse:
        """One WebSocket client from handshake to end."""
        ws, connection = await accept(request, self.line)
        session = Session(self, connection)
        self.sessions.add(session)
        tasks = [asyncio.create_task(connection.write()), asyncio.create_task(session.heartbeat())]
        ending = Ending.VANISHED
        try:
            async for message in read(ws, connection):
                if message.type is WSMsgType.TEXT:
                    session.hear(message.data)
                elif message.type is WSMsgType.PING:
                    await ws.pong(message.data)
                elif message.type is WSMsgType.PONG:
                    if not message.data and self.rules.cut_on_empty_pong:
                        connection.cut("unsolicited empty Pong")
                    elif message.data:
                        session.alive()
                elif message.type is WSMsgType.CLOSE:
                    ending = Ending.CLOSED
        finally:
            self.sessions.discard(session)
            if self._slots.get(connection.app_key) is connection:
                wait_s = 0.0 if ending is Ending.CLOSED else self.rules.slot_release_s
                self._slots[connection.app_key] = time.monotonic() + wait_s
            await connection.finish(ending.value, tasks)
        return ws
