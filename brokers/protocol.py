"""What a broker is: the words its folder provides, the registry, the error tree.

    BrokerError
    ├─ WireError                 the connection
    │  ├─ ConnectError           no connection came about
    │  ├─ Closed                 the other side ended it
    │  │  └─ Cut                 without a close frame, or it broke
    │  └─ FrameError             the other side does not speak RFC 6455, or sends too much at once
    ├─ RestError                 a REST call
    │  ├─ RestUnreachable        no answer, or one that is none
    │  ├─ RestLimited            too many calls
    │  └─ RestRefused            understood and refused: keys, address, permission
    └─ SessionError              the dialogue on a connection
       ├─ SessionLost            it has to be begun again
       └─ SessionRefused         the vendor says no; waits by the vendor's rule

Promises: adding a broker is a folder with session.py and decode.py (and what calls it makes), one line in BROKERS, one
table in the settings, one program in supervisord.conf; tests/brokers/test_contract.py holds every broker to the protocols.
Leaves to others: the loop that drives a broker (connection.py), which instruments it gets (plan.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Literal, NamedTuple, Protocol

from brokers.decoded import Decoded
from brokers.subscription import Ledger, Registration
from conf.home import Home
from conf.settings import Settings
from ringbuf.records import Line


class BrokerError(Exception):
    """Something between us and a broker. `wait_s`: not again sooner than this; `renew`: take a new key or token first."""

    state = "retrying"

    def __init__(self, words: str, wait_s: float = 0.0, renew: bool = False) -> None:
        super().__init__(words)
        self.wait_s = wait_s
        self.renew = renew


class WireError(BrokerError):
    """The connection failed."""


class ConnectError(WireError):
    """No connection came about."""


class Closed(WireError):
    """The connection ended."""


class Cut(Closed):
    """It ended without a close frame: the vendor may not know yet."""


class FrameError(WireError):
    """Bytes that are no WebSocket frames, or a frame over the limit."""


class RestError(BrokerError):
    """A REST call did not bring what it should."""


class RestUnreachable(RestError):
    """No answer, or not one of this API."""


class RestLimited(RestError):
    """Too many calls."""


class RestRefused(RestError):
    """Understood and refused."""

    state = "refused"


class SessionError(BrokerError):
    """The dialogue on a connection cannot go on."""


class SessionLost(SessionError):
    """Begin again with a new connection."""


class SessionRefused(SessionError):
    """The vendor refuses this session."""

    state = "refused"


HEARTBEAT_MOST_BYTES = 4096
"""A vendor's heartbeat has less than 200; what is echoed must not be what fills a connection."""
WORDS_MOST = 300
"""Characters of a vendor's words that are repeated in a message."""


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


class Entry(NamedTuple):
    """One line of the registry."""

    module: str  # has BROKER
    shard: str  # the group of settings.shards whose ticks it collects; "" where it is alone in its market
    counts: str  # what its limit counts: "registrations", or "symbols" whatever their streams
    market: str = "kr"  # whose instruments it collects; the brokers of one market stand in for each other


BROKERS: dict[str, Entry] = {
    "kis": Entry("brokers.kis.session", "A", "registrations"),
    "kiwoom": Entry("brokers.kiwoom.session", "B", "symbols"),
    "us": Entry("brokers.us.session", "", "registrations", "us"),
}


def broker(name: str) -> Broker:
    """The broker of that name; only its own code is imported. KeyError if there is none."""
    return import_module(BROKERS[name].module).BROKER


def mask(text: str) -> str:
    """A vendor's words, with everything that could be a key or token hidden (KIS repeats the approval key in an error)."""
    return re.sub(r"[A-Za-z0-9_\-./+=]{20,}", "***", text)[:WORDS_MOST]
