"""Protocols of a broker: feed session, credential, and what else its folder provides.

Guarantees:
    * Adding a broker takes a folder, one line in the registry, one settings table and one program in supervisord.conf
      (docs/add-a-broker.md); tests/brokers/test_protocol.py checks every broker against the protocols.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from brokers.decoded import DecodedBatch
from brokers.subscription import Subscription, SubscriptionTable
from conf.home import Home
from conf.settings import Settings
from ringbuf.records import FeedId
from ringbuf.vitals import ProcessState

MAX_HEARTBEAT_BYTES = 4096
"""Longest heartbeat that is echoed; a vendor's own has less than 200."""


class ControlResult(NamedTuple):
    """The effect of a control message, described without secrets; `unexpected` if no request explains it.

    `lost`: subscriptions that the vendor ended unasked; the table names them until they are sent again.
    """

    message: str = ""
    unexpected: bool = False
    lost: tuple[Subscription, ...] = ()


class Credential(Protocol):
    """The credential of a session: an approval key, a token. Both calls may block on the network."""

    def get(self) -> str:
        """A valid one, from the cache or newly issued. RestError."""

    def invalidate(self) -> None:
        """Discard the last one, which the vendor refused."""


class FeedSession(Protocol):
    """The session protocol on one connection, without I/O: time is passed in as mono_ns."""

    @property
    def state(self) -> ProcessState:
        """The stage of the session."""

    @property
    def is_answered(self) -> bool:
        """Whether the vendor answered a request of this connection, so that the credential is good."""

    def pending_messages(self, mono_ns: int) -> list[bytes]:
        """Text messages to send now; the session paces them."""

    def receive(self, payload: bytes, mono_ns: int) -> ControlResult:
        """Handle one control message. SessionError if the connection is unusable."""

    def subscribe(self, subscriptions: Iterable[Subscription], mono_ns: int) -> None:
        """Add subscriptions to a running session."""

    def unsubscribe(self, subscriptions: Iterable[Subscription], mono_ns: int) -> None:
        """Remove subscriptions from a running session."""

    def resubscribe(self, subscriptions: Iterable[Subscription], mono_ns: int, unsubscribe_first: bool) -> None:
        """Send subscriptions again; `unsubscribe_first` if the server may still count them as subscribed."""

    def check_timeouts(self, mono_ns: int) -> None:
        """SessionExpired if a response other than a subscription's is overdue."""


class Broker(Protocol):
    """What session.py of a broker's folder provides as BROKER."""

    name: str
    feed_id: FeedId
    heartbeat_s: float  # longest pause between two heartbeats of an idle connection
    silence_means_refusal: bool  # a credential that has ended gets no answer, rather than an error

    def websocket_url(self, settings: Settings) -> str:
        """The WebSocket's URL."""

    def create_credential(self, home: Home, number: int) -> Credential:
        """The credential of this home's key pair `number` (1, 2, ...). SettingsError if secrets are missing."""

    def create_session(self, settings: Settings, credential: str, subscription_table: SubscriptionTable) -> FeedSession:
        """A new session that subscribes what the table lists."""

    def subscriptions_by_code(self, subscriptions: Iterable[Subscription]) -> dict[str, Subscription]:
        """The vendor's spelling of each subscription, as `decode` needs it."""

    def decode(
        self, payload: bytes, by_code: Mapping[str, Subscription], recv_ns: int, mono_ns: int = 0
    ) -> DecodedBatch:
        """One message into records; never raises, whatever the bytes."""
