"""Watchdog process: supervisord event listener that observes every five seconds and executes the policy.

    supervisord ──TICK_5──> watchdog ──signals──> kis, kiwoom, writer
                <──start──────┘

Guarantees:
    * stdout carries the listener protocol and nothing else.
    * It sends a heartbeat every second and does nothing while supervisord stops.
    * Without an event for EVENT_TIMEOUT_S it could not act: it exits, and supervisord starts another.
    * systemd, where it holds the tree, is notified after every look: not while supervisord does not answer.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import xmlrpc.client
from collections.abc import Callable, Sequence
from typing import TextIO

from loguru import logger
from supervisor import childutils

from brokers.registry import BROKERS
from collectorctl.recover.schedule.schedule import Schedule, build_schedules
from collectorctl.recover.schedule.state import PROGRAM as ON_CALL
from collectorctl.recover.schedule.state import schedule_state
from collectorctl.supervision.status import enabled_feeds, never_started, optional_programs, read_own_memory_mb
from collectorctl.supervision.supervisor import Program, SupervisorClient, SupervisorError
from collectorctl.supervision.watchdog.policy import Action, ProcessObservation, WatchdogLimits, WatchdogPolicy
from collectorctl.supervision.watchdog.service_manager import ALIVE, READY, STOPPING, notify
from conf.home import Home
from conf.process import ShutdownSignal, is_waiting_for_disk, run_process
from ringbuf.vitals import ProcessState, Vitals, VitalsError, VitalsSnapshot, read_heartbeat, read_snapshot

NAME = "watchdog"
HEARTBEAT_S = 1.0
EVENT_TIMEOUT_S = 60.0
"""supervisord sends an event every five seconds, but none to a listener whose state it does not know."""


def watch(home: Home, stop: ShutdownSignal, protocol: TextIO) -> None:
    """Answer supervisord's events until asked to stop."""
    vitals = Vitals.create(home.vitals_path(NAME), NAME)
    settings = home.settings.watchdog
    memory_mb = {name: getattr(settings, f"{name}_memory_mb") for name in (*BROKERS, "gapfill", "notify", "writer")}
    policy = WatchdogPolicy(
        WatchdogLimits(
            settings.stale_s,
            settings.start_s,
            settings.terminate_timeout_s,
            settings.fatal_restart_s,
            settings.disk_alarm_s,
            memory_mb,
        )
    )
    supervisor = SupervisorClient(home)
    schedules = build_schedules(home.settings, home.load_calendar())
    stopping = False
    event_s = time.monotonic()
    vitals.set_state(ProcessState.RUNNING)
    connected = send(protocol, childutils.listener.ready)
    while connected and not stop.requested:
        vitals.heartbeat()
        if not select.select([sys.stdin], [], [], HEARTBEAT_S)[0]:
            if not stopping and time.monotonic() - event_s > EVENT_TIMEOUT_S:
                detail = (
                    f"supervisord sent no event for {EVENT_TIMEOUT_S:.0f} s: the watchdog exits, to be started again"
                )
                logger.error(detail)
                vitals.set_state(ProcessState.FAILING, detail)
                return
            continue
        event_s = time.monotonic()
        line = sys.stdin.readline()
        if not line.endswith("\n"):
            break  # supervisord has exited, perhaps within a line
        headers = childutils.get_headers(line)
        sys.stdin.read(int(headers["len"]))
        if headers["eventname"] == "SUPERVISOR_STATE_CHANGE_STOPPING":
            stopping = True
            logger.info("supervisord stops: the watchdog stops acting")
            notify(STOPPING)
        elif headers["eventname"].startswith("TICK") and not stopping:
            try:
                if home.take_up_list():
                    schedules = build_schedules(home.settings, home.load_calendar())
                observed = observe(home, supervisor, schedules)
                can_make_pages = home.vitals_path(NAME).exists()
                actions = [
                    *policy.decide(observed, time.monotonic(), can_make_pages),
                    *plan_first_starts(home, supervisor),
                ]
                if observed:
                    notify(READY, ALIVE)
            except SupervisorError as error:  # supervisord itself hangs: nothing is known of the others
                logger.warning("{}", error)
                actions = []
            for action in actions:
                execute(action, supervisor)
                vitals.add("orders", int(action.command != "alarm"))
        connected = send(protocol, childutils.listener.ok, childutils.listener.ready)
    vitals.set_state(ProcessState.STOPPED)


