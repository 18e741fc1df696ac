"""Executor of timed scenario actions.

    kill NAME   SIGKILL, and stopped under supervisord      ─> supervisor
    start NAME                                              ─> supervisor
    anything else                                           ─> simulator

Guarantees:
    * An action that is late, because the tree took long to start, delays those after it as much: an outage keeps its length.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from collectorctl.demo.environment import EnvironmentSetupError, SimulatorProcess
from collectorctl.demo.scenarios import DemoScenario
from collectorctl.supervision.supervisor import SupervisorClient


class ScenarioRunner:
    """One play of one script."""

    def __init__(self, scenario: DemoScenario, supervisor: SupervisorClient, simulator: SimulatorProcess) -> None:
        self._supervisor = supervisor
        self._simulator = simulator
        self._market_day = scenario.market_day
        self._remaining = list(scenario.actions)
        self._delay_ns = 0

    @property
    def remaining(self) -> list[str]:
        """What has not been done yet."""
        return [act.command for act in self._remaining]

    def due_ns(self) -> int | None:
        """When the next action is due, ns of the demo's clock; None after the last."""
        return self._market_day.parse(self._remaining[0].at) + self._delay_ns if self._remaining else None

    def run_due(self, now_ns: int) -> str:
        """Execute the next action if it is due; which one, "" if none. EnvironmentSetupError when the simulator rejects it."""
        due_ns = self.due_ns()
        if due_ns is None or now_ns < due_ns:
            return ""
        self._delay_ns += now_ns - due_ns
        command = self._remaining.pop(0).command
        verb, _, name = command.partition(" ")
        if verb == "kill":
            self._kill(name)
        elif verb == "start":
            self._supervisor.start_program(name)
        elif not (response := self._simulator.send_command(command)).get("ok"):
            raise EnvironmentSetupError(f"{command}: {response.get('error')}")
        return command

    def _kill(self, name: str) -> None:
        pid = next((program.pid for program in self._supervisor.list_programs() if program.name == name), 0)
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._supervisor.stop_program(name)  # before supervisord has started it again, which takes it a second
