"""Scheduled recovery process: `python -m collectorctl.recover`, started when a day is due.

    watchdog ──a day is due──> supervisord starts it ─> a run ─> exit 0: it stays ended until the watchdog starts it again
                                                  killed ─> supervisord starts it again at once, and the run is resumed

Guarantees:
    * It runs at the lowest priority and ends only with a complete run.
    * It does not end before supervisord counts it as started: an earlier end would count as a failure, whatever its status.
"""

from __future__ import annotations

import os
import sys
import time

from loguru import logger

from collectorctl.recover.schedule.runner import RecoveryRunner
from collectorctl.recover.schedule.schedule import build_schedules
from collectorctl.recover.schedule.state import PROGRAM, format_recovery, schedule_state
from conf.home import Home
from conf.process import ShutdownSignal, run_process
from ringbuf.vitals import ProcessState, Vitals

NICENESS = 19
MIN_RUNTIME_S = 5.0
"""Longer than startsecs in supervisord.conf."""


def serve(home: Home, stop: ShutdownSignal) -> None:
    """One round, if recovery by itself is on."""
    started_s = time.monotonic()
    os.nice(NICENESS)
    vitals = Vitals.create(home.vitals_path(PROGRAM), PROGRAM)
    try:
        schedules = [one for one in build_schedules(home.settings, home.load_calendar()) if one.enabled]
        runner = RecoveryRunner(home, schedules, vitals, stop)
        if not schedules or runner.run():
            summary = format_recovery(schedule_state(home, schedules))
            logger.info("{}", summary)
            vitals.set_state(ProcessState.DONE, summary)
            runner.wait(started_s + MIN_RUNTIME_S - time.monotonic())
        else:
            vitals.set_state(ProcessState.STOPPED, "in the middle of a run, which the next start resumes")
    finally:
        vitals.close()


if __name__ == "__main__":
    sys.exit(run_process(PROGRAM, serve))
