"""Timed fault scripts: what fails at which time of the trading day (pure).

    KIS_DIES    09:00:05  kis outage 600          at a speed of 192 the feed gets it as "kis outage 3.125"

Guarantees:
    * Times of day and durations are those of the market, so that a scenario means the same at every speed of the clock.
    * Every command is one that can be typed (faults.py, control.py).
"""

from __future__ import annotations

from typing import NamedTuple

from brokers.simulator.faults import DURATION_FAULTS


class TimedCommand(NamedTuple):
    """One command; `at`: exchange time, HH:MM:SS."""

    at: str
    command: str


class FaultScenario(NamedTuple):
    """A scenario. `description`: what happens, for people."""

    description: str
    commands: tuple[TimedCommand, ...]


SCENARIOS: dict[str, FaultScenario] = {
    "kis-dies-at-open": FaultScenario(
        "KIS is unreachable from 09:00:05 for ten minutes", (TimedCommand("09:00:05", "kis outage 600"),)
    ),
    "kiwoom-conflates": FaultScenario(
        "Kiwoom silently sends at most one book a second and symbol from 09:45",
        (TimedCommand("09:45:00", "kiwoom conflate 1"),),
    ),
    "stamp-skew": FaultScenario(
        "KIS stamps everything 0.4 s ahead of Kiwoom from the beginning", (TimedCommand("08:30:00", "kis skew 0.4"),)
    ),
    "wrong-venue": FaultScenario(
        "what KIS sends for KRX shows the unified venue from 09:45", (TimedCommand("09:45:00", "kis unified 1"),)
    ),
    "both-lose": FaultScenario(
        "both feeds lose one packet in fifty, independently, for an hour",
        (
            TimedCommand("09:00:00", "kis loss 0.02"),
            TimedCommand("09:00:00", "kiwoom loss 0.02"),
            TimedCommand("10:00:00", "kis loss 0.001"),
            TimedCommand("10:00:00", "kiwoom loss 0.001"),
        ),
    ),
    "open-burst": FaultScenario(
        "the opening brings ten times as much as usual for ten minutes",
        (TimedCommand("09:00:00", "market pace 10"), TimedCommand("09:10:00", "market pace 1")),
    ),
}


def to_real_seconds(command: str, speed: float) -> str:
    """A script's command as it is given: spans of market time become real seconds, in which feeds wait."""
    target, name, *arguments = command.split()
    if name in DURATION_FAULTS:
        arguments = [f"{float(arguments[0]) / speed:g}"]
    return " ".join([target, name, *arguments])
