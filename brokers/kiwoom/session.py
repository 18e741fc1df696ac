"""Kiwoom WebSocket session protocol on one connection (sans-I/O); docs/wire/kiwoom.md 2.

    LOGIN ------> reply 0 ------> REG (up to 100 symbols) ------> reply 0 ------> REG ... 0s, 1h --> streaming
                     | 8005, 8103, 805004: a new token  | 105110: repeated, slower
                     | 8010, 8030, 8050 ...: refused    | 105115, 105118: refused
    PING <------> identical text         SYSTEM R10001: the key is used elsewhere, wait 60 s
                                         SYSTEM R10004 instead of a LOGIN reply: a new token

Guarantees:
    * Nothing is sent before the LOGIN reply (the vendor would answer 100013).
    * One control request is open at a time: replies carry no id and are matched by order.
    * A group has at most 100 items; heartbeats are echoed verbatim and at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from brokers.errors import SessionExpired, SessionRejected, redact
from brokers.kiwoom import decode
from brokers.kiwoom.rest import access_token, inner_code
from brokers.protocol import MAX_HEARTBEAT_BYTES, ControlResult
from brokers.subscription import Subscription, SubscriptionTable
from brokers.transport.token_cache import AccessToken
from conf.clock import SECOND_NS
from conf.home import Home
from conf.loader import load_secrets
from conf.settings import Settings
from conf.text.secret_mask import remember_secrets
from ringbuf.records import FeedId
from ringbuf.vitals import ProcessState

MAX_GROUP_ITEMS = 100
MARKET_GROUP = "9999"
OTHER_LOGIN_WAIT_S = 60.0
REFUSED_WAIT_S = 60.0
MAX_SPACING_NS = 10 * SECOND_NS

_REFRESH_CODES = {"8003", "8005", "8103"}
_TOO_FAST, _NOT_LOGGED_IN, _TOKEN_REFUSED = 105110, 100013, 805004


class _Message(msgspec.Struct):
    trnm: str
    return_code: int = 0
    return_msg: str = ""
    code: str = ""
    message: str = ""


_decode_message = msgspec.json.Decoder(_Message, strict=False).decode


class _Request(NamedTuple):
    """One REG or REMOVE message.

    A REG also names existing subscriptions of its symbols, so that they stay. Without subscriptions the message is for a `type`
    that has no item and takes no slot.
    """

    trnm: str
    group: str
    subscriptions: tuple[Subscription, ...]
    type: str = ""
    already_subscribed: tuple[Subscription, ...] = ()


class KiwoomSession:
    """One connection's dialogue."""

    def __init__(
        self, token: str, chunk: int, spacing_ms: int, answer_within_s: float, subscription_table: SubscriptionTable
    ) -> None:
        remember_secrets(token)
        self._token = token
        self._spacing_ns = spacing_ms * 1_000_000
        self._answer_within_ns = round(answer_within_s * SECOND_NS)
        self._subscription_table = subscription_table
        self._echoes: list[bytes] = []
        self._chunk = chunk
        self._groups: dict[Subscription, str] = {}
        self._pending_requests: deque[_Request] = deque()
        self._enqueue(subscription_table.states)
        # one by one: should the vendor refuse one of them, it costs that one only
        self._pending_requests += [
            _Request("REG", MARKET_GROUP, (), kind) for kind in (decode.PHASE_TYPE, decode.VI_TYPE)
        ]
        self._outstanding: _Request | None = None
        self._login = "to send"  # then "sent", then "done"
        self._sent_ns = 0

    def _enqueue(self, subscriptions: Iterable[Subscription]) -> None:
        """Ask for them by symbol, in groups of at most 100 items, in messages of at most `chunk`."""
        groups = {decode.item_of(subscription): group for subscription, group in self._groups.items()}
        free_items: dict[str, int] = {}
        for group in groups.values():
            free_items[group] = free_items.get(group, MAX_GROUP_ITEMS) - 1
        items: dict[str, list[Subscription]] = {}
        for subscription in subscriptions:
            items.setdefault(decode.item_of(subscription), []).append(subscription)
        lists: dict[str, list[str]] = {}
        for item in items:
            if item not in groups:
                groups[item] = next((group for group, left in free_items.items() if left), str(len(free_items) + 1))
                free_items[groups[item]] = free_items.get(groups[item], MAX_GROUP_ITEMS) - 1
            lists.setdefault(groups[item], []).append(item)
        for group, group_items in lists.items():
            for at in range(0, len(group_items), self._chunk):
                chunk = group_items[at : at + self._chunk]
                already_subscribed = tuple(r for r in self._groups if decode.item_of(r) in chunk)
                new = tuple(r for item in chunk for r in items[item])
                self._groups |= dict.fromkeys(new, group)
                self._pending_requests.append(_Request("REG", group, new, already_subscribed=already_subscribed))

    @property
    def is_answered(self) -> bool:
        """Whether the vendor accepted the token."""
        return self._login == "done"

    @property
    def state(self) -> ProcessState:
        """Streaming once every subscription has its answer."""
        if self._login != "done":
            return ProcessState.LOGGING_IN
        return ProcessState.STREAMING if self._subscription_table.all_answered() else ProcessState.SUBSCRIBING

    def pending_messages(self, mono_ns: int) -> list[bytes]:
        """Echoes at once; LOGIN, or the next request when the last was answered and its time has come."""
        messages, self._echoes = self._echoes, []
        if self._login == "to send":
            self._login, self._sent_ns = "sent", mono_ns
            messages.append(msgspec.json.encode({"trnm": "LOGIN", "token": self._token}))
        elif (
            self._login == "done"
            and self._pending_requests
            and self._outstanding is None
            and mono_ns - self._sent_ns >= self._spacing_ns
        ):
            self._outstanding = self._pending_requests.popleft()
            self._sent_ns = mono_ns
            if self._outstanding.trnm == "REG":
                for subscription in self._outstanding.subscriptions:
                    self._subscription_table.on_requested(subscription, mono_ns)
            messages.append(_encode_request(self._outstanding))
        return messages

    def receive(self, payload: bytes, mono_ns: int) -> ControlResult:
        """docs/wire/kiwoom.md 2.2 to 2.8. SessionError for responses that concern the whole session."""
        try:
            message = _decode_message(
                payload.decode("utf-8", "replace")
            )  # a bad byte in the message must not cost the response
        except (msgspec.MsgspecError, RecursionError) as error:
            return ControlResult(f"control message of another form: {error}", unexpected=True)
        if message.trnm == "PING":
            if len(payload) > MAX_HEARTBEAT_BYTES:
                return ControlResult(f"heartbeat of {len(payload)} bytes, not echoed", unexpected=True)
            self._echoes.append(payload)
            return ControlResult()
        if message.trnm == "LOGIN":
            return self._on_login(message, mono_ns)
        if message.trnm == "SYSTEM":
            return self._on_system(message)
        if message.trnm in ("REG", "REMOVE"):
            return self._on_reply(message, mono_ns)
        return ControlResult(f"{redact(message.trnm)}: unexpected message", unexpected=True)

    def _on_login(self, message: _Message, mono_ns: int) -> ControlResult:
        if message.return_code == 0:
            self._login, self._sent_ns = "done", mono_ns - self._spacing_ns
            return ControlResult("logged in")
        reason = self._describe(message)
        code = inner_code(message.return_msg)
        if code in _REFRESH_CODES or (not code and message.return_code == _TOKEN_REFUSED):
            raise SessionRejected(f"LOGIN refused: {reason}", refresh_credential=True)
        raise SessionRejected(f"LOGIN refused: {reason}", retry_after_s=REFUSED_WAIT_S)

    def _on_system(self, message: _Message) -> ControlResult:
        reason = redact(f"{message.code} {message.message}")
        if message.code == "R10001":
            raise SessionRejected(f"{reason} (another login with this app key)", retry_after_s=OTHER_LOGIN_WAIT_S)
        if message.code == "R10004" and self._login == "sent":
            raise SessionRejected(f"{reason} (token refused without a LOGIN reply)", refresh_credential=True)
        if message.code == "R10002":
            raise SessionExpired(f"{reason} (heartbeat missed)")
        return ControlResult(f"SYSTEM {reason}", unexpected=True)

    def _on_reply(self, message: _Message, mono_ns: int) -> ControlResult:
        """Replies carry no id: this one belongs to the one request that is out."""
        request, self._outstanding = self._outstanding, None
        if request is None:
            return ControlResult(f"{message.trnm}: {self._describe(message)}: an answer to nothing", unexpected=True)
        count = len(request.subscriptions) + len(request.already_subscribed)
        description = f"{request.trnm} of {count} subscriptions" if count else f"REG of {request.type}"
        if message.return_code == 0 or request.trnm == "REMOVE":
            for subscription in request.subscriptions if request.trnm == "REG" else ():
                self._subscription_table.on_acknowledged(subscription, mono_ns)
            return ControlResult()
        if message.return_code in (_TOO_FAST, _NOT_LOGGED_IN):
            self._spacing_ns = min(max(2 * self._spacing_ns, SECOND_NS), MAX_SPACING_NS)
            self._sent_ns = mono_ns
            self._pending_requests.appendleft(request)
            return ControlResult(
                f"{description}: {self._describe(message)}; again in {self._spacing_ns / SECOND_NS:g} s"
            )
        for subscription in request.subscriptions:
            self._subscription_table.on_refused(subscription, self._describe(message))
        return ControlResult(f"{description} refused: {self._describe(message)}")

    def _describe(self, message: _Message) -> str:
        return redact(f"{message.return_code} {message.return_msg}")

    def subscribe(self, subscriptions: Iterable[Subscription], mono_ns: int) -> None:
        """Queue more subscriptions; a symbol's existing ones are named again, so that they stay (docs/wire/kiwoom.md 2.4)."""
        new = list(subscriptions)
        for subscription in new:
            self._subscription_table.add(subscription)
        self._enqueue(new)

    def unsubscribe(self, subscriptions: Iterable[Subscription], mono_ns: int) -> None:
        """Queue a REMOVE of subscriptions that were sent, and a REG of what their symbols keep.

        The REG is correct whatever a REMOVE means to the vendor (docs/wire/kiwoom.md 2.4). Requests that still wait are dropped.
        """
        dropped = set(subscriptions)
        waiting = [
            request._replace(subscriptions=tuple(r for r in request.subscriptions if r not in dropped))
            if dropped & set(request.subscriptions)
            else request
            for request in self._pending_requests
        ]
        self._pending_requests = deque(r for r in waiting if r.subscriptions or r.already_subscribed or r.type)
        sent: dict[str, list[Subscription]] = {}
        for subscription in dropped:
            group = self._groups.pop(subscription)
            if self._subscription_table.states[subscription].requested_ns:
                sent.setdefault(group, []).append(subscription)
            self._subscription_table.remove(subscription)
        for group, members in sent.items():
            items = {decode.item_of(r) for r in members}
            self._pending_requests.append(_Request("REMOVE", group, tuple(members)))
            if remaining := tuple(r for r in self._groups if decode.item_of(r) in items):
                self._pending_requests.append(_Request("REG", group, (), already_subscribed=remaining))

    def resubscribe(self, subscriptions: Iterable[Subscription], mono_ns: int, unsubscribe_first: bool) -> None:
        """Queue them once more, by group; a request among them that got no answer is given up."""
        wanted = set(subscriptions)
        if self._outstanding is not None and wanted & set(self._outstanding.subscriptions):
            self._outstanding = None
        wanted -= {r for request in self._pending_requests for r in request.subscriptions}
        groups: dict[str, list[Subscription]] = {}
        for subscription in self._groups:
            if subscription in wanted:
                groups.setdefault(self._groups[subscription], []).append(subscription)
        for group, members in groups.items():
            if unsubscribe_first:
                self._pending_requests.append(_Request("REMOVE", group, tuple(members)))
            self._pending_requests.append(_Request("REG", group, tuple(members)))

    def check_timeouts(self, mono_ns: int) -> None:
        """SessionExpired without a LOGIN reply; a REMOVE, 0s or 1h without one is given up: no data depends on them."""
        if mono_ns - self._sent_ns <= self._answer_within_ns:
            return
        if self._login == "sent":
            raise SessionExpired("no reply to LOGIN")
        if self._outstanding is not None and (self._outstanding.trnm != "REG" or not self._outstanding.subscriptions):
            self._outstanding = None


