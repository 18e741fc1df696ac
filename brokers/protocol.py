"""What a broker is: the protocols that its folder provides.

Promises: adding a broker is a folder with session.py and decode.py (and its calls), one line in BROKERS (registry.py), one
table in the settings, one program in supervisord.conf; tests/brokers/test_contract.py holds every broker to the protocols.
Leaves to others: the loop that drives a broker (connection.py), which instruments it gets (plan.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, Protocol

from brokers.decoded import Decoded
from brokers.subscription import Ledger, Registration
from conf.home import Home
from conf.settings import Settings
from ringbuf.records import Line

HEARTBEAT_MOST_BYTES = 4096
"""A vendor's heartbeat has less than 200; what is echoed must not be what fills a connection."""


class Heard(NamedTuple):
    """What a control message meant, in words without secrets; `strange` if nobody expected it."""

    words: str = ""
    strange: bool = False


class Credential(Protocol):
    """What a session shows the vendor: an approval key, a token. Both calls may block on the network."""

    def get(self) -> str:
        """A valid one, from the cache or newly issued. RestError."""

    def spoil(self) -> None:
        """The vendor refused the last one: do not hand it out again."""


class Session(Protocol):
    """The dialogue on one connection, without I/O: time is passed in as mono_ns."""

    @property
    def state(self) -> Literal["logging_in", "subscribing", "streaming"]:
        """How far it has come."""

    def outgoing(self, mono_ns: int) -> list[bytes]:
        """Text messages that are to be sent now; pacing is the session's affair."""

    def receive(self, payload: bytes, mono_ns: int) -> Heard:
        """Take one control message. SessionError if the connection is of no more use."""

    def register(self, registrations: Iterable[Registration], mono_ns: int) -> None:
        """Ask for more than the session began with, while it goes on."""

    def release(self, registrations: Iterable[Registration], mono_ns: int) -> None:
        """Give some up, while the others go on."""

    def register_again(self, registrations: Iterable[Registration], mono_ns: int, release: bool) -> None:
        """Ask once more, after releasing what the server may believe to be registered."""

    def overdue(self, mono_ns: int) -> None:
        """SessionLost if an answer is missing that is no registration's."""


class Broker(Protocol):
    """What session.py of a broker's folder provides as BROKER."""

    name: str
    line: Line
    heartbeat_s: float  # longest pause between two heartbeats of an idle connection

    def address(self, settings: Settings) -> str:
        """The WebSocket's URL."""

    def credential(self, home: Home, number: int) -> Credential:
        """Where the token of this home's key pair `number` (1, 2, ...) comes from. SettingsError if secrets are missing."""

    def session(self, settings: Settings, credential: str, ledger: Ledger) -> Session:
        """A new dialogue that registers what the ledger lists."""

    def known(self, registrations: Iterable[Registration]) -> dict[str, Registration]:
        """The vendor's spelling of each registration, as `decode` looks it up."""

    def decode(self, payload: bytes, known: Mapping[str, Registration], recv_ns: int, mono_ns: int = 0) -> Decoded:
        """One message into records; never raises, whatever the bytes."""
