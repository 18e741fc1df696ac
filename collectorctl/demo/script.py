"""What is done to a tree in a rehearsal: acts, each at a time of the market's day.

    08:30  the market ──────── kill kis ── start kis ──────────────> 12:00 the close

An act is one line of words: `kill NAME` (SIGKILL, and held down), `start NAME`, or any command that the simulator understands
(`kiwoom outage 5`, `market block 005930 5000`: brokers/simulator).

Promises: pure; acts are in the order of their times.
Leaves to others: doing them (rehearsal.py), what must hold afterwards (verdict.py, recovery.py).
"""

from __future__ import annotations

from typing import NamedTuple


class Act(NamedTuple):
    """One thing to do, at "HH:MM:SS" of the market's day."""

    at: str
    do: str


class Script(NamedTuple):
    """A rehearsal: its name, what it is about, and its acts."""

    name: str
    about: str
    acts: tuple[Act, ...]


MORNING = Script(
    "morning",
    "kis is killed at 10:30 and stays down for ten minutes; what it missed is recovered after the close",
    (Act("10:30:00", "kill kis"), Act("10:40:00", "start kis")),
)
