"""Readiness: waiting for healthy processes after a start, their final states after a stop.

Guarantees:
    * It waits no longer than `timeout_s` and one call, and reports the last state of each process that is not healthy.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from collectorctl.recover.schedule.state import PROGRAM as ON_CALL
from collectorctl.supervision.errors import SupervisorTimeout
from collectorctl.supervision.status import collect_status, configured_programs
from conf.home import Home
from ringbuf.vitals import VitalsError, read_snapshot


def wait_until_healthy(home: Home, timeout_s: float, names: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """Wait until the processes `names` (default: all permanent ones) are healthy; (name, verdict) of those not in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            status = collect_status(home)
        except SupervisorTimeout:  # on a busy machine, while it starts so many processes
            if time.monotonic() > deadline:
                raise
            continue
        processes = [p for p in status.processes if (p.name != ON_CALL if names is None else p.name in names)]
        unhealthy = [(p.name, p.verdict) for p in processes if not p.healthy]
        if not unhealthy:
            return []
        if time.monotonic() > deadline:
            return [(name, verdict + _read_last_line(home, name)) for name, verdict in unhealthy]
        time.sleep(0.1)


def _read_last_line(home: Home, name: str) -> str:
    """What a process that could not run printed last; nothing when it printed nothing."""
    try:
        lines = (home.log / f"{name}.out").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return f"; its last output: {lines[-1]}" if lines else ""


def final_states(home: Home) -> list[tuple[str, str]]:
    """The final state of each process of a stopped home, from its vitals page."""
    states = []
    for name in configured_programs(home.settings):
        try:
            vitals = read_snapshot(home.vitals_path(name))
        except (FileNotFoundError, VitalsError) as error:
            if name == ON_CALL:
                continue  # nothing was due
            states.append((name, f"left no vitals: {error}"))
        else:
            states.append((name, f"{vitals.state}{': ' + vitals.detail if vitals.detail else ''}"))
    return states
