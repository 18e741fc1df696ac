"""A run by its seed, judged; a failure names the command that repeats it, with no more faults than it takes.

SIMULATION_SEED=17                 this run instead of the suite's
SIMULATION_SWITCHES=long-stall     known faults drawn in (plan.py)
SIMULATION_FAULTS=0,3              of its faults only these
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from simulation import plan as plans
from simulation.oracle import judge
from simulation.plan import Plan, draw_plan
from simulation.world import play

HISTORY_LINES = 60


class Result(NamedTuple):
    """A judged run."""

    plan: Plan
    findings: list[str]
    history: list[str]
    trace: str


def chosen_switches() -> frozenset[str]:
    """Those asked for, else the suite's."""
    text = os.environ.get("SIMULATION_SWITCHES")
    return plans.ENABLED if text is None else frozenset(filter(None, text.split(",")))


def chosen_plan(seed: int) -> Plan:
    """The run of a seed, with the switches and faults that were asked for."""
    plan = draw_plan(seed, chosen_switches())
    only = os.environ.get("SIMULATION_FAULTS")
    return plan if only is None else keep_faults(plan, [int(number) for number in filter(None, only.split(","))])


def keep_faults(plan: Plan, numbers: Sequence[int]) -> Plan:
    """The same run with some of its faults."""
    return plan._replace(faults=tuple(plan.faults[number] for number in numbers))


def run(plan: Plan) -> Result:
    """Play and judge."""
    with play(plan) as evidence:
        return Result(plan, judge(evidence), evidence.history, evidence.trace)


def shrink(plan: Plan) -> tuple[list[int], Result]:
    """The numbers of faults without any of which the run would not fail, and that run."""
    numbers, result = list(range(len(plan.faults))), run(plan)
    for number in reversed(range(len(plan.faults))):
        without = [kept for kept in numbers if kept != number]
        smaller = run(keep_faults(plan, without))
        if smaller.findings:
            numbers, result = without, smaller
    return numbers, result


def assert_kept(plan: Plan) -> Result:
    """Every promise is kept; else AssertionError with the smallest run that breaks one and the command for it."""
    result = run(plan)
    if not result.findings:
        return result
    numbers, smaller = shrink(plan)
    chosen = ",".join(map(str, numbers))
    switches = ",".join(sorted(plan.switches))
    command = (
        f"SIMULATION_SEED={plan.seed} SIMULATION_FAULTS={chosen} SIMULATION_SWITCHES={switches} "
        ".venv/bin/python -m pytest tests/simulation -k short_days"
    )
    raise AssertionError(
        "\n".join(
            [
                f"seed {plan.seed} breaks a promise; repeat it with:\n    {command}",
                *smaller.findings,
                "faults:",
                *(f"    {plan.faults[number]}" for number in numbers),
                "the last of what was done (virtual ns):",
                *smaller.history[-HISTORY_LINES:],
            ]
        )
    )
