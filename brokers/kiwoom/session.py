"""The Kiwoom dialogue on one connection (sans-I/O). Spec kiwoom 2.

    LOGIN ------> reply 0 ------> REG (up to 100 symbols) ------> reply 0 ------> REG ... 0s, 1h --> streaming
                     | 8005, 8103: a new token, once    | 105110: slower, again
                     | 8010, 8030, 8050 ...: refused    | 105115, 105118: refused
    PING <------> the same text          SYSTEM R10001: somebody else uses the key, wait 60 s

Promises: nothing is sent before the LOGIN reply (it would be ignored, 100013); one control request at a time, matched by order
because replies carry no id; a group never has more than 100 items; heartbeats are echoed verbatim and at once.
Leaves to others: sockets, the clock (mono_ns is passed in), market data (decode.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import msgspec

from brokers.decoded import Decoded
from brokers.errors import SessionLost, SessionRefused, mask
from brokers.kiwoom import decode
from brokers.kiwoom.rest import access_token, inner_code
from brokers.protocol import HEARTBEAT_MOST_BYTES, Heard
from brokers.subscription import Ledger, Registration
from brokers.transport.token_cache import AccessToken
from conf.clock import SECOND_NS
from conf.home import Home
from conf.loader import load_secrets
from conf.settings import Settings
from ringbuf.records import Line

GROUP_ITEMS = 100
MARKET_GROUP = "9999"
OTHER_LOGIN_WAIT_S = 60.0
REFUSED_WAIT_S = 60.0
SLOWEST_NS = 10 * SECOND_NS

_RENEW = {"8003", "8005", "8103"}
_TOO_FAST, _NOT_LOGGED_IN = 105110, 100013


class _Message(msgspec.Struct):
    trnm: str
    return_code: int = 0
    return_msg: str = ""
    code: str = ""
    message: str = ""


_message = msgspec.json.Decoder(_Message, strict=False).decode


class _Request(NamedTuple):
    """One REG or REMOVE; `beside`: what is registered already and named again, so that it stays. Without registrations it is for a
    `type` that has no item, and takes no slot."""

    trnm: str
    group: str
    registrations: tuple[Registration, ...]
    type: str = ""
    beside: tuple[Registration, ...] = ()


class KiwoomSession:
    """One connection's dialogue."""

    def __init__(self, token: str, chunk: int, spacing_ms: int, answer_within_s: float, ledger: Ledger) -> None:
        self._token = token
        self._spacing_ns = spacing_ms * 1_000_000
        self._answer_within_ns = round(answer_within_s * SECOND_NS)
        self._ledger = ledger
        self._echoes: list[bytes] = []
        self._chunk = chunk
        self._groups: dict[Registration, str] = {}
        self._waiting: deque[_Request] = deque()
        self._queue(ledger.standing)
        # one by one: should the vendor refuse one of them, it costs that one only
        self._waiting += [_Request("REG", MARKET_GROUP, (), kind) for kind in (decode.PHASE_TYPE, decode.VI_TYPE)]
        self._outstanding: _Request | None = None
        self._login = "to send"  # then "sent", then "done"
        self._sent_ns = 0

    def _queue(self, registrations: Iterable[Registration]) -> None:
        """Ask for them by symbol, in groups of at most 100 items, in messages of at most `chunk`."""
        groups = {decode.item_of(registration): group for registration, group in self._groups.items()}
        room: dict[str, int] = {}
        for group in groups.values():
            room[group] = room.get(group, GROUP_ITEMS) - 1
        items: dict[str, list[Registration]] = {}
        for registration in registrations:
            items.setdefault(decode.item_of(registration), []).append(registration)
        lists: dict[str, list[str]] = {}
        for item in items:
            if item not in groups:
                groups[item] = next((group for group, left in room.items() if left), str(len(room) + 1))
                room[groups[item]] = room.get(groups[item], GROUP_ITEMS) - 1
            lists.setdefault(groups[item], []).append(item)
        for group, named in lists.items():
            for at in range(0, len(named), self._chunk):
                chunk = named[at : at + self._chunk]
                beside = tuple(r for r in self._groups if decode.item_of(r) in chunk)
                new = tuple(r for item in chunk for r in items[item])
                self._groups |= dict.fromkeys(new, group)
                self._waiting.append(_Request("REG", group, new, beside=beside))

    @property
    def state(self) -> Literal["logging_in", "subscribing", "streaming"]:
        """Streaming once every registration has its answer."""
        if self._login != "done":
            return "logging_in"
        return "streaming" if self._ledger.settled() else "subscribing"

    def outgoing(self, mono_ns: int) -> list[bytes]:
        """Echoes at once; LOGIN, or the next request when the last was answered and its time has come."""
        messages, self._echoes = self._echoes, []
        if self._login == "to send":
            self._login, self._sent_ns = "sent", mono_ns
            messages.append(msgspec.json.encode({"trnm": "LOGIN", "token": self._token}))
        elif (
            self._login == "done"
            and self._waiting
            and self._outstanding is None
            and mono_ns - self._sent_ns >= self._spacing_ns
        ):
            self._outstanding = self._waiting.popleft()
            self._sent_ns = mono_ns
            if self._outstanding.trnm == "REG":
                for registration in self._outstanding.registrations:
                    self._ledger.requested(registration, mono_ns)
            messages.append(_spell(self._outstanding))
        return messages

    def receive(self, payload: bytes, mono_ns: int) -> Heard:
        """Spec kiwoom 2.2 to 2.8. SessionError for what concerns the whole session."""
        try:
            message = _message(payload.decode("utf-8", "replace"))  # a bad byte in the words must not cost the answer
        except (msgspec.MsgspecError, RecursionError) as error:
            return Heard(f"control message of another form: {error}", strange=True)
        if message.trnm == "PING":
            if len(payload) > HEARTBEAT_MOST_BYTES:
                return Heard(f"heartbeat of {len(payload)} bytes, not echoed", strange=True)
            self._echoes.append(payload)
            return Heard()
        if message.trnm == "LOGIN":
            return self._logged_in(message, mono_ns)
        if message.trnm == "SYSTEM":
            return self._system(message)
        if message.trnm in ("REG", "REMOVE"):
            return self._answered(message, mono_ns)
        return Heard(f"{mask(message.trnm)}: message of a kind nobody asked for", strange=True)

    def _logged_in(self, message: _Message, mono_ns: int) -> Heard:
        if message.return_code == 0:
            self._login, self._sent_ns = "done", mono_ns - self._spacing_ns
            return Heard("logged in")
        words = self._words(message)
        code = inner_code(message.return_msg)
        if code in _RENEW:
            raise SessionRefused(f"LOGIN refused: {words}", renew=True)
        raise SessionRefused(f"LOGIN refused: {words}", wait_s=REFUSED_WAIT_S)

    def _system(self, message: _Message) -> Heard:
        words = mask(f"{message.code} {message.message}")
        if message.code == "R10001":
            raise SessionRefused(f"{words} (another login with this app key)", wait_s=OTHER_LOGIN_WAIT_S)
        if message.code == "R10002":
            raise SessionLost(f"{words} (heartbeat missed)")
        return Heard(f"SYSTEM {words}", strange=True)

    def _answered(self, message: _Message, mono_ns: int) -> Heard:
        """Replies carry no id: this one belongs to the one request that is out."""
        request, self._outstanding = self._outstanding, None
        if request is None:
            return Heard(f"{message.trnm}: {self._words(message)}: an answer to nothing", strange=True)
        count = len(request.registrations) + len(request.beside)
        what = f"{request.trnm} of {count} registrations" if count else f"REG of {request.type}"
        if message.return_code == 0 or request.trnm == "REMOVE":
            for registration in request.registrations if request.trnm == "REG" else ():
                self._ledger.acknowledged(registration, mono_ns)
            return Heard()
        if message.return_code in (_TOO_FAST, _NOT_LOGGED_IN):
            self._spacing_ns = min(max(2 * self._spacing_ns, SECOND_NS), SLOWEST_NS)
            self._sent_ns = mono_ns
            self._waiting.appendleft(request)
            return Heard(f"{what}: {self._words(message)}; again in {self._spacing_ns / SECOND_NS:g} s")
        for registration in request.registrations:
            self._ledger.refused(registration, self._words(message))
        return Heard(f"{what} refused: {self._words(message)}")

    def _words(self, message: _Message) -> str:
        return mask(f"{message.return_code} {message.return_msg}".replace(self._token, "***"))

    def register(self, registrations: Iterable[Registration], mono_ns: int) -> None:
        """Queue more of them; what a symbol has already is named again, so that it stays whatever a REG means (spec kiwoom 2.4)."""
        new = list(registrations)
        for registration in new:
            self._ledger.add(registration)
        self._queue(new)

    def release(self, registrations: Iterable[Registration], mono_ns: int) -> None:
        """Queue a REMOVE of those that have been sent, and a REG of what their symbols keep, whatever a REMOVE means (spec 2.4);
        nothing that waits of them is sent any more."""
        gone = set(registrations)
        waiting = [
            request._replace(registrations=tuple(r for r in request.registrations if r not in gone))
            if gone & set(request.registrations)
            else request
            for request in self._waiting
        ]
        self._waiting = deque(r for r in waiting if r.registrations or r.beside or r.type)
        sent: dict[str, list[Registration]] = {}
        for registration in gone:
            group = self._groups.pop(registration)
            if self._ledger.standing[registration].requested_ns:
                sent.setdefault(group, []).append(registration)
            self._ledger.remove(registration)
        for group, members in sent.items():
            items = {decode.item_of(r) for r in members}
            self._waiting.append(_Request("REMOVE", group, tuple(members)))
            if kept := tuple(r for r in self._groups if decode.item_of(r) in items):
                self._waiting.append(_Request("REG", group, (), beside=kept))

    def register_again(self, registrations: Iterable[Registration], mono_ns: int, release: bool) -> None:
        """Queue them once more, by group; a request among them that got no answer is given up."""
        wanted = set(registrations)
        if self._outstanding is not None and wanted & set(self._outstanding.registrations):
            self._outstanding = None
        wanted -= {r for request in self._waiting for r in request.registrations}
        groups: dict[str, list[Registration]] = {}
        for registration in self._groups:
            if registration in wanted:
                groups.setdefault(self._groups[registration], []).append(registration)
        for group, members in groups.items():
            if release:
                self._waiting.append(_Request("REMOVE", group, tuple(members)))
            self._waiting.append(_Request("REG", group, tuple(members)))

    def overdue(self, mono_ns: int) -> None:
        """SessionLost without a LOGIN reply; a REMOVE, 0s or 1h without one is given up: no data depends on them."""
        if mono_ns - self._sent_ns <= self._answer_within_ns:
            return
        if self._login == "sent":
            raise SessionLost("no reply to LOGIN")
        if self._outstanding is not None and (self._outstanding.trnm != "REG" or not self._outstanding.registrations):
            self._outstanding = None


