"""Fault injection commands: what can be made to fail on a feed, and the syntax.

    kis drop                 TCP ends, no close frame             kiwoom duplicate 3    next 3 data frames go out twice
    kis cut 2                as drop, for the 2nd oldest connection
    kis silence 5            half-open for 5 s: TCP lives,        kis garble 1          next frame is noise
                             nothing comes, heartbeats included   kis truncate 1        next frame ends in the middle
    kis quiet 5              heartbeats, but no data              kis badutf8 1         next frame has an invalid byte
    kis loss 0.02            that share is never sent, from now   kis skew 0.4          stamps 0.4 s ahead, from now on
    kis conflate 2           maximum books per second and symbol; 0: all
    kis unified 1            what is sent for KRX shows the unified venue of the stock (where it is listed); 0: no more
    kis outage 5             every connection cut and refused     kis width 48          fields per trade from now on
    kis lateack 2            answers to subscriptions 2 s late    kis refuse 1          next subscription is refused
    kiwoom expire            all tokens end now              kiwoom repeatpage 1   next page of a list is the one before
    kiwoom limit 3           next 3 REST calls: too many     kiwoom movehead 2     new trades move the next 2 pages
    kiwoom error 2           next 2 REST calls: 502, 500     kiwoom emptypage 1    next list is empty, with an error code
    kiwoom mutelogin 2       how a dead token is refused from now on: 0 a LOGIN reply, 1 SYSTEM R10004 and a close, 2 a close
    kis pingcut 101          a PINGPONG now; its answer is lost, and the connection is cut 101 s later
    kis expirekey 0          all approval keys end now; open sessions go on, a registration with an old key gets
                             no data and no error: 0 no answer either, 1 an acknowledgement
    kis release 2            the server releases the 2 oldest registrations of each session; nobody asked for it
    kis omitrow 1            next list of trades lacks the row in its middle
    kis restbreak 3          next 3 REST answers with a message have a line break, unescaped, inside its text
    kis block 30             the address is blocked: connections cut, new ones and REST calls get no answer for 30 s;
                             kiwoom: connections cut, and tokens, calls and LOGIN are refused with 8050

expire, limit, error and restbreak are there for all; us has all that kis has (us width 27) but omitrow.

Guarantees:
    * Parsing is pure and its errors name what is wrong.
    * A corrupted frame can never be decoded, so that the ground truth is certain.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

FEEDS = ("kis", "kiwoom", "us")
FAULTS: dict[str, type | None] = {
    "drop": None,
    "cut": int,
    "silence": float,
    "quiet": float,
    "outage": float,
    "duplicate": int,
    "garble": int,
    "truncate": int,
    "badutf8": int,
    "width": int,
    "lateack": float,
    "refuse": int,
    "loss": float,
    "skew": float,
    "conflate": float,
    "unified": int,
    "expire": None,
    "limit": int,
    "error": int,
    "repeatpage": int,
    "movehead": int,
    "emptypage": int,
    "mutelogin": int,
    "pingcut": float,
    "expirekey": int,
    "release": int,
    "omitrow": int,
    "restbreak": int,
    "block": float,
}
PAGED_FAULTS = ("repeatpage", "movehead", "emptypage")
"""Faults of a feed whose lists come in pages."""
SHARE_FAULTS = ("loss", "skew")
"""Faults whose amount is at most 1."""
DURATION_FAULTS = ("silence", "quiet", "outage", "pingcut", "block")
"""Faults whose amount is a duration."""
KIS_FAULTS = ("pingcut", "expirekey", "release", "omitrow")
"""Faults that only the servers of KIS have."""
MIN_WIDTH = {"kis": 44, "us": 20}
"""Below 46 (US: 26) no trade or book can be decoded; at 43 a book would look like the one of the vendor's document."""

_LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


class FaultError(ValueError):
    """An invalid fault command; the message lists the valid ones."""


class Fault(NamedTuple):
    """One command: `name` on `feed` ("kis") with `amount` (0 where it has none)."""

    feed: str
    name: str
    value: float


