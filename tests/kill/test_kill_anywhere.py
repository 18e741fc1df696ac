"""Whatever is killed, stopped or hung, and whenever: no row missing, none doubled, nothing left behind.

    pytest tests/kill                                   the short form: one deck of blows (see blows.py), about 70 s
    pytest -m long tests/kill                           the long form: 20 decks, 220 kills, about 20 minutes
    KILL_SEED=4711 pytest tests/kill                    the same blows again; a failure names its seed
    KILL_DECKS=40 pytest -m long -s tests/kill          more of them, with the figures
    KILL_KEEP=/tmp/kept pytest tests/kill               keeps the home of a failure

The seed fixes the market, the order, the targets and the pauses; what the machine does in between it cannot fix.
"""

from __future__ import annotations

import os
import secrets

import pytest
from kill.harness import KillHarness, kill_harness
from kill.injections import KILLS_PER_ROUND, schedule

MIN_KILLS = 200


def choose_seed() -> int:
    """The one asked for, else a fresh one."""
    return int(os.environ.get("KILL_SEED") or secrets.randbelow(1_000_000))


def run_injections(rounds: int, number: int) -> KillHarness:
    """A tree that took so many decks of blows, judged."""
    with kill_harness(number) as harness:
        try:
            for injection in schedule(number, rounds):
                harness.inject(injection)
            result = harness.stop_and_compare()
            print(harness.report(result))
            assert [] == result.strict_problems()
            assert [] == harness.find_leftovers()
        except BaseException as error:
            error.add_note(f"KILL_SEED={number} KILL_DECKS={rounds} repeats this. What was done (s since the start):")
            error.add_note("\n".join(harness.history))
            raise
    return harness


@pytest.mark.timeout(240)
def test_whatever_is_killed_every_row_is_stored_once() -> None:
    """One deck: every process killed, terminated, stopped, hung or beheaded at random instants; the oracle finds no fault."""
    under = run_injections(1, choose_seed())

    assert sum(under.kills.values()) >= KILLS_PER_ROUND - 1


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_after_hundreds_of_kills_every_row_is_stored_once() -> None:
    """The same for at least 200 kills."""
    under = run_injections(int(os.environ.get("KILL_DECKS") or 20), choose_seed())

    assert sum(under.kills.values()) >= MIN_KILLS