def send(protocol: TextIO, *messages: Callable[[TextIO], None]) -> bool:
    """Write protocol lines; False when supervisord has exited, which may be detected here sooner than by the signal."""
    try:
        for message in messages:
            message(protocol)
    except BrokenPipeError:
        return False
    return True


def observe(home: Home, supervisor: SupervisorClient, schedules: Sequence[Schedule]) -> list[ProcessObservation]:
    """Every process but this one, as it is now."""
    observations = []
    for program in supervisor.list_programs():
        if program.name == NAME:
            continue
        memory_mb = read_own_memory_mb(program.pid) if program.pid else None
        page = read_heartbeat(home.vitals_path(program.name))
        is_own = page is not None and program.pid > 0 and page.pid == program.pid
        age_s = (time.monotonic_ns() - page.mono_ns) / 1e9 if page is not None and is_own else None
        vitals = _read_own_vitals(home, program)
        healthy = vitals is not None and vitals.state.is_healthy
        due = _recovery_due_reason(home, schedules) if program.name == ON_CALL and not program.stopped_by_user else ""
        waits = vitals is not None and vitals.state == ProcessState.DISK_WAIT
        waits |= program.pid > 0 and is_waiting_for_disk(program.pid)
        observations.append(
            ProcessObservation(program.name, program.state, program.pid, age_s, healthy, memory_mb, due, waits)
        )
    return observations


def plan_first_starts(home: Home, supervisor: SupervisorClient) -> list[Action]:
    """Programs to be started by the watchdog: those switched on that were never started. What was stopped stays stopped."""
    enabled = [*enabled_feeds(home.settings), *optional_programs(home.settings)]
    return [
        Action("start", program.name, 0, "is switched on")
        for program in supervisor.list_programs()
        if program.name in enabled and never_started(program)
    ]


def _recovery_due_reason(home: Home, schedules: Sequence[Schedule]) -> str:
    """Why a recovery run is due, "" if none is or if unknown."""
    try:
        day = schedule_state(home, schedules).due
    except OSError as error:
        logger.warning("{}: unknown whether recovery is due: {}", ON_CALL, error)
        return ""
    return f"recovery of {day} is due" if day else ""


def _read_own_vitals(home: Home, program: Program) -> VitalsSnapshot | None:
    """The vitals of this very process; None without a page of this version."""
    try:
        vitals = read_snapshot(home.vitals_path(program.name))
    except (FileNotFoundError, VitalsError):
        return None
    return vitals if program.pid and vitals.pid == program.pid else None


def execute(action: Action, supervisor: SupervisorClient) -> None:
    """Signal, start or report; a process that has exited meanwhile needs neither."""
    if action.command == "alarm":
        logger.error("{}: {}", action.name, action.reason)
        return
    logger.warning("{}: {}: {}", action.name, action.reason, action.command)
    try:
        if action.command == "start":
            supervisor.start_program(action.name)
        else:
            os.kill(action.pid, getattr(signal, action.command))
    except (ProcessLookupError, SupervisorError, xmlrpc.client.Error) as error:
        logger.warning("{}: {} came too late: {}", action.name, action.command, error)


def main() -> int:
    """Reserve the real stdout for the protocol: one stray print there would end the protocol for ever."""
    protocol = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return run_process(NAME, lambda home, stop: watch(home, stop, protocol))


if __name__ == "__main__":
    sys.exit(main())
