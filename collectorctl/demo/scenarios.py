"""What is done to a tree in a rehearsal: acts, each at a time of the market's day.

    08:30  the market ──────── kill kis ── start kis ──────────────> 12:00 the close

An act is one line of words: `kill NAME` (SIGKILL, and held down), `start NAME`, or any command that the simulator understands
(`kiwoom outage 5`, `market block 005930 5000`: brokers/simulator). What goes wrong at the brokers alone is the simulator's own
script (brokers/simulator/scenario.py), which it plays by itself.

Promises: pure; acts are in the order of their times; SCRIPTS has every scenario of the simulator.
Leaves to others: doing them (prompter.py, the simulator), what must hold afterwards (verdict.py, recovery.py, holds.py).
"""

from __future__ import annotations

from typing import NamedTuple

from brokers.simulator.scenarios import SCENARIOS, Act
from collectorctl.demo import assertions
from collectorctl.demo.environment import SYMBOLS


class Script(NamedTuple):
    """A rehearsal: its name, what it is about, and its acts.

    `scenario`: the simulator's script; `options`: the simulator's; `stamps`: whether both lines stamp alike; `holds`: what else
    must be so afterwards; `misled`: the line that shows something else than it says: nothing of it can be right, and no day that
    rests on it may be PROVEN; `universe`: what is collected.
    """

    name: str
    about: str
    acts: tuple[Act, ...] = ()
    scenario: str = ""
    options: tuple[str, ...] = ()
    stamps: bool = True
    misled: str = ""
    universe: tuple[str, ...] = tuple(SYMBOLS)
    holds: assertions.Holds = lambda _: []


MORNING = Script(
    "morning",
    "kis is killed at 10:30 and stays down for ten minutes; what it missed is recovered after the close",
    (Act("10:30:00", "kill kis"), Act("10:40:00", "start kis")),
    holds=assertions.morning,
)

_STOCKS = ("005930", "000660", "0074K0")
VENUES = Script(
    "venues",
    "three stocks on KRX, on NXT and on both unified; kis is killed at 10:30 and stays down for ten minutes",
    MORNING.acts,
    universe=tuple(f"{stock}{suffix}" for stock in _STOCKS for suffix in ("", "_NX", "_AL")),
    holds=assertions.venues,
)

_WHOLE = ("--kiwoom-books-per-s", "0")
"""Without its usual conflation: what a line then lacks is the scenario's doing."""
_UNIFIED = ("--symbols", ",".join(f"{symbol},{symbol}_AL" for symbol in SYMBOLS))


def _at_brokers(
    scenario: str, must: assertions.Holds, more: tuple[str, ...] = (), stamps: bool = True, misled: str = ""
) -> Script:
    """A rehearsal in which the simulator does all that goes wrong; `more`: options of its own."""
    about = SCENARIOS[scenario].words
    return Script(scenario, about, (), scenario, (*_WHOLE, *more), stamps, misled, holds=must)


SCRIPTS: dict[str, Script] = {
    script.name: script
    for script in (
        MORNING,
        VENUES,
        _at_brokers("kis-dies-at-open", assertions.kis_dies_at_open),
        _at_brokers("kiwoom-conflates", assertions.kiwoom_conflates),
        _at_brokers("stamp-skew", assertions.stamp_skew, stamps=False),
        _at_brokers("wrong-venue", assertions.wrong_venue, more=_UNIFIED, misled="kis"),
        _at_brokers("both-lose", assertions.both_lose),
        _at_brokers("open-burst", assertions.open_burst),
    )
}
"""Every rehearsal there is, by name."""
