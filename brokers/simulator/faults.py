"""Faults on command: what can be made to go wrong on a line, and the words for it.

    kis drop                 TCP ends, no close frame             kiwoom duplicate 3    next 3 data frames go out twice
    kis cut 2                the same for the 2nd connection of those there are, the oldest being the 1st
    kis silence 5            half-open for 5 s: TCP lives,        kis garble 1          next frame is noise
                             nothing comes, heartbeats included   kis truncate 1        next frame ends in the middle
    kis quiet 5              heartbeats, but no data              kis badutf8 1         next frame has an invalid byte
    kis loss 0.02            that share is never sent, from now   kis skew 0.4          stamps 0.4 s ahead, from now on
    kis conflate 2           most books a second and symbol from now on; 0: all
    kis unified 1            what is sent for KRX shows the unified venue of the stock (where it is listed); 0: no more
    kis outage 5             every connection cut and refused     kis width 48          fields per trade from now on
    kis lateack 2            answers to registrations 2 s late    kis refuse 1          next registration is refused
    kiwoom expire            all tokens end now              kiwoom repeatpage 1   next page of a list is the one before
    kiwoom limit 3           next 3 REST calls: too many     kiwoom movehead 2     new trades move the next 2 pages
    kiwoom error 2           next 2 REST calls: 502, 500     kiwoom emptypage 1    next list is empty, with an error code

expire, limit and error are there for kis, too; us has all that kis has (us width 27).

Promises: parsing is pure and says what is wrong in words; a spoiled frame cannot be decoded, ever, so that the truth is sure.
Leaves to others: doing it at the right frame (connection.py, kis.py, kiwoom.py; kiwoom_rest.py, kis_quotations.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

LINES = ("kis", "kiwoom", "us")
WORDS: dict[str, type | None] = {
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
}
PAGED = ("repeatpage", "movehead", "emptypage")
"""Words for a line whose lists come in pages."""
SHARES = ("loss", "skew")
"""Words whose amount is at most 1."""
LASTING = ("silence", "quiet", "outage")
"""Words whose amount is a span of time."""
LEAST_WIDTH = {"kis": 44, "us": 20}
"""Below 46 (US: 26) no trade or book can be read; at 43 a book would look like the one the vendor's document shows."""

_LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


class FaultError(ValueError):
    """A fault command that cannot be understood; the message says which words there are."""


class Fault(NamedTuple):
    """One command: on `line` ("kis"), `word` with `amount` (0 where the word takes none)."""

    line: str
    word: str
    amount: float


def parse(text: str) -> Fault:
    """A command such as "kis silence 5". FaultError."""
    parts = text.split()
    if len(parts) < 2 or parts[0] not in LINES or parts[1] not in WORDS:
        raise FaultError(f"{text!r} is no fault: write one of {', '.join(LINES)}, then one of {', '.join(WORDS)}")
    line, word = parts[:2]
    kind = WORDS[word]
    if kind is None:
        if len(parts) != 2:
            raise FaultError(f"{text!r}: {word} takes no amount")
        return Fault(line, word, 0)
    try:
        amount = kind(parts[2])
    except (ValueError, IndexError):
        raise FaultError(f"{text!r}: {word} takes one {'number' if kind is int else 'number of seconds'}") from None
    if len(parts) > 3 or not amount >= 0:
        raise FaultError(f"{text!r}: {word} takes one amount, zero or more")
    if word in SHARES and amount > 1:
        raise FaultError(f"{text!r}: {word} is at most 1")
    if word == "width" and amount < LEAST_WIDTH.get(line, amount + 1):
        least = " or ".join(f"{name} ({number} or more of them)" for name, number in LEAST_WIDTH.items())
        raise FaultError(f"{text!r}: only {least} counts fields")
    if word in PAGED and line != "kiwoom":
        raise FaultError(f"{text!r}: only kiwoom has pages")
    return Fault(line, word, amount)


def parse_timed(text: str) -> tuple[Fault, float]:
    """A command with its time, "kis:silence 5@12" = 12 s after the start. FaultError."""
    command, _, at = text.rpartition("@")
    line, colon, words = command.partition(":")
    try:
        seconds = float(at)
    except ValueError:
        seconds = -1.0
    if not colon or seconds < 0:
        raise FaultError(f"{text!r} is no timed fault: write e.g. kis:drop@12 or kiwoom:silence 5@30")
    return parse(f"{line} {words}"), seconds


@dataclass
class LineFaults:
    """What is wrong with one line at present. Times are CLOCK_MONOTONIC ns; counts go down as frames and answers are spoiled."""

    silent_until_ns: int = 0
    quiet_until_ns: int = 0
    outage_until_ns: int = 0
    duplicate: int = 0
    garble: int = 0
    truncate: int = 0
    badutf8: int = 0
    refuse: int = 0
    limit: int = 0
    error: int = 0
    repeatpage: int = 0
    movehead: int = 0
    emptypage: int = 0
    late_ack_s: float = 0.0
    widths: tuple[int, int] | None = None
    loss: float | None = None
    conflate: float | None = None
    unified: int = 0
    skew: float = 0.0

    def spoil(self, frame: bytes, random: Random) -> bytes | None:
        """`frame` as the next pending fault leaves it; None when none is pending."""
        for word, spoiled in _SPOILERS.items():
            pending = getattr(self, word)
            if pending:
                setattr(self, word, pending - 1)
                return spoiled(frame, random)
        return None


def garbled(frame: bytes, random: Random) -> bytes:
    """Noise of the same length: letters and digits, so neither JSON nor an envelope."""
    return bytes(random.choices(_LETTERS, k=len(frame)))


def truncated(frame: bytes, random: Random) -> bytes:
    """The beginning only. Where fields are counted, less than one record of them is left."""
    fields = frame.split(b"^")
    if len(fields) < 10:
        return frame[: len(frame) // 2]
    return b"^".join(fields[: random.randint(3, min(40, len(fields) - 1))])


def bad_utf8(frame: bytes, random: Random) -> bytes:
    """An invalid byte in the envelope (the TR id, or the key "trnm"): no part of the frame can be understood without it."""
    place = 4 if b"|" in frame[:2] else frame.rindex(b"trnm") + 2
    return frame[:place] + b"\xff" + frame[place + 1 :]


_SPOILERS: dict[str, Callable[[bytes, Random], bytes]] = {
    "garble": garbled,
    "truncate": truncated,
    "badutf8": bad_utf8,
}