def parse(text: str) -> Fault:
    """A command such as "kis silence 5". FaultError."""
    parts = text.split()
    if len(parts) < 2 or parts[0] not in FEEDS or parts[1] not in FAULTS:
        raise FaultError(f"{text!r} is no fault: write one of {', '.join(FEEDS)}, then one of {', '.join(FAULTS)}")
    feed, name = parts[:2]
    value_type = FAULTS[name]
    if value_type is None:
        if len(parts) != 2:
            raise FaultError(f"{text!r}: {name} takes no amount")
        return Fault(feed, name, 0)
    try:
        value = value_type(parts[2])
    except (ValueError, IndexError):
        raise FaultError(
            f"{text!r}: {name} takes one {'number' if value_type is int else 'number of seconds'}"
        ) from None
    if len(parts) > 3 or not value >= 0:
        raise FaultError(f"{text!r}: {name} takes one amount, zero or more")
    if name in SHARE_FAULTS and value > 1:
        raise FaultError(f"{text!r}: {name} is at most 1")
    if name == "width" and value < MIN_WIDTH.get(feed, value + 1):
        minimums = " or ".join(f"{name} ({number} or more of them)" for name, number in MIN_WIDTH.items())
        raise FaultError(f"{text!r}: only {minimums} counts fields")
    if name in PAGED_FAULTS and feed != "kiwoom":
        raise FaultError(f"{text!r}: only kiwoom has pages")
    if name == "mutelogin" and (feed != "kiwoom" or value > 2):
        raise FaultError(f"{text!r}: only kiwoom has logins; write 0, 1 or 2")
    if name in KIS_FAULTS and feed == "kiwoom":
        raise FaultError(f"{text!r}: kiwoom takes no {name}, only kis and us do")
    if name == "expirekey" and value > 1:
        raise FaultError(f"{text!r}: {name} takes 0 (no answer) or 1 (an acknowledgement)")
    if name == "omitrow" and feed != "kis":
        raise FaultError(f"{text!r}: only kis takes {name}")
    return Fault(feed, name, value)


def parse_timed(text: str) -> tuple[Fault, float]:
    """A command with its time, "kis:silence 5@12" = 12 s after the start. FaultError."""
    command, _, at = text.rpartition("@")
    feed, colon, fault_text = command.partition(":")
    try:
        seconds = float(at)
    except ValueError:
        seconds = -1.0
    if not colon or seconds < 0:
        raise FaultError(f"{text!r} is no timed fault: write e.g. kis:drop@12 or kiwoom:silence 5@30")
    return parse(f"{feed} {fault_text}"), seconds


@dataclass
class FeedFaults:
    """The active faults of one feed. Times are CLOCK_MONOTONIC ns; counts decrease as frames and responses are affected."""

    silent_until_ns: int = 0
    quiet_until_ns: int = 0
    outage_until_ns: int = 0
    blocked_until_ns: int = 0
    pending: Counter[str] = field(default_factory=Counter)
    """How often each fault that is counted (garble, limit, error ...) is still to happen."""
    late_ack_s: float = 0.0
    widths: tuple[int, int] | None = None
    loss: float | None = None
    conflate: float | None = None
    unified: int = 0
    skew: float = 0.0
    mute_login: int = 0
    acknowledge_expired_key: bool = False

    def is_blocked(self) -> bool:
        """Whether the client's address is blocked."""
        return time.monotonic_ns() < self.blocked_until_ns

    def corrupt(self, frame: bytes, random: Random) -> bytes | None:
        """`frame` as the next pending fault leaves it; None when none is pending."""
        for name, corrupt_frame in _CORRUPTORS.items():
            if self.take(name):
                return corrupt_frame(frame, random)
        return None

    def take(self, name: str) -> bool:
        """Whether a counted fault is pending; it is then counted down."""
        is_pending = self.pending[name] > 0
        self.pending[name] -= is_pending
        return is_pending


def garble_frame(frame: bytes, random: Random) -> bytes:
    """Noise of equal length: letters and digits, so neither JSON nor an envelope."""
    return bytes(random.choices(_LETTERS, k=len(frame)))


def truncate_frame(frame: bytes, random: Random) -> bytes:
    """The beginning only. Where fields are counted, less than one record of them is left."""
    fields = frame.split(b"^")
    if len(fields) < 10:
        return frame[: len(frame) // 2]
    return b"^".join(fields[: random.randint(3, min(40, len(fields) - 1))])


def break_utf8(frame: bytes, random: Random) -> bytes:
    """An invalid byte in the envelope (the TR id, or the key "trnm"): no part of the frame can be understood without it."""
    place = 4 if b"|" in frame[:2] else frame.rindex(b"trnm") + 2
    return frame[:place] + b"\xff" + frame[place + 1 :]


_CORRUPTORS: dict[str, Callable[[bytes, Random], bytes]] = {
    "garble": garble_frame,
    "truncate": truncate_frame,
    "badutf8": break_utf8,
}
