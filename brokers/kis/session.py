"""KIS WebSocket session protocol on one connection (sans-I/O); docs/wire/kis.md 2.

    client                                 server
    subscribe --- spacing --- subscribe    {"header":{"tr_id","tr_key"},"body":{"rt_cd","msg_cd","msg1"}}
                                           OPSP0000, OPSP0002  acknowledged      OPSP0008, 899x  refused
                                           OPSP0011  new approval key            OPSP8996  appkey in use, wait
                                           OPSP0001 unasked  registered again    nothing at all  new approval key
    identical text <-----------------------{"header":{"tr_id":"PINGPONG",...}}

Guarantees:
    * Subscriptions are sent in order, never closer than the spacing.
    * Heartbeats are echoed verbatim and at once.
    * After "appkey in use" the next attempt comes after 10 s at the earliest.
    * A server that answers no registration at all costs the approval key: one that has ended gets no error.
    * A release that the server sends unasked is a lost registration.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from brokers.errors import SessionExpired, SessionRejected, redact
from brokers.kis import decode
from brokers.kis.rest import ApprovalKey
from brokers.protocol import MAX_HEARTBEAT_BYTES, ControlResult
from brokers.subscription import Subscription, SubscriptionTable
from conf.clock import SECOND_NS
from conf.home import Home
from conf.loader import load_secrets
from conf.settings import Settings
from conf.text.secret_mask import remember_secrets
from ringbuf.records import FeedId
from ringbuf.vitals import ProcessState

IN_USE_WAIT_S = 10.0
"""Least pause after OPSP8996; the slot of a badly closed session frees itself in 10 s to hours (docs/wire/kis.md 2.6)."""
REFUSED_WAIT_S = 60.0

_SUBSCRIBED_CODES = {"OPSP0000", "OPSP0002"}  # 0002, ALREADY IN SUBSCRIBE, comes with rt_cd "1" and is a success
_UNSUBSCRIBED, _NOT_SUBSCRIBED = "OPSP0001", "OPSP0003"
_REJECTED_CODES = {"OPSP0008", "OPSP8991", "OPSP8992", "OPSP8993"}
_KEY_INVALID = "OPSP0011"
_IN_USE = "OPSP8996"
_KEY_REJECTED_CODES = {"OPSP0010", "OPSP9994", "OPSP9996"}


_Text = str | int | None
"""A field of a control message: the vendor's servers do not agree on quotes, null and padding."""


class _Header(msgspec.Struct):
    tr_id: _Text = None
    tr_key: _Text = None


class _Body(msgspec.Struct):
    rt_cd: _Text = None
    msg_cd: _Text = None
    msg1: _Text = None


class _Message(msgspec.Struct):
    header: _Header = msgspec.field(default_factory=_Header)
    body: _Body | None = None


_decode_message = msgspec.json.Decoder(_Message).decode


def _to_text(field: _Text) -> str:
    return "" if field is None else str(field).strip()


WireCode = Callable[[Subscription], tuple[str, str]]


