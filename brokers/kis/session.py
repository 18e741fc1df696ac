"""KIS WebSocket session protocol on one connection (sans-I/O); docs/wire/kis.md 2.

    client                                 server
    subscribe --- spacing --- subscribe    {"header":{"tr_id","tr_key"},"body":{"rt_cd","msg_cd","msg1"}}
                                           OPSP0000, OPSP0002  acknowledged      OPSP0008, 899x  refused
                                           OPSP0011  new approval key            OPSP8996  appkey in use, wait
    identical text <-----------------------{"header":{"tr_id":"PINGPONG",...}}

Guarantees:
    * Subscriptions are sent in order, never closer than the spacing.
    * Heartbeats are echoed verbatim and at once.
    * After "appkey in use" the next attempt comes after 10 s at the earliest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping

import msgspec

from brokers.decoded import DecodedBatch
from brokers.errors import SessionRejected, redact
from brokers.kis import decode
from brokers.kis.rest import ApprovalKey
from brokers.protocol import MAX_HEARTBEAT_BYTES, ControlResult
from brokers.subscription import Subscription, SubscriptionTable
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
_UNSUBSCRIBED_CODES = {"OPSP0001", "OPSP0003"}
_REJECTED_CODES = {"OPSP0008", "OPSP8991", "OPSP8992", "OPSP8993"}
_KEY_INVALID = "OPSP0011"
_IN_USE = "OPSP8996"
_KEY_REJECTED_CODES = {"OPSP0010", "OPSP9994", "OPSP9996"}


class _Header(msgspec.Struct):
    tr_id: str = ""
    tr_key: str = ""


class _Body(msgspec.Struct):
    rt_cd: str = ""
    msg_cd: str = ""
    msg1: str = ""


class _Message(msgspec.Struct):
    header: _Header = msgspec.field(default_factory=_Header)
    body: _Body = msgspec.field(default_factory=_Body)


_decode_message = msgspec.json.Decoder(_Message, strict=False).decode


WireCode = Callable[[Subscription], tuple[str, str]]


class KisSession:
    """One connection's dialogue, domestic or overseas."""

    def __init__(
        self,
        approval_key: str,
        customer_type: str,
        spacing_ms: int,
        subscription_table: SubscriptionTable,
        wire_code: WireCode = decode.wire_code,
    ) -> None:
        """`spelled`: TR id and key of a subscription."""
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
            if tr_type == "1":
                self._subscription_table.on_requested(subscription, mono_ns)
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
            header, body = (message := _decode_message(payload.decode("utf-8", "replace"))).header, message.body
        except (msgspec.MsgspecError, RecursionError) as error:
            return ControlResult(f"control message of another form: {error}", unexpected=True)
        if header.tr_id == "PINGPONG":
            if len(payload) > MAX_HEARTBEAT_BYTES:
                return ControlResult(f"heartbeat of {len(payload)} bytes, not echoed", unexpected=True)
            self._echoes.append(payload)
            return ControlResult()
        code = body.msg_cd
        reason = redact(f"{code} {body.msg1}".strip())
        if code == _IN_USE:
            raise SessionRejected(f"{reason}: the appkey is in use by another session", retry_after_s=IN_USE_WAIT_S)
        if code == _KEY_INVALID:
            raise SessionRejected(reason, refresh_credential=True)
        if code in _KEY_REJECTED_CODES:
            raise SessionRejected(reason, retry_after_s=REFUSED_WAIT_S)
        if code in _UNSUBSCRIBED_CODES:
            return ControlResult()
        subscription = self._by_code.get(f"{header.tr_id}|{header.tr_key}")
        if subscription is None:
            return ControlResult(f"{reason} for {redact(header.tr_id)} {redact(header.tr_key)}", unexpected=True)
        if code in _SUBSCRIBED_CODES or body.rt_cd == "0":
            self._subscription_table.on_acknowledged(subscription, mono_ns)
            return ControlResult()
        if code in _REJECTED_CODES:
            self._subscription_table.on_refused(subscription, reason)
            return ControlResult(f"{subscription} refused: {reason}")
        return ControlResult(
            f"{subscription}: {reason}; it will be sent again"
        )  # e.g. OPSP0007: the ledger finds it overdue

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
        """Nothing here is awaited but subscriptions, which the ledger knows."""


class Kis:
    """KIS domestic."""

    name = "kis"
    feed_id = FeedId.KIS
    heartbeat_s = 150.0  # not documented; "about 110 s" was seen (docs/wire/kis.md 2.5)
    subscriptions_by_code = staticmethod(decode.subscriptions_by_code)

    def websocket_url(self, settings: Settings) -> str:
        """The WebSocket's URL; any path is accepted by the vendor (docs/wire/kis.md 2.1)."""
        return settings.kis.ws_url

    def create_credential(self, home: Home, number: int) -> ApprovalKey:
        """The approval key of one of the home's appkeys."""
        return ApprovalKey(home.settings.kis.rest_url, load_secrets(home.root, "kis", number=number), home.load_clock())

    def create_session(self, settings: Settings, credential: str, subscription_table: SubscriptionTable) -> KisSession:
        """A dialogue that subscribes what the ledger lists."""
        return KisSession(credential, settings.kis.customer_type, settings.kis.subscribe_spacing_ms, subscription_table)

    def decode(
        self, payload: bytes, by_code: Mapping[str, Subscription], recv_ns: int, mono_ns: int = 0
    ) -> DecodedBatch:
        """See decode.py."""
        return decode.decode(payload, by_code, recv_ns, mono_ns)


BROKER = Kis()
