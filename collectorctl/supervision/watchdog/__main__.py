"""supervisord's event listener: looks every five seconds, does what the rules say.

    supervisord ──TICK_5──> watchdog ──signals──> kis, kiwoom, writer
                <──start──────┘

Promises: stdout carries the listener protocol and nothing else; beats every second; stands down when supervisord stops.
Leaves to others: what is wrong with a process (rules.py), starting again what ended (supervisord).
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
import xmlrpc.client
from collections.abc import Callable
from typing import TextIO

from loguru import logger
from supervisor import childutils

from brokers.registry import BROKERS
from collectorctl.recover.schedule.schedule import Schedule
from collectorctl.recover.schedule.state import PROGRAM as ON_CALL
from collectorctl.recover.schedule.state import outlook
from collectorctl.supervision.status import HEALTHY, is_at_rest, lines_of, own_memory_mb
from collectorctl.supervision.supervisor import Daemon, DaemonError, Program
from collectorctl.supervision.watchdog.policy import Dog, Limits, Order, Seen
from conf.home import Home
from conf.process import Stop, run
from ringbuf.vitals import Reading, Vitals, VitalsError, read

NAME = "watchdog"
BEAT_S = 1.0


def watch(home: Home, stop: Stop, protocol: TextIO) -> None:
    """Answer supervisord's events until asked to stop."""
    vitals = Vitals.create(home.vitals(NAME), NAME)
    table = home.settings.watchdog
    memory_mb = {name: getattr(table, f"{name}_memory_mb") for name in (*BROKERS, "fill", "writer")}
    dog = Dog(Limits(table.stale_s, table.start_s, table.leave_s, table.revive_s, memory_mb))
    daemon = Daemon(home)
    schedule = Schedule(home.settings, home.calendar())
    standing_down = False
    vitals.say("running")
    there = tell(protocol, childutils.listener.ready)
    while there and not stop.requested:
        vitals.beat()
        if not select.select([sys.stdin], [], [], BEAT_S)[0]:
            continue
        line = sys.stdin.readline()
        if not line:
            break  # supervisord is gone
        headers = childutils.get_headers(line)
        sys.stdin.read(int(headers["len"]))
        if headers["eventname"] == "SUPERVISOR_STATE_CHANGE_STOPPING":
            standing_down = True
            logger.info("supervisord stops: standing down")
        elif headers["eventname"].startswith("TICK") and not standing_down:
            try:
                orders = [*dog.look(seen(home, daemon, schedule), time.monotonic()), *first_starts(home, daemon)]
            except DaemonError as error:  # supervisord itself stands still: nothing can be said about the others
                logger.warning("{}", error)
                orders = []
            for order in orders:
                carry_out(order, daemon)
                vitals.add("orders")
        there = tell(protocol, childutils.listener.ok, childutils.listener.ready)
    vitals.say("stopped")


def tell(protocol: TextIO, *words: Callable[[TextIO], None]) -> bool:
    """Say these words of the protocol; False when supervisord is gone, which may be noticed here sooner than by the signal."""
    try:
        for word in words:
            word(protocol)
    except BrokenPipeError:
        return False
    return True


def seen(home: Home, daemon: Daemon, schedule: Schedule) -> list[Seen]:
    """Every process but this one, as it is now."""
    found = []
    for program in daemon.programs():
        if program.name == NAME:
            continue
        memory_mb = own_memory_mb(program.pid) if program.pid else None
        vitals = _page(home, program)
        age_s = (time.monotonic_ns() - vitals.beat_mono_ns) / 1e9 if vitals else None
        works = vitals is not None and vitals.state in HEALTHY
        due = _due(home, schedule) if program.name == ON_CALL and not program.held_down else ""
        found.append(Seen(program.name, program.state, program.pid, age_s, works, memory_mb, due))
    return found


def first_starts(home: Home, daemon: Daemon) -> list[Order]:
    """Programs that supervisord leaves to us: lines that are switched on and were never started. What was stopped stays so."""
    wanted = lines_of(home.settings)
    return [
        Order("start", program.name, 0, "is switched on")
        for program in daemon.programs()
        if program.name in wanted and is_at_rest(program)
    ]


def _due(home: Home, schedule: Schedule) -> str:
    """Why a round of recovery is due, "" if none is or nobody can tell."""
    try:
        day = outlook(home, schedule).due
    except OSError as error:
        logger.warning("{}: whether recovery is due cannot be told: {}", ON_CALL, error)
        return ""
    return f"recovery of {day} is due" if day else ""


def _page(home: Home, program: Program) -> Reading | None:
    """The vitals of this very process."""
    try:
        vitals = read(home.vitals(program.name))
    except (FileNotFoundError, VitalsError):
        return None
    return vitals if program.pid and vitals.pid == program.pid else None


def carry_out(order: Order, daemon: Daemon) -> None:
    """Signal or start; a process that is gone meanwhile needs neither."""
    logger.warning("{}: {}: {}", order.name, order.why, order.what)
    try:
        if order.what == "start":
            daemon.start_program(order.name)
        else:
            os.kill(order.pid, getattr(signal, order.what))
    except (ProcessLookupError, DaemonError, xmlrpc.client.Error) as error:
        logger.warning("{}: {} came too late: {}", order.name, order.what, error)


def main() -> int:
    """Keep the real stdout for the protocol: one stray print there would end the dialogue for ever (practice 4.1)."""
    protocol = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return run(NAME, lambda home, stop: watch(home, stop, protocol))


if __name__ == "__main__":
    sys.exit(main())