class KisSession:
    """One connection's dialogue, domestic or overseas."""

    def __init__(
        self,
        approval_key: str,
        customer_type: str,
        spacing_ms: int,
        answer_within_s: float,
        subscription_table: SubscriptionTable,
        wire_code: WireCode = decode.wire_code,
    ) -> None:
        """`answer_within_s`: without an answer a registration is sent again; `wire_code`: TR id and key of a subscription."""
        remember_secrets(approval_key)
        self._approval_key = approval_key
        self._customer_type = customer_type
        self._spacing_ns = spacing_ms * 1_000_000
        self._subscription_table = subscription_table
        self._wire_code = wire_code
        self._by_code = {"|".join(wire_code(subscription)): subscription for subscription in subscription_table.states}
        self._echoes: list[bytes] = []
        self._pending_requests = deque((subscription, "1") for subscription in subscription_table.states)
        self._next_send_ns = 0
        self._silence_ns = round(2 * answer_within_s * SECOND_NS)
        self._first_request_ns = 0
        self._is_answered = False
        self._releasing: set[Subscription] = set()  # released, and not answered yet

    @property
    def is_answered(self) -> bool:
        """Whether the vendor answered a registration or sent data of one."""
        return self._is_answered or self._subscription_table.any_data()

    @property
    def state(self) -> ProcessState:
        """Streaming once every subscription has its answer."""
        return ProcessState.STREAMING if self._subscription_table.all_answered() else ProcessState.SUBSCRIBING

    def pending_messages(self, mono_ns: int) -> list[bytes]:
        """Echoes at once, and one subscription when its time has come."""
        messages, self._echoes = self._echoes, []
        if self._pending_requests and mono_ns >= self._next_send_ns:
            subscription, tr_type = self._pending_requests.popleft()
            self._next_send_ns = mono_ns + self._spacing_ns
            self._first_request_ns = self._first_request_ns or mono_ns
            if tr_type == "1":
                self._subscription_table.on_requested(subscription, mono_ns)
            else:
                self._releasing.add(subscription)
            messages.append(self._encode_request(subscription, tr_type))
        return messages

    def _encode_request(self, subscription: Subscription, tr_type: str) -> bytes:
        """docs/wire/kis.md 2.2; tr_type 1 subscribes, 2 releases."""
        tr_id, tr_key = self._wire_code(subscription)
        return msgspec.json.encode(
            {
                "header": {
                    "approval_key": self._approval_key,
                    "custtype": self._customer_type,
                    "tr_type": tr_type,
                    "content-type": "utf-8",
                },
                "body": {"input": {"tr_id": tr_id, "tr_key": tr_key}},
            }
        )

    def receive(self, payload: bytes, mono_ns: int) -> ControlResult:
        """docs/wire/kis.md 2.3 to 2.5. SessionRejected for responses that concern the whole session."""
        try:
            # a bad byte in the message must not cost the response
            message = _decode_message(payload.decode("utf-8", "replace"))
        except (msgspec.MsgspecError, RecursionError) as error:
            return ControlResult(f"control message of another form: {error}", unexpected=True)
        header, body = message.header, message.body or _Body()
        tr_id, tr_key, code = _to_text(header.tr_id), _to_text(header.tr_key), _to_text(body.msg_cd)
        if tr_id == "PINGPONG":
            if len(payload) > MAX_HEARTBEAT_BYTES:
                return ControlResult(f"heartbeat of {len(payload)} bytes, not echoed", unexpected=True)
            self._echoes.append(payload)
            return ControlResult()
        reason = redact(f"{code} {_to_text(body.msg1)}".strip())
        if code == _IN_USE:
            raise SessionRejected(f"{reason}: the appkey is in use by another session", retry_after_s=IN_USE_WAIT_S)
        if code == _KEY_INVALID:
            raise SessionRejected(reason, refresh_credential=True)
        if code in _KEY_REJECTED_CODES:
            raise SessionRejected(reason, retry_after_s=REFUSED_WAIT_S)
        if code == _NOT_SUBSCRIBED:
            self._releasing -= {self._by_code.get(f"{tr_id}|{tr_key}")}
            return ControlResult()
        if code == _UNSUBSCRIBED:
            return self._on_released(tr_id, tr_key, mono_ns)
        subscription = self._by_code.get(f"{tr_id}|{tr_key}") if tr_key else self._oldest_unanswered(tr_id)
        if subscription is None:
            return ControlResult(f"{reason} for {redact(tr_id)} {redact(tr_key)}", unexpected=True)
        self._is_answered = True
        if code in _SUBSCRIBED_CODES or _to_text(body.rt_cd) == "0":
            self._releasing.discard(subscription)
            self._subscription_table.on_acknowledged(subscription, mono_ns)
            return ControlResult()
        if code in _REJECTED_CODES:
            self._subscription_table.on_refused(subscription, reason)
            return ControlResult(f"{subscription} refused: {reason}")
        return ControlResult(
            f"{subscription}: {reason}; it will be sent again"
        )  # e.g. OPSP0007: the ledger finds it overdue

    def _oldest_unanswered(self, tr_id: str) -> Subscription | None:
        """Whose answer it is that names no key: answers come in the order of the requests (unverified)."""
        states = self._subscription_table.states
        waiting = [
            (state.requested_ns, code)
            for code, subscription in self._by_code.items()
            if code.startswith(f"{tr_id}|") and (state := states.get(subscription)) is not None
            if state.requested_ns and not state.acknowledged_ns and not state.refusal
        ]
        return self._by_code[min(waiting)[1]] if waiting else None

    def _on_released(self, tr_id: str, tr_key: str, mono_ns: int) -> ControlResult:
        """The answer to a release, or one that nobody asked for; without a key it may be any registration of the TR."""
        named = {
            subscription
            for code, subscription in self._by_code.items()
            if code == f"{tr_id}|{tr_key}" or (not tr_key and code.startswith(f"{tr_id}|"))
        }
        if asked := named & self._releasing:
            self._releasing.discard(next(iter(asked)))
            return ControlResult()
        lost = tuple(
            subscription
            for subscription, state in self._subscription_table.states.items()
            if subscription in named and state.acknowledged_ns
        )
        for subscription in lost:
            self._subscription_table.on_lost(subscription, mono_ns)
        return ControlResult(lost=lost)

    def subscribe(self, subscriptions: Iterable[Subscription], mono_ns: int) -> None:
        """Queue more of them."""
        new = list(subscriptions)
        self._by_code |= {"|".join(self._wire_code(subscription)): subscription for subscription in new}
        for subscription in new:
            self._subscription_table.add(subscription)
            self._pending_requests.append((subscription, "1"))

    def unsubscribe(self, subscriptions: Iterable[Subscription], mono_ns: int) -> None:
        """Queue a release of each that has been sent; nothing that waits of them is sent any more."""
        dropped = set(subscriptions)
        self._pending_requests = deque((r, tr_type) for r, tr_type in self._pending_requests if r not in dropped)
        self._pending_requests += [
            (r, "2") for r, state in self._subscription_table.states.items() if r in dropped and state.requested_ns
        ]
        for subscription in dropped:
            self._subscription_table.remove(subscription)

    def resubscribe(self, subscriptions: Iterable[Subscription], mono_ns: int, unsubscribe_first: bool) -> None:
        """Queue them once more; with `unsubscribe_first` after an unsubscribe request, else the server answers 0002."""
        queued = {subscription for subscription, _ in self._pending_requests}
        for subscription in subscriptions:
            if subscription in queued:
                continue
            if unsubscribe_first:
                self._pending_requests.append((subscription, "2"))
            self._pending_requests.append((subscription, "1"))

    def check_timeouts(self, mono_ns: int) -> None:
        """SessionExpired if nothing was answered since the first registration: an approval key that has ended gets no error."""
        waited_ns = mono_ns - self._first_request_ns
        if self._first_request_ns and waited_ns > self._silence_ns and not self.is_answered:
            raise SessionExpired(
                f"no answer to any registration for {waited_ns / SECOND_NS:.0f} s: the approval key may have ended"
            )


class Kis:
    """KIS domestic."""

    name = "kis"
    feed_id = FeedId.KIS
    heartbeat_s = 150.0  # not documented; "about 110 s" was seen (docs/wire/kis.md 2.5)
    silence_means_refusal = True  # docs/wire/kis.md 1.3
    subscriptions_by_code = staticmethod(decode.subscriptions_by_code)
    decode = staticmethod(decode.decode)

    def websocket_url(self, settings: Settings) -> str:
        """The WebSocket's URL; any path is accepted by the vendor (docs/wire/kis.md 2.1)."""
        return settings.kis.ws_url

    def create_credential(self, home: Home, number: int) -> ApprovalKey:
        """The approval key of one of the home's appkeys."""
        return ApprovalKey(home.settings.kis.rest_url, load_secrets(home.root, "kis", number=number), home.load_clock())

    def create_session(self, settings: Settings, credential: str, subscription_table: SubscriptionTable) -> KisSession:
        """A dialogue that subscribes what the ledger lists."""
        table, answer_within_s = settings.kis, settings.feed.acknowledge_within_s
        return KisSession(
            credential, table.customer_type, table.subscribe_spacing_ms, answer_within_s, subscription_table
        )


BROKER = Kis()
