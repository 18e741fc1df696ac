"""Does what a script says, when its time has come.

    kill NAME   SIGKILL, and held down under supervisord    ─> daemon
    start NAME                                              ─> daemon
    anything else                                           ─> simulator

Promises: an act that comes late, because the tree took long to start, makes those after it as late: an outage keeps its length.
Leaves to others: the script (script.py), the clock.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from collectorctl.demo.environment import Simulator, StageError, day_time
from collectorctl.demo.scenarios import Script
from collectorctl.supervision.supervisor import Daemon


class Prompter:
    """One play of one script."""

    def __init__(self, script: Script, daemon: Daemon, simulator: Simulator) -> None:
        self._daemon = daemon
        self._simulator = simulator
        self._left = list(script.acts)
        self._late_ns = 0

    @property
    def left(self) -> list[str]:
        """What has not been done yet."""
        return [act.command for act in self._left]

    def due_ns(self) -> int | None:
        """When the next act is due, ns of the rehearsal's clock; None after the last."""
        return day_time(self._left[0].at) + self._late_ns if self._left else None

    def play(self, now_ns: int) -> str:
        """Do the next act if it is due; which one, "" if none. StageError when the simulator does not understand it."""
        due_ns = self.due_ns()
        if due_ns is None or now_ns < due_ns:
            return ""
        self._late_ns += now_ns - due_ns
        words = self._left.pop(0).command
        what, _, name = words.partition(" ")
        if what == "kill":
            self._kill(name)
        elif what == "start":
            self._daemon.start_program(name)
        elif not (answer := self._simulator.tell(words)).get("ok"):
            raise StageError(f"{words}: {answer.get('error')}")
        return words

    def _kill(self, name: str) -> None:
        pid = next((program.pid for program in self._daemon.programs() if program.name == name), 0)
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._daemon.stop_program(name)  # before supervisord has started it again, which takes it a second
