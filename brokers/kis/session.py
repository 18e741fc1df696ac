"""The KIS dialogue on one connection (sans-I/O). Spec kis 2.

    ours                                   theirs
    register ---- spacing ---- register    {"header":{"tr_id","tr_key"},"body":{"rt_cd","msg_cd","msg1"}}
                                           OPSP0000, OPSP0002  acknowledged      OPSP0008, 899x  refused
                                           OPSP0011  new approval key            OPSP8996  appkey in use, wait
    the same text <------------------------{"header":{"tr_id":"PINGPONG",...}}

Promises: registrations go out in order, never closer than the spacing; heartbeats are echoed verbatim and at once; after
"appkey in use" no new attempt sooner than 10 s.
Leaves to others: sockets, the clock (mono_ns is passed in), quotes (decode.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import msgspec

from brokers.decoded import Decoded
from brokers.errors import SessionRefused, mask
from brokers.kis import decode
from brokers.kis.rest import Approval
from brokers.protocol import HEARTBEAT_MOST_BYTES, Heard
from brokers.subscription import Ledger, Registration
from conf.home import Home
from conf.loader import load_secrets
from conf.settings import Settings
from ringbuf.records import Line

IN_USE_WAIT_S = 10.0
"""Least pause after OPSP8996; the slot of a badly closed session frees itself in 10 s to hours (spec kis 2.6)."""
REFUSED_WAIT_S = 60.0

_REGISTERED = {"OPSP0000", "OPSP0002"}  # 0002: ALREADY IN SUBSCRIBE, with rt_cd "1", is what we want all the same
_RELEASED = {"OPSP0001", "OPSP0003"}
_REFUSED = {"OPSP0008", "OPSP8991", "OPSP8992", "OPSP8993"}
_KEY_INVALID = "OPSP0011"
_IN_USE = "OPSP8996"
_KEY_WRONG = {"OPSP0010", "OPSP9994", "OPSP9996"}


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


_message = msgspec.json.Decoder(_Message, strict=False).decode


Spell = Callable[[Registration], tuple[str, str]]


class KisSession:
    """One connection's dialogue, domestic or overseas."""

    def __init__(
        self, approval_key: str, customer_type: str, spacing_ms: int, ledger: Ledger, spelled: Spell = decode.spelled
    ) -> None:
        """`spelled`: TR id and key of a registration."""
        self._approval_key = approval_key
        self._customer_type = customer_type
        self._spacing_ns = spacing_ms * 1_000_000
        self._ledger = ledger
        self._spell = spelled
        self._spelled = {"|".join(spelled(registration)): registration for registration in ledger.standing}
        self._echoes: list[bytes] = []
        self._waiting = deque((registration, "1") for registration in ledger.standing)
        self._next_ns = 0

    @property
    def state(self) -> Literal["subscribing", "streaming"]:
        """Streaming once every registration has its answer."""
        return "streaming" if self._ledger.settled() else "subscribing"

    def outgoing(self, mono_ns: int) -> list[bytes]:
        """Echoes at once, and one registration when its time has come."""
        messages, self._echoes = self._echoes, []
        if self._waiting and mono_ns >= self._next_ns:
            registration, tr_type = self._waiting.popleft()
            self._next_ns = mono_ns + self._spacing_ns
            if tr_type == "1":
                self._ledger.requested(registration, mono_ns)
            messages.append(self._request(registration, tr_type))
        return messages

    def _request(self, registration: Registration, tr_type: str) -> bytes:
        """Spec kis 2.2; tr_type 1 registers, 2 releases."""
        tr_id, tr_key = self._spell(registration)
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

    def receive(self, payload: bytes, mono_ns: int) -> Heard:
        """Spec kis 2.3 to 2.5. SessionRefused for answers that concern the whole session."""
        try:
            # a bad byte in the words must not cost the answer
            header, body = (message := _message(payload.decode("utf-8", "replace"))).header, message.body
        except (msgspec.MsgspecError, RecursionError) as error:
            return Heard(f"control message of another form: {error}", strange=True)
        if header.tr_id == "PINGPONG":
            if len(payload) > HEARTBEAT_MOST_BYTES:
                return Heard(f"heartbeat of {len(payload)} bytes, not echoed", strange=True)
            self._echoes.append(payload)
            return Heard()
        code = body.msg_cd
        words = mask(f"{code} {body.msg1}".strip())
        if code == _IN_USE:
            raise SessionRefused(f"{words}: another session holds the appkey", wait_s=IN_USE_WAIT_S)
        if code == _KEY_INVALID:
            raise SessionRefused(words, renew=True)
        if code in _KEY_WRONG:
            raise SessionRefused(words, wait_s=REFUSED_WAIT_S)
        if code in _RELEASED:
            return Heard()
        registration = self._spelled.get(f"{header.tr_id}|{header.tr_key}")
        if registration is None:
            return Heard(f"{words} for {mask(header.tr_id)} {mask(header.tr_key)}", strange=True)
        if code in _REGISTERED or body.rt_cd == "0":
            self._ledger.acknowledged(registration, mono_ns)
            return Heard()
        if code in _REFUSED:
            self._ledger.refused(registration, words)
            return Heard(f"{registration} refused: {words}")
        return Heard(f"{registration}: {words}; it will be sent again")  # e.g. OPSP0007: the ledger finds it overdue

    def register(self, registrations: Iterable[Registration], mono_ns: int) -> None:
        """Queue more of them."""
        new = list(registrations)
        self._spelled |= {"|".join(self._spell(registration)): registration for registration in new}
        for registration in new:
            self._ledger.add(registration)
            self._waiting.append((registration, "1"))

    def release(self, registrations: Iterable[Registration], mono_ns: int) -> None:
        """Queue a release of each that has been sent; nothing that waits of them is sent any more."""
        gone = set(registrations)
        self._waiting = deque((r, tr_type) for r, tr_type in self._waiting if r not in gone)
        self._waiting += [(r, "2") for r, line in self._ledger.standing.items() if r in gone and line.requested_ns]
        for registration in gone:
            self._ledger.remove(registration)

    def register_again(self, registrations: Iterable[Registration], mono_ns: int, release: bool) -> None:
        """Queue them once more; with `release` what the server holds is given up first, else it would answer 0002."""
        queued = {registration for registration, _ in self._waiting}
        for registration in registrations:
            if registration in queued:
                continue
            if release:
                self._waiting.append((registration, "2"))
            self._waiting.append((registration, "1"))

    def overdue(self, mono_ns: int) -> None:
        """Nothing here is awaited but registrations, which the ledger knows."""


class Kis:
    """KIS domestic."""

    name = "kis"
    line = Line.KIS
    heartbeat_s = 150.0  # not documented; "about 110 s" was seen (spec kis 2.5)
    known = staticmethod(decode.known)

    def address(self, settings: Settings) -> str:
        """The WebSocket's URL; any path is accepted by the vendor (spec kis 2.1)."""
        return settings.kis.ws_url

    def credential(self, home: Home, number: int) -> Approval:
        """The approval key of one of the home's appkeys."""
        return Approval(home.settings.kis.rest_url, load_secrets(home.root, "kis", number=number), home.clock())

    def session(self, settings: Settings, credential: str, ledger: Ledger) -> KisSession:
        """A dialogue that registers what the ledger lists."""
        return KisSession(credential, settings.kis.customer_type, settings.kis.register_spacing_ms, ledger)

    def decode(self, payload: bytes, known: Mapping[str, Registration], recv_ns: int, mono_ns: int = 0) -> Decoded:
        """See decode.py."""
        return decode.decode(payload, known, recv_ns, mono_ns)


BROKER = Kis()
