"""What is done to the tree, and when: a plan drawn from a seed (pure).

    seed -> deck of blows, shuffled -> deck -> ...           every deck has every kind, in another order, at other processes

    kill              SIGKILL at any instant, also of a process that has only just been started
    kill publishing   SIGKILL of the writer while it publishes
    kill stopped      SIGSTOP, then SIGKILL: what waited in the kernel is lost with the process
    terminate         SIGTERM; of supervisord as well, and then `collectorctl start`
    pause             SIGSTOP, SIGCONT
    hang              SIGSTOP until the watchdog has had enough
    behead            SIGKILL of supervisord, then `collectorctl start`

Guarantees:
    * Equal seeds give equal plans.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

COLLECTORS = ("kis", "kiwoom")
WORKERS = (*COLLECTORS, "writer")
PROCESSES = (*WORKERS, "gapfill", "watchdog")
SUPERVISOR = "supervisord"

TWIN_WINDOW_S = 1.5
MAX_PAUSE_S = 3 * TWIN_WINDOW_S
"""A book that is read much later than the window finds its twin by the exchange's time. The watchdog lets a process hang for 3 s in
two looks five seconds apart."""

KILLS_PER_ROUND = 12
"""SIGKILLs in a deck, the watchdog's included."""


class Injection(NamedTuple):
    """One blow at `names`, `after_s` after the one before; `lasts_s`: how long a stop, or a tree without a head, lasts."""

    kind: str
    targets: tuple[str, ...]
    delay_s: float
    duration_s: float


def schedule(seed: int, rounds: int) -> list[Injection]:
    """The blows of `decks` decks."""
    random = Random(seed)
    return [injection for _ in range(rounds) for injection in _draw_round(random)]


def _draw_round(random: Random) -> list[Injection]:
    injections = [
        ("kill", ("kis",)),
        ("kill", ("kiwoom",)),
        ("kill", ("writer",)),
        ("kill", ("watchdog",)),
        ("kill", ("gapfill",)),
        ("kill", tuple(random.sample(WORKERS, 2))),
        ("kill", tuple(random.sample(PROCESSES, 1))),
        ("kill publishing", ("writer",)),
        ("kill stopped", (random.choice(WORKERS),)),
        ("terminate", (random.choice((*PROCESSES, SUPERVISOR)),)),
        ("pause", (random.choice((*PROCESSES, SUPERVISOR)),)),
        ("hang", (random.choice(WORKERS),)),
        ("behead", (SUPERVISOR,)),
    ]
    random.shuffle(injections)
    return [
        Injection(kind, targets, _draw_delay_s(random), random.uniform(0.1, MAX_PAUSE_S))
        for kind, targets in injections
    ]


def _draw_delay_s(random: Random) -> float:
    """Often at once, so that a process is hit while it starts; mostly after it has come to itself."""
    return random.uniform(0.0, 0.4) if random.random() < 0.3 else random.uniform(0.5, 4.0)