def _encode_request(request: _Request) -> bytes:
    """docs/wire/kiwoom.md 2.4; refresh is always 1 (what 0 drops is not known)."""
    if subscriptions := (*request.subscriptions, *request.already_subscribed):
        types: dict[str, list[str]] = {}
        for subscription in subscriptions:
            types.setdefault(decode.item_of(subscription), []).append(decode.TYPE_OF[subscription.stream])
        items_by_types: dict[tuple[str, ...], list[str]] = {}
        for item, wanted in types.items():
            items_by_types.setdefault(tuple(sorted(wanted)), []).append(item)
        data = [{"item": items, "type": list(wanted)} for wanted, items in items_by_types.items()]
    else:
        data = [{"item": [""], "type": [request.type]}]
    message = {"trnm": request.trnm, "grp_no": request.group}
    return msgspec.json.encode(message | ({"refresh": "1"} if request.trnm == "REG" else {}) | {"data": data})


class Kiwoom:
    """Kiwoom domestic."""

    name = "kiwoom"
    feed_id = FeedId.KIWOOM
    heartbeat_s = 30.0  # recorded: 10 s; three missed are too many (docs/wire/kiwoom.md 2.3, 2.7)
    silence_means_refusal = False
    subscriptions_by_code = staticmethod(decode.subscriptions_by_code)
    decode = staticmethod(decode.decode)

    def websocket_url(self, settings: Settings) -> str:
        """The WebSocket's URL."""
        return settings.kiwoom.ws_url

    def create_credential(self, home: Home, number: int) -> AccessToken:
        """The access token of one of the home's app keys."""
        secrets = load_secrets(home.root, "kiwoom", number=number)
        return access_token(
            home.settings.kiwoom.rest_url, secrets, home.token_path("kiwoom", number), home.load_clock()
        )

    def create_session(
        self, settings: Settings, credential: str, subscription_table: SubscriptionTable
    ) -> KiwoomSession:
        """A dialogue that subscribes what the ledger lists."""
        table = settings.kiwoom
        return KiwoomSession(
            credential,
            table.subscribe_chunk,
            table.subscribe_spacing_ms,
            settings.feed.acknowledge_within_s,
            subscription_table,
        )


BROKER = Kiwoom()