def _spell(request: _Request) -> bytes:
    """Spec kiwoom 2.4; refresh is always 1 (what 0 drops is not known)."""
    if named := (*request.registrations, *request.beside):
        types: dict[str, list[str]] = {}
        for registration in named:
            types.setdefault(decode.item_of(registration), []).append(decode.TYPE_OF[registration.stream])
        alike: dict[tuple[str, ...], list[str]] = {}
        for item, wanted in types.items():
            alike.setdefault(tuple(sorted(wanted)), []).append(item)
        data = [{"item": items, "type": list(wanted)} for wanted, items in alike.items()]
    else:
        data = [{"item": [""], "type": [request.type]}]
    message = {"trnm": request.trnm, "grp_no": request.group}
    return msgspec.json.encode(message | ({"refresh": "1"} if request.trnm == "REG" else {}) | {"data": data})


class Kiwoom:
    """Kiwoom domestic."""

    name = "kiwoom"
    line = Line.KIWOOM
    heartbeat_s = 30.0  # recorded: 10 s; three missed are too many (spec kiwoom 2.3, 2.7)
    known = staticmethod(decode.known)

    def address(self, settings: Settings) -> str:
        """The WebSocket's URL."""
        return settings.kiwoom.ws_url

    def credential(self, home: Home, number: int) -> AccessToken:
        """The access token of one of the home's app keys."""
        secrets = load_secrets(home.root, "kiwoom", number=number)
        return access_token(home.settings.kiwoom.rest_url, secrets, home.token("kiwoom", number), home.clock())

    def session(self, settings: Settings, credential: str, ledger: Ledger) -> KiwoomSession:
        """A dialogue that registers what the ledger lists."""
        table = settings.kiwoom
        return KiwoomSession(
            credential, table.register_chunk, table.register_spacing_ms, settings.feed.acknowledge_within_s, ledger
        )

    def decode(self, payload: bytes, known: Mapping[str, Registration], recv_ns: int, mono_ns: int = 0) -> Decoded:
        """See decode.py."""
        return decode.decode(payload, known, recv_ns, mono_ns)


BROKER = Kiwoom()
