"""What is done to the tree, and when: a plan drawn from a seed (pure).

    seed -> deck of blows, shuffled -> deck -> ...           every deck has every kind, in another order, at other processes

    kill              SIGKILL at any instant, also of a process that has only just been started
    kill publishing   SIGKILL of the writer while it publishes
    kill stopped      SIGSTOP, then SIGKILL: what waited in the kernel is lost with the process
    terminate         SIGTERM; of supervisord as well, and then `collectorctl start`
    pause             SIGSTOP, SIGCONT
    hang              SIGSTOP until the watchdog has had enough
    behead            SIGKILL of supervisord, then `collectorctl start`

Promises: the same seed gives the same plan.
Leaves to others: doing it (siege.py).
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

COLLECTORS = ("kis", "kiwoom")
WORKERS = (*COLLECTORS, "writer")
PROCESSES = (*WORKERS, "fill", "watchdog")
ROOT = "supervisord"

PAUSE_MOST_S = 2.5
"""Shorter than the twin window: a book read that much later than on the other line still finds its twin."""

KILLS_A_DECK = 12
"""SIGKILLs in a deck, the watchdog's included."""


class Blow(NamedTuple):
    """One blow at `names`, `after_s` after the one before; `lasts_s`: how long a stop, or a tree without a head, lasts."""

    kind: str
    names: tuple[str, ...]
    after_s: float
    lasts_s: float


def plan(seed: int, decks: int) -> list[Blow]:
    """The blows of `decks` decks."""
    chance = Random(seed)
    return [blow for _ in range(decks) for blow in _deck(chance)]


def _deck(chance: Random) -> list[Blow]:
    drawn = [
        ("kill", ("kis",)),
        ("kill", ("kiwoom",)),
        ("kill", ("writer",)),
        ("kill", ("watchdog",)),
        ("kill", ("fill",)),
        ("kill", tuple(chance.sample(WORKERS, 2))),
        ("kill", tuple(chance.sample(PROCESSES, 1))),
        ("kill publishing", ("writer",)),
        ("kill stopped", (chance.choice(WORKERS),)),
        ("terminate", (chance.choice((*PROCESSES, ROOT)),)),
        ("pause", (chance.choice((*PROCESSES, ROOT)),)),
        ("hang", (chance.choice(WORKERS),)),
        ("behead", (ROOT,)),
    ]
    chance.shuffle(drawn)
    return [Blow(kind, names, _after_s(chance), chance.uniform(0.1, PAUSE_MOST_S)) for kind, names in drawn]


def _after_s(chance: Random) -> float:
    """Often at once, so that a process is hit while it starts; mostly after it has come to itself."""
    return chance.uniform(0.0, 0.4) if chance.random() < 0.3 else chance.uniform(0.5, 4.0)
